//! This module is the device side of virtqueues, split and packed (virtio 1.3, 2.6 to 2.8).
//!
//! ```text
//!   Pinned (a burst's translations)  +  Queue (positions)
//!                 \                      /
//!                  v                    v
//!                   Queue::open -> Burst
//!                      |- pop      one available chain -> Slices of guest memory; pop_direct: many
//!                      |- complete one used chain, not yet visible; complete_all: many
//!                      |- publish  all of them at once; says whether the driver wants an interrupt
//!                      |           (make_visible, a barrier, wants_interrupt: one barrier for
//!                      |           several queues)
//!                      `- arm      ask for a notification; says whether something came meanwhile
//! ```
//!
//! Everything in a ring is written by a guest that may be hostile and may change it at any time:
//! each index and descriptor is read once, checked, and only the copy is used. What breaks the
//! rules of the standard is a [`RingError`]; the device then needs a reset.
//!
//! # VIRTIO_F_IN_ORDER
//!
//! The driver takes a buffer whose used entry was left out to have been read, or written,
//! completely (2.7.9, 2.8.8). A run of chains without device-writable buffers (transmitted frames)
//! becomes one used entry, in the place of the first and with the identity of the last. A chain
//! with device-writable buffers always has an entry of its own: how much was written matters, and
//! drivers that receive read each entry even where the standard would let the device leave out
//! those of buffers it has filled.

mod area;
mod burst;
mod chain;
mod inflight;
mod packed;
mod position;
mod queue;
mod split;
mod virtqueue;

use manifold_dma::Fault;

pub use burst::Burst;
pub use chain::Chain;
pub use inflight::Inflight;
pub use packed::{PackedBurst, PackedQueue, is_in_use};
pub use queue::{AnyBurst, Queue};
pub use split::{SplitBurst, SplitQueue};

/// The largest queue this device serves, in descriptors.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// The place where a driver put a queue (virtio 1.3, 4.1.4.3: `queue_desc`, `queue_driver`,
/// `queue_device`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueAddresses {
    /// Number of descriptors: at most [`MAX_QUEUE_SIZE`], and in a split queue a power of two.
    pub size: u16,
    /// IOVA of the descriptor table (split) or ring (packed); a multiple of 16.
    pub descriptors: u64,
    /// IOVA of the available ring (split; a multiple of 2) or driver event suppression area
    /// (packed).
    pub driver: u64,
    /// IOVA of the used ring (split; a multiple of 4) or device event suppression area (packed).
    pub device: u64,
}

/// The progress of a queue, with which another server of it can continue. In a packed queue bit 15
/// of each field is the wrap counter and the rest an index into the descriptor ring, as in vhost's
/// VRING_BASE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// The next entry of the available (packed: descriptor) ring to take.
    pub next_avail: u16,
    /// The next entry of the used (packed: descriptor) ring to write.
    pub next_used: u16,
}

impl QueueState {
    /// Returns where a queue begins: 0, or 8000h in a packed queue.
    pub fn start(packed: bool) -> Self {
        let next = if packed { position::WRAP } else { 0 };
        QueueState { next_avail: next, next_used: next }
    }
}

/// The optional ring features that the driver accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// True if VIRTIO_F_EVENT_IDX was accepted.
    pub event_index: bool,
    /// True if VIRTIO_F_INDIRECT_DESC was accepted.
    pub indirect: bool,
    /// True if VIRTIO_F_RING_PACKED was accepted.
    pub packed: bool,
    /// True if VIRTIO_F_IN_ORDER was accepted.
    pub in_order: bool,
}

/// The way in which a ring broke the rules. The device that owns it needs a reset; nothing else is
/// touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The queue's size is out of range, or that of a split queue is not a power of two.
    #[error(
        "queue size {0} is not from 1 to {MAX_QUEUE_SIZE} or, in a split queue, no power of two"
    )]
    Size(u16),
    /// A packed queue is to continue at a place that it does not have.
    #[error("position {position:#06x} in a packed queue of {size}")]
    Position {
        /// The place: index and wrap counter.
        position: u16,
        /// The queue's size in descriptors.
        size: u16,
    },
    /// A ring, a table or a buffer cannot be reached.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The available index moved by more than the queue has room for.
    #[error("available index {index} is too far ahead of {next} in a queue of {size}")]
    AvailableIndex {
        /// The index that the driver wrote.
        index: u16,
        /// The next index that the device would have taken.
        next: u16,
        /// The queue's size in descriptors.
        size: u16,
    },
    /// A descriptor index is not below the size of its table.
    #[error("descriptor {index} in a table of {size}")]
    DescriptorIndex {
        /// The index that was found.
        index: u16,
        /// The table's size in descriptors.
        size: u16,
    },
    /// The chain has more descriptors than the queue, so it has a loop.
    #[error("a descriptor chain longer than the queue's {0}: it loops")]
    Loop(u16),
    /// A packed ring's descriptor was made available while the device still had it.
    #[error("descriptor {0} was made available again before it was used")]
    Overrun(u16),
    /// A descriptor within a packed ring's chain is not available, although the first one is
    /// (2.8.6).
    #[error("descriptor {0} continues a chain and is not available")]
    Unavailable(u16),
    /// The chain falls into more pieces than there was room for, which is the number given.
    #[error("a descriptor chain of more than {0} pieces")]
    TooManyPieces(usize),
    /// An indirect descriptor was found where none was negotiated, inside an indirect table, with
    /// NEXT, or of a bad length.
    #[error("malformed indirect descriptor: {0}")]
    Indirect(&'static str),
    /// A device-readable descriptor follows a device-writable one (virtio 1.3, 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// The chain has no buffer for what this queue carries.
    #[error("a descriptor chain without {0} buffers")]
    NoBuffers(&'static str),
    /// The region for the record of chains in flight is too small.
    #[error("{needed} bytes at {offset} of an inflight buffer of {size}")]
    Inflight {
        /// Offset of the queue's part in bytes.
        offset: usize,
        /// Size of the queue's part in bytes.
        needed: usize,
        /// Size of the buffer in bytes.
        size: usize,
    },
    /// The total length of the chain does not fit 32 bits.
    #[error("a descriptor chain of more than 4 GiB")]
    Length,
}
