//! This module holds the state of a virtqueue of any layout: where it is, how far it has come, and
//! what of it the driver knows. The layouts, split and packed, are beside it.

use std::fmt;

use manifold_dma::Pinned;

use super::chain::{Chain, Found};
use super::error::RingError;
use super::inflight::Inflight;
use super::setup::{MAX_QUEUE_SIZE, QueueAddresses, QueueState, RingFeatures};

/// Device-side state of one virtqueue. It holds positions only; the ring is reached through
/// [`VirtQueue::open`].
#[derive(Debug)]
pub struct VirtQueue<L> {
    pub(super) addresses: QueueAddresses,
    pub(super) features: RingFeatures,
    /// The next available entry to take.
    pub(super) next_avail: u16,
    /// The next used entry to write.
    pub(super) next_used: u16,
    /// The first used entry that the driver does not know of.
    pub(super) published: u16,
    /// The value of `published` when the driver was last asked whether it wants an interrupt.
    pub(super) asked: u16,
    /// A mask that is or'ed to a descriptor's flags to send even the common case the way that keeps
    /// the record of chains in flight; 0 without a record.
    pub(super) detour: u16,
    /// True if the driver was last told that it need not notify.
    pub(super) quiet: bool,
    /// True if there is neither VIRTIO_F_IN_ORDER nor a record.
    pub(super) plain: bool,
    /// The chains completed last whose used entry is still to be written, with VIRTIO_F_IN_ORDER.
    unwritten: Option<Unwritten>,
    /// The region for the record of chains in flight, until the first burst makes it a record.
    pub(super) inflight: Option<Inflight>,
    /// The state that only a ring of this layout has.
    pub(super) layout: L,
    /// Version of the domain's snapshot that the ring was resolved with.
    version: Option<u64>,
}

/// A run of chains without device-writable buffers that share one used entry (2.7.9, 2.8.8).
#[derive(Clone, Copy, Debug)]
struct Unwritten {
    /// The position of the first chain's used entry.
    at: u16,
    /// Head or buffer ID of the last chain.
    head: u16,
}

/// The layout of a virtqueue: the operations in which split and packed rings differ.
pub trait Layout: Default + fmt::Debug {
    /// True if this is the packed layout.
    const PACKED: bool;
    /// The position where a ring begins.
    const START: u16;

    /// Returns whether a queue of this layout can have `size` descriptors, of those that any queue
    /// can have.
    fn allows(size: u16) -> bool;

    /// Checks that a queue of `size` descriptors can be in this state.
    ///
    /// # Errors
    /// [`RingError::Position`].
    fn check(state: QueueState, size: u16) -> Result<(), RingError>;

    /// Continues to take at `next_avail`.
    fn take_from(queue: &mut VirtQueue<Self>, next_avail: u16);

    /// Finds the parts of the ring in host memory, and continues from what the inflight region
    /// says.
    ///
    /// # Errors
    /// [`RingError::Fault`].
    fn resolve(queue: &mut VirtQueue<Self>, pin: &Pinned<'_>) -> Result<(), RingError>;

    /// Asks the processor for what the next burst looks at first.
    fn prefetch(queue: &VirtQueue<Self>);

    /// Writes the used entry at `at`.
    fn write_used(burst: &mut RingBurst<'_, '_, Self>, at: u16, head: u16, written: u32);

    /// Records that a chain was completed, where there is a record.
    fn record_completed(&mut self, head: u16);

    /// Returns whether chains in flight are recorded.
    fn has_record(&self) -> bool;
}

impl<L: Layout> VirtQueue<L> {
    /// Makes a queue as a driver set it up, at its beginning.
    ///
    /// # Errors
    /// [`RingError::Size`].
    pub fn new(addresses: QueueAddresses, features: RingFeatures) -> Result<Self, RingError> {
        let size = addresses.size;
        if !(1..=MAX_QUEUE_SIZE).contains(&size) || !L::allows(size) {
            return Err(RingError::Size(size));
        }
        let mut queue = VirtQueue {
            addresses,
            features,
            next_avail: L::START,
            next_used: L::START,
            published: L::START,
            asked: L::START,
            detour: 0,
            quiet: false,
            plain: !features.in_order,
            unwritten: None,
            inflight: None,
            layout: L::default(),
            version: None,
        };
        L::take_from(&mut queue, L::START);
        Ok(queue)
    }

    /// Continues where another server of the queue stopped, as [`VirtQueue::position`] said.
    ///
    /// # Errors
    /// [`RingError::Position`].
    pub fn resume(mut self, state: QueueState) -> Result<Self, RingError> {
        L::check(state, self.addresses.size)?;
        self.go_on(state);
        Ok(self)
    }

    pub(super) fn go_on(&mut self, QueueState { next_avail, next_used }: QueueState) {
        L::take_from(self, next_avail);
        (self.next_used, self.published, self.asked) = (next_used, next_used, next_used);
    }

    /// Records in `region` what the queue has taken, as [`super::Queue::with_inflight`] says.
    ///
    /// # Errors
    /// [`RingError::Inflight`].
    pub fn with_inflight(mut self, region: Inflight) -> Result<Self, RingError> {
        self.inflight = Some(region.checked(self.addresses.size, L::PACKED)?);
        Ok(self)
    }

    /// Returns the next available entry to take and the next used entry to write.
    pub fn position(&self) -> QueueState {
        QueueState { next_avail: self.next_avail, next_used: self.next_used }
    }

    /// Returns the queue's size in descriptors.
    pub fn size(&self) -> u16 {
        self.addresses.size
    }

    /// Asks the processor for what the next burst looks at first. No pin is needed: a hint may be
    /// wrong.
    #[inline]
    pub fn prefetch(&self) {
        L::prefetch(self);
    }

    /// Returns whether a burst under `pin` can begin without a new look-up of the ring.
    #[inline]
    pub fn is_resolved(&self, pin: &Pinned<'_>) -> bool {
        self.version == Some(pin.version())
    }

    /// Begins a burst under `pin`.
    ///
    /// # Errors
    /// [`RingError::Fault`] when a part of the ring is not mapped as it must be: what the driver
    /// writes readable, what the device writes writable.
    #[inline]
    pub fn open<'q, 'p>(
        &'q mut self,
        pin: &'p Pinned<'_>,
    ) -> Result<RingBurst<'q, 'p, L>, RingError> {
        if !self.is_resolved(pin) {
            self.resolve(pin)?;
        }
        let mask = self.addresses.size.wrapping_sub(1);
        Ok(RingBurst { mask, error: RingError::Length, pin, queue: self })
    }

    #[cold]
    fn resolve(&mut self, pin: &Pinned<'_>) -> Result<(), RingError> {
        self.version = None;
        L::resolve(self, pin)?;
        self.version = Some(pin.version());
        Ok(())
    }
}

/// One burst over a queue. While it lasts the ring stays mapped: [`VirtQueue::open`] made sure that
/// the areas were resolved under the version that `pin` pins, and `pin` outlives the burst.
#[derive(Debug)]
pub struct RingBurst<'q, 'p, L> {
    pub(super) queue: &'q mut VirtQueue<L>,
    pub(super) pin: &'p Pinned<'p>,
    /// The queue's size less one; in a split queue the size is a power of two.
    pub(super) mask: u16,
    /// The error after [`Found::Error`].
    pub(super) error: RingError,
}

impl<L: Layout> RingBurst<'_, '_, L> {
    #[cold]
    pub(super) fn fail(&mut self, error: RingError) -> Found {
        self.error = error;
        Found::Error
    }

    /// Writes the used entry that was left out, if one was.
    pub(super) fn flush(&mut self) {
        if let Some(Unwritten { at, head }) = self.queue.unwritten.take() {
            L::write_used(self, at, head, 0);
        }
    }

    /// Completes a chain whose used entry is at `at`, with VIRTIO_F_IN_ORDER (2.7.9, 2.8.8) or a
    /// record.
    pub(super) fn complete_specially(&mut self, at: u16, chain: &Chain, written: u32) {
        self.queue.layout.record_completed(chain.head);
        if self.queue.features.in_order && chain.writable == 0 {
            self.leave_out(at, chain.head);
        } else {
            self.flush();
            L::write_used(self, at, chain.head, written);
        }
    }

    /// Leaves out the used entries of all of `chains`, from that at `at` on, if that is allowed;
    /// returns whether it is.
    #[inline]
    pub(super) fn leave_out_all(&mut self, at: u16, chains: &[Chain]) -> bool {
        if self.queue.features.in_order
            && !self.queue.layout.has_record()
            && let Some(last) = chains.last()
            && chains.iter().all(|chain| chain.writable == 0)
        {
            self.leave_out(at, last.head);
            return true;
        }
        false
    }

    #[inline]
    fn leave_out(&mut self, at: u16, head: u16) {
        let at = self.queue.unwritten.map_or(at, |run| run.at);
        self.queue.unwritten = Some(Unwritten { at, head });
    }
}
