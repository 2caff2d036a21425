//! These tests check what each command of the control queue does, and what a malformed one does
//! not.

#![allow(clippy::unwrap_used, reason = "a test may fail so")]

#[path = "../common/mod.rs"]
mod common;

mod coalescing;
mod offloads;
mod packed;
mod queue;
mod receive;
mod statistics;
mod steering;

use common::driver::BUFFER_SIZE;
use common::{Control, MAC, QueueMemory, Rig, config, drive_to_features_ok};
use manifold_offload::MacAddr;
use manifold_pci::DeviceModel;
use manifold_virtio::net::{Filters, MAC_TABLE_ENTRIES, NetConfig};
use manifold_virtio::spec::net::{ctrl, feature};
use manifold_virtio::spec::pci::common as reg;
use manifold_virtio::spec::{feature as common_feature, status};
use proptest::prelude::*;

/// Returns a live device with all features offered but packed queues and `without`, and its control
/// queue. No other queue is enabled.
fn live(without: u64) -> (Rig, Control) {
    live_with(config(), without, &[])
}

/// Returns a device as [`live`] does, with `data` queues enabled.
fn live_with(config: NetConfig, without: u64, data: &[u16]) -> (Rig, Control) {
    let mut rig = Rig::with_bus_master(config);
    let features = rig.offered() & !(common_feature::RING_PACKED | without);
    assert!(drive_to_features_ok(&mut rig, features));
    for index in data {
        QueueMemory::new(&mut rig.memory, 64).configure(&mut rig, *index);
        rig.write16(reg::QUEUE_ENABLE, 1);
    }
    let index =
        if features & feature::MULTIQUEUE != 0 { rig.read16(reg::NUM_QUEUES) - 1 } else { 2 };
    let mut control = Control::new(&mut rig, index);
    control.event_index = features & common_feature::EVENT_IDX != 0;
    rig.write16(reg::QUEUE_MSIX_VECTOR, 3);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    (rig, control)
}

fn filters(rig: &Rig) -> Filters {
    let filters = rig.device.filters().clone();
    assert!(
        rig.host.last_filters().is_none_or(|host_events| host_events == filters),
        "the host knows"
    );
    filters
}

/// Returns a `struct virtio_net_ctrl_mac`.
fn table(macs: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = (macs.len() as u32).to_le_bytes().to_vec();
    bytes.extend(macs.iter().flatten());
    bytes
}

fn needs_reset(rig: &mut Rig) -> bool {
    rig.status() & status::DEVICE_NEEDS_RESET != 0
}

/// Returns all that commands set, and what the driver reads of it.
fn everything(rig: &mut Rig) -> String {
    let settings = (rig.device.filters(), rig.device.steering(), rig.device.offloads());
    let coalescing: Vec<_> = (0..4).map(|index| rig.device.coalescing(index)).collect();
    let text = format!("{settings:?} {coalescing:?}");
    let config: [u8; 28] = rig.read(manifold_virtio::transport::layout::DEVICE);
    format!("{text} {config:?}")
}

/// Sends a command that is refused, changes nothing, and of which the host hears nothing.
fn refused(rig: &mut Rig, control: &Control, class: u8, command: u8, data: &[u8]) {
    let before = everything(rig);
    rig.host.take();
    control.refused(rig, class, command, data);
    assert_eq!(rig.host.take(), [], "{class}.{command} {data:02x?}");
    assert_eq!(everything(rig), before);
}

/// Returns the data of a `struct virtio_net_rss_config` for two queue pairs, as Linux sends it.
fn rss() -> Vec<u8> {
    let mut bytes = 0x3fu32.to_le_bytes().to_vec();
    bytes.extend(127u16.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend((0..128u16).flat_map(|at| (at % 2).to_le_bytes()));
    bytes.extend(2u16.to_le_bytes());
    bytes.push(40);
    bytes.extend(10..50);
    bytes
}

/// Returns the data of a `struct virtio_net_hash_config`.
fn hash() -> Vec<u8> {
    let mut bytes = 0x9u32.to_le_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.push(40);
    bytes.extend(50..90);
    bytes
}

#[test]
fn commands_need_their_feature() {
    let queue_0 = [vec![0; 4], vec![1; 8]].concat();
    let commands: [(u64, u8, u8, &[u8]); 20] = [
        (feature::CTRL_RX, ctrl::RX, ctrl::RX_PROMISC, &[1]),
        (feature::CTRL_RX, ctrl::RX, ctrl::RX_ALLMULTI, &[1]),
        (feature::CTRL_RX, ctrl::MAC, ctrl::MAC_TABLE_SET, &[0; 8]),
        (feature::CTRL_RX_EXTRA, ctrl::RX, ctrl::RX_ALLUNI, &[1]),
        (feature::CTRL_RX_EXTRA, ctrl::RX, ctrl::RX_NOBCAST, &[1]),
        (feature::CTRL_MAC_ADDR, ctrl::MAC, ctrl::MAC_ADDR_SET, &[2; 6]),
        (feature::CTRL_VLAN, ctrl::VLAN, ctrl::VLAN_ADD, &[1, 0]),
        (feature::CTRL_VLAN, ctrl::VLAN, ctrl::VLAN_DEL, &[1, 0]),
        (feature::GUEST_ANNOUNCE, ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[]),
        (feature::MQ, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[1, 0]),
        (feature::RSS, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss()),
        (feature::HASH_REPORT, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &hash()),
        (feature::CTRL_GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET, &[0; 8]),
        (feature::NOTF_COAL, ctrl::NOTF_COAL, ctrl::NOTF_COAL_TX_SET, &[1; 8]),
        (feature::NOTF_COAL, ctrl::NOTF_COAL, ctrl::NOTF_COAL_RX_SET, &[1; 8]),
        (feature::VQ_NOTF_COAL, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_SET, &queue_0),
        (feature::VQ_NOTF_COAL, ctrl::NOTF_COAL, ctrl::NOTF_COAL_VQ_GET, &[0; 4]),
        (feature::DEVICE_STATS, ctrl::STATS, ctrl::STATS_QUERY, &[]),
        (feature::DEVICE_STATS, ctrl::STATS, ctrl::STATS_GET, &[0; 16]),
        (0, 0x77, 0, &[]),
    ];
    for (needed, class, command, data) in commands {
        let (mut rig, control) = live_with(config(), needed, &[0]);
        rig.device.announce();
        refused(&mut rig, &control, class, command, data);
        assert!(!needs_reset(&mut rig));
        if needed != 0 {
            let (mut rig, control) = live_with(config(), 0, &[0]);
            rig.device.announce();
            control.ok(&mut rig, class, command, data);
        }
    }
}

#[test]
fn commands_that_do_not_exist_are_refused() {
    let (mut rig, control) = live(0);
    let numbers: [(u8, u8); 10] =
        [(0, 6), (1, 2), (2, 2), (3, 1), (4, 3), (5, 1), (6, 4), (7, 0), (8, 2), (9, 0)];
    for (class, command) in numbers {
        for data in [&[][..], &[1], &[0; 8], &[0; 40]] {
            refused(&mut rig, &control, class, command, data);
        }
    }
}

#[test]
fn a_driver_without_receive_commands_receives_all_multicast_and_every_vlan() {
    let (rig, _) = live(feature::CTRL_RX | feature::CTRL_VLAN);
    assert_eq!(filters(&rig), Filters { all_multicast: true, ..Filters::new(MAC) });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any bytes sent as a command get an answer, no reset, no effect if refused, and limits are
    /// kept.
    #[test]
    fn any_command_is_answered(commands in prop::collection::vec(
        (0u8..10, 0u8..5, prop::collection::vec(0u8..4, 0..40), 0u32..80), 1..40,
    )) {
        let (mut rig, control) = live_with(config(), 0, &[0, 1, 3]);
        for (class, command, data, room) in commands {
            let before = everything(&mut rig);
            match control.request(&mut rig, class, command, &data, room) {
                Some((ctrl::OK, _)) => {}
                Some((ctrl::ERR, _)) => prop_assert_eq!(everything(&mut rig), before),
                other => prop_assert!(false, "{:?}", other),
            }
            let now = filters(&rig);
            prop_assert!((1..=2).contains(&rig.device.steering().pairs));
            prop_assert!(now.unicast.len() <= MAC_TABLE_ENTRIES);
            prop_assert!(now.unicast.iter().all(|mac| !mac.is_group()));
            prop_assert!(now.multicast.iter().all(|mac| mac.is_group()));
        }
        prop_assert!(!needs_reset(&mut rig));
    }

    /// Any contents of the rings leave the device alive, and a reset brings it back.
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
            // Some addresses are inside memory, some past its end.
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
