//! This module says what a device offers on its socket: the [`Device`] trait and the types of its
//! methods.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use manifold_socket::{Disconnect, Peer};
use rustix::io::Errno;

use crate::spec;

/// A device that a client attaches to through a socket of its own.
///
/// `info`, `region_info`, `irq_info` and `dma_limits` describe the device and may be called at any
/// time. The others have a fixed order: [`attached`](Self::attached) comes first; requests follow,
/// one at a time and in the order the client sent them; [`detached`](Self::detached) comes last and
/// exactly once. All run on the connection's own thread, so a method that takes its time delays
/// this client and nobody else. The next client's `attached` comes after the previous one's
/// `detached` has returned.
///
/// An `Err` becomes an error reply with that errno and leaves the connection as it is.
pub trait Device: Send + Sync + 'static {
    /// Returns how many regions and interrupt types there are. It is constant while a client is
    /// attached.
    fn info(&self) -> DeviceInfo;

    /// Returns region `index`, below [`DeviceInfo::regions`]. `None` is answered as a region of
    /// size 0. Size, permissions and mapping are read once per client, when it attaches.
    fn region_info(&self, index: u32) -> Option<RegionInfo>;

    /// Returns interrupt type `index`, below [`DeviceInfo::irqs`]. `None` is answered as a type
    /// with no interrupts. This is called once per client, when it attaches.
    fn irq_info(&self, index: u32) -> Option<IrqInfo>;

    /// Returns what the client is told about DMA mappings. [`dma_map`](Self::dma_map) has to
    /// enforce it.
    fn dma_limits(&self) -> DmaLimits {
        DmaLimits::default()
    }

    /// Reads `data.len()` bytes at `offset` of `region`. The range is inside the region, the region
    /// is readable and the length is at least 1 and at most the negotiated transfer size.
    ///
    /// # Errors
    /// The errno the client is to see.
    fn region_read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Writes `data` at `offset` of `region`, with the limits of
    /// [`region_read`](Self::region_read).
    ///
    /// # Errors
    /// The errno the client is to see, unless it posted the write.
    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno>;

    /// Returns descriptors that stand for writes to parts of `region` (doorbells). A hypervisor can
    /// signal them without the client. The client gets as many, from the first, as its limit on
    /// descriptors allows.
    ///
    /// # Errors
    /// The errno the client is to see.
    fn region_io_fds(&self, region: u32) -> Result<Vec<IoFd>, Errno> {
        let _ = region;
        Ok(Vec::new())
    }

    /// Configures or signals interrupts. `start` and `count` are inside the type's range.
    ///
    /// # Errors
    /// The errno the client is to see.
    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno>;

    /// Adds a DMA mapping. `size` is not 0 and the range does not wrap. The device judges alignment
    /// and overlap.
    ///
    /// # Errors
    /// The errno the client is to see: `EEXIST` for a range that is mapped already, `ENOSPC` for
    /// too many mappings.
    fn dma_map(&self, map: DmaMap) -> Result<(), Errno>;

    /// Removes the mappings of `[iova, iova + size)`. On return nothing can touch that memory any
    /// more.
    ///
    /// # Errors
    /// The errno the client is to see: `ENOENT` where nothing is mapped, `EINVAL` for a part of a
    /// mapping.
    fn dma_unmap(&self, iova: u64, size: u64) -> Result<(), Errno>;

    /// Removes all mappings, as [`dma_unmap`](Self::dma_unmap) does.
    ///
    /// # Errors
    /// The errno the client is to see.
    fn dma_unmap_all(&self) -> Result<(), Errno>;

    /// Resets the function, as a function-level reset does. DMA mappings and interrupt eventfds
    /// stay.
    ///
    /// # Errors
    /// The errno the client is to see.
    fn reset(&self) -> Result<(), Errno>;

    /// Gives the device to a client that has agreed on a version and is about to be told so.
    ///
    /// # Errors
    /// The errno the client is refused with, `EBUSY` for example; no other method is called for it
    /// then.
    fn attached(&self, peer: &Peer) -> Result<(), Errno> {
        let _ = peer;
        Ok(())
    }

    /// Takes the device from a client that is gone, for the reason given. The device must let go of
    /// its mappings and eventfds (vfio-user, "Client Disconnection").
    fn detached(&self, how: &Disconnect);
}

/// The answer to `VFIO_USER_DEVICE_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Number of regions, at most [`MAX_REGIONS`](Self::MAX_REGIONS); more are not reported.
    pub regions: u32,
    /// Number of interrupt types, at most [`MAX_IRQS`](Self::MAX_IRQS); more are not reported.
    pub irqs: u32,
    /// True if `VFIO_USER_DEVICE_RESET` works.
    pub resettable: bool,
}

impl DeviceInfo {
    /// Number of regions that QEMU accepts from a server.
    pub const MAX_REGIONS: u32 = 100;
    /// Number of interrupt types that QEMU accepts from a server.
    pub const MAX_IRQS: u32 = 50;

    /// Returns a PCI device with the standard regions and interrupt types that can be reset.
    #[must_use]
    pub const fn pci() -> Self {
        Self { regions: spec::PCI_NUM_REGIONS, irqs: spec::PCI_NUM_IRQS, resettable: true }
    }
}

/// One region of a device.
#[derive(Clone, Debug, Default)]
pub struct RegionInfo {
    /// Size in bytes; 0 for a region that does not exist.
    pub size: u64,
    /// True if the client may read the region.
    pub readable: bool,
    /// True if the client may write the region.
    pub writable: bool,
    /// Memory that the client can map, wholly or in part; `None` if the region is reached by
    /// messages only.
    ///
    /// A mappable region costs: QEMU stops posting writes to a device that has one.
    pub mapping: Option<RegionMapping>,
}

impl RegionInfo {
    /// Returns a region of `size` bytes that is read and written by messages.
    #[must_use]
    pub const fn messages(size: u64) -> Self {
        Self { size, readable: true, writable: true, mapping: None }
    }
}

/// The place of a mappable region's memory.
#[derive(Clone, Debug)]
pub struct RegionMapping {
    /// File to map.
    pub fd: Arc<OwnedFd>,
    /// Offset in the file of the region's first byte; a multiple of the page size.
    pub offset: u64,
    /// Parts that can be mapped, page-aligned; if empty, the whole region can be.
    pub areas: Vec<MmapArea>,
}

/// A part of a region that can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapArea {
    /// Offset in bytes from the start of the region.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// One interrupt type of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// Number of interrupts of this type; 0 for a type that does not exist.
    pub count: u32,
    /// True if the client can mask and unmask the interrupts by message.
    pub maskable: bool,
    /// True if the interrupts mask themselves when they fire (INTx).
    pub automasked: bool,
    /// True if the interrupts are set up as a set: to add one, all have to be disabled first.
    pub fixed_set: bool,
}

impl IrqInfo {
    /// Returns `count` interrupts, each signalled through an eventfd, that can be set up one by
    /// one.
    #[must_use]
    pub const fn eventfds(count: u32) -> Self {
        Self { count, maskable: false, automasked: false, fixed_set: false }
    }
}

/// Limits on DMA mappings that the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaLimits {
    /// Number of mappings that can exist at one time. The client is told the lower of this and its
    /// own number.
    pub max_maps: u64,
    /// Supported page sizes, or'ed together; the lowest bit is the granularity of addresses and
    /// sizes.
    pub page_sizes: u64,
}

impl Default for DmaLimits {
    /// Returns what the protocol assumes: 65,535 mappings of 4 KiB pages.
    fn default() -> Self {
        Self { max_maps: spec::DEFAULT_MAX_DMA_MAPS, page_sizes: spec::DEFAULT_PAGE_SIZES }
    }
}

/// A descriptor that stands for writes to a part of a region (an ioeventfd).
#[derive(Clone, Debug)]
pub struct IoFd {
    /// Offset in bytes from the start of the region.
    pub offset: u64,
    /// Width of the writes in bytes; 0 for any.
    pub size: u64,
    /// Value whose write alone signals the eventfd; `None` if every write does.
    pub datamatch: Option<u64>,
    /// The eventfd. Entries that share one `Arc` share one descriptor in the message.
    pub fd: Arc<OwnedFd>,
}

/// A `VFIO_USER_DEVICE_SET_IRQS` request.
#[derive(Debug)]
pub struct SetIrqs {
    /// Index of the interrupt type.
    pub index: u32,
    /// Number of the first interrupt.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// Action to be done.
    pub action: IrqAction,
    /// Data that the action is done with.
    pub data: IrqData,
}

impl SetIrqs {
    /// Reports whether the request disables all interrupts of the type and lets go of their
    /// eventfds.
    #[must_use]
    pub fn is_disable_all(&self) -> bool {
        self.count == 0 && self.action == IrqAction::Trigger && matches!(self.data, IrqData::None)
    }
}

/// The action that a [`SetIrqs`] request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Interrupts are masked, or get the eventfd that reports masking.
    Mask,
    /// Interrupts are unmasked, or get the eventfd that unmasks.
    Unmask,
    /// Interrupts fire, or get the eventfd that they fire through.
    Trigger,
}

/// The data that a [`SetIrqs`] request brings along.
#[derive(Debug)]
pub enum IrqData {
    /// There are no data: the action is done now, to the whole range. With `count` 0 and
    /// [`IrqAction::Trigger`] all interrupts are disabled.
    None,
    /// The action is done now to the interrupts whose entry is true. There are `count` entries.
    Bools(Vec<bool>),
    /// Each interrupt gets its eventfd; `None` takes the present one away. There are `count`
    /// entries.
    EventFds(Vec<Option<OwnedFd>>),
}

/// A `VFIO_USER_DMA_MAP` request.
#[derive(Debug)]
pub struct DmaMap {
    /// First address, as the device sees it.
    pub iova: u64,
    /// Size in bytes, at least 1; `iova + size - 1` does not overflow.
    pub size: u64,
    /// True if the device may read.
    pub readable: bool,
    /// True if the device may write. At least one of the two is set.
    pub writable: bool,
    /// Place of the memory.
    pub memory: DmaMemory,
}

/// The place of the memory of a DMA mapping.
#[derive(Debug)]
pub enum DmaMemory {
    /// The memory is in a file to be mapped.
    File {
        /// File with the memory.
        fd: OwnedFd,
        /// Offset in bytes of the mapping's first byte.
        offset: u64,
    },
    /// The client alone can reach the memory: the mapping came without a descriptor, as a VMM's
    /// does when the memory is not shared (QEMU: `memory-backend-memfd,share=on` is missing).
    NotShared,
}
