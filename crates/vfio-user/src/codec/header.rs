//! This module reads and writes the header before every message (vfio-user, "Header").

use manifold_socket::MAX_HEADER;

use crate::spec;

/// A command, as numbered in vfio-user, "Commands".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Command {
    /// `VFIO_USER_VERSION` agrees on a version and capabilities.
    Version = 1,
    /// `VFIO_USER_DMA_MAP` adds a DMA mapping.
    DmaMap = 2,
    /// `VFIO_USER_DMA_UNMAP` removes DMA mappings.
    DmaUnmap = 3,
    /// `VFIO_USER_DEVICE_GET_INFO` asks about the device.
    DeviceGetInfo = 4,
    /// `VFIO_USER_DEVICE_GET_REGION_INFO` asks about a region.
    DeviceGetRegionInfo = 5,
    /// `VFIO_USER_DEVICE_GET_REGION_IO_FDS` asks for descriptors that stand for writes to a region.
    DeviceGetRegionIoFds = 6,
    /// `VFIO_USER_DEVICE_GET_IRQ_INFO` asks about an interrupt type.
    DeviceGetIrqInfo = 7,
    /// `VFIO_USER_DEVICE_SET_IRQS` sets up interrupts.
    DeviceSetIrqs = 8,
    /// `VFIO_USER_REGION_READ` reads from a region.
    RegionRead = 9,
    /// `VFIO_USER_REGION_WRITE` writes to a region.
    RegionWrite = 10,
    /// `VFIO_USER_DMA_READ`, which the server sends, reads the client's memory.
    DmaRead = 11,
    /// `VFIO_USER_DMA_WRITE`, which the server sends, writes the client's memory.
    DmaWrite = 12,
    /// `VFIO_USER_DEVICE_RESET` resets the device.
    DeviceReset = 13,
    /// `VFIO_USER_DIRTY_PAGES` is of the first migration protocol.
    DirtyPages = 14,
    /// `VFIO_USER_REGION_WRITE_MULTI` makes several small writes to regions.
    RegionWriteMulti = 15,
    /// `VFIO_USER_DEVICE_FEATURE` asks for or uses a feature such as migration.
    DeviceFeature = 16,
    /// `VFIO_USER_MIG_DATA_READ` reads migration data.
    MigDataRead = 17,
    /// `VFIO_USER_MIG_DATA_WRITE` writes migration data.
    MigDataWrite = 18,
}

impl Command {
    /// All commands that have a number.
    pub const ALL: [Self; 18] = [
        Self::Version,
        Self::DmaMap,
        Self::DmaUnmap,
        Self::DeviceGetInfo,
        Self::DeviceGetRegionInfo,
        Self::DeviceGetRegionIoFds,
        Self::DeviceGetIrqInfo,
        Self::DeviceSetIrqs,
        Self::RegionRead,
        Self::RegionWrite,
        Self::DmaRead,
        Self::DmaWrite,
        Self::DeviceReset,
        Self::DirtyPages,
        Self::RegionWriteMulti,
        Self::DeviceFeature,
        Self::MigDataRead,
        Self::MigDataWrite,
    ];

    /// Returns the command with this number.
    #[must_use]
    pub fn from_raw(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.raw() == raw)
    }

    /// Returns the number of the command.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self as u16
    }
}

/// The two kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The message asks.
    Request,
    /// The message answers the request with the same ID.
    Reply,
}

/// The first 16 bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// ID that the sender of a request has chosen; the answer repeats it.
    pub id: u16,
    /// Number of a [`Command`], or one that is not known.
    pub command: u16,
    /// Size of the message in bytes, these 16 included.
    pub size: u32,
    /// Type in bits 0 to 3, then `FLAG_NO_REPLY` and `FLAG_ERROR` of [`spec`].
    pub flags: u32,
    /// Errno of an error reply.
    pub error: u32,
}

impl Header {
    /// Reads a header, which any bytes are.
    #[must_use]
    pub fn decode(bytes: &[u8; spec::HEADER_SIZE]) -> Self {
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, e0, e1, e2, e3] = *bytes;
        Self {
            id: u16::from_ne_bytes([i0, i1]),
            command: u16::from_ne_bytes([c0, c1]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            error: u32::from_ne_bytes([e0, e1, e2, e3]),
        }
    }

    /// Writes a header.
    #[must_use]
    pub fn encode(&self) -> [u8; spec::HEADER_SIZE] {
        let [i0, i1] = self.id.to_ne_bytes();
        let [c0, c1] = self.command.to_ne_bytes();
        let [s0, s1, s2, s3] = self.size.to_ne_bytes();
        let [f0, f1, f2, f3] = self.flags.to_ne_bytes();
        let [e0, e1, e2, e3] = self.error.to_ne_bytes();
        [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, e0, e1, e2, e3]
    }

    /// Returns the header of a request with `payload` bytes after the header.
    #[must_use]
    pub fn request(id: u16, command: Command, payload: usize) -> Self {
        Self {
            id,
            command: command.raw(),
            size: message_size(payload),
            flags: spec::TYPE_COMMAND,
            error: 0,
        }
    }

    /// Returns the header of the answer to this request, with `payload` bytes after it.
    #[must_use]
    pub fn reply(&self, payload: usize) -> Self {
        Self { size: message_size(payload), flags: spec::TYPE_REPLY, error: 0, ..*self }
    }

    /// Returns the header of the answer that this request failed; it has no payload.
    #[must_use]
    pub fn error_reply(&self, errno: u32) -> Self {
        Self {
            size: message_size(0),
            flags: spec::TYPE_REPLY | spec::FLAG_ERROR,
            error: errno,
            ..*self
        }
    }

    /// Returns the kind of the message; `None` for a type that is not defined.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self.flags & spec::TYPE_MASK {
            spec::TYPE_COMMAND => Some(Kind::Request),
            spec::TYPE_REPLY => Some(Kind::Reply),
            _ => None,
        }
    }

    /// Reports whether the sender wants no answer.
    #[must_use]
    pub fn is_no_reply(&self) -> bool {
        self.flags & spec::FLAG_NO_REPLY != 0
    }

    /// Reports whether the message answers with an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.flags & spec::FLAG_ERROR != 0
    }

    /// Returns the number of bytes after the header; `None` if the size does not even cover the
    /// header.
    #[must_use]
    pub fn payload_size(&self) -> Option<usize> {
        usize::try_from(self.size).ok()?.checked_sub(spec::HEADER_SIZE)
    }
}

impl manifold_socket::Header for Header {
    const SIZE: usize = spec::HEADER_SIZE;

    fn read(bytes: &[u8; MAX_HEADER]) -> Self {
        Self::decode(bytes)
    }

    fn payload_len(&self) -> Option<usize> {
        self.payload_size()
    }
}

/// Returns the size field of a message. Payloads are far below 4 GiB, so this never saturates.
fn message_size(payload: usize) -> u32 {
    u32::try_from(payload.saturating_add(spec::HEADER_SIZE)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_specification_s() {
        let header = Header { id: 1, command: 2, size: 3, flags: 0x21, error: 5 };
        let mut expected = Vec::new();
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(2_u16.to_ne_bytes());
        expected.extend(3_u32.to_ne_bytes());
        expected.extend(0x21_u32.to_ne_bytes());
        expected.extend(5_u32.to_ne_bytes());
        assert_eq!(header.encode().as_slice(), expected.as_slice());
        assert_eq!(Header::decode(&header.encode()), header);
        assert_eq!(header.kind(), Some(Kind::Reply));
        assert!(header.is_error());
        assert!(!header.is_no_reply());
    }

    #[test]
    fn commands_are_numbered_as_in_the_specification() {
        for (index, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(command.raw()), index + 1);
            assert_eq!(Command::from_raw(command.raw()), Some(command));
        }
        assert_eq!(Command::from_raw(0), None);
        assert_eq!(Command::from_raw(19), None);
    }

    #[test]
    fn a_size_below_the_header_has_no_payload() {
        let mut header = Header::request(7, Command::DeviceReset, 0);
        assert_eq!(header.payload_size(), Some(0));
        header.size = 15;
        assert_eq!(header.payload_size(), None);
    }
}
