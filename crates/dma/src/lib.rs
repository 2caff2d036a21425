//! This crate implements DMA domains: what an IOMMU does for a function, in software.
//!
//! A [`Domain`] belongs to one PCIe function. The VMM (through VFIO's map and unmap) says which I/O
//! virtual addresses (IOVAs) lead to which memory; a data path worker translates through a
//! [`Reader`] and gets [`Slice`]s of that memory, bounds and permissions checked, or a recorded
//! [`Fault`]. There is no other way for a function to reach memory.
//!
//! ```text
//!   VMM: map / unmap                    worker: one burst
//!        |                                  |
//!        v                                  v
//!   Domain ---- publishes a new ----> Reader::pin -> Pinned --slice(iova, len)--> Slice<'_>
//!   (mappings,  immutable snapshot    (marks the reader's    \                    (host memory)
//!    files,     to every reader;       own slot, never        `-> Fault, recorded
//!    faults)    unmap waits for pins)  waits)                     in the domain
//! ```
//!
//! - Snapshots are persistent B-trees that share structure, so one more mapping costs O(log n)
//!   however many there are.
//! - Each file is mapped once, whole, however many IOVA ranges point into it: 100,000 one-page
//!   mappings cost no 100,000 `mmap`s.
//! - A client that truncates a file under a running adapter has zeros put in its place and its
//!   accesses refused ([`mod@sigbus`]); no one else notices.
//!
//! It is not a page table walker, it knows nothing of virtqueues, and it does not decide what a
//! fault means for a device.

mod barrier;
mod domain;
mod error;
mod fault;
mod limits;
mod memory;
mod pin;
mod reader;
mod shared;
pub mod sigbus;
mod slice;
mod snapshot;

pub use domain::{Backing, Domain, Stats};
pub use error::Error;
pub use fault::{Access, Fault, FaultReason, FaultReport};
pub use limits::PAGE_SIZE;
pub use reader::{Pinned, Reader, Window};
pub use shared::SharedMemory;
pub use slice::Slice;
pub use snapshot::Permissions;
