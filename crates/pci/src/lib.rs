//! What a PCIe function is: configuration space, capabilities, BARs, MSI-X and SR-IOV. No I/O.

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
mod registers;
mod routing_id;
pub mod spec;

pub use capability::{SriovView, VfBar};
pub use config::{Bar, ConfigSpace, ErrorMessage, Reset, UncorrectableError};
pub use error::Error;
pub use event::{Event, Events};
pub use function::{
    BarSpec, FunctionId, FunctionSpec, Identity, MAX_VFS, MsixSpec, SriovSpec, VendorCapability,
};
pub use model::DeviceModel;
pub use msix::{MsiSink, Msix, Vector};
pub use passthrough::Passthrough;
pub use power::PowerState;
pub use routing_id::RoutingId;

/// Bytes in a function's configuration space (PCIe Base 5.0, section 7.2).
pub const CONFIG_SIZE: usize = 4096;
