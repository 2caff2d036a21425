//! This module reads and writes the payloads of replies. Error replies have none.

use super::header::Command;
use super::payload::{Cursor, Malformed, Put};
use super::request::{DmaUnmapRequest, RegionAccess};
use super::version::Version;
use crate::device::MmapArea;
use crate::spec;

/// The payload of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The reply answers `VFIO_USER_VERSION`.
    Version(Version),
    /// The reply answers `VFIO_USER_DMA_UNMAP` and repeats the request.
    DmaUnmap(DmaUnmapRequest),
    /// The reply answers `VFIO_USER_DEVICE_GET_INFO`.
    DeviceInfo {
        /// `DEVICE_FLAG_*` of [`spec`].
        flags: u32,
        /// Number of regions.
        num_regions: u32,
        /// Number of interrupt types.
        num_irqs: u32,
    },
    /// The reply answers `VFIO_USER_DEVICE_GET_REGION_INFO`.
    RegionInfo(RegionInfoReply),
    /// The reply answers `VFIO_USER_DEVICE_GET_REGION_IO_FDS`.
    RegionIoFds(RegionIoFdsReply),
    /// The reply answers `VFIO_USER_DEVICE_GET_IRQ_INFO`.
    IrqInfo {
        /// `IRQ_FLAG_*` of [`spec`].
        flags: u32,
        /// Index of the interrupt type.
        index: u32,
        /// Number of interrupts.
        count: u32,
    },
    /// The reply answers `VFIO_USER_REGION_READ`.
    RegionRead {
        /// Range that was read; `count` is the length of `data`.
        access: RegionAccess,
        /// Bytes that were read.
        data: &'a [u8],
    },
    /// The reply answers `VFIO_USER_REGION_WRITE`.
    RegionWrite(RegionAccess),
    /// The reply answers `VFIO_USER_REGION_WRITE_MULTI`.
    RegionWriteMulti {
        /// Number of writes that were done.
        count: u64,
    },
    /// The reply is to a command whose reply has no payload: `DMA_MAP`, `SET_IRQS`, `RESET`.
    Empty(Command),
}

/// The reply to `VFIO_USER_DEVICE_GET_REGION_INFO` is a `struct vfio_region_info` and at most one
/// capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfoReply {
    /// Size of a complete reply in bytes: more than is here if the client has no room for it.
    pub argsz: u32,
    /// `REGION_FLAG_*` of [`spec`] except `REGION_FLAG_CAPS`, which follows from `areas`.
    pub flags: u32,
    /// Index of the region.
    pub index: u32,
    /// Size of the region in bytes.
    pub size: u64,
    /// Offset of its first byte in the file that comes along.
    pub offset: u64,
    /// Areas of the sparse mapping capability, which is there if there are any.
    pub areas: Vec<MmapArea>,
}

/// The reply to `VFIO_USER_DEVICE_GET_REGION_IO_FDS` lists sub-regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionIoFdsReply {
    /// Size of a complete reply in bytes: more than is here if the client has no room for it.
    pub argsz: u32,
    /// Index of the region.
    pub index: u32,
    /// Number of sub-regions of a complete reply.
    pub count: u32,
    /// The sub-regions; none if the client has no room for them.
    pub entries: Vec<IoFdEntry>,
}

/// One sub-region of a [`RegionIoFdsReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoFdEntry {
    /// Offset in bytes from the start of the region.
    pub offset: u64,
    /// Size of a write in bytes; 0 for any.
    pub size: u64,
    /// Index of its descriptor among those that come along.
    pub fd_index: u32,
    /// `IO_FD_TYPE_*` of [`spec`].
    pub kind: u32,
    /// `IO_FD_FLAG_*` of [`spec`].
    pub flags: u32,
    /// Value to match.
    pub datamatch: u64,
}

impl<'a> Reply<'a> {
    /// Reads the payload of a reply to this command that reports no error.
    ///
    /// # Errors
    /// A payload that is too short, or whose counts contradict its length. No reply is known to
    /// a command that is not served.
    pub fn decode(command: Command, payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new("reply", payload);
        Ok(match command {
            Command::Version => Self::Version(Version::decode(payload)?),
            Command::DmaUnmap => Self::DmaUnmap(DmaUnmapRequest::decode(payload)?),
            Command::DeviceGetInfo => {
                let _argsz = cursor.u32()?;
                Self::DeviceInfo {
                    flags: cursor.u32()?,
                    num_regions: cursor.u32()?,
                    num_irqs: cursor.u32()?,
                }
            }
            Command::DeviceGetRegionInfo => Self::RegionInfo(RegionInfoReply::decode(cursor)?),
            Command::DeviceGetRegionIoFds => Self::RegionIoFds(RegionIoFdsReply::decode(cursor)?),
            Command::DeviceGetIrqInfo => {
                let _argsz = cursor.u32()?;
                Self::IrqInfo { flags: cursor.u32()?, index: cursor.u32()?, count: cursor.u32()? }
            }
            Command::RegionRead => {
                let access = RegionAccess::decode(&mut cursor)?;
                Self::RegionRead { access, data: cursor.counted(u64::from(access.count))? }
            }
            Command::RegionWrite => Self::RegionWrite(RegionAccess::decode(&mut cursor)?),
            Command::RegionWriteMulti => Self::RegionWriteMulti { count: cursor.u64()? },
            Command::DmaMap | Command::DeviceSetIrqs | Command::DeviceReset => Self::Empty(command),
            Command::DmaRead
            | Command::DmaWrite
            | Command::DirtyPages
            | Command::DeviceFeature
            | Command::MigDataRead
            | Command::MigDataWrite => {
                return Err(Malformed::Short {
                    what: "a reply that is not read",
                    needed: usize::MAX,
                    got: 0,
                });
            }
        })
    }

    /// Appends the payload to what is there.
    pub fn encode(&self, payload: &mut Vec<u8>) {
        match self {
            Self::Version(version) => version.encode(payload),
            Self::DmaUnmap(unmap) => unmap.encode(payload),
            Self::DeviceInfo { flags, num_regions, num_irqs } => {
                for field in [spec::DEVICE_INFO_SIZE, *flags, *num_regions, *num_irqs] {
                    payload.put_u32(field);
                }
            }
            Self::RegionInfo(info) => info.encode(payload),
            Self::RegionIoFds(reply) => reply.encode(payload),
            Self::IrqInfo { flags, index, count } => {
                for field in [spec::IRQ_INFO_SIZE, *flags, *index, *count] {
                    payload.put_u32(field);
                }
            }
            Self::RegionRead { access, data } => {
                access.encode(payload);
                payload.extend_from_slice(data);
            }
            Self::RegionWrite(access) => access.encode(payload),
            Self::RegionWriteMulti { count } => payload.put_u64(*count),
            Self::Empty(_) => {}
        }
    }
}

impl RegionInfoReply {
    /// Size of `struct vfio_region_info` in bytes.
    pub const SIZE: u32 = 32;
    /// Size of the capability's header and of its count of areas in bytes.
    const SPARSE_SIZE: u32 = 16;
    /// Size of an area in bytes.
    const AREA_SIZE: u32 = 16;

    /// Returns the bytes of a complete reply with this many areas.
    #[must_use]
    pub fn complete_size(areas: usize) -> u32 {
        match u32::try_from(areas) {
            Ok(0) => Self::SIZE,
            Ok(areas) => {
                areas.saturating_mul(Self::AREA_SIZE).saturating_add(Self::SIZE + Self::SPARSE_SIZE)
            }
            Err(_) => u32::MAX,
        }
    }

    fn encode(&self, payload: &mut Vec<u8>) {
        let caps = if self.areas.is_empty() { 0 } else { spec::REGION_FLAG_CAPS };
        payload.put_u32(self.argsz);
        payload.put_u32(self.flags & !spec::REGION_FLAG_CAPS | caps);
        payload.put_u32(self.index);
        payload.put_u32(if caps == 0 { 0 } else { Self::SIZE });
        payload.put_u64(self.size);
        payload.put_u64(self.offset);
        if caps == 0 {
            return;
        }
        payload.put_u16(spec::REGION_CAP_SPARSE_MMAP);
        payload.put_u16(1);
        payload.put_u32(0);
        payload.put_u32(u32::try_from(self.areas.len()).unwrap_or(u32::MAX));
        payload.put_u32(0);
        for area in &self.areas {
            payload.put_u64(area.offset);
            payload.put_u64(area.size);
        }
    }

    /// Reads a reply, with the one capability that [`encode`](Self::encode) writes, right after the
    /// structure.
    fn decode(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        let (argsz, flags) = (cursor.u32()?, cursor.u32()?);
        let (index, cap_offset) = (cursor.u32()?, cursor.u32()?);
        let (size, offset) = (cursor.u64()?, cursor.u64()?);
        let mut areas = Vec::new();
        if flags & spec::REGION_FLAG_CAPS != 0 && cap_offset == Self::SIZE {
            let (id, _version, _next) = (cursor.u16()?, cursor.u16()?, cursor.u32()?);
            if id == spec::REGION_CAP_SPARSE_MMAP {
                let (count, _reserved) = (cursor.u32()?, cursor.u32()?);
                for _ in 0..count {
                    areas.push(MmapArea { offset: cursor.u64()?, size: cursor.u64()? });
                }
            }
        }
        Ok(Self { argsz, flags: flags & !spec::REGION_FLAG_CAPS, index, size, offset, areas })
    }
}

impl RegionIoFdsReply {
    /// Size without the sub-regions in bytes.
    pub const SIZE: u32 = 16;
    /// Size of one sub-region in bytes.
    pub const ENTRY_SIZE: u32 = 40;

    fn encode(&self, payload: &mut Vec<u8>) {
        payload.put_u32(self.argsz);
        payload.put_u32(0);
        payload.put_u32(self.index);
        payload.put_u32(self.count);
        for entry in &self.entries {
            payload.put_u64(entry.offset);
            payload.put_u64(entry.size);
            payload.put_u32(entry.fd_index);
            payload.put_u32(entry.kind);
            payload.put_u32(entry.flags);
            payload.put_u32(0);
            payload.put_u64(entry.datamatch);
        }
    }

    fn decode(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        let (argsz, _flags) = (cursor.u32()?, cursor.u32()?);
        let (index, count) = (cursor.u32()?, cursor.u32()?);
        let mut entries = Vec::new();
        while !cursor.rest.is_empty() {
            let (offset, size) = (cursor.u64()?, cursor.u64()?);
            let (fd_index, kind) = (cursor.u32()?, cursor.u32()?);
            let (flags, _padding) = (cursor.u32()?, cursor.u32()?);
            let datamatch = cursor.u64()?;
            entries.push(IoFdEntry { offset, size, fd_index, kind, flags, datamatch });
        }
        Ok(Self { argsz, index, count, entries })
    }
}
