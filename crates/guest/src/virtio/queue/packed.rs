//! This module is a packed virtqueue (virtio 1.3, section 2.8).
//!
//! A chain takes as many ring entries, one after another, as it has descriptors. Its buffer ID is
//! its first descriptor's number in the driver's table. The entry that begins a burst becomes
//! available last, so that the device sees a burst as a whole.

use super::layout::{Descriptor, Layout, Used, need_event};
use crate::memory::Arena;
use crate::virtio::spec::{packed as spec, ring};
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A position in the ring, with its wrap counter.
#[derive(Debug, Clone, Copy)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    fn step(&mut self, count: u16, size: u16) {
        self.index += count;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }
}

/// A packed virtqueue.
#[derive(Debug)]
pub(super) struct Packed {
    arena: Arc<Arena>,
    layout: Layout,
    event_idx: bool,
    table: Box<[Descriptor]>,
    /// Number of ring entries that each chain in flight takes, by its first descriptor; 0 if the
    /// device does not have it.
    in_flight: Box<[u16]>,
    /// Number of free ring entries.
    free: u16,
    next: Position,
    /// Offset and value of the second word of the first entry that is not published.
    first: Option<(usize, u64)>,
    /// Number of chains and of entries that are not published.
    unpublished: (u16, u16),
    used: Position,
}

impl Packed {
    pub(super) fn new(arena: Arc<Arena>, layout: Layout, event_idx: bool) -> Self {
        let (begin, size) = (Position { index: 0, wrap: true }, usize::from(layout.size));
        Self {
            arena,
            layout,
            event_idx,
            table: vec![Descriptor::default(); size].into_boxed_slice(),
            in_flight: vec![0; size].into_boxed_slice(),
            free: layout.size,
            next: begin,
            first: None,
            unpublished: (0, 0),
            used: begin,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    fn entry(&mut self, index: u16) -> Result<&mut Descriptor> {
        let none = || Error::Command(format!("there is no descriptor {index}"));
        self.table.get_mut(usize::from(index)).ok_or_else(none)
    }

    pub(super) fn set_descriptor(&mut self, index: u16, descriptor: Descriptor) -> Result<()> {
        *self.entry(index)? = descriptor;
        Ok(())
    }

    pub(super) fn set_length(&mut self, index: u16, len: u32, flags: u16) -> Result<()> {
        let entry = self.entry(index)?;
        (entry.len, entry.flags) = (len, flags);
        Ok(())
    }

    pub(super) fn offer(&mut self, head: u16) -> Result<()> {
        let not_free = || Error::Command(format!("descriptor {head} is not free to offer"));
        if self.in_flight.get(usize::from(head)).is_none_or(|in_flight| *in_flight > 0) {
            return Err(not_free());
        }
        let (mut at, mut count) = (head, 0);
        loop {
            if count == self.free {
                return Err(not_free());
            }
            let descriptor = *self.entry(at)?;
            self.write(head, &descriptor, count)?;
            count += 1;
            if descriptor.flags & ring::F_NEXT == 0 {
                break;
            }
            at = descriptor.next;
        }
        if let Some(in_flight) = self.in_flight.get_mut(usize::from(head)) {
            *in_flight = count;
        }
        self.free -= count;
        self.next.step(count, self.layout.size);
        self.unpublished = (self.unpublished.0 + 1, self.unpublished.1 + count);
        Ok(())
    }

    /// Writes the entry that is `ahead` of the next.
    fn write(&mut self, id: u16, descriptor: &Descriptor, ahead: u16) -> Result<()> {
        let mut place = self.next;
        place.step(ahead, self.layout.size);
        let flags = descriptor.flags | if place.wrap { spec::F_AVAIL } else { spec::F_USED };
        let word = u64::from(descriptor.len) | u64::from(id) << 32 | u64::from(flags) << 48;
        let at = self.layout.desc + spec::DESC * usize::from(place.index);
        self.arena.store_u64(at, descriptor.iova)?;
        match self.first {
            Some(_) => self.arena.store_u64(at + 8, word),
            None => {
                self.first = Some((at + 8, word));
                Ok(())
            }
        }
    }

    pub(super) fn unpublished(&self) -> u16 {
        self.unpublished.0
    }

    pub(super) fn publish(&mut self) -> Result<bool> {
        let Some((at, word)) = self.first.take() else { return Ok(false) };
        let (_, count) = std::mem::take(&mut self.unpublished);
        self.arena.cell64(at)?.store(word.to_le(), Ordering::Release);
        // The entries must be visible before the device's event suppression is read: the device
        // does the mirror image.
        fence(Ordering::SeqCst);
        let flags = self.arena.load_u16(self.layout.used + spec::EVENT_FLAGS, Ordering::Relaxed)?;
        match flags & 3 {
            spec::EVENT_DISABLE => Ok(false),
            spec::EVENT_DESC if self.event_idx => {
                let event = self.arena.load_u16(self.layout.used, Ordering::Relaxed)?;
                let (mut index, wrap) = (event & 0x7fff, event >> 15 != 0);
                if wrap != self.next.wrap {
                    index = index.wrapping_sub(self.layout.size);
                }
                let new = self.next.index;
                Ok(need_event(index, new, new.wrapping_sub(count)))
            }
            _ => Ok(true),
        }
    }

    fn word(&self) -> Result<u64> {
        let at = self.layout.desc + spec::DESC * usize::from(self.used.index) + 8;
        Ok(u64::from_le(self.arena.cell64(at)?.load(Ordering::Acquire)))
    }

    pub(super) fn peek(&mut self) -> Result<Option<Used>> {
        let word = self.word()?;
        let flags = (word >> 48) as u16;
        let (avail, used) = (flags & spec::F_AVAIL != 0, flags & spec::F_USED != 0);
        // A ring in which nothing is in flight looks used where the counter just wrapped.
        if avail != self.used.wrap || used != self.used.wrap || self.free == self.layout.size {
            return Ok(None);
        }
        Ok(Some(Used { head: (word >> 32) as u16, len: word as u32 }))
    }

    pub(super) fn advance(&mut self, head: u16) -> Result<()> {
        let in_flight = self.in_flight.get_mut(usize::from(head)).map_or(0, std::mem::take);
        if in_flight == 0 {
            return Err(Error::Device(format!(
                "used buffer {head}, which the device does not have"
            )));
        }
        self.free += in_flight;
        self.used.step(in_flight, self.layout.size);
        Ok(())
    }

    pub(super) fn has_used(&mut self) -> Result<bool> {
        Ok(self.peek()?.is_some())
    }

    pub(super) fn arm(&mut self) -> Result<bool> {
        if self.event_idx {
            let event = self.used.index | u16::from(self.used.wrap) << 15;
            self.arena.store_u16(self.layout.avail, event, Ordering::Relaxed)?;
        }
        let wish = if self.event_idx { spec::EVENT_DESC } else { spec::EVENT_ENABLE };
        self.arena.store_u16(self.layout.avail + spec::EVENT_FLAGS, wish, Ordering::Release)?;
        // The driver's event suppression must be visible before the ring is read: the device does
        // the mirror image.
        fence(Ordering::SeqCst);
        self.has_used()
    }

    pub(super) fn disarm(&mut self) -> Result<()> {
        let at = self.layout.avail + spec::EVENT_FLAGS;
        self.arena.store_u16(at, spec::EVENT_DISABLE, Ordering::Relaxed)
    }
}
