//! This module defines a burst over a queue: the interface between a ring's layout and whoever
//! moves data through it.

use std::sync::atomic::{Ordering, fence};

use manifold_dma::{Access, Slice};

use super::chain::Chain;
use super::error::RingError;

/// One burst under one pin takes chains and gives them back. Chains may also be given back in a
/// later burst; with VIRTIO_F_IN_ORDER they must be given back in the order they were taken.
pub trait Burst<'p> {
    /// Returns how many chains the driver has made available and the device has not taken. A split
    /// ring counts them; a packed one says 1 for one or more.
    ///
    /// # Errors
    /// [`RingError::AvailableIndex`].
    fn available(&mut self) -> Result<u16, RingError>;

    /// Asks the processor for the descriptors of up to `count` of the next available chains, as far
    /// as it is known by now where they are. No chain is taken.
    fn prepare(&mut self, count: usize);

    /// Takes the next available chain, if there is one, and calls `each` with the pieces of its
    /// buffers in order: device-readable ones with [`Access::Read`], then device-writable ones with
    /// [`Access::Write`]. `each` returns whether it had room for the piece.
    ///
    /// # Errors
    /// Any [`RingError`]. The chain has not been taken then, though `each` may have seen some of
    /// it. After [`RingError::TooManyPieces`] the queue can be used further; otherwise it must not
    /// be.
    fn pop(
        &mut self,
        each: impl FnMut(Slice<'p>, Access) -> bool,
    ) -> Result<Option<Chain>, RingError>;

    /// Gives back the chains taken last as if they had not been taken. They must be in the order
    /// they were taken, and none of them completed.
    fn put_back(&mut self, chains: &[Chain]);

    /// Takes up to `count` chains in one go, each a single direct descriptor for `access` whose
    /// memory was translated a moment ago, as nearly all are. It stops before the first chain that
    /// is not, which is left to [`Burst::pop`], and where no more are available.
    ///
    /// # Errors
    /// [`RingError::AvailableIndex`]; nothing has been taken then.
    fn pop_direct(
        &mut self,
        count: usize,
        access: Access,
        each: impl FnMut(Chain, Slice<'p>),
    ) -> Result<(), RingError>;

    /// Makes a taken chain used, with `written` bytes of it filled from the start. The driver sees
    /// it after [`Burst::publish`].
    fn complete(&mut self, chain: &Chain, written: u32);

    /// Makes several taken chains used, as [`Burst::complete`] does: `written` says how much of
    /// each was filled.
    fn complete_all(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        for (index, chain) in chains.iter().enumerate() {
            self.complete(chain, written(index));
        }
    }

    /// Makes the completed chains visible to the driver, all at once; returns true when there were
    /// any.
    fn make_visible(&mut self) -> bool;

    /// Returns whether the driver wants an interrupt for what has become visible since this was
    /// asked last (2.7.7, 2.7.10, 2.8.10).
    ///
    /// The driver says what it wants, then looks at the ring; the device does the reverse, and each
    /// needs its store to be visible before its load: between [`Burst::make_visible`] and this
    /// there must be a barrier, `fence(SeqCst)`. One will do for several queues.
    fn wants_interrupt(&mut self) -> bool;

    /// Makes the completed chains visible to the driver; returns true when there were any and it
    /// wants an interrupt for them.
    fn publish(&mut self) -> bool {
        self.make_visible() && {
            fence(Ordering::SeqCst);
            self.wants_interrupt()
        }
    }

    /// Asks the driver to notify the device of the next chain it makes available. Returns true when
    /// there is one already, so that waiting would be wrong.
    ///
    /// # Errors
    /// [`RingError::AvailableIndex`].
    fn arm(&mut self) -> Result<bool, RingError>;

    /// Tells the driver that it need not notify the device, which polls.
    fn disarm(&mut self);
}
