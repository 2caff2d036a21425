//! This module computes checksums and segments in software, for receivers that did not negotiate
//! the offload.
//!
//! Each segment has headers of its own, made here. Its payload stays where the sender put it, and
//! the one copy is that into the receiver's buffers, if that one completes checksums itself. For
//! another it comes by way of memory of the worker's: what is summed is what is delivered, whatever
//! the sender writes meanwhile.
//!
//! ```text
//!   frame    head ─┬─ payload ──────────────────────────────┐   in the sender's memory
//!                  │ headers            │ size │ size │ ... │
//!   segments       ├─► headers 0 ───────┘      │
//!                  └─► headers 1 ──────────────┘
//! ```

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_offload::{
    Checksums, Error, NetHeader, Offloads, Plan, Request, Segmenter, Sum, checksum, parse,
};

use super::burst::BURST;
use super::pieces::{MAX_PIECES, Pieces};
use super::{Frame, PEEKED};

/// Largest number of pieces of a frame whose payload can stay in place. A burst of its segments has
/// these pieces, one more for each boundary between segments, and as many headers.
const MAX_SHARED_PIECES: usize = MAX_PIECES - 2 * BURST;

/// Number of segments that are made at a time where payload is copied. So many of the usual size
/// stay in the nearest cache until they are delivered.
const COPIED: usize = 8;

/// The memory in which a worker finishes frames.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// A copy of the frame, or of its beginning with all headers.
    whole: Vec<u8>,
    /// A copy of the frame's copied headers.
    front: Vec<u8>,
    /// The segments of a burst, or their headers.
    segments: Vec<u8>,
}

impl Scratch {
    /// Finishes a frame for a receiver that takes `accepts`, and hands the results to `each`, up to
    /// a burst at a time, until it returns false.
    ///
    /// # Errors
    /// The frame is not what its virtio_net_hdr says.
    pub(crate) fn finish(
        &mut self,
        frame: &Frame,
        pieces: &Pieces<'_>,
        accepts: Offloads,
        mut each: impl FnMut(&mut [Frame], &Pieces<'_>) -> bool,
    ) -> Result<(), Error> {
        let Some(request) = frame.request() else { return Ok(()) };
        match request.plan(accepts, usize::MAX) {
            Plan::PassThrough(_) => Ok(()),
            Plan::Checksum => {
                let header = request.header();
                frame.linearize(pieces, frame.len(), &mut self.whole);
                checksum::finish(&mut self.whole, header.csum_start, header.csum_offset);
                let mut pieces = Pieces::new();
                pieces.push(Slice::from_mut(&mut self.whole));
                each(&mut [Frame::finished(&pieces, (0, 1), frame, NetHeader::default())], &pieces);
                Ok(())
            }
            Plan::Segment(checksums) => self.segment(frame, pieces, request, checksums, each),
        }
    }

    fn segment(
        &mut self,
        frame: &Frame,
        pieces: &Pieces<'_>,
        request: &Request,
        checksums: Checksums,
        mut each: impl FnMut(&mut [Frame], &Pieces<'_>) -> bool,
    ) -> Result<(), Error> {
        let Scratch { whole, front, segments } = self;
        frame.linearize(pieces, PEEKED, whole);
        // Frames with more headers than that are very rare.
        if parse(whole).payload_at(whole).is_none() {
            frame.linearize(pieces, frame.len(), whole);
        }
        let cut = Segmenter::new(whole, request, checksums)?;
        front.clear();
        front.extend_from_slice(frame.header());
        let mut payload = Source { now: Slice::from_mut(front), then: frame.rest(pieces) }
            .after(cut.headers_len());
        let copied =
            checksums == Checksums::Complete || frame.rest(pieces).count() > MAX_SHARED_PIECES;
        let size = if copied { cut.segment_len(0) } else { cut.headers_len() };
        let batch = if copied { COPIED } else { BURST };
        segments.resize(size * batch, 0);
        for first in (0..cut.len()).step_by(batch) {
            let mut made = Pieces::new();
            let mut extents: ArrayVec<(usize, usize), BURST> = ArrayVec::new();
            for (i, room) in (first..cut.len()).zip(segments.chunks_exact_mut(size)) {
                let begin = made.len();
                let mut left = cut.payload(i).len();
                let len = cut.headers_len() + if copied { left } else { 0 };
                let Some(room) = room.get_mut(..len) else { break };
                let (headers, body) = room.split_at_mut(cut.headers_len());
                payload.read(body);
                let mut sum = Sum::new();
                if checksums == Checksums::Complete {
                    sum.add(body);
                }
                cut.write_headers(i, &sum, headers);
                made.push(Slice::from_mut(room));
                while !copied
                    && let Some(part) = payload.take(left)
                    && made.try_push(part).is_ok()
                {
                    left -= part.len();
                }
                extents.push((begin, made.len() - begin));
            }
            let finished = |extent| Frame::finished(&made, extent, frame, cut.net_header());
            let mut frames: ArrayVec<Frame, BURST> = extents.into_iter().map(finished).collect();
            if !each(&mut frames, &made) {
                break;
            }
        }
        Ok(())
    }
}

/// A reader of bytes that are in several pieces.
struct Source<'p, I> {
    now: Slice<'p>,
    then: I,
}

impl<'p, I: Iterator<Item = Slice<'p>>> Source<'p, I> {
    /// Returns the reader after `skip` more bytes.
    fn after(mut self, mut skip: usize) -> Self {
        while let Some(part) = self.take(skip) {
            skip -= part.len();
        }
        self
    }

    /// Takes at most `most` bytes that are in one piece. Returns `None` at the end, or if `most` is
    /// 0.
    fn take(&mut self, most: usize) -> Option<Slice<'p>> {
        if most == 0 {
            return None;
        }
        while self.now.is_empty() {
            self.now = self.then.next()?;
        }
        let part = self.now.take(most);
        self.now = self.now.skip(part.len());
        Some(part)
    }

    /// Fills `out` as far as there are bytes.
    fn read(&mut self, mut out: &mut [u8]) {
        while let Some(part) = self.take(out.len()) {
            let done = part.read(out);
            out = out.get_mut(done..).unwrap_or_default();
        }
    }
}
