//! What an adapter tells about itself.

use std::fmt;
use std::path::PathBuf;

use manifold_datapath::PairSnapshot;
use manifold_dma::{FaultReport, Stats};
use manifold_pci::{DriverReport, FunctionId, Identity, RoutingId};

use crate::Uplink;

/// The adapter as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// The PF's routing ID.
    pub pf: RoutingId,
    /// TotalVFs.
    pub total_vfs: u16,
    /// VFs that are enabled.
    pub num_vfs: u16,
    /// First VF Offset.
    pub first_vf_offset: u16,
    /// VF Stride.
    pub vf_stride: u16,
    /// What the port is connected to.
    pub uplink: Uplink,
    /// MTU offered to drivers, in bytes.
    pub mtu: u16,
    /// Queue pairs offered to drivers.
    pub queue_pairs: u16,
    /// Folder of the sockets.
    pub run_dir: PathBuf,
}

/// One BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarInfo {
    /// 0 to 5.
    pub index: u8,
    /// Where the PF driver placed it.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Takes two registers.
    pub width64: bool,
    /// Reads have no side effects.
    pub prefetchable: bool,
}

/// How a VMM is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The whole PCIe function.
    VfioUser,
    /// Its queues.
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

/// Who is attached to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// How.
    pub protocol: Protocol,
    /// The process, where the kernel can tell.
    pub pid: Option<u32>,
}

impl PeerInfo {
    /// `pid` is 0 where the kernel cannot tell.
    pub(crate) fn new(protocol: Protocol, pid: i32) -> Self {
        PeerInfo { protocol, pid: u32::try_from(pid).ok().filter(|pid| *pid != 0) }
    }
}

/// A function's DMA domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaInfo {
    /// Mappings and bytes.
    pub stats: Stats,
    /// Faults.
    pub faults: FaultReport,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Which.
    pub id: FunctionId,
    /// Its routing ID.
    pub routing_id: RoutingId,
    /// Its IDs, as Linux shows them.
    pub identity: Identity,
    /// Its BARs; a VF's are its shares of the apertures.
    pub bars: Vec<BarInfo>,
    /// The vfio-user socket.
    pub socket: PathBuf,
    /// The vhost-user socket.
    pub vhost_socket: PathBuf,
    /// The MAC address in use: the one the PF assigned unless the driver changed it.
    pub mac: [u8; 6],
    /// MTU offered, in bytes.
    pub mtu: u16,
    /// Whether the link is up.
    pub link_up: bool,
    /// Who is attached.
    pub attached: Option<PeerInfo>,
    /// How far the driver has come; over vhost-user what the VMM tells of it.
    pub driver: DriverReport,
    /// Counters, summed over the queue pairs.
    pub counters: PairSnapshot,
    /// The DMA domain.
    pub dma: DmaInfo,
}
