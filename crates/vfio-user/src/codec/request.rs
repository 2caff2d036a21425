//! This module reads and writes the payloads of requests.

use super::header::Command;
use super::payload::{Cursor, Malformed, Put};
use super::version::Version;

/// The payload of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The request is `VFIO_USER_VERSION`.
    Version(Version),
    /// The request is `VFIO_USER_DMA_MAP`.
    DmaMap(DmaMapRequest),
    /// The request is `VFIO_USER_DMA_UNMAP`.
    DmaUnmap(DmaUnmapRequest),
    /// The request is `VFIO_USER_DEVICE_GET_INFO`, whose `index` means nothing.
    DeviceGetInfo(InfoRequest),
    /// The request is `VFIO_USER_DEVICE_GET_REGION_INFO`.
    DeviceGetRegionInfo(InfoRequest),
    /// The request is `VFIO_USER_DEVICE_GET_REGION_IO_FDS`.
    DeviceGetRegionIoFds(RegionIoFdsRequest),
    /// The request is `VFIO_USER_DEVICE_GET_IRQ_INFO`.
    DeviceGetIrqInfo(InfoRequest),
    /// The request is `VFIO_USER_DEVICE_SET_IRQS`.
    DeviceSetIrqs(IrqSet<'a>),
    /// The request is `VFIO_USER_REGION_READ`.
    RegionRead(RegionAccess),
    /// The request is `VFIO_USER_REGION_WRITE`.
    RegionWrite {
        /// Range to write; `count` is the length of `data`.
        access: RegionAccess,
        /// Bytes to write.
        data: &'a [u8],
    },
    /// `VFIO_USER_DEVICE_RESET` has no payload.
    DeviceReset,
    /// The request is `VFIO_USER_REGION_WRITE_MULTI`.
    RegionWriteMulti(Vec<SmallWrite>),
    /// The request is a command of dirty page logging or migration, or one that only a server
    /// sends. Its payload is not read.
    NotServed(Command),
}

/// Payload of `VFIO_USER_DMA_MAP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMapRequest {
    /// Size of this structure in bytes.
    pub argsz: u32,
    /// `DMA_MAP_*` of [`spec`](crate::spec).
    pub flags: u32,
    /// Offset in the file that comes along.
    pub offset: u64,
    /// First address of the mapping.
    pub address: u64,
    /// Number of bytes.
    pub size: u64,
}

/// Payload of `VFIO_USER_DMA_UNMAP`, and of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaUnmapRequest {
    /// Bytes of the reply's payload that the sender has room for.
    pub argsz: u32,
    /// `DMA_UNMAP_*` of [`spec`](crate::spec).
    pub flags: u32,
    /// First address of the range.
    pub address: u64,
    /// Number of bytes.
    pub size: u64,
}

/// The fields that the three `GET_INFO` requests have in common. The other fields are zero in a
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// Bytes of the reply's payload that the sender has room for.
    pub argsz: u32,
    /// Index of the region or interrupt type.
    pub index: u32,
}

/// Payload of `VFIO_USER_DEVICE_GET_REGION_IO_FDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionIoFdsRequest {
    /// Bytes of the reply's payload that the sender has room for.
    pub argsz: u32,
    /// Flags, which must be 0.
    pub flags: u32,
    /// Index of the region.
    pub index: u32,
    /// Count, which must be 0.
    pub count: u32,
}

/// Payload of `VFIO_USER_DEVICE_SET_IRQS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqSet<'a> {
    /// Size of this structure and its data in bytes.
    pub argsz: u32,
    /// `IRQ_SET_*` of [`spec`](crate::spec): one `DATA` and one `ACTION`.
    pub flags: u32,
    /// Index of the interrupt type.
    pub index: u32,
    /// Number of the first interrupt.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// Data of the request. With `IRQ_SET_DATA_BOOL` it is one byte for each interrupt.
    pub data: &'a [u8],
}

/// The range of a region that is read or written. The reply begins with it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionAccess {
    /// Offset in bytes from the start of the region.
    pub offset: u64,
    /// Index of the region.
    pub region: u32,
    /// Number of bytes.
    pub count: u32,
}

/// One write of a `VFIO_USER_REGION_WRITE_MULTI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallWrite {
    /// Range to write; `count` is at most 8.
    pub access: RegionAccess,
    /// Bytes to write, in the first `count` of these.
    pub data: [u8; Self::MAX],
}

impl SmallWrite {
    /// Largest number of bytes of one small write.
    pub const MAX: usize = 8;
    /// Size of one small write in a message, in bytes.
    const SIZE: u64 = 24;

    /// Returns the bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let count = usize::try_from(self.access.count).unwrap_or(usize::MAX);
        self.data.get(..count).unwrap_or(&self.data)
    }
}

impl<'a> Request<'a> {
    /// Reads the payload of a request of this command.
    ///
    /// # Errors
    /// A payload that is too short, or whose counts contradict its length.
    pub fn decode(command: Command, payload: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match command {
            Command::Version => Self::Version(Version::decode(payload)?),
            Command::DmaMap => Self::DmaMap(DmaMapRequest::decode(payload)?),
            Command::DmaUnmap => Self::DmaUnmap(DmaUnmapRequest::decode(payload)?),
            Command::DeviceGetInfo => {
                Self::DeviceGetInfo(InfoRequest::decode("device info", payload, 16)?)
            }
            Command::DeviceGetRegionInfo => {
                Self::DeviceGetRegionInfo(InfoRequest::decode("region info", payload, 32)?)
            }
            Command::DeviceGetIrqInfo => {
                Self::DeviceGetIrqInfo(InfoRequest::decode("irq info", payload, 16)?)
            }
            Command::DeviceGetRegionIoFds => {
                Self::DeviceGetRegionIoFds(RegionIoFdsRequest::decode(payload)?)
            }
            Command::DeviceSetIrqs => Self::DeviceSetIrqs(IrqSet::decode(payload)?),
            Command::RegionRead => {
                Self::RegionRead(RegionAccess::decode(&mut Cursor::new("region read", payload))?)
            }
            Command::RegionWrite => {
                let mut cursor = Cursor::new("region write", payload);
                let access = RegionAccess::decode(&mut cursor)?;
                Self::RegionWrite { access, data: cursor.counted(u64::from(access.count))? }
            }
            Command::DeviceReset => Self::DeviceReset,
            Command::RegionWriteMulti => Self::RegionWriteMulti(decode_multi(payload)?),
            Command::DmaRead
            | Command::DmaWrite
            | Command::DirtyPages
            | Command::DeviceFeature
            | Command::MigDataRead
            | Command::MigDataWrite => Self::NotServed(command),
        })
    }

    /// Returns the command of the request.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Version(_) => Command::Version,
            Self::DmaMap(_) => Command::DmaMap,
            Self::DmaUnmap(_) => Command::DmaUnmap,
            Self::DeviceGetInfo(_) => Command::DeviceGetInfo,
            Self::DeviceGetRegionInfo(_) => Command::DeviceGetRegionInfo,
            Self::DeviceGetRegionIoFds(_) => Command::DeviceGetRegionIoFds,
            Self::DeviceGetIrqInfo(_) => Command::DeviceGetIrqInfo,
            Self::DeviceSetIrqs(_) => Command::DeviceSetIrqs,
            Self::RegionRead(_) => Command::RegionRead,
            Self::RegionWrite { .. } => Command::RegionWrite,
            Self::DeviceReset => Command::DeviceReset,
            Self::RegionWriteMulti(_) => Command::RegionWriteMulti,
            Self::NotServed(command) => *command,
        }
    }

    /// Appends the payload to what is there.
    pub fn encode(&self, payload: &mut Vec<u8>) {
        match self {
            Self::Version(version) => version.encode(payload),
            Self::DmaMap(map) => {
                payload.put_u32(map.argsz);
                payload.put_u32(map.flags);
                payload.put_u64(map.offset);
                payload.put_u64(map.address);
                payload.put_u64(map.size);
            }
            Self::DmaUnmap(unmap) => unmap.encode(payload),
            Self::DeviceGetInfo(info) | Self::DeviceGetIrqInfo(info) => info.encode(payload, 16),
            Self::DeviceGetRegionInfo(info) => info.encode(payload, 32),
            Self::DeviceGetRegionIoFds(request) => {
                payload.put_u32(request.argsz);
                payload.put_u32(request.flags);
                payload.put_u32(request.index);
                payload.put_u32(request.count);
            }
            Self::DeviceSetIrqs(set) => {
                payload.put_u32(set.argsz);
                payload.put_u32(set.flags);
                payload.put_u32(set.index);
                payload.put_u32(set.start);
                payload.put_u32(set.count);
                payload.extend_from_slice(set.data);
            }
            Self::RegionRead(access) => access.encode(payload),
            Self::RegionWrite { access, data } => {
                access.encode(payload);
                payload.extend_from_slice(data);
            }
            Self::DeviceReset | Self::NotServed(_) => {}
            Self::RegionWriteMulti(writes) => {
                payload.put_u64(writes.len() as u64);
                for write in writes {
                    write.access.encode(payload);
                    payload.extend_from_slice(&write.data);
                }
            }
        }
    }
}

impl DmaMapRequest {
    /// Size of the structure in bytes.
    pub const SIZE: u32 = 32;

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("dma map", payload);
        Ok(Self {
            argsz: cursor.u32()?,
            flags: cursor.u32()?,
            offset: cursor.u64()?,
            address: cursor.u64()?,
            size: cursor.u64()?,
        })
    }
}

impl DmaUnmapRequest {
    /// Size of the structure in bytes.
    pub const SIZE: u32 = 24;

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("dma unmap", payload);
        Ok(Self {
            argsz: cursor.u32()?,
            flags: cursor.u32()?,
            address: cursor.u64()?,
            size: cursor.u64()?,
        })
    }

    pub(super) fn encode(&self, payload: &mut Vec<u8>) {
        payload.put_u32(self.argsz);
        payload.put_u32(self.flags);
        payload.put_u64(self.address);
        payload.put_u64(self.size);
    }
}

impl InfoRequest {
    /// Reads a request. `size` is that of the whole structure, of which only two fields count in a
    /// request. The index is the third field everywhere; in the device's information, where that is
    /// a count, it is zero.
    fn decode(what: &'static str, payload: &[u8], size: usize) -> Result<Self, Malformed> {
        if payload.len() < size {
            return Err(Malformed::Short { what, needed: size, got: payload.len() });
        }
        let mut cursor = Cursor::new(what, payload);
        let (argsz, _flags, index) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        Ok(Self { argsz, index })
    }

    fn encode(self, payload: &mut Vec<u8>, size: usize) {
        let end = payload.len() + size;
        payload.put_u32(self.argsz);
        payload.put_u32(0);
        payload.put_u32(self.index);
        payload.resize(end, 0);
    }
}

impl RegionIoFdsRequest {
    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("region io fds", payload);
        Ok(Self {
            argsz: cursor.u32()?,
            flags: cursor.u32()?,
            index: cursor.u32()?,
            count: cursor.u32()?,
        })
    }
}

impl<'a> IrqSet<'a> {
    /// Size of the structure without its data in bytes.
    pub const SIZE: u32 = 20;

    fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("irq set", payload);
        Ok(Self {
            argsz: cursor.u32()?,
            flags: cursor.u32()?,
            index: cursor.u32()?,
            start: cursor.u32()?,
            count: cursor.u32()?,
            data: cursor.rest,
        })
    }
}

impl RegionAccess {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self { offset: cursor.u64()?, region: cursor.u32()?, count: cursor.u32()? })
    }

    pub(super) fn encode(&self, payload: &mut Vec<u8>) {
        payload.put_u64(self.offset);
        payload.put_u32(self.region);
        payload.put_u32(self.count);
    }
}

fn decode_multi(payload: &[u8]) -> Result<Vec<SmallWrite>, Malformed> {
    let mut cursor = Cursor::new("region write multi", payload);
    let stated = cursor.u64()?;
    let got = cursor.rest.len() as u64;
    if stated.checked_mul(SmallWrite::SIZE) != Some(got) {
        return Err(Malformed::Length { what: cursor.what, stated, got: got / SmallWrite::SIZE });
    }
    let mut writes = Vec::with_capacity(usize::try_from(stated).unwrap_or_default());
    while !cursor.rest.is_empty() {
        let access = RegionAccess::decode(&mut cursor)?;
        let data = cursor.array()?;
        if access.count as usize > SmallWrite::MAX {
            let (stated, got) = (u64::from(access.count), SmallWrite::MAX as u64);
            return Err(Malformed::Length { what: cursor.what, stated, got });
        }
        writes.push(SmallWrite { access, data });
    }
    Ok(writes)
}
