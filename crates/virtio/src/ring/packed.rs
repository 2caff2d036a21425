//! Packed virtqueues (virtio 1.3, 2.8), device side.
//!
//! There is one ring. The driver writes descriptors into it, flags last; the device overwrites them with used descriptors,
//! flags last. Two bits of the flags say whose turn a descriptor is, relative to wrap counters that toggle with each lap.

use std::sync::atomic::{Ordering, fence};

use manifold_dma::{Access, Pinned, Slice};

use super::area::Area;
use super::burst::Burst;
use super::chain::{
    Chain, DESCRIPTOR, Descriptor, Each, Found, INDIRECT, NEXT, WRITE, Walk, single,
};
use super::inflight::{Inflight, PackedRecord};
use super::{MAX_QUEUE_SIZE, QueueAddresses, QueueState, RingError, RingFeatures};

/// VIRTQ_DESC_F_AVAIL (2.8.1).
const AVAIL: u16 = 1 << 7;
/// VIRTQ_DESC_F_USED (2.8.1).
const USED: u16 = 1 << 15;
/// What an event suppression area's flags say (2.8.10).
mod event {
    pub(super) const ENABLE: u16 = 0;
    pub(super) const DISABLE: u16 = 1;
    pub(super) const DESC: u16 = 2;
    /// Bits of the flags.
    pub(super) const MASK: u16 = 3;
}
/// Offset of a descriptor's flags.
const FLAGS: u64 = 14;
/// The wrap counter in a position.
const WRAP: u16 = 1 << 15;
/// Bytes of an event suppression area.
const EVENT: usize = 4;

/// Descriptors in a cache line.
const PER_LINE: usize = 4;

/// Place in the ring: an index, and the wrap counter in bit 15.
type Position = u16;

/// The place `count` descriptors on, at most a lap.
#[inline]
fn advance(position: Position, count: u16, size: u16) -> Position {
    let index = (position & !WRAP) + count;
    if index < size { position & WRAP | index } else { !position & WRAP | (index - size) }
}

/// The place `count` descriptors back, at most a lap.
#[inline]
fn retreat(position: Position, count: u16, size: u16) -> Position {
    match (position & !WRAP).checked_sub(count) {
        Some(index) => position & WRAP | index,
        None => !position & WRAP | ((position & !WRAP) + size).saturating_sub(count),
    }
}

/// How many descriptors `to` is ahead of `from`: 0 to a lap.
#[inline]
fn distance(from: Position, to: Position, size: u16) -> u16 {
    let lap = if (from ^ to) & WRAP == 0 { 0 } else { size };
    ((to & !WRAP) + lap).wrapping_sub(from & !WRAP)
}

/// The flags that tell a single direct descriptor that is available from all others.
const COMMON: u16 = AVAIL | USED | NEXT | INDIRECT;
/// A flag that is not among them: compared with it, none is of that kind.
const NEVER: u16 = 1 << 4;

/// [`AVAIL`] and [`USED`] of a descriptor that is available at this place.
#[inline]
fn available_flags(position: Position) -> u16 {
    if position & WRAP != 0 { AVAIL } else { USED }
}

/// Device-side state of one packed virtqueue. It holds positions only; the ring is reached through [`PackedQueue::open`].
#[derive(Debug)]
pub struct PackedQueue {
    addresses: QueueAddresses,
    features: RingFeatures,
    /// Next descriptor to take.
    next_avail: Position,
    /// What the flags of a single direct descriptor are there, as far as [`COMMON`] goes.
    turn: u16,
    /// Where the next used descriptor goes.
    next_used: Position,
    /// Where the first used descriptor that the driver does not know of goes.
    published: Position,
    /// The same when the driver was last asked whether it wants an interrupt.
    asked: Position,
    /// The descriptor at `published`, to be written last: length, buffer ID and flags as they lie in memory.
    first: u64,
    /// With VIRTIO_F_IN_ORDER: chains completed last whose used descriptor is still to be written.
    unwritten: Option<Unwritten>,
    /// Where what is in flight is recorded, until the first burst makes it a record.
    inflight: Option<Inflight>,
    record: Option<Box<PackedRecord>>,
    /// [`NEVER`] with a record, so that even the common case goes through [`PackedBurst::follow`]; otherwise 0.
    detour: u16,
    /// Neither VIRTIO_F_IN_ORDER nor a record.
    plain: bool,
    /// Whether the driver was last told that it need not notify.
    quiet: bool,
    descriptors: Area,
    driver: Area,
    device: Area,
    /// Version of the domain's snapshot that the areas were resolved with.
    version: Option<u64>,
}

/// A run of chains without device-writable buffers that share one used descriptor (2.8.8).
#[derive(Clone, Copy, Debug)]
struct Unwritten {
    /// Where it goes.
    at: Position,
    /// The last chain's buffer ID.
    id: u16,
}

impl PackedQueue {
    /// A queue as a driver set it up, at its beginning.
    ///
    /// # Errors
    /// [`RingError::Size`].
    pub fn new(addresses: QueueAddresses, features: RingFeatures) -> Result<Self, RingError> {
        let size = addresses.size;
        if size == 0 || size > MAX_QUEUE_SIZE {
            return Err(RingError::Size(size));
        }
        Ok(PackedQueue {
            addresses,
            features,
            next_avail: WRAP,
            turn: available_flags(WRAP),
            next_used: WRAP,
            published: WRAP,
            asked: WRAP,
            first: 0,
            unwritten: None,
            inflight: None,
            record: None,
            detour: 0,
            plain: !features.in_order,
            quiet: false,
            descriptors: Area::default(),
            driver: Area::default(),
            device: Area::default(),
            version: None,
        })
    }

    /// The same queue where another server of it stopped, as [`PackedQueue::position`] said.
    ///
    /// # Errors
    /// [`RingError::Position`].
    pub fn resume(mut self, state: QueueState) -> Result<Self, RingError> {
        let size = self.addresses.size;
        for position in [state.next_avail, state.next_used] {
            if position & !WRAP >= size {
                return Err(RingError::Position { position, size });
            }
        }
        // What is held between the two is at most the whole ring.
        if distance(state.next_used, state.next_avail, size) > size {
            return Err(RingError::Position { position: state.next_used, size });
        }
        self.take_from(state.next_avail);
        self.next_used = state.next_used;
        self.published = state.next_used;
        self.asked = state.next_used;
        Ok(self)
    }

    /// Goes on at `position`.
    fn take_from(&mut self, position: Position) {
        self.next_avail = position;
        self.turn = available_flags(position) | self.detour;
    }

    /// As [`super::Queue::with_inflight`].
    ///
    /// # Errors
    /// [`RingError::Inflight`].
    pub fn with_inflight(mut self, region: Inflight) -> Result<Self, RingError> {
        self.inflight = Some(region.checked(self.addresses.size, true)?);
        Ok(self)
    }

    /// The next descriptor to take and where the next used descriptor goes.
    pub fn position(&self) -> QueueState {
        QueueState { next_avail: self.next_avail, next_used: self.next_used }
    }

    /// The queue's size in descriptors.
    pub fn size(&self) -> u16 {
        self.addresses.size
    }

    /// As [`super::Queue::is_resolved`].
    #[inline]
    pub fn is_resolved(&self, pin: &Pinned<'_>) -> bool {
        self.version == Some(pin.version())
    }

    /// As [`super::Queue::prefetch`].
    #[inline]
    pub fn prefetch(&self) {
        let at = usize::from(self.next_avail & !WRAP) * DESCRIPTOR;
        self.descriptors.prefetch(at);
    }

    /// Begins a burst under `pin`.
    ///
    /// # Errors
    /// [`RingError::Fault`] when a part is not mapped as it must be: the descriptor ring readable and writable, the
    /// driver's event suppression area readable, the device's writable.
    #[inline]
    pub fn open<'q, 'p>(
        &'q mut self,
        pin: &'p Pinned<'_>,
    ) -> Result<PackedBurst<'q, 'p>, RingError> {
        if !self.is_resolved(pin) {
            self.resolve(pin)?;
        }
        Ok(PackedBurst { pin, queue: self, error: RingError::Length })
    }

    #[cold]
    fn resolve(&mut self, pin: &Pinned<'_>) -> Result<(), RingError> {
        self.version = None;
        let QueueAddresses { size, descriptors, driver, device } = self.addresses;
        let bytes = DESCRIPTOR * usize::from(size);
        self.descriptors.resolve(pin, descriptors, bytes, 16, Access::Write)?;
        self.descriptors.resolve(pin, descriptors, bytes, 16, Access::Read)?;
        self.driver.resolve(pin, driver, EVENT, 4, Access::Read)?;
        self.device.resolve(pin, device, EVENT, 4, Access::Write)?;
        self.recover(pin)?;
        self.version = Some(pin.version());
        Ok(())
    }

    /// Goes on with what the inflight region says.
    fn recover(&mut self, pin: &Pinned<'_>) -> Result<(), RingError> {
        let Some(region) = self.inflight.clone() else { return Ok(()) };
        let QueueAddresses { size, descriptors, .. } = self.addresses;
        let flags_at = |position: Position| {
            descriptors.saturating_add(DESCRIPTOR as u64 * u64::from(position & !WRAP) + FLAGS)
        };
        let available = |position: Position| -> Result<bool, RingError> {
            let mut flags = [0; 2];
            pin.read(flags_at(position), &mut flags)?;
            Ok(u16::from_le_bytes(flags) & (AVAIL | USED) == available_flags(position))
        };
        let (record, position) = PackedRecord::new(region, size, self.next_used, available)?;
        if let Some(used) = position {
            // Those to be taken again are where the ring has, or had, so many available descriptors. Some may have been
            // made used and not published; the driver must not come across them.
            for count in 0..record.held() {
                let at = advance(used, count, size);
                pin.write(flags_at(at), &available_flags(at).to_le_bytes())?;
            }
            self.next_avail = used;
            self.next_used = used;
            self.published = used;
            self.asked = used;
        }
        self.record = Some(Box::new(record));
        (self.inflight, self.detour, self.plain) = (None, NEVER, false);
        self.take_from(self.next_avail);
        Ok(())
    }
}

/// One burst over a packed queue.
#[derive(Debug)]
pub struct PackedBurst<'q, 'p> {
    queue: &'q mut PackedQueue,
    pin: &'p Pinned<'p>,
    /// What went wrong, after [`Found::Error`].
    error: RingError,
}

// Safety of what follows: `open` made sure that the areas were resolved under the version that `pin` pins, and
// `pin` outlives the burst, so the ring stays mapped. Indices in positions are below the queue's size.
impl<'p> PackedBurst<'_, 'p> {
    /// Length, buffer ID and flags of the descriptor at `position`: its second half, read in one piece. The driver writes
    /// the flags last, so with flags that say "available" the rest of the half is what it wrote, and the first half is,
    /// if it is read later.
    #[inline]
    fn second_half(&self, position: Position) -> u64 {
        let offset = usize::from(position & !WRAP) * DESCRIPTOR + 8;
        // SAFETY: see above; the ring is 16-aligned.
        unsafe { self.queue.descriptors.u64(offset) }.load(Ordering::Acquire)
    }

    /// The descriptor at `position`, of which the second half is known.
    #[inline]
    fn descriptor(&self, position: Position, second: u64) -> Descriptor {
        let offset = usize::from(position & !WRAP) * DESCRIPTOR;
        // SAFETY: see above; the ring is 16-aligned.
        let first = unsafe { self.queue.descriptors.u64(offset) }.load(Ordering::Relaxed);
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

    #[cold]
    fn fail(&mut self, error: RingError) -> Found {
        self.error = error;
        Found::Error
    }

    fn walk(&mut self, second: u64, each: Each<'_, 'p>) -> Result<Option<Chain>, RingError> {
        let size = self.queue.addresses.size;
        let mut at = self.queue.next_avail;
        let again = self.queue.record.as_ref().and_then(|record| record.again());
        let mut descriptor = match again {
            Some(again) => again.descriptor(0)?,
            None => self.descriptor(at, second),
        };
        if again.is_none() && descriptor.flags & (AVAIL | USED) != available_flags(at) {
            return Ok(None);
        }
        let mut taken = Vec::new();
        let room = size - distance(self.queue.next_used, at, size).min(size);
        let mut walk = Walk::new(self.pin, each);
        for count in 1..=size {
            if count > room {
                return Err(RingError::Overrun(at & !WRAP));
            }
            if again.is_none() && descriptor.flags & (AVAIL | USED) != available_flags(at) {
                return Err(RingError::Unavailable(at & !WRAP));
            }
            if self.queue.record.is_some() {
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
                    descriptor = match again {
                        Some(again) => again.descriptor(count)?,
                        None => self.descriptor(at, self.second_half(at)),
                    };
                    continue;
                }
            }
            // The ID is in the last descriptor of the list (2.8.6).
            let id = descriptor.link;
            let chain = walk.chain(id, count);
            let again = again.is_some();
            self.queue.take_from(at);
            if let Some(record) = &mut self.queue.record {
                if again { record.take_again(id) } else { record.take(id, &taken) }
            }
            return Ok(Some(chain));
        }
        Err(RingError::Loop(size))
    }

    /// Writes a used descriptor; the first since the last [`Burst::publish`] only when that is called again.
    #[inline]
    fn write_used(&mut self, at: Position, id: u16, written: u32) {
        let turn = if at & WRAP != 0 { AVAIL | USED } else { 0 };
        let flags = turn | if written != 0 { WRITE } else { 0 };
        let half = u64::from(written) | u64::from(id) << 32 | u64::from(flags) << 48;
        if at == self.queue.published {
            self.queue.first = half.to_le();
        } else {
            self.store(at, half.to_le(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn store(&mut self, at: Position, half: u64, order: Ordering) {
        let offset = usize::from(at & !WRAP) * DESCRIPTOR + 8;
        // SAFETY: see above; the ring is 16-aligned.
        unsafe { self.queue.descriptors.u64(offset) }.store(half, order);
    }

    /// Writes the used descriptor that was left out, if one was.
    fn flush(&mut self) {
        if let Some(Unwritten { at, id }) = self.queue.unwritten.take() {
            self.write_used(at, id, 0);
        }
    }

    /// As [`Burst::complete`], with VIRTIO_F_IN_ORDER (2.8.8) or a record.
    fn complete_specially(&mut self, chain: &Chain, written: u32) {
        let at = self.queue.next_used;
        if let Some(record) = &mut self.queue.record {
            record.complete(chain.head);
        }
        if self.queue.features.in_order && chain.writable == 0 {
            let at = self.queue.unwritten.map_or(at, |run| run.at);
            self.queue.unwritten = Some(Unwritten { at, id: chain.head });
        } else {
            self.flush();
            self.write_used(at, chain.head, written);
        }
    }
}

impl<'p> Burst<'p> for PackedBurst<'_, 'p> {
    #[inline]
    fn available(&mut self) -> Result<u16, RingError> {
        if self.queue.record.as_ref().is_some_and(|record| record.again().is_some()) {
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
        // A whole lap ahead of what was used no descriptor is the driver's to make available.
        if flags & COMMON == self.queue.turn && at ^ self.queue.next_used != WRAP {
            let descriptor = self.descriptor(at, second);
            if let Some((slice, access, chain)) = single(self.pin, descriptor.link, descriptor) {
                if !each(slice, access) {
                    return Err(RingError::TooManyPieces(0));
                }
                let next = at + 1;
                if next & !WRAP == self.queue.addresses.size {
                    self.queue.take_from(!at & WRAP);
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
        self.queue.take_from(at);
        if let Some(record) = &mut self.queue.record {
            record.put_back(chains);
        }
    }

    #[inline]
    fn prepare(&mut self, count: usize) {
        // They are written to when they are used.
        let size = self.queue.addresses.size;
        for ahead in (0..count.min(size.into())).step_by(PER_LINE) {
            let at = advance(self.queue.next_avail, ahead as u16, size);
            self.queue.descriptors.prefetch_write(usize::from(at & !WRAP) * DESCRIPTOR);
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
        let (mut turn, write) = (self.queue.turn, if access == Access::Write { WRITE } else { 0 });
        // A whole lap ahead of what was used no descriptor is the driver's to make available.
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
        self.queue.turn = turn;
        Ok(())
    }

    #[inline]
    fn complete(&mut self, chain: &Chain, written: u32) {
        let at = self.queue.next_used;
        if self.queue.plain {
            self.write_used(at, chain.head, written);
        } else {
            self.complete_specially(chain, written);
        }
        let size = self.queue.addresses.size;
        self.queue.next_used = advance(at, chain.descriptors.min(size), size);
    }

    #[inline]
    fn complete_all(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let size = self.queue.addresses.size;
        if self.queue.features.in_order
            && self.queue.record.is_none()
            && let Some(last) = chains.last()
            && chains.iter().all(|chain| chain.writable == 0)
        {
            let mut at = self.queue.next_used;
            let begin = self.queue.unwritten.map_or(at, |run| run.at);
            self.queue.unwritten = Some(Unwritten { at: begin, id: last.head });
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
        if let Some(record) = &mut self.queue.record {
            record.publish(new);
        }
        // The driver looks at this one first; the others were written before (2.8.2, 2.8.9).
        self.store(old, self.queue.first, Ordering::Release);
        if let Some(record) = &mut self.queue.record {
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
        // SAFETY: see above; the area is 4-aligned. One load: the offset belongs to the flags.
        let area = u32::from_le(unsafe { self.queue.driver.u32(0) }.load(Ordering::Relaxed));
        let (event, flags) = (area as u16, (area >> 16) as u16 & event::MASK);
        match flags {
            event::DISABLE => false,
            event::DESC if self.queue.features.event_index => {
                let size = self.queue.addresses.size;
                // How far the batch reaches, and where in it the event is: counted from its beginning, over two laps.
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
        self.tell(event, flags);
        self.queue.quiet = false;
        fence(Ordering::SeqCst);
        Ok(self.available()? > 0)
    }

    #[inline]
    fn disarm(&mut self) {
        if !self.queue.quiet {
            self.tell(0, event::DISABLE);
            self.queue.quiet = true;
        }
    }
}

impl PackedBurst<'_, '_> {
    /// Writes the device's event suppression area, in one piece.
    fn tell(&mut self, event: Position, flags: u16) {
        let area = u32::from(event) | u32::from(flags) << 16;
        // SAFETY: see above; the area is 4-aligned.
        unsafe { self.queue.device.u32(0) }.store(area.to_le(), Ordering::Release);
    }
}
