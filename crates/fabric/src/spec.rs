//! This module lists registers and times of the root complex and of the software in front of it.
//! Registers that an endpoint has too are in [`manifold_pci::spec`]. Sections are those of PCIe
//! Base 6.0.

/// Byte that a read returns if nobody answers (section 2.3.2, Root Complex handling of Unsupported
/// Request).
pub const UNCLAIMED: u8 = 0xff;

/// The registers of the type 1 header, a bridge's (section 7.5.1.3).
pub mod bridge {
    /// Header Type of a bridge.
    pub const HEADER_TYPE: u8 = 1;
    /// Class Code of a PCI-to-PCI bridge.
    pub const CLASS_CODE: u32 = 0x06_0400;
    /// Primary Bus Number.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Secondary Bus Number: the bus on the far side.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Subordinate Bus Number: the last bus on the far side.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// I/O Base and I/O Limit, a byte each.
    pub const IO_WINDOW: u16 = 0x1c;
    /// Secondary Status, 16 bits.
    pub const SECONDARY_STATUS: u16 = 0x1e;
    /// Secondary Status: Received Master Abort. A request that was sent downstream came back as
    /// Unsupported Request.
    pub const STATUS_MASTER_ABORT: u16 = 1 << 13;
    /// Memory Base: address bits 31:20 in 15:4.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Memory Limit: address bits 31:20 of the last MiB in 15:4.
    pub const MEMORY_LIMIT: u16 = 0x22;
    /// Prefetchable Memory Base.
    pub const PREFETCHABLE_BASE: u16 = 0x24;
    /// Prefetchable Memory Limit.
    pub const PREFETCHABLE_LIMIT: u16 = 0x26;
    /// Prefetchable Base Upper 32 Bits.
    pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    /// Prefetchable Limit Upper 32 Bits.
    pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
    /// Bits 3:0 of the prefetchable base and limit: there are upper halves.
    pub const PREFETCHABLE_64: u16 = 1;
    /// Mask of the address bits of a base or limit register.
    pub const WINDOW_ADDRESS: u16 = 0xfff0;
    /// Granularity of the memory windows in bytes.
    pub const WINDOW_UNIT: u64 = 1 << 20;
    /// Bridge Control, 16 bits.
    pub const CONTROL: u16 = 0x3e;
    /// Bridge Control: Parity Error Response and SERR# Enable.
    pub const CONTROL_ERRORS: u16 = 1 << 0 | 1 << 1;
    /// Bridge Control: Secondary Bus Reset, hot reset of the link for as long as it is set.
    pub const CONTROL_RESET: u16 = 1 << 6;
}

/// The registers that a root port's PCI Express capability has and an endpoint's lacks (section
/// 7.5.3).
pub mod port {
    /// PCI Express Capabilities: Device/Port Type.
    pub const CAPABILITIES_TYPE: u16 = 0xf0;
    /// Device/Port Type: PCI Express endpoint.
    pub const TYPE_ENDPOINT: u16 = 0x00;
    /// Device/Port Type: root port.
    pub const TYPE_ROOT_PORT: u16 = 0x40;
    /// Root Control, 16 bits.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Root Control: enables of system errors and of the PME interrupt.
    pub const ROOT_CONTROL_WRITABLE: u16 = 0xf;
    /// Device Capabilities 2: ARI Forwarding Supported.
    pub const ARI_FORWARDING_SUPPORTED: u32 = 1 << 5;
    /// Device Control 2: ARI Forwarding Enable.
    pub const ARI_FORWARDING_ENABLE: u16 = 1 << 5;
}

/// The rules that software which enables VFs has to keep (section 9.3.3).
pub mod sriov {
    use std::time::Duration;

    /// Supported Page Sizes and System Page Size: pages of 4 KiB.
    pub const PAGE_SIZE_4K: u32 = 1 << 0;
    /// Time after VF Enable is set in which no request goes to a VF (section 9.3.3.3.1).
    pub const ENABLE_TIME: Duration = Duration::from_millis(100);
    /// Time after VF Enable was set by which a VF that has not answered is broken (section
    /// 9.3.3.3.1).
    pub const BROKEN_TIME: Duration = Duration::from_secs(1);
    /// Time after VF Enable is cleared in which no field of the capability is read, so VFs are not
    /// enabled again either (section 9.3.3.3.1).
    pub const DISABLE_TIME: Duration = Duration::from_secs(1);
}
