use std::fmt;

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
