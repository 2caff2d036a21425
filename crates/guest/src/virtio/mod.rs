//! This module is the virtio-net driver: it brings a virtio-pci device up as a kernel driver does,
//! and has the driver's side of virtqueues, with frames in and out.
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
mod counters;
mod device;
mod net;
pub mod offload;
mod queue;
mod rx;
pub mod spec;
mod tx;

pub use commands::Rss;
pub use control::ControlQueue;
pub use counters::Counters;
pub use device::VirtioPci;
pub(crate) use net::LARGEST_FRAME;
pub use net::{NetInfo, NetOptions, VirtioNet};
pub use offload::{NetHeader, Offloads};

pub use queue::{BATCH, Descriptor, Layout, Queue, Used, need_event};
pub use rx::RxQueue;
pub use spec::{feature, status};
pub use tx::TxQueue;
