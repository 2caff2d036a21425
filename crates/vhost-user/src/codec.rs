//! Messages to requests and back, without I/O. All fields are in the machine's own byte order.

use std::os::fd::OwnedFd;

use manifold_socket::MAX_HEADER;

use crate::spec::{self, flag, request};

/// What a message begins with ("Header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) code: u32,
    pub(crate) flags: u32,
    /// Bytes that follow.
    pub(crate) size: u32,
}

impl Header {
    pub(crate) fn needs_reply(&self) -> bool {
        self.flags & flag::NEED_REPLY != 0
    }

    /// Whether it can begin a request at all.
    pub(crate) fn is_request(&self) -> bool {
        self.flags & flag::VERSION_MASK == flag::VERSION && self.flags & flag::REPLY == 0
    }

    /// The header of the answer to a request.
    pub(crate) fn reply(code: u32, size: usize) -> [u8; spec::HEADER_SIZE] {
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
        let mut fields = Fields(bytes);
        let mut next = || fields.u32().unwrap_or(0);
        Self { code: next(), flags: next(), size: next() }
    }

    fn payload_len(&self) -> Option<usize> {
        usize::try_from(self.size).ok()
    }
}

/// Why a payload is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No request has this number, or none that is served.
    #[error("request {0} is not served")]
    Unknown(u32),
    /// The payload is shorter or longer than the request's.
    #[error("a payload of {0} bytes")]
    Size(usize),
    /// Not as many descriptors as the request says or needs.
    #[error("{0} descriptors")]
    Descriptors(usize),
    /// A value that is none of those allowed.
    #[error("{what} {value:#x}")]
    Value {
        /// Of what.
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

/// Where a ring's parts are, in the client's address space ("Vring address description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}

/// Where chains in flight are tracked ("Inflight description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InflightDescription {
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
}

/// A request, its payload decoded. Ring indices are the client's: nothing says that there is such a ring.
#[derive(Debug)]
pub(crate) enum Request {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(Vec<(RegionDescription, OwnedFd)>),
    SetRingSize { ring: u32, size: u32 },
    SetRingAddresses { ring: u32, addresses: RingAddresses },
    SetRingBase { ring: u32, base: u32 },
    GetRingBase { ring: u32 },
    SetRingKick { ring: u32, fd: Option<OwnedFd> },
    SetRingCall { ring: u32, fd: Option<OwnedFd> },
    SetRingErr { ring: u32, fd: Option<OwnedFd> },
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetRingEnable { ring: u32, enable: bool },
    SendRarp { mac: [u8; 6] },
    SetMtu(u64),
    GetInflight(InflightDescription),
    SetInflight(InflightDescription, OwnedFd),
    ResetDevice,
    GetMaxMemSlots,
    AddMemRegion(RegionDescription, OwnedFd),
    RemoveMemRegion(RegionDescription),
    SetStatus(u64),
    GetStatus,
}

impl Request {
    /// Reads a request. Descriptors that it has no use for are closed.
    pub(crate) fn decode(code: u32, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Self, Malformed> {
        let mut fields = Fields(payload);
        let mut fds = Descriptors(fds);
        let short = || Malformed::Size(payload.len());
        let request = match code {
            request::GET_FEATURES => Self::GetFeatures,
            request::SET_FEATURES => Self::SetFeatures(fields.u64().ok_or_else(short)?),
            request::SET_OWNER => Self::SetOwner,
            request::RESET_OWNER => Self::ResetOwner,
            request::SET_MEM_TABLE => {
                return Self::mem_table(fields, fds).ok_or_else(short)?;
            }
            request::SET_VRING_NUM => {
                let (ring, size) = fields.pair().ok_or_else(short)?;
                Self::SetRingSize { ring, size }
            }
            request::SET_VRING_ADDR => fields.addresses().ok_or_else(short)??,
            request::SET_VRING_BASE => {
                let (ring, base) = fields.pair().ok_or_else(short)?;
                Self::SetRingBase { ring, base }
            }
            request::GET_VRING_BASE => {
                let (ring, _) = fields.pair().ok_or_else(short)?;
                Self::GetRingBase { ring }
            }
            request::SET_VRING_KICK => {
                let (ring, fd) = fields.ring_fd(&mut fds).ok_or_else(short)??;
                Self::SetRingKick { ring, fd }
            }
            request::SET_VRING_CALL => {
                let (ring, fd) = fields.ring_fd(&mut fds).ok_or_else(short)??;
                Self::SetRingCall { ring, fd }
            }
            request::SET_VRING_ERR => {
                let (ring, fd) = fields.ring_fd(&mut fds).ok_or_else(short)??;
                Self::SetRingErr { ring, fd }
            }
            request::GET_PROTOCOL_FEATURES => Self::GetProtocolFeatures,
            request::SET_PROTOCOL_FEATURES => {
                Self::SetProtocolFeatures(fields.u64().ok_or_else(short)?)
            }
            request::GET_QUEUE_NUM => Self::GetQueueNum,
            request::SET_VRING_ENABLE => {
                let (ring, enable) = fields.pair().ok_or_else(short)?;
                if enable > 1 {
                    return Err(Malformed::Value { what: "enable", value: enable.into() });
                }
                Self::SetRingEnable { ring, enable: enable == 1 }
            }
            request::SEND_RARP => {
                let mac = fields.u64().ok_or_else(short)?;
                // The address is in the first six bytes in memory.
                let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
                Self::SendRarp { mac: [a, b, c, d, e, f] }
            }
            request::NET_SET_MTU => Self::SetMtu(fields.u64().ok_or_else(short)?),
            request::GET_INFLIGHT_FD => Self::GetInflight(fields.inflight().ok_or_else(short)?),
            request::SET_INFLIGHT_FD => {
                let description = fields.inflight().ok_or_else(short)?;
                Self::SetInflight(description, fds.take()?)
            }
            request::RESET_DEVICE => Self::ResetDevice,
            request::GET_MAX_MEM_SLOTS => Self::GetMaxMemSlots,
            request::ADD_MEM_REG => {
                let region = fields.single_region().ok_or_else(short)?;
                Self::AddMemRegion(region, fds.take()?)
            }
            request::REM_MEM_REG => {
                // Old clients send a descriptor, to be ignored.
                fds.0.clear();
                Self::RemoveMemRegion(fields.single_region().ok_or_else(short)?)
            }
            request::SET_STATUS => Self::SetStatus(fields.u64().ok_or_else(short)?),
            request::GET_STATUS => Self::GetStatus,
            _ => return Err(Malformed::Unknown(code)),
        };
        match (fields.0, fds.0.len()) {
            ([], 0) => Ok(request),
            ([], fds) => Err(Malformed::Descriptors(fds)),
            _ => Err(short()),
        }
    }

    fn mem_table(mut fields: Fields<'_>, fds: Descriptors) -> Option<Result<Self, Malformed>> {
        let (count, _) = fields.pair()?;
        let count = usize::try_from(count).ok()?;
        if fields.0.len() != count.checked_mul(Fields::REGION)? {
            return None;
        }
        if fds.0.len() != count {
            return Some(Err(Malformed::Descriptors(fds.0.len())));
        }
        let regions = std::iter::from_fn(|| fields.region());
        Some(Ok(Self::SetMemTable(regions.zip(fds.0).collect())))
    }
}

struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    /// The only one there is.
    fn take(&mut self) -> Result<OwnedFd, Malformed> {
        let count = self.0.len();
        self.0.pop().filter(|_| count == 1).ok_or(Malformed::Descriptors(count))
    }
}

/// A payload, read from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// Bytes of a region's description.
    const REGION: usize = 32;

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// "A vring state description": an index and a number.
    fn pair(&mut self) -> Option<(u32, u32)> {
        Some((self.u32()?, self.u32()?))
    }

    fn region(&mut self) -> Option<RegionDescription> {
        let (guest_address, size) = (self.u64()?, self.u64()?);
        let (user_address, offset) = (self.u64()?, self.u64()?);
        Some(RegionDescription { guest_address, size, user_address, offset })
    }

    /// "Single memory region description".
    fn single_region(&mut self) -> Option<RegionDescription> {
        self.u64()?;
        self.region()
    }

    fn addresses(&mut self) -> Option<Result<Request, Malformed>> {
        let (ring, flags) = self.pair()?;
        let (descriptors, used, available) = (self.u64()?, self.u64()?, self.u64()?);
        let _log = self.u64()?;
        if flags != 0 {
            // Logging is for migration, whose feature is not offered.
            return Some(Err(Malformed::Value { what: "ring flags", value: flags.into() }));
        }
        let addresses = RingAddresses { descriptors, used, available };
        Some(Ok(Request::SetRingAddresses { ring, addresses }))
    }

    fn ring_fd(
        &mut self,
        fds: &mut Descriptors,
    ) -> Option<Result<(u32, Option<OwnedFd>), Malformed>> {
        let value = self.u64()?;
        if value & !(spec::INDEX_MASK | spec::NO_FD) != 0 {
            return Some(Err(Malformed::Value { what: "ring index", value }));
        }
        let ring = (value & spec::INDEX_MASK) as u32;
        if value & spec::NO_FD != 0 {
            return Some(Ok((ring, None)));
        }
        Some(fds.take().map(|fd| (ring, Some(fd))))
    }

    fn inflight(&mut self) -> Option<InflightDescription> {
        let (size, offset) = (self.u64()?, self.u64()?);
        let (queues, queue_size) = (self.u16()?, self.u16()?);
        // The structure's end is padded by some compilers' rules.
        if self.0.len() == 4 {
            self.0 = &[];
        }
        Some(InflightDescription { size, offset, queues, queue_size })
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
