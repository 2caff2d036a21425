//! These tests run packed rings against a device that does one thing at a time, right or wrong.

use super::*;
use manifold_guest::virtio::spec::packed;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

const SIZE: u16 = 8;
const IOVA: u64 = 0x10_0000;

/// The device's side of a packed virtqueue.
struct Device<'a> {
    arena: &'a Arena,
    layout: Layout,
    /// Positions of the device, with their wrap counters.
    next: (u16, bool),
    next_used: (u16, bool),
    /// Buffers that were taken from the ring and not used yet.
    has: VecDeque<u16>,
}

fn both(arena: &Arena, features: u64, assume_order: bool) -> (Ring<'_>, Device<'_>) {
    let layout = Layout::alloc_packed(arena, SIZE).unwrap();
    let buffer = |n| Buffer { iova: IOVA + n, len: 100 + n as u32, writable: true };
    let buffers: Vec<_> = (0..u64::from(SIZE)).map(buffer).collect();
    let features = features | feature::RING_PACKED;
    let ring = Ring::new(arena, layout, features, &buffers, assume_order).unwrap();
    let start = (0, true);
    (ring, Device { arena, layout, next: start, next_used: start, has: VecDeque::new() })
}

fn after((position, wrap): (u16, bool), count: u16) -> (u16, bool) {
    let end = position + count;
    if end >= SIZE { (end - SIZE, !wrap) } else { (end, wrap) }
}

impl Device<'_> {
    fn at(&self, position: u16) -> usize {
        self.layout.desc + packed::DESC * usize::from(position)
    }

    /// Takes all that is available, each of which must be described as its buffer is.
    fn fetch(&mut self) {
        loop {
            let (at, wrap) = (self.at(self.next.0), self.next.1);
            let flags = self.arena.load_u16(at + 14, Ordering::Acquire).unwrap();
            if [flags & packed::F_AVAIL != 0, flags & packed::F_USED != 0] != [wrap, !wrap] {
                return;
            }
            let id = self.arena.load_u16(at + 12, Ordering::Relaxed).unwrap();
            assert_eq!(u64::from(self.arena.load_u32(at).unwrap()), IOVA + u64::from(id));
            assert_eq!(self.arena.load_u32(at + 8).unwrap(), 100 + u32::from(id));
            self.next = after(self.next, 1);
            self.has.push_back(id);
        }
    }

    /// Uses a buffer in the name of `count` of them. Of the descriptor nothing stays as it was.
    fn give_back(&mut self, id: u16, count: u16) {
        let flags = if self.next_used.1 { packed::F_AVAIL | packed::F_USED } else { 0 };
        let word = u64::from(id) << 32 | u64::from(flags) << 48 | 60;
        let at = self.at(self.next_used.0);
        self.arena.store_u64(at, u64::MAX).unwrap();
        self.arena.store_u64(at + 8, word).unwrap();
        self.next_used = after(self.next_used, count);
    }
}

proptest! {
    /// Buffers come back right whatever is given, used and taken in whatever portions: all that
    /// went comes back, once.
    #[test]
    fn what_goes_comes_back(
        in_order: bool,
        assume_order: bool,
        steps in prop::collection::vec((0..=SIZE, 0..=SIZE, 0..=SIZE, 0..=SIZE), 1..60),
    ) {
        let arena = Arena::new(4096, 0).unwrap();
        let features = if in_order { feature::IN_ORDER } else { 0 };
        let (mut ring, mut device) = both(&arena, features, assume_order);
        let mut returned = 0;
        for (give, used, swap, take) in steps {
            ring.post(give.min(ring.free()));
            device.fetch();
            if !in_order && !assume_order && !device.has.is_empty() {
                // The device keeps no order at all.
                let other = usize::from(swap) % device.has.len();
                device.has.swap(0, other);
            }
            for _ in 0..used.min(device.has.len() as u16) {
                let id = device.has.pop_front().unwrap();
                device.give_back(id, 1);
                returned += 1;
            }
            let expected = take.min(returned);
            prop_assert_eq!(ring.reclaim(take).unwrap(), expected);
            returned -= expected;
            prop_assert_eq!(ring.free(), SIZE - device.has.len() as u16 - returned);
        }
    }
}

#[test]
fn in_order_one_descriptor_stands_for_several() {
    let arena = Arena::new(4096, 0).unwrap();
    let (mut ring, mut device) = both(&arena, feature::IN_ORDER, true);
    // The batches end within the ring, at its end, and beyond it.
    for batch in [3, 5, 6, 4, 6] {
        ring.post(batch);
        device.fetch();
        let last = device.has.drain(..).next_back().unwrap();
        device.give_back(last, batch);
        assert_eq!(ring.reclaim(SIZE).unwrap(), batch);
        assert_eq!(ring.free(), SIZE);
        assert_eq!(ring.reclaim(SIZE).unwrap(), 0);
    }
}

#[test]
fn a_device_that_breaks_the_rules_is_found_out() {
    for (features, assume_order, used) in [
        (0, true, &[1][..]),
        (0, true, &[0, 2]),
        (0, true, &[0, 1, 2, 3, 0xffff]),
        // The device uses buffers that it does not have, and one that it gave back already.
        (0, false, &[7]),
        (0, false, &[2, 2]),
        (feature::IN_ORDER, true, &[5]),
        (feature::IN_ORDER, true, &[0, 0]),
        (feature::IN_ORDER, false, &[9]),
    ] {
        let arena = Arena::new(4096, 0).unwrap();
        let (mut ring, mut device) = both(&arena, features, assume_order);
        ring.post(5);
        used.iter().for_each(|id| device.give_back(*id, 1));
        assert!(ring.reclaim(SIZE).is_err(), "{features:#x} {assume_order} {used:?}");
    }
}

#[test]
fn what_the_device_does_not_have_is_not_taken() {
    let arena = Arena::new(4096, 0).unwrap();
    let (mut ring, mut device) = both(&arena, 0, true);
    ring.post(2);
    for id in 0..4 {
        device.give_back(id, 1);
    }
    assert_eq!(ring.reclaim(SIZE).unwrap(), 2);
    assert_eq!(ring.free(), SIZE);
}
