//! This module has the capabilities, one file each, made of declared registers (`structure.rs`).
//!
//! A new one takes three steps: its registers in [`spec`](crate::spec), a file here, and its place
//! in the list (`config/list.rs`). `serial.rs` is the shortest example; `examples/capability.rs`
//! shows the way of a device model, which needs no file here.

mod acs;
mod aer;
mod ari;
mod express;
mod msix;
mod power;
mod serial;
mod sriov;
mod structure;
mod vendor;

pub(crate) use acs::access_control;
pub(crate) use aer::advanced_error_reporting;
pub(crate) use ari::alternative_routing_id;
pub(crate) use express::Express;
pub(crate) use msix::MsixControl;
pub(crate) use power::PowerManagement;
pub(crate) use serial::serial_number;
pub(crate) use sriov::Sriov;
pub use sriov::{SriovView, VfBar};
pub(crate) use structure::{Capability, CapabilityId, Request, Role, Structure};
pub(crate) use vendor::vendor_specific;
