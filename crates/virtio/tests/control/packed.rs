//! These tests run the control queue as a packed queue (2.8), with and without VIRTIO_F_IN_ORDER.

use super::*;
use common::HostEvent;
use common::driver::WRITE;
use common::memory::SIZE;
use common::packed::PackedMemory;
use manifold_virtio::net::Coalescing;

struct Packed {
    queue: PackedMemory,
    index: u16,
    buffer: u64,
    indirect: bool,
}

/// Returns a live device with the features offered but `without`, its queue 0 and a control queue
/// of `size`, all packed.
fn live_packed(without: u64, size: u16) -> (Rig, Packed) {
    let mut rig = Rig::with_bus_master(config());
    let features = rig.offered() & !without;
    assert_ne!(features & common_feature::RING_PACKED, 0);
    assert!(drive_to_features_ok(&mut rig, features));
    PackedMemory::new(&mut rig.memory, 100).configure(&mut rig, 0);
    rig.write16(reg::QUEUE_ENABLE, 1);
    let queue = PackedMemory::new(&mut rig.memory, size);
    let buffer = rig.memory.allocate(0x2000);
    queue.configure(&mut rig, 4);
    rig.write16(reg::QUEUE_MSIX_VECTOR, 3);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    (rig, Packed { queue, index: 4, buffer, indirect: false })
}

impl Packed {
    fn offer(&mut self, rig: &Rig, id: u16, command: &[u8], room: u32) {
        let at = self.buffer + 64 * u64::from(id % 64);
        rig.memory.write(at, command);
        rig.memory.write(at + 32, &[0xee; 32]);
        let (head, data) = (2, command.len() as u32 - 2);
        let mut entries = vec![(at, head, 0)];
        if data != 0 {
            entries.push((at + 2, data, 0));
        }
        entries.push((at + 32, 1, WRITE));
        if room != 0 {
            entries.push((at + 33, room, WRITE));
        }
        self.queue.offer(&rig.memory, id, &entries, self.indirect);
    }

    /// Returns acknowledgement and result, as long as the device said.
    fn answer(&mut self, rig: &Rig) -> Option<Vec<u8>> {
        let (id, written) = self.queue.used(&rig.memory)?;
        Some(rig.memory.read_vec(self.buffer + 64 * u64::from(id % 64) + 32, written as usize))
    }

    fn send(&mut self, rig: &mut Rig, command: &[u8], room: u32) -> Option<Vec<u8>> {
        self.offer(rig, 7, command, room);
        rig.ring_doorbell(self.index);
        let answer = self.answer(rig);
        assert_eq!(self.answer(rig), None, "one answer for one command");
        answer
    }
}

#[test]
fn commands_go_round_the_ring() {
    for without in [0, common_feature::IN_ORDER, common_feature::EVENT_IDX] {
        for (size, indirect) in [(64, false), (7, false), (50, true), (1, true)] {
            let (mut rig, mut control) = live_packed(without, size);
            control.indirect = indirect;
            for n in 1..200u8 {
                let to = [n, 0, 0, 0, 3, 0, 0, 0];
                let set = [&[6, ctrl::NOTF_COAL_VQ_SET, 0, 0, 0, 0][..], &to].concat();
                assert_eq!(control.send(&mut rig, &set, 0), Some(vec![ctrl::OK]));
                let coalescing = Coalescing { max_packets: n.into(), max_usecs: 3 };
                assert_eq!(rig.device.coalescing(0), coalescing);
                let get = [6, ctrl::NOTF_COAL_VQ_GET, 0, 0];
                let answer = [&[ctrl::OK][..], &to].concat();
                assert_eq!(control.send(&mut rig, &get, 8), Some(answer));
                assert_eq!(control.send(&mut rig, &[0x77, 0], 8), Some(vec![ctrl::ERR]));
            }
            assert!(!needs_reset(&mut rig));
            assert_eq!(rig.messages(3), 3 * 199, "one interrupt each");
        }
    }
}

#[test]
fn several_commands_are_used_together_and_in_order() {
    for without in [0, common_feature::IN_ORDER] {
        let (mut rig, mut control) = live_packed(without, 64);
        for round in 0..5u8 {
            rig.host.take();
            for vid in 0..15u8 {
                let id = u16::from(vid) * 7 % 64;
                control.offer(&rig, id, &[ctrl::VLAN, ctrl::VLAN_ADD, vid, round], 0);
            }
            rig.ring_doorbell(control.index);
            let host_events = rig.host.take();
            assert!(matches!(host_events[..], [HostEvent::Filters(_)]), "once: {host_events:?}");
            for _ in 0..15 {
                assert_eq!(control.answer(&rig), Some(vec![ctrl::OK]));
            }
            assert_eq!(control.answer(&rig), None);
            assert_eq!(filters(&rig).vlans.iter().count(), 15 * (usize::from(round) + 1));
            assert_eq!(rig.messages(3), 1);
        }
    }
}

#[test]
fn the_queue_goes_on_where_it_was() {
    let (mut rig, mut control) = live_packed(0, 5);
    for n in 0..20u8 {
        rig.set_bus_master(false);
        control.offer(&rig, n.into(), &[ctrl::VLAN, ctrl::VLAN_ADD, n, 0], 0);
        rig.ring_doorbell(control.index);
        assert_eq!(control.answer(&rig), None);
        rig.set_bus_master(true);
        assert_eq!(control.answer(&rig), Some(vec![ctrl::OK]));
        assert_eq!(filters(&rig).vlans.iter().count(), usize::from(n) + 1);
    }
    assert!(!needs_reset(&mut rig));
}

#[test]
fn no_interrupt_where_none_is_wanted() {
    let (mut rig, mut control) = live_packed(0, 64);
    rig.memory.write(control.queue.driver + 2, &[1, 0]); // RING_EVENT_FLAGS_DISABLE
    control.send(&mut rig, &[ctrl::VLAN, ctrl::VLAN_ADD, 1, 0], 0).unwrap();
    assert_eq!(rig.messages(3), 0);
}

#[test]
fn broken_packed_queues_end_in_needs_reset() {
    let outside = common::memory::BASE + SIZE + 0x10_0000;
    type Break = fn(&Rig, &mut Packed, u64);
    let broken: [(&str, Break); 4] = [
        ("no answer buffer", |rig, c, _| c.queue.offer(&rig.memory, 0, &[(c.buffer, 3, 0)], false)),
        ("a command outside memory", |rig, c, outside| {
            let entries = [(outside, 3, 0), (c.buffer, 1, WRITE)];
            c.queue.offer(&rig.memory, 0, &entries, true);
        }),
        ("readable after writable", |rig, c, _| {
            let entries = [(c.buffer, 1, WRITE), (c.buffer, 3, 0)];
            c.queue.offer(&rig.memory, 0, &entries, false);
        }),
        ("an indirect table that is empty", |rig, c, _| {
            c.queue.offer(&rig.memory, 0, &[(c.buffer, 0, 0)], true);
            rig.memory.write(c.queue.ring + 8, &[0; 4]);
        }),
    ];
    for (what, break_it) in broken {
        let (mut rig, mut control) = live_packed(0, 8);
        break_it(&rig, &mut control, outside);
        rig.ring_doorbell(control.index);
        assert!(needs_reset(&mut rig), "{what}");
        assert_eq!(control.answer(&rig), None, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any contents of the ring leave the device alive, and a reset brings it back.
    #[test]
    fn any_packed_ring_leaves_a_device_that_can_be_reset(
        size in 1u16..64,
        descriptors in prop::collection::vec(
            (0u64..0x3000, 0u32..0x200, 0u16..70, any::<u16>()), 64,
        ),
    ) {
        let (mut rig, control) = live_packed(0, size);
        for (at, (address, len, id, flags)) in (0u64..).zip(descriptors).take(size.into()) {
            let at = control.queue.ring + 16 * at;
            rig.memory.write(at, &(control.buffer + address).to_le_bytes());
            rig.memory.write(at + 8, &len.to_le_bytes());
            rig.memory.write(at + 12, &id.to_le_bytes());
            // The descriptor is often available.
            let flags = if flags & 0x300 != 0 { flags & 7 | 0x80 } else { flags };
            rig.memory.write(at + 14, &flags.to_le_bytes());
        }
        rig.ring_doorbell(control.index);
        rig.device.reset();
        prop_assert_eq!(rig.status(), 0);
        prop_assert!(rig.host.running().is_empty());
    }
}
