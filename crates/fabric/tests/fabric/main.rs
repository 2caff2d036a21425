//! These tests run the fabric and its PF driver over an endpoint made of configuration spaces.

#![allow(clippy::unwrap_used, clippy::panic)] // the helpers of tests

mod decode;
mod enumeration;
#[path = "../../../pci/tests/common/mod.rs"]
mod function;
mod hostile;
mod mock;
mod vfs;
