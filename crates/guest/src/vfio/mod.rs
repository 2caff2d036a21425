//! This module reaches a PCI function behind a vfio-user socket, from the client's side.
//!
//! [`Function`] is what a driver sees: configuration space, BARs, MSI-X, memory. Below it is a
//! [`Transport`], of which there are two:
//!
//! - [`Independent`], the rust-vmm project's `vfio_user::Client` (0.1.7). It was written by others
//!   from the same specification, so traffic through it says something about the server. It brings
//!   a function up and carries traffic, but it cannot be the only client here:
//!   - It reads every reply as if it were a success: the error flag is never looked at (a refused
//!     `DMA_MAP` is `Ok`), and as an error reply is a bare header, a refused `REGION_READ` or
//!     `REGION_WRITE` leaves it waiting for bytes that never come.
//!   - It has no timeouts, and its socket is private, so none can be added.
//!   - Its mappings are always readable and writable, so read-only memory cannot be tried.
//!   - It has no write without a reply (a doorbell costs a round trip) and no
//!     `DEVICE_GET_REGION_IO_FDS`.
//!   - It does not continue partial writes, and does not keep the limits that the server names.
//! - [`Client`], this crate's own and the default, which does these.
//!
//! ```text
//!   Function ── dyn Transport ─┬─ Client ──────── wire ── socket
//!                              └─ Independent ─── vfio_user::Client ── socket
//! ```

mod client;
mod function;
mod independent;
pub(crate) mod pci;
pub mod spec;
mod transport;
pub mod wire;

pub use client::{Client, Received};
pub use function::{Bar, Function};
pub use independent::Independent;
pub use transport::{ClientKind, DmaMap, DmaMode, Doorbell, Region, Transport};
