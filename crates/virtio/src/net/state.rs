//! What the control queue changes: the receive side of a network device between two resets.

use super::filters::{Filters, MacAddress};
use crate::spec::net::feature;

/// Who has to hear of a control command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nobody else.
    None,
    /// The data path: [`Receive::filters`] changed.
    Filters,
}

/// Receive state. [`Filters`] is what it adds up to.
#[derive(Debug)]
pub(super) struct Receive {
    /// Negotiated features; 0 while the device is not live.
    pub(super) features: u64,
    /// Queue pairs the driver may use.
    pub(super) max_pairs: u16,
    /// The driver is asked to announce itself and has not yet confirmed.
    pub(super) announce: bool,
    pub(super) filters: Filters,
    /// What the driver switched on, apart from what an overflowing table implies.
    pub(super) all_multicast: bool,
    pub(super) all_unicast: bool,
    pub(super) multicast_overflow: bool,
    pub(super) unicast_overflow: bool,
}

impl Receive {
    /// The state of a device without a driver.
    pub(super) fn new(mac: MacAddress, max_pairs: u16) -> Self {
        Receive {
            features: 0,
            max_pairs,
            announce: false,
            filters: Filters::new(mac),
            all_multicast: false,
            all_unicast: false,
            multicast_overflow: false,
            unicast_overflow: false,
        }
    }

    /// A driver has come.
    pub(super) fn activate(&mut self, features: u64) {
        self.features = features;
        self.filters.vlan_filtering = features & feature::CTRL_VLAN != 0;
        self.merge_modes();
    }

    /// Brings the filters in line with the modes.
    pub(super) fn merge_modes(&mut self) {
        // Without the command, nobody could ever subscribe to a multicast address.
        let unfiltered = self.features & feature::CTRL_RX == 0;
        self.filters.all_multicast = self.all_multicast || self.multicast_overflow || unfiltered;
        self.filters.all_unicast = self.all_unicast || self.unicast_overflow;
    }
}
