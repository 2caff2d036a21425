//! These packed rings break the rules: each ends in its error, with the chain not taken and no
//! other queue concerned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

use manifold_dma::{Access, FaultReason, PAGE_SIZE, Permissions};
use manifold_testing::{AVAIL, Descriptor, INDIRECT, Memory, NEXT, PackedDriver, USED, WRITE};
use manifold_virtio::ring::{
    Burst, PackedQueue, Queue, QueueAddresses, QueueState, RingError, RingFeatures,
};

const SIZE: u16 = 5;
const BUFFERS: u64 = 0x8_0000;
const TABLE: u64 = 0x4_0000;
const OUTSIDE: u64 = 0x10_0000;
const ALL: RingFeatures =
    RingFeatures { event_index: true, indirect: true, packed: true, in_order: false };

fn direct(iova: u64, len: u32, flags: u16) -> Descriptor {
    Descriptor { iova, len, flags: flags | AVAIL, next: 0 }
}

fn good(flags: u16) -> Descriptor {
    direct(BUFFERS, 64, flags)
}

/// Takes the first chain of a ring with these descriptors, and with this indirect table at
/// [`TABLE`].
fn take_with(
    features: RingFeatures,
    descriptors: &[Descriptor],
    table: &[Descriptor],
) -> Result<(u32, u32), RingError> {
    let driver = PackedDriver::new(SIZE, features);
    for (index, descriptor) in (0..).zip(descriptors) {
        driver.put_descriptor(index, *descriptor);
    }
    for (index, descriptor) in (0..).zip(table) {
        driver.guest.put(TABLE + 16 * index, &descriptor.to_packed_bytes());
    }
    let reader = driver.guest.reader();
    let pin = reader.pin();
    let mut queue = PackedQueue::new(driver.guest.addresses, features).unwrap();
    let before = queue.position();
    let mut burst = queue.open(&pin).unwrap();
    let popped = burst.pop(|_, _| true);
    let result = popped.map(|chain| chain.map(|chain| (chain.readable, chain.writable)).unwrap());
    assert_eq!(queue.position().next_avail != before.next_avail, result.is_ok());
    let faults = driver.guest.domain.faults().count;
    assert_eq!(faults, u64::from(matches!(result, Err(RingError::Fault(_)))));
    result
}

fn take(descriptors: &[Descriptor]) -> Result<(u32, u32), RingError> {
    take_with(ALL, descriptors, &[])
}

fn take_table(len: u32, table: &[Descriptor]) -> Result<(u32, u32), RingError> {
    take_with(ALL, &[direct(TABLE, len, INDIRECT)], table)
}

fn reason(result: Result<(u32, u32), RingError>) -> FaultReason {
    match result {
        Err(RingError::Fault(fault)) => fault.reason,
        other => panic!("not a fault: {other:?}"),
    }
}

#[test]
fn sizes() {
    let with = |size| Queue::new(QueueAddresses { size, ..Default::default() }, ALL);
    for size in 0..=u16::MAX {
        match with(size) {
            Ok(queue) => assert!((1..=1024).contains(&size) && queue.size() == size),
            Err(error) => {
                assert!(!(1..=1024).contains(&size));
                assert_eq!(error, RingError::Size(size));
            }
        }
    }
}

#[test]
fn positions() {
    let resume = |next_avail, next_used| {
        let addresses = QueueAddresses { size: SIZE, ..Default::default() };
        let state = QueueState { next_avail, next_used };
        let queue = Queue::new(addresses, ALL).unwrap().resume(state)?;
        assert_eq!(queue.position(), state);
        Ok::<_, RingError>(())
    };
    for (avail, used) in [(0, 0), (0x8000, 0x8000), (4, 0), (0, 0x8000), (3, 0x8004), (2, 0x8002)] {
        assert_eq!(resume(avail, used), Ok(()), "{avail:#x} {used:#x}");
    }
    let refused = |position| Err(RingError::Position { position, size: SIZE });
    for bad in [5, 0x7fff, 0x8005, 0xffff] {
        assert_eq!(resume(bad, 0x8000), refused(bad));
        assert_eq!(resume(0x8000, bad), refused(bad));
    }
    // The positions say used before it was taken, and more than a lap apart.
    for (avail, used) in [(0, 1), (0x8002, 0x8003), (4, 0x8003)] {
        assert_eq!(resume(avail, used), refused(used));
    }
}

#[test]
fn ring_addresses() {
    let driver = PackedDriver::new(SIZE, ALL);
    let map = |iova, permissions| {
        let backing = driver.guest.memory.backing(0).unwrap();
        driver.guest.domain.map(iova, PAGE_SIZE, permissions, backing).unwrap();
    };
    map(0x80_0000, Permissions::READ);
    map(0x90_0000, Permissions { read: false, write: true });
    let reader = driver.guest.reader();
    let QueueAddresses { descriptors, driver: events, device, .. } = driver.guest.addresses;
    let open = |descriptors, events, device| {
        let addresses = QueueAddresses { size: SIZE, descriptors, driver: events, device };
        let mut queue = PackedQueue::new(addresses, ALL).unwrap();
        match queue.open(&reader.pin()) {
            Ok(_) => None,
            Err(RingError::Fault(fault)) => Some((fault.iova, fault.access, fault.reason)),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(open(descriptors, events, device), None);
    use Access::{Read, Write};
    use FaultReason::{AddressOverflow, Misaligned, NotMapped, NotPermitted};
    for off in 1..16 {
        let at = descriptors + off;
        assert_eq!(open(at, events, device), Some((at, Write, Misaligned)));
    }
    for off in 1..4 {
        let (at, to) = (events + off, device + off);
        assert_eq!(open(descriptors, at, device), Some((at, Read, Misaligned)));
        assert_eq!(open(descriptors, events, to), Some((to, Write, Misaligned)));
    }
    for at in [OUTSIDE, !0xfff] {
        assert_eq!(open(at, events, device), Some((at, Write, NotMapped)));
        assert_eq!(open(descriptors, at, device), Some((at, Read, NotMapped)));
        assert_eq!(open(descriptors, events, at), Some((at, Write, NotMapped)));
    }
    assert_eq!(open(!0xf, events, device), Some((!0xf, Write, AddressOverflow)));
    // The area reaches to the last byte.
    assert_eq!(open(OUTSIDE - 80, events, device), None);
    assert_eq!(open(OUTSIDE - 64, events, device), Some((OUTSIDE - 64, Write, NotMapped)));
    assert_eq!(open(descriptors, OUTSIDE - 4, OUTSIDE - 4), None);
    // These addresses have the wrong permissions.
    assert_eq!(open(0x80_0000, events, device), Some((0x80_0000, Write, NotPermitted)));
    assert_eq!(open(0x90_0000, events, device), Some((0x90_0000, Read, NotPermitted)));
    assert_eq!(open(descriptors, 0x80_0000, device), None);
    assert_eq!(open(descriptors, 0x90_0000, device), Some((0x90_0000, Read, NotPermitted)));
    assert_eq!(open(descriptors, events, 0x80_0000), Some((0x80_0000, Write, NotPermitted)));
    assert_eq!(open(descriptors, events, 0x90_0000), None);
}

/// A descriptor is available only by a change of AVAIL that fits the lap (2.8.1).
#[test]
fn whose_turn_it_is() {
    for (flags, wrap, available) in [
        (0, true, false),
        (AVAIL, true, true),
        (USED, true, false),
        (AVAIL | USED, true, false),
        (0, false, false),
        (AVAIL, false, false),
        (USED, false, true),
        (AVAIL | USED, false, false),
    ] {
        let driver = PackedDriver::new(SIZE, ALL);
        let descriptor = Descriptor { flags, ..good(0) };
        driver.put_descriptor(0, descriptor);
        let at = if wrap { 0x8000 } else { 0 };
        let queue = PackedQueue::new(driver.guest.addresses, ALL).unwrap();
        let mut queue = queue.resume(QueueState { next_avail: at, next_used: at }).unwrap();
        let reader = driver.guest.reader();
        let pin = reader.pin();
        let mut burst = queue.open(&pin).unwrap();
        assert_eq!(burst.available().unwrap(), u16::from(available), "{flags:#x} {wrap}");
        assert_eq!(burst.arm().unwrap(), available);
        assert_eq!(burst.pop(|_, _| true).unwrap().is_some(), available);
    }
}

#[test]
fn loops() {
    assert_eq!(take(&[good(NEXT); 5]), Err(RingError::Loop(SIZE)));
    let mut whole = [good(NEXT); 5];
    whole[4] = good(0);
    assert_eq!(take(&whole), Ok((320, 0)), "all of the ring is not a loop");
}

#[test]
fn chains_that_are_not_all_available() {
    for flags in [0, USED, AVAIL | USED] {
        let broken = Descriptor { flags: flags | NEXT, ..good(0) };
        assert_eq!(take(&[good(NEXT), broken, good(0)]), Err(RingError::Unavailable(1)));
        let broken = Descriptor { flags, ..good(0) };
        assert_eq!(take(&[good(NEXT), good(NEXT), broken]), Err(RingError::Unavailable(2)));
    }
}

/// The driver may not make descriptors available again that the device has not given back.
#[test]
fn descriptors_the_device_still_has() {
    let mut driver = PackedDriver::new(SIZE, ALL);
    let mut queue = PackedQueue::new(driver.guest.addresses, ALL).unwrap();
    let reader = driver.guest.reader();
    let pin = reader.pin();
    for _ in 0..SIZE {
        driver.offer(&[Descriptor { iova: BUFFERS, len: 1, ..Default::default() }]).unwrap();
    }
    let mut burst = queue.open(&pin).unwrap();
    let chains: Vec<_> = (0..SIZE).map(|_| burst.pop(|_, _| true).unwrap().unwrap()).collect();
    // The next lap goes over the first chain's head.
    let next = |flags| Descriptor { iova: BUFFERS, len: 1, flags: flags | USED, next: 0 };
    driver.put_descriptor(0, next(0));
    assert_eq!(burst.pop(|_, _| true), Err(RingError::Overrun(0)));
    // There is room for the first of a chain of two only.
    burst.complete(&chains[0], 0);
    driver.put_descriptor(0, next(NEXT));
    driver.put_descriptor(1, next(0));
    assert_eq!(burst.pop(|_, _| true), Err(RingError::Overrun(1)));
    burst.complete(&chains[1], 0);
    driver.put_descriptor(1, next(0));
    assert!(burst.pop(|_, _| true).unwrap().is_some());
}

#[test]
fn indirect_tables() {
    let malformed = |result: Result<(u32, u32), RingError>| {
        assert!(matches!(result, Err(RingError::Indirect(_))), "{result:?}");
    };
    let table = [good(0)];
    assert_eq!(take_table(16, &table), Ok((64, 0)));
    let without = RingFeatures { indirect: false, ..ALL };
    malformed(take_with(without, &[direct(TABLE, 16, INDIRECT)], &table));
    // An indirect descriptor is not allowed in lists linked by NEXT (2.8.12).
    malformed(take_with(ALL, &[direct(TABLE, 16, INDIRECT | NEXT), good(0)], &table));
    malformed(take_with(ALL, &[good(NEXT), direct(TABLE, 16, INDIRECT)], &table));
    for len in [0, 1, 15, 17, 31, 16 * 1025, 0x10_0000, u32::MAX, u32::MAX - 15] {
        malformed(take_table(len, &table));
    }
    let at = |iova| take(&[direct(iova, 64, INDIRECT)]);
    assert_eq!(reason(at(OUTSIDE)), FaultReason::NotMapped);
    assert_eq!(reason(at(OUTSIDE - 32)), FaultReason::NotMapped);
    assert_eq!(reason(at(u64::MAX - 8)), FaultReason::AddressOverflow);
    assert_eq!(at(OUTSIDE - 64), Ok((0, 0)), "zeros: empty buffers");
}

#[test]
fn buffers() {
    use FaultReason::{AddressOverflow, NotMapped};
    assert_eq!(reason(take(&[direct(OUTSIDE, 1, 0)])), NotMapped);
    assert_eq!(reason(take(&[direct(OUTSIDE - 1, 2, WRITE)])), NotMapped);
    assert_eq!(reason(take(&[direct(0, u32::MAX, 0)])), NotMapped);
    assert_eq!(reason(take(&[direct(u64::MAX, 2, 0)])), AddressOverflow);
    assert_eq!(reason(take(&[good(NEXT), direct(OUTSIDE, 1, WRITE)])), NotMapped);
    assert_eq!(reason(take_table(32, &[good(0), direct(OUTSIDE, 1, WRITE)])), NotMapped);
    assert_eq!(take(&[direct(OUTSIDE - 1, 1, 0)]), Ok((1, 0)));
    // A buffer of no bytes may be anywhere.
    assert_eq!(take(&[direct(u64::MAX, 0, 0)]), Ok((0, 0)));
}

#[test]
fn order() {
    assert_eq!(take(&[good(NEXT), good(WRITE)]), Ok((64, 64)));
    assert_eq!(take(&[good(WRITE | NEXT), good(0)]), Err(RingError::Order));
    assert_eq!(take_table(32, &[good(WRITE), good(0)]), Err(RingError::Order));
    assert_eq!(take_table(32, &[good(0), good(WRITE)]), Ok((64, 64)));
}

#[test]
fn lengths_that_overflow() {
    let driver = PackedDriver::new(SIZE, ALL);
    for megabyte in 1..4096 {
        let backing = driver.guest.memory.backing(0).unwrap();
        driver.guest.domain.map(megabyte << 20, 1 << 20, Permissions::READ_WRITE, backing).unwrap();
    }
    driver.put_descriptor(0, direct(0, u32::MAX, WRITE | NEXT));
    driver.put_descriptor(1, direct(0, 1, WRITE));
    let reader = driver.guest.reader();
    let pin = reader.pin();
    let mut queue = PackedQueue::new(driver.guest.addresses, ALL).unwrap();
    let mut burst = queue.open(&pin).unwrap();
    assert_eq!(burst.pop(|_, _| true), Err(RingError::Length));
}

#[test]
fn more_pieces_than_room_can_be_taken_later() {
    let mut driver = PackedDriver::new(SIZE, ALL);
    let buffer = |flags| Descriptor { iova: BUFFERS, len: 8, flags, next: 0 };
    driver.offer(&[buffer(0), buffer(0), buffer(WRITE)]).unwrap();
    driver.offer(&[buffer(0)]).unwrap();
    let reader = driver.guest.reader();
    let pin = reader.pin();
    let mut queue = PackedQueue::new(driver.guest.addresses, ALL).unwrap();
    let mut burst = queue.open(&pin).unwrap();
    for (pieces, all) in [(3, 3), (1, 1)] {
        for room in 0..=pieces {
            let mut asked = 0;
            let result = burst.pop(|_, _| {
                asked += 1;
                asked <= room
            });
            if room < all {
                assert_eq!(result, Err(RingError::TooManyPieces(room)));
                assert_eq!(asked, room + 1, "asked once more, and no more than that");
            } else {
                assert_eq!(result.unwrap().map(|chain| chain.descriptors), Some(all as u16));
            }
        }
    }
}
