//! Commands of the control queue (5.1.6.5): bytes in, changes of the device's receive state out. No memory, no queue.

use super::filters::{MAC_TABLE_ENTRIES, MacAddress, is_group};
use super::state::{Change, Receive};
use crate::spec::net::{ctrl, feature};

/// The longest command that is read: a MAC filter table of some 10,000 addresses. A longer one is refused unread.
pub(super) const COMMAND_MAX: usize = 64 << 10;

/// A command was refused: it is unknown, belongs to a feature that was not negotiated, or its data are malformed. Nothing
/// has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl Receive {
    /// Carries out one command, `class` and `command` bytes first. Data must have the command's length exactly.
    pub(super) fn execute(&mut self, bytes: &[u8]) -> Result<Change, Refused> {
        let [class, command, data @ ..] = bytes else { return Err(Refused) };
        match (*class, *command) {
            (ctrl::RX, command) => self.receive_mode(command, data),
            (ctrl::MAC, ctrl::MAC_TABLE_SET) => self.mac_table_set(data),
            (ctrl::MAC, ctrl::MAC_ADDR_SET) => self.mac_address_set(data),
            (ctrl::VLAN, ctrl::VLAN_ADD) => self.vlan(data, true),
            (ctrl::VLAN, ctrl::VLAN_DEL) => self.vlan(data, false),
            (ctrl::ANNOUNCE, ctrl::ANNOUNCE_ACK) => self.announce_ack(data),
            (ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET) => self.pairs_set(data),
            _ => Err(Refused),
        }
    }

    fn require(&self, feature: u64) -> Result<(), Refused> {
        if self.features & feature == 0 { Err(Refused) } else { Ok(()) }
    }

    /// 5.1.6.5.1
    fn receive_mode(&mut self, command: u8, data: &[u8]) -> Result<Change, Refused> {
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
        Ok(Change::Filters)
    }

    /// 5.1.6.5.2: two tables, unicast and multicast. Each address counts by what it is, whichever table it came in.
    fn mac_table_set(&mut self, data: &[u8]) -> Result<Change, Refused> {
        self.require(feature::CTRL_RX)?;
        let (first, rest) = mac_table(data)?;
        let (second, rest) = mac_table(rest)?;
        if !rest.is_empty() {
            return Err(Refused);
        }
        let (mut multicast, mut unicast): (Vec<_>, Vec<_>) =
            first.iter().chain(second).copied().partition(is_group);
        self.multicast_overflow = fit(&mut multicast);
        self.unicast_overflow = fit(&mut unicast);
        self.filters.multicast = multicast;
        self.filters.unicast = unicast;
        self.merge_modes();
        Ok(Change::Filters)
    }

    /// 5.1.6.5.2
    fn mac_address_set(&mut self, data: &[u8]) -> Result<Change, Refused> {
        self.require(feature::CTRL_MAC_ADDR)?;
        let mac: MacAddress = data.try_into().map_err(|_| Refused)?;
        if is_group(&mac) || mac == [0; 6] {
            return Err(Refused);
        }
        self.filters.mac = mac;
        Ok(Change::Filters)
    }

    /// 5.1.6.5.3
    fn vlan(&mut self, data: &[u8], present: bool) -> Result<Change, Refused> {
        self.require(feature::CTRL_VLAN)?;
        let vid = le16(data)?;
        if self.filters.vlans.set(vid, present) { Ok(Change::Filters) } else { Err(Refused) }
    }

    /// 5.1.6.5.4
    fn announce_ack(&mut self, data: &[u8]) -> Result<Change, Refused> {
        self.require(feature::GUEST_ANNOUNCE)?;
        if !data.is_empty() || !self.announce {
            return Err(Refused);
        }
        self.announce = false;
        Ok(Change::None)
    }

    /// 5.1.6.5.6
    fn pairs_set(&mut self, data: &[u8]) -> Result<Change, Refused> {
        self.require(feature::MQ)?;
        let pairs = le16(data)?;
        if !(1..=self.max_pairs).contains(&pairs) {
            return Err(Refused);
        }
        self.filters.active_pairs = pairs;
        Ok(Change::Filters)
    }
}

fn le16(data: &[u8]) -> Result<u16, Refused> {
    data.try_into().map(u16::from_le_bytes).map_err(|_| Refused)
}

/// Splits a `struct virtio_net_ctrl_mac` off `data`.
fn mac_table(data: &[u8]) -> Result<(&[MacAddress], &[u8]), Refused> {
    let (count, rest) = data.split_first_chunk().ok_or(Refused)?;
    let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_| Refused)?;
    let (addresses, _) = rest.as_chunks::<6>();
    let table = addresses.get(..count).ok_or(Refused)?;
    Ok((table, rest.get(count * 6..).ok_or(Refused)?))
}

/// Sorts a table and removes what is twice in it. Empties one that is too long, and says so.
fn fit(table: &mut Vec<MacAddress>) -> bool {
    table.sort_unstable();
    table.dedup();
    let overflow = table.len() > MAC_TABLE_ENTRIES;
    if overflow {
        table.clear();
    }
    overflow
}
