//! This crate has what the tests, fuzz targets and timing examples of several crates share: guest
//! memory, the driver's side of virtqueues, and simple second implementations to compare with. No
//! shipped crate depends on this one.
//!
//! ```text
//!   a test ──▶ Driver, PackedDriver     a queue in a guest of its own
//!          └─▶ SplitRing, PackedRing    the driver's side of a ring in any Memory
//!                    │
//!                 Memory ◀── Guest (a domain and its file), dma::Reader, a test's own
//! ```
//!
//! A driver here writes what it is told, right or wrong, and trusts the device as little as the
//! device trusts it. It panics where memory is not mapped or the device breaks the standard's
//! rules.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests use this crate")]

mod driver;
mod memory;
mod packed;
mod segments;
mod split;
pub mod toeplitz;

pub use driver::{Driver, Guest, PackedDriver, tight};
pub use memory::{GuestMemory, Memory};
pub use packed::{AVAIL, DESC, DISABLE, ENABLE, PackedRing, Place, USED, UsedBuffer};
pub use segments::Segments;
pub use split::{Descriptor, INDIRECT, NEXT, SplitRing, WRITE};
