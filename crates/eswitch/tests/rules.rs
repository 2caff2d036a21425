//! These tests check the switch's rules one by one, as the crate's documentation tells them.

#![allow(clippy::unwrap_used)] // the helpers of tests

use manifold_eswitch::{
    Decision, DropReason, Filters, MacAddr, Policy, Source, Table, TableBuilder,
};
use manifold_pci::FunctionId::{self, Pf, Vf};

const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0xff]);
const GROUP: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 0xfb]);

fn mac(id: FunctionId) -> MacAddr {
    match id {
        Pf => MacAddr([2, 0, 0, 0, 0, 0]),
        Vf(n) => MacAddr([2, 0, 0, 0, 1, n as u8]),
    }
}

/// A switch of the PF and `vfs` VFs, changed by `change`.
struct Switch {
    policies: Vec<(FunctionId, Policy)>,
    uplink: bool,
}

impl Switch {
    fn new(vfs: u16, uplink: bool) -> Self {
        let ids = std::iter::once(Pf).chain((0..vfs).map(Vf));
        Self { policies: ids.map(|id| (id, Policy::new(mac(id)))).collect(), uplink }
    }

    fn with(mut self, id: FunctionId, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policies.iter_mut().find(|(other, _)| *other == id).unwrap().1);
        self
    }

    fn filters(self, id: FunctionId, change: impl FnOnce(&mut Filters)) -> Self {
        self.with(id, |policy| change(&mut policy.filters))
    }

    fn table(&self) -> Table {
        let mut builder = TableBuilder::new();
        builder.uplink(self.uplink);
        for (id, policy) in &self.policies {
            builder.function(*id, policy);
        }
        builder.build()
    }

    fn send(&self, source: Source, frame: &[u8]) -> Got {
        match self.table().classify(source, frame, frame.len()) {
            Decision::Function(id) => Got::To(vec![id], false),
            Decision::Uplink => Got::To(vec![], true),
            Decision::Multi(all) => {
                let mut functions: Vec<_> = all.functions().collect();
                functions.sort();
                Got::To(functions, all.uplink())
            }
            Decision::Drop(reason) => Got::Drop(reason),
        }
    }

    /// Sends an untagged frame from a function's own address.
    fn sends(&self, id: FunctionId, to: MacAddr) -> Got {
        self.send(Source::Function(id), &frame(to, mac(id), None))
    }

    fn uplink_sends(&self, to: MacAddr) -> Got {
        self.send(Source::Uplink, &frame(to, STRANGER, None))
    }
}

#[derive(Debug, PartialEq)]
enum Got {
    To(Vec<FunctionId>, bool),
    Drop(DropReason),
}

fn to(functions: impl Into<Vec<FunctionId>>) -> Got {
    Got::To(functions.into(), false)
}

fn to_and_uplink(functions: impl Into<Vec<FunctionId>>) -> Got {
    Got::To(functions.into(), true)
}

fn frame(to: MacAddr, from: MacAddr, vid: Option<u16>) -> Vec<u8> {
    let mut frame = [to.octets(), from.octets()].concat();
    if let Some(vid) = vid {
        frame.extend([0x81, 0x00]);
        frame.extend((vid | 0xe000).to_be_bytes());
    }
    frame.extend([0x08, 0x00]);
    frame.resize(60, 0);
    frame
}

#[test]
fn unicast_goes_to_its_owner_alone() {
    let switch = Switch::new(3, true);
    assert_eq!(switch.sends(Vf(0), mac(Vf(2))), to([Vf(2)]));
    assert_eq!(switch.sends(Vf(0), mac(Pf)), to([Pf]));
    assert_eq!(switch.uplink_sends(mac(Vf(1))), to([Vf(1)]));
}

#[test]
fn unknown_unicast_goes_out_or_nowhere() {
    assert_eq!(Switch::new(3, true).sends(Vf(0), STRANGER), to_and_uplink([]));
    assert_eq!(Switch::new(3, false).sends(Vf(0), STRANGER), Got::Drop(DropReason::UnknownUnicast));
    assert_eq!(Switch::new(3, true).uplink_sends(STRANGER), Got::Drop(DropReason::UnknownUnicast));
}

#[test]
fn a_frame_never_returns_to_its_sender() {
    let switch = Switch::new(2, true);
    assert_eq!(switch.sends(Vf(0), mac(Vf(0))), Got::Drop(DropReason::ToSender));
    assert_eq!(switch.sends(Vf(0), MacAddr::BROADCAST), to_and_uplink([Pf, Vf(1)]));
    assert_eq!(switch.uplink_sends(MacAddr::BROADCAST), to([Pf, Vf(0), Vf(1)]));
}

#[test]
fn promiscuous_sees_everything_but_its_own() {
    let switch = Switch::new(3, true).filters(Vf(2), |f| {
        f.promiscuous = true;
        // Promiscuous wins over every other mode.
        f.no_unicast = true;
        f.no_multicast = true;
        f.no_broadcast = true;
        f.vlan_filtering = true;
    });
    assert_eq!(switch.sends(Vf(0), mac(Vf(1))), to([Vf(1), Vf(2)]));
    assert_eq!(switch.sends(Vf(0), mac(Vf(2))), to([Vf(2)]));
    assert_eq!(switch.sends(Vf(0), STRANGER), to_and_uplink([Vf(2)]));
    assert_eq!(switch.sends(Vf(2), STRANGER), to_and_uplink([]));
    assert_eq!(switch.uplink_sends(STRANGER), to([Vf(2)]));
    assert_eq!(switch.uplink_sends(GROUP), to([Vf(2)]));
    assert_eq!(switch.send(Source::Uplink, &frame(STRANGER, STRANGER, Some(7))), to([Vf(2)]));
}

#[test]
fn all_unicast_and_no_unicast() {
    let switch = Switch::new(3, true).filters(Vf(2), |f| f.all_unicast = true);
    assert_eq!(switch.sends(Vf(0), STRANGER), to_and_uplink([Vf(2)]));
    let switch = switch.filters(Vf(2), |f| f.no_unicast = true);
    assert_eq!(switch.sends(Vf(0), STRANGER), to_and_uplink([]));
    assert_eq!(switch.sends(Vf(0), mac(Vf(2))), Got::Drop(DropReason::Filtered));
}

#[test]
fn multicast_goes_to_subscribers_and_out() {
    let switch = Switch::new(4, true)
        .filters(Vf(1), |f| f.multicast = vec![GROUP, GROUP])
        .filters(Vf(2), |f| f.all_multicast = true)
        .filters(Vf(3), |f| {
            f.multicast = vec![GROUP];
            f.all_multicast = true;
            f.no_multicast = true;
        });
    assert_eq!(switch.sends(Vf(0), GROUP), to_and_uplink([Vf(1), Vf(2)]));
    assert_eq!(switch.sends(Vf(1), GROUP), to_and_uplink([Vf(2)]));
    assert_eq!(switch.uplink_sends(MacAddr([1, 0, 0x5e, 0, 0, 1])), to([Vf(2)]));
    assert_eq!(Switch::new(2, false).sends(Vf(0), GROUP), Got::Drop(DropReason::NoReceiver));
}

#[test]
fn no_broadcast_is_honoured_and_no_multicast_leaves_broadcast_alone() {
    let switch = Switch::new(3, false)
        .filters(Vf(1), |f| f.no_broadcast = true)
        .filters(Vf(2), |f| f.no_multicast = true);
    assert_eq!(switch.sends(Vf(0), MacAddr::BROADCAST), to([Pf, Vf(2)]));
}

#[test]
fn vlan_filter_judges_tagged_frames_only() {
    let switch = Switch::new(3, true).filters(Vf(1), |f| {
        f.vlan_filtering = true;
        f.vlans = [100, 4095].into_iter().collect();
    });
    let unicast = |vid| switch.send(Source::Function(Vf(0)), &frame(mac(Vf(1)), mac(Vf(0)), vid));
    let broadcast = |vid| switch.send(Source::Uplink, &frame(MacAddr::BROADCAST, STRANGER, vid));
    for admitted in [None, Some(0), Some(100), Some(4095)] {
        assert_eq!(unicast(admitted), to([Vf(1)]), "{admitted:?}");
        assert_eq!(broadcast(admitted), to([Pf, Vf(0), Vf(1), Vf(2)]), "{admitted:?}");
    }
    for refused in [1, 99, 101, 4094] {
        assert_eq!(unicast(Some(refused)), Got::Drop(DropReason::VlanFiltered), "{refused}");
        assert_eq!(broadcast(Some(refused)), to([Pf, Vf(0), Vf(2)]), "{refused}");
    }
    // The VLAN filter ignores an S-tag.
    let mut service = frame(mac(Vf(1)), mac(Vf(0)), Some(5));
    service[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(switch.send(Source::Function(Vf(0)), &service), to([Vf(1)]));
}

#[test]
fn spoofchk_knows_the_senders_own_addresses() {
    let second = MacAddr([2, 0, 0, 0, 9, 9]);
    let switch = Switch::new(3, true)
        .filters(Vf(0), |f| f.unicast = vec![second])
        .with(Vf(1), |p| p.spoofchk = false);
    let send = |id, from| switch.send(Source::Function(id), &frame(STRANGER, from, None));
    assert_eq!(send(Vf(0), mac(Vf(0))), to_and_uplink([]));
    assert_eq!(send(Vf(0), second), to_and_uplink([]));
    assert_eq!(send(Vf(0), STRANGER), Got::Drop(DropReason::Spoofed));
    assert_eq!(send(Vf(0), mac(Vf(2))), Got::Drop(DropReason::Spoofed));
    assert_eq!(send(Vf(1), mac(Vf(2))), to_and_uplink([]));
}

#[test]
fn nobody_sends_from_an_address_no_station_has() {
    let switch = Switch::new(2, true).with(Vf(1), |p| p.spoofchk = false);
    for from in [MacAddr([0; 6]), MacAddr::BROADCAST, GROUP] {
        for source in [Source::Function(Vf(0)), Source::Function(Vf(1)), Source::Uplink] {
            let got = switch.send(source, &frame(mac(Pf), from, None));
            assert_eq!(got, Got::Drop(DropReason::InvalidSource), "{from} {source:?}");
        }
    }
}

#[test]
fn reserved_addresses_are_not_forwarded() {
    let switch = Switch::new(2, true).filters(Vf(1), |f| f.promiscuous = true);
    for last in 0..=0x20 {
        let group = MacAddr([1, 0x80, 0xc2, 0, 0, last]);
        let (from_function, from_uplink) = (switch.sends(Vf(0), group), switch.uplink_sends(group));
        if last < 0x10 {
            assert_eq!(from_function, Got::Drop(DropReason::LinkLocal), "{group}");
            assert_eq!(from_uplink, Got::Drop(DropReason::LinkLocal), "{group}");
        } else {
            assert_eq!(from_function, to_and_uplink([Vf(1)]), "{group}");
        }
    }
}

#[test]
fn lengths() {
    let policy = Policy::new(mac(Vf(0)));
    let mut builder = TableBuilder::new();
    let table = builder.uplink(true).max_frame_len(1514).function(Vf(0), &policy).build();
    let drop = |frame: &[u8], len| match table.classify(Source::Function(Vf(0)), frame, len) {
        Decision::Drop(reason) => Some(reason),
        _ => None,
    };
    let (plain, tagged) = (frame(STRANGER, mac(Vf(0)), None), frame(STRANGER, mac(Vf(0)), Some(3)));
    for len in 0..14 {
        assert_eq!(drop(&plain[..len], len), Some(DropReason::Runt), "{len}");
        assert_eq!(drop(&plain, len), Some(DropReason::Runt), "{len}");
    }
    assert_eq!(drop(&plain[..14], 14), None);
    assert_eq!(drop(&plain, 1514), None);
    assert_eq!(drop(&plain, 1515), Some(DropReason::Oversize));
    assert_eq!(drop(&plain, usize::MAX), Some(DropReason::Oversize));
    assert_eq!(drop(&tagged[..17], 17), Some(DropReason::Runt));
    assert_eq!(drop(&tagged[..18], 18), None);
    assert_eq!(drop(&tagged, 1518), None);
    assert_eq!(drop(&tagged, 1519), Some(DropReason::Oversize));
}

#[test]
fn link_down_neither_sends_nor_receives_and_keeps_its_address() {
    let switch = Switch::new(2, true)
        .with(Vf(1), |p| p.link_up = false)
        .filters(Vf(1), |f| (f.promiscuous, f.all_multicast) = (true, true));
    assert_eq!(switch.sends(Vf(1), mac(Vf(0))), Got::Drop(DropReason::SourceLinkDown));
    assert_eq!(switch.sends(Vf(0), mac(Vf(1))), Got::Drop(DropReason::LinkDown));
    assert_eq!(switch.sends(Vf(0), MacAddr::BROADCAST), to_and_uplink([Pf]));
    assert_eq!(switch.sends(Vf(0), GROUP), to_and_uplink([]));
}

#[test]
fn who_is_not_in_the_table_sends_nothing() {
    let switch = Switch::new(2, true);
    for id in [Vf(2), Vf(255), Vf(u16::MAX)] {
        assert_eq!(switch.sends(id, mac(Vf(0))), Got::Drop(DropReason::UnknownSource));
    }
}

#[test]
fn lowest_function_wins_a_contested_address() {
    let contested = MacAddr([2, 0, 0, 0, 7, 7]);
    let switch = Switch::new(3, false)
        .filters(Vf(2), |f| f.mac = contested)
        .filters(Vf(1), |f| f.mac = contested)
        .filters(Vf(0), |f| f.unicast = vec![contested]);
    let table = switch.table();
    // The owner is among those who chose the address as theirs; a mere filter comes after.
    assert_eq!(table.owner(contested), Some(Vf(1)));
    let refused: Vec<_> = table.conflicts().iter().map(|c| (c.mac, c.owner, c.refused)).collect();
    assert_eq!(refused, [(contested, Vf(1), Vf(2)), (contested, Vf(1), Vf(0))]);
}

#[test]
fn no_driver_takes_an_address_that_was_given_to_another() {
    let victim = mac(Vf(2));
    let switch = Switch::new(3, false)
        .filters(Vf(0), |f| f.mac = victim)
        .filters(Vf(1), |f| f.unicast = vec![victim]);
    assert_eq!(switch.table().owner(victim), Some(Vf(2)));
    assert_eq!(switch.sends(Pf, victim), to([Vf(2)]));
    // The other cannot have the address even while the owner uses one of its own choice.
    let elsewhere = Switch::new(3, false)
        .filters(Vf(0), |f| f.mac = victim)
        .filters(Vf(2), |f| f.mac = MacAddr([2, 0, 0, 0, 7, 7]));
    assert_eq!(elsewhere.table().owner(victim), None);
    assert_eq!(elsewhere.table().conflicts().len(), 1);
    // The other cannot send as the victim either.
    let forged = frame(mac(Pf), victim, None);
    assert_eq!(switch.send(Source::Function(Vf(0)), &forged), Got::Drop(DropReason::Spoofed));
}

#[test]
fn addresses_of_the_wrong_kind_in_a_filter_are_ignored() {
    let switch = Switch::new(2, false).filters(Vf(1), |f| {
        f.unicast = vec![GROUP, MacAddr([0; 6]), MacAddr::BROADCAST];
        f.multicast = vec![mac(Vf(0)), MacAddr::BROADCAST];
        f.no_broadcast = true;
    });
    assert_eq!(switch.sends(Vf(0), GROUP), Got::Drop(DropReason::NoReceiver));
    assert_eq!(switch.sends(Pf, mac(Vf(0))), to([Vf(0)]));
    assert_eq!(switch.sends(Vf(0), MacAddr::BROADCAST), to([Pf]));
    assert!(switch.table().conflicts().is_empty());
}

#[test]
fn more_groups_than_the_index_holds_let_too_much_through_never_too_little() {
    let group = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        MacAddr([1, 0, 0x5e, a, b, c])
    };
    let switch =
        Switch::new(2, false).filters(Vf(1), |f| f.multicast = (0..70_000).map(group).collect());
    let table = switch.table();
    for n in (0..70_000).step_by(997).chain([65_534, 65_535, 69_999]) {
        let frame = frame(group(n), mac(Vf(0)), None);
        let Decision::Multi(all) = table.classify(Source::Function(Vf(0)), &frame, 60) else {
            panic!("group {n} is lost");
        };
        assert!(all.functions().eq([Vf(1)]));
    }
}
