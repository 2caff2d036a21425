//! The driver's side against a model of the device's side.

use super::*;
use proptest::prelude::*;

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
    (Queue::new(arena, layout, event_idx), model)
}

/// Moves both sides to just before their indices wrap.
fn near_the_wrap(queue: &mut Queue, model: &mut Model) {
    let start = 0xfffa;
    (queue.avail_next, queue.avail_seen, queue.used_next, queue.used_seen) =
        (start, start, start, start);
    (model.avail, model.used) = (start, start);
    queue.force_avail_idx(start).unwrap();
    queue.arena.store_u16(queue.layout.used + 2, start, Ordering::Relaxed).unwrap();
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
    /// What is offered arrives once and in order, what is used comes back once and in order, and neither
    /// side sleeps while the other has something for it.
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
                        // What was asked for is for the next chain, not this one.
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
    let (queue, model) = queue(4, true);
    queue.set_descriptor(1, 0x1122_3344_5566_7788, 0x99aa_bbcc, 0x3, 0x2).unwrap();
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
