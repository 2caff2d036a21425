//! This module describes the state of an adapter and its functions to management.

use std::fmt;
use std::path::PathBuf;

use manifold_datapath::PairSnapshot;
use manifold_dma::{FaultReport, Stats};
use manifold_fabric::BarInfo;
use manifold_pci::{DriverReport, FunctionId, Identity, RoutingId};

use crate::config::Uplink;

/// The adapter as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// The PF's routing ID.
    pub pf: RoutingId,
    /// TotalVFs.
    pub total_vfs: u16,
    /// Number of VFs that are enabled.
    pub num_vfs: u16,
    /// First VF Offset.
    pub first_vf_offset: u16,
    /// VF Stride.
    pub vf_stride: u16,
    /// The interface that the port is connected to.
    pub uplink: Uplink,
    /// MTU offered to drivers, in bytes.
    pub mtu: u16,
    /// Queue pairs offered to drivers.
    pub queue_pairs: u16,
    /// Folder of the sockets.
    pub run_dir: PathBuf,
}

/// The protocol by which a VMM is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The VMM has the whole PCIe function.
    VfioUser,
    /// The VMM has the function's queues, and registers of its own.
    VhostUser,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::VfioUser => "vfio-user",
            Protocol::VhostUser => "vhost-user",
        })
    }
}

/// The VMM that is attached to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Protocol that the VMM speaks.
    pub protocol: Protocol,
    /// Process ID of the VMM, where the kernel can tell.
    pub pid: Option<u32>,
}

impl PeerInfo {
    /// Describes a VMM; `pid` is 0 where the kernel cannot tell.
    pub(crate) fn new(protocol: Protocol, pid: i32) -> Self {
        PeerInfo { protocol, pid: u32::try_from(pid).ok().filter(|pid| *pid != 0) }
    }
}

/// The state of a function's DMA domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaInfo {
    /// Number of mappings, and how many bytes they cover.
    pub stats: Stats,
    /// Faults since the function exists.
    pub faults: FaultReport,
}

/// The state of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Name of the function.
    pub id: FunctionId,
    /// Routing ID.
    pub routing_id: RoutingId,
    /// Vendor, device and class IDs, as Linux shows them.
    pub identity: Identity,
    /// BARs by number, as the PF driver placed them; those of a VF are its shares of the apertures.
    pub bars: [Option<BarInfo>; 6],
    /// The vfio-user socket.
    pub socket: PathBuf,
    /// The vhost-user socket.
    pub vhost_socket: PathBuf,
    /// The MAC address in use: the one the PF assigned unless the driver changed it.
    pub mac: [u8; 6],
    /// MTU offered, in bytes.
    pub mtu: u16,
    /// `true` while the link is up.
    pub link_up: bool,
    /// VMM that is attached.
    pub attached: Option<PeerInfo>,
    /// Progress of the driver, which over vhost-user is what the VMM reports.
    pub driver: DriverReport,
    /// Counters, summed over the queue pairs.
    pub counters: PairSnapshot,
    /// The DMA domain.
    pub dma: DmaInfo,
}
