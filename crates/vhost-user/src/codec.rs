//! This module knows the layouts of messages, without I/O: it turns payloads into values, and
//! answers into bytes. All fields are in the machine's own byte order.

use std::os::fd::OwnedFd;

use manifold_socket::MAX_HEADER;

use crate::spec::{self, flag};

/// The beginning of a message ("Header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub(crate) code: u32,
    pub(crate) flags: u32,
    /// Number of bytes that follow the header.
    pub(crate) size: u32,
}

impl Header {
    pub(crate) fn needs_reply(&self) -> bool {
        self.flags & flag::NEED_REPLY != 0
    }

    /// Reports whether the header can be a request's.
    pub(crate) fn is_request(&self) -> bool {
        self.flags & flag::VERSION_MASK == flag::VERSION && self.flags & flag::REPLY == 0
    }

    /// Returns the header of the answer to a request.
    fn reply(code: u32, size: usize) -> [u8; spec::HEADER_SIZE] {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let mut bytes = [0; spec::HEADER_SIZE];
        let fields = [code, flag::VERSION | flag::REPLY, size];
        for (to, field) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *to = field.to_ne_bytes();
        }
        bytes
    }
}

impl manifold_socket::Header for Header {
    const SIZE: usize = spec::HEADER_SIZE;

    fn read(bytes: &[u8; MAX_HEADER]) -> Self {
        let [c0, c1, c2, c3, f0, f1, f2, f3, s0, s1, s2, s3, ..] = *bytes;
        Self {
            code: u32::from_ne_bytes([c0, c1, c2, c3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
        }
    }

    fn payload_len(&self) -> Option<usize> {
        usize::try_from(self.size).ok()
    }
}

/// Returns the message that answers a request with `payload`.
pub(crate) fn reply(code: u32, payload: &[u8]) -> Vec<u8> {
    [&Header::reply(code, payload.len())[..], payload].concat()
}

/// The reason why a payload is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// No request has this number, or none that is served.
    #[error("request {0} is not served")]
    Unknown(u32),
    /// The payload is shorter or longer than the request's.
    #[error("a payload of {0} bytes")]
    Size(usize),
    /// The number of descriptors is not what the request says or needs.
    #[error("{0} descriptors")]
    Descriptors(usize),
    /// A value is none of those allowed.
    #[error("{what} {value:#x}")]
    Value {
        /// Name of what has the value.
        what: &'static str,
        /// The value.
        value: u64,
    },
}

/// A region of the client's memory as messages describe it ("Memory region description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionDescription {
    pub(crate) guest_address: u64,
    pub(crate) size: u64,
    pub(crate) user_address: u64,
    pub(crate) offset: u64,
}

/// The places of a ring's parts, in the client's address space ("Vring address description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}

/// The place where chains in flight are tracked ("Inflight description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InflightDescription {
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
}

/// A request's payload, read from the front, and the descriptors that came with it. Descriptors
/// that are not taken are closed.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    rest: &'a [u8],
    /// Size of the whole payload in bytes.
    size: usize,
    fds: Vec<OwnedFd>,
}

impl<'a> Payload<'a> {
    pub(crate) fn new(bytes: &'a [u8], fds: Vec<OwnedFd>) -> Self {
        Self { rest: bytes, size: bytes.len(), fds }
    }

    /// Reads all of the payload with `layout`.
    pub(crate) fn read<T>(
        &mut self,
        layout: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let value = layout(self)?;
        self.end()?;
        Ok(value)
    }

    /// Checks that everything was read and all descriptors were taken.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match (self.rest, self.fds.len()) {
            ([], 0) => Ok(()),
            ([], fds) => Err(Malformed::Descriptors(fds)),
            _ => Err(Malformed::Size(self.size)),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed::Size(self.size))?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_ne_bytes)
    }

    /// Reads "u64".
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_ne_bytes)
    }

    /// Reads "A vring state description": an index and a number.
    pub(crate) fn ring_state(&mut self) -> Result<(u32, u32), Malformed> {
        Ok((self.u32()?, self.u32()?))
    }

    /// Reads "A vring address description".
    pub(crate) fn ring_addresses(&mut self) -> Result<(u32, RingAddresses), Malformed> {
        let (ring, flags) = self.ring_state()?;
        let (descriptors, used, available) = (self.u64()?, self.u64()?, self.u64()?);
        let _log = self.u64()?;
        if flags != 0 {
            // Logging is for migration, whose feature is not offered.
            return Err(Malformed::Value { what: "ring flags", value: flags.into() });
        }
        Ok((ring, RingAddresses { descriptors, used, available }))
    }

    /// Reads "A vring descriptor index for ... file descriptors", with the descriptor, if there is
    /// one.
    pub(crate) fn ring_fd(&mut self) -> Result<(u32, Option<OwnedFd>), Malformed> {
        let value = self.u64()?;
        if value & !(spec::INDEX_MASK | spec::NO_FD) != 0 {
            return Err(Malformed::Value { what: "ring index", value });
        }
        let ring = (value & spec::INDEX_MASK) as u32;
        let fd = if value & spec::NO_FD == 0 { Some(self.fd()?) } else { None };
        Ok((ring, fd))
    }

    /// Reads "Multiple memory regions description", with a descriptor for each.
    pub(crate) fn regions(&mut self) -> Result<Vec<(RegionDescription, OwnedFd)>, Malformed> {
        let (count, _) = self.ring_state()?;
        if usize::try_from(count).ok().and_then(|count| count.checked_mul(Self::REGION))
            != Some(self.rest.len())
        {
            return Err(Malformed::Size(self.size));
        }
        let fds = std::mem::take(&mut self.fds);
        if fds.len() * Self::REGION != self.rest.len() {
            return Err(Malformed::Descriptors(fds.len()));
        }
        fds.into_iter().map(|fd| Ok((self.region()?, fd))).collect()
    }

    /// Reads "Single memory region description".
    pub(crate) fn single_region(&mut self) -> Result<RegionDescription, Malformed> {
        self.u64()?;
        self.region()
    }

    /// Reads "Inflight description".
    pub(crate) fn inflight(&mut self) -> Result<InflightDescription, Malformed> {
        let (size, offset) = (self.u64()?, self.u64()?);
        let (queues, queue_size) = (self.u16()?, self.u16()?);
        // Some compilers pad the structure's end.
        if self.rest.len() == 4 {
            self.rest = &[];
        }
        Ok(InflightDescription { size, offset, queues, queue_size })
    }

    /// Takes the descriptor, which must be the only one.
    pub(crate) fn fd(&mut self) -> Result<OwnedFd, Malformed> {
        let count = self.fds.len();
        self.fds.pop().filter(|_| count == 1).ok_or(Malformed::Descriptors(count))
    }

    /// Closes the descriptors of a request that has no use for them.
    pub(crate) fn close_fds(&mut self) {
        self.fds.clear();
    }

    /// Size of a region's description in bytes.
    const REGION: usize = 32;

    fn region(&mut self) -> Result<RegionDescription, Malformed> {
        let (guest_address, size) = (self.u64()?, self.u64()?);
        let (user_address, offset) = (self.u64()?, self.u64()?);
        Ok(RegionDescription { guest_address, size, user_address, offset })
    }
}

impl InflightDescription {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = [self.size.to_ne_bytes(), self.offset.to_ne_bytes()].concat();
        bytes.extend(self.queues.to_ne_bytes());
        bytes.extend(self.queue_size.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }
}
