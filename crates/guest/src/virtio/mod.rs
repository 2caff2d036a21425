//! The virtio-net driver: a virtio-pci device brought up as a kernel driver does it, split virtqueues from
//! the driver's side, frames in and out.
//!
//! ```text
//!   VirtioNet   frames ── RxQueue, TxQueue, ControlQueue   (buffers, virtio-net headers)
//!       │                    │
//!       │                  Queue                           (descriptors, rings, event indices)
//!       ▼                    ▼
//!   VirtioPci   status, features, queue set-up, doorbells  (registers)
//! ```

mod commands;
mod control;
mod device;
mod net;
pub mod offload;
pub mod queue;
mod rx;
pub mod spec;
mod tx;

pub use commands::{Coalescing, Rss, Statistics};
pub use control::ControlQueue;
pub use device::VirtioPci;
pub(crate) use net::LARGEST_FRAME;
pub use net::{NetInfo, NetOptions, VirtioNet};
pub use offload::{NetHeader, Offloads};

pub use queue::{BATCH, Layout, Queue, Used};
pub use rx::RxQueue;
pub use spec::{feature, status};
pub use tx::TxQueue;

use serde::{Deserialize, Serialize};

/// What the guest's driver counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, without the virtio-net header.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent, without the virtio-net header.
    pub tx_bytes: u64,
    /// Frames not sent because the ring was full.
    pub tx_dropped: u64,
    /// Doorbells rung.
    pub kicks: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Times the process slept.
    pub sleeps: u64,
}
