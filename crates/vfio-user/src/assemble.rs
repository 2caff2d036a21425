//! Bytes to messages, whatever pieces they arrive in.

use std::os::fd::OwnedFd;

use crate::codec::Header;
use crate::spec;

/// Puts one message after another together.
///
/// A transport asks for [`space`](Self::space), reads into it, and reports what it read to
/// [`advance`](Self::advance). The space never reaches past the message at hand, so descriptors
/// that arrive with a piece belong to this message.
///
/// Memory grows with what has arrived, not with what a header announces.
#[derive(Debug)]
pub(crate) struct Assembler {
    max_payload: usize,
    head: [u8; spec::HEADER_SIZE],
    /// Bytes of the message that have arrived, header included.
    have: usize,
    /// Known once `head` is complete: the header, and the payload's length.
    known: Option<(Header, usize)>,
    /// Payload that has arrived, and room for some more of it.
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A message as it arrived.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
    pub(crate) fds: Vec<OwnedFd>,
}

/// A header that leaves no way to find the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The size does not cover the header.
    Undersized(Header),
    /// The payload is larger than any message can be.
    Oversized(Header),
    /// More descriptors than the kernel passes in one message.
    TooManyFds,
}

/// Room offered at a time, and kept between messages.
const STEP: usize = 64 << 10;

impl Assembler {
    /// For messages of at most `max_payload` bytes after the header.
    pub(crate) fn new(max_payload: usize) -> Self {
        Self {
            max_payload,
            head: [0; spec::HEADER_SIZE],
            have: 0,
            known: None,
            payload: Vec::new(),
            fds: Vec::new(),
        }
    }

    /// Whether the message at hand has begun and is not complete.
    pub(crate) fn is_inside_message(&self) -> bool {
        self.have > 0 && !self.is_complete()
    }

    /// Applies from the next header on.
    pub(crate) fn set_max_payload(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }

    /// Whether a complete message waits to be taken.
    pub(crate) fn is_complete(&self) -> bool {
        self.known.is_some_and(|(_, length)| self.have == spec::HEADER_SIZE + length)
    }

    /// Where the next bytes go. Empty if a complete message waits to be taken.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let Some((_, length)) = self.known else {
            return self.head.get_mut(self.have..).unwrap_or_default();
        };
        let arrived = self.have - spec::HEADER_SIZE;
        let end = length.min(arrived + STEP);
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload.get_mut(arrived..end).unwrap_or_default()
    }

    /// `bytes` bytes of the space were filled, and `fds` came with them. Says whether the message
    /// is complete.
    pub(crate) fn advance(
        &mut self,
        bytes: usize,
        fds: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<bool, Broken> {
        self.have += bytes.min(self.space().len());
        for fd in fds {
            if self.fds.len() == spec::SCM_MAX_FDS {
                return Err(Broken::TooManyFds);
            }
            self.fds.push(fd);
        }
        if self.known.is_none() && self.have == spec::HEADER_SIZE {
            let header = Header::decode(&self.head);
            let length = header.payload_size().ok_or(Broken::Undersized(header))?;
            if length > self.max_payload {
                return Err(Broken::Oversized(header));
            }
            self.known = Some((header, length));
        }
        Ok(self.is_complete())
    }

    /// The message, if it is complete; the next one begins after this.
    pub(crate) fn take(&mut self) -> Option<Message<'_>> {
        if !self.is_complete() {
            return None;
        }
        let (header, length) = self.known.take()?;
        self.have = 0;
        // What a large message has grown is given back before the next one.
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
    use crate::codec::Command;

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Header::request(3, Command::RegionWrite, payload.len()).encode().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn feed(assembler: &mut Assembler, mut bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
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
            (0, Broken::Undersized as fn(Header) -> Broken),
            (15, Broken::Undersized),
            (16 + 101, Broken::Oversized),
            (u32::MAX, Broken::Oversized),
        ] {
            let mut assembler = Assembler::new(100);
            let mut header = Header::request(3, Command::RegionWrite, 0);
            header.size = size;
            assembler.space().copy_from_slice(&header.encode());
            assert_eq!(assembler.advance(16, []), Err(broken(header)));
        }
    }

    #[test]
    fn memory_follows_what_arrived() {
        let mut assembler = Assembler::new(1 << 30);
        let header = Header::request(3, Command::RegionWrite, 1 << 30);
        assembler.space().copy_from_slice(&header.encode());
        assert!(!assembler.advance(16, []).unwrap());
        assert_eq!(assembler.space().len(), STEP);
        assert!(assembler.payload.capacity() <= 2 * STEP);
        assert!(assembler.is_inside_message());
    }

    #[test]
    fn descriptors_are_bounded() {
        let mut assembler = Assembler::new(100);
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = (0..=spec::SCM_MAX_FDS).map(|_| OwnedFd::from(file.try_clone().unwrap()));
        assert_eq!(assembler.advance(1, fds), Err(Broken::TooManyFds));
    }
}
