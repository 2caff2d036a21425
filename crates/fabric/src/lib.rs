//! This crate is the fabric: the root complex that requests travel through, and the software that
//! enumerates it.
//!
//! What it is: a [`RootComplex`] with bus 0, a PCI-to-PCI bridge on it (the root port) and an
//! [`Endpoint`] behind the bridge, and a [`PfDriver`] that does to them what firmware, an operating
//! system's PCI core and a PF driver do to real hardware: assign bus numbers, walk capabilities,
//! size and place BARs, enable and disable VFs. The driver has registers and nothing else: what it
//! knows, it read.
//!
//! What it is not: it does not implement a function's registers (`manifold-pci` does) and no DMA
//! passes through it: a function reaches memory through its DMA domain.
//!
//! ```text
//!    PfDriver                       (software: enumeration, SR-IOV enable and disable)
//!       | config_read/write(routing ID, offset)      | mem_read/write(address)
//!       v                                            v
//!  +--------------------------- RootComplex -----------------------------+
//!  | bus 0: 00:01.0 root port, a type 1 header                           |
//!  |   bus numbers: primary <= secondary <= subordinate                  |
//!  |   Type 0 to the secondary bus,      memory window, prefetchable     |
//!  |   Type 1 to the buses after it      window: inside goes downstream  |
//!  |   no ARI forwarding: device 0 only                                  |
//!  +----------------------------------+----------------------------------+
//!                                     | the link: bus 01
//!                                     v
//!              Endpoint: decode::Decoder: which function, which BAR, what offset
//!                01:00.0 PF    01:00.1 VF 0  ...  02:00.0 VF 255
//! ```
//!
//! A request that nobody claims is an Unsupported Request: reads answer all ones, writes vanish.

#![forbid(unsafe_code)]

pub mod decode;
mod driver;
mod endpoint;
mod error;
mod root_complex;
mod root_port;
pub mod spec;

pub use driver::{BarInfo, Clock, PfDriver, PfInfo, SystemClock, VfInfo};
pub use endpoint::{ConfigType, Endpoint};
pub use error::Error;
pub use root_complex::{MemoryRanges, RootComplex};
