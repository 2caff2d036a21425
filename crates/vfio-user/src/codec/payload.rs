//! This module reads and writes the integers of a payload.

/// The reason why a payload is not what its command asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The payload ends too early.
    #[error("{what}: {got} bytes left where {needed} are needed")]
    Short {
        /// Name of what was being read.
        what: &'static str,
        /// Number of bytes needed.
        needed: usize,
        /// Number of bytes that there are.
        got: usize,
    },
    /// A count in the payload and its length contradict each other.
    #[error("{what}: {stated} stated, {got} found")]
    Length {
        /// Name of what is counted.
        what: &'static str,
        /// The count in the message.
        stated: u64,
        /// The count that was found.
        got: u64,
    },
    /// The version's capabilities are not a JSON text of the right shape.
    #[error("capabilities: {0}")]
    Capabilities(&'static str),
}

/// A reader of integers off the front of a payload.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) what: &'static str,
    pub(super) rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(what: &'static str, payload: &'a [u8]) -> Self {
        Self { what, rest: payload }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short {
            what: self.what,
            needed: N,
            got: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Returns the rest, which must be as long as a count in the message says.
    pub(super) fn counted(&self, stated: u64) -> Result<&'a [u8], Malformed> {
        let got = self.rest.len() as u64;
        if got == stated {
            Ok(self.rest)
        } else {
            Err(Malformed::Length { what: self.what, stated, got })
        }
    }
}

/// A writer of integers to the end of a payload.
pub(super) trait Put {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_ne_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_ne_bytes());
    }
}
