//! This module is a virtqueue of either kind, from the driver's side (virtio 1.3, sections 2.7 and
//! 2.8).
//!
//! ```text
//!   set_descriptor(i, ..)          a table of descriptors; i and what it links to are a chain
//!   offer(i) … offer(j)            chains for the device, not yet visible
//!   publish()                      visible, all at once -> ring the doorbell?
//!                ┄ device ┄
//!   take() … take()                what the device is done with
//!   arm() / disarm()               whether the device is to interrupt when there is more
//! ```
//!
//! A split queue keeps that table where the device reads it. A packed queue has none: its table is
//! the driver's own, and a chain is copied into the ring each time it is offered.

mod layout;
mod packed;
mod split;

pub use layout::{BATCH, Descriptor, Layout, Used, need_event};

use super::spec::{feature, ring as spec};
use crate::memory::Arena;
use crate::{Error, Result};
use packed::Packed;
use split::Split;
use std::collections::VecDeque;
use std::sync::Arc;

/// A virtqueue.
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    /// The chains that the device has, oldest first, and the chain that ends the batch being taken;
    /// with `VIRTIO_F_IN_ORDER` only.
    order: Option<(VecDeque<u16>, Option<Used>)>,
}

#[derive(Debug)]
enum Ring {
    Split(Split),
    Packed(Packed),
}

macro_rules! either {
    ($queue:expr, $ring:ident => $do:expr) => {
        match $queue {
            Ring::Split($ring) => $do,
            Ring::Packed($ring) => $do,
        }
    };
}

impl Queue {
    /// Makes a queue on cleared memory, which was allocated for a queue of the kind that the agreed
    /// `features` call for.
    pub fn new(arena: Arc<Arena>, layout: Layout, features: u64) -> Self {
        let event_idx = features & feature::EVENT_IDX != 0;
        let ring = match features & feature::RING_PACKED {
            0 => Ring::Split(Split::new(arena, layout, event_idx)),
            _ => Ring::Packed(Packed::new(arena, layout, event_idx)),
        };
        let in_order = features & feature::IN_ORDER != 0;
        Self { ring, order: in_order.then(|| (VecDeque::new(), None)) }
    }

    /// Returns the number of entries.
    pub fn size(&self) -> u16 {
        self.layout().size
    }

    /// Returns the offsets of the queue's parts.
    pub fn layout(&self) -> Layout {
        either!(&self.ring, ring => ring.layout())
    }

    /// Writes descriptor `index`.
    pub fn set_descriptor(&mut self, index: u16, descriptor: Descriptor) -> Result<()> {
        either!(&mut self.ring, ring => ring.set_descriptor(index, descriptor))
    }

    /// Changes the length of a descriptor, and its flags to `flags`.
    #[inline]
    pub fn set_length(&mut self, index: u16, len: u32, flags: u16) -> Result<()> {
        either!(&mut self.ring, ring => ring.set_length(index, len, flags))
    }

    /// Hands a chain over; [`Self::publish`] shows it to the device.
    #[inline]
    pub fn offer(&mut self, head: u16) -> Result<()> {
        either!(&mut self.ring, ring => ring.offer(head))?;
        if let Some((in_flight, _)) = &mut self.order {
            in_flight.push_back(head);
        }
        Ok(())
    }

    /// Hands many chains over at once, like [`Self::offer`] for each.
    pub fn offer_many(&mut self, heads: &[u16]) -> Result<()> {
        match (&mut self.ring, &self.order) {
            (Ring::Split(ring), None) => ring.offer_many(heads),
            _ => heads.iter().try_for_each(|head| self.offer(*head)),
        }
    }

    /// Returns how many chains were offered and not yet published.
    pub fn unpublished(&self) -> u16 {
        either!(&self.ring, ring => ring.unpublished())
    }

    /// Shows the device what was offered. Returns true if it wants its doorbell rung (2.7.10,
    /// 2.7.13, 2.8.21).
    pub fn publish(&mut self) -> Result<bool> {
        either!(&mut self.ring, ring => ring.publish())
    }

    /// Takes back the next chain that the device is done with.
    #[inline]
    pub fn take(&mut self) -> Result<Option<Used>> {
        let Some((in_flight, batch)) = &mut self.order else {
            let Some(used) = either!(&mut self.ring, ring => ring.peek())? else { return Ok(None) };
            either!(&mut self.ring, ring => ring.advance(used.head))?;
            return Ok(Some(used));
        };
        // One element may stand for all chains up to its own (2.7.9, 2.8.7).
        if batch.is_none() {
            *batch = either!(&mut self.ring, ring => ring.peek())?;
        }
        let Some(last) = *batch else { return Ok(None) };
        let head = in_flight.pop_front().ok_or_else(|| {
            Error::Device(format!("used descriptor {}, which the device does not have", last.head))
        })?;
        either!(&mut self.ring, ring => ring.advance(head))?;
        let mut used = Used { head, len: 0 };
        if head == last.head {
            (used, *batch) = (last, None);
        }
        Ok(Some(used))
    }

    /// Takes back as many chains as there are, at most [`BATCH`], and returns the filled part of
    /// `out`.
    pub fn take_many<'a>(&mut self, out: &'a mut [Used]) -> Result<&'a [Used]> {
        if let (Ring::Split(ring), None) = (&mut self.ring, &self.order) {
            return ring.take_many(out);
        }
        let mut count = 0;
        for place in out.iter_mut().take(BATCH) {
            let Some(used) = self.take()? else { break };
            *place = used;
            count += 1;
        }
        Ok(out.get(..count).unwrap_or_default())
    }

    /// Returns true if [`Self::take`] would return something.
    pub fn has_used(&mut self) -> Result<bool> {
        let begun = matches!(self.order, Some((_, Some(_))));
        Ok(begun || either!(&mut self.ring, ring => ring.has_used())?)
    }

    /// Asks for an interrupt for the next used chain. Returns true if one is there already, for
    /// which no interrupt may come.
    pub fn arm(&mut self) -> Result<bool> {
        let begun = matches!(self.order, Some((_, Some(_))));
        Ok(either!(&mut self.ring, ring => ring.arm())? || begun)
    }

    /// Asks for no interrupts. The device may still send some.
    pub fn disarm(&mut self) -> Result<()> {
        either!(&mut self.ring, ring => ring.disarm())
    }

    /// Writes descriptor `index` of an indirect table at an offset of the arena (2.7.5.3, 2.8.8).
    /// `next` links to another, of which packed tables hold nothing: there all follow one another.
    pub fn set_indirect(
        &self,
        arena: &Arena,
        table: usize,
        index: u16,
        (iova, len): (u64, u32),
        next: Option<u16>,
    ) -> Result<()> {
        let (flags, next) = match (&self.ring, next) {
            (Ring::Split(_), Some(next)) => (spec::F_NEXT, next),
            _ => (0, 0),
        };
        Descriptor { iova, len, flags, next }.write(arena, table, index)
    }

    /// Sets the published index of a split queue to any value, right or wrong.
    pub fn force_avail_idx(&self, index: u16) -> Result<()> {
        match &self.ring {
            Ring::Split(ring) => ring.force_avail_idx(index),
            Ring::Packed(_) => Err(Error::Unsupported("an available index: the queue is packed")),
        }
    }

    /// Puts any value into the available ring of a split queue, right or wrong.
    pub fn force_offer(&mut self, head: u16) -> Result<()> {
        match &mut self.ring {
            Ring::Split(ring) => ring.force_offer(head),
            Ring::Packed(_) => Err(Error::Unsupported("an available ring: the queue is packed")),
        }
    }
}

#[cfg(test)]
mod tests;
