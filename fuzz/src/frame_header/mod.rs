//! The fuzz target's body makes a switch and frames out of bytes, and compares the table with the
//! reference model.

use std::collections::{BTreeSet, HashMap};

use manifold_eswitch::{
    Decision, DropReason, Filters, LastDecision, MacAddr, Policy, Source, TableBuilder,
};
use manifold_pci::FunctionId;

mod reference;

use reference::{Outcome, Switch};

/// Builds a switch from the first bytes and classifies the frames in the rest.
///
/// # Panics
///
/// Where the table's answer differs from the reference model's: a bug in one of them.
pub(crate) fn classify(data: &[u8]) {
    let mut input = Input(data);
    let switch = input.switch();
    let mut builder = TableBuilder::new();
    builder.uplink(switch.uplink).max_frame_len(switch.max_frame_len);
    for (id, policy) in &switch.functions {
        builder.function(*id, policy);
    }
    let table = builder.build();
    assert!(table.functions().eq(switch.functions.keys().copied()));
    for conflict in table.conflicts() {
        let given = switch.functions[&conflict.owner].assigned_mac == conflict.mac;
        assert!(given || switch.owner(conflict.mac) == Some(conflict.owner));
        assert_ne!(conflict.owner, conflict.refused);
    }
    // The map holds what each source asked last with a single answer, and the answer.
    let mut recents: HashMap<Source, (LastDecision, Outcome)> = HashMap::new();
    for _ in 0..16 {
        let source = input.source();
        let (frame, frame_len) = input.frame();
        let (recent, answer) = recents.entry(source).or_default();
        // The second decision comes from memory, and the next ones have lengths that may change the
        // answer.
        for len in [frame_len, frame_len, frame_len / 2, frame_len.saturating_add(1)] {
            let expected = switch.classify(source, &frame, len);
            let context = || format!("{switch:?}\n{source:?} {len} {frame:02x?}");
            let decision = table.classify(source, &frame, len);
            if recent.repeats(&frame, len) {
                assert_eq!(*answer, expected, "recent: {}", context());
            } else {
                recent.remember(&frame, len, &decision);
                *answer = outcome(decision);
            }
            assert_eq!(outcome(decision), expected, "{}", context());
        }
        if input.0.is_empty() {
            break;
        }
    }
}

/// Classifies the frames in `data` as [`classify`] does, with the reference model alone, and
/// returns each outcome in short: why it was dropped, how many functions get it, and whether the
/// uplink does.
#[allow(dead_code, reason = "for the test that the generator reaches every outcome")]
pub(crate) fn outcomes(data: &[u8]) -> Vec<(Option<DropReason>, usize, bool)> {
    let mut input = Input(data);
    let switch = input.switch();
    let mut outcomes = Vec::new();
    while !input.0.is_empty() {
        let source = input.source();
        let (frame, len) = input.frame();
        let outcome = switch.classify(source, &frame, len);
        outcomes.push((outcome.dropped, outcome.functions.len(), outcome.uplink));
    }
    outcomes
}

fn outcome(decision: Decision<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    match decision {
        Decision::Function(id) => outcome.functions = BTreeSet::from([id]),
        Decision::Uplink => outcome.uplink = true,
        Decision::Multi(all) => {
            outcome.uplink = all.uplink();
            for id in all.functions() {
                assert!(outcome.functions.insert(id), "{id:?} twice");
            }
        }
        Decision::Drop(reason) => outcome.dropped = Some(reason),
    }
    outcome
}

/// Bytes to take values from, and zeros once they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// Returns one bit of `flags`, taken from the bottom.
    fn flag(flags: &mut u16) -> bool {
        let bit = *flags & 1 != 0;
        *flags >>= 1;
        bit
    }

    /// Returns one of few addresses, so that claims meet: stations, groups, reserved ones, zero and
    /// broadcast.
    fn mac(&mut self) -> MacAddr {
        let byte = self.byte();
        let low = byte & 0x0f;
        MacAddr(match byte >> 4 {
            0..=8 => [2, 0, 0, 0, 0, low],
            9..=11 => [1, 0, 0x5e, 0, 0, low],
            12 => [1, 0x80, 0xc2, 0, 0, low << 1],
            13 => [low & 2, 0, 0, 0, 0, 0],
            14 => [0xff, 0xff, 0xff, 0xff, 0xff, 0xff - (low & 1)],
            _ => std::array::from_fn(|_| self.byte()),
        })
    }

    /// Returns one of few VLANs.
    fn vid(&mut self) -> u16 {
        u16::from(self.byte() & 0x03) * 0x555
    }

    fn id(&mut self) -> FunctionId {
        match self.byte() & 0x07 {
            0 => FunctionId::Pf,
            7 => FunctionId::Vf(255),
            n => FunctionId::Vf(u16::from(n) - 1),
        }
    }

    fn policy(&mut self) -> Policy {
        let mut flags = u16::from_le_bytes([self.byte(), self.byte()]);
        let mac = self.mac();
        let moved = Self::flag(&mut flags) && Self::flag(&mut flags);
        let assigned_mac = if moved { self.mac() } else { mac };
        let mut filters = Filters {
            mac,
            // This bit is rarer than the others: a promiscuous function hides the rest.
            promiscuous: Self::flag(&mut flags) && Self::flag(&mut flags) && Self::flag(&mut flags),
            all_multicast: Self::flag(&mut flags),
            all_unicast: Self::flag(&mut flags) && Self::flag(&mut flags),
            no_multicast: Self::flag(&mut flags),
            no_unicast: Self::flag(&mut flags) && Self::flag(&mut flags),
            no_broadcast: Self::flag(&mut flags),
            vlan_filtering: Self::flag(&mut flags),
            ..Filters::default()
        };
        let counts = self.byte();
        filters.unicast = (0..counts & 0x03).map(|_| self.mac()).collect();
        filters.multicast = (0..counts >> 2 & 0x03).map(|_| self.mac()).collect();
        filters.vlans = (0..counts >> 4 & 0x03).map(|_| self.vid()).collect();
        Policy {
            assigned_mac,
            filters,
            spoofchk: counts & 0x40 != 0,
            link_up: counts & 0x80 == 0 || flags & 1 != 0,
        }
    }

    fn switch(&mut self) -> Switch {
        let flags = self.byte();
        let functions = (0..flags & 0x0f).map(|_| (self.id(), self.policy())).collect();
        Switch {
            functions,
            uplink: flags & 0x10 != 0,
            max_frame_len: if flags & 0x20 != 0 { 1514 } else { 65_549 },
        }
    }

    fn source(&mut self) -> Source {
        let byte = self.byte();
        if byte & 0x40 != 0 { Source::Uplink } else { Source::Function(Input(&[byte]).id()) }
    }

    /// Returns the first bytes of a frame, and its length.
    fn frame(&mut self) -> (Vec<u8>, usize) {
        let mut frame = Vec::new();
        frame.extend(self.mac().octets());
        frame.extend(self.mac().octets());
        let shape = self.byte();
        if shape & 0x01 != 0 {
            frame.extend([0x81, 0x00]);
            let vid = self.vid() | u16::from(shape & 0x0e) << 12;
            frame.extend(vid.to_be_bytes());
        }
        frame.extend([0x08, 0x00]);
        if shape & 0x10 == 0 {
            frame.resize(60, 0);
        }
        match shape >> 5 {
            0 => {
                let len = usize::from(self.byte()) % 20;
                frame.truncate(len);
                (frame, len)
            }
            1 => (frame, 1514),
            2 => (frame, 1515),
            3 => (frame, 1519),
            4 => (frame, usize::from(self.byte())),
            5 => (frame, usize::MAX),
            _ => {
                let len = frame.len();
                (frame, len)
            }
        }
    }
}
