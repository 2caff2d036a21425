//! This module has the numbers of the vfio-user protocol 0.1 (QEMU's `docs/interop/vfio-user.rst`)
//! and of `<linux/vfio.h>`, whose structures it carries. Everything on the wire is in host byte
//! order, which is little-endian here.
#![allow(missing_docs, reason = "the names are the specification's")]

/// Protocol version that is proposed: major, minor.
pub const VERSION: (u16, u16) = (0, 1);

/// Commands ("Commands").
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const DEVICE_GET_INFO: u16 = 4;
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    pub const DEVICE_GET_REGION_IO_FDS: u16 = 6;
    pub const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub const DEVICE_SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const DEVICE_RESET: u16 = 13;

    /// Returns a command's name, for messages.
    pub fn name(command: u16) -> &'static str {
        match command {
            VERSION => "VFIO_USER_VERSION",
            DMA_MAP => "VFIO_USER_DMA_MAP",
            DMA_UNMAP => "VFIO_USER_DMA_UNMAP",
            DEVICE_GET_INFO => "VFIO_USER_DEVICE_GET_INFO",
            DEVICE_GET_REGION_INFO => "VFIO_USER_DEVICE_GET_REGION_INFO",
            DEVICE_GET_REGION_IO_FDS => "VFIO_USER_DEVICE_GET_REGION_IO_FDS",
            DEVICE_GET_IRQ_INFO => "VFIO_USER_DEVICE_GET_IRQ_INFO",
            DEVICE_SET_IRQS => "VFIO_USER_DEVICE_SET_IRQS",
            REGION_READ => "VFIO_USER_REGION_READ",
            REGION_WRITE => "VFIO_USER_REGION_WRITE",
            DEVICE_RESET => "VFIO_USER_DEVICE_RESET",
            _ => "unknown vfio-user command",
        }
    }
}

/// Length of a message header in bytes ("Header").
pub const HEADER_SIZE: usize = 16;
/// Header flags ("Header").
pub mod flags {
    /// Mask of the message's type, bits 0 to 3.
    pub const TYPE_MASK: u32 = 0xf;
    pub const TYPE_COMMAND: u32 = 0;
    pub const TYPE_REPLY: u32 = 1;
    pub const NO_REPLY: u32 = 1 << 4;
    pub const ERROR: u32 = 1 << 5;
}

/// Number of descriptors per message that a peer takes if it names no limit ("Capabilities").
pub const DEFAULT_MAX_MSG_FDS: usize = 1;
/// Number of bytes per region access that a peer takes if it names no limit ("Capabilities").
pub const DEFAULT_MAX_DATA_XFER_SIZE: usize = 1 << 20;

/// `DMA_MAP` flags.
pub const DMA_READABLE: u32 = 1 << 0;
pub const DMA_WRITEABLE: u32 = 1 << 1;

/// `VFIO_DEVICE_FLAGS_PCI`.
pub const DEVICE_IS_PCI: u32 = 1 << 1;

/// Region indices of a PCI device (`VFIO_PCI_*_REGION_INDEX`); BAR n is region n.
pub const REGION_CONFIG: u32 = 7;

/// Interrupt indices of a PCI device (`VFIO_PCI_*_IRQ_INDEX`).
pub const IRQ_MSIX: u32 = 2;

/// `SET_IRQS` flags (`VFIO_IRQ_SET_*`).
pub mod irq_set {
    pub const DATA_NONE: u32 = 1 << 0;
    pub const DATA_EVENTFD: u32 = 1 << 2;
    pub const ACTION_TRIGGER: u32 = 1 << 5;
}

/// Sub-region types of `DEVICE_GET_REGION_IO_FDS`.
pub const IO_FD_TYPE_IOEVENTFD: u32 = 0;
/// `KVM_IOEVENTFD_FLAG_DATAMATCH`: only a write of the given value rings.
pub const IOEVENTFD_DATAMATCH: u32 = 1 << 0;
