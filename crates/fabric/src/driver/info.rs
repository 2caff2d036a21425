//! This module has what the driver tells about the functions it found.

use manifold_pci::{Identity, RoutingId};

/// A BAR as the driver placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarInfo {
    /// Address of the function's first byte.
    pub address: u64,
    /// Size of one function's BAR in bytes.
    pub size: u64,
    /// True if the BAR takes two registers.
    pub width64: bool,
    /// True if reads have no side effects.
    pub prefetchable: bool,
}

/// The facts that the driver found and set up in the PF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfInfo {
    /// The PF's routing ID.
    pub routing_id: RoutingId,
    /// The PF's identification registers.
    pub identity: Identity,
    /// The PF's BARs.
    pub bars: [Option<BarInfo>; 6],
    /// VF BARs with the address of the whole aperture, which is VF 0's BAR, and the size of one
    /// VF's share.
    pub vf_bars: [Option<BarInfo>; 6],
    /// Value of TotalVFs.
    pub total_vfs: u16,
    /// Value of VF Device ID.
    pub vf_device_id: u16,
    /// True if ARI forwarding is on and ARI Capable Hierarchy set.
    pub ari: bool,
    /// Last bus number behind the root port.
    pub subordinate_bus: u8,
}

/// One enabled VF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfInfo {
    /// The VF's index, from 0.
    pub index: u16,
    /// The VF's routing ID.
    pub routing_id: RoutingId,
    /// Shares of the VF BARs.
    pub bars: [Option<BarInfo>; 6],
}
