//! These tests check receive modes, the MAC filter table and VLANs (5.1.6.5.1 to 5.1.6.5.3).

use super::*;
use manifold_virtio::transport::layout;

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
    assert_eq!(now.unicast, [uni, MAC].map(MacAddr), "sorted, each once");
    assert_eq!(now.multicast, [MacAddr(multi)]);
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_TABLE_SET, &[table(&[]), table(&[])].concat());
    let now = filters(&rig);
    assert!(now.unicast.is_empty() && now.multicast.is_empty());
    // Addresses count by what they are, not by the table they came in.
    control.ok(
        &mut rig,
        ctrl::MAC,
        ctrl::MAC_TABLE_SET,
        &[table(&[multi]), table(&[uni])].concat(),
    );
    let now = filters(&rig);
    assert_eq!((now.unicast, now.multicast), (vec![MacAddr(uni)], vec![MacAddr(multi)]));
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
fn the_mac_address_shows_in_the_configuration_until_reset() {
    let (mut rig, control) = live(0);
    assert_eq!(rig.read::<6>(layout::DEVICE), MAC);
    let generation = rig.read8(reg::CONFIG_GENERATION);
    let mine = [0x02, 1, 2, 3, 4, 5];
    control.ok(&mut rig, ctrl::MAC, ctrl::MAC_ADDR_SET, &mine);
    assert_eq!(filters(&rig).mac.octets(), mine);
    assert_eq!(rig.read::<6>(layout::DEVICE), mine);
    assert_ne!(rig.read8(reg::CONFIG_GENERATION), generation);
    for bad in [&[0; 6][..], &[0xff; 6], &[1, 0, 0x5e, 0, 0, 1], &[2; 5], &[2; 7], &[]] {
        control.refused(&mut rig, ctrl::MAC, ctrl::MAC_ADDR_SET, bad);
    }
    assert_eq!(filters(&rig).mac.octets(), mine);
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
