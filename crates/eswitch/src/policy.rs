use crate::{MacAddr, VlanSet};

/// What a function's driver asked to receive (virtio 1.3 section 5.1.6.5: the control queue's
/// filters).
///
/// The default asks for nothing but broadcast: no MAC address, no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// The address the function uses. One that no station can own (all zero, group) is ignored.
    pub mac: MacAddr,
    /// Receive every frame that passes the switch, whatever the other filters say.
    pub promiscuous: bool,
    /// Receive every multicast frame.
    pub all_multicast: bool,
    /// Receive every unicast frame.
    pub all_unicast: bool,
    /// Receive no multicast frame; wins over `all_multicast` and `multicast`, does not touch
    /// broadcast.
    pub no_multicast: bool,
    /// Receive no unicast frame; wins over `all_unicast`, `mac` and `unicast`.
    pub no_unicast: bool,
    /// Receive no broadcast frame.
    pub no_broadcast: bool,
    /// Further unicast addresses. Group addresses and zero are ignored.
    pub unicast: Vec<MacAddr>,
    /// Multicast addresses subscribed to. Unicast addresses and broadcast are ignored.
    pub multicast: Vec<MacAddr>,
    /// Whether `vlans` limits what is received. Off: every VLAN.
    pub vlan_filtering: bool,
    /// With `vlan_filtering`: the VLANs received. Untagged and priority-tagged frames are always
    /// received.
    pub vlans: VlanSet,
}

/// Everything the switch knows of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The MAC address the PF gave to the function. No other function can own it, whatever its
    /// driver claims, even while this one uses another.
    pub assigned_mac: MacAddr,
    /// What the driver asked for (already limited by the PF to what it may ask).
    pub filters: Filters,
    /// Drop what the function sends from a source address it does not own.
    pub spoofchk: bool,
    /// A function whose link is down sends and receives nothing; it keeps its addresses.
    pub link_up: bool,
}

impl Policy {
    /// A function that uses the address it was given, without filters: link up, spoofchk on.
    pub fn new(mac: MacAddr) -> Self {
        Self {
            assigned_mac: mac,
            filters: Filters { mac, ..Filters::default() },
            spoofchk: true,
            link_up: true,
        }
    }
}
