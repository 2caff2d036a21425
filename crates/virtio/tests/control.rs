//! The control queue: what each command does, and what a malformed one does not.

mod common;

use std::sync::{Arc, Mutex};

use common::driver::{BUFFER_SIZE, INDIRECT, NEXT, WRITE, write_descriptor};
use common::memory::{BASE, READ_ONLY, READ_ONLY_SIZE, SIZE};
use common::{Control, MAC, QueueMemory, Rig, config, drive_to_features_ok};
use manifold_pci::DeviceModel;
use manifold_virtio::net::{Filters, MAC_TABLE_ENTRIES};
use manifold_virtio::spec::net::{ctrl, feature};
use manifold_virtio::spec::pci::common as reg;
use manifold_virtio::spec::{feature as common_feature, status};
use manifold_virtio::transport::layout;
use proptest::prelude::*;

/// A live device with `features` out of those offered, and its control queue.
fn live(without: u64) -> (Rig, Control) {
    let mut rig = Rig::with_bus_master(config());
    let features = rig.offered() & !without;
    assert!(drive_to_features_ok(&mut rig, features));
    let index = if features & feature::MULTIQUEUE != 0 { 4 } else { 2 };
    let mut control = Control::new(&mut rig, index);
    control.event_index = features & common_feature::EVENT_IDX != 0;
    rig.write16(reg::QUEUE_MSIX_VECTOR, 3);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    (rig, control)
}

fn filters(rig: &Rig) -> Filters {
    let filters = rig.device.filters().clone();
    assert!(rig.host.last_filters().is_none_or(|told| told == filters), "the host knows");
    filters
}

fn table(macs: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = (macs.len() as u32).to_le_bytes().to_vec();
    bytes.extend(macs.iter().flatten());
    bytes
}

fn needs_reset(rig: &mut Rig) -> bool {
    rig.status() & status::DEVICE_NEEDS_RESET != 0
}

#[test]
fn receive_modes_switch_on_and_off() {
    type Mode = fn(&Filters) -> bool;
    let (mut rig, control) = live(0);
    let modes: [(u8, Mode); 6] = [
        (ctrl::RX_PROMISC, |f| f.promiscuous),
        (ctrl::RX_ALLMULTI, |f| f.all_multicast),
        (ctrl::RX_ALLUNI, |f| f.all_unicast),
        (ctrl::RX_NOMULTI, |f| f.no_multicast),
        (ctrl::RX_NOUNI, |f| f.no_unicast),
        (ctrl::RX_NOBCAST, |f| f.no_broadcast),
    ];
    for (command, mode) in modes {
        assert!(!mode(&filters(&rig)));
        control.ok(&mut rig, ctrl::RX, command, &[1]);
        let on: Vec<bool> = modes.iter().map(|(_, mode)| mode(&filters(&rig))).collect();
        assert_eq!(on.iter().filter(|on| **on).count(), 1, "that one only");
        assert!(mode(&filters(&rig)));
        for malformed in [&[][..], &[2], &[0xff], &[0, 0]] {
            control.refused(&mut rig, ctrl::RX, command, malformed);
        }
        assert!(mode(&filters(&rig)), "a refused command changes nothing");
        control.ok(&mut rig, ctrl::RX, command, &[0]);
        assert!(!mode(&filters(&rig)));
    }
    control.refused(&mut rig, ctrl::RX, 6, &[1]);
    assert!(!needs_reset(&mut rig));
}

#[test]
fn the_mac_table_is_replaced_as_a_whole() {
    let (mut rig, control) = live(0);
    let (uni, multi) = ([0x02, 0, 0, 0, 0, 9], [0x01, 0, 0x5e, 0, 0, 1]);
    let data = [table(&[uni, MAC, uni]), table(&[multi])].concat();
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &data);
    let now = filters(&rig);
    assert_eq!(now.unicast, [uni, MAC], "sorted, each once");
    assert_eq!(now.multicast, [multi]);
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &[table(&[]), table(&[])].concat());
    let now = filters(&rig);
    assert!(now.unicast.is_empty() && now.multicast.is_empty());
    // By what they are, not by the table they came in.
    control.ok(
        &mut rig,
        ctrl::MAC,
        ctrl::MAC_TABLE_SET,
        &[table(&[multi]), table(&[uni])].concat(),
    );
    let now = filters(&rig);
    assert_eq!((now.unicast, now.multicast), (vec![uni], vec![multi]));
}

#[test]
fn malformed_mac_tables_are_refused() {
    let (mut rig, control) = live(0);
    let good = [table(&[MAC]), table(&[[1; 6]])].concat();
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &good);
    let before = filters(&rig);
    for len in 0..good.len() {
        control.refused(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &good[..len]);
    }
    for count in [2u32, 0x2aaa_aaab, 0x8000_0000, u32::MAX] {
        let mut bad = good.clone();
        bad[..4].copy_from_slice(&count.to_le_bytes());
        control.refused(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &bad);
        let mut bad = good.clone();
        bad[10..14].copy_from_slice(&count.to_le_bytes());
        control.refused(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &bad);
    }
    control.refused(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &[good, vec![0]].concat());
    control.refused(&mut rig, ctrl::MAC, 2, &[]);
    assert_eq!(filters(&rig), before);
    assert!(!needs_reset(&mut rig));
}

#[test]
fn a_table_that_overflows_receives_all_of_its_kind() {
    let (mut rig, control) = live(0);
    let many = |first: u8, n: usize| -> Vec<[u8; 6]> {
        (0..n).map(|i| [first, 0, 0, 0, (i >> 8) as u8, i as u8]).collect()
    };
    let set = |rig: &mut Rig, uni: usize, multi: usize| {
        let data = [table(&many(2, uni)), table(&many(3, multi))].concat();
        control.ok(rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &data);
        filters(rig)
    };
    let full = set(&mut rig, MAC_TABLE_ENTRIES, MAC_TABLE_ENTRIES);
    assert!(!full.all_unicast && !full.all_multicast);
    assert_eq!((full.unicast.len(), full.multicast.len()), (64, 64));
    let over = set(&mut rig, 1, MAC_TABLE_ENTRIES + 1);
    assert!(!over.all_unicast && over.all_multicast);
    assert_eq!((over.unicast.len(), over.multicast.len()), (1, 0));
    let over = set(&mut rig, 5000, 5000);
    assert!(over.all_unicast && over.all_multicast && !over.promiscuous);
    // What the driver switches and what the overflow implies are two things.
    control.ok(&mut rig, ctrl::RX, ctrl::RX_ALLMULTI, &[1]);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_ALLUNI, &[0]);
    assert!(filters(&rig).all_unicast);
    let fits = set(&mut rig, 1, 1);
    assert!(!fits.all_unicast && fits.all_multicast);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_ALLMULTI, &[0]);
    assert!(!filters(&rig).all_multicast);
}

#[test]
fn a_command_too_long_to_be_any_is_refused_unread() {
    let (mut rig, control) = live(0);
    // The longest table that is read: with its two header bytes 64 KiB.
    let longest = [table(&[]), table(&vec![[3; 6]; 10_921])].concat();
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &longest);
    assert_eq!(filters(&rig).multicast, [[3; 6]]);
    control.refused(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &[longest, vec![0]].concat());
    // 16 times the whole of memory: 16 MiB, read from nowhere.
    for at in 0..16 {
        control.queue.descriptor(&rig.memory, at, (BASE, SIZE as u32, NEXT, at + 1));
    }
    control.queue.descriptor(&rig.memory, 16, (control.ack(), 1, WRITE, 0));
    control.queue.offer(&rig.memory, 0);
    rig.ring_doorbell(control.index);
    assert_eq!(rig.memory.read(control.ack()), [ctrl::ERR]);
    assert!(!needs_reset(&mut rig));
}

#[test]
fn the_mac_address_shows_in_the_configuration_until_reset() {
    let (mut rig, control) = live(0);
    assert_eq!(rig.read::<6>(layout::DEVICE), MAC);
    let generation = rig.read8(reg::CONFIG_GENERATION);
    let mine = [0x02, 1, 2, 3, 4, 5];
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_ADDR_SET, &mine);
    assert_eq!(filters(&rig).mac, mine);
    assert_eq!(rig.read::<6>(layout::DEVICE), mine);
    assert_ne!(rig.read8(reg::CONFIG_GENERATION), generation);
    for bad in [&[0; 6][..], &[0xff; 6], &[1, 0, 0x5e, 0, 0, 1], &[2; 5], &[2; 7], &[]] {
        control.refused(&mut rig, ctrl::MAC, ctrl::MAC_ADDR_SET, bad);
    }
    assert_eq!(filters(&rig).mac, mine);
    rig.write8(reg::DEVICE_STATUS, 0);
    assert_eq!(rig.read::<6>(layout::DEVICE), MAC);
    assert_eq!(filters(&rig), Filters::new(MAC));
}

#[test]
fn vlans_are_added_and_removed() {
    let (mut rig, control) = live(0);
    assert!(filters(&rig).vlan_filtering);
    assert_eq!(filters(&rig).vlans.iter().count(), 0, "empty to begin with");
    for vid in [0u16, 1, 100, 4095] {
        control.ok(&mut rig, ctrl::VLAN, ctrl::VLAN_ADD, &vid.to_le_bytes());
    }
    control.ok(&mut rig, ctrl::VLAN, ctrl::VLAN_DEL, &1u16.to_le_bytes());
    control.ok(&mut rig, ctrl::VLAN, ctrl::VLAN_DEL, &2u16.to_le_bytes());
    assert_eq!(filters(&rig).vlans.iter().collect::<Vec<_>>(), [0, 100, 4095]);
    for bad in [&4096u16.to_le_bytes()[..], &[0xff, 0xff], &[1], &[1, 0, 0], &[]] {
        control.refused(&mut rig, ctrl::VLAN, ctrl::VLAN_ADD, bad);
        control.refused(&mut rig, ctrl::VLAN, ctrl::VLAN_DEL, bad);
    }
    control.refused(&mut rig, ctrl::VLAN, 2, &[1, 0]);
}

#[test]
fn pairs_are_from_one_to_the_maximum() {
    let (mut rig, control) = live(0);
    for (pairs, ok) in [(2u16, true), (0, false), (3, false), (0x8000, false), (1, true)] {
        let sent = control.send(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &pairs.to_le_bytes());
        assert_eq!(sent, Some(if ok { ctrl::OK } else { ctrl::ERR }), "{pairs}");
    }
    assert_eq!(rig.device.steering().pairs, 1);
    control.refused(&mut rig, ctrl::MQ, 1, &[0; 40]);
    control.refused(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[1]);
}

#[test]
fn commands_need_their_feature() {
    let all = feature::CTRL_RX
        | feature::CTRL_RX_EXTRA
        | feature::CTRL_VLAN
        | feature::CTRL_MAC_ADDR
        | feature::GUEST_ANNOUNCE
        | feature::MULTIQUEUE;
    let (mut rig, control) = live(all);
    let empty_table = [0; 8];
    let commands: [(u8, u8, &[u8]); 9] = [
        (ctrl::RX, ctrl::RX_PROMISC, &[1]),
        (ctrl::RX, ctrl::RX_ALLMULTI, &[1]),
        (ctrl::RX, ctrl::RX_NOBCAST, &[1]),
        (ctrl::MAC, ctrl::MAC_TABLE_SET, &empty_table),
        (ctrl::MAC, ctrl::MAC_ADDR_SET, &[2; 6]),
        (ctrl::VLAN, ctrl::VLAN_ADD, &[1, 0]),
        (ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[]),
        (ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[1, 0]),
        (0x77, 0, &[]),
    ];
    for (class, command, data) in commands {
        control.refused(&mut rig, class, command, data);
    }
    assert!(!needs_reset(&mut rig));
    let now = filters(&rig);
    assert!(now.all_multicast, "nobody can subscribe");
    assert!(!now.vlan_filtering, "every VLAN");
    assert_eq!(now, Filters { all_multicast: true, ..Filters::new(MAC) });
}

#[test]
fn the_extra_receive_modes_are_a_feature_of_their_own() {
    let (mut rig, control) = live(feature::CTRL_RX_EXTRA);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_ALLMULTI, &[1]);
    for command in ctrl::RX_ALLUNI..=ctrl::RX_NOBCAST {
        control.refused(&mut rig, ctrl::RX, command, &[1]);
    }
    let (mut rig, control) = live(feature::CTRL_RX);
    control.refused(&mut rig, ctrl::RX, ctrl::RX_ALLMULTI, &[1]);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_NOBCAST, &[1]);
}

#[test]
fn the_device_asks_to_be_notified_of_the_next_command() {
    let (mut rig, control) = live(0);
    let avail_event = control.queue.used + 4 + 8 * u64::from(control.queue.size);
    for n in 0..3 {
        assert_eq!(rig.memory.read16(avail_event), n);
        control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    }
}

#[test]
fn an_interrupt_follows_where_the_driver_wants_one() {
    let (mut rig, mut control) = live(0);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    assert_eq!(rig.messages(3), 1);
    control.event_index = false; // used_event stays behind
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[0]);
    assert_eq!(rig.messages(3), 0);

    let (mut rig, control) = live(common_feature::EVENT_IDX);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    assert_eq!(rig.messages(3), 1);
    rig.memory.write(control.queue.available, &[1, 0]); // VIRTQ_AVAIL_F_NO_INTERRUPT
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[0]);
    assert_eq!(rig.messages(3), 0);
}

#[test]
fn several_commands_are_taken_on_one_notification() {
    let (mut rig, control) = live(0);
    let memory = &rig.memory;
    for n in 0..20u16 {
        let at = control.buffer + 16 * u64::from(n);
        memory.write(at, &[ctrl::VLAN, ctrl::VLAN_ADD, n as u8, 0, 0xee]);
        control.queue.descriptor(memory, 2 * n, (at, 4, NEXT, 2 * n + 1));
        control.queue.descriptor(memory, 2 * n + 1, (at + 4, 1, WRITE, 0));
        control.queue.offer(memory, 2 * n);
    }
    rig.ring_doorbell(control.index);
    assert_eq!(control.queue.used_index(&rig.memory), 20);
    for n in 0..20 {
        assert_eq!(control.queue.used_element(&rig.memory, n), (2 * u32::from(n), 1));
        assert_eq!(rig.memory.read(control.buffer + 16 * u64::from(n) + 4), [ctrl::OK]);
    }
    assert_eq!(filters(&rig).vlans.iter().count(), 20);
}

#[test]
fn a_command_may_be_cut_into_bytes() {
    let (mut rig, control) = live(0);
    let memory = &rig.memory;
    let command = [ctrl::MAC, ctrl::MAC_ADDR_SET, 2, 0, 0, 0, 0, 7];
    memory.write(control.buffer, &command);
    for at in 0..8u16 {
        let byte = control.buffer + u64::from(at);
        control.queue.descriptor(memory, at, (byte, 1, NEXT, at + 1));
    }
    // An empty buffer, then a large one: the answer is the first byte that can be written.
    control.queue.descriptor(memory, 8, (control.buffer + 64, 0, NEXT | WRITE, 9));
    memory.write(control.buffer + 64, &[0xee; 8]);
    control.queue.descriptor(memory, 9, (control.buffer + 64, 8, WRITE, 0));
    control.queue.offer(memory, 0);
    rig.ring_doorbell(control.index);
    assert_eq!(
        rig.memory.read::<8>(control.buffer + 64),
        [0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]
    );
    assert_eq!(filters(&rig).mac, [2, 0, 0, 0, 0, 7]);
}

#[test]
fn a_change_is_in_force_before_the_command_is_used() {
    let (mut rig, control) = live(0);
    let (memory, domain, queue) = (rig.memory.clone(), rig.domain.clone(), control.queue);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    *rig.host.hook.lock().unwrap() = Some(Box::new(move || {
        log.lock().unwrap().push(queue.used_index(&memory));
        // Waits for whoever has the domain pinned: nobody may.
        domain.unmap(READ_ONLY, READ_ONLY_SIZE).unwrap();
    }));
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[0]);
    assert_eq!(*seen.lock().unwrap(), [0, 1]);
}

#[test]
fn a_driver_that_never_stops_does_not_hold_the_device() {
    let (mut rig, control) = live(0);
    control.offer(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    let (memory, queue) = (rig.memory.clone(), control.queue);
    // The same command again, for each that is taken.
    *rig.host.hook.lock().unwrap() = Some(Box::new(move || queue.offer(&memory, 0)));
    rig.ring_doorbell(control.index);
    let used = control.queue.used_index(&rig.memory);
    assert_eq!(used, 4096);
    *rig.host.hook.lock().unwrap() = None;
    rig.ring_doorbell(control.index);
    assert_eq!(control.queue.used_index(&rig.memory), used + 1, "what was left over");
    assert!(!needs_reset(&mut rig));
}

/// Each makes the control queue unusable; the device says so and stays silent until reset.
#[test]
fn broken_chains_end_in_needs_reset() {
    type Break = fn(&Rig, &Control);
    let broken: [(&str, Break); 12] = [
        ("no chain at the head", |rig, c| c.queue.offer(&rig.memory, 64)),
        ("no answer buffer", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.buffer, 3, 0, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("an empty answer buffer", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.buffer, 3, NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (c.buffer, 0, WRITE, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("no command", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.ack(), 1, WRITE, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("a command of one byte", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.buffer, 1, NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (c.ack(), 1, WRITE, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("a loop", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.buffer, 1, NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (c.buffer, 1, NEXT, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("readable after writable", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.ack(), 1, WRITE | NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (c.buffer, 3, 0, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("a command outside memory", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (BASE - 2, 3, NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (c.ack(), 1, WRITE, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("an address that wraps", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (u64::MAX, 3, NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (c.ack(), 1, WRITE, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("an answer to read-only memory", |rig, c| {
            c.queue.descriptor(&rig.memory, 0, (c.buffer, 3, NEXT, 1));
            c.queue.descriptor(&rig.memory, 1, (READ_ONLY, 1, WRITE, 0));
            c.queue.offer(&rig.memory, 0);
        }),
        ("an index that jumped", |rig, c| {
            rig.memory.write(c.queue.available + 2, &65u16.to_le_bytes());
        }),
        ("an indirect table in an indirect table", |rig, c| {
            let table = c.buffer + 0x100;
            write_descriptor(&rig.memory, table, (table, 16, INDIRECT, 0));
            c.queue.descriptor(&rig.memory, 0, (table, 16, INDIRECT, 0));
            c.queue.offer(&rig.memory, 0);
        }),
    ];
    for (what, break_it) in broken {
        let (mut rig, control) = live(0);
        rig.write16(reg::CONFIG_MSIX_VECTOR, 0);
        let before = filters(&rig);
        break_it(&rig, &control);
        rig.ring_doorbell(control.index);
        assert!(needs_reset(&mut rig), "{what}");
        assert_eq!(rig.messages(0), 1, "{what}: the driver is told");
        assert!(rig.device.state().failure.is_some_and(|f| f.starts_with("queue 4: ")), "{what}");
        assert_eq!(control.queue.used_index(&rig.memory), 0, "{what}: nothing is used");
        assert_eq!(filters(&rig), before, "{what}");
        rig.ring_doorbell(control.index);
        assert_eq!(rig.messages(0), 0, "{what}: told once");

        rig.write8(reg::DEVICE_STATUS, 0);
        let features = rig.offered();
        assert!(drive_to_features_ok(&mut rig, features));
        let control = Control::new(&mut rig, 4);
        rig.write16(reg::QUEUE_ENABLE, 1);
        rig.add_status(status::DRIVER_OK);
        control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    }
}

/// Rings that cannot be used at all fail as the queue starts, or when it is first looked at.
#[test]
fn unusable_rings_end_in_needs_reset() {
    let cases: [(&str, u64, u64, u64); 6] = [
        ("nowhere", 0, 0, 0),
        ("misaligned descriptors", BASE + 8, BASE + 0x1000, BASE + 0x2000),
        ("misaligned available ring", BASE, BASE + 0x1001, BASE + 0x2000),
        ("misaligned used ring", BASE, BASE + 0x1000, BASE + 0x2002),
        ("used ring in read-only memory", BASE, BASE + 0x1000, READ_ONLY),
        ("descriptors across the end", BASE + SIZE - 16, BASE + 0x1000, u64::MAX - 3),
    ];
    for (what, descriptors, available, used) in cases {
        let mut rig = Rig::with_bus_master(config());
        let features = rig.offered();
        assert!(drive_to_features_ok(&mut rig, features));
        QueueMemory { size: 64, descriptors, available, used }.configure(&mut rig, 4);
        rig.write16(reg::QUEUE_ENABLE, 1);
        rig.add_status(status::DRIVER_OK);
        assert!(needs_reset(&mut rig), "{what}");
        assert!(rig.domain.faults().count >= 1, "{what}: recorded");
        rig.write8(reg::DEVICE_STATUS, 0);
        assert_eq!(rig.status(), 0);
    }
}

#[test]
fn memory_that_goes_away_is_a_fault_of_this_device_only() {
    let (mut rig, control) = live(0);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    control.offer(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[0]);
    rig.domain.unmap_all();
    rig.ring_doorbell(control.index);
    assert!(needs_reset(&mut rig));
    assert_eq!(rig.domain.faults().count, 1);
    assert!(filters(&rig).promiscuous);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever bytes are sent as a command: an answer, no reset, no effect if refused, and limits kept.
    #[test]
    fn any_command_is_answered(commands in prop::collection::vec(
        (0u8..7, 0u8..8, prop::collection::vec(0u8..4, 0..40)), 1..40,
    )) {
        let (mut rig, control) = live(0);
        for (class, command, data) in commands {
            let before = rig.device.filters().clone();
            match control.send(&mut rig, class, command, &data) {
                Some(ctrl::OK) => {}
                Some(ctrl::ERR) => prop_assert_eq!(rig.device.filters(), &before),
                other => prop_assert!(false, "{:?}", other),
            }
            let now = filters(&rig);
            prop_assert!((1..=2).contains(&rig.device.steering().pairs));
            prop_assert!(now.unicast.len() <= MAC_TABLE_ENTRIES);
            prop_assert!(now.unicast.iter().all(|mac| mac[0] & 1 == 0));
            prop_assert!(now.multicast.iter().all(|mac| mac[0] & 1 == 1));
        }
        prop_assert!(!needs_reset(&mut rig));
    }

    /// Whatever is in the rings: the device lives, and a reset brings it back.
    #[test]
    fn any_ring_contents_leave_a_device_that_can_be_reset(
        descriptors in prop::collection::vec(
            (0u64..0x3000, 0u32..0x2000, 0u16..8, 0u16..70), 64,
        ),
        heads in prop::collection::vec(0u16..66, 1..64),
        index in 0u16..66,
    ) {
        let (mut rig, control) = live(0);
        for (at, (address, len, flags, next)) in (0..).zip(descriptors) {
            // Some inside memory, some past its end.
            let address = control.buffer + address * (BUFFER_SIZE / 0x1000);
            control.queue.descriptor(&rig.memory, at, (address, len, flags, next));
        }
        for head in heads {
            control.queue.offer(&rig.memory, head);
        }
        rig.memory.write(control.queue.available + 2, &index.to_le_bytes());
        rig.ring_doorbell(control.index);
        let used = control.queue.used_index(&rig.memory);
        prop_assert!(used <= index);
        prop_assert!(used == index || needs_reset(&mut rig));
        rig.device.reset();
        prop_assert_eq!(rig.status(), 0);
        prop_assert!(rig.host.running().is_empty());
    }
}
