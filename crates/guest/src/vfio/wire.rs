//! Messages to and from bytes. No I/O.

use super::spec::{HEADER_SIZE, flags};

/// The 16 bytes before every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) command: u16,
    /// Bytes in the whole message, this header included.
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) errno: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..2].copy_from_slice(&self.id.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.errno.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
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

    pub(crate) fn is_reply(&self) -> bool {
        self.flags & flags::TYPE_MASK == flags::TYPE_REPLY
    }

    pub(crate) fn is_error(&self) -> bool {
        self.flags & flags::ERROR != 0
    }
}

/// Builds a message: header, then fields in order.
#[derive(Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A message without a payload.
    pub(crate) fn new(id: u16, command: u16, flags: u32) -> Self {
        let header = Header { id, command, size: HEADER_SIZE as u32, flags, errno: 0 };
        Self(header.encode().to_vec())
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The finished message, with its size filled in.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let size = (self.0.len() as u32).to_le_bytes();
        self.0[4..8].copy_from_slice(&size);
        self.0
    }
}

/// Reads fields in order; `None` past the end.
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
