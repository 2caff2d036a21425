//! This crate is a userspace driver of a virtual function, with a TCP/IP stack on top: it stands
//! for a virtual machine.
//!
//! It does what a VMM and a guest kernel's virtio-net driver do together: connects to a function's
//! vfio-user socket, gives the device memory, finds the virtio structures through the capabilities
//! in configuration space, sets up MSI-X and virtqueues through registers, and moves Ethernet
//! frames. In a process of its own ([`agent`]) it is the VM of the demo and the tests.
//! `examples/attach.rs` shows its use. The crates `manifold-generator` and `manifold-hostile` build
//! on it.
//!
//! It is not a part of the adapter and shares no code with it: the specifications were read twice,
//! so that a misreading on one side shows. It is not a VMM either: there is no CPU, and the "guest
//! physical" addresses are whatever this crate hands out.
//!
//! ```text
//!   commands (JSON lines)     agent      events (JSON lines)
//!           ───────────────►  │   ▲  ───────────────►
//!                             ▼   │
//!                       net::Stack (smoltcp: ARP, ICMP, TCP)
//!                             │   ▲
//!                             ▼   │ frames
//!                     virtio::VirtioNet ── virtio::Queue ── memory::Arena (memfd, shared)
//!                             │ registers, doorbells            ▲ descriptors, buffers
//!                             ▼                                 │
//!                      vfio::Function                           │ DMA
//!                             │ vfio-user messages, eventfds    │
//!   ══════════════════════════▼═════════════════════════════════▼═════ the function's socket ═══
//!                                      the adapter
//! ```
#![forbid(unsafe_code)]

pub mod agent;
mod error;
pub mod memory;
pub mod net;
pub mod protocol;
pub mod vfio;
pub mod vhost_user;
pub mod virtio;

pub use error::{Error, Result};
