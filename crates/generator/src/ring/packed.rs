//! This module is a packed virtqueue whose buffers keep their descriptors (virtio 1.3, section
//! 2.8).
//!
//! A descriptor is two words, of which the second holds length, buffer ID and flags: one store
//! makes it available. The store to a burst's first descriptor comes last, so that the device sees
//! all of the burst or nothing.

use super::buffers::{Buffer, InFlight, Order, out_of_order};
use manifold_guest::Result;
use manifold_guest::memory::Arena;
use manifold_guest::virtio::spec::{packed as spec, ring};
use manifold_guest::virtio::{Layout, Used, need_event};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

/// Mask of both ownership flags in a descriptor's second word.
const FLAGS: u64 = ((spec::F_AVAIL | spec::F_USED) as u64) << 48;
const AVAIL: u64 = (spec::F_AVAIL as u64) << 48;

/// Mask of the buffer ID in a descriptor's second word.
const ID: u64 = 0xffff << 32;

/// A descriptor of the ring, and the buffer whose ID is the descriptor's position.
#[derive(Debug)]
struct Entry<'a> {
    address: &'a AtomicU64,
    second: &'a AtomicU64,
    /// Address of the buffer, and the second word but for the flags that make it available.
    buffer: (u64, u64),
}

impl Entry<'_> {
    /// Writes the address and returns the second word, to be stored by the caller. The device may
    /// have written anything here, so the address is written every time.
    #[inline]
    fn describe(&self, (iova, word): (u64, u64), available: u64) -> u64 {
        self.address.store(iova.to_le(), Ordering::Relaxed);
        (word | available).to_le()
    }
}

/// A packed virtqueue.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    size: u16,
    in_order: bool,
    entries: Box<[Entry<'a>]>,
    order: Order,
    /// Buffers that the device has, unless it is believed to keep the order.
    in_flight: Option<InFlight>,
    driver_flags: &'a AtomicU16,
    device_event: &'a AtomicU16,
    device_flags: &'a AtomicU16,
    /// Index of the next descriptor to make available, and the flags that do it.
    next: u16,
    available: u64,
    /// Index of the next descriptor to come back, and its flags when it has.
    next_used: u16,
    used: u64,
    free: u16,
    /// Number of descriptors made available since the last [`Self::needs_kick`].
    unannounced: u16,
}

impl<'a> Packed<'a> {
    pub(crate) fn new(
        arena: &'a Arena,
        layout: Layout,
        in_order: bool,
        buffers: &[Buffer],
        assume_order: bool,
    ) -> Result<Self> {
        let entry = |(index, buffer): (u16, &Buffer)| {
            let at = layout.desc + spec::DESC * usize::from(index);
            let flags = if buffer.writable { ring::F_WRITE } else { 0 };
            let word = u64::from(buffer.len) | u64::from(index) << 32 | u64::from(flags) << 48;
            Ok(Entry {
                address: arena.cell64(at)?,
                second: arena.cell64(at + 8)?,
                buffer: (buffer.iova, word),
            })
        };
        let ring = Self {
            size: layout.size,
            in_order,
            entries: (0..).zip(buffers).map(entry).collect::<Result<_>>()?,
            order: Order::new(layout.size),
            // If buffers come back in order, positions are buffer IDs: nothing else may come back.
            in_flight: (!assume_order && !in_order).then(|| InFlight::new(layout.size)),
            driver_flags: arena.cell(layout.avail + spec::EVENT_FLAGS)?,
            device_event: arena.cell(layout.used)?,
            device_flags: arena.cell(layout.used + spec::EVENT_FLAGS)?,
            next: 0,
            // Both wrap counters begin with 1 (2.8.1).
            available: AVAIL,
            next_used: 0,
            used: FLAGS,
            free: layout.size,
            unannounced: 0,
        };
        ring.disarm();
        Ok(ring)
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(crate) fn free(&self) -> u16 {
        self.free
    }

    /// Loads a descriptor's second word.
    #[inline]
    fn load(&self, position: u16) -> u64 {
        let entry = self.entries.get(usize::from(position));
        entry.map_or(0, |entry| u64::from_le(entry.second.load(Ordering::Acquire)))
    }

    /// Returns how many buffers the used descriptor at `position`, with the second word `word`,
    /// stands for.
    #[inline]
    fn stands_for(&self, position: u16, word: u64, in_flight: u16) -> Result<u16> {
        let id = (word >> 32) as u16;
        if id == position {
            return Ok(1);
        }
        // If buffers come back in order, one descriptor may stand for all up to its buffer (2.8.7).
        let count = (id.wrapping_sub(position) & (self.size - 1)) + 1;
        if self.in_order && id < self.size && count <= in_flight {
            Ok(count)
        } else {
            Err(out_of_order(id.into(), position))
        }
    }

    /// Returns how many descriptors from `first` on came back with their own buffer's ID: at most
    /// `most`, and none beyond the end of the ring.
    #[inline]
    fn run(&self, first: u16, most: u16, used: u64) -> u16 {
        let (from, to) = (usize::from(first), usize::from(first) + usize::from(most));
        let entries = self.entries.get(from..to.min(self.entries.len())).unwrap_or_default();
        let mut due = used | u64::from(first) << 32;
        let mut count = 0;
        for entry in entries {
            let word = u64::from_le(entry.second.load(Ordering::Relaxed));
            if word & (FLAGS | ID) != due {
                break;
            }
            due += 1 << 32;
            count += 1;
        }
        count
    }

    /// Moves on by `count` used descriptors.
    #[inline]
    fn pass(&mut self, count: u16) {
        self.next_used += count;
        if self.next_used >= self.size {
            self.next_used -= self.size;
            self.used ^= FLAGS;
        }
        self.free += count;
    }

    #[inline]
    pub(crate) fn reclaim(&mut self, limit: u16) -> Result<u16> {
        if self.in_flight.is_some() {
            return self.reclaim_each(limit, |_| Ok(()));
        }
        let limit = limit.min(self.size - self.free);
        let mut count = 0;
        while count < limit {
            let run = self.run(self.next_used, limit - count, self.used);
            self.pass(run);
            count += run;
            if count < limit && (run == 0 || self.next_used != 0) {
                // The next descriptor is not back yet, or is not what was expected.
                let step = self.step()?;
                if step == 0 {
                    break;
                }
                self.pass(step);
                count += step;
            }
        }
        // The contents of the buffers are read after this.
        fence(Ordering::Acquire);
        Ok(count)
    }

    /// Returns how many buffers the next used descriptor stands for, and 0 if it is not back.
    fn step(&self) -> Result<u16> {
        let word = self.load(self.next_used);
        if word & FLAGS != self.used {
            return Ok(0);
        }
        self.stands_for(self.next_used, word, self.size - self.free)
    }

    pub(crate) fn reclaim_each(
        &mut self,
        limit: u16,
        mut each: impl FnMut(Used) -> Result<()>,
    ) -> Result<u16> {
        let in_flight = self.size - self.free;
        let mut count = 0;
        while count < limit.min(in_flight) {
            let word = self.load(self.next_used);
            if word & FLAGS != self.used {
                break;
            }
            let step = match &mut self.in_flight {
                Some(in_flight) => {
                    let id = in_flight.clear((word >> 32) as u32 & 0xffff)?;
                    self.order.set(self.next_used, id);
                    1
                }
                None => self.stands_for(self.next_used, word, in_flight - count)?,
            };
            for last in (0..step).map(|n| n + 1 == step) {
                let head = self.order.at(self.next_used);
                // The used length is that of the last buffer.
                each(Used { head, len: if last { word as u32 } else { 0 } })?;
                self.next_used += 1;
                if self.next_used == self.size {
                    self.next_used = 0;
                    self.used ^= FLAGS;
                }
            }
            count += step;
        }
        self.free += count;
        Ok(count)
    }

    #[inline]
    pub(crate) fn post(&mut self, count: u16) {
        let mut first = None;
        let mut left = count;
        while left > 0 {
            // One part goes up to the ring's end, the next from its start.
            let part = left.min(self.size - self.next);
            let range = usize::from(self.next)..usize::from(self.next + part);
            let entries = self.entries.get(range).unwrap_or_default();
            if let Some(in_flight) = &mut self.in_flight {
                for (position, entry) in (self.next..).zip(entries) {
                    let id = self.order.at(position);
                    in_flight.set(id);
                    let buffer = self.entries.get(usize::from(id)).map_or((0, 0), |e| e.buffer);
                    let word = entry.describe(buffer, self.available);
                    match first {
                        Some(_) => entry.second.store(word, Ordering::Relaxed),
                        None => first = Some((entry.second, word)),
                    }
                }
            } else {
                let mut entries = entries.iter();
                if first.is_none()
                    && let Some(entry) = entries.next()
                {
                    first = Some((entry.second, entry.describe(entry.buffer, self.available)));
                }
                for entry in entries {
                    let word = entry.describe(entry.buffer, self.available);
                    entry.second.store(word, Ordering::Relaxed);
                }
            }
            left -= part;
            self.next += part;
            if self.next == self.size {
                self.next = 0;
                self.available ^= FLAGS;
            }
        }
        if let Some((second, word)) = first {
            second.store(word, Ordering::Release);
        }
        self.free -= count;
        self.unannounced += count;
    }

    #[inline]
    pub(crate) fn needs_kick(&mut self) -> bool {
        let count = std::mem::take(&mut self.unannounced);
        if count == 0 {
            return false;
        }
        match u16::from_le(self.device_flags.load(Ordering::Relaxed)) {
            spec::EVENT_DISABLE => false,
            spec::EVENT_DESC => {
                // This is the descriptor, with its wrap counter, at which the device wants its
                // doorbell rung (2.8.14).
                let event = u16::from_le(self.device_event.load(Ordering::Relaxed));
                let (mut at, wrap) = (event & 0x7fff, event >> 15 != 0);
                if wrap != (self.available == AVAIL) {
                    at = at.wrapping_sub(self.size);
                }
                need_event(at, self.next, self.next.wrapping_sub(count))
            }
            _ => true,
        }
    }

    pub(crate) fn arm(&self) -> bool {
        self.driver_flags.store(spec::EVENT_ENABLE.to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.load(self.next_used) & FLAGS == self.used && self.free < self.size
    }

    pub(crate) fn disarm(&self) {
        self.driver_flags.store(spec::EVENT_DISABLE.to_le(), Ordering::Relaxed);
    }
}
