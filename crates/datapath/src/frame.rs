//! Frames on their way: a private copy of the head, the body where the sender put it.

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_offload::spec::virtio::DATA_VALID;
use manifold_offload::{Hash, NetHeader, Offloads, Plan, Request, parse};
use manifold_virtio::spec::net::header;

/// How many bytes of a frame are copied out to be judged, and delivered from the copy: what a switch looks at, and with the
/// virtio_net_hdr a number that is quickly copied.
const JUDGED: usize = 20;
/// The same of a frame that asks for something: Ethernet with VLAN tags, IPv6 and part of TCP.
const JUDGED_WIDE: usize = 64;
/// Frames per burst.
pub(crate) const BURST: usize = 32;
/// Pieces of guest memory per burst: at least the longest chain.
pub(crate) const PIECES: usize = 1024;
/// The most segments of one frame: of 64 KiB, each with 32 bytes of payload. Smaller ones only a driver makes that wants
/// to keep the worker busy.
const MAX_SEGMENTS: usize = 2048;
/// How many bytes are looked at where the head does not reach: behind IPv6 extension headers and TCP options.
pub(crate) const PEEKED: usize = 256;
/// Where the frame begins in [`Frame::head`]: behind the longest virtio_net_hdr.
const START: usize = header::SIZE_HASH;
/// Where a virtio_net_hdr without hash begins, so that it and the frame are one piece.
const PLAIN: usize = START - header::SIZE;
/// Bytes of a virtio_net_hdr without hash and the usual head.
pub(crate) const USUAL: usize = header::SIZE + JUDGED;
/// Bytes of virtio_net_hdr before `num_buffers`.
const REQUEST: usize = header::NUM_BUFFERS;

/// The pieces of a burst's frames, in order.
pub(crate) type Pieces<'p> = ArrayVec<Slice<'p>, PIECES>;

/// A frame: its head copied out of the sender's memory, and where the rest of it is.
///
/// What nearly every frame needs is in the first cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Frame {
    /// Length of the whole frame from the destination address on, without FCS.
    len: u32,
    /// The rest: pieces `first..first + count`, of which `skip` bytes of the first are already in `head`.
    skip: u32,
    first: u16,
    count: u16,
    /// How much of `head` after the virtio_net_hdr is valid.
    judged: u8,
    /// Which of its burst it is.
    position: u8,
    /// Whether `request` and `hash` mean anything.
    asks: bool,
    hashed: bool,
    /// So that what is at [`PLAIN`] in `head` is the second half of the cache line.
    _pad: [u8; 8],
    /// virtio_net_hdr as most receivers get it, at [`PLAIN`], then the first bytes of the frame.
    head: [u8; START + JUDGED_WIDE],
    request: Option<Request>,
    hash: Option<Hash>,
}

const _: () = assert!(std::mem::offset_of!(Frame, head) + PLAIN == 32 && USUAL == 32);

/// Room for the frames of a burst, used over and over.
pub(crate) type Frames = [Frame; BURST];

/// Frames on their way together, at most 64.
pub(crate) struct Convoy<'c, 'p> {
    pub(crate) frames: &'c mut [Frame],
    /// Where their rests are.
    pub(crate) pieces: &'c Pieces<'p>,
    /// One bit for each that leaves something to be done.
    pub(crate) asking: u64,
}

impl<'c, 'p> Convoy<'c, 'p> {
    #[inline]
    pub(crate) fn new(frames: &'c mut [Frame], pieces: &'c Pieces<'p>) -> Self {
        let asking =
            (0..64).zip(&*frames).fold(0, |all, (i, frame)| all | u64::from(frame.asks) << i);
        Convoy { frames, pieces, asking }
    }

    /// One bit for each frame.
    #[inline]
    pub(crate) fn all(&self) -> u64 {
        u64::MAX.checked_shr(64 - self.frames.len().min(64) as u32).unwrap_or(0)
    }
}

/// Why a chain does not hold a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadHeader;

impl Frame {
    /// No frame: a place for one.
    pub(crate) const EMPTY: Frame = Frame {
        len: 0,
        skip: 0,
        first: 0,
        count: 0,
        judged: 0,
        position: 0,
        asks: false,
        hashed: false,
        _pad: [0; 8],
        head: [0; START + JUDGED_WIDE],
        request: None,
        hash: None,
    };

    /// Reads the head of the frame in `pieces[first..first + count]`, `total` bytes, which begins with the driver's
    /// virtio_net_hdr of `header_len` bytes. Of what it asks for, only `negotiated` is allowed.
    ///
    /// In place, because a frame is too much to be moved about; what was here before is not to be seen any more, though
    /// bytes beyond the head's end stay.
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
        (self.asks, self.hashed) = (false, false);
        if header_len == header::SIZE && len >= JUDGED && self.read_usual(pieces) {
            return Ok(());
        }
        self.read_any(pieces, header_len, negotiated)
    }

    /// Reads a virtio_net_hdr without hash that asks for nothing, and the usual head, out of one piece; false, and nothing
    /// is read, if that is not what is there.
    #[inline]
    fn read_usual(&mut self, pieces: &Pieces<'_>) -> bool {
        let Some(piece) = pieces.get(usize::from(self.first)) else { return false };
        let Some([a, b, c, d]) = piece.read_array().map(quarters) else { return false };
        // Neither flags nor gso_type: the other fields mean nothing (virtio 1.3, 5.1.6.2).
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

    /// Reads any virtio_net_hdr and head, wherever they are.
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

    /// Fills `head[from..to]` with what comes next.
    fn fetch(&mut self, pieces: &Pieces<'_>, from: usize, to: usize) -> Result<(), BadHeader> {
        let Some(mut target) = self.head.get_mut(from..to) else { return Err(BadHeader) };
        // The rule is one piece; a driver may put virtio_net_hdr in one of its own, or scatter it at will.
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

    /// A frame made in software of `of`, in `pieces[first..first + count]`, whose checksum may be left to the receiver.
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

    /// A frame from the uplink: in `pieces[first]` behind a virtio_net_hdr. The host's kernel may say that it has verified the
    /// checksum, which no driver may.
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
        if !frame.asks && flags[0] & DATA_VALID != 0 {
            let complete = NetHeader::default().check(frame.header(), frame.len(), negotiated);
            frame.request = complete.ok().map(Request::verified);
            frame.asks = frame.request.is_some();
        }
        Ok(frame)
    }

    /// Says which of its burst it is.
    #[inline]
    pub(crate) fn set_position(&mut self, position: usize) {
        self.position = position as u8;
    }

    /// What the sender leaves to be done or has verified, if anything.
    #[inline]
    pub(crate) fn request(&self) -> Option<&Request> {
        if self.asks { self.request.as_ref() } else { None }
    }

    /// Says what receive-side scaling made of it, for the present receiver.
    #[inline]
    pub(crate) fn set_hash(&mut self, hash: Option<Hash>) {
        (self.hash, self.hashed) = (hash, true);
    }

    /// Which of its burst it is.
    pub(crate) fn position(&self) -> usize {
        usize::from(self.position)
    }

    /// Judges the virtio_net_hdr at `at` and replaces it by what is delivered.
    fn take_header(
        &mut self,
        pieces: &Pieces<'_>,
        at: usize,
        negotiated: Offloads,
    ) -> Result<(), BadHeader> {
        let mut delivered = [0; REQUEST];
        // Without either the other fields mean nothing (virtio 1.3, 5.1.6.2).
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
                (self.request, self.asks) = (Some(request), true);
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

    /// Makes the virtio_net_hdr what a receiver that takes `accepts` is to get; false for one for whom the frame must be
    /// finished first.
    #[inline]
    pub(crate) fn prepare(&mut self, accepts: Offloads) -> bool {
        let Some(request) = self.request() else { return true };
        let Plan::PassThrough(header) = request.plan(accepts, usize::MAX) else { return false };
        if let Some(field) = self.head.get_mut(PLAIN..PLAIN + REQUEST) {
            field.copy_from_slice(&header.to_bytes());
        }
        true
    }

    /// The length that the switch is to judge: of a frame still to be segmented, that of its longest segment.
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

    /// More of the frame than its head.
    pub(crate) fn peek<'b>(&self, pieces: &Pieces<'_>, room: &'b mut [u8; PEEKED]) -> &'b [u8] {
        let mut have = self.header().len();
        room[..have].copy_from_slice(self.header());
        for piece in self.rest(pieces) {
            let Some(free) = room.get_mut(have..).filter(|free| !free.is_empty()) else { break };
            have += piece.read(free);
        }
        room.get(..have).unwrap_or_default()
    }

    /// Length in bytes from the destination address on, without FCS.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The bytes that are judged and delivered.
    #[inline]
    pub(crate) fn header(&self) -> &[u8] {
        self.head.get(START..START + usize::from(self.judged)).unwrap_or_default()
    }

    /// Whether all of the frame is in its head.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.len as usize == usize::from(self.judged)
    }

    /// How many buffers it is spread over.
    #[inline]
    pub(crate) fn set_buffers(&mut self, buffers: u16) {
        if let Some(field) = self.head.get_mut(PLAIN + REQUEST..START) {
            field.copy_from_slice(&buffers.to_le_bytes());
        }
    }

    /// virtio_net_hdr and the frame's head in one, without hash.
    #[inline]
    pub(crate) fn plain_head(&self) -> &[u8] {
        self.head.get(PLAIN..START + usize::from(self.judged)).unwrap_or_default()
    }

    /// The same where the head is the usual one, and the rest, if it is in one piece.
    #[inline]
    pub(crate) fn usual<'p>(&self, pieces: &Pieces<'p>) -> Option<(&[u8; USUAL], Slice<'p>)> {
        if usize::from(self.judged) != JUDGED || self.count != 1 {
            return None;
        }
        let head = self.head.get(PLAIN..)?.first_chunk()?;
        Some((head, pieces.get(usize::from(self.first))?.skip(self.skip as usize)))
    }

    /// The same for writing, as they go to the uplink.
    pub(crate) fn plain_head_mut(&mut self) -> &mut [u8] {
        self.head.get_mut(PLAIN..START + usize::from(self.judged)).unwrap_or_default()
    }

    /// virtio_net_hdr with the hash.
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

    /// What follows the head, in order.
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

    /// The same frame with its rest elsewhere: in `pieces[first..first + count]`, whole.
    pub(crate) fn with_rest(mut self, first: usize, count: usize) -> Frame {
        (self.first, self.count, self.skip) = (first as u16, count as u16, 0);
        self
    }

    /// The frame without virtio_net_hdr, or its first `len` bytes, in one place.
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

/// Four words, as they are in memory.
fn quarters(bytes: [u8; USUAL]) -> [u64; USUAL / 8] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|i| words.get(i).map_or(0, |word| u64::from_le_bytes(*word)))
}
