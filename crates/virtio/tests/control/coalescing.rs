//! These tests check notification coalescing (5.1.6.5.9).

use super::*;
use common::HostEvent;
use manifold_virtio::net::Coalescing;

const NONE: Coalescing = Coalescing { max_packets: 0, max_usecs: 0 };

fn coalescing(max_packets: u32, max_usecs: u32) -> Coalescing {
    Coalescing { max_packets, max_usecs }
}

fn bytes(of: Coalescing) -> Vec<u8> {
    [of.max_packets.to_le_bytes(), of.max_usecs.to_le_bytes()].concat()
}

/// Returns a device of two pairs, all enabled.
fn two_pairs() -> (Rig, Control) {
    let (rig, control) = live_with(config(), 0, &[0, 1, 2, 3]);
    rig.host.take();
    (rig, control)
}

fn set_all(rig: &mut Rig, control: &Control, command: u8, to: Coalescing) {
    control.ok(rig, ctrl::NOTF_COAL, command, &bytes(to));
}

fn vq_set(index: u16, to: Coalescing) -> Vec<u8> {
    // The device does not look at the reserved field.
    [index.to_le_bytes().to_vec(), vec![0xaa, 0x55], bytes(to)].concat()
}

fn set(rig: &mut Rig, control: &Control, index: u16, to: Coalescing) {
    control.ok(rig, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_SET, &vq_set(index, to));
}

fn get(rig: &mut Rig, control: &Control, index: u16) -> Coalescing {
    // The command is asked as Linux asks it, and as the standard has it.
    let short = index.to_le_bytes();
    let long = [short, [0xff, 0xff]].concat();
    let result = control.get(rig, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, &short, 8);
    assert_eq!(control.get(rig, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, &long, 8), result);
    let word = |at: usize| u32::from_le_bytes(result[at..at + 4].try_into().unwrap());
    let coalescing = coalescing(word(0), word(4));
    assert_eq!(rig.device.coalescing(index), coalescing);
    coalescing
}

/// The test sends commands 1 to 6 of the standard's example.
#[test]
fn the_last_command_for_a_queue_counts() {
    let (mut rig, control) = two_pairs();
    let values = [coalescing(15, 10), coalescing(1, 2), coalescing(3, 4), coalescing(u32::MAX, 5)];
    set_all(&mut rig, &control, ctrl::NOTF_COAL_RX_SET, values[0]);
    assert_eq!(
        rig.host.take(),
        [HostEvent::Coalescing(0, values[0]), HostEvent::Coalescing(2, values[0])]
    );
    set(&mut rig, &control, 0, values[1]);
    assert_eq!(rig.host.take(), [HostEvent::Coalescing(0, values[1])]);
    assert_eq!(get(&mut rig, &control, 0), values[1]);
    assert_eq!(get(&mut rig, &control, 2), values[0]);
    assert_eq!((get(&mut rig, &control, 1), get(&mut rig, &control, 3)), (NONE, NONE));
    set(&mut rig, &control, 1, values[2]);
    assert_eq!(rig.host.take(), [HostEvent::Coalescing(1, values[2])]);
    assert_eq!(get(&mut rig, &control, 3), NONE);
    set_all(&mut rig, &control, ctrl::NOTF_COAL_TX_SET, values[3]);
    assert_eq!(
        rig.host.take(),
        [HostEvent::Coalescing(1, values[3]), HostEvent::Coalescing(3, values[3])]
    );
    assert_eq!(get(&mut rig, &control, 1), values[3]);
    assert_eq!(rig.host.take(), [], "asking changes nothing");
}

#[test]
fn malformed_coalescing_is_refused() {
    let (mut rig, control) = live_with(config(), 0, &[0, 1]);
    for command in [ctrl::NOTF_COAL_TX_SET, ctrl::NOTF_COAL_RX_SET] {
        for len in [0, 4, 7, 9, 12] {
            refused(&mut rig, &control, ctrl::NOTF_COAL, command, &vec![1; len]);
        }
    }
    let good = vq_set(0, coalescing(1, 1));
    for len in 0..good.len() {
        refused(&mut rig, &control, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_SET, &good[..len]);
    }
    let long = [good, vec![0]].concat();
    refused(&mut rig, &control, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_SET, &long);
    for len in [0, 1, 3, 5, 12] {
        let data = vec![0; len];
        refused(&mut rig, &control, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, &data);
    }
    // These are not enabled, the control queue, or no queue at all.
    for index in [2u16, 3, 4, 5, 63, 64, 0xffff] {
        let to = vq_set(index, coalescing(1, 1));
        refused(&mut rig, &control, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_SET, &to);
        let data = index.to_le_bytes();
        refused(&mut rig, &control, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, &data);
    }
}

/// The queue is reset as Linux does it to resize a ring.
#[test]
fn a_queue_that_was_reset_has_what_was_set_for_all() {
    let (mut rig, control) = two_pairs();
    set(&mut rig, &control, 0, coalescing(1, 1));
    set_all(&mut rig, &control, ctrl::NOTF_COAL_TX_SET, coalescing(9, 9));
    set(&mut rig, &control, 3, coalescing(2, 2));
    for index in [0, 3] {
        rig.host.take();
        rig.select(index);
        rig.write16(reg::QUEUE_RESET, 1);
        assert_eq!(rig.host.take(), [HostEvent::Stop(index)]);
        let data = index.to_le_bytes();
        refused(&mut rig, &control, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, &data);
        QueueMemory::new(&mut rig.memory, 32).configure(&mut rig, index);
        rig.write16(reg::QUEUE_ENABLE, 1);
    }
    assert_eq!(get(&mut rig, &control, 0), NONE);
    assert_eq!(get(&mut rig, &control, 3), coalescing(9, 9));
    let host_events = rig.host.take();
    assert!(
        matches!(host_events[..], [HostEvent::Start(3, _), HostEvent::Coalescing(3, c)] if c == coalescing(9, 9)),
        "nothing of queue 0, which starts without: {host_events:?}"
    );
}

#[test]
fn a_queue_that_goes_on_keeps_its_own() {
    let (mut rig, control) = two_pairs();
    set(&mut rig, &control, 1, coalescing(7, 8));
    rig.set_bus_master(false);
    rig.host.take();
    rig.set_bus_master(true);
    let host_events = rig.host.take();
    let coalesced: Vec<_> =
        host_events.iter().filter(|t| matches!(t, HostEvent::Coalescing(..))).collect();
    assert_eq!(coalesced, [&HostEvent::Coalescing(1, coalescing(7, 8))]);
    assert_eq!(get(&mut rig, &control, 1), coalescing(7, 8));
}

#[test]
fn queues_enabled_later_start_with_what_was_set_for_all() {
    let (mut rig, control) = live_with(config(), 0, &[0, 1]);
    rig.host.take();
    set_all(&mut rig, &control, ctrl::NOTF_COAL_RX_SET, coalescing(3, 3));
    assert_eq!(rig.host.take(), [HostEvent::Coalescing(0, coalescing(3, 3))]);
    QueueMemory::new(&mut rig.memory, 64).configure(&mut rig, 2);
    rig.write16(reg::QUEUE_ENABLE, 1);
    let host_events = rig.host.take();
    assert_eq!(host_events[1..], [HostEvent::Coalescing(2, coalescing(3, 3))]);
}

#[test]
fn a_reset_ends_all_coalescing() {
    let (mut rig, control) = two_pairs();
    set_all(&mut rig, &control, ctrl::NOTF_COAL_RX_SET, coalescing(3, 3));
    set_all(&mut rig, &control, ctrl::NOTF_COAL_TX_SET, coalescing(3, 3));
    rig.write8(reg::DEVICE_STATUS, 0);
    assert!((0..4).all(|index| rig.device.coalescing(index) == NONE));
    rig.host.take();
    let features = rig.offered();
    assert!(drive_to_features_ok(&mut rig, features));
    QueueMemory::new(&mut rig.memory, 64).configure(&mut rig, 0);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    assert!(
        !rig.host.take().iter().any(|host_events| matches!(host_events, HostEvent::Coalescing(..)))
    );
}
