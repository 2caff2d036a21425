//! These tests run the driver's side against a model of the device's side.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// A device that does what section 2.7 says, one chain at a time.
struct Model {
    arena: Arc<Arena>,
    layout: Layout,
    avail: u16,
    used: u16,
    held: Vec<u16>,
}

impl Model {
    fn new(arena: &Arc<Arena>, layout: Layout) -> Self {
        Self { arena: arena.clone(), layout, avail: 0, used: 0, held: Vec::new() }
    }

    fn u16_at(&self, offset: usize) -> u16 {
        let mut data = [0; 2];
        self.arena.read(offset, &mut data).unwrap();
        u16::from_le_bytes(data)
    }

    fn used_event(&self) -> u16 {
        self.u16_at(self.layout.avail + 4 + 2 * usize::from(self.layout.size))
    }

    /// Takes everything that is available.
    fn pop_all(&mut self) -> Vec<u16> {
        let idx = self.u16_at(self.layout.avail + 2);
        let mut heads = Vec::new();
        while self.avail != idx {
            let slot = usize::from(self.avail % self.layout.size);
            heads.push(self.u16_at(self.layout.avail + 4 + 2 * slot));
            self.avail = self.avail.wrapping_add(1);
        }
        self.held.extend(&heads);
        heads
    }

    /// Asks to be told of the next available chain.
    fn want_kick(&self) {
        let at = self.layout.used + 4 + 8 * usize::from(self.layout.size);
        self.arena.write(at, &self.avail.to_le_bytes()).unwrap();
    }

    /// Returns a chain it holds. True where the driver wants an interrupt for it.
    fn put_used(&mut self, head: u16, len: u32) -> bool {
        let at = self.layout.used + 4 + 8 * usize::from(self.used % self.layout.size);
        self.arena.write(at, &u32::from(head).to_le_bytes()).unwrap();
        self.arena.write(at + 4, &len.to_le_bytes()).unwrap();
        let old = self.used;
        self.used = old.wrapping_add(1);
        self.arena.write(self.layout.used + 2, &self.used.to_le_bytes()).unwrap();
        self.used_event() == old
    }
}

fn queue(size: u16, event_idx: bool) -> (Queue, Model) {
    let arena = Arc::new(Arena::new(1 << 20, 0x1000_0000).unwrap());
    let layout = Layout::alloc(&arena, size).unwrap();
    let model = Model::new(&arena, layout);
    (Queue::new(arena, layout, if event_idx { feature::EVENT_IDX } else { 0 }), model)
}

/// Moves both sides to just before their indices wrap.
fn near_the_wrap(queue: &mut Queue, model: &mut Model) {
    let start = 0xfffa;
    let Ring::Split(ring) = &mut queue.ring else { panic!("a split queue") };
    ring.begin_at(start);
    (model.avail, model.used) = (start, start);
    queue.force_avail_idx(start).unwrap();
    model.arena.store_u16(model.layout.used + 2, start, Ordering::Relaxed).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u16),
    OfferMany(Vec<u16>),
    Publish,
    DevicePops,
    DeviceUses(prop::sample::Index),
    Take,
    TakeMany(usize),
    Arm,
    Disarm,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            (0u16..8).prop_map(Step::Offer),
            prop::sample::subsequence((0u16..8).collect::<Vec<_>>(), 0..8)
                .prop_map(Step::OfferMany),
            Just(Step::Publish),
            Just(Step::DevicePops),
            any::<prop::sample::Index>().prop_map(Step::DeviceUses),
            Just(Step::Take),
            (0usize..9).prop_map(Step::TakeMany),
            Just(Step::Arm),
            Just(Step::Disarm),
        ],
        1..200,
    )
}

proptest! {
    /// Offered chains arrive once and in order, used chains come back once and in order, and
    /// neither side sleeps while the other has something for it.
    #[test]
    fn nothing_is_lost_or_doubled(steps in steps(), wrap: bool) {
        let (mut queue, mut model) = queue(8, true);
        if wrap {
            near_the_wrap(&mut queue, &mut model);
        }
        model.want_kick();
        queue.disarm().unwrap();
        let mut free = [true; 8];
        let (mut offered, mut published) = (Vec::new(), Vec::new());
        let mut returned = std::collections::VecDeque::new();
        let (mut device_awake, mut armed) = (false, false);
        for step in steps {
            match step {
                Step::Offer(head) => {
                    let is_free = std::mem::replace(&mut free[usize::from(head)], false);
                    prop_assert_eq!(queue.offer(head).is_ok(), is_free);
                    if is_free {
                        offered.push(head);
                    }
                }
                Step::OfferMany(mut heads) => {
                    heads.retain(|head| free[usize::from(*head)]);
                    heads.iter().for_each(|head| free[usize::from(*head)] = false);
                    queue.offer_many(&heads).unwrap();
                    offered.extend(heads);
                }
                Step::Publish => {
                    let kick = queue.publish().unwrap();
                    if !offered.is_empty() && !device_awake {
                        prop_assert!(kick, "the device sleeps and was not told");
                        device_awake = true;
                    }
                    published.append(&mut offered);
                }
                Step::DevicePops => {
                    prop_assert_eq!(model.pop_all(), std::mem::take(&mut published));
                    model.want_kick();
                    device_awake = false;
                }
                Step::DeviceUses(which) => {
                    if !model.held.is_empty() {
                        let head = model.held.swap_remove(which.index(model.held.len()));
                        let interrupt = model.put_used(head, u32::from(head) + 100);
                        returned.push_back(head);
                        if armed {
                            prop_assert!(interrupt, "the driver sleeps and was not told");
                            armed = false;
                        } else {
                            prop_assert!(!interrupt, "an interrupt that nobody asked for");
                        }
                    }
                }
                Step::Take => {
                    let used = queue.take().unwrap();
                    let expected = returned.pop_front();
                    prop_assert_eq!(used.map(|u| u.head), expected);
                    if let Some(used) = used {
                        prop_assert_eq!(used.len, u32::from(used.head) + 100);
                        free[usize::from(used.head)] = true;
                        // The interrupt that was asked for is for the next chain, not this one.
                        queue.disarm().unwrap();
                        armed = false;
                    }
                }
                Step::TakeMany(room) => {
                    let mut out = [Used::default(); 8];
                    let used = queue.take_many(&mut out[..room.min(8)]).unwrap();
                    prop_assert!(used.len() <= room);
                    prop_assert!(!used.is_empty() || room == 0 || returned.is_empty());
                    for used in used {
                        prop_assert_eq!(Some(used.head), returned.pop_front());
                        prop_assert_eq!(used.len, u32::from(used.head) + 100);
                        free[usize::from(used.head)] = true;
                    }
                    if !used.is_empty() {
                        queue.disarm().unwrap();
                        armed = false;
                    }
                }
                Step::Arm => {
                    let pending = queue.arm().unwrap();
                    prop_assert_eq!(pending, !returned.is_empty());
                    armed = !pending;
                    if pending {
                        queue.disarm().unwrap();
                    }
                }
                Step::Disarm => {
                    queue.disarm().unwrap();
                    armed = false;
                }
            }
        }
    }
}

#[test]
fn without_event_idx_the_flags_count() {
    let (mut queue, model) = queue(4, false);
    queue.offer(0).unwrap();
    assert!(queue.publish().unwrap());
    model.arena.write(model.layout.used, &1u16.to_le_bytes()).unwrap();
    queue.offer(1).unwrap();
    assert!(!queue.publish().unwrap(), "the device said VRING_USED_F_NO_NOTIFY");
    queue.disarm().unwrap();
    assert_eq!(model.u16_at(model.layout.avail), 1);
    assert!(!queue.arm().unwrap());
    assert_eq!(model.u16_at(model.layout.avail), 0);
}

#[test]
fn a_lying_device_is_found_out() {
    let (mut queue, mut model) = queue(4, true);
    queue.offer(2).unwrap();
    queue.publish().unwrap();
    model.pop_all();
    model.put_used(1, 0);
    assert!(matches!(queue.take(), Err(Error::Device(_))), "a head it was not given");
    let mut out = [Used::default(); 4];
    assert!(matches!(queue.take_many(&mut out), Err(Error::Device(_))), "likewise");
    assert!(queue.offer_many(&[0, 2]).is_err(), "a head that the device still has");

    let (mut queue, mut model) = self::queue(4, true);
    model.put_used(9, 0);
    assert!(matches!(queue.take(), Err(Error::Device(_))), "a head out of range");

    let (mut queue, model) = self::queue(4, true);
    model.arena.write(model.layout.used + 2, &5u16.to_le_bytes()).unwrap();
    assert!(matches!(queue.take(), Err(Error::Device(_))), "more used than there are");
}

#[test]
fn descriptors_are_laid_out_as_the_specification_says() {
    let (mut queue, model) = queue(4, true);
    queue
        .set_descriptor(
            1,
            Descriptor { iova: 0x1122_3344_5566_7788, len: 0x99aa_bbcc, flags: 0x3, next: 0x2 },
        )
        .unwrap();
    let mut bytes = [0; 16];
    model.arena.read(model.layout.desc + 16, &mut bytes).unwrap();
    assert_eq!(
        bytes,
        [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xcc, 0xbb, 0xaa, 0x99, 3, 0, 2, 0]
    );
    assert_eq!((model.layout.desc % 16, model.layout.avail % 2, model.layout.used % 4), (0, 0, 0));
}

#[test]
fn sizes_that_the_specification_forbids() {
    let arena = Arena::new(1 << 20, 0).unwrap();
    for size in [0, 3, 100] {
        assert!(Layout::alloc(&arena, size).is_err(), "{size}");
    }
    assert!(Layout::alloc(&arena, 32768).is_ok());
}

/// A device that does what section 2.8 says.
struct PackedModel {
    arena: Arc<Arena>,
    layout: Layout,
    next: (u16, bool),
    used: (u16, bool),
    /// Chains that it holds: identity, addresses, entries.
    held: std::collections::VecDeque<(u16, Vec<u64>)>,
}

impl PackedModel {
    fn step((index, wrap): (u16, bool), count: u16, size: u16) -> (u16, bool) {
        if index + count >= size { (index + count - size, !wrap) } else { (index + count, wrap) }
    }

    fn entry(&self, index: u16) -> (u64, u32, u16, u16) {
        let mut bytes = [0; 16];
        self.arena.read(self.layout.desc + 16 * usize::from(index), &mut bytes).unwrap();
        let [a, b] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
        (a, b as u32, (b >> 32) as u16, (b >> 48) as u16)
    }

    /// Takes all chains that are available.
    fn pop_all(&mut self) {
        let mut chain = Vec::new();
        loop {
            let (iova, _, id, flags) = self.entry(self.next.0);
            let (avail, used) = (flags & 1 << 7 != 0, flags & 1 << 15 != 0);
            if avail != self.next.1 || used == self.next.1 {
                assert!(chain.is_empty(), "half a chain is available");
                return;
            }
            chain.push(iova);
            self.next = Self::step(self.next, 1, self.layout.size);
            if flags & spec::F_NEXT == 0 {
                self.held.push_back((id, std::mem::take(&mut chain)));
            }
        }
    }

    /// Uses `count` chains that it holds with one descriptor, that of the last.
    fn put_used(&mut self, id: u16, entries: u16, len: u32) {
        let flags = if self.used.1 { 1 << 15 | 1 << 7 } else { 0u16 };
        let word = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        let at = self.layout.desc + 16 * usize::from(self.used.0);
        self.arena.store_u64(at, u64::MAX).unwrap();
        self.arena.store_u64(at + 8, word).unwrap();
        self.used = Self::step(self.used, entries, self.layout.size);
    }
}

proptest! {
    /// The device gets each chain once and whole, and so does the driver, whatever lengths chains
    /// have and in whatever order they come back.
    #[test]
    fn packed_chains_are_neither_lost_nor_torn(
        steps in prop::collection::vec((0u16..4, 1u16..4, any::<prop::sample::Index>()), 1..300),
        in_order: bool,
        size in 12u16..20,
    ) {
        let arena = Arc::new(Arena::new(1 << 20, 0x1000_0000).unwrap());
        let layout = Layout::alloc_packed(&arena, size).unwrap();
        let features = feature::RING_PACKED | if in_order { feature::IN_ORDER } else { 0 };
        let mut queue = Queue::new(arena.clone(), layout, features);
        let begin = (0, true);
        let mut model =
            PackedModel { arena, layout, next: begin, used: begin, held: Default::default() };
        // Chain n has descriptors 3n, 3n + 1, 3n + 2, or fewer of them.
        let mut lengths = [0u16; 4];
        let (mut offered, mut back) = (Vec::new(), std::collections::VecDeque::new());
        for (chain, length, which) in steps {
            let head = 3 * chain;
            if lengths[usize::from(chain)] == 0 {
                for n in 0..length {
                    let flags = if n + 1 < length { spec::F_NEXT } else { 0 };
                    let index = head + n;
                    let (iova, next) = (index.into(), index + 1);
                    let descriptor = Descriptor { iova, len: 100, flags, next };
                    queue.set_descriptor(index, descriptor).unwrap();
                }
                queue.offer(head).unwrap();
                lengths[usize::from(chain)] = length;
                offered.push(head);
            } else {
                prop_assert!(queue.offer(head).is_err());
            }
            if which.index(3) > 0 {
                queue.publish().unwrap();
                model.pop_all();
                let got: Vec<_> = model.held.iter().map(|(id, _)| *id).collect();
                for (id, addresses) in &model.held {
                    let length = lengths[usize::from(*id) / 3];
                    let whole: Vec<_> = (0..length).map(|n| u64::from(*id + n)).collect();
                    prop_assert_eq!(addresses, &whole);
                }
                prop_assert!(got.ends_with(&offered));
                offered.clear();
            }
            if which.index(5) > 2 && !model.held.is_empty() {
                if in_order {
                    // One descriptor stands for some of the oldest chains.
                    let count = which.index(model.held.len()) + 1;
                    let batch: Vec<_> = model.held.drain(..count).collect();
                    let entries = batch.iter().map(|(_, chain)| chain.len() as u16).sum();
                    let last = batch.last().unwrap().0;
                    model.put_used(last, entries, 7);
                    let used = |(id, _): &(u16, _)| Used {
                        head: *id,
                        len: if *id == last { 7 } else { 0 },
                    };
                    back.extend(batch.iter().map(used));
                } else {
                    let (id, chain) = model.held.remove(which.index(model.held.len())).unwrap();
                    model.put_used(id, chain.len() as u16, id.into());
                    back.push_back(Used { head: id, len: id.into() });
                }
            }
            if which.index(7) > 3 {
                prop_assert_eq!(queue.has_used().unwrap(), !back.is_empty());
                let used = queue.take().unwrap();
                prop_assert_eq!(used, back.pop_front());
                if let Some(used) = used {
                    lengths[usize::from(used.head) / 3] = 0;
                }
            }
        }
    }
}

#[test]
fn a_packed_device_that_lies_is_an_error() {
    let arena = Arc::new(Arena::new(1 << 20, 0x1000_0000).unwrap());
    let layout = Layout::alloc_packed(&arena, 4).unwrap();
    let mut queue = Queue::new(arena.clone(), layout, feature::RING_PACKED);
    assert!(queue.offer(4).is_err(), "no such descriptor");
    queue.offer(1).unwrap();
    queue.publish().unwrap();
    let begin = (0, true);
    let mut model =
        PackedModel { arena, layout, next: begin, used: begin, held: Default::default() };
    model.put_used(2, 1, 0);
    assert!(matches!(queue.take(), Err(Error::Device(_))), "a buffer it was not given");
    // This chain has no end.
    queue
        .set_descriptor(0, Descriptor { len: 1, flags: spec::F_NEXT, ..Descriptor::default() })
        .unwrap();
    assert!(queue.offer(0).is_err());
}
