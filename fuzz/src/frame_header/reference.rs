//! The reference model has the rules of the switch without any of the table's machinery: ask every
//! function about every frame. Tests and the fuzz target hold the table against it.

use std::collections::{BTreeMap, BTreeSet};

use manifold_eswitch::{DropReason, MacAddr, Policy, Source};
use manifold_pci::FunctionId;

/// Everything that the switch was told.
#[derive(Debug, Default)]
pub(super) struct Switch {
    pub(super) functions: BTreeMap<FunctionId, Policy>,
    pub(super) uplink: bool,
    pub(super) max_frame_len: u32,
}

/// The result for one frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) functions: BTreeSet<FunctionId>,
    pub(super) uplink: bool,
    pub(super) dropped: Option<DropReason>,
}

impl Switch {
    pub(super) fn owner(&self, mac: MacAddr) -> Option<FunctionId> {
        if !mac.is_station() {
            return None;
        }
        let rank = |policy: &Policy| {
            let filters = &policy.filters;
            [
                filters.mac == mac && policy.assigned_mac == mac,
                filters.mac == mac,
                filters.unicast.contains(&mac),
            ]
            .iter()
            .position(|claim| *claim)
        };
        let reserved = self.functions.values().any(|policy| policy.assigned_mac == mac);
        self.functions
            .iter()
            .filter(|(_, policy)| !reserved || policy.assigned_mac == mac)
            .filter_map(|(id, policy)| Some((rank(policy)?, *id)))
            .min()
            .map(|(_, id)| id)
    }

    pub(super) fn classify(&self, source: Source, header: &[u8], frame_len: usize) -> Outcome {
        match self.receivers(source, header, frame_len) {
            Ok((functions, uplink)) => Outcome { functions, uplink, dropped: None },
            Err(reason) => Outcome { dropped: Some(reason), ..Outcome::default() },
        }
    }

    fn receivers(
        &self,
        source: Source,
        header: &[u8],
        frame_len: usize,
    ) -> Result<(BTreeSet<FunctionId>, bool), DropReason> {
        let tagged = header.get(12..14) == Some(&[0x81, 0x00]);
        let need = if tagged { 18 } else { 14 };
        if header.len() < need {
            return Err(DropReason::Runt);
        }
        let address = |at: usize| MacAddr(std::array::from_fn(|i| header[at + i]));
        let (to, from) = (address(0), address(6));
        let vid = if tagged { u16::from_be_bytes([header[14], header[15]]) & 0xfff } else { 0 };

        if let Source::Function(id) = source {
            let policy = self.functions.get(&id).ok_or(DropReason::UnknownSource)?;
            if !policy.link_up {
                return Err(DropReason::SourceLinkDown);
            }
        }
        if !from.is_station() {
            return Err(DropReason::InvalidSource);
        }
        if let Source::Function(id) = source
            && self.functions[&id].spoofchk
            && self.owner(from) != Some(id)
        {
            return Err(DropReason::Spoofed);
        }
        if frame_len < need {
            return Err(DropReason::Runt);
        }
        if frame_len > self.max_frame_len as usize + if tagged { 4 } else { 0 } {
            return Err(DropReason::Oversize);
        }
        if to.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && to.0[5] < 0x10 {
            return Err(DropReason::LinkLocal);
        }

        let wants = |id: FunctionId, any_vlan: bool| {
            let policy = &self.functions[&id];
            let filters = &policy.filters;
            let in_vlan =
                any_vlan || vid == 0 || !filters.vlan_filtering || filters.vlans.contains(vid);
            let by_address = if to.is_broadcast() {
                !filters.no_broadcast
            } else if to.is_group() {
                !filters.no_multicast && (filters.all_multicast || filters.multicast.contains(&to))
            } else {
                !filters.no_unicast && (filters.all_unicast || self.owner(to) == Some(id))
            };
            Source::Function(id) != source
                && policy.link_up
                && (filters.promiscuous || (in_vlan && by_address))
        };
        let receivers = |any_vlan: bool| -> BTreeSet<_> {
            self.functions.keys().copied().filter(|id| wants(*id, any_vlan)).collect()
        };
        let functions = receivers(false);
        let owner = self.owner(to);
        let uplink = self.uplink && source != Source::Uplink && (to.is_group() || owner.is_none());
        if !functions.is_empty() || uplink {
            return Ok((functions, uplink));
        }
        Err(if to.is_group() {
            if receivers(true).is_empty() {
                DropReason::NoReceiver
            } else {
                DropReason::VlanFiltered
            }
        } else {
            match owner {
                None => DropReason::UnknownUnicast,
                Some(id) if Source::Function(id) == source => DropReason::ToSender,
                Some(id) if !self.functions[&id].link_up => DropReason::LinkDown,
                Some(id) if self.functions[&id].filters.no_unicast => DropReason::Filtered,
                Some(_) => DropReason::VlanFiltered,
            }
        })
    }
}
