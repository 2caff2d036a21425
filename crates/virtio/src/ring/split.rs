//! This module is the device side of split virtqueues (virtio 1.3, 2.7).

use std::sync::atomic::{Ordering, fence};

use manifold_dma::{Access, Pinned, Slice};

use super::area::Area;
use super::burst::Burst;
use super::chain::{
    Chain, DESCRIPTOR, Descriptor, Each, Found, INDIRECT, NEXT, WRITE, Walk, single,
};
use super::error::RingError;
use super::inflight::SplitRecord;
use super::setup::{QueueAddresses, QueueState};
use super::virtqueue::{Layout, RingBurst, VirtQueue};

/// VIRTQ_AVAIL_F_NO_INTERRUPT (2.7.6).
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY (2.7.8).
const NO_NOTIFY: u16 = 1;
/// Offset of `idx` in the available and in the used ring.
const INDEX: usize = 2;
/// Offset of `ring` in the available and in the used ring.
const ENTRIES: usize = 4;
/// Number of entries of the available ring that are fetched in one go.
const FETCH: usize = 32;
/// Number of used elements in a cache line.
const PER_LINE: usize = 8;
/// Number of entries by which [`SplitQueue::prefetch`] reaches ahead in the available ring: a
/// burst's worth.
const AHEAD: u16 = FETCH as u16 - 1;

/// A split virtqueue.
pub type SplitQueue = VirtQueue<Split>;

/// One burst over a split queue.
pub type SplitBurst<'q, 'p> = RingBurst<'q, 'p, Split>;

/// The state that only a split queue has.
#[derive(Debug, Default)]
pub struct Split {
    /// The available index as it was read last; entries before it may be read.
    limit: u16,
    /// Entries of the available ring up to here have been read, from at most [`FETCH`] before:
    /// entry `n` is in `heads[n % FETCH]`.
    read: u16,
    heads: [u16; FETCH],
    record: Option<Box<SplitRecord>>,
    descriptors: Area,
    available: Area,
    used: Area,
}

impl Layout for Split {
    const PACKED: bool = false;
    const START: u16 = 0;

    fn allows(size: u16) -> bool {
        size.is_power_of_two()
    }

    fn check(_: QueueState, _: u16) -> Result<(), RingError> {
        Ok(())
    }

    fn take_from(queue: &mut SplitQueue, next_avail: u16) {
        queue.next_avail = next_avail;
        (queue.layout.limit, queue.layout.read) = (next_avail, next_avail);
    }

    fn resolve(queue: &mut SplitQueue, pin: &Pinned<'_>) -> Result<(), RingError> {
        let QueueAddresses { size, descriptors, driver, device } = queue.addresses;
        let size = usize::from(size);
        let parts = &mut queue.layout;
        parts.descriptors.resolve(pin, descriptors, DESCRIPTOR * size, 16, Access::Read)?;
        // `used_event` and `avail_event` are at the ends of the rings (2.7.6, 2.7.8); without
        // VIRTIO_F_EVENT_IDX they are not looked at.
        let event = if queue.features.event_index { 2 } else { 0 };
        parts.available.resolve(pin, driver, ENTRIES + 2 * size + event, 2, Access::Read)?;
        parts.used.resolve(pin, device, ENTRIES + 8 * size + event, 4, Access::Write)?;
        recover(queue, pin)
    }

    #[inline]
    fn prefetch(queue: &SplitQueue) {
        let (mask, available) = (queue.addresses.size - 1, &queue.layout.available);
        available.prefetch(INDEX);
        for ahead in [0, AHEAD] {
            let slot = usize::from(queue.next_avail.wrapping_add(ahead) & mask);
            available.prefetch(ENTRIES + 2 * slot);
        }
    }

    #[inline]
    fn write_used(burst: &mut SplitBurst<'_, '_>, index: u16, head: u16, written: u32) {
        let slot = usize::from(index & burst.mask);
        let used = &burst.queue.layout.used;
        // SAFETY: the ring is mapped, see `RingBurst`; the used ring is 4-aligned and its elements
        // begin at 4.
        unsafe { used.write_pair(ENTRIES + 8 * slot, u32::from(head), written) };
    }

    fn record_completed(&mut self, head: u16) {
        if let Some(record) = &mut self.record {
            record.complete(head);
        }
    }

    #[inline]
    fn has_record(&self) -> bool {
        self.record.is_some()
    }
}

/// Continues from what the inflight region says.
fn recover(queue: &mut SplitQueue, pin: &Pinned<'_>) -> Result<(), RingError> {
    let Some(region) = queue.inflight.clone() else { return Ok(()) };
    let QueueAddresses { size, device, .. } = queue.addresses;
    let mut used = [0; 2];
    pin.read(device.saturating_add(INDEX as u64), &mut used)?;
    let used = u16::from_le_bytes(used);
    let (record, position) = SplitRecord::new(region, size, used, queue.next_used);
    if let Some(used) = position {
        // The chains to be taken again are where the available ring says so many others are.
        queue.go_on(QueueState { next_avail: used, next_used: used });
    }
    queue.layout.record = Some(Box::new(record));
    (queue.inflight, queue.detour, queue.plain) = (None, NEXT, false);
    Ok(())
}

// The rings stay mapped, see `RingBurst`, which makes the accesses below safe.
impl<'p> SplitBurst<'_, 'p> {
    /// Reads entries of the available ring until up to `wanted` of the next are at hand, and asks
    /// for the descriptors they name. It returns [`Found::Chain`] only for "there are some".
    #[inline(never)]
    fn fetch(&mut self, wanted: usize) -> Found {
        if self.queue.layout.limit == self.queue.next_avail {
            match self.available() {
                Ok(0) => return Found::Nothing,
                Ok(_) => {}
                Err(error) => return self.fail(error),
            }
        }
        let queue = &mut *self.queue;
        let next = queue.next_avail;
        let wanted = queue.layout.limit.wrapping_sub(next).min(wanted.min(FETCH) as u16);
        let have = queue.layout.read.wrapping_sub(next);
        for ahead in have..wanted {
            let index = next.wrapping_add(ahead);
            let slot = usize::from(index & self.mask);
            // SAFETY: the ring stays mapped, as said above; `available` ordered this load after
            // that of the index.
            let word = unsafe { queue.layout.available.u16(ENTRIES + 2 * slot) };
            let mut head = u16::from_le(word.load(Ordering::Relaxed));
            if let Some(record) = &queue.layout.record {
                head = record.resubmit(index).unwrap_or(head);
            }
            queue.layout.descriptors.prefetch(usize::from(head & self.mask) * DESCRIPTOR);
            queue.layout.heads[usize::from(index) % FETCH] = head;
        }
        queue.layout.read = next.wrapping_add(have.max(wanted));
        Found::Chain(Chain::default())
    }

    /// Asks the processor for the used elements of `count` chains, to write to them: the driver has
    /// read what was there a lap ago.
    #[inline]
    fn prefetch_used(&self, count: usize, access: Access) {
        // A run of transmitted chains has one element with VIRTIO_F_IN_ORDER.
        let one = self.queue.features.in_order && access == Access::Read;
        for ahead in (0..if one { 1 } else { count }).step_by(PER_LINE) {
            let slot = usize::from(self.queue.next_used.wrapping_add(ahead as u16) & self.mask);
            self.queue.layout.used.prefetch_write(ENTRIES + 8 * slot);
        }
    }

    /// Takes any chain and records it.
    #[inline(never)]
    fn follow(&mut self, head: u16, first: Descriptor, each: Each<'_, 'p>) -> Found {
        let chain = match self.walk(head, first, each) {
            Ok(chain) => chain,
            Err(error) => return self.fail(error),
        };
        let next = self.queue.next_avail;
        if let Some(record) = &mut self.queue.layout.record {
            record.take(next, head);
        }
        self.queue.next_avail = next.wrapping_add(1);
        Found::Chain(chain)
    }

    fn walk(&self, head: u16, first: Descriptor, each: Each<'_, 'p>) -> Result<Chain, RingError> {
        let size = self.queue.addresses.size;
        let mut walk = Walk::new(self.pin, each);
        let mut descriptor = first;
        for _ in 0..size {
            if descriptor.flags & INDIRECT != 0 {
                if !self.queue.features.indirect {
                    return Err(RingError::Indirect("not negotiated"));
                }
                walk.linked_table(descriptor)?;
                return Ok(walk.chain(head, 1));
            }
            walk.buffer(descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(walk.chain(head, 1));
            }
            let index = descriptor.link;
            let next = self.descriptor(index);
            descriptor = next.ok_or(RingError::DescriptorIndex { index, size })?;
        }
        Err(RingError::Loop(size))
    }

    /// Reads a descriptor of the queue's table, once.
    #[inline]
    fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index > self.mask {
            return None;
        }
        // SAFETY: the table stays mapped, as said above, and is 16-aligned; the index is below the
        // queue's size.
        let raw =
            unsafe { self.queue.layout.descriptors.descriptor(usize::from(index) * DESCRIPTOR) };
        Some(Descriptor::split(raw))
    }
}

impl<'p> Burst<'p> for SplitBurst<'_, 'p> {
    #[inline]
    fn available(&mut self) -> Result<u16, RingError> {
        let queue = &*self.queue;
        // A new entry has left the driver's cache by the time the index is here.
        queue.layout.available.prefetch(ENTRIES + 2 * usize::from(queue.next_avail & self.mask));
        // SAFETY: the ring stays mapped, as said above; the index is its second word.
        let index =
            u16::from_le(unsafe { queue.layout.available.u16(INDEX) }.load(Ordering::Acquire));
        let ahead = index.wrapping_sub(queue.next_avail);
        let size = queue.addresses.size;
        // The chains that the device holds take up room until they are used.
        let held = queue.next_avail.wrapping_sub(queue.next_used).min(size);
        if ahead > size - held {
            return Err(RingError::AvailableIndex { index, next: queue.next_avail, size });
        }
        self.queue.layout.limit = index;
        Ok(ahead)
    }

    #[inline]
    fn pop(
        &mut self,
        mut each: impl FnMut(Slice<'p>, Access) -> bool,
    ) -> Result<Option<Chain>, RingError> {
        let next = self.queue.next_avail;
        if next == self.queue.layout.read {
            match self.fetch(FETCH) {
                Found::Chain(_) => {}
                Found::Nothing => return Ok(None),
                Found::Error => return Err(self.error),
            }
        }
        let head = self.queue.layout.heads[usize::from(next) % FETCH];
        let Some(descriptor) = self.descriptor(head) else {
            return Err(RingError::DescriptorIndex { index: head, size: self.mask + 1 });
        };
        if (descriptor.flags | self.queue.detour) & (NEXT | INDIRECT) == 0
            && let Some((slice, access, chain)) = single(self.pin, head, descriptor)
        {
            if !each(slice, access) {
                return Err(RingError::TooManyPieces(0));
            }
            self.queue.next_avail = next.wrapping_add(1);
            return Ok(Some(chain));
        }
        match self.follow(head, descriptor, &mut each) {
            Found::Chain(chain) => Ok(Some(chain)),
            Found::Nothing => Ok(None),
            Found::Error => Err(self.error),
        }
    }

    #[inline]
    fn put_back(&mut self, chains: &[Chain]) {
        let next = self.queue.next_avail.wrapping_sub(chains.len() as u16);
        self.queue.next_avail = next;
        // A chain taken again is another entry, if there is a record.
        if self.queue.layout.record.is_some()
            || self.queue.layout.read.wrapping_sub(next) > FETCH as u16
        {
            self.queue.layout.read = next;
        }
        if let Some(record) = &mut self.queue.layout.record {
            record.put_back(self.queue.next_avail, chains);
        }
    }

    #[inline]
    fn prepare(&mut self, count: usize) {
        if usize::from(self.queue.layout.read.wrapping_sub(self.queue.next_avail)) < count {
            // The error will be found again.
            let _ = self.fetch(count);
        }
    }

    #[inline]
    fn pop_direct(
        &mut self,
        mut count: usize,
        access: Access,
        mut each: impl FnMut(Chain, Slice<'p>),
    ) -> Result<(), RingError> {
        let flags = if access == Access::Write { WRITE } else { 0 };
        let mut window = self.pin.window(access);
        let all = count;
        while count > 0 {
            let next = self.queue.next_avail;
            if next == self.queue.layout.read {
                match self.fetch(count) {
                    Found::Chain(_) => {}
                    Found::Error if count == all => return Err(self.error),
                    // The error will be found again.
                    Found::Nothing | Found::Error => return Ok(()),
                }
            }
            let heads = usize::from(self.queue.layout.read.wrapping_sub(next)).min(count);
            self.prefetch_used(heads, access);
            let mut taken = 0;
            while taken < heads {
                let head = self.queue.layout.heads[usize::from(next).wrapping_add(taken) % FETCH];
                let Some(descriptor) = self.descriptor(head) else { break };
                if (descriptor.flags | self.queue.detour) & (NEXT | INDIRECT | WRITE) != flags {
                    break;
                }
                let Some(slice) = window.recall(descriptor.iova, descriptor.len as usize) else {
                    break;
                };
                each(Chain::direct(head, descriptor.len, access), slice);
                taken += 1;
            }
            self.queue.next_avail = next.wrapping_add(taken as u16);
            if taken < heads {
                return Ok(());
            }
            count -= taken;
        }
        Ok(())
    }

    #[inline]
    fn complete(&mut self, chain: &Chain, written: u32) {
        if self.queue.plain {
            Split::write_used(self, self.queue.next_used, chain.head, written);
        } else {
            self.complete_specially(self.queue.next_used, chain, written);
        }
        self.queue.next_used = self.queue.next_used.wrapping_add(1);
    }

    #[inline]
    fn complete_all(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let first = self.queue.next_used;
        self.queue.next_used = first.wrapping_add(chains.len() as u16);
        if self.leave_out_all(first, chains) {
            return;
        }
        for (index, chain) in chains.iter().enumerate() {
            let at = first.wrapping_add(index as u16);
            if self.queue.plain {
                Split::write_used(self, at, chain.head, written(index));
            } else {
                self.complete_specially(at, chain, written(index));
            }
        }
    }

    #[inline]
    fn make_visible(&mut self) -> bool {
        let new = self.queue.next_used;
        if self.queue.published == new {
            return false;
        }
        if !self.queue.plain {
            self.flush();
        }
        let queue = &mut *self.queue;
        if let Some(record) = &mut queue.layout.record {
            record.publish(queue.next_avail);
        }
        // SAFETY: the ring stays mapped, as said above; the used index is its second word.
        unsafe { queue.layout.used.u16(INDEX) }.store(new.to_le(), Ordering::Release);
        if let Some(record) = &mut queue.layout.record {
            record.published(new);
        }
        queue.published = new;
        true
    }

    #[inline]
    fn wants_interrupt(&mut self) -> bool {
        let queue = &mut *self.queue;
        let (old, new) = (std::mem::replace(&mut queue.asked, queue.published), queue.published);
        if queue.features.event_index {
            let offset = ENTRIES + 2 * usize::from(queue.addresses.size);
            // SAFETY: the ring stays mapped, as said above; used_event follows its entries.
            let event =
                u16::from_le(unsafe { queue.layout.available.u16(offset) }.load(Ordering::Relaxed));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            // SAFETY: the ring stays mapped, as said above; the flags are its first word.
            let flags =
                u16::from_le(unsafe { queue.layout.available.u16(0) }.load(Ordering::Relaxed));
            old != new && flags & NO_INTERRUPT == 0
        }
    }

    fn arm(&mut self) -> Result<bool, RingError> {
        if self.queue.features.event_index {
            let offset = ENTRIES + 8 * usize::from(self.queue.addresses.size);
            let next = self.queue.next_avail;
            // SAFETY: the ring stays mapped, as said above; avail_event follows its elements.
            unsafe { self.queue.layout.used.u16(offset) }.store(next.to_le(), Ordering::Release);
        } else {
            // SAFETY: the ring stays mapped, as said above; the flags are its first word.
            unsafe { self.queue.layout.used.u16(0) }.store(0, Ordering::Release);
        }
        self.queue.quiet = false;
        fence(Ordering::SeqCst);
        Ok(self.available()? > 0)
    }

    /// Tells the driver not to notify. The event index needs no store for this: the index asked for
    /// last has passed.
    #[inline]
    fn disarm(&mut self) {
        if !self.queue.quiet && !self.queue.features.event_index {
            // SAFETY: the ring stays mapped, as said above; the flags are its first word.
            unsafe { self.queue.layout.used.u16(0) }.store(NO_NOTIFY.to_le(), Ordering::Release);
        }
        self.queue.quiet = true;
    }
}
