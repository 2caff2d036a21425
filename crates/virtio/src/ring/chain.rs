//! Descriptor chains (virtio 1.3, 2.7.4 and 2.7.5).

use manifold_dma::{Access, Pinned, Slice};

use super::{MAX_QUEUE_SIZE, RingError};

/// VIRTQ_DESC_F_NEXT: the chain goes on (2.7.5).
const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the device writes to the buffer (2.7.5).
const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors (2.7.5).
const INDIRECT: u16 = 4;
/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: usize = 16;

#[derive(Clone, Copy)]
struct Descriptor {
    iova: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl From<[u64; 2]> for Descriptor {
    fn from([iova, rest]: [u64; 2]) -> Self {
        let rest = u64::from_le(rest);
        Descriptor {
            iova: u64::from_le(iova),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }
}

/// One descriptor chain taken from a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Index of the head descriptor: what [`super::Burst::complete`] gives back.
    pub head: u16,
    /// Bytes the device may read.
    pub readable: u32,
    /// Bytes the device may write.
    pub writable: u32,
}

/// Follows one chain and hands on the pieces of its buffers.
pub(super) struct Walk<'p, F> {
    pin: &'p Pinned<'p>,
    /// The queue's size.
    size: u16,
    indirect: bool,
    each: F,
    chain: Chain,
    /// A device-writable descriptor was seen.
    writing: bool,
    /// How many pieces `each` took.
    pieces: usize,
}

impl<'p, F: FnMut(Slice<'p>, Access) -> bool> Walk<'p, F> {
    #[inline]
    pub(super) fn new(pin: &'p Pinned<'p>, size: u16, indirect: bool, each: F) -> Self {
        Walk { pin, size, indirect, each, chain: Chain::default(), writing: false, pieces: 0 }
    }

    /// Follows the chain that begins at `head`. `read` reads a descriptor of the queue's table, once; it is called with
    /// indices below the queue's size.
    #[inline]
    pub(super) fn chain(
        mut self,
        head: u16,
        read: impl Fn(u16) -> [u64; 2],
    ) -> Result<Chain, RingError> {
        self.chain.head = head;
        let size = self.size;
        let mut index = head;
        for _ in 0..size {
            if index >= size {
                return Err(RingError::DescriptorIndex { index, size });
            }
            let descriptor = Descriptor::from(read(index));
            if descriptor.flags & INDIRECT != 0 {
                // WRITE means nothing here (2.7.5.3.2).
                self.table(descriptor)?;
                return Ok(self.chain);
            }
            self.buffer(descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(self.chain);
            }
            index = descriptor.next;
        }
        Err(RingError::Loop(size))
    }

    /// Follows an indirect table (2.7.5.3).
    ///
    /// It may be larger than the queue, up to what any queue may have: the standard forbids drivers to make such a chain,
    /// and Linux makes them for small queues.
    fn table(&mut self, table: Descriptor) -> Result<(), RingError> {
        if !self.indirect {
            return Err(RingError::Indirect("not negotiated"));
        }
        if table.flags & NEXT != 0 {
            return Err(RingError::Indirect("with NEXT set"));
        }
        let len = table.len as usize;
        if len == 0 || !len.is_multiple_of(DESCRIPTOR) {
            return Err(RingError::Indirect("table length not a positive multiple of 16"));
        }
        let entries = u16::try_from(len / DESCRIPTOR).ok().filter(|n| *n <= MAX_QUEUE_SIZE);
        let Some(entries) = entries else {
            return Err(RingError::Indirect("table longer than any queue"));
        };
        let whole = self.pin.contiguous(table.iova, len, Access::Read)?;
        let mut index = 0;
        for _ in 0..entries {
            if index >= entries {
                return Err(RingError::DescriptorIndex { index, size: entries });
            }
            let offset = usize::from(index) * DESCRIPTOR;
            let mut raw = [0; DESCRIPTOR];
            match &whole {
                Some(slice) => {
                    slice.skip(offset).read(&mut raw);
                }
                None => self.pin.read(table.iova + offset as u64, &mut raw)?,
            }
            let raw = u128::from_le_bytes(raw);
            let descriptor = Descriptor::from([(raw as u64).to_le(), ((raw >> 64) as u64).to_le()]);
            if descriptor.flags & INDIRECT != 0 {
                return Err(RingError::Indirect("inside an indirect table"));
            }
            self.buffer(descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(RingError::Loop(entries))
    }

    #[inline]
    fn buffer(&mut self, descriptor: Descriptor) -> Result<(), RingError> {
        let (access, total) = if descriptor.flags & WRITE == 0 {
            if self.writing {
                return Err(RingError::Order);
            }
            (Access::Read, &mut self.chain.readable)
        } else {
            self.writing = true;
            (Access::Write, &mut self.chain.writable)
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
}
