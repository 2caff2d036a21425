//! This module holds what a function's driver asked to receive.

use crate::mac::MacAddr;
use crate::vlan::VlanSet;

/// The receive filters of a function, which a driver's commands add up to (virtio 1.3, 5.1.6.5.1 to
/// 5.1.6.5.3).
///
/// An incoming frame is for the function
/// - if `promiscuous`, whatever its addresses; else
/// - a broadcast: unless `no_broadcast`;
/// - another group address: unless `no_multicast`, if `all_multicast` or its address is in
///   `multicast`;
/// - a unicast address: unless `no_unicast`, if `all_unicast` or it is `mac` or in `unicast`;
/// - and in each case, if it carries a VLAN tag and `vlan_filtering` is on: if its VLAN is in
///   `vlans`.
///
/// The default asks for nothing but broadcast: no MAC address, no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// The address the function uses. One that no station can own (all zero, group) is ignored.
    pub mac: MacAddr,
    /// True if the function receives every frame that passes the switch, whatever the other filters
    /// say.
    pub promiscuous: bool,
    /// True if the function receives every multicast frame.
    pub all_multicast: bool,
    /// True if the function receives every unicast frame.
    pub all_unicast: bool,
    /// True if the function receives no multicast frame. This wins over `all_multicast` and
    /// `multicast`; broadcast is not meant.
    pub no_multicast: bool,
    /// True if the function receives no unicast frame. This wins over `all_unicast`, `mac` and
    /// `unicast`.
    pub no_unicast: bool,
    /// True if the function receives no broadcast frame.
    pub no_broadcast: bool,
    /// Further unicast addresses. Group addresses and zero are ignored.
    pub unicast: Vec<MacAddr>,
    /// Multicast addresses subscribed to. Unicast addresses and broadcast are ignored.
    pub multicast: Vec<MacAddr>,
    /// True if `vlans` limits what is received; otherwise every VLAN is.
    pub vlan_filtering: bool,
    /// The VLANs received with `vlan_filtering`. Untagged and priority-tagged frames are always
    /// received.
    pub vlans: VlanSet,
}

impl Filters {
    /// Returns the filters of a function that uses `mac` and has no driver, or one that has not yet
    /// set any.
    pub fn new(mac: impl Into<MacAddr>) -> Self {
        Filters { mac: mac.into(), ..Filters::default() }
    }
}
