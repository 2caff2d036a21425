//! What the tests of several crates share. No shipped crate depends on this one.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests use this crate")]

pub mod toeplitz;
