//! This module has the layout, descriptors, used chains and event indices that both kinds of
//! virtqueue share.

use crate::memory::Arena;
use crate::virtio::spec::{packed, ring};
use crate::{Error, Result};

/// Offsets of a queue's three parts in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of entries, a power of two.
    pub size: u16,
    /// Offset of the descriptor table.
    pub desc: usize,
    /// Offset of the available ring.
    pub avail: usize,
    /// Offset of the used ring.
    pub used: usize,
}

impl Layout {
    /// Takes memory for a queue and clears it.
    pub fn alloc(arena: &Arena, size: u16) -> Result<Self> {
        if !size.is_power_of_two() || size > ring::MAX_SIZE {
            return Err(Error::Command(format!(
                "a queue of {size} entries; a power of two up to {} is wanted",
                ring::MAX_SIZE
            )));
        }
        let n = usize::from(size);
        let desc = arena.alloc(ring::DESC * n, 64)?;
        let avail = arena.alloc(ring::AVAIL_RING + 2 * n + 2, 64)?;
        // The device writes to another cache line than the driver.
        let used = arena.alloc(ring::USED_RING + ring::USED_ELEMENT * n + 2, 64)?;
        for span in [desc, avail, used] {
            arena.clear(span)?;
        }
        Ok(Self { size, desc: desc.offset, avail: avail.offset, used: used.offset })
    }

    /// Takes memory for a packed queue and clears it: its ring is at `desc`, the driver's event
    /// suppression at `avail`, the device's at `used`.
    pub fn alloc_packed(arena: &Arena, size: u16) -> Result<Self> {
        if size == 0 || size > ring::MAX_SIZE {
            return Err(Error::Command(format!(
                "a packed queue of {size} entries; 1 to {} are possible",
                ring::MAX_SIZE
            )));
        }
        let desc = arena.alloc(packed::DESC * usize::from(size), 64)?;
        let driver = arena.alloc(packed::EVENT, 64)?;
        // The device writes to another cache line than the driver.
        let device = arena.alloc(packed::EVENT, 64)?;
        for span in [desc, driver, device] {
            arena.clear(span)?;
        }
        Ok(Self { size, desc: desc.offset, avail: driver.offset, used: device.offset })
    }
}

/// Largest number of chains that [`super::Queue::take_many`] takes at once.
pub const BATCH: usize = 64;

/// A descriptor that the device is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Index of the chain's first descriptor.
    pub head: u16,
    /// Number of bytes that the device wrote.
    pub len: u32,
}

/// A descriptor of a split queue or of an indirect table (2.7.5), or of the driver's table of a
/// packed queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptor {
    /// IOVA of the buffer.
    pub iova: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// Flags, the `F_*` bits of [`ring`].
    pub flags: u16,
    /// Index of the chain's next descriptor, with [`ring::F_NEXT`].
    pub next: u16,
}

impl Descriptor {
    /// Writes the descriptor to entry `index` of a table that begins at the offset `table` of the
    /// arena.
    pub fn write(&self, arena: &Arena, table: usize, index: u16) -> Result<()> {
        let Self { iova, len, flags, next } = *self;
        let at = table + usize::from(index) * ring::DESC;
        arena.store_u64(at, iova)?;
        arena.store_u64(at + 8, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48)
    }
}

/// Returns true where moving an index from `old` to `new` passes `event` (2.7.7.1, 2.7.10.1).
pub fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
