//! The device side of virtqueues (virtio 1.3, 2.6 to 2.8).
//!
//! ```text
//!   Pinned (a burst's translations)  +  SplitQueue (indices)
//!                 \                      /
//!                  v                    v
//!                 SplitQueue::open -> Burst
//!                                       |- pop      one available chain -> Slices of guest memory
//!                                       |- complete one used element, not yet visible
//!                                       |- publish  all of them at once; says whether the driver wants an interrupt
//!                                       `- arm      ask for a notification; says whether something came meanwhile
//! ```
//!
//! Everything in a ring is written by a guest that may be hostile and may change it at any time: each index and
//! descriptor is read once, checked, and only the copy is used. What breaks the rules of the standard is a
//! [`RingError`]; the device then needs a reset.

mod area;
mod chain;
#[doc(hidden)]
pub mod fuzzing;
mod split;
#[doc(hidden)]
pub mod testing;

use manifold_dma::Fault;

pub use chain::Chain;
pub use split::{Burst, SplitQueue};

/// The largest queue this device serves, in descriptors.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Where a driver put a queue (virtio 1.3, 4.1.4.3: `queue_desc`, `queue_driver`, `queue_device`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueAddresses {
    /// Descriptors: a power of two, at most [`MAX_QUEUE_SIZE`].
    pub size: u16,
    /// IOVA of the descriptor table (split) or ring (packed); a multiple of 16.
    pub descriptors: u64,
    /// IOVA of the available ring (split; a multiple of 2) or driver event suppression area (packed).
    pub driver: u64,
    /// IOVA of the used ring (split; a multiple of 4) or device event suppression area (packed).
    pub device: u64,
}

/// Which of the optional ring features the driver accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_EVENT_IDX.
    pub event_index: bool,
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
}

/// How a ring broke the rules. The device that owns it needs a reset; nothing else is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The queue's size is not a power of two or out of range.
    #[error("queue size {0} is not a power of two from 1 to {MAX_QUEUE_SIZE}")]
    Size(u16),
    /// A ring, a table or a buffer cannot be reached.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The available index moved by more than the queue's size.
    #[error("available index {index} is more than {size} ahead of {next}")]
    AvailableIndex {
        /// What the driver wrote.
        index: u16,
        /// The next one the device would have taken.
        next: u16,
        /// The queue's size.
        size: u16,
    },
    /// A descriptor index is not below the size of its table.
    #[error("descriptor {index} in a table of {size}")]
    DescriptorIndex {
        /// The index.
        index: u16,
        /// The table's size.
        size: u16,
    },
    /// The chain has more descriptors than the queue, so it has a loop.
    #[error("a descriptor chain longer than the queue's {0}: it loops")]
    Loop(u16),
    /// The chain falls into more pieces than there was room for: it had room for so many.
    #[error("a descriptor chain of more than {0} pieces")]
    TooManyPieces(usize),
    /// An indirect descriptor where none was negotiated, inside an indirect table, with NEXT, or of a bad length.
    #[error("malformed indirect descriptor: {0}")]
    Indirect(&'static str),
    /// A device-readable descriptor after a device-writable one (virtio 1.3, 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// The chain has no buffer for what this queue carries.
    #[error("a descriptor chain without {0} buffers")]
    NoBuffers(&'static str),
    /// The total length of the chain does not fit 32 bits.
    #[error("a descriptor chain of more than 4 GiB")]
    Length,
}
