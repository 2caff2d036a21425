//! This crate is the embedded switch: it decides to which of the adapter's functions, or to the
//! uplink, a frame goes.
//!
//! What it is: an immutable forwarding [`Table`], built from every function's [`Policy`], and one
//! question it answers about one Ethernet header: [`Table::classify`]. The table is replaced as a
//! whole when a policy changes; a worker holds a snapshot for a burst, so the answer takes no lock,
//! allocates nothing and writes no memory.
//!
//! What it is not: it reads no frame bodies, owns no queues and does no I/O. It does not learn
//! addresses: a function's MAC addresses and filters are known, as in the Virtual Ethernet Bridge
//! (VEB) of an SR-IOV adapter, and what is unknown belongs to the uplink.
//!
//! ```text
//!   Policy of pf, vf0, vf1, ...          one frame's header, and who sent it
//!            |                                          |
//!      TableBuilder::build                              v
//!            |                          +---------------------------------+
//!            +------------------------> | Table::classify                 |
//!                                       |  sender: link up? source valid? |
//!                                       |          spoofchk: is it yours? |
//!                                       |  fdb:    destination -> owner   |
//!                                       |  owner:  link, filters, VLAN    |
//!                                       +---------------------------------+
//!                                          |         |        |       |
//!                                      Function   Uplink    Multi    Drop
//!                                       (one)     (out)  (replicate) (why)
//! ```
//!
//! # Rules
//!
//! | destination | from a function | from the uplink |
//! |---|---|---|
//! | unicast, a function's | that function, and every promiscuous one | the same |
//! | unicast, nobody's | the uplink, and every promiscuous one | promiscuous ones only |
//! | multicast | subscribers, all-multicast, promiscuous; the uplink | the same but the uplink |
//! | broadcast | every function that takes broadcasts; the uplink | the same but the uplink |
//! | 01:80:C2:00:00:00..0F | nobody | nobody |
//!
//! A frame never returns to its sender. A function whose link is down neither sends nor receives. A
//! VLAN-tagged frame reaches only receivers whose VLAN filter admits the tag.

#![forbid(unsafe_code)]

mod decision;
mod drop_reason;
mod fdb;
mod last_decision;
mod policy;
pub mod spec;
mod table;

pub use decision::{Decision, Destinations, Source};
pub use drop_reason::DropReason;
pub use last_decision::LastDecision;
pub use manifold_offload::{Filters, MacAddr, ParseMacError, VlanSet};
pub use policy::Policy;
pub use table::build::TableBuilder;
pub use table::{Conflict, Table};
