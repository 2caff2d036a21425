//! A packed virtqueue as a wheel (virtio 1.3, section 2.8).
//!
//! A descriptor is two words, of which the second holds length, buffer ID and flags: one store makes it
//! available. Of a burst the first descriptor's comes last, so that the device sees all or nothing.

use super::{Buffer, Lent, Order, out_of_order};
use crate::Result;
use crate::memory::Arena;
use crate::virtio::queue::need_event;
use crate::virtio::spec::{packed as spec, ring};
use crate::virtio::{Layout, Used};
use std::sync::atomic::{AtomicU16, Ordering, fence};
use vm_memory::{Bytes, VolatileSlice};

/// Both flags of a descriptor's second word.
const FLAGS: u64 = ((spec::F_AVAIL | spec::F_USED) as u64) << 48;
const AVAIL: u64 = (spec::F_AVAIL as u64) << 48;

/// A packed virtqueue.
#[derive(Debug)]
pub(in crate::rawgen) struct Packed<'a> {
    size: u16,
    in_order: bool,
    /// Each buffer's address, and its second word without flags of the ring.
    buffers: Box<[(u64, u64)]>,
    order: Order,
    /// Which buffers the device has, where the order is not to be relied on.
    lent: Option<Lent>,
    ring: VolatileSlice<'a>,
    driver_flags: &'a AtomicU16,
    device_event: &'a AtomicU16,
    device_flags: &'a AtomicU16,
    /// The next descriptor to make available, and the flags that do it.
    next: u16,
    available: u64,
    /// The next descriptor to come back, and its flags when it has.
    next_used: u16,
    used: u64,
    held: u16,
    /// Descriptors made available since the last look whether the device wants to know.
    unsettled: u16,
}

impl<'a> Packed<'a> {
    pub(super) fn new(
        arena: &'a Arena,
        layout: Layout,
        in_order: bool,
        buffers: &[Buffer],
        assume_order: bool,
    ) -> Result<Self> {
        let words = |(id, buffer): (u64, &Buffer)| {
            let flags = if buffer.writable { ring::F_WRITE } else { 0 };
            (buffer.iova, u64::from(buffer.len) | id << 32 | u64::from(flags) << 48)
        };
        let ring = Self {
            size: layout.size,
            in_order,
            buffers: (0..).zip(buffers).map(words).collect(),
            order: Order::new(layout.size),
            lent: (!assume_order).then(|| Lent::new(layout.size)),
            ring: arena.view(layout.desc, spec::DESC * usize::from(layout.size))?,
            driver_flags: arena.cell(layout.avail + spec::EVENT_FLAGS)?,
            device_event: arena.cell(layout.used)?,
            device_flags: arena.cell(layout.used + spec::EVENT_FLAGS)?,
            next: 0,
            // Both wrap counters begin with 1 (2.8.1).
            available: AVAIL,
            next_used: 0,
            used: FLAGS,
            held: layout.size,
            unsettled: 0,
        };
        ring.disarm();
        Ok(ring)
    }

    #[inline]
    pub(super) fn held(&self) -> u16 {
        self.held
    }

    #[inline]
    fn load(&self, position: u16) -> u64 {
        let at = spec::DESC * usize::from(position) + 8;
        self.ring.load(at, Ordering::Acquire).map_or(0, u64::from_le)
    }

    #[inline]
    fn store(&self, at: usize, word: u64, order: Ordering) {
        let _ = self.ring.store(word.to_le(), at, order);
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        limit: u16,
        mut each: impl FnMut(Used) -> Result<()>,
    ) -> Result<u16> {
        let limit = limit.min(self.size - self.held);
        let mut count = 0;
        while count < limit {
            let word = self.load(self.next_used);
            if word & FLAGS != self.used {
                break;
            }
            let id = (word >> 32) as u16;
            let mut last = 1;
            if self.in_order {
                // One descriptor may stand for all up to this buffer (2.8.7).
                last += id.wrapping_sub(self.next_used) & (self.size - 1);
                if last > self.size - self.held - count {
                    return Err(out_of_order(id.into(), self.next_used));
                }
            } else if let Some(lent) = &mut self.lent {
                lent.clear(id.into())?;
                self.order.set(self.next_used, id);
            } else if id != self.next_used {
                return Err(out_of_order(id.into(), self.next_used));
            }
            for skipped in (0..last).rev() {
                let head = if self.in_order { self.next_used } else { id };
                // The length is that of the last of them.
                let len = if skipped == 0 { word as u32 } else { 0 };
                each(Used { head, len })?;
                self.next_used += 1;
                if self.next_used == self.size {
                    self.next_used = 0;
                    self.used ^= FLAGS;
                }
            }
            count += last;
        }
        self.held += count;
        Ok(count)
    }

    #[inline]
    pub(super) fn give(&mut self, count: u16) {
        let mut first = None;
        for _ in 0..count {
            let id = self.order.at(self.next);
            let Some(&(iova, word)) = self.buffers.get(usize::from(id)) else { continue };
            if let Some(lent) = &mut self.lent {
                lent.set(id);
            }
            let at = spec::DESC * usize::from(self.next);
            // The device may have written anything here, so the address too is written again.
            self.store(at, iova, Ordering::Relaxed);
            let word = word | self.available;
            match first {
                Some(_) => self.store(at + 8, word, Ordering::Relaxed),
                None => first = Some((at + 8, word)),
            }
            self.next += 1;
            if self.next == self.size {
                self.next = 0;
                self.available ^= FLAGS;
            }
        }
        if let Some((at, word)) = first {
            self.store(at, word, Ordering::Release);
        }
        self.held -= count;
        self.unsettled += count;
    }

    #[inline]
    pub(super) fn settle(&mut self) -> bool {
        let count = std::mem::take(&mut self.unsettled);
        if count == 0 {
            return false;
        }
        match u16::from_le(self.device_flags.load(Ordering::Relaxed)) {
            spec::EVENT_DISABLE => false,
            spec::EVENT_DESC => {
                // 2.8.14: a descriptor and the wrap counter at which the device wants to know.
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

    pub(super) fn arm(&self) -> bool {
        self.driver_flags.store(spec::EVENT_ENABLE.to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.load(self.next_used) & FLAGS == self.used && self.held < self.size
    }

    pub(super) fn disarm(&self) {
        self.driver_flags.store(spec::EVENT_DISABLE.to_le(), Ordering::Relaxed);
    }
}
