//! This module lists the numbers of Single Root I/O Virtualization (section 9.3.3).

/// Extended capability ID.
pub const ID: u16 = 0x0010;
/// Version of the capability.
pub const VERSION: u8 = 1;
/// Size of the capability in bytes.
pub const SIZE: u16 = 0x40;

/// SR-IOV Capabilities (section 9.3.3.2).
pub const CAPABILITIES: u16 = 0x04;
/// SR-IOV Capabilities: ARI Capable Hierarchy Preserved.
pub const CAPABILITIES_ARI_PRESERVED: u32 = 1 << 1;

/// SR-IOV Control, 16 bits (section 9.3.3.3).
pub const CONTROL: u16 = 0x08;
/// SR-IOV Control: VF Enable.
pub const CONTROL_VF_ENABLE: u16 = 1 << 0;
/// SR-IOV Control: VF MSE (Memory Space Enable).
pub const CONTROL_VF_MSE: u16 = 1 << 3;
/// SR-IOV Control: ARI Capable Hierarchy.
pub const CONTROL_ARI: u16 = 1 << 4;
/// SR-IOV Status, 16 bits (section 9.3.3.4): VF migration only, so always zero here.
pub const STATUS: u16 = 0x0a;

/// InitialVFs, 16 bits (section 9.3.3.5).
pub const INITIAL_VFS: u16 = 0x0c;
/// TotalVFs, 16 bits (section 9.3.3.6).
pub const TOTAL_VFS: u16 = 0x0e;
/// NumVFs, 16 bits (section 9.3.3.7).
pub const NUM_VFS: u16 = 0x10;
/// First VF Offset, 16 bits (section 9.3.3.9).
pub const FIRST_VF_OFFSET: u16 = 0x14;
/// VF Stride, 16 bits (section 9.3.3.10).
pub const VF_STRIDE: u16 = 0x16;
/// VF Device ID, 16 bits (section 9.3.3.11).
pub const VF_DEVICE_ID: u16 = 0x1a;

/// Supported Page Sizes: bit n set for pages of 2^(n+12) bytes (section 9.3.3.12).
pub const SUPPORTED_PAGE_SIZES: u16 = 0x1c;
/// Page sizes every PF must support: 4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB and 4 MiB.
pub const REQUIRED_PAGE_SIZES: u32 = 0x553;
/// System Page Size: one bit, as in Supported Page Sizes (section 9.3.3.13).
pub const SYSTEM_PAGE_SIZE: u16 = 0x20;
/// First of six VF BARs (section 9.3.3.14).
pub const VF_BAR0: u16 = 0x24;
/// Last of six VF BARs.
pub const VF_BAR5: u16 = 0x38;
