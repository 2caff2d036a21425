//! These tests use split virtqueues as a driver sees them: suppression of interrupts and
//! notifications, and chains of every shape.

#![allow(clippy::unwrap_used, reason = "a test")]

use manifold_dma::{Access, PAGE_SIZE, Permissions, Pinned};
use manifold_testing::{Descriptor, Driver, Guest, INDIRECT, Memory, NEXT, WRITE};
use manifold_virtio::ring::{
    Burst, Chain, QueueAddresses, QueueState, RingError, RingFeatures, SplitBurst, SplitQueue,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PLAIN: RingFeatures =
    RingFeatures { event_index: false, indirect: false, packed: false, in_order: false };
const EVENT: RingFeatures =
    RingFeatures { event_index: true, indirect: false, packed: false, in_order: false };
const INDIRECTS: RingFeatures =
    RingFeatures { event_index: false, indirect: true, packed: false, in_order: false };
const BUFFERS: u64 = 0x8_0000;

fn queue(driver: &Driver) -> SplitQueue {
    SplitQueue::new(driver.addresses, driver.features).unwrap()
}

/// Takes the next chain, with what its buffers hold.
fn pop(queue: &mut SplitQueue, pin: &Pinned<'_>) -> Result<Option<(Chain, Vec<u8>)>, RingError> {
    let mut bytes = Vec::new();
    let mut burst = queue.open(pin)?;
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

/// Takes, completes and publishes `count` chains at once; says whether the driver wants an
/// interrupt.
fn serve(queue: &mut SplitQueue, pin: &Pinned<'_>, count: u16) -> bool {
    let mut burst = queue.open(pin).unwrap();
    for _ in 0..count {
        let chain = burst.pop(|_, _| true).unwrap().unwrap();
        burst.complete(&chain, 0);
    }
    burst.publish()
}

#[test]
fn a_chain_goes_round() {
    let mut driver = Driver::new(8, PLAIN);
    let mut queue = queue(&driver);
    let reader = driver.reader();
    driver.put(BUFFERS, b"to the device");
    let table = [
        (5, Descriptor { iova: BUFFERS, len: 6, flags: NEXT, next: 1 }),
        (1, Descriptor { iova: BUFFERS + 6, len: 7, flags: NEXT, next: 7 }),
        (7, Descriptor { iova: BUFFERS + 0x1000, len: 9, flags: WRITE, next: 99 }),
    ];
    for (index, descriptor) in table {
        driver.descriptor(index, descriptor);
    }
    let pin = reader.pin();
    assert_eq!(pop(&mut queue, &pin).unwrap(), None);
    driver.offer(5);
    assert_eq!(queue.open(&pin).unwrap().available().unwrap(), 1);
    let (chain, bytes) = pop(&mut queue, &pin).unwrap().unwrap();
    assert_eq!(chain, Chain { head: 5, descriptors: 1, readable: 13, writable: 9 });
    assert_eq!(&bytes, b"to the device\0\0\0\0\0\0\0\0\0");
    assert_eq!(driver.get::<9>(BUFFERS + 0x1000), [0xdd; 9]);
    assert_eq!(pop(&mut queue, &pin).unwrap(), None);

    let mut burst = queue.open(&pin).unwrap();
    assert!(!burst.publish(), "nothing to say");
    burst.complete(&chain, 9);
    assert!(driver.used().is_empty(), "not before it is published");
    assert!(burst.publish());
    assert!(!burst.publish(), "not twice");
    assert_eq!(driver.used(), [(5, 9)]);
    assert_eq!(queue.position(), QueueState { next_avail: 1, next_used: 1 });
}

#[test]
fn chains_are_used_in_whatever_order_and_put_back() {
    let mut driver = Driver::new(4, PLAIN);
    let mut queue = queue(&driver);
    for index in 0..4 {
        let iova = BUFFERS + 16 * u64::from(index);
        driver.put(iova, &[index as u8; 16]);
        driver.descriptor(index, Descriptor { iova, len: 16, flags: 0, next: 0 });
    }
    for head in [2, 0, 3, 1] {
        driver.offer(head);
    }
    let reader = driver.reader();
    let pin = reader.pin();
    let mut burst = queue.open(&pin).unwrap();
    let take = |burst: &mut SplitBurst<'_, '_>| {
        let mut chains = Vec::new();
        while let Some(chain) = burst.pop(|_, _| true).unwrap() {
            chains.push(chain);
        }
        chains
    };
    let all = take(&mut burst);
    assert_eq!(all.iter().map(|chain| chain.head).collect::<Vec<_>>(), [2, 0, 3, 1]);
    burst.put_back(&all[1..]);
    assert_eq!(take(&mut burst), all[1..]);
    burst.put_back(&all[3..]);
    burst.complete(&all[2], 30);
    burst.complete(&all[0], 20);
    burst.publish();
    assert_eq!(driver.used(), [(3, 30), (2, 20)]);
    let mut burst = queue.open(&pin).unwrap();
    assert_eq!(burst.available().unwrap(), 1);
    assert_eq!(take(&mut burst), all[3..]);
}

#[test]
fn no_interrupt_is_heeded_without_event_index_only() {
    for (features, flags, wanted) in [
        (PLAIN, 0, true),
        (PLAIN, 1, false),
        (PLAIN, 0xfffe, true),
        (EVENT, 0, true),
        (EVENT, 1, true),
    ] {
        let mut driver = Driver::new(4, features);
        let mut queue = queue(&driver);
        driver.set_flags(flags);
        driver.set_used_event(0);
        driver.offer(0);
        let reader = driver.reader();
        assert_eq!(serve(&mut queue, &reader.pin(), 1), wanted, "{features:?} {flags:#x}");
    }
}

/// 2.7.7 asks for an interrupt for the batch that writes the used element whose index is
/// `used_event`.
#[test]
fn event_index_asks_for_an_interrupt_exactly_when_it_is_passed() {
    let mut driver = Driver::new(8, EVENT);
    let reader = driver.reader();
    let pin = reader.pin();
    for start in [0u16, 1, 100, 32_765, 32_768, 65_530, 65_535] {
        for batch in 0..=8u16 {
            for distance in -20..20i16 {
                let event = start.wrapping_add_signed(distance);
                let mut queue = queue(&driver)
                    .resume(QueueState { next_avail: start, next_used: start })
                    .unwrap();
                driver.set_available(start.wrapping_add(batch));
                driver.set_used_event(event);
                let wanted = (0..batch).any(|n| start.wrapping_add(n) == event);
                let got = serve(&mut queue, &pin, batch);
                assert_eq!(got, wanted, "{batch} from {start}, event {event}");
            }
        }
    }
}

#[test]
fn notifications_are_asked_for_by_flag() {
    let mut driver = Driver::new(4, PLAIN);
    let mut queue = queue(&driver);
    let reader = driver.reader();
    let pin = reader.pin();
    let mut burst = queue.open(&pin).unwrap();
    burst.disarm();
    assert_eq!(driver.device_flags(), 1);
    assert!(!burst.arm().unwrap());
    assert_eq!(driver.device_flags(), 0);
    burst.disarm();
    // Nobody waits for what comes between the last look and the request.
    driver.offer(0);
    assert!(burst.arm().unwrap());
    burst.disarm();
    assert_eq!(driver.device_flags(), 1);
    assert!(burst.pop(|_, _| true).unwrap().is_some());
    assert!(!burst.arm().unwrap());
    assert_eq!(driver.avail_event(), 0, "not this driver's");
}

#[test]
fn notifications_are_asked_for_by_index() {
    let mut driver = Driver::new(4, EVENT);
    let mut queue =
        queue(&driver).resume(QueueState { next_avail: 65_534, next_used: 65_534 }).unwrap();
    driver.set_available(65_534);
    let reader = driver.reader();
    let pin = reader.pin();
    let mut burst = queue.open(&pin).unwrap();
    for expected in [65_534, 65_535, 0, 1] {
        assert!(!burst.arm().unwrap());
        assert_eq!(driver.avail_event(), expected);
        driver.offer(0);
        assert!(burst.arm().unwrap());
        burst.disarm();
        assert_eq!(driver.avail_event(), expected, "left behind, not touched");
        assert!(burst.pop(|_, _| true).unwrap().is_some());
    }
    assert_eq!(driver.device_flags(), 0, "with event index the flags stay 0 (2.7.10)");
}

#[test]
fn indices_wrap_around() {
    let mut driver = Driver::new(2, PLAIN);
    let mut queue =
        queue(&driver).resume(QueueState { next_avail: 65_530, next_used: 65_530 }).unwrap();
    driver.set_available(65_530);
    driver.put(driver.addresses.device + 2, &65_530u16.to_le_bytes());
    let reader = driver.reader();
    let pin = reader.pin();
    for round in 0..20u16 {
        driver.offer(round % 2);
        assert!(serve(&mut queue, &pin, 1));
        assert_eq!(driver.used_index(), 65_531u16.wrapping_add(round));
    }
    assert_eq!(queue.position(), QueueState { next_avail: 14, next_used: 14 });
}

/// The test covers every size, with each page of the rings anywhere in memory and the rings as
/// badly aligned as they may be.
#[test]
fn rings_of_every_size_over_scattered_pages() {
    for shift in 0..=10 {
        let size = 1u16 << shift;
        let pages: Vec<Option<u64>> =
            (0..64).map(|page| Some(page * 37 % 64 * PAGE_SIZE)).collect();
        let addresses =
            QueueAddresses { size, descriptors: 0x0fd0, driver: 0x7ffa, device: 0xfff4 };
        let mut driver = Driver::with(Guest::at(addresses, EVENT, &pages, Permissions::READ_WRITE));
        let mut queue = queue(&driver);
        let reader = driver.reader();
        let pin = reader.pin();
        for index in 0..size {
            let descriptor =
                Descriptor { iova: 0x2_0000, len: 1 + u32::from(index), flags: 0, next: 0 };
            driver.descriptor(index, descriptor);
        }
        for round in 0..3u16 {
            for index in 0..size {
                driver.offer(size - 1 - index);
            }
            driver.set_used_event(size * round + size - 1);
            queue.prefetch();
            let mut burst = queue.open(&pin).unwrap();
            let mut chains = vec![burst.pop(|_, _| true).unwrap().unwrap()];
            // The mapping of the first chain is remembered, so all others come in one go.
            burst.pop_direct(usize::MAX, Access::Read, |chain, _| chains.push(chain)).unwrap();
            let heads: Vec<_> = chains.iter().map(|chain| (chain.head, chain.readable)).collect();
            let all = (0..size).rev().map(|index| (index, 1 + u32::from(index)));
            assert_eq!(heads, all.collect::<Vec<_>>());
            burst.complete_all(&chains, |n| (u32::from(size) - 1 - n as u32) * 3);
            let expected: Vec<_> = (0..u32::from(size)).rev().map(|n| (n, n * 3)).collect();
            assert_eq!(burst.pop(|_, _| true).unwrap(), None);
            assert!(burst.publish());
            assert!(!burst.arm().unwrap());
            assert_eq!(driver.used(), expected, "size {size}");
            assert_eq!(driver.avail_event(), size * (round + 1));
        }
    }
}

#[test]
fn rings_are_found_again_after_a_change_of_mappings() {
    let mut driver = Driver::new(4, PLAIN);
    let mut queue = queue(&driver);
    let reader = driver.reader();
    driver.offer(0);
    assert!(serve(&mut queue, &reader.pin(), 1));
    // The same IOVAs are elsewhere now: a guest was given other memory there.
    let mut other = Driver::new(4, PLAIN);
    driver.domain.unmap_all();
    assert!(queue.open(&reader.pin()).is_err());
    let all = other.memory.backing(0).unwrap();
    driver.domain.map(0, 0x10_0000, Permissions::READ_WRITE, all).unwrap();
    other.set_available(1);
    other.offer(0);
    assert!(serve(&mut queue, &reader.pin(), 1));
    assert_eq!((driver.used_index(), other.used_index()), (1, 2));
}

#[test]
fn a_pin_of_another_domain_is_not_taken_for_the_queues_own() {
    let (mut mine, other) = (Driver::new(4, PLAIN), Driver::new(4, PLAIN));
    let mut queue = queue(&mine);
    mine.offer(0);
    let (reader, wrong) = (mine.reader(), other.reader());
    assert!(serve(&mut queue, &reader.pin(), 1));
    // Each map and unmap gives a version; domains must not have any in common.
    let pin = wrong.pin();
    assert!(!queue.open(&pin).unwrap().arm().is_ok_and(|more| more));
    assert_eq!(mine.used(), [(0, 0)]);
}

#[test]
fn an_indirect_table_may_follow_a_chain_and_be_larger_than_the_queue() {
    let mut driver = Driver::new(2, INDIRECTS);
    let mut queue = queue(&driver);
    let table = 0x4_0ff8;
    for index in 0..40u16 {
        let flags = if index < 39 { NEXT } else { 0 } | if index < 20 { 0 } else { WRITE };
        let iova = BUFFERS + u64::from(index);
        let descriptor = Descriptor { iova, len: 1, flags, next: index + 1 };
        driver.put(table + 16 * u64::from(index), &descriptor.to_bytes());
        driver.put(iova, &[index as u8]);
    }
    driver.put(BUFFERS + 0x100, b"first");
    let first = Descriptor { iova: BUFFERS + 0x100, len: 5, flags: NEXT, next: 1 };
    // WRITE says nothing about an indirect descriptor (2.7.5.3.2).
    let second = Descriptor { iova: table, len: 640, flags: INDIRECT | WRITE, next: 0 };
    driver.descriptor(0, first);
    driver.descriptor(1, second);
    driver.offer(0);
    let reader = driver.reader();
    let (chain, bytes) = pop(&mut queue, &reader.pin()).unwrap().unwrap();
    assert_eq!(chain, Chain { head: 0, descriptors: 1, readable: 25, writable: 20 });
    let expected: Vec<u8> = b"first".iter().copied().chain(0..40).collect();
    assert_eq!(bytes, expected);
}

/// The way in which a buffer of a random chain lies in memory.
#[derive(Clone, Debug)]
struct Buffer {
    at: u64,
    len: u32,
}

fn chains() -> impl Strategy<Value = Vec<(Vec<Buffer>, usize, Option<usize>, bool)>> {
    let buffer = (0..0x2_0000u64, prop_oneof![Just(0u32), 1..200u32, 4000..9000u32])
        .prop_map(|(at, len)| Buffer { at: BUFFERS + at, len });
    // The values are the buffers, how many of them are device-readable, where the indirect table
    // begins, if anywhere, and completed or put back.
    vec(
        (vec(buffer, 1..6), 0..6usize, prop::option::of(0..5usize), prop::bool::weighted(0.8)),
        1..40,
    )
}

proptest! {
    /// The device sees the bytes of any chain that a driver makes by the rules, in order, and gives
    /// it back.
    #[test]
    fn chains_carry_their_buffers(
        chains in chains(),
        shift in 4..8u16,
        event_index in any::<bool>(),
        scatter in 0..3u64,
        start in prop_oneof![Just(0u16), 65_000..=65_535u16],
    ) {
        // The pages are contiguous, every second page of the file, or backwards.
        let pages: Vec<Option<u64>> = (0..256)
            .map(|page| match scatter { 0 => page, 1 => 2 * page, _ => 255 - page })
            .map(|page| Some(PAGE_SIZE * page))
            .collect();
        let features = RingFeatures { event_index, indirect: true, ..PLAIN };
        let addresses = QueueAddresses {
            size: 1 << shift,
            descriptors: 0x1_0ff0,
            driver: 0x2_0002,
            device: 0x3_0004,
        };
        let guest = Guest::at(addresses, features, &pages, Permissions::READ_WRITE);
        let mut driver = Driver::with(guest);
        let reader = driver.reader();
        let noise: Vec<u8> = (0..0x3_0000u32).map(|at| (at ^ at >> 8) as u8).collect();
        driver.put(BUFFERS, &noise);
        driver.set_available(start);
        driver.put(addresses.device + 2, &start.to_le_bytes());
        let state = QueueState { next_avail: start, next_used: start };
        let mut queue = SplitQueue::new(addresses, features).unwrap().resume(state).unwrap();
        let mut used = 0u16;
        for (buffers, readable, table, completes) in chains {
            let readable = readable.min(buffers.len());
            let flags = |index: usize| {
                let next = if index + 1 < buffers.len() { NEXT } else { 0 };
                next | if index < readable { 0 } else { WRITE }
            };
            let direct = table.unwrap_or(buffers.len()).min(buffers.len());
            for (index, buffer) in buffers.iter().enumerate() {
                let at = if index < direct { index } else { index - direct };
                let descriptor = Descriptor {
                    iova: buffer.at,
                    len: buffer.len,
                    flags: flags(index),
                    next: (at + 1) as u16,
                };
                if index < direct {
                    driver.descriptor(at as u16, descriptor);
                } else {
                    driver.put(0x6_0ff8 + 16 * at as u64, &descriptor.to_bytes());
                }
            }
            if direct < buffers.len() {
                let len = 16 * (buffers.len() - direct) as u32;
                let descriptor = Descriptor { iova: 0x6_0ff8, len, flags: INDIRECT, next: 0 };
                driver.descriptor(direct as u16, descriptor);
            }
            driver.offer(0);
            let pin = reader.pin();
            let mut burst = queue.open(&pin).unwrap();
            let mut seen = [Vec::new(), Vec::new()];
            let chain = burst.pop(|slice, access| {
                let mut piece = vec![0; slice.len()];
                slice.read(&mut piece);
                seen[usize::from(access == Access::Write)].extend(piece);
                true
            });
            let chain = chain.unwrap().unwrap();
            let expected = |range: &[Buffer]| -> Vec<u8> {
                range.iter().flat_map(|b| {
                    let at = (b.at - BUFFERS) as usize;
                    noise[at..at + b.len as usize].to_vec()
                }).collect()
            };
            let (read, write) = buffers.split_at(readable);
            prop_assert!(seen[0] == expected(read) && seen[1] == expected(write));
            prop_assert_eq!(chain.readable as usize, seen[0].len());
            prop_assert_eq!(chain.writable as usize, seen[1].len());
            if !completes {
                burst.put_back(&[chain]);
                let again = burst.pop(|_, _| true).unwrap().unwrap();
                prop_assert_eq!(again, chain);
            }
            burst.complete(&chain, chain.writable);
            burst.publish();
            used += 1;
            prop_assert_eq!(driver.used_index(), start.wrapping_add(used));
            prop_assert_eq!(burst.available().unwrap(), 0);
        }
    }
}
