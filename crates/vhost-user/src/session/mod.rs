//! The protocol as a state machine: a message in, an answer out. No I/O of its own.
//!
//! ```text
//!   Message ─► Request ─► Session ─► Answer { bytes, descriptors, whether that was the last }
//!                            │
//!              Memory, Ring × n ─► Device: map, unmap, start and stop rings
//! ```
//!
//! A ring is served while the client has started it (a kick), enabled it and said all there is to say of it. Whatever
//! changes that goes through [`Session::settle`].

mod dispatch;
mod rings;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::codec::{Header, Malformed, Request};
use crate::device::{Device, Failure, Offer, Region};
use crate::inflight::{Tracking, TrackingError};
use crate::lines::DeviceStatus;
use crate::memory::{Memory, MemoryError};
use crate::ring::Ring;
use crate::spec::{self, protocol_feature};

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// The client closed it between two messages.
    Closed,
    /// The client closed it, or died, in the middle of a message.
    MidMessage,
    /// A request was refused, and the protocol has no way to tell the client.
    Refused {
        /// Which.
        request: &'static str,
        /// Why.
        reason: String,
    },
    /// The byte stream makes no sense.
    Protocol(&'static str),
    /// The device is not to be had. A device never sees this one.
    Unavailable(String),
    /// The socket failed.
    Socket(Errno),
    /// This side ended it.
    Server,
    /// A method of the device panicked.
    DevicePanicked,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client closed the connection"),
            Self::MidMessage => f.write_str("the client went away in the middle of a message"),
            Self::Refused { request, reason } => write!(f, "{request} refused: {reason}"),
            Self::Protocol(what) => write!(f, "protocol error: {what}"),
            Self::Unavailable(reason) => f.write_str(reason),
            Self::Socket(errno) => write!(f, "the socket failed: {errno}"),
            Self::Server => f.write_str("this side closed the connection"),
            Self::DevicePanicked => f.write_str("the device panicked"),
        }
    }
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Its payload or descriptors are not what they must be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The header is not a request's.
    #[error("header flags {0:#x} are not a request's")]
    Header(u32),
    /// It needs a protocol feature that was not negotiated.
    #[error("protocol feature {0:#x} was not negotiated")]
    NotNegotiated(u64),
    /// Features that are not offered.
    #[error("features {0:#x} are not offered")]
    Features(u64),
    /// The rings' features cannot change while one is served.
    #[error("features cannot change while rings are served")]
    FeaturesInUse,
    /// There is no such ring.
    #[error("there is no ring {ring}, only {rings}; the VMM uses more queues than the adapter has")]
    NoRing {
        /// The index.
        ring: u32,
        /// How many there are.
        rings: u16,
    },
    /// The ring's size is out of range.
    #[error("ring size {size} is not one of 1 to {max}")]
    RingSize {
        /// The size.
        size: u32,
        /// The largest.
        max: u16,
    },
    /// What cannot change while the ring is served.
    #[error("ring {0} is served; it must be stopped first")]
    RingInUse(u16),
    /// A part of the ring is outside the client's memory.
    #[error("address {0:#x} of a ring is in none of the client's memory regions")]
    Address(u64),
    /// Not an eventfd: nothing else is sure never to block.
    #[error("the descriptor cannot be used: {0}")]
    EventFd(#[source] io::Error),
    /// A ring without kicks, from the driver: it would have to be polled for ever.
    #[error("ring {0} comes without a kick eventfd; polling is not served")]
    Polling(u16),
    /// The memory table.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A region cannot be mapped.
    #[error("the region of {size:#x} bytes at {guest_address:#x} cannot be mapped: {source}")]
    Map {
        /// Its guest address.
        guest_address: u64,
        /// Its size.
        size: u64,
        /// What the device says.
        source: Failure,
    },
    /// A ring cannot be served.
    #[error("ring {ring} cannot be served: {source}")]
    Start {
        /// Which.
        ring: u16,
        /// What the device says.
        source: Failure,
    },
    /// What is in flight cannot be tracked.
    #[error(transparent)]
    Inflight(#[from] TrackingError),
    /// An MTU that the device cannot carry.
    #[error("MTU {mtu}: {source}")]
    Mtu {
        /// The MTU.
        mtu: u64,
        /// What the device says.
        source: Failure,
    },
}

/// What goes back to the client.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fd: Option<Arc<OwnedFd>>,
    /// The connection ends after this, and why.
    pub(crate) end: Option<Disconnect>,
    /// The first request refused so that the client knows.
    pub(crate) refusal: Option<Refusal>,
}

impl Answer {
    fn reply(&mut self, code: u32, payload: &[u8]) {
        self.bytes = [&Header::reply(code, payload.len())[..], payload].concat();
    }

    fn number(&mut self, code: u32, value: u64) {
        self.reply(code, &value.to_ne_bytes());
    }
}

/// One client's connection, from its first message on.
pub(crate) struct Session {
    device: Arc<dyn Device>,
    offer: Offer,
    status: Arc<DeviceStatus>,
    rings: Vec<Ring>,
    memory: Memory,
    /// Features the driver accepted, once the client has said.
    features: Option<u64>,
    /// Protocol features offered and negotiated.
    protocol_offer: u64,
    protocol_features: u64,
    /// Pairs that the driver receives on.
    pairs: u16,
    tracking: Option<Tracking>,
}

impl Session {
    /// Protocol features there are; one depends on the device.
    const PROTOCOL_FEATURES: u64 = protocol_feature::MQ
        | protocol_feature::RARP
        | protocol_feature::REPLY_ACK
        | protocol_feature::NET_MTU
        | protocol_feature::INFLIGHT_SHMFD
        | protocol_feature::RESET_DEVICE
        | protocol_feature::CONFIGURE_MEM_SLOTS
        | protocol_feature::STATUS;

    /// Bytes of the longest payload: a memory table with as many regions as a message can bring descriptors.
    pub(crate) const MAX_PAYLOAD: usize = 8 + manifold_socket::SCM_MAX_FDS * 32;

    /// A session with a device that has been given to the client.
    pub(crate) fn new(device: Arc<dyn Device>, status: Arc<DeviceStatus>) -> Self {
        let mut offer = device.offer();
        // Messages number rings with a byte.
        offer.rings = offer.rings.min(256);
        let tracks = device.inflight_size(offer.max_ring_size, false).is_some();
        let untracked = if tracks { 0 } else { protocol_feature::INFLIGHT_SHMFD };
        let rings = (0..offer.rings).map(|_| Ring::new(&status)).collect();
        Self {
            device,
            offer,
            status,
            rings,
            memory: Memory::default(),
            features: None,
            protocol_offer: Self::PROTOCOL_FEATURES & !untracked,
            protocol_features: 0,
            pairs: 1,
            tracking: None,
        }
    }

    /// Carries out one message.
    pub(crate) fn receive(
        &mut self,
        header: Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
        answer: &mut Answer,
    ) {
        *answer = Answer::default();
        let result = if header.is_request() {
            Request::decode(header.code, payload, fds)
                .map_err(Refusal::from)
                .and_then(|request| self.dispatch(header.code, request, answer))
        } else {
            Err(Refusal::Header(header.flags))
        };
        let acknowledge = header.needs_reply() && self.has(protocol_feature::REPLY_ACK);
        match result {
            Ok(()) if answer.bytes.is_empty() && acknowledge => answer.number(header.code, 0),
            Ok(()) => {}
            Err(refusal) if acknowledge && !is_question(header.code) => {
                answer.number(header.code, 1);
                answer.refusal = Some(refusal);
            }
            Err(refusal) => {
                let (request, reason) = (spec::name(header.code), refusal.to_string());
                *answer = Answer::default();
                answer.end = Some(Disconnect::Refused { request, reason });
            }
        }
    }

    /// The connection has ended: stops all rings and lets go of the memory.
    pub(crate) fn end(&mut self, how: &Disconnect) {
        self.stop_all();
        self.forget_memory();
        self.device.detached(how);
    }

    fn has(&self, protocol_feature: u64) -> bool {
        self.protocol_features & protocol_feature != 0
    }

    fn needs(&self, protocol_feature: u64) -> Result<(), Refusal> {
        if self.has(protocol_feature) {
            Ok(())
        } else {
            Err(Refusal::NotNegotiated(protocol_feature))
        }
    }

    fn is_packed(&self) -> bool {
        self.features.unwrap_or(0) & spec::F_RING_PACKED != 0
    }

    fn forget_memory(&mut self) {
        for region in self.memory.take_all() {
            self.device.unmap(&region);
        }
    }

    fn map(&self, region: &Region, file: OwnedFd) -> Result<(), Refusal> {
        let Region { guest_address, size, .. } = *region;
        self.device.map(region, file).map_err(|source| Refusal::Map { guest_address, size, source })
    }
}

/// Whether a request has an answer of its own, in place of which there is none.
fn is_question(code: u32) -> bool {
    use spec::request::{
        GET_FEATURES, GET_INFLIGHT_FD, GET_MAX_MEM_SLOTS, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM,
        GET_STATUS, GET_VRING_BASE,
    };
    matches!(
        code,
        GET_FEATURES
            | GET_INFLIGHT_FD
            | GET_MAX_MEM_SLOTS
            | GET_PROTOCOL_FEATURES
            | GET_QUEUE_NUM
            | GET_STATUS
            | GET_VRING_BASE
    )
}
