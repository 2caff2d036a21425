//! These tests access the register file with every size, alignment and order.

mod common;

use common::{Control, HostEvent, QueueMemory, Rig, config, drive_to_features_ok};
use manifold_pci::DeviceModel;
use manifold_virtio::spec::pci::common as reg;
use manifold_virtio::spec::{feature, status};
use manifold_virtio::transport::layout;
use proptest::prelude::*;

/// Returns a device in the middle of things: two queues configured, one of them enabled, and the
/// control queue.
fn busy() -> (Rig, Control) {
    let mut rig = Rig::with_bus_master(config());
    let features = rig.offered() & !feature::RING_PACKED;
    assert!(drive_to_features_ok(&mut rig, features));
    let control = Control::new(&mut rig, 4);
    rig.write16(reg::QUEUE_ENABLE, 1);
    for index in [0, 1] {
        QueueMemory::new(&mut rig.memory, 128).configure(&mut rig, index);
    }
    rig.write16(reg::QUEUE_MSIX_VECTOR, 2);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    (rig, control)
}

#[test]
fn one_read_of_everything_is_the_bytes_one_by_one() {
    let (mut rig, _) = busy();
    let whole: [u8; 64] = rig.read(layout::COMMON);
    for (at, byte) in (0..).zip(whole) {
        assert_eq!(rig.read::<1>(at), [byte], "at {at:#x}");
    }
    for at in 0..60 {
        let four = rig.read::<4>(at);
        assert_eq!(four[..], whole[at as usize..at as usize + 4], "at {at:#x}");
    }
    assert_eq!(whole[usize::from(reg::QUEUE_SIZE)..][..2], 128u16.to_le_bytes());
    assert_eq!(whole[usize::from(reg::NUM_QUEUES)..][..2], 5u16.to_le_bytes());
    assert_eq!(whole[60..], [0; 4], "no administration queues");
}

#[test]
fn reads_outside_the_structures_are_zero() {
    let (mut rig, _) = busy();
    for offset in [0x40, 0xfff, 0x1001, 0x201c, 0x3000, 0x3fff, layout::BAR_SIZE, 1 << 40, u64::MAX]
    {
        assert_eq!(rig.read::<8>(offset)[1..], [0; 7], "at {offset:#x}");
    }
    for bar in 1..8 {
        let mut data = [0xa5; 16];
        rig.device.read(bar, 0, &mut data);
        assert_eq!(data, [0; 16]);
    }
    let mut all = vec![0xa5; 0x8000];
    rig.device.read(layout::BAR, 0, &mut all);
    assert_eq!(all[..64], rig.read::<64>(0));
    assert_eq!(all[0x2000..0x2006], common::MAC);
    assert!(all[0x2020..].iter().all(|byte| *byte == 0));
    rig.device.read(layout::BAR, 0, &mut []);
}

#[test]
fn a_register_written_in_part_keeps_the_rest() {
    let mut rig = Rig::new(config());
    rig.write32(reg::DEVICE_FEATURE_SELECT, 0x1122_3344);
    rig.device.write(layout::BAR, 1, &[0xaa]);
    assert_eq!(rig.read32(reg::DEVICE_FEATURE_SELECT), 0x1122_aa44);
    rig.device.write(layout::BAR, 2, &[0xbb, 0xcc, 0xff, 0xff, 0xff, 0xff, 0x99]);
    assert_eq!(rig.read32(reg::DEVICE_FEATURE_SELECT), 0xccbb_aa44);
    assert_eq!(rig.read32(reg::DRIVER_FEATURE_SELECT), 0x99, "past the read-only one between");
    rig.write16(reg::QUEUE_SELECT, 0x0101);
    rig.device.write(layout::BAR, u64::from(reg::QUEUE_SELECT) + 1, &[0]);
    assert_eq!(rig.read16(reg::QUEUE_SELECT), 1);
}

#[test]
fn a_64_bit_register_is_written_at_once_too() {
    let mut rig = Rig::new(config());
    let features = rig.offered();
    assert!(drive_to_features_ok(&mut rig, features));
    rig.select(0);
    let at = u64::from(reg::QUEUE_DESC);
    rig.device.write(layout::BAR, at, &0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!(rig.read::<8>(at), 0x1122_3344_5566_7788u64.to_le_bytes());
    rig.write32(reg::QUEUE_DESC + 4, 0x99);
    assert_eq!(rig.read::<8>(at), 0x99_5566_7788u64.to_le_bytes());
    // One access reads three registers, none mixed with another.
    let mut three = [0; 24];
    for (at, byte) in (1..).zip(&mut three) {
        *byte = at;
    }
    rig.device.write(layout::BAR, at, &three);
    assert_eq!(rig.read::<24>(at), three);
}

/// One access by a driver that knows no rules.
#[derive(Clone, Debug)]
enum Access {
    Read { bar: u8, offset: u64, len: usize },
    Write { bar: u8, offset: u64, data: Vec<u8> },
    ConfigRead { capability: usize, offset: u8, len: usize },
    ConfigWrite { capability: usize, offset: u8, data: Vec<u8> },
    BusMaster(bool),
    Fail(u16),
    Announce,
    Command { class: u8, command: u8, data: Vec<u8> },
    ResetQueue(u16),
    EnableQueue(u16),
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..0x48,
        1 => 0xff8u64..0x1008,
        1 => 0x1ffcu64..0x2028,
        2 => 0x3000u64..0x3020,
        1 => any::<u64>(),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => 0u8..5, 1 => Just(0x0f), 1 => any::<u8>()];
    prop::collection::vec(byte, 0..20)
}

fn access() -> impl Strategy<Value = Access> {
    let bar = || prop_oneof![9 => Just(0u8), 1 => any::<u8>()];
    prop_oneof![
        4 => (bar(), offset(), 0usize..80)
            .prop_map(|(bar, offset, len)| Access::Read { bar, offset, len }),
        12 => (bar(), offset(), bytes())
            .prop_map(|(bar, offset, data)| Access::Write { bar, offset, data }),
        1 => (0usize..7, any::<u8>(), 0usize..8)
            .prop_map(|(capability, offset, len)| Access::ConfigRead { capability, offset, len }),
        2 => (0usize..7, 0u8..24, bytes())
            .prop_map(|(capability, offset, data)| {
                Access::ConfigWrite { capability, offset, data }
            }),
        1 => any::<bool>().prop_map(Access::BusMaster),
        1 => (0u16..6).prop_map(Access::Fail),
        1 => Just(Access::Announce),
        6 => (0u8..9, 0u8..4, prop::collection::vec(0u8..3, 0..16))
            .prop_map(|(class, command, data)| Access::Command { class, command, data }),
        // GUEST_OFFLOADS_SET and the coalescing commands are sent as they should be.
        2 => any::<u16>().prop_map(|bits| Access::Command {
            class: 5,
            command: 0,
            data: (u64::from(bits) & 0x382 | u64::from(bits & 3) << 54).to_le_bytes().to_vec(),
        }),
        2 => (0u8..2, prop::collection::vec(0u8..3, 8))
            .prop_map(|(command, data)| Access::Command { class: 6, command, data }),
        2 => (0u8..4, prop::collection::vec(0u8..3, 8)).prop_map(|(queue, data)| {
            Access::Command { class: 6, command: 2, data: [vec![queue, 0, 0, 0], data].concat() }
        }),
        1 => (0u16..5).prop_map(Access::ResetQueue),
        2 => (0u16..4).prop_map(Access::EnableQueue),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The host's own checks (no queue started or stopped twice, none rung or coalesced while
    /// stopped) hold all the way, it is told of everything, nothing runs that should not, and at
    /// the end the device works for a driver that behaves.
    #[test]
    fn any_sequence_of_accesses_leaves_a_working_device(
        start_busy: bool,
        accesses in prop::collection::vec(access(), 1..120),
    ) {
        let (mut rig, control) =
            if start_busy { busy() } else { (Rig::new(config()), Control::nowhere()) };
        for access in accesses {
            match access {
                Access::Read { bar, offset, len } => {
                    rig.device.read(bar, offset, &mut vec![0; len]);
                }
                Access::Write { bar, offset, data } => rig.device.write(bar, offset, &data),
                Access::ConfigRead { capability, offset, len } => {
                    rig.device.config_read(capability, offset, &mut vec![0; len]);
                }
                Access::ConfigWrite { capability, offset, data } => {
                    rig.device.config_write(capability, offset, &data);
                }
                Access::BusMaster(on) => rig.set_bus_master(on),
                Access::Fail(queue) => {
                    let events = rig.host.running().get(&queue).map(|setup| setup.events.clone());
                    if let Some(events) = events {
                        events.fail(&"made up");
                    }
                }
                Access::Announce => {
                    rig.device.announce();
                }
                // The command is put wherever the device looks for its control queue by now.
                Access::Command { class, command, data } if start_busy => {
                    control.offer(&mut rig, class, command, &data);
                    rig.ring_doorbell(control.index);
                }
                Access::Command { .. } => {}
                Access::ResetQueue(queue) => {
                    rig.select(queue);
                    rig.write16(reg::QUEUE_RESET, 1);
                }
                Access::EnableQueue(queue) => {
                    rig.select(queue);
                    rig.write16(reg::QUEUE_ENABLE, 1);
                }
            }
            prop_assert_eq!(rig.host.view(), rig.view(), "the host knows what is in force");
            let state = rig.device.state();
            let is_set = |bit: u8| state.status & bit != 0;
            prop_assert!(!is_set(status::DRIVER_OK) || is_set(status::FEATURES_OK));
            prop_assert_eq!(state.failure.is_some(), is_set(status::DEVICE_NEEDS_RESET));
            let running: Vec<u16> = rig.host.running().keys().copied().collect();
            prop_assert!(running.is_empty() || is_set(status::DRIVER_OK));
            let selected = rig.read16(reg::QUEUE_SELECT);
            for queue in running {
                rig.select(queue);
                prop_assert_eq!(rig.read16(reg::QUEUE_ENABLE), 1);
            }
            rig.select(selected);
        }
        rig.device.reset();
        rig.set_bus_master(true);
        rig.host.take();
        let features = rig.offered();
        prop_assert!(drive_to_features_ok(&mut rig, features));
        rig.select(1);
        rig.write16(reg::QUEUE_ENABLE, 1);
        rig.add_status(status::DRIVER_OK);
        let host_events = rig.host.take();
        let expected = matches!(
            host_events[..],
            [HostEvent::Filters(_), HostEvent::Steering(_), HostEvent::Offloads(_), HostEvent::Start(1, _)]
        );
        prop_assert!(expected, "{:?}", host_events);
        prop_assert_eq!(rig.status(), 15);
    }

    /// Reading never changes what a later read of the common configuration finds.
    #[test]
    fn reads_have_no_effect_on_registers(
        reads in prop::collection::vec((offset(), 0usize..40), 1..20),
    ) {
        let (mut rig, _) = busy();
        let before: [u8; 64] = rig.read(0);
        for (offset, len) in reads {
            rig.device.read(layout::BAR, offset, &mut vec![0; len]);
        }
        prop_assert_eq!(rig.read::<64>(0), before);
    }
}
