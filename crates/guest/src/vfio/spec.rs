//! Numbers of the vfio-user protocol 0.1 (QEMU's `docs/interop/vfio-user.rst`) and of `<linux/vfio.h>`, whose
//! structures it carries. Everything on the wire is in host byte order, which is little-endian here.

/// Protocol version proposed: major, minor.
pub(crate) const VERSION: (u16, u16) = (0, 1);

/// Commands ("Commands").
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const DEVICE_GET_INFO: u16 = 4;
    pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(crate) const DEVICE_GET_REGION_IO_FDS: u16 = 6;
    pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(crate) const DEVICE_SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DEVICE_RESET: u16 = 13;

    /// A command's name, for messages.
    pub(crate) fn name(command: u16) -> &'static str {
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

/// Bytes in a message header ("Header").
pub(crate) const HEADER_SIZE: usize = 16;
/// Header flags ("Header").
pub(crate) mod flags {
    /// Bits 0 to 3: the message's type.
    pub(crate) const TYPE_MASK: u32 = 0xf;
    pub(crate) const TYPE_COMMAND: u32 = 0;
    pub(crate) const TYPE_REPLY: u32 = 1;
    pub(crate) const NO_REPLY: u32 = 1 << 4;
    pub(crate) const ERROR: u32 = 1 << 5;
}

/// What the specification says a peer takes when it names no limits ("Capabilities").
pub(crate) const DEFAULT_MAX_MSG_FDS: usize = 1;
/// Likewise, bytes per region access.
pub(crate) const DEFAULT_MAX_DATA_XFER_SIZE: usize = 1 << 20;

/// `DMA_MAP` flags.
pub(crate) const DMA_READABLE: u32 = 1 << 0;
pub(crate) const DMA_WRITEABLE: u32 = 1 << 1;

/// `VFIO_DEVICE_FLAGS_PCI`.
pub(crate) const DEVICE_IS_PCI: u32 = 1 << 1;

/// Region indices of a PCI device (`VFIO_PCI_*_REGION_INDEX`); BAR n is region n.
pub(crate) const REGION_CONFIG: u32 = 7;

/// Interrupt indices of a PCI device (`VFIO_PCI_*_IRQ_INDEX`).
pub(crate) const IRQ_MSIX: u32 = 2;

/// `SET_IRQS` flags (`VFIO_IRQ_SET_*`).
pub(crate) mod irq_set {
    pub(crate) const DATA_NONE: u32 = 1 << 0;
    pub(crate) const DATA_EVENTFD: u32 = 1 << 2;
    pub(crate) const ACTION_TRIGGER: u32 = 1 << 5;
}

/// Sub-region types of `DEVICE_GET_REGION_IO_FDS`.
pub(crate) const IO_FD_TYPE_IOEVENTFD: u32 = 0;
/// `KVM_IOEVENTFD_FLAG_DATAMATCH`: only a write of the given value rings.
pub(crate) const IOEVENTFD_DATAMATCH: u32 = 1 << 0;
