//! This crate is the adapter, which puts every part of Manifold together.
//!
//! What it is: one PF and up to 256 VFs with their configuration spaces, device models, DMA domains
//! and queues; the host side that drives them (root complex and PF driver); the sockets on which
//! VMMs attach; the switch's policies. Device models are behind a trait: `model` says what they
//! get, `virtio_net` is the one that the product has, and `docs/device-model.md` shows how another
//! is added.
//!
//! What it is not: a command line or an API (those are above it), and none of the mechanisms (those
//! are below).
//!
//! ```text
//!   management --> Adapter --> PfDriver --> RootComplex --> Device (config and memory requests
//!                    |                                       |    by routing ID, address)
//!                    |                                       |  creates and removes VFs as
//!                    |                                       v  VF Enable says
//!   VMM <--vfio-user--> Attachment -----------------------> Function: configuration space,
//!                    (what vfio-pci does: DMA maps,            MSI-X, device model,
//!                     eventfds, reset)                         DMA domain, counters
//!   VMM <--vhost-user-> VhostAttachment ------------------> Function: DMA domain, counters,
//!                    (memory, queues, eventfds)              | virtqueues if it has any
//!                                           Queues (start, stop, kick) --> Datapath workers
//!                                           Switch (policies -> Table) --/
//! ```
//!
//! Locks are taken in this order: [`Adapter`]'s driver, a function's registers, the switch's
//! policies, a domain's mappings. Workers take none of them.

#![forbid(unsafe_code)]

mod adapter;
mod attachment;
mod config;
mod device;
mod error;
mod factory;
mod function;
mod info;
mod interrupt;
mod model;
mod queues;
mod switch;
mod vhost;
mod virtio_net;

pub use adapter::{Adapter, View};
pub use config::{Config, Uplink};
pub use error::Error;
pub use info::{AdapterInfo, DmaInfo, FunctionInfo, PeerInfo, Protocol};
pub use model::{Model, ModelFactory, Resources};
