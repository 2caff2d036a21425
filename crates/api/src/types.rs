//! This module has the types of the API: one for each JSON object, with its OpenAPI schema.
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
use manifold_virtio::spec::status;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::text;

/// The adapter as a whole: the PF's SR-IOV state and what the adapter was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adapter {
    /// Version of the daemon.
    pub version: String,
    /// Process ID of the daemon.
    pub pid: u32,
    /// Routing ID of the PF.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "01:00.0")]
    pub bdf: RoutingId,
    /// TotalVFs of the SR-IOV capability: number of VFs that can be enabled, 1 to 256.
    pub total_vfs: u16,
    /// Number of VFs enabled now; 0 while VF Enable is clear.
    pub num_vfs: u16,
    /// First VF Offset: the routing ID of VF 0 minus the PF's.
    pub first_vf_offset: u16,
    /// VF Stride: the routing ID of each VF minus the one before it.
    pub vf_stride: u16,
    /// Interface that the port is connected to: `none` or `tap:NAME`.
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
    /// Name of the function: `pf`, `vf0` ... `vf255`.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "vf0")]
    pub id: FunctionId,
    /// Routing ID of the function.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "01:00.1")]
    pub bdf: RoutingId,
    /// IDs that drivers match, as Linux shows them for this function.
    pub identity: Identity,
    /// BARs of the function; for a VF its share of each VF BAR aperture.
    pub bars: Vec<Bar>,
    /// Path of the vfio-user socket, to which a VMM connects.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// Path of the vhost-user socket, to which a VMM can connect instead.
    #[schema(value_type = String)]
    pub vhost_socket: PathBuf,
    /// MAC address in use.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "02:00:00:00:00:01")]
    pub mac: MacAddr,
    /// Largest IP packet that the function offers to carry, in bytes.
    pub mtu: u16,
    /// Link state of the function.
    pub link: Link,
    /// VMM that is attached; `null` while none is.
    pub attached: Option<Peer>,
    /// Progress of the driver in the machine.
    pub driver: DriverStatus,
    /// Frames that passed through the function's queues.
    pub counters: Counters,
    /// DMA domain of the function.
    pub dma: Dma,
}

/// The IDs of a function (PCIe Base 6.0, sections 7.5.1.1 and 7.5.1.2).
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
    /// Number of the BAR, 0 to 5.
    pub index: u8,
    /// Address at which the PF's driver has placed it on the bus.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// `true` for a BAR of a 64-bit address, which takes two of the six registers.
    pub width64: bool,
    /// `true` when reads have no side effects.
    pub prefetchable: bool,
}

/// Link state of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The function has link.
    Up,
    /// The function has no link.
    Down,
}

/// The protocol by which a VMM is attached to a function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The VMM has the whole PCIe function (vfio-user).
    #[default]
    VfioUser,
    /// The VMM has the function's queues and a virtio-net device of its own (vhost-user).
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
    /// Protocol that the client speaks.
    pub protocol: Protocol,
    /// Process ID of the client, where the kernel can tell.
    pub pid: Option<u32>,
}

/// The progress of a function's driver (virtio 1.3, sections 2.1 and 2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriverStatus {
    /// Device status register, which the driver writes.
    pub device_status: u8,
    /// Meaning of the device status.
    pub state: DriverState,
    /// Features in use, named as in the standard but without its prefixes; none before they are
    /// negotiated.
    #[schema(example = json!(["CSUM", "MRG_RXBUF", "EVENT_IDX", "VERSION_1", "RING_PACKED"]))]
    pub features: Vec<String>,
    /// Reason why the device needs a reset; `null` while it does not.
    #[schema(example = "queue 1: descriptor 300 is beyond the queue's size, 256")]
    pub failure: Option<String>,
}

/// The stages of a driver's progress.
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
        let has = |bit| device_status & bit != 0;
        let state = match device_status {
            0 => DriverState::Reset,
            _ if has(status::FAILED) => DriverState::Failed,
            _ if has(status::DEVICE_NEEDS_RESET) => DriverState::NeedsReset,
            _ if has(status::DRIVER_OK) => DriverState::Running,
            _ => DriverState::Starting,
        };
        Self { device_status, state, features: Vec::new(), failure: None }
    }
}

/// Frames and bytes since the function exists. `rx` counts what its driver received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Frames delivered to the driver.
    pub rx_frames: u64,
    /// Bytes of the frames delivered.
    pub rx_bytes: u64,
    /// Frames the driver sent.
    pub tx_frames: u64,
    /// Bytes of the frames sent.
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

/// The number of frames dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drops {
    /// Name of the reason.
    #[schema(example = "no_receive_buffer")]
    pub reason: String,
    /// Number of frames.
    pub frames: u64,
}

/// A thread that moves frames. Cycles are those of the time-stamp counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Number of the worker, from 0.
    pub worker: usize,
    /// Processor to which it is pinned; `null` when it is not.
    pub core: Option<usize>,
    /// Number of queue pairs that it serves.
    pub queue_pairs: usize,
    /// Frames taken from transmit queues and the uplink.
    pub frames: u64,
    /// Frames handed to other workers.
    pub handed_over: u64,
    /// Cycles of rounds that moved frames.
    pub busy_cycles: u64,
    /// Cycles of rounds that found nothing to do; none pass while it sleeps.
    pub idle_cycles: u64,
    /// Number of times it went to sleep.
    pub sleeps: u64,
    /// Cycles per second.
    pub frequency_hz: u64,
    /// Frames that were timed by stage, which are those of one burst in 256.
    pub sampled_frames: u64,
    /// Cycles that the sampled frames took, by stage.
    #[schema(example = json!({"take": 100, "copy": 200}))]
    pub stages: BTreeMap<String, u64>,
}

/// A function's DMA domain: the memory its requests may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dma {
    /// Number of mappings in the domain.
    pub mappings: u64,
    /// Bytes that the mappings cover.
    pub bytes: u64,
    /// Requests that ended in a fault since the domain exists.
    pub faults: u64,
    /// Latest faults, oldest first.
    pub recent_faults: Vec<DmaFault>,
}

/// A request of a function that its DMA domain refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DmaFault {
    /// First address of the request, as the driver wrote it.
    pub iova: u64,
    /// Length of the request, in bytes.
    pub len: u64,
    /// Direction in which the data would have gone.
    pub direction: Direction,
    /// Reason why it was refused.
    #[schema(example = "not mapped")]
    pub reason: String,
}

/// The direction in which a DMA request moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The function reads memory (it transmits, or fetches descriptors).
    Read,
    /// The function writes memory (it receives, or reports used descriptors).
    Write,
}

/// The reader for whom a configuration space is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// A user of Linux sees a VF's IDs and BARs filled in by the kernel.
    #[default]
    Linux,
    /// A reader on the bus sees a VF's IDs as FFFFh and its BARs as zero.
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
    /// View of the configuration space; `linux` where it is left out.
    #[serde(default)]
    #[param(inline)]
    pub view: View,
}

/// A function's configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigSpace {
    /// Name of the function.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "vf0")]
    pub id: FunctionId,
    /// Routing ID of the function.
    #[serde(with = "text::display")]
    #[schema(value_type = String, example = "01:00.1")]
    pub bdf: RoutingId,
    /// View that was asked for.
    pub view: View,
    /// All 4096 bytes, as 8192 hexadecimal digits.
    #[serde(with = "text::hex")]
    #[schema(value_type = String, min_length = 8192, max_length = 8192)]
    pub bytes: Box<[u8; CONFIG_SIZE]>,
}

/// The adapter's VFs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vfs {
    /// TotalVFs: number of VFs that can be enabled.
    pub total_vfs: u16,
    /// Number of VFs that are enabled.
    pub num_vfs: u16,
    /// All VFs, by index.
    pub vfs: Vec<Function>,
}

/// Body of `POST /v1/vfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnableVfs {
    /// NumVFs: number of VFs to enable, 1 to TotalVFs.
    #[schema(minimum = 1, maximum = 256)]
    pub count: u32,
}

/// Answer to `DELETE /v1/vfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VfsDisabled {
    /// Number of VFs there were.
    pub disabled: u16,
    /// VFs that a VMM was attached to, and that its machine has now lost.
    #[serde(with = "text::display_list")]
    #[schema(value_type = Vec<String>, example = json!(["vf0"]))]
    pub detached: Vec<FunctionId>,
}

#[cfg(test)]
mod tests;
