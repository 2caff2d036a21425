//! These tests check receive offloads (5.1.6.5.8).

use super::*;

const ALL: u64 = feature::GUEST_OFFLOADS;

fn set(rig: &mut Rig, control: &Control, offloads: u64) -> u64 {
    let data = offloads.to_le_bytes();
    control.ok(rig, ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET, &data);
    assert_eq!(rig.host.last_offloads(), Some(rig.device.offloads()));
    rig.device.offloads()
}

#[test]
fn offloads_negotiated_are_on_until_switched_off() {
    let (mut rig, control) = live(0);
    assert_eq!(rig.host.last_offloads(), Some(ALL));
    for offloads in [ALL, 0, ALL, feature::GUEST_CSUM | feature::GUEST_USO4] {
        assert_eq!(set(&mut rig, &control, offloads), offloads);
    }
    // Linux does this for ethtool -K rx-gro-hw off and on.
    let hdr_len = feature::GUEST_HDRLEN;
    assert_eq!(set(&mut rig, &control, feature::GUEST_CSUM | hdr_len), feature::GUEST_CSUM);
    assert_eq!(set(&mut rig, &control, ALL | hdr_len), ALL);
    rig.host.take();
    rig.write8(reg::DEVICE_STATUS, 0);
    assert_eq!(rig.host.last_offloads(), Some(0));
}

#[test]
fn offloads_that_were_not_negotiated_are_refused() {
    let (mut rig, control) =
        live(feature::GUEST_TSO6 | feature::GUEST_USO4 | feature::GUEST_HDRLEN);
    let negotiated = ALL & !(feature::GUEST_TSO6 | feature::GUEST_USO4);
    assert_eq!(rig.host.last_offloads(), Some(negotiated));
    let bad = (0..64).map(|bit| 1u64 << bit).filter(|bit| negotiated & bit == 0);
    for bit in bad {
        let data = (negotiated | bit).to_le_bytes();
        refused(&mut rig, &control, ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET, &data);
    }
    for len in [0, 1, 4, 7, 9, 16] {
        let data = vec![0; len];
        refused(&mut rig, &control, ctrl::GUEST_OFFLOADS, ctrl::GUEST_OFFLOADS_SET, &data);
    }
    assert_eq!(set(&mut rig, &control, negotiated), negotiated);
}

/// The data path is never asked to hand over unsegmented frames to a driver that wants whole
/// checksums.
#[test]
fn an_offload_is_in_force_with_what_it_requires() {
    let (mut rig, control) = live(0);
    assert_eq!(set(&mut rig, &control, ALL & !feature::GUEST_CSUM), 0);
    let ecn = feature::GUEST_CSUM | feature::GUEST_ECN;
    assert_eq!(set(&mut rig, &control, ecn), feature::GUEST_CSUM);
    let ecn = ecn | feature::GUEST_TSO6;
    assert_eq!(set(&mut rig, &control, ecn), ecn);
}
