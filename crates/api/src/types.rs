//! What the API carries: one type per JSON object, each with its OpenAPI schema.
//!
//! Field names follow the words of the PCIe and virtio specifications; `bdf` is a routing ID
//! written as `bus:device.function`, as `lspci` does. Counts of bytes are bytes, addresses are
//! integers, and a value that is unknown is `null` rather than a made-up number.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use manifold_adapter::Uplink;
pub use manifold_eswitch::MacAddr;
use manifold_pci::{CONFIG_SIZE, FunctionId, RoutingId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::text;

/// The adapter as a whole: the PF's SR-IOV state and what the adapter was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adapter {
    /// Version of the daemon.
    pub version: String,
    /// The daemon's process ID.
    pub pid: u32,
    /// Routing ID of the PF.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "01:00.0")]
    pub bdf: RoutingId,
    /// TotalVFs of the SR-IOV capability: how many VFs can be enabled, 1 to 256.
    pub total_vfs: u16,
    /// VFs enabled now; 0 while VF Enable is clear.
    pub num_vfs: u16,
    /// First VF Offset: the routing ID of VF 0 minus the PF's.
    pub first_vf_offset: u16,
    /// VF Stride: the routing ID of each VF minus the one before it.
    pub vf_stride: u16,
    /// What the port is connected to.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "tap:tap0")]
    pub uplink: Uplink,
    /// Largest IP packet a function offers to carry, in bytes.
    pub mtu: u16,
    /// Receive/transmit queue pairs each function offers.
    pub queue_pairs: u16,
    /// Folder that holds the adapter's sockets.
    #[schema(value_type = String)]
    pub run_dir: PathBuf,
}

/// One PCIe function of the adapter: the PF or a VF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Function {
    /// Its name: `pf`, `vf0` ... `vf255`.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "vf0")]
    pub id: FunctionId,
    /// Its routing ID.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "01:00.1")]
    pub bdf: RoutingId,
    /// The IDs that drivers match, as Linux shows them for this function.
    pub identity: Identity,
    /// Its BARs; for a VF its share of each VF BAR aperture.
    pub bars: Vec<Bar>,
    /// The vfio-user socket a VMM connects to.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// The vhost-user socket a VMM can connect to instead.
    #[schema(value_type = String)]
    pub vhost_socket: PathBuf,
    /// MAC address.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "02:00:00:00:00:01")]
    pub mac: MacAddr,
    /// Largest IP packet it offers to carry, in bytes.
    pub mtu: u16,
    /// Whether the function has link.
    pub link: Link,
    /// Who is connected to it; `null` while nobody is.
    pub attached: Option<Peer>,
    /// How far the driver in the machine has come.
    pub driver: DriverStatus,
    /// Frames that passed through the function's queues.
    pub counters: Counters,
    /// The function's DMA domain.
    pub dma: Dma,
}

/// The IDs of a function (PCI Local Bus 3.0, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// Vendor ID.
    pub vendor_id: u16,
    /// Device ID.
    pub device_id: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor_id: u16,
    /// Subsystem ID.
    pub subsystem_id: u16,
    /// Class code: base class, subclass and programming interface, 24 bits.
    pub class_code: u32,
    /// Revision ID.
    pub revision: u8,
}

/// One BAR of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bar {
    /// Which of the six, 0 to 5.
    pub index: u8,
    /// Where the PF's driver has placed it on the bus.
    pub address: u64,
    /// Its size, in bytes.
    pub size: u64,
    /// Whether it takes a 64-bit address (and so two of the six registers).
    pub width64: bool,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
}

/// Link state of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The function has link.
    Up,
    /// It has none.
    Down,
}

/// How a VMM is attached to a function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// vfio-user: the whole PCIe function.
    #[default]
    VfioUser,
    /// vhost-user: its queues; the VMM has a virtio-net device of its own.
    VhostUser,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VfioUser => "vfio-user",
            Self::VhostUser => "vhost-user",
        })
    }
}

/// A client connected to a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// The protocol it speaks.
    pub protocol: Protocol,
    /// Its process ID, where the kernel told.
    pub pid: Option<u32>,
}

/// What the driver and the device have come to (Virtual I/O Device 1.3, sections 2.1 and 2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriverStatus {
    /// The device status register, which the driver writes.
    pub device_status: u8,
    /// What it amounts to.
    pub state: DriverState,
    /// The features in use, named as in the standard but without its prefixes; none before they are negotiated.
    #[schema(example = json!(["CSUM", "MRG_RXBUF", "EVENT_IDX", "VERSION_1", "RING_PACKED"]))]
    pub features: Vec<String>,
    /// Why the device needs a reset; `null` while it does not.
    #[schema(example = "queue 1: descriptor 300 is beyond the queue's size, 256")]
    pub failure: Option<String>,
}

/// How far a driver has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriverState {
    /// No driver has touched the device since its last reset.
    Reset,
    /// A driver is bringing the device up.
    Starting,
    /// The driver runs (DRIVER_OK).
    Running,
    /// The device found something it cannot go on with (DEVICE_NEEDS_RESET).
    NeedsReset,
    /// The driver gave up (FAILED).
    Failed,
}

impl From<u8> for DriverStatus {
    fn from(device_status: u8) -> Self {
        const DRIVER_OK: u8 = 4;
        const DEVICE_NEEDS_RESET: u8 = 64;
        const FAILED: u8 = 128;
        let has = |bit| device_status & bit != 0;
        let state = match device_status {
            0 => DriverState::Reset,
            _ if has(FAILED) => DriverState::Failed,
            _ if has(DEVICE_NEEDS_RESET) => DriverState::NeedsReset,
            _ if has(DRIVER_OK) => DriverState::Running,
            _ => DriverState::Starting,
        };
        Self { device_status, state, features: Vec::new(), failure: None }
    }
}

/// Frames and bytes since the function exists. `rx` is what its driver received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Frames delivered to the driver.
    pub rx_frames: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Frames the driver sent.
    pub tx_frames: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Frames delivered whose checksum the driver takes as good or completes itself.
    pub rx_partial_checksums: u64,
    /// Frames delivered unsegmented.
    pub rx_gso_frames: u64,
    /// Frames the driver sent with their checksum to be completed.
    pub tx_partial_checksums: u64,
    /// Frames the driver sent unsegmented.
    pub tx_gso_frames: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Frames that were not delivered, by reason; reasons that never happened are left out.
    pub drops: Vec<Drops>,
}

/// Frames dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drops {
    /// The reason.
    #[schema(example = "no_receive_buffer")]
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// A thread that moves frames. Cycles are those of the time-stamp counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its number, from 0.
    pub worker: usize,
    /// The processor it is pinned to.
    pub core: Option<usize>,
    /// Queue pairs it serves.
    pub queue_pairs: usize,
    /// Frames taken from transmit queues and the uplink.
    pub frames: u64,
    /// Frames handed to other workers.
    pub handed_over: u64,
    /// Cycles of rounds that moved frames.
    pub busy_cycles: u64,
    /// Cycles of rounds that found nothing to do; none pass while it sleeps.
    pub idle_cycles: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Cycles per second.
    pub frequency_hz: u64,
    /// Frames that were timed by stage: those of one burst in 256.
    pub sampled_frames: u64,
    /// Cycles these took, by stage.
    #[schema(example = json!({"take": 100, "copy": 200}))]
    pub stages: BTreeMap<String, u64>,
}

/// A function's DMA domain: the memory its requests may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dma {
    /// Mappings in the domain.
    pub mappings: u64,
    /// Bytes they cover.
    pub bytes: u64,
    /// Requests that ended in a fault since the domain exists.
    pub faults: u64,
    /// The latest of them, oldest first.
    pub recent_faults: Vec<DmaFault>,
}

/// A request of a function that its DMA domain refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DmaFault {
    /// First address of the request, as the driver wrote it.
    pub iova: u64,
    /// Length of the request, in bytes.
    pub len: u64,
    /// Which way the data would have gone.
    pub direction: Direction,
    /// Why it was refused.
    #[schema(example = "not mapped")]
    pub reason: String,
}

/// Which way a DMA request moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The function reads memory (it transmits, or fetches descriptors).
    Read,
    /// The function writes memory (it receives, or reports used descriptors).
    Write,
}

/// How to look at a configuration space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// As Linux shows the function: a VF's IDs filled in by the kernel.
    #[default]
    Linux,
    /// As configuration reads on the bus return it: a VF's IDs read FFFFh and its BARs zero.
    Bus,
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Bus => "bus",
        })
    }
}

/// Query of `GET /v1/functions/{id}/config`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConfigQuery {
    /// How to look at the configuration space; `linux` where it is left out.
    #[serde(default)]
    #[param(inline)]
    pub view: View,
}

/// A function's configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigSpace {
    /// The function.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "vf0")]
    pub id: FunctionId,
    /// Its routing ID.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "01:00.1")]
    pub bdf: RoutingId,
    /// The view that was asked for.
    pub view: View,
    /// The 4096 bytes, as 8192 hexadecimal digits.
    #[serde(with = "text::hex")]
    #[schema(value_type = String, min_length = 8192, max_length = 8192)]
    pub bytes: Box<[u8; CONFIG_SIZE]>,
}

/// The adapter's VFs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vfs {
    /// TotalVFs: how many can be enabled.
    pub total_vfs: u16,
    /// How many are.
    pub num_vfs: u16,
    /// Each of them, by index.
    pub vfs: Vec<Function>,
}

/// Body of `POST /v1/vfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnableVfs {
    /// NumVFs: how many VFs to enable, 1 to TotalVFs.
    #[schema(minimum = 1, maximum = 256)]
    pub count: u32,
}

/// Answer to `DELETE /v1/vfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VfsDisabled {
    /// How many VFs there were.
    pub disabled: u16,
    /// Those that a VMM was attached to, and that its machine has now lost.
    #[serde(with = "text::display_list")]
    #[schema(value_type = Vec<String>, example = json!(["vf0"]))]
    pub detached: Vec<FunctionId>,
}

#[cfg(test)]
mod tests;
