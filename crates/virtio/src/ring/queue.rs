//! This module holds a queue of whichever layout the driver chose.

use manifold_dma::{Access, Pinned, Slice};

use super::burst::Burst;
use super::chain::Chain;
use super::error::RingError;
use super::inflight::Inflight;
use super::packed::{PackedBurst, PackedQueue};
use super::setup::{QueueAddresses, QueueState, RingFeatures};
use super::split::{SplitBurst, SplitQueue};

/// Evaluates the same expression with a queue, or burst, of either kind.
macro_rules! either {
    ($kind:ident, $self:expr, $it:ident => $do:expr) => {
        match $self {
            $kind::Split($it) => $do,
            $kind::Packed($it) => $do,
        }
    };
}

/// A virtqueue of either kind.
#[derive(Debug)]
pub enum Queue {
    /// The queue is split (2.7).
    Split(SplitQueue),
    /// The queue is packed (2.8, VIRTIO_F_RING_PACKED).
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

    /// Continues where another server of the queue stopped.
    ///
    /// # Errors
    /// [`RingError::Position`].
    pub fn resume(self, state: QueueState) -> Result<Self, RingError> {
        Ok(match self {
            Queue::Split(queue) => Queue::Split(queue.resume(state)?),
            Queue::Packed(queue) => Queue::Packed(queue.resume(state)?),
        })
    }

    /// Records in `region` what the queue has taken. If the region says that an earlier server of
    /// the queue ended with chains taken, they are taken again first, and the region and the ring
    /// say where the queue continues, not [`Queue::resume`].
    ///
    /// # Errors
    /// [`RingError::Inflight`].
    pub fn with_inflight(self, region: Inflight) -> Result<Self, RingError> {
        Ok(match self {
            Queue::Split(queue) => Queue::Split(queue.with_inflight(region)?),
            Queue::Packed(queue) => Queue::Packed(queue.with_inflight(region)?),
        })
    }

    /// Returns how far the queue has come, which is what [`Queue::resume`] takes.
    pub fn position(&self) -> QueueState {
        either!(Queue, self, queue => queue.position())
    }

    /// Returns the queue's size in descriptors.
    pub fn size(&self) -> u16 {
        either!(Queue, self, queue => queue.size())
    }

    /// Asks the processor for what the next burst looks at first. No pin is needed: a hint may be
    /// wrong.
    #[inline]
    pub fn prefetch(&self) {
        either!(Queue, self, queue => queue.prefetch());
    }

    /// Returns whether a burst under `pin` can begin without a new look-up of the ring: its
    /// mappings are those of the burst before.
    #[inline]
    pub fn is_resolved(&self, pin: &Pinned<'_>) -> bool {
        either!(Queue, self, queue => queue.is_resolved(pin))
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

/// A burst over a queue of either kind, for queues that carry little. Where speed matters, match on
/// [`Queue`] and let the compiler make one loop per kind.
#[derive(Debug)]
pub enum AnyBurst<'q, 'p> {
    /// The queue is split.
    Split(SplitBurst<'q, 'p>),
    /// The queue is packed.
    Packed(PackedBurst<'q, 'p>),
}

impl<'p> Burst<'p> for AnyBurst<'_, 'p> {
    fn available(&mut self) -> Result<u16, RingError> {
        either!(AnyBurst, self, burst => burst.available())
    }

    fn prepare(&mut self, count: usize) {
        either!(AnyBurst, self, burst => burst.prepare(count));
    }

    fn pop(
        &mut self,
        each: impl FnMut(Slice<'p>, Access) -> bool,
    ) -> Result<Option<Chain>, RingError> {
        either!(AnyBurst, self, burst => burst.pop(each))
    }

    fn put_back(&mut self, chains: &[Chain]) {
        either!(AnyBurst, self, burst => burst.put_back(chains));
    }

    fn pop_direct(
        &mut self,
        count: usize,
        access: Access,
        each: impl FnMut(Chain, Slice<'p>),
    ) -> Result<(), RingError> {
        either!(AnyBurst, self, burst => burst.pop_direct(count, access, each))
    }

    fn complete(&mut self, chain: &Chain, written: u32) {
        either!(AnyBurst, self, burst => burst.complete(chain, written));
    }

    fn make_visible(&mut self) -> bool {
        either!(AnyBurst, self, burst => burst.make_visible())
    }

    fn wants_interrupt(&mut self) -> bool {
        either!(AnyBurst, self, burst => burst.wants_interrupt())
    }

    fn arm(&mut self) -> Result<bool, RingError> {
        either!(AnyBurst, self, burst => burst.arm())
    }

    fn disarm(&mut self) {
        either!(AnyBurst, self, burst => burst.disarm());
    }
}
