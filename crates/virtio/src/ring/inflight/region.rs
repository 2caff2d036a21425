//! This module is a queue's part of an inflight buffer, as memory.

use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use manifold_dma::SharedMemory;

use crate::ring::error::RingError;

/// Version of the layout; 0 in memory that is not in use yet.
pub(super) const VERSION: u16 = 1;
/// Offset of `version` in both layouts. `features`, always 0, precedes it.
pub(super) const VERSION_AT: usize = 8;
/// Offset of `desc_num` in both layouts.
pub(super) const DESC_NUM_AT: usize = 10;
/// Size in bytes of what precedes `desc` in `QueueRegionPacked`, and of one of its elements.
pub(super) const PACKED_HEADER: usize = 32;
pub(super) const PACKED_ENTRY: usize = 32;
/// Size in bytes of what precedes `desc` in `QueueRegionSplit`, and of one of its elements.
pub(super) const SPLIT_HEADER: usize = 16;
pub(super) const SPLIT_ENTRY: usize = 16;
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
        bytes(queue_size, packed).next_multiple_of(ALIGNMENT)
    }

    /// Makes the part that begins `offset` bytes into `memory`; a part of zeros is new.
    pub fn new(memory: Arc<SharedMemory>, offset: usize) -> Self {
        Inflight { memory, offset }
    }

    /// Checks that the whole part of a queue lies inside the memory.
    pub(in crate::ring) fn checked(self, queue_size: u16, packed: bool) -> Result<Self, RingError> {
        let needed = bytes(queue_size, packed);
        match self.memory.slice(self.offset, needed) {
            Some(_) => Ok(self),
            None => {
                Err(RingError::Inflight { offset: self.offset, needed, size: self.memory.len() })
            }
        }
    }

    pub(super) fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(slice) = self.memory.slice(self.offset + at, N) {
            slice.read(&mut out);
        }
        out
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        u8::from_ne_bytes(self.get(at))
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.get(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.get(at))
    }

    /// Writes `bytes`, after what was written before and before what is written next, as far as
    /// this process can be interrupted in between. Other processes read only after this one has
    /// ended, so no more is needed.
    pub(super) fn put<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        if let Some(slice) = self.memory.slice(self.offset + at, N) {
            compiler_fence(Ordering::SeqCst);
            slice.write(&bytes);
            compiler_fence(Ordering::SeqCst);
        }
    }

    pub(super) fn put_u8(&self, at: usize, value: u8) {
        self.put(at, value.to_ne_bytes());
    }

    pub(super) fn put_u16(&self, at: usize, value: u16) {
        self.put(at, value.to_ne_bytes());
    }

    pub(super) fn put_u64(&self, at: usize, value: u64) {
        self.put(at, value.to_ne_bytes());
    }
}

fn bytes(queue_size: u16, packed: bool) -> usize {
    let (header, entry) =
        if packed { (PACKED_HEADER, PACKED_ENTRY) } else { (SPLIT_HEADER, SPLIT_ENTRY) };
    header + entry * usize::from(queue_size)
}
