//! This module is the device side of packed virtqueues (virtio 1.3, 2.8).
//!
//! There is one ring. The driver writes descriptors into it, flags last; the device overwrites them
//! with used descriptors, flags last. Two bits of the flags say whose turn a descriptor is,
//! relative to wrap counters that toggle with each lap.

mod in_use;

use std::sync::atomic::{Ordering, fence};

use manifold_dma::{Access, Pinned, Slice};

use super::area::Area;
use super::burst::Burst;
use super::chain::{
    AVAIL, Chain, DESCRIPTOR, Descriptor, Each, Found, INDIRECT, NEXT, USED, WRITE, Walk, single,
};
use super::error::RingError;
use super::inflight::PackedRecord;
use super::position::{Position, WRAP, advance, distance, index, retreat};
use super::setup::{QueueAddresses, QueueState};
use super::virtqueue::{Layout, RingBurst, VirtQueue};

pub use in_use::is_in_use;

/// Values of an event suppression area's flags (2.8.10).
mod event {
    pub(super) const ENABLE: u16 = 0;
    pub(super) const DISABLE: u16 = 1;
    pub(super) const DESC: u16 = 2;
    /// Mask of the bits that hold the flags.
    pub(super) const MASK: u16 = 3;
}
/// Offset of the flags in a descriptor.
const FLAGS: u64 = 14;
/// Size of an event suppression area in bytes.
const EVENT: usize = 4;

/// Number of descriptors in a cache line.
const PER_LINE: usize = 4;

/// The flags that tell a single direct descriptor that is available from all others.
const COMMON: u16 = AVAIL | USED | NEXT | INDIRECT;
/// A flag that is not in [`COMMON`]: a descriptor is never found equal to it, so none is taken for
/// a single direct one.
const NEVER: u16 = 1 << 4;

/// Returns [`AVAIL`] and [`USED`] of a descriptor that is available at this place.
#[inline]
fn available_flags(position: Position) -> u16 {
    if position & WRAP != 0 { AVAIL } else { USED }
}

/// A packed virtqueue.
pub type PackedQueue = VirtQueue<Packed>;

/// One burst over a packed queue.
pub type PackedBurst<'q, 'p> = RingBurst<'q, 'p, Packed>;

/// The state that only a packed queue has.
#[derive(Debug, Default)]
pub struct Packed {
    /// The value of the [`COMMON`] flags of a single direct descriptor at the next position to
    /// take.
    turn: u16,
    /// The descriptor at `published`, which is written last: length, buffer ID and flags as they
    /// lie in memory.
    first: u64,
    record: Option<Box<PackedRecord>>,
    descriptors: Area,
    driver: Area,
    device: Area,
}

impl Layout for Packed {
    const PACKED: bool = true;
    const START: Position = WRAP;

    fn allows(_: u16) -> bool {
        true
    }

    fn check(state: QueueState, size: u16) -> Result<(), RingError> {
        for position in [state.next_avail, state.next_used] {
            if index(position) >= size {
                return Err(RingError::Position { position, size });
            }
        }
        // The descriptors held between the two positions are at most the whole ring.
        if distance(state.next_used, state.next_avail, size) > size {
            return Err(RingError::Position { position: state.next_used, size });
        }
        Ok(())
    }

    fn take_from(queue: &mut PackedQueue, position: Position) {
        queue.next_avail = position;
        queue.layout.turn = available_flags(position) | queue.detour;
    }

    fn resolve(queue: &mut PackedQueue, pin: &Pinned<'_>) -> Result<(), RingError> {
        let QueueAddresses { size, descriptors, driver, device } = queue.addresses;
        let bytes = DESCRIPTOR * usize::from(size);
        let parts = &mut queue.layout;
        parts.descriptors.resolve(pin, descriptors, bytes, 16, Access::Write)?;
        parts.descriptors.resolve(pin, descriptors, bytes, 16, Access::Read)?;
        parts.driver.resolve(pin, driver, EVENT, 4, Access::Read)?;
        parts.device.resolve(pin, device, EVENT, 4, Access::Write)?;
        recover(queue, pin)
    }

    #[inline]
    fn prefetch(queue: &PackedQueue) {
        queue.layout.descriptors.prefetch(usize::from(index(queue.next_avail)) * DESCRIPTOR);
    }

    /// Writes a used descriptor. The first since the last [`Burst::publish`] is written only when
    /// that is called again.
    #[inline]
    fn write_used(burst: &mut PackedBurst<'_, '_>, at: Position, id: u16, written: u32) {
        let turn = if at & WRAP != 0 { AVAIL | USED } else { 0 };
        let flags = turn | if written != 0 { WRITE } else { 0 };
        let half = u64::from(written) | u64::from(id) << 32 | u64::from(flags) << 48;
        if at == burst.queue.published {
            burst.queue.layout.first = half.to_le();
        } else {
            burst.store(at, half.to_le(), Ordering::Relaxed);
        }
    }

    fn record_completed(&mut self, id: u16) {
        if let Some(record) = &mut self.record {
            record.complete(id);
        }
    }

    #[inline]
    fn has_record(&self) -> bool {
        self.record.is_some()
    }
}

/// Continues from what the inflight region says.
fn recover(queue: &mut PackedQueue, pin: &Pinned<'_>) -> Result<(), RingError> {
    let Some(region) = queue.inflight.clone() else { return Ok(()) };
    let QueueAddresses { size, descriptors, .. } = queue.addresses;
    let flags_at = |position: Position| {
        descriptors.saturating_add(DESCRIPTOR as u64 * u64::from(index(position)) + FLAGS)
    };
    let available = |position: Position| -> Result<bool, RingError> {
        let mut flags = [0; 2];
        pin.read(flags_at(position), &mut flags)?;
        Ok(u16::from_le_bytes(flags) & (AVAIL | USED) == available_flags(position))
    };
    let (record, position) = PackedRecord::new(region, size, queue.next_used, available)?;
    let mut state = queue.position();
    if let Some(used) = position {
        // The chains to be taken again are where the ring has, or had, as many available
        // descriptors. Some may have been made used and not published; the driver must not come
        // across them.
        for count in 0..record.held() {
            let at = advance(used, count, size);
            pin.write(flags_at(at), &available_flags(at).to_le_bytes())?;
        }
        state = QueueState { next_avail: used, next_used: used };
    }
    queue.layout.record = Some(Box::new(record));
    (queue.inflight, queue.detour, queue.plain) = (None, NEVER, false);
    queue.go_on(state);
    Ok(())
}

// The ring stays mapped, see `RingBurst`, which makes the accesses below safe. Indices in positions
// are below the queue's size.
impl<'p> PackedBurst<'_, 'p> {
    /// Reads length, buffer ID and flags of the descriptor at `position`: its second half, read in
    /// one piece. The driver writes the flags last, so with flags that say "available" the rest of
    /// the half is what it wrote, and the first half is, if it is read later.
    #[inline]
    fn second_half(&self, position: Position) -> u64 {
        let offset = usize::from(position & !WRAP) * DESCRIPTOR + 8;
        // SAFETY: the ring stays mapped, as said above, and is 16-aligned.
        unsafe { self.queue.layout.descriptors.u64(offset) }.load(Ordering::Acquire)
    }

    /// Reads the descriptor at `position`, of which the second half is known.
    #[inline]
    fn descriptor(&self, position: Position, second: u64) -> Descriptor {
        let offset = usize::from(position & !WRAP) * DESCRIPTOR;
        // SAFETY: the ring stays mapped, as said above, and is 16-aligned.
        let first = unsafe { self.queue.layout.descriptors.u64(offset) }.load(Ordering::Relaxed);
        Descriptor::packed([first, second])
    }

    /// Takes any chain, or finds that there is none; `second` is the next descriptor's second half.
    #[inline(never)]
    fn follow(&mut self, second: u64, each: Each<'_, 'p>) -> Found {
        match self.walk(second, each) {
            Ok(Some(chain)) => Found::Chain(chain),
            Ok(None) => Found::Nothing,
            Err(error) => self.fail(error),
        }
    }

    fn walk(&mut self, second: u64, each: Each<'_, 'p>) -> Result<Option<Chain>, RingError> {
        let size = self.queue.addresses.size;
        let mut at = self.queue.next_avail;
        let resubmit = self.queue.layout.record.as_ref().and_then(|record| record.resubmit());
        let mut descriptor = match resubmit {
            Some(resubmit) => resubmit.descriptor(0)?,
            None => self.descriptor(at, second),
        };
        if resubmit.is_none() && descriptor.flags & (AVAIL | USED) != available_flags(at) {
            return Ok(None);
        }
        let mut taken = Vec::new();
        let room = size - distance(self.queue.next_used, at, size).min(size);
        let mut walk = Walk::new(self.pin, each);
        for count in 1..=size {
            if count > room {
                return Err(RingError::Overrun(at & !WRAP));
            }
            if resubmit.is_none() && descriptor.flags & (AVAIL | USED) != available_flags(at) {
                return Err(RingError::Unavailable(at & !WRAP));
            }
            if self.queue.layout.record.is_some() {
                taken.push(descriptor);
            }
            at = advance(at, 1, size);
            if descriptor.flags & INDIRECT != 0 {
                if !self.queue.features.indirect {
                    return Err(RingError::Indirect("not negotiated"));
                }
                if count > 1 {
                    return Err(RingError::Indirect("in a chain of descriptors"));
                }
                walk.whole_table(descriptor)?;
            } else {
                walk.buffer(descriptor)?;
                if descriptor.flags & NEXT != 0 {
                    descriptor = match resubmit {
                        Some(resubmit) => resubmit.descriptor(count)?,
                        None => self.descriptor(at, self.second_half(at)),
                    };
                    continue;
                }
            }
            // The ID is in the last descriptor of the list (2.8.6).
            let id = descriptor.link;
            let chain = walk.chain(id, count);
            let resubmit = resubmit.is_some();
            Packed::take_from(self.queue, at);
            if let Some(record) = &mut self.queue.layout.record {
                if resubmit { record.take_resubmitted(id) } else { record.take(id, &taken) }
            }
            return Ok(Some(chain));
        }
        Err(RingError::Loop(size))
    }

    #[inline]
    fn store(&mut self, at: Position, half: u64, order: Ordering) {
        let offset = usize::from(at & !WRAP) * DESCRIPTOR + 8;
        // SAFETY: the ring stays mapped, as said above, and is 16-aligned.
        unsafe { self.queue.layout.descriptors.u64(offset) }.store(half, order);
    }

    /// Writes the device's event suppression area, in one piece.
    fn write_device_event(&mut self, event: Position, flags: u16) {
        let area = u32::from(event) | u32::from(flags) << 16;
        // SAFETY: the area stays mapped, as said above, and is 4-aligned.
        unsafe { self.queue.layout.device.u32(0) }.store(area.to_le(), Ordering::Release);
    }
}

impl<'p> Burst<'p> for PackedBurst<'_, 'p> {
    #[inline]
    fn available(&mut self) -> Result<u16, RingError> {
        if self.queue.layout.record.as_ref().is_some_and(|record| record.resubmit().is_some()) {
            return Ok(1);
        }
        let at = self.queue.next_avail;
        let flags = (u64::from_le(self.second_half(at)) >> 48) as u16;
        Ok(u16::from(flags & (AVAIL | USED) == available_flags(at)))
    }

    #[inline]
    fn pop(
        &mut self,
        mut each: impl FnMut(Slice<'p>, Access) -> bool,
    ) -> Result<Option<Chain>, RingError> {
        let at = self.queue.next_avail;
        let second = self.second_half(at);
        let flags = (u64::from_le(second) >> 48) as u16;
        // The driver may make no descriptor available a whole lap ahead of what was used.
        if flags & COMMON == self.queue.layout.turn && at ^ self.queue.next_used != WRAP {
            let descriptor = self.descriptor(at, second);
            if let Some((slice, access, chain)) = single(self.pin, descriptor.link, descriptor) {
                if !each(slice, access) {
                    return Err(RingError::TooManyPieces(0));
                }
                let next = at + 1;
                if next & !WRAP == self.queue.addresses.size {
                    Packed::take_from(self.queue, !at & WRAP);
                } else {
                    self.queue.next_avail = next;
                }
                return Ok(Some(chain));
            }
        }
        match self.follow(second, &mut each) {
            Found::Chain(chain) => Ok(Some(chain)),
            Found::Nothing => Ok(None),
            Found::Error => Err(self.error),
        }
    }

    #[inline]
    fn put_back(&mut self, chains: &[Chain]) {
        let size = self.queue.addresses.size;
        let mut at = self.queue.next_avail;
        for chain in chains {
            at = retreat(at, chain.descriptors, size);
        }
        Packed::take_from(self.queue, at);
        if let Some(record) = &mut self.queue.layout.record {
            record.put_back(chains);
        }
    }

    #[inline]
    fn prepare(&mut self, count: usize) {
        // The descriptors are written to when they are used.
        let size = self.queue.addresses.size;
        for ahead in (0..count.min(size.into())).step_by(PER_LINE) {
            let at = advance(self.queue.next_avail, ahead as u16, size);
            self.queue.layout.descriptors.prefetch_write(usize::from(at & !WRAP) * DESCRIPTOR);
        }
    }

    #[inline]
    fn pop_direct(
        &mut self,
        count: usize,
        access: Access,
        mut each: impl FnMut(Chain, Slice<'p>),
    ) -> Result<(), RingError> {
        const MASK: u16 = COMMON | WRITE;
        let size = self.queue.addresses.size;
        let mut window = self.pin.window(access);
        let mut at = self.queue.next_avail;
        let (mut turn, write) =
            (self.queue.layout.turn, if access == Access::Write { WRITE } else { 0 });
        // The driver may make no descriptor available a whole lap ahead of what was used.
        let room = usize::from(size - distance(self.queue.next_used, at, size).min(size));
        for _ in 0..count.min(room) {
            let second = self.second_half(at);
            if (u64::from_le(second) >> 48) as u16 & MASK != turn | write {
                break;
            }
            let descriptor = self.descriptor(at, second);
            let Some(slice) = window.recall(descriptor.iova, descriptor.len as usize) else {
                break;
            };
            each(Chain::direct(descriptor.link, descriptor.len, access), slice);
            at += 1;
            if at & !WRAP == size {
                at = !at & WRAP;
                turn = available_flags(at) | self.queue.detour;
            }
        }
        self.queue.next_avail = at;
        self.queue.layout.turn = turn;
        Ok(())
    }

    #[inline]
    fn complete(&mut self, chain: &Chain, written: u32) {
        let at = self.queue.next_used;
        if self.queue.plain {
            Packed::write_used(self, at, chain.head, written);
        } else {
            self.complete_specially(at, chain, written);
        }
        let size = self.queue.addresses.size;
        self.queue.next_used = advance(at, chain.descriptors.min(size), size);
    }

    #[inline]
    fn complete_all(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let size = self.queue.addresses.size;
        if self.leave_out_all(self.queue.next_used, chains) {
            let mut at = self.queue.next_used;
            for chain in chains {
                at = advance(at, chain.descriptors.min(size), size);
            }
            self.queue.next_used = at;
            return;
        }
        for (index, chain) in chains.iter().enumerate() {
            self.complete(chain, written(index));
        }
    }

    #[inline]
    fn make_visible(&mut self) -> bool {
        let (old, new) = (self.queue.published, self.queue.next_used);
        if old == new {
            return false;
        }
        if !self.queue.plain {
            self.flush();
        }
        if let Some(record) = &mut self.queue.layout.record {
            record.publish(new);
        }
        // The driver looks at this descriptor first; the others were written before (2.8.2, 2.8.9).
        self.store(old, self.queue.layout.first, Ordering::Release);
        if let Some(record) = &mut self.queue.layout.record {
            record.published(new);
        }
        self.queue.published = new;
        true
    }

    #[inline]
    fn wants_interrupt(&mut self) -> bool {
        let new = self.queue.published;
        let old = std::mem::replace(&mut self.queue.asked, new);
        if old == new {
            return false;
        }
        // SAFETY: the area stays mapped, as said above, and is 4-aligned. One load reads both,
        // because the offset belongs to the flags.
        let area = u32::from_le(unsafe { self.queue.layout.driver.u32(0) }.load(Ordering::Relaxed));
        let (event, flags) = (area as u16, (area >> 16) as u16 & event::MASK);
        match flags {
            event::DISABLE => false,
            event::DESC if self.queue.features.event_index => {
                let size = self.queue.addresses.size;
                // The length of the batch and the event's place in it are counted from its
                // beginning, over two laps.
                let offset = event & !WRAP;
                let lap = if (old ^ event) & WRAP == 0 { 0 } else { size };
                let ahead = (offset + lap).checked_sub(old & !WRAP);
                offset < size && ahead.is_some_and(|ahead| ahead < distance(old, new, size))
            }
            _ => true,
        }
    }

    fn arm(&mut self) -> Result<bool, RingError> {
        let (event, flags) = if self.queue.features.event_index {
            (self.queue.next_avail, event::DESC)
        } else {
            (0, event::ENABLE)
        };
        self.write_device_event(event, flags);
        self.queue.quiet = false;
        fence(Ordering::SeqCst);
        Ok(self.available()? > 0)
    }

    #[inline]
    fn disarm(&mut self) {
        if !self.queue.quiet {
            self.write_device_event(0, event::DISABLE);
            self.queue.quiet = true;
        }
    }
}
