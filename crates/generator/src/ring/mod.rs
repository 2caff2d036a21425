//! Virtqueues that turn like a wheel: as many buffers as entries, each offered again and again.
//!
//! Sending and receiving are the same here. All buffers are described once; what comes back may be offered
//! again, and nothing but that is told to the device.
//!
//! ```text
//!              give(n): one index (split), n descriptors (packed)
//!        ┌───────────────────────────────────────────────► device
//!   held │                                                   │ lent
//!        └◄──────────────────────────────────────────────────┘
//!              take(n): one index (split), n descriptors (packed)
//! ```
//!
//! Whether the device wants its doorbell rung is asked in [`Wheel::settle`], after a full barrier for which
//! the caller waits once for many wheels: the barrier lasts until other processors have let go of the lines
//! just written, which is longer than all else here together.

mod packed;
mod split;
#[cfg(test)]
mod tests;

pub(crate) use packed::Packed;
pub(crate) use split::Split;

use manifold_guest::memory::Arena;
use manifold_guest::virtio::{Layout, Used, feature};
use manifold_guest::{Error, Result};

/// The buffer of one descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) iova: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

/// A virtqueue of either kind.
#[derive(Debug)]
pub(crate) enum Wheel<'a> {
    Split(Split<'a>),
    Packed(Packed<'a>),
}

impl<'a> Wheel<'a> {
    /// A wheel over cleared memory, one buffer per entry.
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

    /// Buffers that the driver has.
    #[inline]
    pub(crate) fn held(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.held(),
            Self::Packed(ring) => ring.held(),
        }
    }

    /// Buffers altogether.
    pub(crate) fn size(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.size(),
            Self::Packed(ring) => ring.size(),
        }
    }

    /// Takes back at most `limit` buffers and returns how many.
    #[inline]
    pub(crate) fn take(&mut self, limit: u16) -> Result<u16> {
        match self {
            Self::Split(ring) => ring.take(limit),
            Self::Packed(ring) => ring.take(limit),
        }
    }

    /// As [`Self::take`], showing each to `each`.
    #[inline]
    pub(crate) fn take_each(
        &mut self,
        limit: u16,
        each: impl FnMut(Used) -> Result<()>,
    ) -> Result<u16> {
        match self {
            Self::Split(ring) => ring.take_each(limit, each),
            Self::Packed(ring) => ring.take_each(limit, each),
        }
    }

    /// Offers `count` buffers, at most [`Self::held`], in the order in which they came back.
    #[inline]
    pub(crate) fn give(&mut self, count: u16) {
        match self {
            Self::Split(ring) => ring.give(count),
            Self::Packed(ring) => ring.give(count),
        }
    }

    /// True where the doorbell is to be rung for what was given since the last time. The caller has waited for a full
    /// barrier since.
    #[inline]
    pub(crate) fn settle(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.settle(),
            Self::Packed(ring) => ring.settle(),
        }
    }

    /// Asks for an interrupt for the next buffer. True where one is back already; the caller need not wait.
    pub(crate) fn arm(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.arm(),
            Self::Packed(ring) => ring.arm(),
        }
    }

    /// Asks for no interrupts.
    pub(crate) fn disarm(&mut self) {
        match self {
            Self::Split(ring) => ring.disarm(),
            Self::Packed(ring) => ring.disarm(),
        }
    }
}

/// The identities of buffers in the order in which they are to be offered. There is one entry per buffer, so
/// that what the n-th take returns is what the n-th give after the first round offers.
#[derive(Debug)]
struct Order(Box<[u16]>);

impl Order {
    fn new(size: u16) -> Self {
        Self((0..size).collect())
    }

    #[inline]
    fn at(&self, position: u16) -> u16 {
        self.0.get(usize::from(position)).copied().unwrap_or_default()
    }

    #[inline]
    fn set(&mut self, position: u16, id: u16) {
        if let Some(place) = self.0.get_mut(usize::from(position)) {
            *place = id;
        }
    }
}

/// Marks which buffers the device has; only those who check every entry pay for this.
#[derive(Debug)]
struct Lent(Box<[bool]>);

impl Lent {
    fn new(size: u16) -> Self {
        Self(vec![false; size.into()].into_boxed_slice())
    }

    fn set(&mut self, id: u16) {
        if let Some(lent) = self.0.get_mut(usize::from(id)) {
            *lent = true;
        }
    }

    fn clear(&mut self, id: u32) -> Result<u16> {
        match self.0.get_mut(id as usize) {
            Some(lent) if *lent => {
                *lent = false;
                Ok(id as u16)
            }
            _ => {
                Err(Error::Device(format!("buffer {id} came back, which the device does not have")))
            }
        }
    }
}

#[cold]
fn out_of_order(id: u32, expected: u16) -> Error {
    Error::Device(format!(
        "buffer {id} came back where {expected} was due: this device keeps no order; run with assume_order off, \
         and without in_order"
    ))
}
