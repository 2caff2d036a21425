//! These tests check VIRTIO_F_IN_ORDER (virtio 1.3, 2.7.9 and 2.8.8): which used entries are
//! written and which are left out.

#![allow(clippy::unwrap_used, reason = "a test may fail so")]

use manifold_testing::{Descriptor, Driver, Memory, NEXT, PackedDriver, UsedBuffer, WRITE};
use manifold_virtio::ring::{Burst, PackedQueue, QueueState, RingFeatures, SplitQueue};
use proptest::collection::vec;
use proptest::prelude::*;

const SPLIT: RingFeatures =
    RingFeatures { event_index: false, indirect: false, packed: false, in_order: true };
const PACKED: RingFeatures = RingFeatures { packed: true, ..SPLIT };
const BUFFERS: u64 = 0x8_0000;
const UNTOUCHED: [u8; 8] = [0xee; 8];

fn buffer(flags: u16) -> Descriptor {
    Descriptor { iova: BUFFERS, len: 100, flags, next: 0 }
}

/// A driver of a split queue may rely on one element of each batch: the first in the ring, with the
/// last head. `together` chains are completed in one go.
fn split_batches(writable: &[bool], begin: u16, together: usize) {
    const SIZE: u16 = 64;
    let mut driver = Driver::new(SIZE, SPLIT);
    let begin_state = QueueState { next_avail: begin, next_used: begin };
    let mut queue = SplitQueue::new(driver.addresses, SPLIT).unwrap().resume(begin_state).unwrap();
    driver.set_available(begin);
    let element = |index: u16| driver_element(begin.wrapping_add(index));
    for slot in 0..SIZE {
        driver.put(driver.addresses.device + 4 + 8 * u64::from(slot), &UNTOUCHED);
    }
    for (index, writes) in (0..).zip(writable) {
        driver.descriptor(index, buffer(if *writes { WRITE } else { 0 }));
        driver.offer(index);
    }
    let reader = driver.reader();
    let pin = reader.pin();
    let mut burst = queue.open(&pin).unwrap();
    let chains: Vec<_> =
        writable.iter().map(|_| burst.pop(|_, _| true).unwrap().unwrap()).collect();
    for (chains, writable) in chains.chunks(together).zip(writable.chunks(together)) {
        let written = |n: usize| if writable[n] { 50 + u32::from(chains[n].head) } else { 0 };
        match chains {
            [chain] => burst.complete(chain, written(0)),
            _ => burst.complete_all(chains, written),
        }
    }
    burst.publish();
    let count = writable.len() as u16;
    assert_eq!(driver.used_index(), begin.wrapping_add(count));
    let mut index = 0;
    while index < count {
        let run = writable[usize::from(index)..].iter().take_while(|writes| !**writes).count();
        let read = |index| driver.get::<8>(driver.addresses.device + element(index));
        let expected = |head: u16, len: u32| u64::from(head) | u64::from(len) << 32;
        if run == 0 {
            let expected = expected(index, 50 + u32::from(index));
            assert_eq!(u64::from_le_bytes(read(index)), expected, "one of its own");
            index += 1;
        } else {
            let last = index + run as u16 - 1;
            assert_eq!(
                u64::from_le_bytes(read(index)),
                expected(last, 0),
                "the first of the batch"
            );
            for skipped in index + 1..=last {
                assert_eq!(read(skipped), UNTOUCHED, "left out");
            }
            index = last + 1;
        }
    }
}

/// Returns the offset of a used element in the used ring of 64.
fn driver_element(index: u16) -> u64 {
    4 + 8 * u64::from(index % 64)
}

#[test]
fn a_split_batch_is_its_first_element() {
    for together in [1, 2, 5] {
        split_batches(&[false; 5], 0, together);
        split_batches(&[false], 0, together);
        split_batches(&[true; 5], 0, together);
        let mixed = [false, false, true, false, true, true, false, false];
        split_batches(&mixed, 65_533, together);
    }
}

proptest! {
    #[test]
    fn split_batches_of_any_kind(
        writable in vec(any::<bool>(), 1..64),
        begin in any::<u16>(),
        together in 1..9usize,
    ) {
        split_batches(&writable, begin, together);
    }

    /// The driver model skips what was left out by the sizes of its lists, as 2.8.8 says.
    #[test]
    fn packed_batches_of_any_kind(
        chains in vec((1..4usize, any::<bool>()), 1..60),
        size in 7..30u16,
        burst_size in 1..9usize,
        together in 1..5usize,
    ) {
        let mut driver = PackedDriver::new(size, PACKED);
        let mut queue = PackedQueue::new(driver.guest.addresses, PACKED).unwrap();
        let reader = driver.guest.reader();
        let pin = reader.pin();
        let mut waiting = chains.iter().peekable();
        while waiting.peek().is_some() {
            let mut offered = Vec::new();
            while let Some((count, writes)) =
                waiting.next_if(|(count, _)| *count as u16 <= driver.free())
            {
                let flags = if *writes { WRITE } else { 0 };
                let buffers: Vec<_> = (0..*count).map(|_| buffer(flags)).collect();
                offered.push((driver.offer(&buffers).unwrap(), *writes));
            }
            for batch in offered.chunks(burst_size) {
                let mut burst = queue.open(&pin).unwrap();
                let taken: Vec<_> =
                    batch.iter().map(|_| burst.pop(|_, _| true).unwrap().unwrap()).collect();
                for (chains, batch) in taken.chunks(together).zip(batch.chunks(together)) {
                    let written = |n: usize| if batch[n].1 { 1 + u32::from(batch[n].0) } else { 0 };
                    let ids = batch.iter().map(|(id, _)| *id);
                    prop_assert!(chains.iter().map(|chain| chain.head).eq(ids));
                    match chains {
                        [chain] => burst.complete(chain, written(0)),
                        _ => burst.complete_all(chains, written),
                    }
                }
                prop_assert!(driver.used().is_empty());
                burst.publish();
                let used = driver.used();
                // A frame that was sent has an entry only where a batch ends.
                let expected: Vec<_> = batch.iter().enumerate().map(|(index, (id, writes))| {
                    let ends = batch.get(index + 1).is_none_or(|(_, writes)| *writes);
                    let written = match (*writes, ends) {
                        (true, _) => Some(1 + u32::from(*id)),
                        (false, true) => Some(0),
                        (false, false) => None,
                    };
                    UsedBuffer { id: *id, written }
                }).collect();
                prop_assert_eq!(used, expected);
                let here = driver.last_used.bits();
                prop_assert_eq!(queue.position().next_used, here);
            }
        }
    }
}

/// A chain with both kinds of buffers has written something: the control queue's answers.
#[test]
fn a_chain_that_is_answered_has_its_own_entry() {
    let mut driver = Driver::new(8, SPLIT);
    let mut queue = SplitQueue::new(driver.addresses, SPLIT).unwrap();
    for head in [0u16, 2] {
        driver.descriptor(head, Descriptor { next: head + 1, ..buffer(NEXT) });
        driver.descriptor(head + 1, buffer(WRITE));
        driver.offer(head);
    }
    let reader = driver.reader();
    let pin = reader.pin();
    let mut burst = queue.open(&pin).unwrap();
    while let Some(chain) = burst.pop(|_, _| true).unwrap() {
        burst.complete(&chain, 1);
    }
    burst.publish();
    assert_eq!(driver.used(), [(0, 1), (2, 1)]);
}

#[test]
fn a_batch_that_is_published_is_over() {
    let mut driver = Driver::new(8, SPLIT);
    let mut queue = SplitQueue::new(driver.addresses, SPLIT).unwrap();
    let reader = driver.reader();
    let pin = reader.pin();
    for index in 0..4 {
        driver.descriptor(index, buffer(0));
        driver.offer(index);
        let mut burst = queue.open(&pin).unwrap();
        let chain = burst.pop(|_, _| true).unwrap().unwrap();
        burst.complete(&chain, 0);
        burst.publish();
        assert_eq!(driver.used(), [(u32::from(index), 0)]);
    }
}
