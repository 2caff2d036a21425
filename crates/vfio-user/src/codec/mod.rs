//! This module turns messages into bytes and back, without I/O and state: a header, and the payload
//! of every command in both directions.
//!
//! ```text
//!   16-byte Header  | payload, laid out by command and direction | descriptors beside the bytes
//!   Header::decode  | Request::decode, Reply::decode             | not seen here
//! ```
//!
//! Decoding never panics, allocates no more than a small multiple of what it is given, and accepts
//! a payload longer than its fixed structure wherever libvfio-user does. For every value,
//! decoding what was encoded gives that value back.

mod header;
mod payload;
mod reply;
mod request;
mod version;

#[cfg(test)]
mod tests;

pub use header::{Command, Header, Kind};
pub use payload::Malformed;
pub use reply::{IoFdEntry, RegionInfoReply, RegionIoFdsReply, Reply};
pub use request::{
    DmaMapRequest, DmaUnmapRequest, InfoRequest, IrqSet, RegionAccess, RegionIoFdsRequest, Request,
    SmallWrite,
};
pub use version::{Capabilities, Version};
