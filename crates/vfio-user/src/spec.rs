//! This module lists the numbers of the vfio-user protocol and of the VFIO structures it borrows.
//!
//! Sources: *vfio-user Protocol Specification* (QEMU `docs/interop/vfio-user`, formerly
//! libvfio-user), cited below as "vfio-user" with the section's name; `<linux/vfio.h>`, cited as
//! "vfio.h". All integers are in the byte order of the host (vfio-user, "Protocol Specification").

/// Major version of the protocol; both sides must agree (vfio-user, "VFIO_USER_VERSION").
pub const MAJOR: u16 = 0;
/// Highest minor version this server answers to; it replies with the lower of this and the
/// client's.
pub const MINOR: u16 = 1;

/// Size of the header before every message in bytes (vfio-user, "Header").
pub const HEADER_SIZE: usize = 16;

/// Mask of the message's type, bits 0 to 3 of the header's flags.
pub const TYPE_MASK: u32 = 0xf;
/// Type of a request.
pub const TYPE_COMMAND: u32 = 0;
/// Type of a reply.
pub const TYPE_REPLY: u32 = 1;
/// Header flag: the sender wants no reply.
pub const FLAG_NO_REPLY: u32 = 1 << 4;
/// Header flag: the reply reports an error and has no payload.
pub const FLAG_ERROR: u32 = 1 << 5;

/// Number of descriptors that a sender is taken to accept in one message if it does not say
/// (vfio-user, "VFIO_USER_VERSION").
pub const DEFAULT_MAX_MSG_FDS: u32 = 1;
/// Largest `count` of a data transfer if the sender does not say, in bytes.
pub const DEFAULT_MAX_DATA_XFER_SIZE: u64 = 1 << 20;
/// Number of mappings that can exist at one time if the sender does not say.
pub const DEFAULT_MAX_DMA_MAPS: u64 = 65_535;
/// Page sizes of DMA mappings if the sender does not say: 4 KiB only. Each bit that is set stands
/// for a supported size.
pub const DEFAULT_PAGE_SIZES: u64 = 4096;

/// Size of `struct vfio_device_info` in bytes as vfio-user knows it (without `cap_offset`).
pub const DEVICE_INFO_SIZE: u32 = 16;
/// `struct vfio_device_info.flags`: `VFIO_USER_DEVICE_RESET` works (vfio.h,
/// `VFIO_DEVICE_FLAGS_RESET`).
pub const DEVICE_FLAG_RESET: u32 = 1 << 0;
/// `struct vfio_device_info.flags`: a PCI device (vfio.h, `VFIO_DEVICE_FLAGS_PCI`).
pub const DEVICE_FLAG_PCI: u32 = 1 << 1;

/// `struct vfio_region_info.flags`: the client may read (vfio.h, `VFIO_REGION_INFO_FLAG_READ`).
pub const REGION_FLAG_READ: u32 = 1 << 0;
/// `struct vfio_region_info.flags`: the client may write (vfio.h, `VFIO_REGION_INFO_FLAG_WRITE`).
pub const REGION_FLAG_WRITE: u32 = 1 << 1;
/// `struct vfio_region_info.flags`: the client may map (vfio.h, `VFIO_REGION_INFO_FLAG_MMAP`).
pub const REGION_FLAG_MMAP: u32 = 1 << 2;
/// `struct vfio_region_info.flags`: capabilities follow (vfio.h, `VFIO_REGION_INFO_FLAG_CAPS`).
pub const REGION_FLAG_CAPS: u32 = 1 << 3;
/// Region capability: the areas that can be mapped (vfio.h, `VFIO_REGION_INFO_CAP_SPARSE_MMAP`).
pub const REGION_CAP_SPARSE_MMAP: u16 = 1;

/// Size of `struct vfio_irq_info` in bytes.
pub const IRQ_INFO_SIZE: u32 = 16;
/// `struct vfio_irq_info.flags`: eventfds signal (vfio.h, `VFIO_IRQ_INFO_EVENTFD`).
pub const IRQ_FLAG_EVENTFD: u32 = 1 << 0;
/// `struct vfio_irq_info.flags`: the client can mask (vfio.h, `VFIO_IRQ_INFO_MASKABLE`).
pub const IRQ_FLAG_MASKABLE: u32 = 1 << 1;
/// `struct vfio_irq_info.flags`: firing masks (vfio.h, `VFIO_IRQ_INFO_AUTOMASKED`).
pub const IRQ_FLAG_AUTOMASKED: u32 = 1 << 2;
/// `struct vfio_irq_info.flags`: all are set up at once (vfio.h, `VFIO_IRQ_INFO_NORESIZE`).
pub const IRQ_FLAG_NORESIZE: u32 = 1 << 3;

/// `struct vfio_irq_set.flags`: there are no data (vfio.h, `VFIO_IRQ_SET_DATA_NONE`).
pub const IRQ_SET_DATA_NONE: u32 = 1 << 0;
/// `struct vfio_irq_set.flags`: data are booleans (vfio.h, `VFIO_IRQ_SET_DATA_BOOL`).
pub const IRQ_SET_DATA_BOOL: u32 = 1 << 1;
/// `struct vfio_irq_set.flags`: data are eventfds (vfio.h, `VFIO_IRQ_SET_DATA_EVENTFD`).
pub const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
/// `struct vfio_irq_set.flags`: mask (vfio.h, `VFIO_IRQ_SET_ACTION_MASK`).
pub const IRQ_SET_ACTION_MASK: u32 = 1 << 3;
/// `struct vfio_irq_set.flags`: unmask (vfio.h, `VFIO_IRQ_SET_ACTION_UNMASK`).
pub const IRQ_SET_ACTION_UNMASK: u32 = 1 << 4;
/// `struct vfio_irq_set.flags`: fire (vfio.h, `VFIO_IRQ_SET_ACTION_TRIGGER`).
pub const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// `VFIO_USER_DMA_MAP` flag: the device may read (vfio-user, "VFIO_USER_DMA_MAP").
pub const DMA_MAP_READ: u32 = 1 << 0;
/// `VFIO_USER_DMA_MAP` flag: the device may write.
pub const DMA_MAP_WRITE: u32 = 1 << 1;
/// `VFIO_USER_DMA_MAP` flag of libvfio-user since 2026: the descriptor is to be mapped (implied by
/// a descriptor).
pub const DMA_MAP_MMAP: u32 = 1 << 2;
/// `VFIO_USER_DMA_MAP` flag of libvfio-user since 2026: the descriptor is to be used with `pread`
/// and `pwrite`.
pub const DMA_MAP_FILE_IO: u32 = 1 << 3;
/// `VFIO_USER_DMA_UNMAP` flag: the reply has a bitmap of dirty pages (vfio.h,
/// `VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP`).
pub const DMA_UNMAP_GET_DIRTY_BITMAP: u32 = 1 << 0;
/// `VFIO_USER_DMA_UNMAP` flag: all mappings are removed (vfio.h, `VFIO_DMA_UNMAP_FLAG_ALL`).
pub const DMA_UNMAP_ALL: u32 = 1 << 1;

/// Sub-region type: an ioeventfd (vfio-user, "VFIO_USER_DEVICE_GET_REGION_IO_FDS").
pub const IO_FD_TYPE_IOEVENTFD: u32 = 0;
/// Sub-region flag: signal only if the value written matches (`KVM_IOEVENTFD_FLAG_DATAMATCH`).
pub const IO_FD_FLAG_DATAMATCH: u32 = 1 << 0;

/// Region index of BAR 0 of a PCI device; BAR 0 to BAR 5 are 0 to 5 (vfio.h,
/// `VFIO_PCI_BAR0_REGION_INDEX`).
pub const PCI_BAR0_REGION: u32 = 0;
/// Region index of the expansion ROM (vfio.h, `VFIO_PCI_ROM_REGION_INDEX`).
pub const PCI_ROM_REGION: u32 = 6;
/// Region index of the configuration space (vfio.h, `VFIO_PCI_CONFIG_REGION_INDEX`).
pub const PCI_CONFIG_REGION: u32 = 7;
/// Region index of the legacy VGA ranges (vfio.h, `VFIO_PCI_VGA_REGION_INDEX`).
pub const PCI_VGA_REGION: u32 = 8;
/// Number of regions of a PCI device (vfio.h, `VFIO_PCI_NUM_REGIONS`).
pub const PCI_NUM_REGIONS: u32 = 9;

/// Interrupt type: the INTx line (vfio.h, `VFIO_PCI_INTX_IRQ_INDEX`).
pub const PCI_INTX_IRQ: u32 = 0;
/// Interrupt type: MSI (vfio.h, `VFIO_PCI_MSI_IRQ_INDEX`).
pub const PCI_MSI_IRQ: u32 = 1;
/// Interrupt type: MSI-X (vfio.h, `VFIO_PCI_MSIX_IRQ_INDEX`).
pub const PCI_MSIX_IRQ: u32 = 2;
/// Interrupt type: an error was reported (vfio.h, `VFIO_PCI_ERR_IRQ_INDEX`).
pub const PCI_ERR_IRQ: u32 = 3;
/// Interrupt type: the host wants the device back (vfio.h, `VFIO_PCI_REQ_IRQ_INDEX`).
pub const PCI_REQ_IRQ: u32 = 4;
/// Number of interrupt types of a PCI device (vfio.h, `VFIO_PCI_NUM_IRQS`).
pub const PCI_NUM_IRQS: u32 = 5;
