//! The fabric and its PF driver over an endpoint made of configuration spaces.

#![allow(clippy::unwrap_used, clippy::panic)] // the helpers of tests

mod enumeration;
mod hostile;
mod mock;
mod vfs;
