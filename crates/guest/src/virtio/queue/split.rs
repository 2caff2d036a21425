//! This module is a split virtqueue (virtio 1.3, section 2.7).
//!
//! Descriptors are written once where that is possible: a buffer keeps its descriptor for life, and
//! sending it again takes one entry in the available ring.

use super::layout::{BATCH, Descriptor, Layout, Used, need_event};
use crate::memory::Arena;
use crate::virtio::spec::ring as spec;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A split virtqueue.
#[derive(Debug)]
pub(super) struct Split {
    arena: Arc<Arena>,
    layout: Layout,
    event_idx: bool,
    /// Next available index to write; wraps at 2^16.
    avail_next: u16,
    /// The available index that the device sees.
    avail_seen: u16,
    /// Next used index to read; wraps at 2^16.
    used_next: u16,
    /// The used index that was last read.
    used_seen: u16,
    /// Marks the heads that the device has.
    in_flight: Box<[bool]>,
}

impl Split {
    pub(super) fn new(arena: Arc<Arena>, layout: Layout, event_idx: bool) -> Self {
        Self {
            arena,
            layout,
            event_idx,
            avail_next: 0,
            avail_seen: 0,
            used_next: 0,
            used_seen: 0,
            in_flight: vec![false; usize::from(layout.size)].into_boxed_slice(),
        }
    }

    #[cfg(test)]
    pub(super) fn begin_at(&mut self, index: u16) {
        (self.avail_next, self.avail_seen) = (index, index);
        (self.used_next, self.used_seen) = (index, index);
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn set_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        descriptor.write(&self.arena, self.layout.desc, index)
    }

    #[inline]
    pub(super) fn set_length(&self, index: u16, len: u32, flags: u16) -> Result<()> {
        let at = self.layout.desc + usize::from(index) * spec::DESC + 8;
        self.arena.store_u64(at, u64::from(len) | u64::from(flags) << 32)
    }

    #[inline]
    pub(super) fn offer(&mut self, head: u16) -> Result<()> {
        self.mark_offered(head)?;
        self.force_offer(head)
    }

    pub(super) fn offer_many(&mut self, heads: &[u16]) -> Result<()> {
        for heads in heads.chunks(BATCH) {
            let mut bytes = [0; 2 * BATCH];
            for (head, bytes) in heads.iter().zip(bytes.chunks_exact_mut(2)) {
                self.mark_offered(*head)?;
                bytes.copy_from_slice(&head.to_le_bytes());
            }
            // The part up to the end of the ring is filled first, then the part from its start.
            let slot = usize::from(self.avail_next & (self.layout.size - 1));
            let first = heads.len().min(usize::from(self.layout.size) - slot);
            let ring = self.layout.avail + spec::AVAIL_RING;
            let bytes = bytes.get(..2 * heads.len()).unwrap_or_default();
            let (first, rest) = bytes.split_at(2 * first);
            self.arena.write(ring + 2 * slot, first)?;
            self.arena.write(ring, rest)?;
            self.avail_next = self.avail_next.wrapping_add(heads.len() as u16);
        }
        Ok(())
    }

    fn mark_offered(&mut self, head: u16) -> Result<()> {
        match self.in_flight.get_mut(usize::from(head)) {
            Some(in_flight) if !*in_flight => {
                *in_flight = true;
                Ok(())
            }
            _ => Err(Error::Command(format!("descriptor {head} is not free to offer"))),
        }
    }

    pub(super) fn unpublished(&self) -> u16 {
        self.avail_next.wrapping_sub(self.avail_seen)
    }

    pub(super) fn publish(&mut self) -> Result<bool> {
        let (old, new) = (self.avail_seen, self.avail_next);
        if old == new {
            return Ok(false);
        }
        self.arena.store_u16(self.layout.avail + spec::AVAIL_IDX, new, Ordering::Release)?;
        self.avail_seen = new;
        // The index must be visible before the device's avail_event or flags are read: the device
        // does the mirror image.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let at = self.layout.used
                + spec::USED_RING
                + spec::USED_ELEMENT * usize::from(self.layout.size);
            let event = self.arena.load_u16(at, Ordering::Relaxed)?;
            Ok(need_event(event, new, old))
        } else {
            let flags =
                self.arena.load_u16(self.layout.used + spec::USED_FLAGS, Ordering::Relaxed)?;
            Ok(flags & spec::USED_F_NO_NOTIFY == 0)
        }
    }

    #[inline]
    pub(super) fn peek(&mut self) -> Result<Option<Used>> {
        if self.used_next == self.used_seen && !self.look()? {
            return Ok(None);
        }
        let slot = usize::from(self.used_next & (self.layout.size - 1));
        let at = self.layout.used + spec::USED_RING + spec::USED_ELEMENT * slot;
        let (id, len) = (self.arena.load_u32(at)?, self.arena.load_u32(at + 4)?);
        let head = u16::try_from(id).map_err(|_| not_in_flight(id))?;
        Ok(Some(Used { head, len }))
    }

    #[inline]
    pub(super) fn advance(&mut self, head: u16) -> Result<()> {
        self.mark_used(head.into())?;
        self.used_next = self.used_next.wrapping_add(1);
        Ok(())
    }

    pub(super) fn take_many<'a>(&mut self, out: &'a mut [Used]) -> Result<&'a [Used]> {
        if self.used_next == self.used_seen && !self.look()? {
            return Ok(&[]);
        }
        let slot = usize::from(self.used_next & (self.layout.size - 1));
        let ready = usize::from(self.used_seen.wrapping_sub(self.used_next));
        let count = ready.min(out.len()).min(BATCH).min(usize::from(self.layout.size) - slot);
        let mut bytes = [0; spec::USED_ELEMENT * BATCH];
        let bytes = bytes.get_mut(..spec::USED_ELEMENT * count).unwrap_or_default();
        self.arena.read(self.layout.used + spec::USED_RING + spec::USED_ELEMENT * slot, bytes)?;
        for (element, used) in bytes.chunks_exact(spec::USED_ELEMENT).zip(out.iter_mut()) {
            let [a, b, c, d, e, f, g, h] = *element else { continue };
            let id = u32::from_le_bytes([a, b, c, d]);
            self.mark_used(id)?;
            *used = Used { head: id as u16, len: u32::from_le_bytes([e, f, g, h]) };
        }
        self.used_next = self.used_next.wrapping_add(count as u16);
        Ok(out.get(..count).unwrap_or_default())
    }

    fn mark_used(&mut self, id: u32) -> Result<()> {
        match self.in_flight.get_mut(id as usize) {
            Some(in_flight) if *in_flight => {
                *in_flight = false;
                Ok(())
            }
            _ => Err(not_in_flight(id)),
        }
    }

    /// Reads the used index again; true where there is something to take.
    fn look(&mut self) -> Result<bool> {
        let seen = self.arena.load_u16(self.layout.used + spec::USED_IDX, Ordering::Acquire)?;
        if seen.wrapping_sub(self.used_next) > self.layout.size {
            return Err(Error::Device(format!(
                "used index {seen} where {} was expected, in a queue of {}",
                self.used_next, self.layout.size
            )));
        }
        self.used_seen = seen;
        Ok(seen != self.used_next)
    }

    pub(super) fn has_used(&mut self) -> Result<bool> {
        Ok(self.used_next != self.used_seen || self.look()?)
    }

    pub(super) fn arm(&mut self) -> Result<bool> {
        if self.event_idx {
            self.set_used_event(self.used_next)?;
        } else {
            self.arena.store_u16(self.layout.avail + spec::AVAIL_FLAGS, 0, Ordering::Relaxed)?;
        }
        // The driver's used_event or flags must be visible before the index is read: the device
        // does the mirror image.
        fence(Ordering::SeqCst);
        self.has_used()
    }

    pub(super) fn disarm(&mut self) -> Result<()> {
        if self.event_idx {
            // The event index is set as far ahead as it goes.
            self.set_used_event(self.used_next.wrapping_sub(1))
        } else {
            let at = self.layout.avail + spec::AVAIL_FLAGS;
            self.arena.store_u16(at, spec::AVAIL_F_NO_INTERRUPT, Ordering::Relaxed)
        }
    }

    fn set_used_event(&self, event: u16) -> Result<()> {
        let at = self.layout.avail + spec::AVAIL_RING + 2 * usize::from(self.layout.size);
        self.arena.store_u16(at, event, Ordering::Relaxed)
    }

    pub(super) fn force_avail_idx(&self, index: u16) -> Result<()> {
        self.arena.store_u16(self.layout.avail + spec::AVAIL_IDX, index, Ordering::Release)
    }

    #[inline]
    pub(super) fn force_offer(&mut self, head: u16) -> Result<()> {
        let slot = usize::from(self.avail_next & (self.layout.size - 1));
        let at = self.layout.avail + spec::AVAIL_RING + 2 * slot;
        self.arena.store_u16(at, head, Ordering::Relaxed)?;
        self.avail_next = self.avail_next.wrapping_add(1);
        Ok(())
    }
}

fn not_in_flight(id: u32) -> Error {
    Error::Device(format!("used descriptor {id}, which the device does not have"))
}
