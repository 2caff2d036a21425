//! This module is a split virtqueue whose buffers keep their descriptors (virtio 1.3, section 2.7).
//!
//! While the device keeps the order, entry i of the available ring is descriptor i for ever:
//! posting buffers is one store, reclaiming them one load. One used entry per turn of the ring is
//! read to see that the order is kept.

use super::buffers::{Buffer, InFlight, Order, out_of_order};
use manifold_guest::memory::Arena;
use manifold_guest::virtio::spec::ring as spec;
use manifold_guest::virtio::{Descriptor, Layout, Used, need_event};
use manifold_guest::{Error, Result};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

/// A split virtqueue.
#[derive(Debug)]
pub(crate) struct Split<'a> {
    size: u16,
    event_idx: bool,
    /// Order in which buffers came back, unless the device is believed to keep theirs.
    order: Option<(Order, InFlight)>,
    avail_flags: &'a AtomicU16,
    avail_idx: &'a AtomicU16,
    used_event: &'a AtomicU16,
    used_flags: &'a AtomicU16,
    used_idx: &'a AtomicU16,
    avail_event: &'a AtomicU16,
    avail_ring: Box<[&'a AtomicU16]>,
    /// Both words of each used element: buffer ID and length.
    used_ring: Box<[[&'a AtomicU32; 2]]>,
    /// The published available index.
    given: u16,
    /// The available index at the last [`Self::needs_kick`].
    announced: u16,
    /// Index of the next used entry to reclaim.
    taken: u16,
    /// The used index that was last read.
    seen: u16,
}

impl<'a> Split<'a> {
    pub(crate) fn new(
        arena: &'a Arena,
        layout: Layout,
        event_idx: bool,
        buffers: &[Buffer],
        assume_order: bool,
    ) -> Result<Self> {
        let n = usize::from(layout.size);
        let available = |index: usize| arena.cell(layout.avail + spec::AVAIL_RING + 2 * index);
        let used = |index: usize| {
            let at = layout.used + spec::USED_RING + spec::USED_ELEMENT * index;
            Ok([arena.cell32(at)?, arena.cell32(at + 4)?])
        };
        for (index, buffer) in (0..).zip(buffers) {
            let flags = if buffer.writable { spec::F_WRITE } else { 0 };
            let Buffer { iova, len, .. } = *buffer;
            Descriptor { iova, len, flags, next: 0 }.write(arena, layout.desc, index)?;
            let entry = layout.avail + spec::AVAIL_RING + 2 * usize::from(index);
            arena.store_u16(entry, index, Ordering::Relaxed)?;
        }
        let ring = Self {
            size: layout.size,
            event_idx,
            order: (!assume_order).then(|| (Order::new(layout.size), InFlight::new(layout.size))),
            avail_flags: arena.cell(layout.avail + spec::AVAIL_FLAGS)?,
            avail_idx: arena.cell(layout.avail + spec::AVAIL_IDX)?,
            used_event: arena.cell(layout.avail + spec::AVAIL_RING + 2 * n)?,
            used_flags: arena.cell(layout.used + spec::USED_FLAGS)?,
            used_idx: arena.cell(layout.used + spec::USED_IDX)?,
            avail_event: arena.cell(layout.used + spec::USED_RING + spec::USED_ELEMENT * n)?,
            avail_ring: (0..n).map(available).collect::<Result<_>>()?,
            used_ring: (0..n).map(used).collect::<Result<_>>()?,
            given: 0,
            announced: 0,
            taken: 0,
            seen: 0,
        };
        ring.disarm();
        Ok(ring)
    }

    fn mask(&self) -> u16 {
        self.size - 1
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(crate) fn free(&self) -> u16 {
        self.size - self.given.wrapping_sub(self.taken)
    }

    /// Returns how many used entries are ready, at most `limit`.
    #[inline]
    fn ready(&mut self, limit: u16) -> Result<u16> {
        if self.seen == self.taken {
            self.seen = u16::from_le(self.used_idx.load(Ordering::Acquire));
            if self.seen.wrapping_sub(self.taken) > self.given.wrapping_sub(self.taken) {
                return Err(self.bad_index());
            }
        }
        Ok(self.seen.wrapping_sub(self.taken).min(limit))
    }

    #[cold]
    fn bad_index(&self) -> Error {
        Error::Device(format!(
            "used index {} after {}, with an available index of {}",
            self.seen, self.taken, self.given
        ))
    }

    #[inline]
    fn used(&self, index: u16) -> (u32, u32) {
        let load = |word: &AtomicU32| u32::from_le(word.load(Ordering::Relaxed));
        let element = self.used_ring.get(usize::from(index & self.mask()));
        element.map_or((u32::MAX, 0), |[id, len]| (load(id), load(len)))
    }

    #[inline]
    pub(crate) fn reclaim(&mut self, limit: u16) -> Result<u16> {
        if self.order.is_some() {
            return self.reclaim_each(limit, |_| Ok(()));
        }
        let count = self.ready(limit)?;
        // Entry 0 is checked on every turn, if it is among these.
        let position = self.taken & self.mask();
        if position == 0 || count > self.size - position {
            self.check_order()?;
        }
        self.taken = self.taken.wrapping_add(count);
        Ok(count)
    }

    #[inline(never)]
    fn check_order(&self) -> Result<()> {
        match self.used(0) {
            (0, _) => Ok(()),
            (id, _) => Err(out_of_order(id, 0)),
        }
    }

    pub(crate) fn reclaim_each(
        &mut self,
        limit: u16,
        mut each: impl FnMut(Used) -> Result<()>,
    ) -> Result<u16> {
        let count = self.ready(limit)?;
        for index in (0..count).map(|n| self.taken.wrapping_add(n)) {
            let position = index & self.mask();
            let (id, len) = self.used(index);
            let head = match &mut self.order {
                Some((order, in_flight)) => {
                    let head = in_flight.clear(id)?;
                    order.set(position, head);
                    head
                }
                None if id == u32::from(position) => position,
                None => return Err(out_of_order(id, position)),
            };
            each(Used { head, len })?;
        }
        self.taken = self.taken.wrapping_add(count);
        Ok(count)
    }

    #[inline]
    pub(crate) fn post(&mut self, count: u16) {
        if let Some((order, in_flight)) = &mut self.order {
            for index in (0..count).map(|n| self.given.wrapping_add(n)) {
                let position = index & (self.size - 1);
                let id = order.at(position);
                in_flight.set(id);
                if let Some(entry) = self.avail_ring.get(usize::from(position)) {
                    entry.store(id.to_le(), Ordering::Relaxed);
                }
            }
        }
        self.given = self.given.wrapping_add(count);
        self.avail_idx.store(self.given.to_le(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn needs_kick(&mut self) -> bool {
        let (old, new) = (self.announced, self.given);
        if old == new {
            return false;
        }
        self.announced = new;
        if self.event_idx {
            let event = u16::from_le(self.avail_event.load(Ordering::Relaxed));
            need_event(event, new, old)
        } else {
            u16::from_le(self.used_flags.load(Ordering::Relaxed)) & spec::USED_F_NO_NOTIFY == 0
        }
    }

    pub(crate) fn arm(&self) -> bool {
        if self.event_idx {
            self.used_event.store(self.taken.to_le(), Ordering::Relaxed);
        } else {
            self.avail_flags.store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        u16::from_le(self.used_idx.load(Ordering::Relaxed)) != self.taken
    }

    pub(crate) fn disarm(&self) {
        if self.event_idx {
            // The event index is as far ahead as it goes.
            self.used_event.store(self.taken.wrapping_sub(1).to_le(), Ordering::Relaxed);
        } else {
            self.avail_flags.store(spec::AVAIL_F_NO_INTERRUPT.to_le(), Ordering::Relaxed);
        }
    }
}
