//! These tests use packed virtqueues as a driver sees them: chains, laps, batches, suppression of
//! interrupts and notifications.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

use manifold_dma::{Access, PAGE_SIZE, Permissions};
use manifold_testing::{
    DESC, DISABLE, Descriptor, ENABLE, Guest, INDIRECT, Memory, NEXT, PackedDriver, Place,
    UsedBuffer, WRITE, tight,
};
use manifold_virtio::ring::{
    Burst, Chain, PackedBurst, PackedQueue, QueueAddresses, QueueState, RingError, RingFeatures,
};

const PLAIN: RingFeatures =
    RingFeatures { event_index: false, indirect: false, packed: true, in_order: false };
const EVENT: RingFeatures = RingFeatures { event_index: true, ..PLAIN };
const INDIRECTS: RingFeatures = RingFeatures { indirect: true, ..PLAIN };
const BUFFERS: u64 = 0x8_0000;
const FIRST: Place = Place { index: 0, wrap: true };

fn queue(driver: &PackedDriver) -> PackedQueue {
    PackedQueue::new(driver.guest.addresses, driver.guest.features).unwrap()
}

fn buffer(at: u64, len: u32, flags: u16) -> Descriptor {
    Descriptor { iova: BUFFERS + at, len, flags, next: 0 }
}

fn state(avail: Place, used: Place) -> QueueState {
    QueueState { next_avail: avail.bits(), next_used: used.bits() }
}

/// Takes the next chain, with what its buffers hold; device-writable ones are filled.
fn pop(burst: &mut PackedBurst<'_, '_>) -> Result<Option<(Chain, Vec<u8>)>, RingError> {
    let mut bytes = Vec::new();
    let chain = burst.pop(|slice, access| {
        let mut piece = vec![0; slice.len()];
        slice.read(&mut piece);
        if access == Access::Write {
            slice.write(&vec![0xdd; slice.len()]);
        }
        bytes.extend(piece);
        true
    })?;
    Ok(chain.map(|chain| (chain, bytes)))
}

fn take(burst: &mut PackedBurst<'_, '_>) -> Chain {
    burst.pop(|_, _| true).unwrap().unwrap()
}

fn used(id: u16, written: u32) -> UsedBuffer {
    UsedBuffer { id, written: Some(written) }
}

#[test]
fn a_chain_goes_round() {
    let mut driver = PackedDriver::new(7, PLAIN);
    let mut queue = queue(&driver);
    let reader = driver.guest.reader();
    let pin = reader.pin();
    let mut burst = queue.open(&pin).unwrap();
    assert_eq!(burst.available().unwrap(), 0);
    assert_eq!(pop(&mut burst).unwrap(), None);
    driver.guest.put(BUFFERS, b"to the device");
    let chain = [buffer(0, 6, 0), buffer(6, 7, 0), buffer(0x1000, 9, WRITE)];
    let id = driver.offer(&chain).unwrap();
    assert_eq!(burst.available().unwrap(), 1);
    let (chain, bytes) = pop(&mut burst).unwrap().unwrap();
    assert_eq!(chain, Chain { head: id, descriptors: 3, readable: 13, writable: 9 });
    assert_eq!(&bytes, b"to the device\0\0\0\0\0\0\0\0\0");
    assert_eq!(driver.guest.get::<9>(BUFFERS + 0x1000), [0xdd; 9]);
    assert_eq!(pop(&mut burst).unwrap(), None);

    assert!(!burst.publish(), "nothing to say");
    burst.complete(&chain, 9);
    assert!(driver.used().is_empty(), "not before it is published");
    assert!(burst.publish());
    assert!(!burst.publish(), "not twice");
    assert_eq!(driver.used(), [used(id, 9)]);
    let third = Place { index: 3, wrap: true };
    assert_eq!(queue.position(), state(third, third));
}

#[test]
fn a_batch_is_visible_at_once_and_in_the_order_it_was_completed() {
    let mut driver = PackedDriver::new(5, PLAIN);
    let mut queue = queue(&driver);
    let reader = driver.guest.reader();
    let pin = reader.pin();
    let ids = [2usize, 1, 1].map(|count| driver.offer(&vec![buffer(0, 8, WRITE); count]).unwrap());
    let mut burst = queue.open(&pin).unwrap();
    let chains = [(); 3].map(|()| take(&mut burst));
    for index in [2, 0, 1] {
        burst.complete(&chains[index], 10 + index as u32);
        assert!(driver.used().is_empty(), "{index}");
    }
    assert!(burst.publish());
    let expected = [used(ids[2], 12), used(ids[0], 10), used(ids[1], 11)];
    assert_eq!(driver.used(), expected);
}

#[test]
fn chains_are_put_back() {
    let mut driver = PackedDriver::new(6, PLAIN);
    driver.begin_at(Place { index: 4, wrap: false });
    let begin = driver.next_avail;
    let mut queue = queue(&driver).resume(state(begin, begin)).unwrap();
    let reader = driver.guest.reader();
    let pin = reader.pin();
    // The second chain goes around the end.
    for count in [1, 3, 1] {
        driver.offer(&vec![buffer(0, 8, 0); count]).unwrap();
    }
    let mut burst = queue.open(&pin).unwrap();
    let chains = [(); 3].map(|()| take(&mut burst));
    assert_eq!(chains.map(|chain| chain.descriptors), [1, 3, 1]);
    for from in 0..3 {
        burst.put_back(&chains[from..]);
        for chain in &chains[from..] {
            assert_eq!(take(&mut burst), *chain);
        }
    }
    burst.put_back(&chains[1..]);
    burst.complete(&chains[0], 0);
    burst.publish();
    assert_eq!(driver.used(), [used(chains[0].head, 0)]);
    let fifth = Place { index: 5, wrap: false };
    assert_eq!(queue.position(), state(fifth, fifth));
    let mut burst = queue.open(&pin).unwrap();
    assert_eq!([(); 2].map(|()| take(&mut burst)), chains[1..]);
}

/// The test covers every size up to a hundred, and some larger ones, lap after lap, scattered over
/// pages.
#[test]
fn rings_of_every_size() {
    for size in (1..100u16).chain([255, 256, 257, 511, 1000, 1023, 1024]) {
        let pages: Vec<Option<u64>> =
            (0..64).map(|page| Some(page * 37 % 64 * PAGE_SIZE)).collect();
        let guest = Guest::at(tight(size), EVENT, &pages, Permissions::READ_WRITE);
        let mut driver = PackedDriver::with(guest);
        let mut queue = queue(&driver);
        let reader = driver.guest.reader();
        let pin = reader.pin();
        let mut offered = 0u32;
        while offered < 3 * u32::from(size) {
            let mut expected = Vec::new();
            let batch = (offered % 7 + 1).min(size.into());
            for n in offered..offered + batch {
                let buffer = Descriptor { iova: 0x2_0000, len: 1 + n % 50, ..Default::default() };
                expected.push(used(driver.offer(&[buffer]).unwrap(), n % 3));
            }
            driver.set_event(driver.last_used.bits(), DESC);
            queue.prefetch();
            let mut burst = queue.open(&pin).unwrap();
            let mut chains = vec![take(&mut burst)];
            // The mapping of the first chain is remembered, so all others come in one go.
            burst.pop_direct(usize::MAX, Access::Read, |chain, _| chains.push(chain)).unwrap();
            assert_eq!(chains.len(), expected.len());
            for ((n, expected), chain) in (offered..).zip(&expected).zip(&chains) {
                assert_eq!((chain.head, chain.readable), (expected.id, 1 + n % 50));
            }
            burst.complete_all(&chains, |n| (offered + n as u32) % 3);
            assert_eq!(burst.pop(|_, _| true).unwrap(), None);
            assert!(burst.publish());
            assert!(!burst.arm().unwrap());
            assert_eq!(driver.used(), expected, "size {size}");
            assert_eq!(driver.device_event(), (driver.next_avail.bits(), DESC));
            offered += batch;
        }
    }
}

#[test]
fn interrupts_are_suppressed_by_flags() {
    for (features, flags, wanted) in [
        (PLAIN, ENABLE, true),
        (PLAIN, DISABLE, false),
        // These are not negotiated, reserved, and bits that mean nothing.
        (PLAIN, DESC, true),
        (PLAIN, 3, true),
        (PLAIN, 0xfffc, true),
        (EVENT, ENABLE, true),
        (EVENT, DISABLE, false),
        (EVENT, 0xfffc | DISABLE, false),
        (EVENT, 3, true),
    ] {
        let mut driver = PackedDriver::new(4, features);
        let mut queue = queue(&driver);
        // The batch does not come to this place.
        driver.set_event(3, flags);
        driver.offer(&[buffer(0, 1, 0)]).unwrap();
        let reader = driver.guest.reader();
        let pin = reader.pin();
        let mut burst = queue.open(&pin).unwrap();
        let chain = take(&mut burst);
        burst.complete(&chain, 0);
        assert_eq!(burst.publish(), wanted, "{features:?} {flags:#x}");
    }
}

/// 2.8.10 asks for an interrupt for the batch that uses the descriptor of that offset and wrap
/// counter.
#[test]
fn event_index_asks_for_an_interrupt_exactly_when_it_is_passed() {
    let places =
        |size: u16| (0..size).flat_map(|index| [true, false].map(|wrap| Place { index, wrap }));
    for size in [1u16, 2, 5, 8] {
        for start in places(size) {
            for batch in 0..=size {
                for event in places(size) {
                    let mut driver = PackedDriver::new(size, EVENT);
                    driver.begin_at(start);
                    let mut queue = queue(&driver).resume(state(start, start)).unwrap();
                    let mut passed = Vec::new();
                    for _ in 0..batch {
                        passed.push(driver.next_avail);
                        driver.offer(&[buffer(0, 1, 0)]).unwrap();
                    }
                    driver.set_event(event.bits(), DESC);
                    let reader = driver.guest.reader();
                    let pin = reader.pin();
                    let mut burst = queue.open(&pin).unwrap();
                    for _ in 0..batch {
                        let chain = take(&mut burst);
                        burst.complete(&chain, 0);
                    }
                    let wanted = passed.contains(&event);
                    assert_eq!(
                        burst.publish(),
                        wanted,
                        "{batch} of {size} from {start:?}, {event:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_event_that_the_ring_does_not_have_never_comes() {
    for event in [4u16, 5, 0x7fff, 0x8004, 0xffff] {
        let mut driver = PackedDriver::new(4, EVENT);
        let mut queue = queue(&driver);
        driver.set_event(event, DESC);
        let reader = driver.guest.reader();
        let pin = reader.pin();
        for _ in 0..8 {
            driver.offer(&[buffer(0, 1, 0)]).unwrap();
            let mut burst = queue.open(&pin).unwrap();
            let chain = take(&mut burst);
            burst.complete(&chain, 0);
            assert!(!burst.publish(), "{event:#x}");
            driver.used();
        }
    }
}

#[test]
fn notifications_are_asked_for() {
    for features in [PLAIN, EVENT] {
        let mut driver = PackedDriver::new(3, features);
        let mut queue = queue(&driver);
        let reader = driver.guest.reader();
        let pin = reader.pin();
        let mut burst = queue.open(&pin).unwrap();
        burst.disarm();
        assert_eq!(driver.device_event().1, DISABLE);
        for _ in 0..8 {
            let here = driver.next_avail.bits();
            let expected = if features.event_index { (here, DESC) } else { (0, ENABLE) };
            assert!(!burst.arm().unwrap());
            assert_eq!(driver.device_event(), expected);
            burst.disarm();
            assert_eq!(driver.device_event().1, DISABLE);
            // Nobody waits for what comes between the last look and the request.
            driver.offer(&[buffer(0, 1, 0)]).unwrap();
            assert!(burst.arm().unwrap());
            burst.disarm();
            let chain = take(&mut burst);
            burst.complete(&chain, 0);
            burst.publish();
            driver.used();
        }
    }
}

#[test]
fn an_indirect_table_is_read_from_its_first_entry_to_its_last() {
    let mut driver = PackedDriver::new(2, INDIRECTS);
    let mut queue = queue(&driver);
    let table = 0x4_0ff8;
    for index in 0..40u16 {
        // NEXT, INDIRECT, the bits of availability and the ID mean nothing in a table (2.8.7).
        let noise = [0, NEXT, INDIRECT, 0x8080, NEXT | INDIRECT][usize::from(index) % 5];
        let flags = noise | if index < 20 { 0 } else { WRITE };
        let iova = BUFFERS + u64::from(index);
        let descriptor = Descriptor { iova, len: 1, flags, next: 7 * index };
        driver.guest.put(table + 16 * u64::from(index), &descriptor.to_packed_bytes());
        driver.guest.put(iova, &[index as u8]);
    }
    // WRITE means nothing in the descriptor that refers to the table.
    for flags in [INDIRECT, INDIRECT | WRITE] {
        let id = driver.offer(&[Descriptor { iova: table, len: 640, flags, next: 0 }]).unwrap();
        let reader = driver.guest.reader();
        let pin = reader.pin();
        let mut burst = queue.open(&pin).unwrap();
        let (chain, bytes) = pop(&mut burst).unwrap().unwrap();
        assert_eq!(chain, Chain { head: id, descriptors: 1, readable: 20, writable: 20 });
        let written = if flags & WRITE == 0 { 20..40 } else { 0xdd..0xde };
        assert!(bytes[..20].iter().copied().eq(0..20));
        assert!(bytes[20..].iter().all(|byte| written.contains(byte)));
    }
}

#[test]
fn a_queue_goes_on_where_another_stopped() {
    let mut driver = PackedDriver::new(3, PLAIN);
    let reader = driver.guest.reader();
    let pin = reader.pin();
    let mut at = QueueState { next_avail: FIRST.bits(), next_used: FIRST.bits() };
    for round in 0..20 {
        let mut queue = queue(&driver).resume(at).unwrap();
        let id = driver.offer(&[buffer(0, 1, 0)]).unwrap();
        let mut burst = queue.open(&pin).unwrap();
        let chain = take(&mut burst);
        burst.complete(&chain, 0);
        assert!(burst.publish());
        assert_eq!(driver.used(), [used(id, 0)], "round {round}");
        at = queue.position();
    }
}

#[test]
fn rings_are_found_again_after_a_change_of_mappings() {
    let mut driver = PackedDriver::new(4, PLAIN);
    let mut queue = queue(&driver);
    let reader = driver.guest.reader();
    let QueueAddresses { descriptors, .. } = driver.guest.addresses;
    driver.offer(&[buffer(0, 1, 0)]).unwrap();
    take(&mut queue.open(&reader.pin()).unwrap());
    driver.guest.domain.unmap_all();
    assert!(queue.open(&reader.pin()).is_err());
    let other = PackedDriver::new(4, PLAIN);
    let all = other.guest.memory.backing(0).unwrap();
    driver.guest.domain.map(0, 0x10_0000, Permissions::READ_WRITE, all).unwrap();
    let descriptor = Descriptor { iova: BUFFERS, len: 77, flags: 1 << 7, next: 5 };
    other.guest.put(descriptors + 16, &descriptor.to_packed_bytes());
    let chain = take(&mut queue.open(&reader.pin()).unwrap());
    assert_eq!(chain, Chain { head: 5, descriptors: 1, readable: 77, writable: 0 });
}
