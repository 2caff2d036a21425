pub(crate) mod build;
mod classify;

use manifold_offload::{MacAddr, VlanSet};
use manifold_pci::FunctionId;

use crate::drop_reason::DropReason;
use crate::fdb::Fdb;

/// A conflict of two functions that claim one address; the owner has it, the other does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The contested address.
    pub mac: MacAddr,
    /// The function that owns it.
    pub owner: FunctionId,
    /// The function that claimed it too.
    pub refused: FunctionId,
}

/// The facts that classification needs of one function.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: FunctionId,
    slot: u16,
    link_up: bool,
    spoofchk: bool,
    /// The reason why a unicast frame to one of the function's addresses is not delivered.
    refuses_unicast: Option<DropReason>,
    /// The VLANs received; `None` for all.
    vlans: Option<Box<VlanSet>>,
}

impl Record {
    /// The slot that no function has.
    pub(crate) const NONE: u16 = u16::MAX;

    #[inline]
    pub(crate) fn admits(&self, vid: Option<u16>) -> bool {
        match (&self.vlans, vid) {
            (Some(vlans), Some(vid)) => vlans.contains(vid),
            _ => true,
        }
    }
}

/// The range of `members` that subscribes to one multicast address.
#[derive(Debug)]
struct Group {
    start: u32,
    end: u32,
}

/// An immutable snapshot of everything that forwarding depends on.
/// [`TableBuilder`](build::TableBuilder) builds it, and any number of threads ask it with
/// [`Table::classify`].
///
/// Functions are numbered by slot, dense and ascending by [`FunctionId`].
#[derive(Debug)]
pub struct Table {
    records: Box<[Record]>,
    /// The slot of the PF at 0 and that of VF n at n + 1; [`Record::NONE`] if there is no such
    /// function.
    slots: Box<[u16]>,
    /// The slot of the owner of each unicast address.
    owners: Fdb,
    /// The index into `groups` of each multicast address.
    group_index: Fdb,
    groups: Box<[Group]>,
    /// The groups' subscribers, one group after the other.
    members: Box<[u16]>,
    /// The slots that receive every unicast frame, whoever it is for.
    unicast_always: Box<[u16]>,
    /// The slots that receive every multicast frame.
    multicast_always: Box<[u16]>,
    /// The slots that receive broadcast.
    broadcast: Box<[u16]>,
    uplink: bool,
    max_frame_len: u32,
    conflicts: Vec<Conflict>,
}

impl Table {
    #[inline]
    fn slot(&self, id: FunctionId) -> Option<u16> {
        self.slots.get(id.index()).copied()
    }

    #[inline]
    pub(crate) fn record(&self, slot: u16) -> Option<&Record> {
        self.records.get(usize::from(slot))
    }

    /// Returns the functions in the table, ascending.
    pub fn functions(&self) -> impl Iterator<Item = FunctionId> + '_ {
        self.records.iter().map(|record| record.id)
    }

    /// Returns the owner of a unicast address.
    pub fn owner(&self, mac: MacAddr) -> Option<FunctionId> {
        let slot = self.owners.get(mac.key())?;
        Some(self.record(slot)?.id)
    }

    /// Returns the addresses that more than one function claims, in the order of the claims'
    /// precedence.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// Returns whether there is an uplink.
    pub fn uplink(&self) -> bool {
        self.uplink
    }
}
