//! This module lists the registers of a PCIe endpoint, as the standard numbers them.
//!
//! Offsets are in bytes, from the start of configuration space ([`header`]) or of the capability.
//! Sections are those of PCIe Base 6.0. Masks and bits are in the register's own width. Nothing
//! here behaves; [`ConfigSpace`](crate::ConfigSpace) does.

pub mod aer;
pub mod express;
pub mod sriov;

/// Size in bytes of a function's configuration space (section 7.2).
pub const CONFIG_SIZE: usize = 4096;
/// Size in bytes of a page, whose boundary a memory request does not cross (section
/// 2.2.7).
pub const PAGE_SIZE: u64 = 4096;

/// The registers of the type 0 configuration space header (sections 7.5.1.1 and 7.5.1.2).
pub mod header {
    /// Vendor ID, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits (section 7.5.1.1.3).
    pub const COMMAND: u16 = 0x04;
    /// Command: Memory Space Enable.
    pub const COMMAND_MEMORY: u16 = 1 << 1;
    /// Command: Bus Master Enable.
    pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
    /// Command: Parity Error Response.
    pub const COMMAND_PARITY: u16 = 1 << 6;
    /// Command: SERR# Enable.
    pub const COMMAND_SERR: u16 = 1 << 8;
    /// Command: Interrupt Disable.
    pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
    /// Status, 16 bits (section 7.5.1.1.4).
    pub const STATUS: u16 = 0x06;
    /// Status: Capabilities List, always set.
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
    /// Status: all bits that software clears by writing one.
    pub const STATUS_CLEARABLE: u16 = 0xf900;
    /// Revision ID in 7:0 and Class Code in 31:8.
    pub const CLASS_REVISION: u16 = 0x08;
    /// Cache Line Size, Latency Timer, Header Type and BIST, a byte each.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// Header Type, 8 bits: 0 for an endpoint.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// Header Type: the bits of the layout, without Multi-Function Device.
    pub const HEADER_TYPE_LAYOUT: u8 = 0x7f;
    /// First of six base address registers (section 7.5.1.2.1).
    pub const BAR0: u16 = 0x10;
    /// Last of six base address registers.
    pub const BAR5: u16 = 0x24;
    /// BAR: the address is an I/O address.
    pub const BAR_IO: u32 = 1 << 0;
    /// BAR: the bits of the memory type.
    pub const BAR_TYPE: u32 = 0b11 << 1;
    /// BAR: memory type of 64 bits.
    pub const BAR_WIDTH64: u32 = 0b10 << 1;
    /// BAR: prefetchable.
    pub const BAR_PREFETCHABLE: u32 = 1 << 3;
    /// BAR: the bits that say what it is, not where.
    pub const BAR_FLAGS: u32 = 0xf;
    /// Subsystem Vendor ID and Subsystem ID, 16 bits each.
    pub const SUBSYSTEM: u16 = 0x2c;
    /// Capabilities Pointer, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt Line and Interrupt Pin, a byte each.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Size of the header in bytes; capabilities follow.
    pub const SIZE: u16 = 0x40;
}

/// The fields of the lists of capabilities (sections 7.5.1.1.11 and 7.6.3).
pub mod list {
    /// Offset where extended capabilities begin.
    pub const EXTENDED: u16 = 0x100;
    /// Next pointer of a capability, 8 bits, from the capability's start.
    pub const NEXT: u16 = 1;
    /// Bit position of the version in an extended capability's header.
    pub const EXTENDED_VERSION_SHIFT: u32 = 16;
    /// Bit position of the next pointer in an extended capability's header.
    pub const EXTENDED_NEXT_SHIFT: u32 = 20;
}

/// The registers of power management (section 7.5.2).
pub mod power {
    /// Capability ID.
    pub const ID: u8 = 0x01;
    /// Size of the capability in bytes.
    pub const SIZE: u16 = 0x08;
    /// Power Management Capabilities, 16 bits.
    pub const PMC: u16 = 0x02;
    /// PMC: version 3, the only one a PCIe function may have.
    pub const PMC_VERSION: u16 = 3;
    /// Power Management Control/Status, 16 bits.
    pub const PMCSR: u16 = 0x04;
    /// PMCSR: PowerState.
    pub const PMCSR_STATE: u16 = 0b11;
    /// PMCSR: the value of PowerState for D0.
    pub const PMCSR_D0: u16 = 0b00;
    /// PMCSR: the value of PowerState for D3hot.
    pub const PMCSR_D3HOT: u16 = 0b11;
    /// PMCSR: No_Soft_Reset.
    pub const PMCSR_NO_SOFT_RESET: u16 = 1 << 3;
}

/// The registers of MSI-X (section 7.7.2).
pub mod msix {
    /// Capability ID.
    pub const ID: u8 = 0x11;
    /// Size of the capability in bytes.
    pub const SIZE: u16 = 0x0c;
    /// Message Control, 16 bits.
    pub const CONTROL: u16 = 0x02;
    /// Message Control: number of vectors less one.
    pub const CONTROL_TABLE_SIZE: u16 = 0x07ff;
    /// Message Control: Function Mask.
    pub const CONTROL_MASK: u16 = 1 << 14;
    /// Message Control: MSI-X Enable.
    pub const CONTROL_ENABLE: u16 = 1 << 15;
    /// Table Offset in 31:3 and Table BIR in 2:0.
    pub const TABLE: u16 = 0x04;
    /// PBA Offset in 31:3 and PBA BIR in 2:0.
    pub const PBA: u16 = 0x08;
    /// Table Offset, PBA Offset: the bits of the BAR indicator.
    pub const BIR: u32 = 0b111;
    /// Largest number of vectors a function can have.
    pub const MAX_VECTORS: u16 = 2048;
    /// Size of a table entry in bytes: message address, upper address, data, vector control.
    pub const ENTRY_SIZE: u64 = 16;
    /// Vector Control: Mask Bit.
    pub const VECTOR_MASKED: u32 = 1 << 0;
}

/// The registers of the vendor-specific capability (section 7.9.4).
pub mod vendor {
    /// Capability ID.
    pub const ID: u8 = 0x09;
    /// Capability Length, 8 bits, counted from the ID.
    pub const LENGTH: u16 = 0x02;
}

/// The registers of Access Control Services (section 7.7.11).
pub mod acs {
    /// Extended capability ID.
    pub const ID: u16 = 0x000d;
    /// Version of the capability.
    pub const VERSION: u8 = 1;
    /// Size of the capability in bytes, without an egress control vector.
    pub const SIZE: u16 = 0x08;
}

/// The registers of Alternative Routing-ID Interpretation (section 7.8.8).
pub mod ari {
    /// Extended capability ID.
    pub const ID: u16 = 0x000e;
    /// Version of the capability.
    pub const VERSION: u8 = 1;
    /// Size of the capability in bytes.
    pub const SIZE: u16 = 0x08;
}

/// The registers of Device Serial Number (section 7.9.3).
pub mod serial {
    /// Extended capability ID.
    pub const ID: u16 = 0x0003;
    /// Version of the capability.
    pub const VERSION: u8 = 1;
    /// Size of the capability in bytes.
    pub const SIZE: u16 = 0x0c;
    /// Serial Number, lower 32 bits.
    pub const LOWER: u16 = 0x04;
    /// Serial Number, upper 32 bits.
    pub const UPPER: u16 = 0x08;
}
