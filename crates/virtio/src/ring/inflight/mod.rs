//! This module records which chains a queue has taken and not given back. The record is in memory
//! that outlives the process, the inflight buffer of vhost-user ("Inflight I/O tracking" in its
//! specification). Whoever serves the queue next, after a crash, takes those chains again, in their
//! old order, before new ones.
//!
//! ```text
//!   pop:      the entry is in flight, with a count that says in which order
//!   publish:  1. the entries that are about to be given back are recorded
//!             2. the ring is written
//!             3. the entries are not in flight any more
//!   start:    a batch that stopped between 1 and 3 is finished or undone, as the ring says;
//!             the rest is taken again
//! ```
//!
//! The memory is shared with the VMM. It is read when a queue starts and only written from then on:
//! what it says is checked, once, and can at most make this queue take chains it need not have
//! taken.

mod packed;
mod region;
mod split;

pub(super) use packed::PackedRecord;
pub use region::Inflight;
pub(super) use split::SplitRecord;
