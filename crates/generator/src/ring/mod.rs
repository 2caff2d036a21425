//! A virtqueue here has as many buffers as entries, each posted again and again.
//!
//! Sending and receiving are the same here. All buffers are described once. A buffer that the
//! device has given back may be posted again, and the device is told nothing else.
//!
//! ```text
//!              post(n): one index (split), n descriptors (packed)
//!        ┌───────────────────────────────────────────────► device
//!   free │                                                   │ in flight
//!        └◄──────────────────────────────────────────────────┘
//!              reclaim(n): one index (split), n descriptors (packed)
//! ```
//!
//! [`Ring::needs_kick`] asks if the device wants its doorbell rung. A full barrier comes before it,
//! for which the caller waits once for many rings: it lasts until other processors have let go of
//! the cache lines just written, which is longer than everything else here together.

mod buffers;
mod packed;
mod split;
#[cfg(test)]
mod tests;

pub(crate) use buffers::Buffer;

use packed::Packed;
use split::Split;

use manifold_guest::memory::Arena;
use manifold_guest::virtio::{Layout, Used, feature};
use manifold_guest::{Error, Result};

/// A virtqueue of either kind.
#[derive(Debug)]
pub(crate) enum Ring<'a> {
    Split(Split<'a>),
    Packed(Packed<'a>),
}

macro_rules! either {
    ($queue:expr, $ring:ident => $do:expr) => {
        match $queue {
            Ring::Split($ring) => $do,
            Ring::Packed($ring) => $do,
        }
    };
}

impl<'a> Ring<'a> {
    /// Makes a ring over cleared memory, with one buffer per entry.
    pub(crate) fn new(
        arena: &'a Arena,
        layout: Layout,
        features: u64,
        buffers: &[Buffer],
        assume_order: bool,
    ) -> Result<Self> {
        if buffers.len() != usize::from(layout.size) || !layout.size.is_power_of_two() {
            return Err(Error::Command(format!(
                "a queue of {} entries for {} buffers",
                layout.size,
                buffers.len()
            )));
        }
        if features & feature::RING_PACKED == 0 {
            let event_idx = features & feature::EVENT_IDX != 0;
            Split::new(arena, layout, event_idx, buffers, assume_order).map(Self::Split)
        } else {
            let in_order = features & feature::IN_ORDER != 0;
            Packed::new(arena, layout, in_order, buffers, assume_order).map(Self::Packed)
        }
    }

    /// Returns how many buffers the driver has.
    #[inline]
    pub(crate) fn free(&self) -> u16 {
        either!(self, ring => ring.free())
    }

    /// Returns how many buffers there are.
    pub(crate) fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// Takes back at most `limit` buffers and returns how many.
    #[inline]
    pub(crate) fn reclaim(&mut self, limit: u16) -> Result<u16> {
        either!(self, ring => ring.reclaim(limit))
    }

    /// Takes back at most `limit` buffers, shows each to `each`, and returns how many.
    #[inline]
    pub(crate) fn reclaim_each(
        &mut self,
        limit: u16,
        each: impl FnMut(Used) -> Result<()>,
    ) -> Result<u16> {
        either!(self, ring => ring.reclaim_each(limit, each))
    }

    /// Posts `count` buffers, at most [`Self::free`], in the order in which they came back.
    #[inline]
    pub(crate) fn post(&mut self, count: u16) {
        either!(self, ring => ring.post(count));
    }

    /// Returns true if the device wants its doorbell rung for what was posted since the last call.
    /// The caller has waited for a full barrier since.
    #[inline]
    pub(crate) fn needs_kick(&mut self) -> bool {
        either!(self, ring => ring.needs_kick())
    }

    /// Asks for an interrupt for the next buffer. Returns true if one is back already, so that the
    /// caller need not wait.
    pub(crate) fn arm(&mut self) -> bool {
        either!(self, ring => ring.arm())
    }

    /// Asks for no interrupts.
    pub(crate) fn disarm(&mut self) {
        either!(self, ring => ring.disarm());
    }
}
