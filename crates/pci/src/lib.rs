//! This crate models a PCIe function: configuration space, capabilities, BARs, MSI-X and SR-IOV.
//!
//! A PF's configuration space has every register of an SR-IOV endpoint, bit by bit as the PCI
//! Express Base Specification has it (PCIe Base 6.0); a VF's has what the standard leaves a VF.
//! Software that drives such hardware (a root complex, Linux's `drivers/pci/iov.c`, `lspci`) finds
//! what it expects and gets the effects it is owed. The same function seen through Linux's
//! vfio-pci, as a VMM sees it, is [`Passthrough`].
//!
//! The crate has no I/O, no threads and no knowledge of Ethernet or virtio. It does not route
//! requests (`fabric` does), hold guest memory (`dma`), or know what is behind a BAR: that is a
//! [`DeviceModel`]'s. A write changes registers and answers with [`Events`]; the owner of the
//! function acts on them.
//!
//! ```text
//!   configuration request, from the fabric         from a VMM (vfio-user)
//!                │                                           │
//!                │                         ┌ Passthrough ────▼─────────────────┐
//!                │                         │ virtual: IDs, BARs, Memory Enable │
//!                │                         │ hidden: SR-IOV, ARI               │
//!                │                         └─────────────────┬─────────────────┘
//!                │                     what Linux lets through
//!   ┌ ConfigSpace▼───────────────────────────────────────────▼────────────────┐
//!   │ 000 header          registers ─────── before/after ──▶ Events ──────────┼──▶ the owner:
//!   │ 040 PM, MSI-X, PCIe, vendor ...       a write                           │    device model,
//!   │ 100 AER, DSN, ARI, ACS, SR-IOV                                          │    DMA domain, VFs
//!   └──────────────┬──────────────────────────────────────────────────────────┘
//!     enable, mask │ bus master
//!   ┌ Msix ────────▼──────────┐      worker threads
//!   │ table, pending bits     │ ◀─── Vector::raise
//!   │ vector ─────────────────┼────▶ MsiSink::deliver: eventfd or memory
//!   └─────────────────────────┘
//! ```
//!
//! Where to read on: [`spec`] has the registers, `capability/` one file for each capability,
//! `config/` puts them together, `msix/` is the part that other threads touch.

#![forbid(unsafe_code)]

mod bars;
mod capability;
mod config;
pub mod dump;
mod error;
mod event;
mod function;
mod model;
mod msix;
mod passthrough;
mod power;
pub mod registers;
mod routing_id;
pub mod spec;

pub use bars::Bar;
pub use capability::{SriovView, VfBar};
pub use config::ConfigSpace;
pub use error::Error;
pub use event::{Event, Events};
pub use function::{
    BarSpec, FunctionId, FunctionSpec, Identity, MAX_VFS, MsixSpec, SriovSpec, VendorCapability,
};
pub use model::{DeviceModel, DriverReport, Nic};
pub use msix::{MsiSink, Msix, Vector};
pub use passthrough::Passthrough;
pub use power::PowerState;
pub use registers::Reset;
pub use routing_id::RoutingId;
pub use spec::CONFIG_SIZE;

// Unit tests and integration tests share the functions they work on.
#[cfg(test)]
extern crate self as manifold_pci;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod test_functions;
