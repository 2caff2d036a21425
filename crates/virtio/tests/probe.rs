//! These tests run the device as Linux's virtio_pci_modern and virtio_net bring it up, use it and
//! leave it.

mod common;

use common::{Control, HostEvent, MAC, QueueMemory, Rig, config, drive_to_features_ok};
use manifold_pci::DeviceModel;
use manifold_virtio::net::{Role, Steering};
use manifold_virtio::spec::net::{config as net_config, ctrl, feature as net_feature};
use manifold_virtio::spec::pci::{NO_VECTOR, cap, common as reg, isr};
use manifold_virtio::spec::{feature, status};
use manifold_virtio::transport::{QueueState, layout};

/// Features that Linux 6.12's virtio_net accepts of what is offered, on split queues.
const LINUX: u64 = feature::VERSION_1
    | feature::ACCESS_PLATFORM
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::RING_RESET
    | net_feature::CSUM
    | net_feature::GUEST_CSUM
    | net_feature::CTRL_GUEST_OFFLOADS
    | net_feature::MAC
    | net_feature::GUEST_TSO4
    | net_feature::GUEST_TSO6
    | net_feature::GUEST_ECN
    | net_feature::HOST_TSO4
    | net_feature::HOST_TSO6
    | net_feature::HOST_ECN
    | net_feature::STATUS
    | net_feature::MTU
    | net_feature::MRG_RXBUF
    | net_feature::CTRL_VQ
    | net_feature::CTRL_RX
    | net_feature::CTRL_VLAN
    | net_feature::CTRL_MAC_ADDR
    | net_feature::GUEST_ANNOUNCE
    | net_feature::MQ
    | net_feature::DEVICE_STATS
    | net_feature::VQ_NOTF_COAL
    | net_feature::NOTF_COAL
    | net_feature::GUEST_USO4
    | net_feature::GUEST_USO6
    | net_feature::HOST_USO
    | net_feature::HASH_REPORT
    | net_feature::GUEST_HDRLEN
    | net_feature::RSS
    | net_feature::SPEED_DUPLEX;

/// Takes the device from reset to DRIVER_OK, with two pairs and the control queue. Vector 0 is the
/// configuration's, vector 1 + n queue n's.
fn probe(rig: &mut Rig) -> (Vec<QueueMemory>, Control) {
    assert!(drive_to_features_ok(rig, LINUX));
    rig.write16(reg::CONFIG_MSIX_VECTOR, 0);
    assert_eq!(rig.read16(reg::CONFIG_MSIX_VECTOR), 0);
    let mut queues = Vec::new();
    for index in 0..4 {
        rig.select(index);
        let size = rig.read16(reg::QUEUE_SIZE);
        assert_eq!(size, 256);
        assert_eq!(rig.read16(reg::QUEUE_ENABLE), 0);
        let queue = QueueMemory::new(&mut rig.memory, size);
        queue.configure(rig, index);
        rig.write16(reg::QUEUE_MSIX_VECTOR, 1 + index);
        assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), 1 + index);
        queues.push(queue);
    }
    let mut control = Control::new(rig, 4);
    control.indirect = true;
    control.event_index = true;
    for index in 0..5 {
        rig.select(index);
        rig.write16(reg::QUEUE_ENABLE, 1);
        assert_eq!(rig.read16(reg::QUEUE_ENABLE), 1);
    }
    assert!(rig.host.running().is_empty(), "nothing runs before DRIVER_OK");
    rig.add_status(status::DRIVER_OK);
    (queues, control)
}

fn live() -> (Rig, Vec<QueueMemory>, Control) {
    let mut rig = Rig::with_bus_master(config());
    let (queues, control) = probe(&mut rig);
    (rig, queues, control)
}

#[test]
fn capabilities_describe_the_layout() {
    let spec = config().function_spec();
    let identity = spec.identity;
    assert_eq!((identity.vendor_id, identity.device_id), (0x1af4, 0x1041));
    assert_eq!(identity.class_code, 0x02_0000);
    assert!(identity.revision >= 1 && identity.subsystem_id >= 0x40, "not for legacy drivers");
    assert_eq!(spec.msix.vectors, 6, "2 pairs, control queue, configuration");
    let found: Vec<_> = spec
        .vendor
        .iter()
        .map(|capability| {
            let body = &capability.body;
            assert_eq!(usize::from(body[0]), body.len() + 2, "cap_len");
            assert_eq!(body.len(), capability.writable.len());
            let word = |at: u8| {
                let at = usize::from(at) - 2;
                u32::from_le_bytes(body[at..at + 4].try_into().unwrap())
            };
            let (offset, length) = (word(cap::OFFSET), word(cap::LENGTH));
            assert!(u64::from(offset) + u64::from(length) <= layout::BAR_SIZE);
            (body[1], offset, length)
        })
        .collect();
    assert_eq!(
        found,
        [
            (cap::COMMON_CFG, 0, 64),
            (cap::NOTIFY_CFG, 0x3000, 0x1000),
            (cap::ISR_CFG, 0x1000, 1),
            (cap::DEVICE_CFG, 0x2000, 28),
            (cap::PCI_CFG, 0, 0),
        ]
    );
    assert_eq!(spec.vendor[1].body[14..], [4, 0, 0, 0], "notify_off_multiplier");
    let writable: Vec<_> = (2..).zip(&spec.vendor[4].writable).filter(|(_, m)| **m != 0).collect();
    let expected: Vec<u8> = std::iter::once(4).chain(8..20).collect();
    assert_eq!(writable.iter().map(|(at, _)| *at).collect::<Vec<u8>>(), expected);
}

#[test]
fn linux_brings_the_device_up() {
    let (mut rig, _, control) = live();
    assert_eq!(rig.status(), 15);
    let host_events = rig.host.take();
    let HostEvent::Filters(filters) = &host_events[0] else {
        panic!("filters first: {host_events:?}")
    };
    assert_eq!(filters.mac.octets(), MAC);
    assert!(filters.vlan_filtering && !filters.all_multicast && !filters.promiscuous);
    assert_eq!(
        host_events[1..],
        [
            HostEvent::Steering(Steering::default()),
            HostEvent::Offloads(net_feature::GUEST_OFFLOADS),
            HostEvent::Start(0, Role::Rx(0)),
            HostEvent::Start(1, Role::Tx(0)),
            HostEvent::Start(2, Role::Rx(1)),
            HostEvent::Start(3, Role::Tx(1)),
        ]
    );
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &2u16.to_le_bytes());
    assert_eq!(rig.host.last_steering().map(|s| s.pairs), Some(2));
    rig.host.take();
    rig.ring_doorbell(0);
    rig.ring_doorbell(3);
    assert_eq!(rig.host.take(), [HostEvent::Notify(0), HostEvent::Notify(3)]);
}

#[test]
fn queue_setup_is_what_the_driver_wrote() {
    let (rig, queues, _) = live();
    for (index, queue) in (0..).zip(queues) {
        let running = rig.host.running();
        let setup = &running[&index];
        assert_eq!(setup.addresses.size, 256);
        assert_eq!(setup.addresses.descriptors, queue.descriptors);
        assert_eq!(setup.addresses.driver, queue.available);
        assert_eq!(setup.addresses.device, queue.used);
        assert_eq!(setup.features, LINUX);
        assert_eq!(setup.resume, None);
        assert!(setup.ring_features().event_index && setup.ring_features().indirect);
    }
}

#[test]
fn queues_that_do_not_exist_have_no_registers() {
    let mut rig = Rig::new(config());
    assert!(drive_to_features_ok(&mut rig, LINUX));
    for queue in [5, 6, 100, 0xffff] {
        rig.select(queue);
        rig.write16(reg::QUEUE_SIZE, 4);
        rig.write16(reg::QUEUE_MSIX_VECTOR, 1);
        rig.write64(reg::QUEUE_DESC, 0x1000);
        rig.write16(reg::QUEUE_ENABLE, 1);
        rig.write16(reg::QUEUE_RESET, 1);
        assert_eq!(rig.read16(reg::QUEUE_SIZE), 0);
        assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), NO_VECTOR);
        assert_eq!(rig.read16(reg::QUEUE_ENABLE), 0);
        assert_eq!(rig.read::<32>(u64::from(reg::QUEUE_DESC)), [0; 32]);
    }
}

#[test]
fn an_enabled_queue_keeps_its_configuration() {
    let (mut rig, queues, _) = live();
    rig.select(0);
    rig.write16(reg::QUEUE_SIZE, 16);
    rig.write64(reg::QUEUE_DESC, 0xdead_0000);
    assert_eq!(rig.read16(reg::QUEUE_SIZE), 256);
    assert_eq!(rig.read::<8>(u64::from(reg::QUEUE_DESC)), queues[0].descriptors.to_le_bytes());
    rig.write16(reg::QUEUE_ENABLE, 0);
    assert_eq!(rig.read16(reg::QUEUE_ENABLE), 1, "only a reset disables a queue");
    rig.write16(reg::QUEUE_MSIX_VECTOR, 0);
    assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), 0, "vectors may change at any time");
}

#[test]
fn a_reset_stops_everything() {
    let (mut rig, ..) = live();
    rig.host.take();
    assert!(rig.device.announce());
    rig.write8(reg::DEVICE_STATUS, 0);
    assert_eq!(rig.status(), 0);
    assert_eq!(rig.read::<1>(layout::ISR), [0]);
    assert!(rig.host.running().is_empty());
    let host_events = rig.host.take();
    assert_eq!(
        host_events[..4],
        [HostEvent::Stop(0), HostEvent::Stop(1), HostEvent::Stop(2), HostEvent::Stop(3)]
    );
    assert!(
        matches!(&host_events[4..], [HostEvent::Filters(f), HostEvent::Offloads(0)] if !f.vlan_filtering)
    );
    assert_eq!(rig.read16(reg::CONFIG_MSIX_VECTOR), NO_VECTOR);
    rig.select(0);
    assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), NO_VECTOR);
    assert_eq!(rig.read16(reg::QUEUE_ENABLE), 0);
    assert_eq!(rig.read::<24>(u64::from(reg::QUEUE_DESC)), [0; 24]);
    assert_eq!(rig.device.state().features, 0);
    rig.ring_doorbell(0);
    assert_eq!(rig.host.take(), []);
    probe(&mut rig);
    assert_eq!(rig.host.running().len(), 4);
    assert_eq!(rig.host.running()[&0].resume, None);
}

#[test]
fn one_queue_is_reset_and_enabled_again() {
    let (mut rig, ..) = live();
    rig.host.take();
    rig.select(2);
    rig.write16(reg::QUEUE_RESET, 1);
    assert_eq!(rig.read16(reg::QUEUE_RESET), 0);
    assert_eq!(rig.read16(reg::QUEUE_ENABLE), 0);
    assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), NO_VECTOR);
    assert_eq!(rig.host.take(), [HostEvent::Stop(2)]);
    rig.ring_doorbell(2);
    assert_eq!(rig.host.take(), [], "a reset queue hears nothing");
    let smaller = QueueMemory::new(&mut rig.memory, 64);
    smaller.configure(&mut rig, 2);
    rig.write16(reg::QUEUE_ENABLE, 1);
    assert_eq!(rig.host.take(), [HostEvent::Start(2, Role::Rx(1))]);
    assert_eq!(rig.host.running()[&2].addresses.size, 64);
    assert_eq!(rig.host.running()[&2].resume, None, "from the beginning");
}

#[test]
fn queue_reset_needs_its_feature() {
    let mut rig = Rig::with_bus_master(config());
    assert!(drive_to_features_ok(&mut rig, LINUX & !feature::RING_RESET));
    QueueMemory::new(&mut rig.memory, 256).configure(&mut rig, 0);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    rig.write16(reg::QUEUE_RESET, 1);
    assert_eq!(rig.read16(reg::QUEUE_ENABLE), 1);
    assert!(rig.host.running().contains_key(&0));
}

#[test]
fn the_control_queue_can_be_reset_too() {
    let (mut rig, _, control) = live();
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &2u16.to_le_bytes());
    rig.select(4);
    rig.write16(reg::QUEUE_RESET, 1);
    assert_eq!(control.send(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[1, 0]), None);
    let again = Control::new(&mut rig, 4);
    rig.write16(reg::QUEUE_ENABLE, 1);
    again.ok(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &2u16.to_le_bytes());
}

#[test]
fn queues_run_only_with_bus_master_enable() {
    let mut rig = Rig::new(config());
    let (_, control) = probe(&mut rig);
    assert!(rig.host.running().is_empty());
    rig.ring_doorbell(0);
    control.offer(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[2, 0]);
    rig.ring_doorbell(4);
    assert_eq!(rig.domain.faults().count, 0, "nothing was touched");
    rig.set_bus_master(true);
    assert_eq!(rig.host.running().len(), 4);
    assert_eq!(control.queue.used_index(&rig.memory), 1, "what was waiting is done");
    assert_eq!(rig.host.last_steering().map(|s| s.pairs), Some(2));

    rig.set_bus_master(false);
    assert!(rig.host.running().is_empty());
    control.offer(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[1, 0]);
    rig.ring_doorbell(4);
    rig.host.take();
    rig.set_bus_master(true);
    let commands = rig.host.take().iter().filter(|t| matches!(t, HostEvent::Steering(_))).count();
    assert_eq!(commands, 1, "the first command is not done again");
    let resume = rig.host.running()[&3].resume;
    assert_eq!(resume, Some(QueueState { next_avail: 103, next_used: 203 }), "goes on");
    assert_eq!(control.queue.used_index(&rig.memory), 2, "so does the control queue");
    assert_eq!(rig.domain.faults().count, 0);
    assert_eq!(rig.status() & status::DEVICE_NEEDS_RESET, 0);
}

#[test]
fn a_power_on_reset_forgets_bus_master_enable_and_the_window() {
    let (mut rig, ..) = live();
    rig.window_point(u64::from(reg::DEVICE_STATUS), 1);
    rig.device.reset();
    assert!(rig.host.running().is_empty());
    assert!(!rig.device.config_read(4, cap::PCI_CFG_DATA, &mut [0]), "points nowhere");
    probe(&mut rig);
    assert!(rig.host.running().is_empty(), "Bus Master Enable is clear");
    rig.set_bus_master(true);
    assert_eq!(rig.host.running().len(), 4);
}

#[test]
fn status_bits_can_only_be_added_and_the_drivers_are_not_the_devices() {
    let mut rig = Rig::new(config());
    rig.write8(reg::DEVICE_STATUS, 0xff);
    assert_eq!(rig.status(), status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
    rig.write8(reg::DEVICE_STATUS, status::ACKNOWLEDGE);
    assert_eq!(rig.status(), status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
}

#[test]
fn nobody_is_asked_to_announce_before_driver_ok() {
    let mut rig = Rig::new(config());
    assert!(drive_to_features_ok(&mut rig, LINUX));
    rig.write16(reg::CONFIG_MSIX_VECTOR, 0);
    assert!(!rig.device.announce());
    assert_eq!(rig.messages(0), 0);
    assert_eq!(rig.read::<1>(layout::ISR), [0]);
}

#[test]
fn the_driver_announces_itself_and_confirms() {
    let (mut rig, _, control) = live();
    let status_at = layout::DEVICE + net_config::STATUS as u64;
    control.refused(&mut rig, ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[]);
    assert_eq!(rig.read::<2>(status_at), [1, 0]);
    let before = rig.read8(reg::CONFIG_GENERATION);
    assert_eq!(rig.messages(0), 0);
    assert_eq!(rig.read::<1>(layout::ISR), [isr::QUEUE]);
    assert!(rig.device.announce());
    assert_eq!(rig.messages(0), 1);
    assert_eq!(rig.read::<1>(layout::ISR), [isr::CONFIG]);
    assert_eq!(rig.read::<1>(layout::ISR), [0], "cleared by reading");
    assert_eq!(rig.read::<2>(status_at), [3, 0]);
    assert_ne!(rig.read8(reg::CONFIG_GENERATION), before);
    let before = rig.read8(reg::CONFIG_GENERATION);
    control.refused(&mut rig, ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[0]);
    control.ok(&mut rig, ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK, &[]);
    assert_eq!(rig.read::<2>(status_at), [1, 0]);
    assert_ne!(rig.read8(reg::CONFIG_GENERATION), before);
    rig.write8(reg::DEVICE_STATUS, 0);
    assert!(!rig.device.announce(), "nobody there");
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let mut rig = Rig::new(config());
    assert!(drive_to_features_ok(&mut rig, LINUX));
    for vector in [6, 0x7ff, 0x800, NO_VECTOR] {
        rig.write16(reg::CONFIG_MSIX_VECTOR, vector);
        assert_eq!(rig.read16(reg::CONFIG_MSIX_VECTOR), NO_VECTOR);
        rig.select(0);
        rig.write16(reg::QUEUE_MSIX_VECTOR, 5);
        assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), 5);
        rig.write16(reg::QUEUE_MSIX_VECTOR, vector);
        assert_eq!(rig.read16(reg::QUEUE_MSIX_VECTOR), NO_VECTOR);
    }
}

#[test]
fn queue_interrupts_use_the_vector_of_the_moment() {
    let (mut rig, ..) = live();
    let events = rig.host.running()[&0].events.clone();
    events.interrupt();
    assert_eq!((rig.messages(1), rig.messages(5)), (1, 0));
    rig.select(0);
    rig.write16(reg::QUEUE_MSIX_VECTOR, 5);
    events.interrupt();
    assert_eq!((rig.messages(1), rig.messages(5)), (0, 1));
    rig.write16(reg::QUEUE_MSIX_VECTOR, NO_VECTOR);
    events.interrupt();
    assert_eq!((rig.messages(1), rig.messages(5)), (0, 0));
    assert_eq!(rig.read::<1>(layout::ISR), [isr::QUEUE]);
}

#[test]
fn a_broken_queue_asks_for_a_reset_once() {
    let (mut rig, _, control) = live();
    let events = rig.host.running()[&1].events.clone();
    // Another thread does this while the present one holds the device, as a worker does that is
    // being stopped.
    std::thread::scope(|scope| {
        scope.spawn(|| events.fail(&"descriptor 300 in a table of 256"));
    });
    events.fail(&"again");
    assert_eq!(rig.status() & status::DEVICE_NEEDS_RESET, status::DEVICE_NEEDS_RESET);
    assert_eq!(rig.messages(0), 1, "one configuration change interrupt");
    let failure = rig.device.state().failure.unwrap();
    assert_eq!(failure, "queue 1: descriptor 300 in a table of 256");
    rig.host.take();
    rig.ring_doorbell(0);
    assert_eq!(rig.host.take(), [], "nothing is served any more");
    assert_eq!(control.send(&mut rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[2, 0]), None);

    rig.write8(reg::DEVICE_STATUS, 0);
    assert_eq!(rig.status(), 0);
    assert_eq!(rig.device.state().failure, None);
    events.fail(&"too late");
    assert_eq!(rig.status(), 0, "a verdict on a former life");
    probe(&mut rig);
    assert_eq!(rig.status(), 15);
}

#[test]
fn queues_that_break_while_they_are_stopped_hold_nobody_up() {
    let (mut rig, ..) = live();
    *rig.host.break_on_stop.lock().unwrap() = true;
    rig.select(2);
    rig.write16(reg::QUEUE_RESET, 1);
    assert_eq!(rig.status() & status::DEVICE_NEEDS_RESET, status::DEVICE_NEEDS_RESET);
    assert_eq!(rig.messages(0), 1);
    rig.write8(reg::DEVICE_STATUS, 0);
    assert_eq!(rig.status(), 0);
    assert_eq!(rig.read::<1>(layout::ISR), [0]);
    assert_eq!(rig.device.state().failure, None);
}

#[test]
fn a_queue_that_cannot_start_asks_for_a_reset() {
    let mut rig = Rig::with_bus_master(config());
    *rig.host.refuse.lock().unwrap() = true;
    probe(&mut rig);
    assert_eq!(rig.status(), 15 | status::DEVICE_NEEDS_RESET);
    assert_eq!(rig.messages(0), 1);
    assert!(rig.device.state().failure.unwrap().contains("host_events to refuse"));
    rig.write8(reg::DEVICE_STATUS, 0);
    *rig.host.refuse.lock().unwrap() = false;
    probe(&mut rig);
    assert_eq!(rig.status(), 15);
}

#[test]
fn a_driver_without_a_mapped_bar_uses_the_window() {
    let mut rig = Rig::new(config());
    rig.window_point(u64::from(reg::DEVICE_STATUS), 1);
    rig.device.config_write(4, cap::PCI_CFG_DATA, &[status::ACKNOWLEDGE, 0, 0, 0]);
    assert_eq!(rig.status(), status::ACKNOWLEDGE);
    let mut data = [0xa5; 4];
    assert!(rig.device.config_read(4, cap::PCI_CFG_DATA, &mut data));
    assert_eq!(data[0], status::ACKNOWLEDGE, "1 byte of 4");

    // A write while it points elsewhere writes nothing there.
    rig.window_point(u64::from(reg::DEVICE_FEATURE_SELECT), 1);
    assert_eq!(rig.read32(reg::DEVICE_FEATURE_SELECT), 0);

    rig.window_point(layout::DEVICE, 4);
    assert!(rig.device.config_read(4, cap::PCI_CFG_DATA, &mut data));
    assert_eq!(data, MAC[..4]);
    let mut byte = [0];
    assert!(rig.device.config_read(4, cap::PCI_CFG_DATA + 2, &mut byte));
    assert_eq!(byte, [MAC[2]]);

    for (offset, len) in [(1, 2), (2, 4), (0, 3), (0, 0), (0, 8)] {
        rig.window_point(offset, len);
        assert!(!rig.device.config_read(4, cap::PCI_CFG_DATA, &mut data), "{len} at {offset}");
    }
    rig.window_point(0, 4);
    assert!(!rig.device.config_read(4, cap::LENGTH, &mut data), "the space knows that");
    assert!(!rig.device.config_read(4, cap::PCI_CFG_DATA, &mut [0; 5]));
    assert!(!rig.device.config_read(0, cap::PCI_CFG_DATA, &mut data));
    rig.device.config_write(4, cap::BAR, &[2]);
    assert!(rig.device.config_read(4, cap::PCI_CFG_DATA, &mut data));
    assert_eq!(data, [0; 4], "no structure of ours there");
}

#[test]
fn doorbells_are_found_by_address_alone() {
    assert_eq!(layout::doorbell_offset(7), 0x301c);
    assert_eq!(layout::doorbell(0x301c), Some(7));
    assert_eq!(layout::doorbell(0x301e), Some(7));
    assert_eq!(layout::doorbell(0x2fff), None);
    assert_eq!(layout::doorbell(0x4000), None);
    let (mut rig, ..) = live();
    rig.host.take();
    for data in [&[][..], &[9], &[0xff, 0xff], &[0; 4], &[0; 8]] {
        rig.device.write(layout::BAR, layout::doorbell_offset(2), data);
    }
    assert_eq!(rig.host.take(), vec![HostEvent::Notify(2); 4]);
    for queue in [5, 100, 1023] {
        rig.ring_doorbell(queue);
    }
    assert_eq!(rig.host.take(), []);
}
