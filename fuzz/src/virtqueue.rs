//! The fuzz target's body makes of any bytes a guest's memory, a queue somewhere in it and a device
//! that serves it.
//!
//! What a device relies on is asserted after every step; whatever the ring holds, the worst that
//! may come of it is a [`RingError`].

use std::ops::Range;
use std::sync::Arc;

use manifold_dma::{Access, Domain, PAGE_SIZE, Permissions, Pinned, SharedMemory, Slice};
use manifold_testing::{Descriptor, GuestMemory, Place};
use manifold_virtio::ring::{
    AnyBurst, Burst, Chain, Inflight, MAX_QUEUE_SIZE, Queue, QueueAddresses, QueueState, RingError,
    RingFeatures,
};

/// Number of pages of IOVAs that may be mapped.
const PAGES: u64 = 24;
/// Size of these pages in bytes.
const BYTES: u64 = PAGES * PAGE_SIZE;
/// Number of steps of one run.
const STEPS: usize = 256;
/// Number of bytes of one buffer that are looked at.
const LOOK: usize = 64;

/// Builds a guest from the first bytes of `data` and lets the rest say what guest and device do.
///
/// # Panics
/// Where the ring hands out memory that is not the guest's, loses count, or does not end: a bug.
pub(crate) fn virtqueue(data: &[u8]) {
    // Without memory there is nothing to find.
    let _ = run(Input(data));
}

struct Input<'d>(&'d [u8]);

impl Input<'_> {
    fn u8(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// Returns the next bytes; zeros after the end.
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for byte in &mut out {
            if let Some((first, rest)) = self.0.split_first() {
                *byte = *first;
                self.0 = rest;
            }
        }
        out
    }

    /// Returns an address: mostly in the memory and aligned, sometimes anywhere.
    fn iova(&mut self) -> u64 {
        match self.u8() {
            255 => u64::from_le_bytes(self.bytes()),
            254 => u64::MAX - u64::from(self.u16()),
            253 => u64::from(self.u16()),
            high => (u64::from(high) << 12 | u64::from(self.u16() & 0xff0)) % BYTES,
        }
    }
}

/// A guest, with the state that its device knows.
struct Guest {
    memory: GuestMemory,
    domain: Arc<Domain>,
    addresses: QueueAddresses,
    features: RingFeatures,
    /// Permissions of each page.
    pages: [Option<Permissions>; PAGES as usize],
    /// Stride in the file: the page of the file behind page n is `n * stride % PAGES`.
    stride: u64,
    /// Region for chains in flight, with anything in it.
    inflight: Option<Inflight>,
}

impl Guest {
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let memory = GuestMemory::new("fuzz", BYTES).ok()?;
        let domain = Domain::new("fuzz");
        let options = input.u8();
        let features = RingFeatures {
            event_index: options & 1 != 0,
            indirect: options & 2 != 0,
            packed: options & 0x40 != 0,
            in_order: options & 0x80 != 0,
        };
        let size = match input.u8() {
            odd @ 128.. => u16::from(odd) << (odd % 9),
            // The size of a packed ring need not be a power of two.
            shift => (1 << (shift % 11)) - u16::from(features.packed && shift & 0x40 != 0),
        };
        let addresses = QueueAddresses {
            size,
            descriptors: input.iova(),
            driver: input.iova(),
            device: input.iova(),
        };
        // The pages are in order, backwards, or jumping: each coprime with the number of pages.
        let stride = [1, PAGES - 1, 7, 1].get(usize::from(options >> 2 & 3)).copied()?;
        let mut guest = Guest {
            memory,
            domain,
            addresses,
            features,
            pages: Default::default(),
            stride,
            inflight: None,
        };
        guest.domain.set_bus_master(options & 0x10 == 0);
        let holes = input.u16();
        for page in 0..PAGES {
            let hole = options & 0x20 != 0 && page < 16 && holes >> page & 1 != 0;
            let kind = if hole { input.u8() } else { 0 };
            guest.map(page, kind);
        }
        if options & 0xc == 0xc && size <= MAX_QUEUE_SIZE {
            guest.inflight = Some(inflight(size, features.packed, input)?);
        }
        Some(guest)
    }

    /// Maps a page readable and writable, readable, writable or not at all.
    fn map(&mut self, page: u64, kind: u8) {
        let permissions = match kind % 4 {
            0 => Permissions::READ_WRITE,
            1 => Permissions::READ,
            2 => Permissions { read: false, write: true },
            _ => return,
        };
        let Ok(backing) = self.memory.backing(page * self.stride % PAGES * PAGE_SIZE) else {
            return;
        };
        let mapped = self.domain.map(page * PAGE_SIZE, PAGE_SIZE, permissions, backing);
        if let (Ok(()), Some(entry)) = (mapped, self.pages.get_mut(page as usize)) {
            *entry = Some(permissions);
        }
    }

    fn unmap(&mut self, page: u64) {
        let removed = self.domain.unmap(page * PAGE_SIZE, PAGE_SIZE);
        if let Some(entry) = self.pages.get_mut(page as usize) {
            assert_eq!(removed.ok(), Some(if entry.is_some() { PAGE_SIZE } else { 0 }));
            *entry = None;
        }
    }

    /// Writes what the guest writes, wherever in its memory that is.
    fn put(&self, iova: u64, data: &[u8]) {
        let room = (PAGE_SIZE - iova % PAGE_SIZE) as usize;
        let (now, later) = data.split_at(room.min(data.len()));
        let page = iova / PAGE_SIZE;
        if page < PAGES {
            let offset = page * self.stride % PAGES * PAGE_SIZE + iova % PAGE_SIZE;
            let _ = self.memory.write(offset, now);
            if !later.is_empty() {
                self.put((page + 1) * PAGE_SIZE, later);
            }
        }
    }

    /// Returns the host memory the device may reach for an access.
    fn reachable(&self, pin: &Pinned<'_>, access: Access) -> Vec<Range<usize>> {
        let allowed = |permissions: Permissions| match access {
            Access::Read => permissions.read,
            Access::Write => permissions.write,
        };
        let pages = (0..).zip(&self.pages).filter(|(_, page)| page.is_some_and(allowed));
        let found = pages.filter_map(|(page, _)| {
            pin.contiguous(page * PAGE_SIZE, PAGE_SIZE as usize, access).ok().flatten()
        });
        found.map(|slice| slice.as_ptr() as usize..slice.as_ptr() as usize + slice.len()).collect()
    }
}

impl Guest {
    /// Returns the queue as it is set up, to go on at `at`.
    fn queue(&self, at: u16) -> Option<Queue> {
        let state = QueueState { next_avail: at, next_used: at };
        let queue = Queue::new(self.addresses, self.features).ok()?.resume(state).ok()?;
        match &self.inflight {
            Some(region) => queue.with_inflight(region.clone()).ok(),
            None => Some(queue),
        }
    }

    /// Returns the place `count` entries after `at`.
    fn after(&self, at: u16, count: u16) -> u16 {
        if !self.features.packed {
            return at.wrapping_add(count);
        }
        let mut place = Place::from(at);
        place.step(count, self.addresses.size);
        place.bits()
    }
}

/// Returns a region that is in use, by its own account, and that says whatever the input says.
fn inflight(size: u16, packed: bool, input: &mut Input<'_>) -> Option<Inflight> {
    let bytes = Inflight::size(size, packed) as u64;
    let file = GuestMemory::new("inflight", bytes).ok()?;
    for _ in 0..input.u8() % 32 {
        let at = (u64::from(input.u16()) % bytes) & !1;
        file.write(at, &input.bytes::<2>()).ok()?;
    }
    file.write(8, &1u16.to_le_bytes()).ok()?;
    let memory = SharedMemory::map(&file.file().try_clone().ok()?.into(), 0, bytes).ok()?;
    Some(Inflight::new(Arc::new(memory), 0))
}

/// Asserts that every byte of `slice` is in one of `ranges`.
fn assert_inside(slice: &Slice<'_>, ranges: &[Range<usize>]) {
    let mut at = slice.as_ptr() as usize;
    let end = at + slice.len();
    while at < end {
        let range = ranges.iter().find(|range| range.contains(&at));
        assert!(range.is_some(), "a slice outside of the memory the device may reach");
        at = range.map_or(end, |range| range.end);
    }
}

/// Takes a chain with room for `room` pieces and checks all that is promised of it.
fn pop(
    burst: &mut AnyBurst<'_, '_>,
    reachable: &[Vec<Range<usize>>; 2],
    room: usize,
    size: u16,
) -> Result<Option<Chain>, RingError> {
    let (mut bytes, mut pieces, mut refused) = ([0u64; 2], 0, false);
    let result = burst.pop(|slice, access| {
        assert!(!refused, "asked again after there was no room");
        let direction = usize::from(access == Access::Write);
        assert!(direction == 1 || bytes[1] == 0, "a device-readable piece after a writable one");
        assert!(!slice.is_empty());
        assert_inside(&slice, &reachable[direction]);
        refused = pieces == room;
        if refused {
            return false;
        }
        pieces += 1;
        bytes[direction] += slice.len() as u64;
        match access {
            Access::Read => slice.take(LOOK).read(&mut [0; LOOK]),
            Access::Write => slice.take(LOOK).write(&[0x5a; LOOK]),
        };
        true
    });
    match &result {
        Ok(Some(chain)) => {
            assert!(!refused && (1..=size).contains(&chain.descriptors));
            assert_eq!(bytes, [u64::from(chain.readable), u64::from(chain.writable)]);
        }
        Ok(None) => assert_eq!((pieces, refused), (0, false)),
        Err(RingError::TooManyPieces(took)) => assert!(refused && *took == room),
        Err(_) => assert!(!refused),
    }
    result
}

fn run(mut input: Input<'_>) -> Option<()> {
    let mut guest = Guest::new(&mut input)?;
    let size = guest.addresses.size;
    if Queue::new(guest.addresses, guest.features).is_err() {
        let refused = !size.is_power_of_two() && !guest.features.packed;
        assert!(refused || size == 0 || size > MAX_QUEUE_SIZE);
        return None;
    }
    let mut begin = input.u16();
    if guest.features.packed {
        begin = (begin & 0x8000) | ((begin & 0x7fff) % size);
    }
    let mut queue = guest.queue(begin)?;
    let mut available = begin;
    let reader = guest.domain.reader();
    // These are chains that were taken and not given back.
    let mut taken: Vec<Chain> = Vec::new();
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        let step = input.u8();
        if step < 96 {
            guest_step(&mut guest, step, &mut available, &mut input);
            continue;
        }
        let pin = reader.pin();
        // The chains that it finds in flight move it.
        let _ = queue.open(&pin);
        let before = queue.position();
        let result = device_step(&mut queue, &pin, &guest, step, &mut taken, &mut input);
        match result {
            Ok(()) | Err(RingError::TooManyPieces(_)) => {}
            Err(error) => {
                assert_eq!(queue.position(), before, "taken in spite of {error}");
                // The device resets; the driver sets the queue up again where it was.
                taken.clear();
                queue = guest.queue(available)?;
            }
        }
    }
    Some(())
}

/// Lets the guest write to its memory, or changes its mappings.
fn guest_step(guest: &mut Guest, step: u8, available: &mut u16, input: &mut Input<'_>) {
    let QueueAddresses { size, descriptors, driver, .. } = guest.addresses;
    let packed = guest.features.packed;
    match step {
        0..75 if packed && !step.is_multiple_of(4) => {
            // This is the next descriptor, as far as the flags, or just the flags: whose turn it
            // is, mostly right.
            let place = Place::from(*available);
            let turn = if input.u8() < 240 { place.flags(true) } else { input.u16() };
            let flags = turn | u16::from(input.u8() & [0, 1, 7][usize::from(step % 4) - 1]);
            let (iova, len) = (input.iova(), u32::from(input.u16()));
            let descriptor = Descriptor { iova, len, flags, next: input.u16() }.to_packed_bytes();
            guest.put(descriptors.saturating_add(16 * u64::from(place.index)), &descriptor);
            *available = guest.after(*available, 1);
        }
        0..40 => {
            let index = u64::from(input.u8()) % u64::from(size);
            let descriptor = Descriptor {
                iova: input.iova(),
                len: match input.u8() {
                    long @ 250.. => u32::from_le_bytes(input.bytes()) >> (long & 3),
                    short => u32::from(short) << (short % 7),
                },
                flags: u16::from(input.u8() & 7),
                next: match input.u8() {
                    255 => input.u16(),
                    next => u16::from(next) % size,
                },
            };
            // The address is in the queue's table, or in one that it may refer to.
            let table = if step.is_multiple_of(2) { descriptors } else { input.iova() };
            guest.put(table.saturating_add(16 * index), &descriptor.to_bytes());
        }
        40..75 => {
            let head = match input.u8() {
                255 => input.u16(),
                head => u16::from(head) % size,
            };
            let slot = u64::from(*available & 0x7fff) % u64::from(size);
            guest.put(driver.saturating_add(4 + 2 * slot), &head.to_le_bytes());
            *available = guest.after(*available, 1);
            guest.put(driver.saturating_add(2), &available.to_le_bytes());
        }
        75..80 => {
            *available = guest.after(*available, u16::from(input.u8()));
            guest.put(driver.saturating_add(2), &available.to_le_bytes());
        }
        80..85 => {
            guest.put(driver, &input.bytes::<2>());
            let event = if packed { 2 } else { 4 + 2 * u64::from(size) };
            let event = driver.saturating_add(event);
            guest.put(event, &input.bytes::<2>());
        }
        85..90 => {
            let (at, bytes) = (input.iova(), input.bytes::<8>());
            guest.put(at, &bytes);
        }
        90..94 => {
            let page = u64::from(input.u8()) % PAGES;
            guest.unmap(page);
            guest.map(page, step);
        }
        _ => guest.domain.set_bus_master(step == 94),
    }
}

/// Lets the device do one thing to its queue.
fn device_step(
    queue: &mut Queue,
    pin: &Pinned<'_>,
    guest: &Guest,
    step: u8,
    taken: &mut Vec<Chain>,
    input: &mut Input<'_>,
) -> Result<(), RingError> {
    let size = queue.size();
    let QueueState { next_avail, next_used } = queue.position();
    let mut burst = queue.open(pin)?;
    match step {
        96..180 => {
            let room = usize::from(input.u8());
            let reachable =
                [Access::Read, Access::Write].map(|access| guest.reachable(pin, access));
            if let Some(chain) = pop(&mut burst, &reachable, room, size)? {
                taken.push(chain);
                let next_avail = guest.after(next_avail, chain.descriptors);
                assert_eq!(queue.position(), QueueState { next_avail, next_used });
            }
        }
        180..185 => {
            let count = (usize::from(input.u8()) % 4).min(taken.len());
            let some = taken.split_off(taken.len() - count);
            burst.complete_all(&some, |index| index as u32);
        }
        185..210 => {
            if let Some(chain) = taken.pop() {
                burst.complete(&chain, u32::from(input.u16()));
            }
        }
        210..225 => {
            burst.publish();
            assert!(!burst.publish(), "there is nothing new");
        }
        225..235 => {
            let more = burst.arm()?;
            assert_eq!(more, burst.available()? > 0);
        }
        235..240 => burst.disarm(),
        240..245 => {
            let count = (usize::from(input.u8()) % 4).min(taken.len());
            let back = taken.split_off(taken.len() - count);
            burst.put_back(&back);
        }
        245..248 => assert!(burst.available()? <= size),
        248..250 => {
            burst.prepare(usize::from(input.u8()));
            assert_eq!(queue.position(), QueueState { next_avail, next_used });
        }
        _ => {
            let access = if step.is_multiple_of(2) { Access::Read } else { Access::Write };
            let count = usize::from(input.u8());
            let reachable = guest.reachable(pin, access);
            let mut direct = Vec::new();
            burst.pop_direct(count, access, |chain, slice| {
                let lengths = match access {
                    Access::Read => (slice.len(), 0),
                    Access::Write => (0, slice.len()),
                };
                assert_eq!((chain.readable as usize, chain.writable as usize), lengths);
                assert_eq!(chain.descriptors, 1);
                assert_inside(&slice, &reachable);
                direct.push(chain);
            })?;
            assert!(direct.len() <= count.min(usize::from(size)));
            let next_avail = direct.iter().fold(next_avail, |at, _| guest.after(at, 1));
            taken.append(&mut direct);
            assert_eq!(queue.position(), QueueState { next_avail, next_used });
            queue.prefetch();
        }
    }
    Ok(())
}
