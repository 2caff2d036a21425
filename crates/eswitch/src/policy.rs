//! This module holds what the switch knows of one function.

use manifold_offload::{Filters, MacAddr};

/// All that the switch knows of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The MAC address the PF gave to the function. No other function can own it, whatever its
    /// driver claims, even while this one uses another.
    pub assigned_mac: MacAddr,
    /// The frames that the driver asked for (already limited by the PF to what it may ask).
    pub filters: Filters,
    /// True if frames are dropped that the function sends from a source address it does not own.
    pub spoofchk: bool,
    /// True if the function's link is up. A function whose link is down sends and receives nothing;
    /// it keeps its addresses.
    pub link_up: bool,
}

impl Policy {
    /// Returns the policy of a function that uses the address it was given, without filters: link
    /// up, spoofchk on.
    pub fn new(mac: MacAddr) -> Self {
        Self { assigned_mac: mac, filters: Filters::new(mac), spoofchk: true, link_up: true }
    }
}
