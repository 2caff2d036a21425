//! What a driver asked to receive (5.1.6.5.1 to 5.1.6.5.3).

use std::fmt;

/// An Ethernet MAC address.
pub type MacAddress = [u8; 6];

/// How many addresses of each kind, unicast and multicast, the MAC filter table holds.
pub const MAC_TABLE_ENTRIES: usize = 64;

/// Whether the I/G bit says group address (IEEE 802-2014, 8.2).
pub(crate) fn is_group(mac: &MacAddress) -> bool {
    mac[0] & 1 != 0
}

/// The receive filters that a driver's control commands add up to.
///
/// An incoming frame is for the function
/// - if `promiscuous`, whatever its addresses; else
/// - a broadcast: unless `no_broadcast`;
/// - another group address: unless `no_multicast`, if `all_multicast` or its address is in `multicast`;
/// - a unicast address: unless `no_unicast`, if `all_unicast` or it is `mac` or in `unicast`;
/// - and in each case, if it carries a VLAN tag and `vlan_filtering` is on: if its VLAN is in `vlans`.
///
/// A driver that cannot say which multicast it wants (VIRTIO_NET_F_CTRL_RX not negotiated) gets all of it:
/// `all_multicast` is set then. A MAC filter table that overflows sets `all_unicast` or `all_multicast` for the kind that
/// did, and that kind's list is empty: the commands' sender is promised its own frames, not the absence of others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filters {
    /// The function's own address.
    pub mac: MacAddress,
    /// Receive everything.
    pub promiscuous: bool,
    /// Receive every multicast frame.
    pub all_multicast: bool,
    /// Receive every unicast frame.
    pub all_unicast: bool,
    /// Receive no multicast frame; stronger than `all_multicast`. Broadcast is not meant.
    pub no_multicast: bool,
    /// Receive no unicast frame; stronger than `all_unicast`.
    pub no_unicast: bool,
    /// Receive no broadcast frame.
    pub no_broadcast: bool,
    /// Further unicast addresses, ascending, at most [`MAC_TABLE_ENTRIES`].
    pub unicast: Vec<MacAddress>,
    /// Multicast addresses, ascending, at most [`MAC_TABLE_ENTRIES`].
    pub multicast: Vec<MacAddress>,
    /// Whether `vlans` limits what is received (VIRTIO_NET_F_CTRL_VLAN negotiated).
    pub vlan_filtering: bool,
    /// With `vlan_filtering`, the VLANs received.
    pub vlans: VlanTable,
}

impl Filters {
    /// The filters of a function without a driver, or with one that has not yet said anything.
    pub fn new(mac: MacAddress) -> Self {
        Filters {
            mac,
            promiscuous: false,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlan_filtering: false,
            vlans: VlanTable::default(),
        }
    }
}

/// A set of VLAN identifiers: one bit for each of 0 to 4095.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanTable([u64; 64]);

impl VlanTable {
    /// VLAN identifiers are below this (12 bits).
    pub const LIMIT: u16 = 4096;

    /// Whether `vid` is in the table. A number that is no VLAN identifier never is.
    pub fn contains(&self, vid: u16) -> bool {
        self.0.get(usize::from(vid / 64)).is_some_and(|word| word >> (vid % 64) & 1 != 0)
    }

    /// Adds or removes `vid`. Says whether it is a VLAN identifier (below [`VlanTable::LIMIT`]).
    pub(crate) fn set(&mut self, vid: u16, present: bool) -> bool {
        let Some(word) = self.0.get_mut(usize::from(vid / 64)) else { return false };
        let bit = 1 << (vid % 64);
        if present {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        true
    }

    /// The VLANs in the table, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..Self::LIMIT).filter(|vid| self.contains(*vid))
    }
}

impl Default for VlanTable {
    fn default() -> Self {
        VlanTable([0; 64])
    }
}

impl fmt::Debug for VlanTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_table_is_a_set_of_12_bit_numbers() {
        let mut table = VlanTable::default();
        for vid in [0, 1, 63, 64, 4095] {
            assert!(!table.contains(vid));
            assert!(table.set(vid, true));
            assert!(table.contains(vid));
        }
        assert!(!table.set(4096, true));
        assert!(!table.set(u16::MAX, true));
        assert!(!table.contains(u16::MAX));
        assert!(table.set(63, false));
        assert_eq!(table.iter().collect::<Vec<_>>(), [0, 1, 64, 4095]);
    }
}
