//! This module holds what a queue is opened with: its place, size, features and progress.

use super::position::WRAP;

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
        let next = if packed { WRAP } else { 0 };
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
