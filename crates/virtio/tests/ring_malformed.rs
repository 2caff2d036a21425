//! These rings break the rules: each ends in its error, with the chain not taken and no other queue
//! concerned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use manifold_dma::{Access, FaultReason, PAGE_SIZE, Permissions};
use manifold_testing::{Descriptor, Driver, Guest, INDIRECT, Memory, NEXT, WRITE};
use manifold_virtio::ring::{
    Burst, QueueAddresses, QueueState, RingError, RingFeatures, SplitQueue,
};

const SIZE: u16 = 8;
const BUFFERS: u64 = 0x8_0000;
const TABLE: u64 = 0x4_0000;
const OUTSIDE: u64 = 0x10_0000;
const ALL: RingFeatures =
    RingFeatures { event_index: true, indirect: true, packed: false, in_order: false };

fn direct(iova: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { iova, len, flags, next }
}

fn good(flags: u16, next: u16) -> Descriptor {
    direct(BUFFERS, 64, flags, next)
}

/// Takes the chain at 0 of a queue with these descriptors, and with this indirect table at
/// [`TABLE`].
fn take_with(
    features: RingFeatures,
    descriptors: &[Descriptor],
    table: &[Descriptor],
) -> Result<(u32, u32), RingError> {
    let mut driver = Driver::new(SIZE, features);
    for (index, descriptor) in (0..).zip(descriptors) {
        driver.descriptor(index, *descriptor);
    }
    for (index, descriptor) in (0..).zip(table) {
        driver.put(TABLE + 16 * index, &descriptor.to_bytes());
    }
    driver.offer(0);
    let reader = driver.reader();
    let pin = reader.pin();
    let mut queue = SplitQueue::new(driver.addresses, features).unwrap();
    let mut burst = queue.open(&pin).unwrap();
    let popped = burst.pop(|_, _| true);
    let result = popped.map(|chain| chain.map(|chain| (chain.readable, chain.writable)).unwrap());
    assert_eq!(queue.position().next_avail, u16::from(result.is_ok()));
    let faults = driver.domain.faults().count;
    assert_eq!(faults, u64::from(matches!(result, Err(RingError::Fault(_)))));
    result
}

fn take(descriptors: &[Descriptor]) -> Result<(u32, u32), RingError> {
    take_with(ALL, descriptors, &[])
}

fn take_table(len: u32, table: &[Descriptor]) -> Result<(u32, u32), RingError> {
    take_with(ALL, &[direct(TABLE, len, INDIRECT, 0)], table)
}

fn reason(result: Result<(u32, u32), RingError>) -> FaultReason {
    match result {
        Err(RingError::Fault(fault)) => fault.reason,
        other => panic!("not a fault: {other:?}"),
    }
}

#[test]
fn sizes() {
    let with = |size| SplitQueue::new(QueueAddresses { size, ..Default::default() }, ALL);
    for size in 0..=u16::MAX {
        let right = (0..=10).any(|shift| size == 1 << shift);
        match with(size) {
            Ok(queue) => assert!(right && queue.size() == size),
            Err(error) => assert!(!right && error == RingError::Size(size)),
        }
    }
}

#[test]
fn ring_addresses() {
    // The device may read and write one page, only read another, only write a third.
    let driver = Driver::new(SIZE, ALL);
    let map = |iova, permissions| {
        let backing = driver.memory.backing(0).unwrap();
        driver.domain.map(iova, PAGE_SIZE, permissions, backing).unwrap();
    };
    map(0x80_0000, Permissions::READ);
    map(0x90_0000, Permissions { read: false, write: true });
    let reader = driver.reader();
    let QueueAddresses { descriptors, driver: available, device, .. } = driver.addresses;
    let open = |descriptors, available, device| {
        let addresses = QueueAddresses { size: SIZE, descriptors, driver: available, device };
        let mut queue = SplitQueue::new(addresses, ALL).unwrap();
        match queue.open(&reader.pin()) {
            Ok(_) => None,
            Err(RingError::Fault(fault)) => Some((fault.iova, fault.access, fault.reason)),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(open(descriptors, available, device), None);
    use Access::{Read, Write};
    use FaultReason::{AddressOverflow, Misaligned, NotMapped, NotPermitted};
    for off in 1..16 {
        let at = descriptors + off;
        assert_eq!(open(at, available, device), Some((at, Read, Misaligned)));
    }
    let at = available + 1;
    assert_eq!(open(descriptors, at, device), Some((at, Read, Misaligned)));
    for off in 1..4 {
        assert_eq!(
            open(descriptors, available, device + off),
            Some((device + off, Write, Misaligned))
        );
    }
    // The places are outside, beginning outside, ending outside, and around the end of the address
    // space.
    for at in [OUTSIDE, !0xfff, OUTSIDE - 16] {
        assert_eq!(open(at, available, device), Some((at, Read, NotMapped)));
        assert_eq!(open(descriptors, at, device), Some((at, Read, NotMapped)));
        assert_eq!(open(descriptors, available, at), Some((at, Write, NotMapped)));
    }
    assert_eq!(open(!0xf, available, device), Some((u64::MAX - 15, Read, AddressOverflow)));
    assert_eq!(
        open(descriptors, u64::MAX - 1, device),
        Some((u64::MAX - 1, Read, AddressOverflow))
    );
    assert_eq!(
        open(descriptors, available, u64::MAX - 3),
        Some((u64::MAX - 3, Write, AddressOverflow))
    );
    // The ring reaches to the last byte.
    assert_eq!(open(OUTSIDE - 16 * u64::from(SIZE), available, device), None);
    assert_eq!(open(descriptors, OUTSIDE - 6 - 2 * u64::from(SIZE), device), None);
    let end = OUTSIDE - 8 - 8 * u64::from(SIZE);
    assert_eq!(open(descriptors, available, end), None);
    assert_eq!(open(descriptors, available, end + 4), Some((end + 4, Write, NotMapped)));
    // These addresses have the wrong permissions.
    assert_eq!(open(0x80_0000, 0x80_0100, device), None);
    assert_eq!(open(descriptors, available, 0x80_0000), Some((0x80_0000, Write, NotPermitted)));
    assert_eq!(open(0x90_0000, available, device), Some((0x90_0000, Read, NotPermitted)));
    assert_eq!(open(descriptors, 0x90_0000, device), Some((0x90_0000, Read, NotPermitted)));
    assert_eq!(open(descriptors, available, 0x90_0000), None);
}

#[test]
fn a_ring_that_was_refused_once_works_once_it_is_mapped() {
    let driver = Driver::new(SIZE, ALL);
    let mut queue = SplitQueue::new(driver.addresses, ALL).unwrap();
    let reader = driver.reader();
    driver.domain.set_bus_master(false);
    for _ in 0..2 {
        let Err(RingError::Fault(fault)) = queue.open(&reader.pin()).map(|_| ()) else {
            panic!("opened without Bus Master Enable");
        };
        assert_eq!(fault.reason, FaultReason::BusMasterDisabled);
    }
    driver.domain.set_bus_master(true);
    assert!(queue.open(&reader.pin()).is_ok());
}

#[test]
fn available_index_out_of_range() {
    for (next, index, fine) in [
        (0, 8, true),
        (0, 9, false),
        (0, 65_535, false),
        (65_535, 7, true),
        (65_535, 8, false),
        (100, 99, false),
    ] {
        let mut driver = Driver::new(SIZE, ALL);
        let mut queue = SplitQueue::new(driver.addresses, ALL)
            .unwrap()
            .resume(QueueState { next_avail: next, next_used: next })
            .unwrap();
        driver.set_available(index);
        let reader = driver.reader();
        let pin = reader.pin();
        let mut burst = queue.open(&pin).unwrap();
        let expected = RingError::AvailableIndex { index, next, size: SIZE };
        if fine {
            assert_eq!(burst.available(), Ok(8));
            assert_eq!(burst.arm(), Ok(true));
        } else {
            assert_eq!(burst.available(), Err(expected));
            assert_eq!(burst.pop(|_, _| true), Err(expected));
            assert_eq!(burst.arm(), Err(expected));
        }
    }
}

#[test]
fn descriptor_indices_out_of_range() {
    for head in [SIZE, SIZE + 1, 0x7fff, u16::MAX] {
        let mut driver = Driver::new(SIZE, ALL);
        driver.offer(head);
        let reader = driver.reader();
        let pin = reader.pin();
        let mut queue = SplitQueue::new(driver.addresses, ALL).unwrap();
        let mut burst = queue.open(&pin).unwrap();
        let taken = burst.pop_direct(1, Access::Read, |_, _| panic!("there is no such descriptor"));
        assert_eq!(taken, Ok(()));
        let refused = burst.pop(|_, _| true);
        assert_eq!(refused, Err(RingError::DescriptorIndex { index: head, size: SIZE }));
    }
    let refused = take(&[good(NEXT, 8)]);
    assert_eq!(refused, Err(RingError::DescriptorIndex { index: 8, size: SIZE }));
    let refused = take_table(32, &[good(NEXT, 2)]);
    assert_eq!(refused, Err(RingError::DescriptorIndex { index: 2, size: 2 }));
    let refused = take_table(32, &[good(NEXT, u16::MAX)]);
    assert_eq!(refused, Err(RingError::DescriptorIndex { index: u16::MAX, size: 2 }));
}

#[test]
fn loops() {
    assert_eq!(take(&[good(NEXT, 0)]), Err(RingError::Loop(SIZE)));
    assert_eq!(take(&[good(NEXT, 1), good(NEXT, 2), good(NEXT, 1)]), Err(RingError::Loop(SIZE)));
    let long: Vec<Descriptor> =
        (1..=8).map(|next| good(if next < 8 { NEXT } else { 0 }, next)).collect();
    assert_eq!(take(&long), Ok((512, 0)), "all of the table is not a loop");
    assert_eq!(take_table(16, &[good(NEXT, 0)]), Err(RingError::Loop(1)));
    assert_eq!(
        take_table(48, &[good(NEXT, 2), good(0, 0), good(NEXT, 0)]),
        Err(RingError::Loop(3))
    );
    assert_eq!(take_table(48, &[good(NEXT, 2), good(NEXT, 0), good(0, 0)]), Ok((128, 0)));
}

#[test]
fn indirect_tables() {
    let malformed = |result: Result<(u32, u32), RingError>| {
        assert!(matches!(result, Err(RingError::Indirect(_))), "{result:?}");
    };
    let table = [good(0, 0)];
    assert_eq!(take_table(16, &table), Ok((64, 0)));
    let without = RingFeatures { indirect: false, ..ALL };
    malformed(take_with(without, &[direct(TABLE, 16, INDIRECT, 0)], &table));
    malformed(take_with(ALL, &[direct(TABLE, 16, INDIRECT | NEXT, 1), good(0, 0)], &table));
    for len in [0, 1, 15, 17, 31, 16 * 1025, 0x10_0000, u32::MAX, u32::MAX - 15] {
        malformed(take_table(len, &table));
    }
    malformed(take_table(16, &[direct(TABLE, 16, INDIRECT, 0)]));
    malformed(take_table(32, &[good(NEXT, 1), direct(TABLE, 16, INDIRECT, 0)]));
    let at = |iova| take(&[direct(iova, 64, INDIRECT, 0)]);
    assert_eq!(reason(at(OUTSIDE)), FaultReason::NotMapped);
    assert_eq!(reason(at(OUTSIDE - 32)), FaultReason::NotMapped);
    assert_eq!(reason(at(u64::MAX - 8)), FaultReason::AddressOverflow);
    assert_eq!(at(OUTSIDE - 64), Ok((0, 0)), "zeros: one empty buffer");
}

#[test]
fn buffers() {
    use FaultReason::{AddressOverflow, NotMapped};
    assert_eq!(reason(take(&[direct(OUTSIDE, 1, 0, 0)])), NotMapped);
    assert_eq!(reason(take(&[direct(OUTSIDE - 1, 2, WRITE, 0)])), NotMapped);
    assert_eq!(reason(take(&[direct(0, u32::MAX, 0, 0)])), NotMapped);
    assert_eq!(reason(take(&[direct(u64::MAX, 2, 0, 0)])), AddressOverflow);
    assert_eq!(reason(take(&[direct(u64::MAX, 1, 0, 0)])), NotMapped);
    assert_eq!(reason(take(&[good(NEXT, 1), direct(OUTSIDE, 1, WRITE, 0)])), NotMapped);
    assert_eq!(reason(take_table(32, &[good(NEXT, 1), direct(OUTSIDE, 1, WRITE, 0)])), NotMapped);
    assert_eq!(take(&[direct(OUTSIDE - 1, 1, 0, 0)]), Ok((1, 0)));
    // A buffer of no bytes may be anywhere.
    assert_eq!(take(&[direct(u64::MAX, 0, 0, 0)]), Ok((0, 0)));
}

#[test]
fn buffers_that_may_not_be_written() {
    let mut driver = Driver::new(SIZE, ALL);
    let backing = driver.memory.backing(0).unwrap();
    driver.domain.map(OUTSIDE, PAGE_SIZE, Permissions::READ, backing).unwrap();
    driver.descriptor(0, direct(OUTSIDE, 64, 0, 0));
    driver.descriptor(1, direct(OUTSIDE, 64, WRITE, 0));
    driver.offer(0);
    driver.offer(1);
    let reader = driver.reader();
    let pin = reader.pin();
    let mut queue = SplitQueue::new(driver.addresses, ALL).unwrap();
    let mut burst = queue.open(&pin).unwrap();
    assert!(burst.pop(|_, _| true).unwrap().is_some());
    assert!(matches!(burst.pop(|_, _| true), Err(RingError::Fault(_))));
}

#[test]
fn order() {
    assert_eq!(take(&[good(NEXT, 1), good(WRITE, 0)]), Ok((64, 64)));
    assert_eq!(take(&[good(WRITE | NEXT, 1), good(0, 0)]), Err(RingError::Order));
    // Empty buffers have an order, too.
    assert_eq!(take(&[direct(0, 0, WRITE | NEXT, 1), good(0, 0)]), Err(RingError::Order));
    assert_eq!(take_table(32, &[good(WRITE | NEXT, 1), good(0, 0)]), Err(RingError::Order));
    let across = [good(WRITE | NEXT, 1), direct(TABLE, 16, INDIRECT, 0)];
    assert_eq!(take_with(ALL, &across, &[good(0, 0)]), Err(RingError::Order));
    assert_eq!(take_with(ALL, &across, &[good(WRITE, 0)]), Ok((0, 128)));
}

#[test]
fn lengths_that_overflow() {
    // The IOVAs suffice for 4 GiB in one descriptor: they are the same 1 MiB of memory over and
    // over.
    let mut driver = Driver::new(SIZE, ALL);
    for megabyte in 1..4096 {
        let backing = driver.memory.backing(0).unwrap();
        driver.domain.map(megabyte << 20, 1 << 20, Permissions::READ_WRITE, backing).unwrap();
    }
    driver.descriptor(0, direct(0, u32::MAX, NEXT, 1));
    driver.descriptor(1, direct(0, u32::MAX, WRITE | NEXT, 2));
    driver.descriptor(2, direct(0, 1, WRITE, 0));
    driver.descriptor(3, direct(0, u32::MAX, WRITE, 0));
    driver.offer(3);
    driver.offer(0);
    let reader = driver.reader();
    let pin = reader.pin();
    let mut queue = SplitQueue::new(driver.addresses, ALL).unwrap();
    let mut burst = queue.open(&pin).unwrap();
    let (mut pieces, mut bytes) = (0, 0);
    let chain = burst.pop(|slice, _| {
        pieces += 1;
        bytes += slice.len();
        true
    });
    assert_eq!(chain.unwrap().unwrap().writable, u32::MAX);
    assert_eq!((pieces, bytes), (4096, u32::MAX as usize));
    assert_eq!(burst.pop(|_, _| true), Err(RingError::Length));
}

#[test]
fn more_pieces_than_room_can_be_taken_later() {
    let pages: Vec<Option<u64>> = (0..256).map(|page| Some((255 - page) * PAGE_SIZE)).collect();
    let addresses =
        QueueAddresses { size: SIZE, descriptors: 0x1_0000, driver: 0x2_0000, device: 0x3_0000 };
    let mut driver = Driver::with(Guest::at(addresses, ALL, &pages, Permissions::READ_WRITE));
    driver.descriptor(0, direct(BUFFERS, 0x2000, NEXT, 1));
    driver.descriptor(1, direct(BUFFERS, 0x3000, 0, 0));
    driver.offer(0);
    let reader = driver.reader();
    let pin = reader.pin();
    let mut queue = SplitQueue::new(addresses, ALL).unwrap();
    let mut burst = queue.open(&pin).unwrap();
    for room in 0..5 {
        let mut pieces = 0;
        let refused = burst.pop(|_, _| {
            pieces += 1;
            pieces <= room
        });
        assert_eq!(refused, Err(RingError::TooManyPieces(room)));
        assert_eq!(pieces, room + 1, "asked once more, and no more than that");
    }
    let mut pieces = 0;
    let chain = burst.pop(|_, _| {
        pieces += 1;
        pieces <= 5
    });
    assert_eq!(chain.unwrap().map(|chain| (chain.readable, pieces)), Some((0x5000, 5)));
}
