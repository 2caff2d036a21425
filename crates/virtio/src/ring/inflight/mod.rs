//! This module records which chains a queue has taken and not given back. The record is in memory
//! that outlives the process, the inflight buffer of vhost-user ("Inflight I/O tracking" in its
//! specification). Whoever serves the queue next, after a crash, takes those chains again, in their
//! old order, before new ones.
//!
//! ```text
//!   pop:      the entry is in flight, with a count that says in which order
//!   publish:  1. the entries that are about to be given back are recorded
//!             2. the ring is written
//!             3. the entries are not in flight any more
//!   start:    a batch that stopped between 1 and 3 is finished or undone, as the ring says;
//!             the rest is taken again
//! ```
//!
//! The memory is shared with the VMM. It is read when a queue starts and only written from then on:
//! what it says is checked, once, and can at most make this queue take chains it need not have
//! taken.

mod packed;
mod split;

use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use manifold_dma::SharedMemory;

pub(super) use packed::PackedRecord;
pub(super) use split::SplitRecord;

use super::RingError;

/// Version of the layout; 0 in memory that is not in use yet.
const VERSION: u16 = 1;
/// Offset of `version` in both layouts. `features`, always 0, precedes it.
const VERSION_AT: usize = 8;
/// Offset of `desc_num` in both layouts.
const DESC_NUM_AT: usize = 10;
/// Alignment in bytes of the size of a queue's part.
const ALIGNMENT: usize = 64;

/// A queue's part of an inflight buffer.
#[derive(Clone, Debug)]
pub struct Inflight {
    memory: Arc<SharedMemory>,
    offset: usize,
}

impl Inflight {
    /// Returns the size in bytes of the part of one queue of `queue_size` descriptors. The parts of
    /// a device's queues follow each other, by number; their sum is the `mmap size` of
    /// VHOST_USER_GET_INFLIGHT_FD.
    pub fn size(queue_size: u16, packed: bool) -> usize {
        let bytes = if packed { packed::bytes(queue_size) } else { split::bytes(queue_size) };
        bytes.next_multiple_of(ALIGNMENT)
    }

    /// Makes the part that begins `offset` bytes into `memory`; a part of zeros is new.
    pub fn new(memory: Arc<SharedMemory>, offset: usize) -> Self {
        Inflight { memory, offset }
    }

    /// Checks that the whole part of a queue lies inside the memory.
    pub(super) fn checked(self, queue_size: u16, packed: bool) -> Result<Self, RingError> {
        let needed = if packed { packed::bytes(queue_size) } else { split::bytes(queue_size) };
        match self.memory.slice(self.offset, needed) {
            Some(_) => Ok(self),
            None => {
                Err(RingError::Inflight { offset: self.offset, needed, size: self.memory.len() })
            }
        }
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(slice) = self.memory.slice(self.offset + at, N) {
            slice.read(&mut out);
        }
        out
    }

    fn u8(&self, at: usize) -> u8 {
        u8::from_ne_bytes(self.get(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.get(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.get(at))
    }

    /// Writes `bytes`, after what was written before and before what is written next, as far as
    /// this process can be interrupted in between. Other processes read only after this one has
    /// ended, so no more is needed.
    fn put<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        if let Some(slice) = self.memory.slice(self.offset + at, N) {
            compiler_fence(Ordering::SeqCst);
            slice.write(&bytes);
            compiler_fence(Ordering::SeqCst);
        }
    }

    fn put_u8(&self, at: usize, value: u8) {
        self.put(at, value.to_ne_bytes());
    }

    fn put_u16(&self, at: usize, value: u16) {
        self.put(at, value.to_ne_bytes());
    }

    fn put_u64(&self, at: usize, value: u64) {
        self.put(at, value.to_ne_bytes());
    }
}
