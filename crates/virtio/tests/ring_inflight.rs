//! These tests check in-flight tracking: whenever a device dies, the next one takes exactly what
//! the driver has not got back, in the old order and before anything new; and a region full of
//! nonsense harms nobody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

use std::sync::Arc;

use manifold_dma::SharedMemory;
use manifold_testing::{Descriptor, Driver, GuestMemory, NEXT, PackedDriver, UsedBuffer, WRITE};
use manifold_virtio::ring::{Burst, Chain, Inflight, Queue, QueueState, RingError, RingFeatures};
use proptest::collection::vec;
use proptest::prelude::*;

const BUFFERS: u64 = 0x8_0000;

/// A region as a VMM holds it: it outlives the device.
struct Region {
    file: GuestMemory,
    size: u64,
}

impl Region {
    fn new(queue_size: u16, packed: bool) -> Self {
        let size = Inflight::size(queue_size, packed) as u64;
        Region { file: GuestMemory::new("inflight", size).unwrap(), size }
    }

    fn map(&self) -> Inflight {
        let fd = self.file.file().try_clone().unwrap().into();
        Inflight::new(Arc::new(SharedMemory::map(&fd, 0, self.size).unwrap()), 0)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        self.file.read(0, &mut bytes).unwrap();
        bytes
    }
}

/// A driver of either kind. It offers chains of a length that tells them apart.
enum Guest {
    Split { driver: Driver, free: Vec<u16>, tables: Vec<Vec<u16>>, lengths: Vec<u32> },
    Packed { driver: PackedDriver, lengths: Vec<u32> },
}

impl Guest {
    fn new(size: u16, packed: bool) -> Self {
        let features = RingFeatures { packed, ..RingFeatures::default() };
        if packed {
            let driver = PackedDriver::new(size, features);
            Guest::Packed { driver, lengths: vec![0; size.into()] }
        } else {
            let driver = Driver::new(size, features);
            Guest::Split {
                driver,
                free: (0..size).collect(),
                tables: vec![Vec::new(); size.into()],
                lengths: vec![0; size.into()],
            }
        }
    }

    fn inner(&self) -> &manifold_testing::Guest {
        match self {
            Guest::Split { driver, .. } => driver,
            Guest::Packed { driver, .. } => &driver.guest,
        }
    }

    /// Makes a new device for the queue, as after a crash: it knows nothing but the region.
    fn device(&self, region: &Region) -> Queue {
        let driver = self.inner();
        Queue::new(driver.addresses, driver.features).unwrap().with_inflight(region.map()).unwrap()
    }

    /// Offers a chain of `count` buffers, `length` bytes in all; returns false when there is no
    /// room.
    fn offer(&mut self, count: u16, length: u32) -> bool {
        let buffer = |index: u16| Descriptor {
            iova: BUFFERS + 16 * u64::from(index),
            len: if index == 0 { length - u32::from(count - 1) } else { 1 },
            flags: if index == 0 { 0 } else { WRITE },
            next: 0,
        };
        match self {
            Guest::Split { driver, free, tables, lengths } => {
                if free.len() < usize::from(count) {
                    return false;
                }
                let table: Vec<u16> = free.drain(..usize::from(count)).collect();
                for (place, index) in (0..).zip(&table) {
                    let next = table.get(usize::from(place) + 1);
                    let flags = if next.is_some() { NEXT } else { 0 };
                    let link = next.copied().unwrap_or(0xffff);
                    let plain = buffer(place);
                    let descriptor = Descriptor { flags: plain.flags | flags, next: link, ..plain };
                    driver.descriptor(*index, descriptor);
                }
                lengths[usize::from(table[0])] = length;
                driver.offer(table[0]);
                let head = usize::from(table[0]);
                tables[head] = table;
                true
            }
            Guest::Packed { driver, lengths } => {
                if driver.free() < count || driver.offered.len() == lengths.len() {
                    return false;
                }
                let buffers: Vec<_> = (0..count).map(buffer).collect();
                let id = driver.offer(&buffers).unwrap();
                lengths[usize::from(id)] = length;
                true
            }
        }
    }

    /// Returns the lengths of the chains that came back.
    fn used(&mut self) -> Vec<u32> {
        match self {
            Guest::Split { driver, free, tables, lengths } => {
                let used = driver.used();
                used.iter().for_each(|(head, _)| free.append(&mut tables[*head as usize]));
                used.iter().map(|(head, _)| lengths[*head as usize]).collect()
            }
            Guest::Packed { driver, lengths } => {
                let used = driver.used();
                used.iter().map(|UsedBuffer { id, .. }| lengths[usize::from(*id)]).collect()
            }
        }
    }
}

fn length(chain: &Chain) -> u32 {
    chain.readable + chain.writable
}

#[derive(Clone, Debug)]
enum Step {
    /// The driver offers a chain of so many buffers.
    Offer(u16),
    /// The device takes so many chains.
    Take(usize),
    /// The device gives back the chain at this place among those it has.
    Complete(usize),
    /// The device puts back so many chains.
    PutBack(usize),
    Publish,
    /// The device dies, and another one starts.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4u16).prop_map(Step::Offer),
        3 => (1..5usize).prop_map(Step::Take),
        3 => prop_oneof![3 => Just(0), 1 => 0..8usize].prop_map(Step::Complete),
        1 => (1..3usize).prop_map(Step::PutBack),
        2 => Just(Step::Publish),
        1 => Just(Step::Crash),
    ]
}

/// The test keeps the standard's rules for the driver and those of vhost-user for what is in flight
/// as a model: three lists of chains.
fn exactly_what_is_missing(steps: &[Step], size: u16, packed: bool) {
    let mut guest = Guest::new(size, packed);
    let region = Region::new(size, packed);
    let mut device = guest.device(&region);
    let reader = guest.inner().reader();
    let pin = reader.pin();
    let mut next_length = 10;
    // The lists are: offered and not taken; taken and not completed; completed and not published.
    let (mut waiting, mut taken, mut completed) = (Vec::new(), Vec::new(), Vec::new());
    // This list is of all that were taken and not put back, in that order.
    let mut order = Vec::new();
    for step in steps {
        let mut burst = device.open(&pin).unwrap();
        match step {
            Step::Offer(count) => {
                if guest.offer(*count, next_length) {
                    waiting.push(next_length);
                    next_length += 1;
                }
            }
            Step::Take(count) => {
                for _ in 0..*count {
                    let chain = burst.pop(|_, _| true).unwrap();
                    let expected = (!waiting.is_empty()).then(|| waiting.remove(0));
                    assert_eq!(chain.as_ref().map(length), expected);
                    order.extend(chain.as_ref().map(length));
                    taken.extend(chain);
                }
            }
            Step::Complete(index) => {
                if !taken.is_empty() {
                    let chain = taken.remove(index % taken.len());
                    burst.complete(&chain, 1);
                    completed.push(chain);
                }
            }
            Step::PutBack(count) => {
                let mut back = Vec::new();
                for _ in 0..*count {
                    // This is the chain taken last, unless it was completed.
                    let last = order.last();
                    let found = taken.iter().position(|chain| Some(&length(chain)) == last);
                    let Some(index) = found else { break };
                    back.insert(0, taken.remove(index));
                    order.pop();
                }
                burst.put_back(&back);
                waiting.splice(0..0, back.iter().map(length));
            }
            Step::Publish => {
                burst.publish();
                let expected: Vec<u32> = completed.drain(..).map(|chain| length(&chain)).collect();
                assert_eq!(guest.used(), expected);
            }
            Step::Crash => {
                assert!(guest.used().is_empty(), "nothing is used before it is published");
                // Chains that were not published are to be taken again, in the order they were
                // taken the first time.
                let mut again: Vec<u32> = taken
                    .drain(..)
                    .chain(completed.drain(..))
                    .map(|chain| length(&chain))
                    .collect();
                again.sort_unstable();
                waiting.splice(0..0, again);
                order.clear();
                device = guest.device(&region);
            }
        }
    }
    // All of them come back in the end.
    let mut burst = device.open(&pin).unwrap();
    while let Some(chain) = burst.pop(|_, _| true).unwrap() {
        assert_eq!(length(&chain), waiting.remove(0));
        taken.push(chain);
    }
    assert!(waiting.is_empty());
    for chain in taken.drain(..) {
        burst.complete(&chain, 1);
        completed.push(chain);
    }
    burst.publish();
    let mut used = guest.used();
    used.sort_unstable();
    let mut expected: Vec<u32> = completed.iter().map(length).collect();
    expected.sort_unstable();
    assert_eq!(used, expected);
}

proptest! {
    #[test]
    fn split_queues_lose_and_repeat_nothing(steps in vec(step(), 1..120), shift in 2..6u16) {
        exactly_what_is_missing(&steps, 1 << shift, false);
    }

    #[test]
    fn packed_queues_lose_and_repeat_nothing(steps in vec(step(), 1..120), size in 3..40u16) {
        exactly_what_is_missing(&steps, size, true);
    }

    /// A region may hold anything, at whatever moment: the queue continues or fails, and that is
    /// all.
    #[test]
    fn nonsense_in_the_region_is_harmless(
        packed in any::<bool>(),
        noise in vec((0..2100usize, prop_oneof![any::<u8>(), 0..5u8]), 1..200),
        all in any::<bool>(),
    ) {
        let mut guest = Guest::new(64, packed);
        let region = Region::new(64, packed);
        let reader = guest.inner().reader();
        let pin = reader.pin();
        for round in 0..3u32 {
            let version = if all { 0x0001_0001u32.to_le_bytes() } else { [1, 0, 64, 0] };
            for (at, byte) in &noise {
                let at = *at as u64 % region.size;
                region.file.write(at, &[byte.wrapping_mul(round as u8 + 1)]).unwrap();
            }
            region.file.write(8, &version).unwrap();
            let mut device = guest.device(&region);
            guest.offer(2, 100 + round);
            let mut burst = device.open(&pin).unwrap();
            for _ in 0..200 {
                let Ok(Some(chain)) = burst.pop(|_, _| true) else { break };
                burst.complete(&chain, 0);
            }
            burst.publish();
            let _ = burst.arm();
        }
    }
}

#[test]
fn sizes_are_those_of_the_specification() {
    // The sizes are 16 + 16 n and 32 + 32 n bytes, in multiples of 64.
    for (queue_size, split, packed) in [
        (1, 64, 64),
        (2, 64, 128),
        (3, 64, 128),
        (4, 128, 192),
        (256, 4160, 8256),
        (1024, 16448, 32832),
    ] {
        assert_eq!(Inflight::size(queue_size, false), split);
        assert_eq!(Inflight::size(queue_size, true), packed);
    }
}

#[test]
fn a_region_that_is_too_small_is_refused() {
    for packed in [false, true] {
        let guest = Guest::new(16, packed);
        let file = GuestMemory::new("inflight", 4096).unwrap();
        let memory = SharedMemory::map(&file.file().try_clone().unwrap().into(), 0, 600).unwrap();
        let memory = Arc::new(memory);
        let needed = if packed { 32 + 32 * 16 } else { 16 + 16 * 16 };
        let with = |offset| {
            let queue = Queue::new(guest.inner().addresses, guest.inner().features).unwrap();
            queue.with_inflight(Inflight::new(Arc::clone(&memory), offset)).map(|_| ())
        };
        assert_eq!(with(0), Ok(()));
        assert_eq!(with(600 - needed), Ok(()));
        for offset in [601 - needed, 600, usize::MAX] {
            assert_eq!(with(offset), Err(RingError::Inflight { offset, needed, size: 600 }));
        }
    }
}

/// The parts of queues follow each other, wherever pages begin.
#[test]
fn a_part_begins_anywhere_in_the_file() {
    let file = GuestMemory::new("inflight", 3 * 4096).unwrap();
    let fd = file.file().try_clone().unwrap().into();
    let memory = Arc::new(SharedMemory::map(&fd, 0, 3 * 4096).unwrap());
    for (packed, offset) in [(false, 4032usize), (true, 4096), (true, 8128)] {
        let guest = Guest::new(4, packed);
        let queue = Queue::new(guest.inner().addresses, guest.inner().features).unwrap();
        let region = Inflight::new(Arc::clone(&memory), offset);
        let mut queue = queue.with_inflight(region).unwrap();
        let reader = guest.inner().reader();
        queue.open(&reader.pin()).unwrap();
        let mut header = [0; 12];
        file.read(offset as u64, &mut header).unwrap();
        assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 0], "{packed} at {offset}");
    }
}

/// The test reads `QueueRegionSplit` byte by byte through one chain's life.
#[test]
fn the_split_layout_is_the_specifications() {
    let mut guest = Guest::new(4, false);
    let region = Region::new(4, false);
    let mut device = guest.device(&region);
    let reader = guest.inner().reader();
    let pin = reader.pin();
    for length in [10, 11] {
        guest.offer(1, length);
    }
    let mut burst = device.open(&pin).unwrap();
    let mut expected = vec![0u8; 128];
    expected[8..12].copy_from_slice(&[1, 0, 4, 0]);
    assert_eq!(region.bytes(), expected, "version 1, 4 descriptors");
    let chains = [(); 2].map(|()| burst.pop(|_, _| true).unwrap().unwrap());
    expected[16] = 1;
    expected[32] = 1;
    expected[40] = 1;
    assert_eq!(region.bytes(), expected, "in flight, counters 0 and 1");
    burst.complete(&chains[1], 0);
    burst.complete(&chains[0], 0);
    burst.publish();
    expected[16] = 0;
    expected[32] = 0;
    expected[22] = 1;
    expected[14] = 2;
    assert_eq!(region.bytes(), expected, "head 0 last, linked to head 1; used index 2");
    burst.put_back(&[]);
    assert_eq!(device.position(), QueueState { next_avail: 2, next_used: 2 });
}

/// The test reads `QueueRegionPacked` field by field.
#[test]
fn the_packed_layout_is_the_specifications() {
    let mut guest = Guest::new(5, true);
    let region = Region::new(5, true);
    let mut device = guest.device(&region);
    let reader = guest.inner().reader();
    let pin = reader.pin();
    let mut burst = device.open(&pin).unwrap();
    let header = |bytes: &[u8]| {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        // The fields are version, desc_num, free_head, old_free_head, used_idx, old_used_idx,
        // used_wrap_counter, old_used_wrap_counter.
        (half(8), half(10), half(12), half(14), half(16), half(18), bytes[20], bytes[21])
    };
    let next = |bytes: &[u8]| [0, 1, 2, 3, 4].map(|entry| bytes[32 + 32 * entry + 2]);
    assert_eq!(header(&region.bytes()), (1, 5, 0, 0, 0, 0, 1, 1));
    assert_eq!(next(&region.bytes()), [1, 2, 3, 4, 5]);
    guest.offer(3, 10);
    guest.offer(1, 11);
    let chains = [(); 2].map(|()| burst.pop(|_, _| true).unwrap().unwrap());
    let bytes = region.bytes();
    assert_eq!(header(&bytes), (1, 5, 4, 4, 0, 0, 1, 1));
    // The fields are inflight, next, last, num, counter.
    let head = |bytes: &[u8], entry: usize| {
        let at = &bytes[32 + 32 * entry..];
        (at[0], at[2], at[4], at[6], at[8])
    };
    assert_eq!(head(&bytes, 0), (1, 1, 2, 3, 0));
    assert_eq!(head(&bytes, 3), (1, 4, 3, 1, 1));
    // The fields are id, flags, len, addr of the chain's last descriptor.
    let last = &bytes[32 + 64 + 16..32 + 96];
    let mut expected = [0; 16];
    expected[2] = 0x82;
    expected[4] = 1;
    expected[8..12].copy_from_slice(&0x8_0020u32.to_le_bytes());
    assert_eq!(last, expected);
    burst.complete(&chains[1], 0);
    burst.complete(&chains[0], 0);
    burst.publish();
    let bytes = region.bytes();
    assert_eq!(header(&bytes), (1, 5, 0, 0, 4, 4, 1, 1));
    assert_eq!([head(&bytes, 0).0, head(&bytes, 3).0], [0, 0]);
    assert_eq!(next(&bytes), [1, 2, 3, 4, 5], "0, 1, 2, then 3, then 4");
}

/// The device died after the ring was written and before the record was: the batch is the driver's.
#[test]
fn a_batch_the_driver_has_seen_is_not_repeated() {
    for packed in [false, true] {
        let mut guest = Guest::new(8, packed);
        let region = Region::new(8, packed);
        let mut device = guest.device(&region);
        let reader = guest.inner().reader();
        let pin = reader.pin();
        for length in 10..14 {
            guest.offer(1, length);
        }
        let mut burst = device.open(&pin).unwrap();
        let chains = [(); 4].map(|()| burst.pop(|_, _| true).unwrap().unwrap());
        let before = region.bytes();
        burst.complete(&chains[0], 0);
        burst.complete(&chains[1], 0);
        burst.publish();
        let after = region.bytes();
        // This is the region between the ring and the record: what is written before the ring, not
        // what is written after.
        let mut between = after.clone();
        if packed {
            // The bytes are inflight of both; old_free_head, old_used_idx.
            for at in [32, 64, 14, 15, 18, 19] {
                between[at] = before[at];
            }
        } else {
            // The bytes are inflight of both; used_idx.
            for at in [16, 32, 14] {
                between[at] = before[at];
            }
        }
        assert_ne!(between, after);
        region.file.write(0, &between).unwrap();
        let mut device = guest.device(&region);
        let mut burst = device.open(&pin).unwrap();
        let again: Vec<u32> =
            std::iter::from_fn(|| burst.pop(|_, _| true).unwrap().as_ref().map(length)).collect();
        assert_eq!(again, [12, 13], "packed: {packed}");
        assert_eq!(guest.used(), [10, 11]);
    }
}

/// The device died before the ring was written: the driver must not come across what it had
/// prepared.
#[test]
fn a_batch_the_driver_has_not_seen_is_undone() {
    let mut guest = Guest::new(8, true);
    let region = Region::new(8, true);
    let mut device = guest.device(&region);
    let reader = guest.inner().reader();
    let pin = reader.pin();
    for length in 10..14 {
        guest.offer(1, length);
    }
    let mut burst = device.open(&pin).unwrap();
    for _ in 0..4 {
        let chain = burst.pop(|_, _| true).unwrap().unwrap();
        burst.complete(&chain, 0);
    }
    // All but the first are in the ring already.
    let mut device = guest.device(&region);
    let mut burst = device.open(&pin).unwrap();
    let chains = [(); 4].map(|()| burst.pop(|_, _| true).unwrap().unwrap());
    burst.complete(&chains[0], 0);
    burst.publish();
    assert_eq!(guest.used(), [10], "and not the second, too");
}
