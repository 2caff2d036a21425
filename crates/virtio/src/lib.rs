//! virtio

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "shared rings are raw memory")]
pub mod ring;
