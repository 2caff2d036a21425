//! The registers that requests are routed by and that enumeration reads and writes. Sections are
//! those of the PCI Express Base Specification, revision 6.0.

/// Bytes of a configuration space (section 7.2).
pub const CONFIG_SIZE: u16 = 4096;

/// What a read returns that nobody answers (section 2.3.2, Root Complex handling of Unsupported
/// Request).
pub const NOBODY: u8 = 0xff;

/// The configuration space header: registers common to type 0 and type 1 (section 7.5.1.1).
pub mod header {
    /// Vendor ID; FFFFh: no function here, or a VF.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command.
    pub const COMMAND: u16 = 0x04;
    /// Command: Memory Space Enable.
    pub const COMMAND_MEMORY: u16 = 1 << 1;
    /// Command: Bus Master Enable.
    pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
    /// Command: Parity Error Response, SERR# Enable, Interrupt Disable.
    pub const COMMAND_OTHER: u16 = 1 << 6 | 1 << 8 | 1 << 10;
    /// Status.
    pub const STATUS: u16 = 0x06;
    /// Status: there is a capability list.
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
    /// Status, and Secondary Status: error bits that software clears by writing one.
    pub const STATUS_CLEARABLE: u16 = 0xf900;
    /// Status, and Secondary Status: Received Master Abort, a request of this side was answered
    /// with Unsupported Request.
    pub const STATUS_MASTER_ABORT: u16 = 1 << 13;
    /// Revision ID, and Class Code above it.
    pub const REVISION_ID: u16 = 0x08;
    /// Base class and subclass, 16 bits.
    pub const CLASS: u16 = 0x0a;
    /// Base class and subclass of a PCI-to-PCI bridge.
    pub const CLASS_BRIDGE: u16 = 0x0604;
    /// Cache Line Size: writable, without effect.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// Header Type.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// Header Type: the layout's bits; the other is Multi-Function Device.
    pub const HEADER_TYPE_LAYOUT: u8 = 0x7f;
    /// Header Type: an endpoint's layout.
    pub const HEADER_TYPE_0: u8 = 0;
    /// Header Type: a bridge's layout.
    pub const HEADER_TYPE_1: u8 = 1;
    /// First of six BARs (type 0, section 7.5.1.2.1).
    pub const BAR: u16 = 0x10;
    /// Subsystem Vendor ID (type 0).
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Subsystem ID (type 0).
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Capabilities Pointer.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt Line: writable, without effect.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// First byte a capability can be at.
    pub const SIZE: u16 = 0x40;
}

/// A base address register (section 7.5.1.2.1).
pub mod bar {
    /// Number of registers.
    pub const COUNT: usize = 6;
    /// The address is an I/O address.
    pub const IO: u32 = 1 << 0;
    /// Type, of a memory BAR.
    pub const TYPE: u32 = 0b11 << 1;
    /// Type: 64 bits wide, the upper half in the next register.
    pub const TYPE_64: u32 = 0b10 << 1;
    /// Prefetchable.
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// Bits of a memory BAR that are no address.
    pub const FLAGS: u32 = 0xf;
}

/// The type 1 header, a bridge's (section 7.5.1.3).
pub mod bridge {
    /// Primary Bus Number.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Secondary Bus Number: the bus on the far side.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Subordinate Bus Number: the last bus on the far side.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// Secondary Status.
    pub const SECONDARY_STATUS: u16 = 0x1e;
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
    /// The address bits of a base or limit register.
    pub const WINDOW_ADDRESS: u16 = 0xfff0;
    /// Granularity of the memory windows.
    pub const WINDOW_UNIT: u64 = 1 << 20;
    /// Bridge Control.
    pub const CONTROL: u16 = 0x3e;
    /// Bridge Control: Parity Error Response and SERR# Enable.
    pub const CONTROL_OTHER: u16 = 1 << 0 | 1 << 1;
    /// Bridge Control: Secondary Bus Reset, hot reset of the link for as long as it is set.
    pub const CONTROL_RESET: u16 = 1 << 6;
}

/// Capabilities (section 7.5) and extended capabilities (section 7.6.3).
pub mod capability {
    /// Next pointer of a capability.
    pub const NEXT: u16 = 1;
    /// Capabilities that fit a 256-byte space; more hops than this are a loop.
    pub const MAX: usize = 48;
    /// Where the extended capabilities begin.
    pub const EXTENDED: u16 = 0x100;
    /// Extended capabilities that fit the space.
    pub const MAX_EXTENDED: usize = 960;
}

/// The Power Management capability (section 7.5.2).
pub mod power {
    /// Capability ID.
    pub const ID: u8 = 0x01;
    /// Power Management Capabilities.
    pub const CAPABILITIES: u16 = 2;
    /// Power Management Capabilities: version 3 of the PCI power management interface.
    pub const CAPABILITIES_VERSION: u16 = 3;
    /// Power Management Control/Status.
    pub const CONTROL: u16 = 4;
    /// Control/Status: Power State.
    pub const CONTROL_STATE: u16 = 0b11;
    /// Power State: D0, at work.
    pub const D0: u16 = 0;
    /// Power State: D3hot, the lowest with power.
    pub const D3_HOT: u16 = 3;
    /// Control/Status: No_Soft_Reset.
    pub const CONTROL_NO_SOFT_RESET: u16 = 1 << 3;
}

/// The PCI Express capability (section 7.5.3).
pub mod express {
    /// Capability ID.
    pub const ID: u8 = 0x10;
    /// PCI Express Capabilities.
    pub const CAPABILITIES: u16 = 0x02;
    /// PCI Express Capabilities: version 2.
    pub const CAPABILITIES_VERSION: u16 = 2;
    /// PCI Express Capabilities: Device/Port Type.
    pub const CAPABILITIES_TYPE: u16 = 0xf0;
    /// Device/Port Type: PCI Express endpoint.
    pub const TYPE_ENDPOINT: u16 = 0x00;
    /// Device/Port Type: root port.
    pub const TYPE_ROOT_PORT: u16 = 0x40;
    /// Device Capabilities.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device Capabilities: Max_Payload_Size Supported of 256 bytes, Role-Based Error Reporting.
    pub const DEVICE_CAPABILITIES_VALUE: u32 = 1 | 1 << 15;
    /// Device Control.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Device Control: error reporting and Max_Payload_Size.
    pub const DEVICE_CONTROL_WRITABLE: u16 = 0xf | 0b111 << 5;
    /// Device Status.
    pub const DEVICE_STATUS: u16 = 0x0a;
    /// Device Status: errors detected, cleared by writing one.
    pub const DEVICE_STATUS_CLEARABLE: u16 = 0xf;
    /// Link Capabilities.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Speed 5.0 GT/s, 16 lanes: in Link Capabilities and Link Status.
    pub const LINK_SPEED_AND_WIDTH: u16 = 2 | 16 << 4;
    /// Link Capabilities: ASPM Optionality Compliance.
    pub const LINK_ASPM_OPTIONALITY: u32 = 1 << 22;
    /// Link Control.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Link Control: Common Clock Configuration and Extended Synch.
    pub const LINK_CONTROL_WRITABLE: u16 = 1 << 6 | 1 << 7;
    /// Link Status.
    pub const LINK_STATUS: u16 = 0x12;
    /// Root Control.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Root Control: system error and PME interrupt enables.
    pub const ROOT_CONTROL_WRITABLE: u16 = 0xf;
    /// Device Capabilities 2 (section 7.5.3.15).
    pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
    /// Device Capabilities 2: ARI Forwarding Supported.
    pub const ARI_FORWARDING_SUPPORTED: u32 = 1 << 5;
    /// Device Control 2 (section 7.5.3.16).
    pub const DEVICE_CONTROL_2: u16 = 0x28;
    /// Device Control 2: ARI Forwarding Enable.
    pub const ARI_FORWARDING_ENABLE: u16 = 1 << 5;
    /// Link Capabilities 2.
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Link Capabilities 2: Supported Link Speeds Vector, 2.5 and 5.0 GT/s.
    pub const LINK_SPEEDS: u32 = 0b11 << 1;
    /// Link Control 2.
    pub const LINK_CONTROL_2: u16 = 0x30;
    /// Link Control 2: Target Link Speed.
    pub const LINK_CONTROL_2_TARGET: u16 = 0xf;
}

/// Alternative Routing-ID Interpretation (sections 6.13 and 7.8.8).
pub mod ari {
    /// Extended capability ID.
    pub const ID: u16 = 0x000e;
}

/// Single Root I/O Virtualization (section 9.3.3).
pub mod sriov {
    use std::time::Duration;

    pub use manifold_pci::spec::sriov::{
        CONTROL, CONTROL_ARI, CONTROL_VF_ENABLE, CONTROL_VF_MSE, FIRST_VF_OFFSET, ID, NUM_VFS,
        SUPPORTED_PAGE_SIZES, SYSTEM_PAGE_SIZE, TOTAL_VFS, VF_BAR0 as VF_BAR, VF_DEVICE_ID,
        VF_STRIDE,
    };

    /// A page size bit: 4 KiB.
    pub const PAGE_SIZE_4K: u32 = 1 << 0;

    /// After VF Enable is set, no request goes to a VF for so long (section 9.3.3.3.1).
    pub const ENABLE_TIME: Duration = Duration::from_millis(100);
    /// A VF that does not answer so long after VF Enable was set is broken (section 9.3.3.3.1).
    pub const BROKEN_TIME: Duration = Duration::from_secs(1);
    /// After VF Enable is cleared, no field of the capability is read for so long, so VFs are not
    /// enabled again either (section 9.3.3.3.1).
    pub const DISABLE_TIME: Duration = Duration::from_secs(1);
}
