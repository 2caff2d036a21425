use std::fmt;

use manifold_pci::FunctionId;

use crate::table::{Record, Table};

/// The sender of a frame into the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The frame comes from a function's transmit queue.
    Function(FunctionId),
    /// The frame comes from the adapter's port.
    Uplink,
}

/// The places that a frame goes to.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// The frame goes to this function only.
    Function(FunctionId),
    /// The frame goes out of the port only.
    Uplink,
    /// The frame goes to each of these, of which there is at least one.
    Multi(Destinations<'a>),
    /// The frame goes to nobody.
    Drop(DropReason),
}

/// The reason why a frame is delivered to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The sender is not in the table, because it was disabled meanwhile.
    UnknownSource,
    /// The sender's link is down.
    SourceLinkDown,
    /// The frame is shorter than an Ethernet header (with its VLAN tag, if it has one).
    Runt,
    /// The frame is longer than the switch forwards.
    Oversize,
    /// The source address is a group address or all zero.
    InvalidSource,
    /// The source address is not one of the sender's, and spoofchk is on.
    Spoofed,
    /// The destination is reserved for the link's own protocols and never forwarded (pause, LACP,
    /// LLDP ...).
    LinkLocal,
    /// The destination is the sender's own address.
    ToSender,
    /// The frame is unicast to nobody known, and there is no uplink to ask.
    UnknownUnicast,
    /// The owner of the destination address has its link down.
    LinkDown,
    /// The owner of the destination address receives no unicast.
    Filtered,
    /// The receiver's VLAN filter, or every receiver's, does not admit the frame's VLAN.
    VlanFiltered,
    /// The frame is multicast or broadcast that nobody receives.
    NoReceiver,
}

impl DropReason {
    /// All reasons, in the order of [`DropReason::index`].
    pub const ALL: [Self; 13] = [
        Self::UnknownSource,
        Self::SourceLinkDown,
        Self::Runt,
        Self::Oversize,
        Self::InvalidSource,
        Self::Spoofed,
        Self::LinkLocal,
        Self::ToSender,
        Self::UnknownUnicast,
        Self::LinkDown,
        Self::Filtered,
        Self::VlanFiltered,
        Self::NoReceiver,
    ];

    /// Returns a number below `DropReason::ALL.len()`, for arrays of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns a name for metrics and JSON, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownSource => "unknown_source",
            Self::SourceLinkDown => "source_link_down",
            Self::Runt => "runt",
            Self::Oversize => "oversize",
            Self::InvalidSource => "invalid_source",
            Self::Spoofed => "spoofed",
            Self::LinkLocal => "link_local",
            Self::ToSender => "to_sender",
            Self::UnknownUnicast => "unknown_unicast",
            Self::LinkDown => "link_down",
            Self::Filtered => "filtered",
            Self::VlanFiltered => "vlan_filtered",
            Self::NoReceiver => "no_receiver",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The receivers of a frame that is replicated, borrowed from the table.
#[derive(Clone, Copy)]
pub struct Destinations<'a> {
    pub(crate) table: &'a Table,
    /// Slots that receive every frame of this kind.
    pub(crate) always: &'a [u16],
    /// Slots that receive this destination; none of them is in `always`.
    pub(crate) members: &'a [u16],
    pub(crate) uplink: bool,
    /// The sender's slot, or [`Record::NONE`].
    pub(crate) source: u16,
    /// The frame's VLAN, if its tag names one.
    pub(crate) vid: Option<u16>,
}

impl<'a> Destinations<'a> {
    /// Returns the functions to deliver to, each once, never the sender.
    pub fn functions(self) -> impl Iterator<Item = FunctionId> + 'a {
        self.records().map(|record| record.id)
    }

    /// Returns whether the frame also goes out of the port.
    pub const fn uplink(self) -> bool {
        self.uplink
    }

    pub(crate) fn records(self) -> impl Iterator<Item = &'a Record> + 'a {
        let Self { table, always, members, source, vid, .. } = self;
        always
            .iter()
            .chain(members)
            .filter(move |slot| **slot != source)
            .filter_map(move |slot| table.record(*slot))
            .filter(move |record| record.admits(vid))
    }
}

impl fmt::Debug for Destinations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destinations")
            .field("functions", &self.functions().collect::<Vec<_>>())
            .field("uplink", &self.uplink)
            .finish()
    }
}
