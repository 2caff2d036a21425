//! These tests check what a device offers and says of itself: features, configuration space, queue
//! sizes.

mod common;

use std::sync::Arc;

use common::{MAC, Rig, config, drive_to_features_ok};
use manifold_dma::Domain;
use manifold_pci::{DeviceModel, Msix, Nic};
use manifold_virtio::Error;
use manifold_virtio::net::{NetConfig, NetDevice, PLAIN, SPEED_UNKNOWN, SUPPORTED};
use manifold_virtio::spec::net::{config as net_config, feature as net_feature};
use manifold_virtio::spec::pci::common as reg;
use manifold_virtio::spec::{feature, status};
use manifold_virtio::transport::layout;

fn at(offset: usize) -> u64 {
    layout::DEVICE + offset as u64
}

#[test]
fn configuration_is_read_field_by_field() {
    let mut rig = Rig::new(NetConfig { speed: 25_000, ..config() });
    assert_eq!(rig.read::<6>(at(net_config::MAC)), MAC);
    assert_eq!(rig.read::<2>(at(net_config::STATUS)), [1, 0]);
    assert_eq!(rig.read::<2>(at(net_config::MAX_VIRTQUEUE_PAIRS)), [2, 0]);
    assert_eq!(rig.read::<2>(at(net_config::MTU)), 9000u16.to_le_bytes());
    assert_eq!(rig.read::<4>(at(net_config::SPEED)), 25_000u32.to_le_bytes());
    assert_eq!(rig.read::<1>(at(net_config::DUPLEX)), [1], "DUPLEX_FULL of Linux");
    assert_eq!(rig.read::<1>(at(net_config::RSS_MAX_KEY_SIZE)), [40]);
    assert_eq!(rig.read::<2>(at(net_config::RSS_MAX_INDIRECTION_TABLE_LENGTH)), [128, 0]);
    assert_eq!(rig.read::<4>(at(net_config::SUPPORTED_HASH_TYPES)), [0xff, 1, 0, 0]);
    assert_eq!(rig.read::<4>(at(net_config::SUPPORTED_TUNNEL_TYPES)), [0; 4]);
    assert_eq!(rig.read::<1>(at(5)), [0x56], "bytes by themselves");
    assert_eq!(rig.read::<8>(at(net_config::SIZE)), [0; 8], "nothing follows");
    rig.device.write(layout::BAR, at(0), &[9; 28]);
    assert_eq!(rig.read::<6>(at(net_config::MAC)), MAC, "read-only");
}

#[test]
fn fields_exist_where_their_feature_is_offered() {
    let fields = |offer: u64| {
        let mut rig = Rig::new(NetConfig { offer, ..config() });
        let all: [u8; 28] = rig.read(layout::DEVICE);
        all[net_config::SPEED..].to_vec()
    };
    assert_eq!(fields(PLAIN), [0; 16]);
    let speed = fields(PLAIN | net_feature::SPEED_DUPLEX);
    assert_eq!(speed[..5], [0x10, 0x27, 0, 0, 1], "10 Gbit/s, full duplex");
    assert_eq!(speed[5..], [0; 11]);
    let report = fields(PLAIN | net_feature::HASH_REPORT);
    assert_eq!(report, [0, 0, 0, 0, 0, 40, 0, 0, 0xff, 1, 0, 0, 0, 0, 0, 0]);
    let rss = fields(PLAIN | net_feature::RSS);
    assert_eq!(rss, [0, 0, 0, 0, 0, 40, 128, 0, 0xff, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn features_depend_on_the_configuration() {
    let mut all = Rig::new(config());
    assert_eq!(all.offered(), SUPPORTED);
    let mut one = Rig::new(NetConfig { queue_pairs: 1, ..config() });
    assert_eq!(one.offered(), SUPPORTED & !(net_feature::MQ | net_feature::RSS));
    assert_eq!(one.read16(reg::NUM_QUEUES), 3);
    let mut pf = Rig::new(NetConfig { sr_iov: true, ..config() });
    assert_eq!(pf.offered(), SUPPORTED | feature::SR_IOV);
    assert_eq!(pf.read16(reg::NUM_QUEUES), 5);
    pf.device.offer_sr_iov(false);
    assert_eq!(pf.offered() & feature::SR_IOV, 0);
    pf.write32(reg::DEVICE_FEATURE_SELECT, 2);
    assert_eq!(pf.read32(reg::DEVICE_FEATURE), 0);
}

#[test]
fn what_is_offered_is_configured() {
    let mut plain = Rig::new(NetConfig { offer: PLAIN, ..config() });
    assert_eq!(plain.offered(), PLAIN);
    assert!(!drive_to_features_ok(&mut plain, PLAIN | net_feature::CSUM));
    assert!(!drive_to_features_ok(&mut plain, PLAIN | feature::RING_PACKED));
    assert!(drive_to_features_ok(&mut plain, PLAIN));
    let mut nothing = Rig::new(NetConfig { offer: 0, ..config() });
    assert_eq!(nothing.offered(), feature::VERSION_1);
    assert!(drive_to_features_ok(&mut nothing, feature::VERSION_1));
}

#[test]
fn illegal_feature_sets_are_refused_and_legal_ones_then_taken() {
    let mut rig = Rig::new(config());
    let offered = rig.offered();
    let version_1 = feature::VERSION_1;
    for illegal in [
        0,
        offered & !version_1,
        offered | feature::ORDER_PLATFORM,
        offered | feature::NOTIFICATION_DATA,
        offered | 1 << 10,
    ] {
        assert!(!drive_to_features_ok(&mut rig, illegal), "{illegal:#x}");
        assert_eq!(rig.status(), status::ACKNOWLEDGE | status::DRIVER);
        rig.add_status(status::DRIVER_OK);
        assert_eq!(rig.status() & status::DRIVER_OK, 0, "not live without features");
    }
    for legal in [version_1, offered, version_1 | net_feature::CTRL_VQ | net_feature::MQ] {
        assert!(drive_to_features_ok(&mut rig, legal), "{legal:#x}");
    }
    rig.choose(version_1);
    rig.write32(reg::DRIVER_FEATURE_SELECT, 0);
    let low = (net_feature::CTRL_VQ | net_feature::MQ) as u32;
    assert_eq!(rig.read32(reg::DRIVER_FEATURE), low, "fixed with FEATURES_OK");
    assert_eq!(rig.device.state().features, version_1 | net_feature::CTRL_VQ | net_feature::MQ);
}

/// Features are given by bit number, so that the constants are checked as well: 5.1.3.1, and what
/// 5.1.4.2 advises against.
#[test]
fn features_require_others() {
    let ctrl_vq: &[u32] = &[17];
    let requirements: [(u32, &[u32], &[u32]); 21] = [
        // Each row is a feature, those of which one is needed, and what these need in turn.
        (7, &[1], &[]),
        (8, &[1], &[]),
        (9, &[7, 8], &[1]),
        (54, &[1], &[]),
        (55, &[1], &[]),
        (11, &[0], &[]),
        (12, &[0], &[]),
        (13, &[11, 12], &[0]),
        (56, &[0], &[]),
        (18, ctrl_vq, &[]),
        (19, ctrl_vq, &[]),
        (20, ctrl_vq, &[]),
        (21, ctrl_vq, &[]),
        (22, ctrl_vq, &[]),
        (23, ctrl_vq, &[]),
        (2, ctrl_vq, &[]),
        (50, ctrl_vq, &[]),
        (52, ctrl_vq, &[]),
        (53, ctrl_vq, &[]),
        (57, ctrl_vq, &[]),
        (60, ctrl_vq, &[]),
    ];
    let mut rig = Rig::new(config());
    let offered = rig.offered();
    let set = |bits: &[u32]| bits.iter().fold(0u64, |set, bit| set | 1 << bit);
    for (bit, any_of, more) in requirements {
        let alone = feature::VERSION_1 | 1 << bit | set(more);
        assert!(!drive_to_features_ok(&mut rig, alone), "{bit} alone");
        let dependents = requirements.iter().filter(|(_, any_of, _)| any_of.contains(&bit));
        let dependents: Vec<u32> = dependents.map(|(bit, ..)| *bit).collect();
        for one in any_of {
            assert!(drive_to_features_ok(&mut rig, alone | 1 << one), "{bit} with {one}");
        }
        let without = offered & !set(any_of);
        assert!(!drive_to_features_ok(&mut rig, without), "{bit} and all but {any_of:?}");
        if dependents.is_empty() {
            assert!(drive_to_features_ok(&mut rig, offered & !(1 << bit)), "all but {bit}");
        }
    }
}

#[test]
fn features_beyond_64_bits_are_refused() {
    let mut rig = Rig::new(config());
    rig.choose(SUPPORTED);
    rig.write32(reg::DRIVER_FEATURE_SELECT, 2);
    rig.write32(reg::DRIVER_FEATURE, 2);
    assert_eq!(rig.read32(reg::DRIVER_FEATURE), 2);
    rig.add_status(status::FEATURES_OK);
    assert_eq!(rig.status(), 0);
    rig.write32(reg::DRIVER_FEATURE, 0);
    rig.add_status(status::FEATURES_OK);
    assert_eq!(rig.status(), status::FEATURES_OK);
}

#[test]
fn the_control_queue_is_where_the_features_put_it() {
    let mut rig = Rig::new(config());
    let sizes = |rig: &mut Rig| {
        (0..6)
            .map(|queue| {
                rig.select(queue);
                rig.read16(reg::QUEUE_SIZE)
            })
            .collect::<Vec<_>>()
    };
    let (mq, rss) = (net_feature::MQ, net_feature::RSS);
    for multiqueue in [SUPPORTED, SUPPORTED & !mq, SUPPORTED & !rss] {
        assert!(drive_to_features_ok(&mut rig, multiqueue));
        assert_eq!(sizes(&mut rig), [256, 256, 256, 256, 64, 0]);
    }
    assert!(drive_to_features_ok(&mut rig, SUPPORTED & !(mq | rss)));
    assert_eq!(sizes(&mut rig), [256, 256, 64, 0, 0, 0]);
    assert!(drive_to_features_ok(&mut rig, feature::VERSION_1));
    assert_eq!(sizes(&mut rig), [256, 256, 0, 0, 0, 0]);
}

#[test]
fn split_queue_sizes_are_powers_of_two_up_to_the_maximum() {
    let mut rig = Rig::new(config());
    assert!(drive_to_features_ok(&mut rig, SUPPORTED & !feature::RING_PACKED));
    rig.select(0);
    for (written, read) in
        [(0, 256), (3, 256), (512, 256), (128, 128), (257, 128), (1, 1), (256, 256), (0, 256)]
    {
        rig.write16(reg::QUEUE_SIZE, written);
        assert_eq!(rig.read16(reg::QUEUE_SIZE), read, "after {written}");
    }
}

#[test]
fn packed_queue_sizes_are_any_up_to_the_maximum() {
    let mut rig = Rig::new(config());
    assert!(drive_to_features_ok(&mut rig, SUPPORTED));
    for (index, max) in [(0, 256), (3, 256), (4, 64)] {
        rig.select(index);
        assert_eq!(rig.read16(reg::QUEUE_SIZE), max);
        for size in 1..=max {
            rig.write16(reg::QUEUE_SIZE, size);
            assert_eq!(rig.read16(reg::QUEUE_SIZE), size);
        }
        for bad in [0, max + 1, 0x8000, 0xffff] {
            rig.write16(reg::QUEUE_SIZE, bad);
            assert_eq!(rig.read16(reg::QUEUE_SIZE), max, "after {bad}");
        }
    }
}

#[test]
fn configurations_out_of_range_are_refused() {
    let make = |config: NetConfig| {
        let msix = Msix::new(6).unwrap();
        let host = Arc::new(common::Host::default());
        NetDevice::new(config, Domain::new("x"), &msix, host).map(|_| ())
    };
    let ok = config();
    assert_eq!(make(ok.clone()), Ok(()));
    assert_eq!(make(NetConfig { queue_pairs: 0, ..ok.clone() }), Err(Error::QueuePairs(0)));
    assert_eq!(make(NetConfig { queue_pairs: 17, ..ok.clone() }), Err(Error::QueuePairs(17)));
    assert_eq!(make(NetConfig { queue_size: 100, ..ok.clone() }), Err(Error::QueueSize(100)));
    assert_eq!(make(NetConfig { queue_size: 1, ..ok.clone() }), Err(Error::QueueSize(1)));
    assert_eq!(make(NetConfig { mtu: 67, ..ok.clone() }), Err(Error::Mtu(67)));
    assert_eq!(
        make(NetConfig { mac: [1; 6].into(), ..ok.clone() }),
        Err(Error::Mac([1; 6].into()))
    );
    assert_eq!(
        make(NetConfig { mac: [0; 6].into(), ..ok.clone() }),
        Err(Error::Mac([0; 6].into()))
    );
    for speed in [0, 0x7fff_ffff, SPEED_UNKNOWN] {
        assert_eq!(make(NetConfig { speed, ..ok.clone() }), Ok(()));
    }
    for speed in [0x8000_0000, SPEED_UNKNOWN - 1] {
        assert_eq!(make(NetConfig { speed, ..ok.clone() }), Err(Error::Speed(speed)));
    }
    for bad in [1 << 10, 1 << 63 >> 1, feature::SR_IOV, feature::NOTIFICATION_DATA] {
        let offer = SUPPORTED | bad;
        assert_eq!(make(NetConfig { offer, ..ok.clone() }), Err(Error::Unsupported(bad)));
    }
    // Linux would refuse such a device, or stop the machine.
    let offer = SUPPORTED & !net_feature::CTRL_VQ;
    let error = make(NetConfig { offer, ..ok.clone() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the features offered do not go together: \
         VIRTIO_NET_F_CTRL_RX requires VIRTIO_NET_F_CTRL_VQ"
    );
    let offer = net_feature::MQ;
    let error = make(NetConfig { offer, ..ok.clone() }).unwrap_err();
    assert!(matches!(error, Error::Offer(message) if message.contains("F_MQ requires")));
    assert_eq!(make(NetConfig { offer, queue_pairs: 1, ..ok }), Ok(()), "not offered then");
}
