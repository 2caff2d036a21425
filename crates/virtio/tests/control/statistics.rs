//! These tests check device statistics (virtio 1.4, 5.1.6.5.11).

use super::*;
use manifold_virtio::spec::net::statistics as spec;

const OFFERED: u64 = spec::CVQ | spec::RX_BASIC | spec::RX_GSO | spec::TX_BASIC | spec::TX_CSUM;

fn query(rig: &mut Rig, control: &Control) -> u64 {
    let types = control.get(rig, ctrl::STATS, ctrl::STATS_QUERY, &[], 8);
    u64::from_le_bytes(types.try_into().unwrap())
}

fn request(of: &[(u16, u64)]) -> Vec<u8> {
    let one = |(queue, types): &(u16, u64)| {
        // The device does not look at the reserved fields.
        [queue.to_le_bytes().to_vec(), vec![1, 2, 3, 4, 5, 6], types.to_le_bytes().to_vec()]
            .concat()
    };
    of.iter().flat_map(one).collect()
}

/// Returns queue, number of the type and counters of each reply.
fn replies(mut result: &[u8]) -> Vec<(u16, u8, Vec<u64>)> {
    let mut replies = Vec::new();
    while let [kind, 0, q0, q1, 0, 0, s0, s1, rest @ ..] = result {
        let size = usize::from(u16::from_le_bytes([*s0, *s1]));
        let (counters, rest) = rest.split_at(size - spec::HEADER);
        let counters = counters.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap()));
        replies.push((u16::from_le_bytes([*q0, *q1]), *kind, counters.collect()));
        result = rest;
    }
    assert!(result.is_empty(), "{result:?}");
    replies
}

fn get(rig: &mut Rig, control: &Control, of: &[(u16, u64)]) -> Vec<(u16, u8, Vec<u64>)> {
    replies(&control.get(rig, ctrl::STATS, ctrl::STATS_GET, &request(of), 0x4000))
}

#[test]
fn what_is_known_is_offered() {
    let (mut rig, control) = live(0);
    assert_eq!(query(&mut rig, &control), OFFERED);
    refused(&mut rig, &control, ctrl::STATS, ctrl::STATS_QUERY, &[0]);
    // Linux asks for everything that is named, so nothing is named that would be refused.
    let guest_gso = feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_ECN;
    let (mut rig, control) = live(guest_gso);
    assert_eq!(query(&mut rig, &control), OFFERED & !spec::RX_GSO);
    let (mut rig, control) = live(feature::GUEST_TSO4);
    assert_eq!(query(&mut rig, &control), OFFERED);
    let host = feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN | feature::HOST_USO;
    let (mut rig, control) = live(feature::CSUM | host);
    assert_eq!(query(&mut rig, &control), OFFERED & !spec::TX_CSUM);
    refused(&mut rig, &control, ctrl::STATS, ctrl::STATS_GET, &request(&[(1, spec::TX_CSUM)]));
}

/// The test asks in Linux's order, with the sizes it has set aside, and reads the fields as it
/// does.
#[test]
fn linux_gets_what_it_asks_for() {
    let (mut rig, control) = live_with(config(), 0, &[0, 1, 2, 3]);
    let receive = spec::RX_BASIC | spec::RX_GSO;
    let transmit = spec::TX_BASIC | spec::TX_CSUM;
    let all = [(0, receive), (1, transmit), (2, receive), (3, transmit), (4, spec::CVQ)];
    let size = 2 * (56 + 40) + 2 * (56 + 24) + 24;
    let result = control.get(&mut rig, ctrl::STATS, ctrl::STATS_GET, &request(&all), size);
    assert_eq!(result.len(), size as usize);
    // The counters are those of common::statistics: thousands are the queue, the rest is the field.
    // There are more partial checksums than packets, as when the counters are read while they
    // change.
    assert_eq!(
        replies(&result),
        [
            (0, 0, vec![4, 1, 2, 3, 5, 6]),
            (0, 2, vec![9, 10, 0, 0]),
            (1, 16, vec![1004, 1001, 1002, 1003, 1005, 1007]),
            (1, 17, vec![0, 1008]),
            (2, 0, vec![2004, 2001, 2002, 2003, 2005, 2006]),
            (2, 2, vec![2009, 2010, 0, 0]),
            (3, 16, vec![3004, 3001, 3002, 3003, 3005, 3007]),
            (3, 17, vec![0, 3008]),
            (4, 32, vec![1, 1]),
        ]
    );
}

#[test]
fn one_error_refuses_the_whole_request() {
    let (mut rig, control) = live(0);
    let good = (0, spec::RX_BASIC);
    for bad in [
        (5, 0),
        (0xffff, spec::RX_BASIC),
        (0, spec::TX_BASIC),
        (0, spec::CVQ),
        (1, spec::RX_BASIC),
        (1, spec::CVQ),
        (4, spec::RX_BASIC),
        (4, spec::CVQ | 1 << 33),
        (0, spec::RX_CSUM),
        (0, spec::RX_SPEED),
        (1, spec::TX_GSO),
        (1, spec::TX_SPEED),
        (0, spec::RX_BASIC | 1 << 4),
        (0, 1 << 63),
    ] {
        for of in [&[bad][..], &[good, bad], &[bad, good]] {
            refused(&mut rig, &control, ctrl::STATS, ctrl::STATS_GET, &request(of));
        }
    }
    for len in [1, 15, 17, 31] {
        refused(&mut rig, &control, ctrl::STATS, ctrl::STATS_GET, &vec![0; len]);
    }
}

#[test]
fn an_answer_is_as_long_as_what_was_asked_for_and_as_there_is_room() {
    let (mut rig, control) = live(0);
    assert_eq!(get(&mut rig, &control, &[]), []);
    assert_eq!(get(&mut rig, &control, &[(0, 0), (4, 0)]), []);
    let twice = get(&mut rig, &control, &[(2, spec::RX_BASIC), (2, spec::RX_BASIC)]);
    assert_eq!((twice.len(), &twice[0]), (2, &twice[1]));
    let whole = control.get(
        &mut rig,
        ctrl::STATS,
        ctrl::STATS_GET,
        &request(&[(0, spec::RX_BASIC), (2, spec::RX_BASIC)]),
        1000,
    );
    assert_eq!(whole.len(), 112);
    for room in [0u32, 1, 8, 56, 57, 111] {
        let of = request(&[(0, spec::RX_BASIC), (2, spec::RX_BASIC)]);
        let part = control.get(&mut rig, ctrl::STATS, ctrl::STATS_GET, &of, room);
        assert_eq!(part, whole[..room as usize]);
    }
    // This is the longest request there can be, for far more than fits anywhere.
    let most = request(&vec![(0, spec::RX_BASIC | spec::RX_GSO); 4095]);
    let result = control.get(&mut rig, ctrl::STATS, ctrl::STATS_GET, &most, 0xf000);
    assert_eq!(result.len(), 0xf000);
    assert!(!needs_reset(&mut rig));
}

#[test]
fn commands_are_counted_across_resets() {
    let (mut rig, control) = live(0);
    control.refused(&mut rig, 0x77, 0, &[]);
    control.ok(&mut rig, ctrl::RX, ctrl::RX_PROMISC, &[1]);
    assert_eq!(get(&mut rig, &control, &[(4, spec::CVQ)]), [(4, 32, vec![3, 2])]);
    rig.write8(reg::DEVICE_STATUS, 0);
    let features = rig.offered() & !common_feature::RING_PACKED;
    assert!(drive_to_features_ok(&mut rig, features));
    let control = Control::new(&mut rig, 4);
    rig.write16(reg::QUEUE_ENABLE, 1);
    rig.add_status(status::DRIVER_OK);
    assert_eq!(get(&mut rig, &control, &[(4, spec::CVQ)]), [(4, 32, vec![4, 3])]);
}
