//! A queue of whichever kind the driver chose.

use manifold_dma::Pinned;

use super::{
    AnyBurst, Inflight, PackedQueue, QueueAddresses, QueueState, RingError, RingFeatures,
    SplitQueue,
};

/// A virtqueue of either kind.
#[derive(Debug)]
pub enum Queue {
    /// Split (2.7).
    Split(SplitQueue),
    /// Packed (2.8), VIRTIO_F_RING_PACKED.
    Packed(PackedQueue),
}

impl Queue {
    /// Makes a queue as a driver set it up, at its beginning.
    ///
    /// # Errors
    /// [`RingError::Size`].
    pub fn new(addresses: QueueAddresses, features: RingFeatures) -> Result<Self, RingError> {
        Ok(if features.packed {
            Queue::Packed(PackedQueue::new(addresses, features)?)
        } else {
            Queue::Split(SplitQueue::new(addresses, features)?)
        })
    }

    /// Goes on where another server of the queue stopped.
    ///
    /// # Errors
    /// [`RingError::Position`].
    pub fn resume(self, state: QueueState) -> Result<Self, RingError> {
        Ok(match self {
            Queue::Split(queue) => Queue::Split(queue.resume(state)?),
            Queue::Packed(queue) => Queue::Packed(queue.resume(state)?),
        })
    }

    /// Records in `region` what the queue has taken. If the region says that a server of the queue before
    /// this one ended with chains taken, they are taken again first, and the region and the ring say where the queue goes
    /// on, not [`Queue::resume`].
    ///
    /// # Errors
    /// [`RingError::Inflight`].
    pub fn with_inflight(self, region: Inflight) -> Result<Self, RingError> {
        Ok(match self {
            Queue::Split(queue) => Queue::Split(queue.with_inflight(region)?),
            Queue::Packed(queue) => Queue::Packed(queue.with_inflight(region)?),
        })
    }

    /// Returns how far the queue is, which is what [`Queue::resume`] takes.
    pub fn position(&self) -> QueueState {
        match self {
            Queue::Split(queue) => queue.position(),
            Queue::Packed(queue) => queue.position(),
        }
    }

    /// Returns the queue's size in descriptors.
    pub fn size(&self) -> u16 {
        match self {
            Queue::Split(queue) => queue.size(),
            Queue::Packed(queue) => queue.size(),
        }
    }

    /// Asks the processor for what the next burst looks at first. No pin is needed: a hint may be wrong.
    #[inline]
    pub fn prefetch(&self) {
        match self {
            Queue::Split(queue) => queue.prefetch(),
            Queue::Packed(queue) => queue.prefetch(),
        }
    }

    /// Returns whether a burst under `pin` can begin without the ring being looked up: its mappings are those of the burst before.
    #[inline]
    pub fn is_resolved(&self, pin: &Pinned<'_>) -> bool {
        match self {
            Queue::Split(queue) => queue.is_resolved(pin),
            Queue::Packed(queue) => queue.is_resolved(pin),
        }
    }

    /// Begins a burst under `pin`.
    ///
    /// # Errors
    /// [`RingError::Fault`] when a part of the ring is not mapped as it must be.
    pub fn open<'q, 'p>(&'q mut self, pin: &'p Pinned<'_>) -> Result<AnyBurst<'q, 'p>, RingError> {
        Ok(match self {
            Queue::Split(queue) => AnyBurst::Split(queue.open(pin)?),
            Queue::Packed(queue) => AnyBurst::Packed(queue.open(pin)?),
        })
    }
}
