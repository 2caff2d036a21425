//! These tests send any traffic over packed rings: what a driver that keeps to the standard offers
//! is what the device sees, and what the device gives back is what the driver finds, whatever the
//! lengths, laps, tables, batches and pages.

#![allow(clippy::unwrap_used, reason = "a test may fail so")]

use manifold_dma::{Access, PAGE_SIZE, Permissions};
use manifold_testing::{
    DESC, Descriptor, Guest, INDIRECT, Memory, PackedDriver, Place, UsedBuffer, WRITE, tight,
};
use manifold_virtio::ring::{Burst, PackedQueue, QueueState, RingFeatures};
use proptest::collection::vec;
use proptest::prelude::*;

const BUFFERS: u64 = 0x8_0000;
const TABLES: u64 = 0x5_0ff8;
const TABLE: u64 = 16 * 6;

#[derive(Clone, Debug)]
struct Offer {
    /// Offset and length of each buffer.
    buffers: Vec<(u64, u32)>,
    /// Number of buffers that the device may only read.
    readable: usize,
    indirect: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Offer(Offer),
    Take,
    /// The device completes the chain at this place among those taken; with VIRTIO_F_IN_ORDER the
    /// first.
    Complete(usize),
    /// The device puts back this many of those taken last.
    PutBack(usize),
    Publish,
    Arm,
}

fn step() -> impl Strategy<Value = Step> {
    let buffer = (0..0x2_0000u64, prop_oneof![Just(0u32), 1..200u32, 4000..9000u32]);
    let offer =
        (vec(buffer, 1..6), 0..6usize, any::<bool>()).prop_map(|(buffers, readable, indirect)| {
            Step::Offer(Offer { readable: readable.min(buffers.len()), buffers, indirect })
        });
    prop_oneof![
        6 => offer,
        6 => Just(Step::Take),
        5 => (0..5usize).prop_map(Step::Complete),
        1 => (1..4usize).prop_map(Step::PutBack),
        2 => Just(Step::Publish),
        1 => Just(Step::Arm),
    ]
}

/// The bytes that the device must see of a chain.
#[derive(Clone, Debug)]
struct Expected {
    id: u16,
    descriptors: u16,
    seen: [Vec<u8>; 2],
}

proptest! {
    #[test]
    fn any_traffic(
        steps in vec(step(), 1..150),
        size in 1..40u16,
        begin in (0..40u16, any::<bool>()),
        scatter in 0..3u64,
        in_order in any::<bool>(),
        event_index in any::<bool>(),
        direct in 0..3usize,
    ) {
        let features = RingFeatures { event_index, indirect: true, packed: true, in_order };
        // The pages are contiguous, every second page of the file, or backwards.
        let pages: Vec<Option<u64>> = (0..256)
            .map(|page| match scatter { 0 => page, 1 => 2 * page, _ => 255 - page })
            .map(|page| Some(PAGE_SIZE * page))
            .collect();
        let guest = Guest::at(tight(size), features, &pages, Permissions::READ_WRITE);
        let noise: Vec<u8> = (0..0x3_0000u32).map(|at| (at ^ at >> 8) as u8).collect();
        guest.put(BUFFERS, &noise);
        let mut driver = PackedDriver::with(guest);
        let begin = Place { index: begin.0 % size, wrap: begin.1 };
        driver.begin_at(begin);
        let state = QueueState { next_avail: begin.bits(), next_used: begin.bits() };
        let queue = PackedQueue::new(driver.guest.addresses, features).unwrap();
        let mut queue = queue.resume(state).unwrap();
        let reader = driver.guest.reader();

        let mut waiting: Vec<Expected> = Vec::new();
        let mut taken = Vec::new();
        let mut completed: Vec<(u16, u32, u16)> = Vec::new();
        let mut newest_taken = 0;
        for step in steps {
            let pin = reader.pin();
            let mut burst = queue.open(&pin).unwrap();
            prop_assert_eq!(burst.available().unwrap() > 0, !waiting.is_empty());
            match step {
                Step::Offer(Offer { buffers, readable, indirect }) => {
                    let indexed = buffers.iter().enumerate();
                    let list: Vec<Descriptor> = indexed.map(|(index, (at, len))| {
                        let flags = if index < readable { 0 } else { WRITE };
                        Descriptor { iova: BUFFERS + at, len: *len, flags, next: 0x5a5a }
                    }).collect();
                    let offered = if indirect {
                        let at = TABLES + TABLE * u64::from(driver.next_avail.index);
                        let len = 16 * list.len() as u32;
                        if driver.free() == 0 { continue }
                        for (entry, descriptor) in (0..).zip(&list) {
                            driver.guest.put(at + 16 * entry, &descriptor.to_packed_bytes());
                        }
                        driver.offer(&[Descriptor { iova: at, len, flags: INDIRECT, next: 0 }])
                    } else {
                        driver.offer(&list)
                    };
                    let Some(id) = offered else { continue };
                    let hold = |range: &[(u64, u32)]| -> Vec<u8> {
                        let bytes = |(at, len): &(u64, u32)| {
                            noise[*at as usize..*at as usize + *len as usize].to_vec()
                        };
                        range.iter().flat_map(bytes).collect()
                    };
                    let (read, write) = buffers.split_at(readable);
                    let descriptors = if indirect { 1 } else { buffers.len() as u16 };
                    waiting.push(Expected { id, descriptors, seen: [hold(read), hold(write)] });
                }
                Step::Take => {
                    // Some chains are taken in one go, if they are of the simple kind and where
                    // they are is known.
                    let mut simple = Vec::new();
                    for access in [Access::Read, Access::Write] {
                        burst.pop_direct(direct, access, |chain, slice| {
                            let mut piece = vec![0; slice.len()];
                            slice.read(&mut piece);
                            simple.push((chain, access, piece));
                        }).unwrap();
                    }
                    for (chain, access, piece) in simple {
                        let expected = waiting.remove(0);
                        prop_assert_eq!((chain.head, 1), (expected.id, expected.descriptors));
                        let seen =
                            if access == Access::Read { [piece, vec![]] } else { [vec![], piece] };
                        prop_assert!(seen == expected.seen);
                        taken.push((chain, expected));
                        newest_taken += 1;
                    }
                    let mut seen = [Vec::new(), Vec::new()];
                    let chain = burst.pop(|slice, access| {
                        let mut piece = vec![0; slice.len()];
                        slice.read(&mut piece);
                        seen[usize::from(access == Access::Write)].extend(piece);
                        true
                    }).unwrap();
                    prop_assert_eq!(chain.is_some(), !waiting.is_empty());
                    let Some(chain) = chain else { continue };
                    let expected = waiting.remove(0);
                    prop_assert_eq!(chain.head, expected.id);
                    prop_assert_eq!(chain.descriptors, expected.descriptors);
                    prop_assert_eq!(chain.readable as usize, seen[0].len());
                    prop_assert_eq!(chain.writable as usize, seen[1].len());
                    prop_assert!(seen == expected.seen);
                    taken.push((chain, expected));
                    newest_taken += 1;
                }
                Step::Complete(index) => {
                    if taken.is_empty() { continue }
                    let index = if in_order { 0 } else { index % taken.len() };
                    // The chains after it were taken later and can still be put back.
                    newest_taken = newest_taken.min(taken.len() - 1 - index);
                    let (chain, _) = taken.remove(index);
                    let written = chain.writable / 2;
                    burst.complete(&chain, written);
                    completed.push((chain.head, written, u16::from(chain.writable == 0)));
                }
                Step::PutBack(count) => {
                    let back = taken.split_off(taken.len() - count.min(newest_taken));
                    newest_taken -= back.len();
                    let chains: Vec<_> = back.iter().map(|(chain, _)| *chain).collect();
                    burst.put_back(&chains);
                    waiting.splice(0..0, back.into_iter().map(|(_, expected)| expected));
                }
                Step::Publish => {
                    prop_assert!(driver.used().is_empty(), "before it is published");
                    let here = driver.last_used.bits();
                    driver.set_event(here, DESC);
                    let interrupt = burst.publish();
                    prop_assert_eq!(interrupt, !completed.is_empty());
                    let used = driver.used();
                    let ends =
                        |index: usize| completed.get(index + 1).is_none_or(|next| next.2 == 0);
                    let indexed = completed.iter().enumerate();
                    let expected: Vec<UsedBuffer> = indexed.map(|(index, (id, written, sent))| {
                        let left_out = in_order && *sent == 1 && !ends(index);
                        UsedBuffer { id: *id, written: (!left_out).then_some(*written) }
                    }).collect();
                    prop_assert_eq!(used, expected);
                    completed.clear();
                }
                Step::Arm => {
                    prop_assert_eq!(burst.arm().unwrap(), !waiting.is_empty());
                    burst.disarm();
                }
            }
        }
        let held: u16 = taken.iter().map(|(chain, _)| chain.descriptors).sum();
        let mut place = Place::from(queue.position().next_used);
        place.step(held, size);
        prop_assert_eq!(queue.position().next_avail, place.bits());
    }
}
