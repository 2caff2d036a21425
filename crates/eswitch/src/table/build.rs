use std::collections::{BTreeMap, BTreeSet};

use manifold_offload::{Filters, MacAddr};
use manifold_pci::FunctionId;

use super::{Conflict, Group, Record, Table};
use crate::drop_reason::DropReason;
use crate::fdb::Fdb;
use crate::policy::Policy;
use crate::spec;

/// The builder of a [`Table`], which collects the functions' policies.
///
/// Where several functions claim one unicast address, it belongs to the one whose claim has
/// precedence: a function that uses the address the PF assigned to it; then a function whose driver
/// chose it as its MAC address; then one that lists it among its unicast filters; and among equals
/// the lowest function. An address the PF assigned is for that function alone, whether it uses it
/// or not: no other function's claim to it counts.
#[derive(Debug)]
pub struct TableBuilder<'a> {
    functions: BTreeMap<FunctionId, &'a Policy>,
    uplink: bool,
    max_frame_len: u32,
}

impl Default for TableBuilder<'_> {
    fn default() -> Self {
        Self { functions: BTreeMap::new(), uplink: false, max_frame_len: spec::MAX_FRAME_LEN }
    }
}

impl<'a> TableBuilder<'a> {
    /// Makes a builder of a table without functions and without an uplink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether there is an uplink that unknown destinations go to.
    pub fn uplink(&mut self, present: bool) -> &mut Self {
        self.uplink = present;
        self
    }

    /// Sets the longest frame forwarded: bytes without FCS and without a VLAN tag, which may come
    /// on top.
    pub fn max_frame_len(&mut self, bytes: u32) -> &mut Self {
        self.max_frame_len = bytes;
        self
    }

    /// Adds a function, or replaces its policy.
    pub fn function(&mut self, id: FunctionId, policy: &'a Policy) -> &mut Self {
        self.functions.insert(id, policy);
        self
    }

    /// Builds the table in O(addresses x log addresses).
    pub fn build(&self) -> Table {
        // Slot numbers end below `Record::NONE`; an adapter has at most 257 functions.
        let functions: Vec<(u16, FunctionId, &Policy)> = (0..Record::NONE)
            .zip(&self.functions)
            .map(|(slot, (id, policy))| (slot, *id, *policy))
            .collect();
        let (owners, conflicts) = owners(&functions);
        let groups = Groups::new(&functions);
        let receivers = |wants: fn(&Filters) -> bool| -> Box<[u16]> {
            functions
                .iter()
                .filter(|(_, _, policy)| policy.link_up && wants(&policy.filters))
                .map(|(slot, ..)| *slot)
                .collect()
        };
        Table {
            records: functions
                .iter()
                .map(|(slot, id, policy)| record(*slot, *id, policy))
                .collect(),
            slots: slots(&functions),
            owners,
            group_index: groups.index,
            groups: groups.ranges.into_boxed_slice(),
            members: groups.members.into_boxed_slice(),
            unicast_always: receivers(|f| f.promiscuous || (f.all_unicast && !f.no_unicast)),
            multicast_always: groups.always.into_iter().collect(),
            broadcast: receivers(|f| f.promiscuous || !f.no_broadcast),
            uplink: self.uplink,
            max_frame_len: self.max_frame_len,
            conflicts,
        }
    }
}

fn record(slot: u16, id: FunctionId, policy: &Policy) -> Record {
    let filters = &policy.filters;
    let filtering = filters.vlan_filtering && !filters.promiscuous;
    Record {
        id,
        slot,
        link_up: policy.link_up,
        spoofchk: policy.spoofchk,
        refuses_unicast: if !policy.link_up {
            Some(DropReason::LinkDown)
        } else if filters.no_unicast && !filters.promiscuous {
            Some(DropReason::Filtered)
        } else {
            None
        },
        vlans: filtering.then(|| Box::new(filters.vlans.clone())),
    }
}

fn slots(functions: &[(u16, FunctionId, &Policy)]) -> Box<[u16]> {
    let mut slots = Vec::new();
    for &(slot, id, _) in functions {
        let index = id.index();
        if slots.len() <= index {
            slots.resize(index + 1, Record::NONE);
        }
        if let Some(entry) = slots.get_mut(index) {
            *entry = slot;
        }
    }
    slots.into_boxed_slice()
}

/// Gives each claimed unicast address to the claim with precedence.
fn owners(functions: &[(u16, FunctionId, &Policy)]) -> (Fdb, Vec<Conflict>) {
    let mut reserved = BTreeMap::new();
    for (_, id, policy) in functions {
        reserved.entry(policy.assigned_mac).or_insert(*id);
    }
    let assigned = functions
        .iter()
        .filter(|(_, _, policy)| policy.filters.mac == policy.assigned_mac)
        .map(|function| (function.2.filters.mac, function));
    let chosen = functions.iter().map(|function| (function.2.filters.mac, function));
    let listed = functions
        .iter()
        .flat_map(|function| function.2.filters.unicast.iter().map(move |mac| (*mac, function)));

    let mut owners: BTreeMap<MacAddr, (u16, FunctionId)> = BTreeMap::new();
    let mut refused: BTreeSet<(MacAddr, FunctionId)> = BTreeSet::new();
    let mut conflicts = Vec::new();
    for (mac, &(slot, id, policy)) in
        assigned.chain(chosen).chain(listed).filter(|(mac, _)| mac.is_station())
    {
        let owner = match reserved.get(&mac) {
            Some(other) if policy.assigned_mac != mac => *other,
            _ => owners.entry(mac).or_insert((slot, id)).1,
        };
        if owner != id && refused.insert((mac, id)) {
            conflicts.push(Conflict { mac, owner, refused: id });
        }
    }
    let pairs: Vec<_> = owners.iter().map(|(mac, (slot, _))| (mac.key(), *slot)).collect();
    (Fdb::new(&pairs), conflicts)
}

/// The subscribers of each multicast address.
struct Groups {
    index: Fdb,
    ranges: Vec<Group>,
    members: Vec<u16>,
    always: BTreeSet<u16>,
}

impl Groups {
    fn new(functions: &[(u16, FunctionId, &Policy)]) -> Self {
        let mut always = BTreeSet::new();
        let mut subscribers: BTreeMap<MacAddr, BTreeSet<u16>> = BTreeMap::new();
        for (slot, _, policy) in functions.iter().filter(|(_, _, policy)| policy.link_up) {
            let filters = &policy.filters;
            if filters.promiscuous || (filters.all_multicast && !filters.no_multicast) {
                always.insert(*slot);
            } else if !filters.no_multicast {
                for mac in
                    filters.multicast.iter().filter(|mac| mac.is_group() && !mac.is_broadcast())
                {
                    subscribers.entry(*mac).or_default().insert(*slot);
                }
            }
        }
        // The index holds 16-bit numbers. Whoever subscribes to a group that does not fit receives
        // all multicast, as from a NIC whose filter table is full: a filter may let too much
        // through, never too little.
        for slots in subscribers.values().skip(usize::from(u16::MAX)) {
            always.extend(slots);
        }
        let mut groups =
            Self { index: Fdb::new(&[]), ranges: Vec::new(), members: Vec::new(), always };
        let mut pairs = Vec::new();
        for (number, (mac, slots)) in (0..u16::MAX).zip(&subscribers) {
            let start = groups.members.len();
            groups.members.extend(slots.difference(&groups.always));
            // There are at most 65,535 groups of 65,535 members.
            groups.ranges.push(Group { start: start as u32, end: groups.members.len() as u32 });
            pairs.push((mac.key(), number));
        }
        groups.index = Fdb::new(&pairs);
        groups
    }
}
