//! This module carries out the commands that say what is received (modes, the MAC filter table,
//! VLANs) and the one that acknowledges an announcement request (5.1.6.5.1 to 5.1.6.5.4).

use manifold_offload::MacAddr;
use manifold_offload::spec::ethernet::VID_COUNT;

use super::{Outcome, Refused, le16, split32};
use crate::net::MAC_TABLE_ENTRIES;
use crate::net::settings::{Changes, Settings};
use crate::spec::net::{ctrl, feature};

impl Settings {
    /// Carries out a command of class RX (5.1.6.5.1).
    pub(super) fn receive_mode(&mut self, command: u8, data: &[u8]) -> Outcome {
        let extra = !matches!(command, ctrl::RX_PROMISC | ctrl::RX_ALLMULTI);
        self.require(if extra { feature::CTRL_RX_EXTRA } else { feature::CTRL_RX })?;
        let on = match data {
            [0] => false,
            [1] => true,
            _ => return Err(Refused),
        };
        let filters = &mut self.filters;
        let mode = match command {
            ctrl::RX_PROMISC => &mut filters.promiscuous,
            ctrl::RX_ALLMULTI => &mut self.all_multicast,
            ctrl::RX_ALLUNI => &mut self.all_unicast,
            ctrl::RX_NOMULTI => &mut filters.no_multicast,
            ctrl::RX_NOUNI => &mut filters.no_unicast,
            ctrl::RX_NOBCAST => &mut filters.no_broadcast,
            _ => return Err(Refused),
        };
        *mode = on;
        self.merge_modes();
        Ok(Changes::FILTERS)
    }

    /// Carries out MAC_TABLE_SET (5.1.6.5.2), which has two tables, unicast and multicast. Each
    /// address counts by what it is, whichever table it came in.
    pub(super) fn mac_table_set(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::CTRL_RX)?;
        let (first, rest) = mac_table(data)?;
        let (second, rest) = mac_table(rest)?;
        if !rest.is_empty() {
            return Err(Refused);
        }
        let (mut multicast, mut unicast): (Vec<_>, Vec<_>) =
            first.iter().chain(second).copied().map(MacAddr).partition(|mac| mac.is_group());
        self.multicast_overflow = fit(&mut multicast);
        self.unicast_overflow = fit(&mut unicast);
        self.filters.multicast = multicast;
        self.filters.unicast = unicast;
        self.merge_modes();
        Ok(Changes::FILTERS)
    }

    /// Carries out MAC_ADDR_SET (5.1.6.5.2).
    pub(super) fn mac_address_set(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::CTRL_MAC_ADDR)?;
        let mac = MacAddr(data.try_into().map_err(|_| Refused)?);
        if !mac.is_station() {
            return Err(Refused);
        }
        self.filters.mac = mac;
        Ok(Changes::FILTERS)
    }

    /// Carries out a command of class VLAN (5.1.6.5.3).
    pub(super) fn vlan(&mut self, data: &[u8], present: bool) -> Outcome {
        self.require(feature::CTRL_VLAN)?;
        let vid = le16(data)?;
        if usize::from(vid) >= VID_COUNT {
            return Err(Refused);
        }
        let vlans = &mut self.filters.vlans;
        if present {
            vlans.insert(vid)
        } else {
            vlans.remove(vid)
        };
        Ok(Changes::FILTERS)
    }

    /// Carries out ANNOUNCE_ACK (5.1.6.5.4).
    pub(super) fn announce_ack(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::GUEST_ANNOUNCE)?;
        if !data.is_empty() || !self.announce {
            return Err(Refused);
        }
        self.announce = false;
        Ok(Changes::NONE)
    }
}

/// Splits a `struct virtio_net_ctrl_mac` off `data`.
fn mac_table(data: &[u8]) -> Result<(&[[u8; 6]], &[u8]), Refused> {
    let (count, rest) = split32(data)?;
    let count = usize::try_from(count).map_err(|_| Refused)?;
    let (addresses, _) = rest.as_chunks::<6>();
    let table = addresses.get(..count).ok_or(Refused)?;
    Ok((table, rest.get(count * 6..).ok_or(Refused)?))
}

/// Sorts a table and removes duplicates. Empties one that is too long, and says so.
fn fit(table: &mut Vec<MacAddr>) -> bool {
    table.sort_unstable();
    table.dedup();
    let overflow = table.len() > MAC_TABLE_ENTRIES;
    if overflow {
        table.clear();
    }
    overflow
}
