//! These tests check the control queue as a queue: chains, notifications, and what is broken.

use std::sync::{Arc, Mutex};

use super::*;
use common::HostEvent;
use common::driver::{INDIRECT, NEXT, WRITE, write_descriptor};
use common::memory::{BASE, READ_ONLY, READ_ONLY_SIZE, SIZE};
use manifold_virtio::net::Coalescing;

#[test]
fn a_command_too_long_to_be_any_is_refused_unread() {
    let (mut rig, control) = live(0);
    // This is the longest table that is read: with its two header bytes 64 KiB.
    let longest = [table(&[]), table(&vec![[3; 6]; 10_921])].concat();
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &longest);
    assert_eq!(filters(&rig).multicast, [MacAddr([3; 6])]);
    control.refused(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &[longest, vec![0]].concat());
    // The chain is 16 times the whole of memory: 16 MiB, read from nowhere.
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

/// The host may have to rebuild tables and wait for workers: it hears of many commands as of one.
#[test]
fn the_host_is_told_once_of_each_kind_of_change() {
    let (mut rig, control) = live_with(config(), 0, &[0, 1, 2, 3]);
    let coalesce = |packets: u8| [packets, 0, 0, 0, 1, 0, 0, 0].to_vec();
    let commands: Vec<Vec<u8>> = vec![
        vec![ctrl::VLAN, ctrl::VLAN_ADD, 1, 0],
        vec![ctrl::VLAN, ctrl::VLAN_ADD, 2, 0],
        vec![ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, 2, 0],
        vec![ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, 7, 0],
        vec![ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, 1, 0],
        [vec![ctrl::NOTF_COAL, ctrl::NOTF_COAL_RX_SET], coalesce(1)].concat(),
        [vec![ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_SET, 2, 0, 0, 0], coalesce(2)].concat(),
        [vec![ctrl::MQ, ctrl::MQ_RSS_CONFIG], rss()].concat(),
        vec![ctrl::VLAN, ctrl::VLAN_DEL, 1, 0],
    ];
    for (command, n) in commands.iter().zip(0u16..) {
        let at = control.buffer + 0x200 * u64::from(n);
        let len = command.len() as u32;
        rig.memory.write(at, command);
        control.queue.descriptor(&rig.memory, 2 * n, (at, len, NEXT, 2 * n + 1));
        control.queue.descriptor(&rig.memory, 2 * n + 1, (at + 0x1ff, 1, WRITE, 0));
        control.queue.offer(&rig.memory, 2 * n);
    }
    rig.host.take();
    rig.ring_doorbell(control.index);
    assert_eq!(control.queue.used_index(&rig.memory), 9);
    let acks: Vec<u8> =
        (0..9).map(|n| rig.memory.read::<1>(control.buffer + 0x200 * n + 0x1ff)[0]).collect();
    assert_eq!(acks, [0, 0, 0, 1, 0, 0, 0, 0, 0]);
    let host_events = rig.host.take();
    let [HostEvent::Filters(filters), HostEvent::Steering(steering), coalesced @ ..] =
        &host_events[..]
    else {
        panic!("{host_events:?}")
    };
    assert_eq!(filters.vlans.iter().collect::<Vec<_>>(), [2]);
    assert_eq!((steering.pairs, steering.table.is_some()), (2, true), "the last command's");
    let one = |packets| Coalescing { max_packets: packets, max_usecs: 1 };
    assert_eq!(coalesced, [HostEvent::Coalescing(0, one(1)), HostEvent::Coalescing(2, one(2))]);
}

#[test]
fn what_came_before_a_broken_chain_is_done() {
    let (mut rig, control) = live(0);
    control.offer(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    control.queue.offer(&rig.memory, 64);
    rig.ring_doorbell(control.index);
    assert!(needs_reset(&mut rig));
    assert_eq!(control.queue.used_index(&rig.memory), 1);
    assert!(filters(&rig).promiscuous);
    assert!(rig.host.last_filters().is_some_and(|filters| filters.promiscuous));
}

#[test]
fn an_answer_is_spread_over_the_buffers_there_are() {
    let (mut rig, control) = live_with(config(), 0, &[0]);
    let memory = &rig.memory;
    memory.write(control.buffer, &[ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, 0, 0, 0, 0]);
    memory.write(control.result(), &[0xee; 32]);
    control.queue.descriptor(memory, 0, (control.buffer, 6, NEXT, 1));
    // The pieces are acknowledgement and one byte, nothing, three bytes, more than is left.
    for (at, offset, len) in [(1u16, 0u64, 2u32), (2, 2, 0), (3, 4, 3), (4, 8, 20)] {
        let next = if at < 4 { NEXT } else { 0 };
        let entry = (control.result() + offset, len, WRITE | next, at + 1);
        control.queue.descriptor(memory, at, entry);
    }
    control.queue.offer(memory, 0);
    rig.ring_doorbell(control.index);
    assert_eq!(control.queue.used_element(&rig.memory, 0), (0, 9));
    let (o, x) = (0, 0xee);
    assert_eq!(rig.memory.read(control.result()), [o, o, x, x, o, o, o, x, o, o, o, o, x, x, x, x]);
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
    // The buffers are an empty one, then a large one: the answer is the first byte that can be
    // written.
    control.queue.descriptor(memory, 8, (control.buffer + 64, 0, NEXT | WRITE, 9));
    memory.write(control.buffer + 64, &[0xee; 8]);
    control.queue.descriptor(memory, 9, (control.buffer + 64, 8, WRITE, 0));
    control.queue.offer(memory, 0);
    rig.ring_doorbell(control.index);
    assert_eq!(
        rig.memory.read::<8>(control.buffer + 64),
        [0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]
    );
    assert_eq!(filters(&rig).mac.octets(), [2, 0, 0, 0, 0, 7]);
}

#[test]
fn a_change_is_in_force_before_the_command_is_used() {
    let (mut rig, control) = live(0);
    let (memory, domain, queue) = (rig.memory.clone(), rig.domain.clone(), control.queue);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    *rig.host.hook.lock().unwrap() = Some(Box::new(move || {
        log.lock().unwrap().push(queue.used_index(&memory));
        // The unmap waits for whoever has the domain pinned: nobody may.
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
    // The driver sends the same command again for each that is taken.
    *rig.host.hook.lock().unwrap() = Some(Box::new(move || queue.offer(&memory, 0)));
    rig.ring_doorbell(control.index);
    let used = control.queue.used_index(&rig.memory);
    assert_eq!(used, 4096);
    *rig.host.hook.lock().unwrap() = None;
    rig.ring_doorbell(control.index);
    assert_eq!(control.queue.used_index(&rig.memory), used + 1, "what was left over");
    assert!(!needs_reset(&mut rig));
}

/// Each of these chains makes the control queue unusable; the device says so and stays silent until
/// reset.
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
        assert_eq!(rig.messages(0), 1, "{what}: the driver is host_events");
        assert!(rig.device.state().failure.is_some_and(|f| f.starts_with("queue 4: ")), "{what}");
        assert_eq!(control.queue.used_index(&rig.memory), 0, "{what}: nothing is used");
        assert_eq!(filters(&rig), before, "{what}");
        rig.ring_doorbell(control.index);
        assert_eq!(rig.messages(0), 0, "{what}: host_events once");

        rig.write8(reg::DEVICE_STATUS, 0);
        let features = rig.offered() & !common_feature::RING_PACKED;
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
        let features = rig.offered() & !common_feature::RING_PACKED;
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
