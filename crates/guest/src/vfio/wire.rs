//! This module turns vfio-user messages into bytes and back. It does no I/O.

use super::spec::{HEADER_SIZE, flags};

/// The 16 bytes before every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number that a reply repeats.
    pub id: u16,
    /// Command, one of [`super::spec::command`].
    pub command: u16,
    /// Length of the whole message in bytes, this header included.
    pub size: u32,
    /// Bits of [`super::spec::flags`].
    pub flags: u32,
    /// Linux error number, where [`flags::ERROR`] is set.
    pub errno: u32,
}

impl Header {
    /// Returns the header as it goes over the socket.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..2].copy_from_slice(&self.id.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.errno.to_le_bytes());
        bytes
    }

    /// Reads a header back.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut fields = Fields(bytes);
        // The array is exactly as long as the fields: zero stands for nothing here.
        Self {
            id: fields.u16().unwrap_or(0),
            command: fields.u16().unwrap_or(0),
            size: fields.u32().unwrap_or(0),
            flags: fields.u32().unwrap_or(0),
            errno: fields.u32().unwrap_or(0),
        }
    }

    /// Returns true for a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & flags::TYPE_MASK == flags::TYPE_REPLY
    }

    /// Returns true where the server refused the command.
    pub fn is_error(&self) -> bool {
        self.flags & flags::ERROR != 0
    }
}

/// Builds a message: header, then fields in order.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// Begins a message without a payload.
    pub fn new(id: u16, command: u16, flags: u32) -> Self {
        let header = Header { id, command, size: HEADER_SIZE as u32, flags, errno: 0 };
        Self(header.encode().to_vec())
    }

    /// Appends 32 bits.
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends 64 bits.
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Returns the finished message, with its size filled in.
    pub fn finish(mut self) -> Vec<u8> {
        let size = (self.0.len() as u32).to_le_bytes();
        self.0[4..8].copy_from_slice(&size);
        self.0
    }
}

/// Reads fields of a payload in order, and returns `None` past its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_survive(id: u16, command: u16, size: u32, flags: u32, errno: u32) {
            let header = Header { id, command, size, flags, errno };
            prop_assert_eq!(Header::decode(&header.encode()), header);
        }
    }

    #[test]
    fn a_message_carries_its_size() {
        let message = Message::new(7, 10, 0).u64(1).u32(2).bytes(&[1, 2, 3]).finish();
        let (header, rest) = message.split_first_chunk().unwrap();
        let header = Header::decode(header);
        assert_eq!((header.id, header.command, header.size), (7, 10, 16 + 15));
        let mut fields = Fields(rest);
        assert_eq!((fields.u64(), fields.u32()), (Some(1), Some(2)));
        assert_eq!(fields.u32(), None);
        assert_eq!(fields.rest(), [1, 2, 3]);
    }
}
