//! This module says how a ring can break the rules.

use manifold_dma::Fault;

use super::setup::MAX_QUEUE_SIZE;

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
