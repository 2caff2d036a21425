//! This module puts messages together from bytes, whatever pieces they arrive in.

use std::os::fd::OwnedFd;

/// Number of descriptors that Linux accepts in one `sendmsg` (`SCM_MAX_FD`).
pub const SCM_MAX_FDS: usize = 253;

/// Size of the longest header in bytes.
pub const MAX_HEADER: usize = 16;

/// The header in front of every message of a protocol.
pub trait Header: Copy + std::fmt::Debug + PartialEq + Send + 'static {
    /// Size of the header in bytes, 1 to [`MAX_HEADER`].
    const SIZE: usize;

    /// Reads a header, which any bytes are. Those after the first [`SIZE`](Self::SIZE) are zero.
    fn read(bytes: &[u8; MAX_HEADER]) -> Self;

    /// Returns the number of bytes that follow the header; `None` if it says something impossible.
    fn payload_len(&self) -> Option<usize>;
}

/// An assembler puts one message after another together.
///
/// A transport asks for [`space`](Self::space), reads into it, and reports what it read to
/// [`advance`](Self::advance). The space never reaches past the message at hand, so descriptors
/// that arrive with a piece belong to this message.
///
/// Memory grows with what has arrived, not with what a header announces.
#[derive(Debug)]
pub struct Assembler<H> {
    max_payload: usize,
    head: [u8; MAX_HEADER],
    /// Number of bytes of the message that have arrived, header included.
    have: usize,
    /// The header and the length of the payload, once `head` is complete.
    known: Option<(H, usize)>,
    /// The payload that has arrived, and room for some more of it.
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A message as it arrived.
#[derive(Debug)]
pub struct Message<'a, H> {
    /// Header of the message.
    pub header: H,
    /// Bytes after the header, as many as the header says.
    pub payload: &'a [u8],
    /// Descriptors that came with any part of the message.
    pub fds: Vec<OwnedFd>,
}

/// A header that leaves no way to find the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken<H> {
    /// The size does not cover the header.
    Undersized(H),
    /// The payload is larger than any message can be.
    Oversized(H),
    /// There are more descriptors than the kernel passes in one message.
    TooManyFds,
}

/// Number of bytes of room that are offered at a time, and kept between messages.
const STEP: usize = 64 << 10;

impl<H: Header> Assembler<H> {
    /// Returns an assembler of messages with at most `max_payload` bytes after the header.
    pub fn new(max_payload: usize) -> Self {
        Self {
            max_payload,
            head: [0; MAX_HEADER],
            have: 0,
            known: None,
            payload: Vec::new(),
            fds: Vec::new(),
        }
    }

    /// Reports whether the message at hand has begun and is not complete.
    pub fn is_inside_message(&self) -> bool {
        self.have > 0 && !self.is_complete()
    }

    /// Sets the largest payload in bytes, from the next header on.
    pub fn set_max_payload(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }

    /// Reports whether a complete message waits to be taken.
    pub fn is_complete(&self) -> bool {
        self.known.is_some_and(|(_, length)| self.have == H::SIZE + length)
    }

    /// Returns the space for the next bytes, which is empty if a complete message waits to be
    /// taken.
    pub fn space(&mut self) -> &mut [u8] {
        let Some((_, length)) = self.known else {
            return self.head.get_mut(self.have..H::SIZE).unwrap_or_default();
        };
        let arrived = self.have - H::SIZE;
        let end = length.min(arrived + STEP);
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload.get_mut(arrived..end).unwrap_or_default()
    }

    /// Takes note that `bytes` bytes of the space were filled and that `fds` came with them.
    /// Reports whether the message is complete.
    pub fn advance(
        &mut self,
        bytes: usize,
        fds: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<bool, Broken<H>> {
        self.have += bytes.min(self.space().len());
        for fd in fds {
            if self.fds.len() == SCM_MAX_FDS {
                return Err(Broken::TooManyFds);
            }
            self.fds.push(fd);
        }
        if self.known.is_none() && self.have == H::SIZE {
            let header = H::read(&self.head);
            let length = header.payload_len().ok_or(Broken::Undersized(header))?;
            if length > self.max_payload {
                return Err(Broken::Oversized(header));
            }
            self.known = Some((header, length));
        }
        Ok(self.is_complete())
    }

    /// Takes the message, if it is complete; the next one begins after this.
    pub fn take(&mut self) -> Option<Message<'_, H>> {
        if !self.is_complete() {
            return None;
        }
        let (header, length) = self.known.take()?;
        self.have = 0;
        // The memory that a large message needed is given back before the next one.
        if self.payload.len() > STEP && length <= STEP {
            self.payload.truncate(STEP);
            self.payload.shrink_to(STEP);
        }
        Some(Message {
            header,
            payload: self.payload.get(..length).unwrap_or_default(),
            fds: std::mem::take(&mut self.fds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::tests::{Head, message};

    fn feed(assembler: &mut Assembler<Head>, mut bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while !bytes.is_empty() {
            let space = assembler.space();
            let n = piece.min(space.len()).min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if assembler.advance(n, []).unwrap() {
                payloads.push(assembler.take().unwrap().payload.to_vec());
            }
        }
        payloads
    }

    #[test]
    fn pieces_of_any_size_give_the_same_messages() {
        let large: Vec<u8> = (0..STEP * 2 + 5).map(|i| i as u8).collect();
        let payloads = [vec![], vec![1], large, vec![2; 100]];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| message(payload)).collect();
        for piece in [1, 7, 16, 17, 4096, usize::MAX] {
            let mut assembler = Assembler::new(1 << 20);
            assert_eq!(feed(&mut assembler, &stream, piece), payloads, "pieces of {piece}");
            assert!(!assembler.is_inside_message());
        }
    }

    #[test]
    fn a_size_out_of_bounds_is_seen_with_the_header() {
        for (size, broken) in [
            (0, Broken::Undersized as fn(Head) -> Broken<Head>),
            (Head::SIZE as u32 - 1, Broken::Undersized),
            (Head::SIZE as u32 + 101, Broken::Oversized),
            (u32::MAX, Broken::Oversized),
        ] {
            let mut assembler = Assembler::new(100);
            let header = Head { size };
            assembler.space().copy_from_slice(&header.bytes());
            assert_eq!(assembler.advance(Head::SIZE, []), Err(broken(header)));
        }
    }

    #[test]
    fn memory_follows_what_arrived() {
        let mut assembler = Assembler::<Head>::new(1 << 30);
        let header = Head { size: (1 << 30) + Head::SIZE as u32 };
        assembler.space().copy_from_slice(&header.bytes());
        assert!(!assembler.advance(Head::SIZE, []).unwrap());
        assert_eq!(assembler.space().len(), STEP);
        assert!(assembler.payload.capacity() <= 2 * STEP);
        assert!(assembler.is_inside_message());
    }

    #[test]
    fn descriptors_are_bounded() {
        let mut assembler = Assembler::<Head>::new(100);
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = (0..=SCM_MAX_FDS).map(|_| OwnedFd::from(file.try_clone().unwrap()));
        assert_eq!(assembler.advance(1, fds), Err(Broken::TooManyFds));
    }
}
