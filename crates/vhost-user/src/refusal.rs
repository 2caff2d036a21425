//! This module lists the reasons why a request is not carried out.

use std::io;

use crate::codec::Malformed;
use crate::device::Failure;
use crate::inflight::TrackingError;
use crate::memory::MemoryError;

/// The reason why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The payload or the descriptors are not what they must be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The header is not a request's.
    #[error("header flags {0:#x} are not a request's")]
    Header(u32),
    /// The request needs a protocol feature that was not negotiated.
    #[error("protocol feature {0:#x} was not negotiated")]
    NotNegotiated(u64),
    /// The client accepts features that are not offered.
    #[error("features {0:#x} are not offered")]
    Features(u64),
    /// The rings' features cannot change while one is served.
    #[error("features cannot change while rings are served")]
    FeaturesInUse,
    /// There is no such ring.
    #[error("there is no ring {ring}, only {rings}; the VMM uses more queues than the adapter has")]
    NoRing {
        /// The index that the client gave.
        ring: u32,
        /// Number of rings.
        rings: u16,
    },
    /// The ring's size is out of range.
    #[error("ring size {size} is not one of 1 to {max}")]
    RingSize {
        /// The size that the client gave, in entries.
        size: u32,
        /// The largest size in entries.
        max: u16,
    },
    /// The request would change what cannot change while the ring is served.
    #[error("ring {0} is served; it must be stopped first")]
    RingInUse(u16),
    /// A part of the ring is outside the client's memory.
    #[error("address {0:#x} of a ring is in none of the client's memory regions")]
    Address(u64),
    /// The descriptor is not an eventfd: nothing else is sure never to block.
    #[error("the descriptor cannot be used: {0}")]
    EventFd(#[source] io::Error),
    /// The ring from the driver has no kicks: it would have to be polled for ever.
    #[error("ring {0} comes without a kick eventfd; polling is not served")]
    Polling(u16),
    /// The request does not fit the memory table.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A region cannot be mapped.
    #[error("the region of {size:#x} bytes at {guest_address:#x} cannot be mapped: {source}")]
    Map {
        /// Guest address of the region.
        guest_address: u64,
        /// Size of the region in bytes.
        size: u64,
        /// The device's reason.
        source: Failure,
    },
    /// A ring cannot be served.
    #[error("ring {ring} cannot be served: {source}")]
    Start {
        /// Index of the ring.
        ring: u16,
        /// The device's reason.
        source: Failure,
    },
    /// Chains in flight cannot be tracked.
    #[error(transparent)]
    Inflight(#[from] TrackingError),
    /// The device cannot carry this MTU.
    #[error("MTU {mtu}: {source}")]
    Mtu {
        /// The MTU in bytes.
        mtu: u64,
        /// The device's reason.
        source: Failure,
    },
}
