//! This module has the registers of a PCI function's configuration space that a driver uses. PCI
//! Express Base 6.0, sections 7.5.1 (header), 7.5.3 (PCI Express capability), 7.7.2 (MSI-X).

/// Command register: 16 bits.
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
pub(crate) const COMMAND_BUS_MASTER: u16 = 1 << 2;
pub(crate) const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Status register: 16 bits.
pub(crate) const STATUS: u16 = 0x06;
pub(crate) const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Offset of vendor and device ID.
pub(crate) const ID: u16 = 0x00;
/// Offset of the first of six Base Address Registers.
pub(crate) const BAR0: u16 = 0x10;
pub(crate) const BAR_IO: u32 = 1 << 0;
pub(crate) const BAR_TYPE_MASK: u32 = 0b110;
pub(crate) const BAR_TYPE_64: u32 = 0b100;
/// Offset of the first capability; the two low bits are reserved.
pub(crate) const CAPABILITIES: u16 = 0x34;

/// Capability IDs.
pub(crate) const CAP_VENDOR: u8 = 0x09;
pub(crate) const CAP_EXPRESS: u8 = 0x10;
pub(crate) const CAP_MSIX: u8 = 0x11;

/// Offset of Message Control, from the start of the MSI-X capability.
pub(crate) const MSIX_CONTROL: u16 = 0x02;
pub(crate) const MSIX_TABLE_SIZE: u16 = 0x7ff;
pub(crate) const MSIX_ENABLE: u16 = 1 << 15;
/// Offset of the field with table offset and BAR indicator.
pub(crate) const MSIX_TABLE: u16 = 0x04;
pub(crate) const MSIX_BIR: u32 = 0b111;
/// Size of an MSI-X table entry in bytes: address (8), data (4), vector control (4).
pub(crate) const MSIX_ENTRY: u64 = 16;

/// Offsets of Device Capabilities and Device Control, from the start of the PCI Express capability.
pub(crate) const DEVICE_CAPABILITIES: u16 = 0x04;
pub(crate) const DEVICE_CAPABILITIES_FLR: u32 = 1 << 28;
pub(crate) const DEVICE_CONTROL: u16 = 0x08;
pub(crate) const DEVICE_CONTROL_FLR: u16 = 1 << 15;
