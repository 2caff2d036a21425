//! These tests check queue pairs, RSS and hash configuration (5.1.6.5.5 to 5.1.6.5.7).

use super::*;
use manifold_virtio::net::{HashConfig, Indirection, Steering};
use manifold_virtio::spec::net::hash_type;

/// Returns what [`rss`] asks for.
fn rss_steering() -> Steering {
    Steering {
        pairs: 2,
        hash: Some(HashConfig { types: 0x3f, key: std::array::from_fn(|at| at as u8 + 10) }),
        table: Some(Indirection { entries: (0..128).map(|at| at % 2).collect(), unclassified: 1 }),
    }
}

fn hash_steering() -> HashConfig {
    HashConfig { types: 9, key: std::array::from_fn(|at| at as u8 + 50) }
}

fn set_pairs(rig: &mut Rig, control: &Control, pairs: u16) {
    control.ok(rig, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &pairs.to_le_bytes());
}

/// Returns the steering in force, which the host was told last.
fn steering(rig: &Rig) -> Steering {
    let steering = rig.device.steering().clone();
    assert_eq!(rig.host.last_steering().as_ref(), Some(&steering));
    steering
}

#[test]
fn pairs_are_from_one_to_the_maximum() {
    let (mut rig, control) = live(0);
    for (pairs, ok) in [(2u16, true), (0, false), (3, false), (0x8000, false), (1, true)] {
        if ok {
            set_pairs(&mut rig, &control, pairs);
            assert_eq!(steering(&rig), Steering { pairs, ..Steering::default() });
        } else {
            let data = pairs.to_le_bytes();
            refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &data);
        }
    }
    for data in [&[][..], &[1], &[1, 0, 0]] {
        refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, data);
    }
}

#[test]
fn sixteen_pairs() {
    let config = NetConfig { queue_pairs: 16, ..config() };
    let (mut rig, control) = live_with(config, 0, &[]);
    assert_eq!(control.index, 32);
    set_pairs(&mut rig, &control, 16);
    assert_eq!(steering(&rig).pairs, 16);
    refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[17, 0]);
    let mut table = rss();
    table[8..10].copy_from_slice(&15u16.to_le_bytes());
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &table);
    assert_eq!(steering(&rig).table.unwrap().entries[..3], [15, 1, 0]);
    table[8] = 16;
    refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &table);
}

#[test]
fn rss_as_linux_configures_it() {
    let (mut rig, control) = live(0);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    assert_eq!(steering(&rig), rss_steering());
    // This is ethtool -K rxhash off: the table stays, and everything is unclassified.
    let mut off = rss();
    off[..4].fill(0);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &off);
    assert_eq!(steering(&rig), Steering { hash: None, ..rss_steering() });
}

/// Windows sends `sizeof(struct virtio_net_rss_config)` with one byte of key and padding, all zero
/// but the number of transmit queues.
#[test]
fn rss_as_windows_switches_it_off() {
    let (mut rig, control) = live(0);
    let mut data = [0; 16];
    data[10] = 2;
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &data);
    let table = Some(Indirection { entries: vec![0], unclassified: 0 });
    assert_eq!(steering(&rig), Steering { pairs: 2, hash: None, table });
}

#[test]
fn every_type_and_length_of_rss() {
    let (mut rig, control) = live(0);
    for entries in [1usize, 2, 4, 64, 128] {
        for key in [1usize, 16, 39, 40] {
            let mut data = hash_type::ALL.to_le_bytes().to_vec();
            data.extend((entries as u16 - 1).to_le_bytes());
            data.extend([0; 2]);
            data.extend(vec![0; 2 * entries]);
            data.extend(1u16.to_le_bytes());
            data.push(key as u8);
            data.extend(vec![7; key]);
            control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &data);
            let now = steering(&rig);
            assert_eq!(now.table.unwrap().entries, vec![0; entries]);
            let hash = now.hash.unwrap();
            assert_eq!(hash.types, 0x1ff);
            let (given, rest) = hash.key.split_at(key);
            assert!(given.iter().all(|byte| *byte == 7) && rest.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn malformed_rss_is_refused() {
    let (mut rig, control) = live(0);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    let good = rss();
    for len in 0..good.len() {
        refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &good[..len]);
    }
    let tail = 8 + 256;
    let cases: [(&str, usize, &[u8]); 13] = [
        ("a hash type that is not supported", 0, &0x200u32.to_le_bytes()),
        ("the highest hash type", 0, &0x8000_0001u32.to_le_bytes()),
        ("a table of 127", 4, &126u16.to_le_bytes()),
        ("a table of 256", 4, &255u16.to_le_bytes()),
        ("a table of 65536", 4, &0xffffu16.to_le_bytes()),
        ("unclassified frames to a queue that does not exist", 6, &2u16.to_le_bytes()),
        ("unclassified frames to a queue with the reserved bit", 6, &0x8000u16.to_le_bytes()),
        ("a first entry that does not exist", 8, &2u16.to_le_bytes()),
        ("a last entry that does not exist", tail - 2, &2u16.to_le_bytes()),
        ("no transmit queue", tail, &0u16.to_le_bytes()),
        ("too many transmit queues", tail, &3u16.to_le_bytes()),
        ("a key too long for the device", tail + 2, &[41]),
        ("types without a key", tail + 2, &[0]),
    ];
    for (what, at, bytes) in cases {
        let mut bad = rss();
        bad.extend([0; 8]);
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        assert_ne!(bad[..good.len()], good[..], "{what}");
        refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &bad);
    }
    assert_eq!(*rig.device.steering(), rss_steering());
    assert!(!needs_reset(&mut rig));
}

#[test]
fn hashes_are_reported_without_rss() {
    let (mut rig, control) = live(feature::RSS);
    assert_eq!(rig.device.steering().hash, None, "nothing to begin with");
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &hash());
    let expected = Steering { hash: Some(hash_steering()), ..Steering::default() };
    assert_eq!(steering(&rig), expected);
    // Linux has sent this in the reserved fields.
    let mut linux = hash();
    linux[10..12].copy_from_slice(&2u16.to_le_bytes());
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &linux);
    set_pairs(&mut rig, &control, 2);
    assert_eq!(steering(&rig), Steering { pairs: 2, ..expected }, "goes on");
    let good = hash();
    for len in 0..good.len() {
        refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &good[..len]);
    }
    for (at, byte) in [(1, 2), (3, 1), (12, 41), (12, 0)] {
        let mut bad = hash();
        bad[at] = byte;
        bad.push(0);
        refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &bad);
    }
    let mut off = hash();
    off[0] = 0;
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &off);
    assert_eq!(steering(&rig), Steering { pairs: 2, ..Steering::default() });
}

#[test]
fn one_queue_pair_reports_hashes_too() {
    let (mut rig, control) = live_with(NetConfig { queue_pairs: 1, ..config() }, 0, &[]);
    assert_eq!(rig.offered() & feature::MULTIQUEUE, 0);
    assert_eq!(control.index, 2);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &hash());
    assert_eq!(steering(&rig).hash, Some(hash_steering()));
}

/// 5.1.6.5.5 says: "the resulting device configuration is defined by the last command".
#[test]
fn the_last_mode_set_is_in_force() {
    let (mut rig, control) = live(0);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    set_pairs(&mut rig, &control, 1);
    let hash_only = Steering { pairs: 1, table: None, ..rss_steering() };
    assert_eq!(steering(&rig), hash_only, "hashes go on being reported");
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_HASH_CONFIG, &hash());
    let expected = Steering { pairs: 2, hash: Some(hash_steering()), table: None };
    assert_eq!(steering(&rig), expected);

    let (mut rig, control) = live(feature::HASH_REPORT);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    set_pairs(&mut rig, &control, 1);
    assert_eq!(steering(&rig), Steering::default(), "nobody needs hashes any more");
}

#[test]
fn rss_alone_is_multiqueue() {
    let (mut rig, control) = live(feature::MQ);
    assert_eq!(control.index, 4, "after two pairs");
    refused(&mut rig, &control, ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET, &[2, 0]);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    assert_eq!(steering(&rig), rss_steering());
}

#[test]
fn a_reset_ends_all_steering() {
    let (mut rig, control) = live(0);
    control.ok(&mut rig, ctrl::MQ, ctrl::MQ_RSS_CONFIG, &rss());
    rig.host.take();
    rig.write8(reg::DEVICE_STATUS, 0);
    assert_eq!(steering(&rig), Steering::default());
}
