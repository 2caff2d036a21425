//! This module makes the one copy of a frame, into the receiver's buffers.

use manifold_dma::Slice;
use manifold_virtio::spec::net::header;

use crate::frame::Frame;
use crate::frame::pieces::Pieces;

/// Copies a frame with its virtio_net_hdr to one piece of memory that is long enough.
#[inline]
pub(super) fn write(frame: &mut Frame, header_len: usize, room: &Slice<'_>, pieces: &Pieces<'_>) {
    if header_len == header::SIZE
        && let Some((head, rest)) = frame.usual(pieces)
        && room.write_array(head)
    {
        room.skip(head.len()).copy_from(&rest);
    } else {
        write_any(frame, 1, header_len, std::slice::from_ref(room), pieces);
    }
}

/// Copies any frame with its virtio_net_hdr to `buffers` buffers in any pieces of memory.
#[inline(never)]
pub(super) fn write_any(
    frame: &mut Frame,
    buffers: usize,
    header_len: usize,
    room: &[Slice<'_>],
    pieces: &Pieces<'_>,
) {
    // A wider load right after this store would have to wait for it, so it is done only where
    // needed.
    if buffers != 1 {
        frame.set_buffers(buffers as u16);
    }
    let mut scatter = Scatter { room, skip: 0 };
    let plain = frame.plain_head();
    if header_len == header::SIZE {
        scatter.write(plain);
    } else {
        scatter.write(&frame.hashed_header());
        scatter.write(frame.header());
    }
    if !frame.is_whole() {
        for piece in frame.rest(pieces) {
            scatter.copy(piece);
        }
    }
    if buffers != 1 {
        frame.set_buffers(1);
    }
}

/// A writer of bytes, one after the other, into pieces of memory.
struct Scatter<'r, 'p> {
    room: &'r [Slice<'p>],
    skip: usize,
}

impl Scatter<'_, '_> {
    #[inline]
    fn write(&mut self, mut data: &[u8]) {
        while let Some((first, others)) = self.room.split_first()
            && !data.is_empty()
        {
            let target = first.skip(self.skip);
            let done = target.write(data);
            data = data.get(done..).unwrap_or_default();
            self.advance(done, target.len(), others.len());
        }
    }

    #[inline]
    fn copy(&mut self, mut source: Slice<'_>) {
        while let Some((first, others)) = self.room.split_first()
            && !source.is_empty()
        {
            let target = first.skip(self.skip);
            let done = target.copy_from(&source);
            source = source.skip(done);
            self.advance(done, target.len(), others.len());
        }
    }

    #[inline]
    fn advance(&mut self, done: usize, had: usize, others: usize) {
        if done == had {
            self.room = &self.room[self.room.len() - others..];
            self.skip = 0;
        } else {
            self.skip += done;
        }
    }
}
