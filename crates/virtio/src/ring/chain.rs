//! This module reads descriptor chains (virtio 1.3, 2.7.4, 2.7.5, 2.8.5 to 2.8.7).

use manifold_dma::{Access, Pinned, Slice};

use super::error::RingError;
use super::setup::MAX_QUEUE_SIZE;

/// VIRTQ_DESC_F_NEXT: the chain goes on (2.7.5, 2.8.6).
pub(super) const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the device writes to the buffer (2.7.5), or in a used descriptor of a packed
/// ring has written (2.8.3).
pub(super) const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors (2.7.5, 2.8.7).
pub(super) const INDIRECT: u16 = 4;
/// VIRTQ_DESC_F_AVAIL: in a packed ring this says together with [`USED`] whose turn a descriptor is
/// (2.8.1).
pub(super) const AVAIL: u16 = 1 << 7;
/// VIRTQ_DESC_F_USED: in a packed ring this says together with [`AVAIL`] whose turn a descriptor is
/// (2.8.1).
pub(super) const USED: u16 = 1 << 15;
/// Size of a descriptor in bytes.
pub(super) const DESCRIPTOR: usize = 16;

/// A private copy of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) iova: u64,
    pub(super) len: u32,
    /// Bits 48 to 63 of the second half in a packed ring, 32 to 47 in a split one.
    pub(super) flags: u16,
    /// The next descriptor's index (split) or the buffer ID (packed).
    pub(super) link: u16,
}

impl Descriptor {
    /// Reads a struct virtq_desc (2.7.5), as it was in memory.
    #[inline]
    pub(super) fn split([iova, rest]: [u64; 2]) -> Self {
        let rest = u64::from_le(rest);
        Descriptor {
            iova: u64::from_le(iova),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            link: (rest >> 48) as u16,
        }
    }

    /// Reads a struct pvirtq_desc (2.8.13), as it was in memory.
    #[inline]
    pub(super) fn packed([iova, rest]: [u64; 2]) -> Self {
        let rest = u64::from_le(rest);
        Descriptor {
            iova: u64::from_le(iova),
            len: rest as u32,
            flags: (rest >> 48) as u16,
            link: (rest >> 32) as u16,
        }
    }
}

/// One descriptor chain (a buffer, in the words of packed rings) taken from a queue. It is given
/// back by [`super::Burst::complete`] or [`super::Burst::put_back`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Index of the head descriptor in a split ring, buffer ID in a packed one.
    pub head: u16,
    /// Number of ring entries that the chain takes: the descriptors of the chain in a packed ring,
    /// 1 in a split one.
    pub descriptors: u16,
    /// Number of bytes the device may read.
    pub readable: u32,
    /// Number of bytes the device may write.
    pub writable: u32,
}

impl Chain {
    /// Makes the chain of a single direct descriptor.
    #[inline]
    pub(super) fn direct(head: u16, len: u32, access: Access) -> Self {
        let (readable, writable) = match access {
            Access::Read => (len, 0),
            Access::Write => (0, len),
        };
        Chain { head, descriptors: 1, readable, writable }
    }
}

/// The caller's function, which is asked for room for each piece of a buffer.
pub(super) type Each<'e, 'p> = &'e mut dyn FnMut(Slice<'p>, Access) -> bool;

/// A walk along one chain, which collects its buffers and hands on their pieces.
pub(super) struct Walk<'e, 'p> {
    pin: &'p Pinned<'p>,
    each: Each<'e, 'p>,
    readable: u32,
    writable: u32,
    /// True once a device-writable descriptor was seen.
    writing: bool,
    /// Number of pieces that `each` took.
    pieces: usize,
}

/// The outcome of the longer way through a ring, small enough to be returned in registers. The
/// error is in the burst.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Chain(Chain),
    Nothing,
    Error,
}

/// Takes the quick way to a chain that is one direct descriptor: returns its memory and the chain,
/// if the memory was translated a moment ago.
#[inline]
pub(super) fn single<'p>(
    pin: &'p Pinned<'p>,
    head: u16,
    descriptor: Descriptor,
) -> Option<(Slice<'p>, Access, Chain)> {
    let Descriptor { iova, len, flags, .. } = descriptor;
    let access = if flags & WRITE == 0 { Access::Read } else { Access::Write };
    let slice = pin.recall(iova, len as usize, access)?;
    Some((slice, access, Chain::direct(head, len, access)))
}

impl<'e, 'p> Walk<'e, 'p> {
    pub(super) fn new(pin: &'p Pinned<'p>, each: Each<'e, 'p>) -> Self {
        Walk { pin, each, readable: 0, writable: 0, writing: false, pieces: 0 }
    }

    /// Returns the chain that was collected.
    pub(super) fn chain(&self, head: u16, descriptors: u16) -> Chain {
        Chain { head, descriptors, readable: self.readable, writable: self.writable }
    }

    /// Adds the buffer of one descriptor.
    pub(super) fn buffer(&mut self, descriptor: Descriptor) -> Result<(), RingError> {
        let (access, total) = if descriptor.flags & WRITE == 0 {
            if self.writing {
                return Err(RingError::Order);
            }
            (Access::Read, &mut self.readable)
        } else {
            self.writing = true;
            (Access::Write, &mut self.writable)
        };
        *total = total.checked_add(descriptor.len).ok_or(RingError::Length)?;
        let (each, pieces) = (&mut self.each, &mut self.pieces);
        let room =
            self.pin.slices_while(descriptor.iova, descriptor.len as usize, access, |slice| {
                let took = each(slice, access);
                *pieces += usize::from(took);
                took
            })?;
        if room { Ok(()) } else { Err(RingError::TooManyPieces(self.pieces)) }
    }

    /// Adds the chain of a split ring's indirect table (2.7.5.3).
    pub(super) fn linked_table(&mut self, descriptor: Descriptor) -> Result<(), RingError> {
        let table = Table::new(self.pin, descriptor)?;
        let mut index = 0;
        for _ in 0..table.entries {
            if index >= table.entries {
                return Err(RingError::DescriptorIndex { index, size: table.entries });
            }
            let descriptor = Descriptor::split(table.read(index)?);
            if descriptor.flags & INDIRECT != 0 {
                return Err(RingError::Indirect("inside an indirect table"));
            }
            self.buffer(descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.link;
        }
        Err(RingError::Loop(table.entries))
    }

    /// Adds all of a packed ring's indirect table, where WRITE alone means something (2.8.7).
    pub(super) fn whole_table(&mut self, descriptor: Descriptor) -> Result<(), RingError> {
        let table = Table::new(self.pin, descriptor)?;
        (0..table.entries).try_for_each(|index| {
            let descriptor = Descriptor::packed(table.read(index)?);
            self.buffer(descriptor)
        })
    }
}

/// An indirect table. WRITE means nothing in the descriptor that refers to it.
///
/// It may be larger than the queue, up to what any queue may have: the standard forbids drivers to
/// make such a chain, and Linux makes them for small queues.
struct Table<'p> {
    pin: &'p Pinned<'p>,
    iova: u64,
    entries: u16,
    whole: Option<Slice<'p>>,
}

impl<'p> Table<'p> {
    fn new(pin: &'p Pinned<'p>, descriptor: Descriptor) -> Result<Self, RingError> {
        if descriptor.flags & NEXT != 0 {
            return Err(RingError::Indirect("with NEXT set"));
        }
        let len = descriptor.len as usize;
        if len == 0 || !len.is_multiple_of(DESCRIPTOR) {
            return Err(RingError::Indirect("table length not a positive multiple of 16"));
        }
        let entries = u16::try_from(len / DESCRIPTOR).ok().filter(|n| *n <= MAX_QUEUE_SIZE);
        let Some(entries) = entries else {
            return Err(RingError::Indirect("table longer than any queue"));
        };
        let whole = pin.contiguous(descriptor.iova, len, Access::Read)?;
        Ok(Table { pin, iova: descriptor.iova, entries, whole })
    }

    /// Reads entry `index`, which is below `entries`, once.
    fn read(&self, index: u16) -> Result<[u64; 2], RingError> {
        let offset = usize::from(index) * DESCRIPTOR;
        let mut raw = [0; DESCRIPTOR];
        match &self.whole {
            Some(slice) => {
                slice.skip(offset).read(&mut raw);
            }
            None => self.pin.read(self.iova + offset as u64, &mut raw)?,
        }
        let raw = u128::from_le_bytes(raw);
        Ok([(raw as u64).to_le(), ((raw >> 64) as u64).to_le()])
    }
}
