//! A frame on its way is a private copy of the headers, with the body left where the sender put it.

pub(crate) mod burst;
pub(crate) mod finish;
pub(crate) mod pieces;

use manifold_dma::Slice;
use manifold_offload::spec::virtio::DATA_VALID;
use manifold_offload::{Hash, NetHeader, Offloads, Plan, Request, parse};
use manifold_virtio::spec::net::header;

use self::pieces::Pieces;

/// Number of bytes of a frame that are copied out, judged by the switch, and delivered from the
/// copy. It is what the switch looks at, and together with the virtio_net_hdr a length that is
/// quickly copied.
const JUDGED: usize = 20;
/// Number of bytes that are copied out of a frame with an offload request: Ethernet with VLAN tags,
/// IPv6 and part of TCP.
const JUDGED_WIDE: usize = 64;
/// Largest number of segments of one frame. 64 KiB make so many with 32 bytes of payload each; only
/// a driver that wants to keep the worker busy asks for smaller ones.
const MAX_SEGMENTS: usize = 2048;
/// Number of bytes of a frame that are looked at when the copied headers do not reach far enough,
/// because of IPv6 extension headers or TCP options.
pub(crate) const PEEKED: usize = 256;
/// Offset in [`Frame::head`] at which the frame begins, behind the longest virtio_net_hdr.
const START: usize = header::SIZE_HASH;
/// Offset in [`Frame::head`] at which a virtio_net_hdr without hash begins, so that it and the
/// frame are one piece.
const PLAIN: usize = START - header::SIZE;
/// Length in bytes of a virtio_net_hdr without hash and of the headers that are usually copied.
pub(crate) const USUAL: usize = header::SIZE + JUDGED;
/// Length in bytes of virtio_net_hdr before its field `num_buffers`.
const REQUEST: usize = header::NUM_BUFFERS;

/// A frame whose headers have been copied out of the sender's memory, with the place of the rest.
///
/// The fields that nearly every frame needs are in the first cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Frame {
    /// Length of the whole frame from the destination address on, without FCS.
    len: u32,
    /// Number of bytes of the first piece that are already in `head`. The rest of the frame is in
    /// the pieces `first..first + count`.
    skip: u32,
    first: u16,
    count: u16,
    /// Number of bytes of the frame that are in `head`, after the virtio_net_hdr.
    judged: u8,
    /// Position of the frame in its burst, from 0.
    position: u8,
    /// True if `request` is valid: the sender left something to be done, or verified it.
    requests: bool,
    /// True if `hash` is valid.
    hashed: bool,
    /// Padding, so that the byte at [`PLAIN`] in `head` begins the second half of the cache line.
    _pad: [u8; 8],
    /// The virtio_net_hdr that most receivers get, at [`PLAIN`], then the first bytes of the frame.
    head: [u8; START + JUDGED_WIDE],
    request: Option<Request>,
    hash: Option<Hash>,
}

const _: () = assert!(std::mem::offset_of!(Frame, head) + PLAIN == 32 && USUAL == 32);

/// The chain does not hold a frame: it is too short, or its virtio_net_hdr is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadHeader;

impl Frame {
    /// A frame without bytes, as a place for one.
    pub(crate) const EMPTY: Frame = Frame {
        len: 0,
        skip: 0,
        first: 0,
        count: 0,
        judged: 0,
        position: 0,
        requests: false,
        hashed: false,
        _pad: [0; 8],
        head: [0; START + JUDGED_WIDE],
        request: None,
        hash: None,
    };

    /// Reads the headers of the frame in `pieces[first..first + count]`, `total` bytes, which
    /// begins with the driver's virtio_net_hdr of `header_len` bytes. Offload requests outside
    /// `negotiated` are refused.
    ///
    /// The frame is overwritten in place, because it is too large to be moved about. Bytes of an
    /// earlier frame may stay behind the copied headers, where nothing reads them.
    #[inline]
    pub(crate) fn read(
        &mut self,
        pieces: &Pieces<'_>,
        (first, count): (usize, usize),
        header_len: usize,
        negotiated: Offloads,
        total: u32,
    ) -> Result<(), BadHeader> {
        let Some(len) = (total as usize).checked_sub(header_len) else {
            return Err(BadHeader);
        };
        self.len = len as u32;
        self.skip = 0;
        self.first = first as u16;
        self.count = count as u16;
        self.judged = len.min(JUDGED) as u8;
        (self.requests, self.hashed) = (false, false);
        if header_len == header::SIZE && len >= JUDGED && self.read_usual(pieces) {
            return Ok(());
        }
        self.read_any(pieces, header_len, negotiated)
    }

    /// Reads a virtio_net_hdr without hash that requests nothing, and headers of the usual length,
    /// out of one piece. Returns false, and reads nothing, if the frame is not like that.
    #[inline]
    fn read_usual(&mut self, pieces: &Pieces<'_>) -> bool {
        let Some(piece) = pieces.get(usize::from(self.first)) else { return false };
        let Some([a, b, c, d]) = piece.read_array().map(quarters) else { return false };
        // Without flags and gso_type the other fields mean nothing (virtio 1.3, 5.1.6.2).
        if a & 0xffff != 0 {
            return false;
        }
        let buffers = 1 << (8 * (REQUEST % 8));
        let head = [0, b & !u64::from(u32::MAX) | buffers, c, d];
        let room = self.head.get_mut(PLAIN..).and_then(|head| head.first_chunk_mut::<USUAL>());
        let Some(room) = room else { return false };
        for (to, from) in room.chunks_exact_mut(8).zip(head) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        self.skip = USUAL as u32;
        true
    }

    /// Reads any virtio_net_hdr and headers, in any number of pieces.
    #[inline(never)]
    fn read_any(
        &mut self,
        pieces: &Pieces<'_>,
        header_len: usize,
        negotiated: Offloads,
    ) -> Result<(), BadHeader> {
        self.fetch(pieces, START - header_len, START + usize::from(self.judged))?;
        self.take_header(pieces, START - header_len, negotiated)
    }

    /// Fills `head[from..to]` with the next bytes of the frame.
    fn fetch(&mut self, pieces: &Pieces<'_>, from: usize, to: usize) -> Result<(), BadHeader> {
        let Some(mut target) = self.head.get_mut(from..to) else { return Err(BadHeader) };
        // Most drivers use one piece; a driver may put virtio_net_hdr in one of its own, or scatter
        // it at will.
        while !target.is_empty() {
            let piece = pieces.get(usize::from(self.first)).filter(|_| self.count > 0);
            let Some(piece) = piece.map(|piece| piece.skip(self.skip as usize)) else {
                return Err(BadHeader);
            };
            let read = piece.read(target);
            target = target.get_mut(read..).unwrap_or_default();
            if read < piece.len() {
                self.skip += read as u32;
            } else {
                (self.first, self.count, self.skip) = (self.first + 1, self.count - 1, 0);
            }
        }
        Ok(())
    }

    /// Makes the frame that software finished from `of`. It is in `pieces[first..first + count]`;
    /// its checksum may be left to the receiver.
    pub(crate) fn finished(
        pieces: &Pieces<'_>,
        (first, count): (usize, usize),
        of: &Frame,
        header: NetHeader,
    ) -> Frame {
        let all = pieces.get(first..first + count).unwrap_or_default();
        let begin = all.first().map_or(0, Slice::len);
        let mut frame = Frame {
            judged: begin.min(JUDGED_WIDE) as u8,
            first: first as u16,
            count: count as u16,
            skip: begin.min(JUDGED_WIDE) as u32,
            len: all.iter().map(Slice::len).sum::<usize>() as u32,
            hashed: of.hashed,
            hash: of.hash,
            ..Frame::EMPTY
        };
        all.first().map(|piece| piece.read(frame.head.get_mut(START..).unwrap_or_default()));
        if let Some(field) = frame.head.get_mut(PLAIN..PLAIN + REQUEST) {
            field.copy_from_slice(&header.to_bytes());
        }
        frame.set_buffers(1);
        frame
    }

    /// Reads a frame from the uplink in `pieces[first]`, behind a virtio_net_hdr. Unlike a driver,
    /// the host's kernel may say that it has verified the checksum.
    pub(crate) fn from_uplink(
        pieces: &Pieces<'_>,
        first: usize,
        negotiated: Offloads,
    ) -> Result<Frame, BadHeader> {
        let len = pieces.get(first).map_or(0, Slice::len);
        let mut flags = [0];
        pieces.get(first).map(|piece| piece.read(&mut flags));
        let mut frame = Frame::EMPTY;
        frame.read(pieces, (first, 1), header::SIZE, negotiated, len as u32)?;
        if !frame.requests && flags[0] & DATA_VALID != 0 {
            let complete = NetHeader::default().check(frame.header(), frame.len(), negotiated);
            frame.request = complete.ok().map(Request::verified);
            frame.requests = frame.request.is_some();
        }
        Ok(frame)
    }

    /// Sets the frame's place in its burst.
    #[inline]
    pub(crate) fn set_position(&mut self, position: usize) {
        self.position = position as u8;
    }

    /// Returns what the sender leaves to be done or has verified, if anything.
    #[inline]
    pub(crate) fn request(&self) -> Option<&Request> {
        if self.requests { self.request.as_ref() } else { None }
    }

    /// Sets the hash that receive-side scaling computed for the present receiver.
    #[inline]
    pub(crate) fn set_hash(&mut self, hash: Option<Hash>) {
        (self.hash, self.hashed) = (hash, true);
    }

    /// Returns the frame's place in its burst.
    pub(crate) fn position(&self) -> usize {
        usize::from(self.position)
    }

    /// Judges the virtio_net_hdr at `at` and replaces it by the one that is delivered.
    fn take_header(
        &mut self,
        pieces: &Pieces<'_>,
        at: usize,
        negotiated: Offloads,
    ) -> Result<(), BadHeader> {
        let mut delivered = [0; REQUEST];
        // Without flags and gso_type the other fields mean nothing (virtio 1.3, 5.1.6.2).
        let kind = self.head.get(at..at + 2);
        if kind != Some(&[0, 0]) {
            let asked: [u8; REQUEST] =
                self.head.get(at..at + REQUEST).and_then(|b| b.try_into().ok()).unwrap_or_default();
            let asked = NetHeader::from_bytes(&asked);
            let (judged, wide) = (usize::from(self.judged), self.len().min(JUDGED_WIDE));
            self.fetch(pieces, START + judged, START + wide)?;
            self.judged = wide as u8;
            let request =
                asked.check(self.header(), self.len(), negotiated).map_err(|_| BadHeader)?;
            if request.is_gso()
                && self.len() > usize::from(request.header().gso_size) * MAX_SEGMENTS
            {
                return Err(BadHeader);
            }
            if !request.header().is_complete() {
                delivered = request.header().to_bytes();
                (self.request, self.requests) = (Some(request), true);
            }
        }
        if at != PLAIN {
            self.head[..PLAIN].fill(0);
        }
        if let Some(field) = self.head.get_mut(PLAIN..PLAIN + REQUEST) {
            field.copy_from_slice(&delivered);
        }
        self.set_buffers(1);
        Ok(())
    }

    /// Writes the virtio_net_hdr for a receiver that takes `accepts`. Returns false if the frame
    /// must be finished in software for it first.
    #[inline]
    pub(crate) fn prepare(&mut self, accepts: Offloads) -> bool {
        let Some(request) = self.request() else { return true };
        let Plan::PassThrough(header) = request.plan(accepts, usize::MAX) else { return false };
        if let Some(field) = self.head.get_mut(PLAIN..PLAIN + REQUEST) {
            field.copy_from_slice(&header.to_bytes());
        }
        true
    }

    /// Returns the length that the switch judges. For a frame that is still to be segmented, it is
    /// that of the longest segment.
    #[inline]
    pub(crate) fn switched_len(&self, pieces: &Pieces<'_>) -> usize {
        match self.request() {
            Some(request) if request.is_gso() => self.segment_len(request, pieces),
            _ => self.len(),
        }
    }

    #[cold]
    fn segment_len(&self, request: &Request, pieces: &Pieces<'_>) -> usize {
        let mut room = [0; PEEKED];
        let head = self.peek(pieces, &mut room);
        let headers = parse(head).payload_at(head).unwrap_or(usize::from(self.judged));
        self.len().min(headers + usize::from(request.header().gso_size))
    }

    /// Copies the frame's first bytes, up to [`PEEKED`], into `room` and returns them.
    pub(crate) fn peek<'b>(&self, pieces: &Pieces<'_>, room: &'b mut [u8; PEEKED]) -> &'b [u8] {
        let mut have = self.header().len();
        room[..have].copy_from_slice(self.header());
        for piece in self.rest(pieces) {
            let Some(free) = room.get_mut(have..).filter(|free| !free.is_empty()) else { break };
            have += piece.read(free);
        }
        room.get(..have).unwrap_or_default()
    }

    /// Returns the length in bytes from the destination address on, without FCS.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns the copied headers, which are judged and delivered.
    #[inline]
    pub(crate) fn header(&self) -> &[u8] {
        self.head.get(START..START + usize::from(self.judged)).unwrap_or_default()
    }

    /// Returns true if the whole frame is in the copied headers.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.len as usize == usize::from(self.judged)
    }

    /// Sets `num_buffers`: how many receive buffers the frame is spread over.
    #[inline]
    pub(crate) fn set_buffers(&mut self, buffers: u16) {
        if let Some(field) = self.head.get_mut(PLAIN + REQUEST..START) {
            field.copy_from_slice(&buffers.to_le_bytes());
        }
    }

    /// Returns the virtio_net_hdr without hash, and behind it the copied headers.
    #[inline]
    pub(crate) fn plain_head(&self) -> &[u8] {
        self.head.get(PLAIN..START + usize::from(self.judged)).unwrap_or_default()
    }

    /// Returns the virtio_net_hdr without hash with the copied headers, and the rest of the frame,
    /// if the headers have their usual length and the rest is in one piece.
    #[inline]
    pub(crate) fn usual<'p>(&self, pieces: &Pieces<'p>) -> Option<(&[u8; USUAL], Slice<'p>)> {
        if usize::from(self.judged) != JUDGED || self.count != 1 {
            return None;
        }
        let head = self.head.get(PLAIN..)?.first_chunk()?;
        Some((head, pieces.get(usize::from(self.first))?.skip(self.skip as usize)))
    }

    /// Returns the virtio_net_hdr without hash with the copied headers, to be sent to the uplink.
    pub(crate) fn plain_head_mut(&mut self) -> &mut [u8] {
        self.head.get_mut(PLAIN..START + usize::from(self.judged)).unwrap_or_default()
    }

    /// Returns the virtio_net_hdr with the hash.
    pub(crate) fn hashed_header(&self) -> [u8; header::SIZE_HASH] {
        let mut out = [0; header::SIZE_HASH];
        out[..header::SIZE].copy_from_slice(&self.head[PLAIN..START]);
        if let Some(hash) = self.hash.filter(|_| self.hashed) {
            out[header::HASH_VALUE..header::HASH_REPORT].copy_from_slice(&hash.value.to_le_bytes());
            out[header::HASH_REPORT..header::HASH_REPORT + 2]
                .copy_from_slice(&hash.report.to_le_bytes());
        }
        out
    }

    /// Returns the pieces that follow the copied headers, in order.
    #[inline]
    pub(crate) fn rest<'a, 'p>(
        &self,
        pieces: &'a Pieces<'p>,
    ) -> impl Iterator<Item = Slice<'p>> + use<'a, 'p> {
        let (first, count) = (usize::from(self.first), usize::from(self.count));
        let all = pieces.get(first..first + count).unwrap_or_default();
        let mut skip = self.skip as usize;
        all.iter().map(move |piece| piece.skip(std::mem::take(&mut skip)))
    }

    /// Returns the frame with the rest in other pieces: all of `pieces[first..first + count]`.
    pub(crate) fn with_rest(mut self, first: usize, count: usize) -> Frame {
        (self.first, self.count, self.skip) = (first as u16, count as u16, 0);
        self
    }

    /// Copies the first `len` bytes of the frame, without virtio_net_hdr, into `out`.
    pub(crate) fn linearize(&self, pieces: &Pieces<'_>, len: usize, out: &mut Vec<u8>) {
        out.clear();
        out.resize(self.len().min(len), 0);
        let mut room = &mut out[..];
        let head = self.header();
        let (front, rest) = room.split_at_mut(head.len().min(room.len()));
        front.copy_from_slice(&head[..front.len()]);
        room = rest;
        for piece in self.rest(pieces) {
            let done = piece.read(room);
            room = room.get_mut(done..).unwrap_or_default();
        }
    }
}

/// Returns the four words that the bytes are in memory.
fn quarters(bytes: [u8; USUAL]) -> [u64; USUAL / 8] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|i| words.get(i).map_or(0, |word| u64::from_le_bytes(*word)))
}
