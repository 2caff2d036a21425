//! This crate does in software what a network adapter does to frames (checksums, segmentation,
//! receive-side scaling), and has the words for what it receives: MAC addresses, VLANs, filters.
//!
//! A virtio driver hands frames over unfinished: the transport checksum not computed, or a TCP
//! stream of 64 KiB in one frame. As long as the receiver takes such frames they pass as they are;
//! for one that does not, this crate finishes them. All of it is pure functions on bytes.
//!
//! It is not a protocol stack: it keeps no state between frames, does no I/O, and knows nothing of
//! queues or guest memory. It does not reassemble anything either: a frame never gets larger here.
//!
//! ```text
//!   sender's virtio_net_hdr ─▶ NetHeader::check ─▶ Request ─▶ Request::plan ─▶ Plan, per receiver
//!                                │ what it negotiated              │ what that one negotiated
//!                                ▼                                 ▼
//!                              Error: drop   PassThrough(NetHeader)  deliver as it is
//!                                            Checksum                checksum::finish or Sum
//!                                            Segment(Checksums)      Segmenter: segments' headers
//!
//!   first bytes of the frame ─▶ headers::parse ─▶ Layers ─▶ Hasher::hash  RSS and hash report
//!                                                      ├──▶ rss::flow     automatic steering
//!                                                      └──▶ verify        may DATA_VALID be said?
//! ```
//!
//! Frames come from guests: whatever the bytes are, nothing here panics, and nothing is written
//! before the network header's end, so that what a switch judged (addresses, VLAN) is what it
//! delivers.

#![forbid(unsafe_code)]

mod bytes;
pub mod checksum;
mod error;
mod filters;
pub mod headers;
mod mac;
mod net_header;
mod plan;
pub mod rss;
pub mod segment;
pub mod spec;
mod verify;
mod vlan;

pub use checksum::Sum;
pub use error::Error;
pub use filters::Filters;
pub use headers::{Layers, Network, Transport, parse};
pub use mac::{MacAddr, ParseMacError};
pub use net_header::{NetHeader, Offloads};
pub use plan::{Checksums, Plan, Request};
pub use rss::{Hash, Hasher};
pub use segment::Segmenter;
pub use verify::{Verdict, verify};
pub use vlan::VlanSet;
