//! This module is the way out to a TAP.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_offload::Offloads;
use manifold_port::{Offloads as TapOffloads, Sent, Tap};

use crate::frame::Frame;
use crate::frame::finish::Scratch;
use crate::frame::pieces::{MAX_PIECES, Pieces};

/// A TAP that any worker may send to.
#[derive(Clone, Debug)]
pub(crate) struct TapPort {
    tap: Arc<Tap>,
    /// Offloads that may be left to be done in frames to and from the host's kernel.
    pub(crate) offloads: Offloads,
}

impl AsFd for TapPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl TapPort {
    /// Makes the port of a TAP, with as many offloads as the kernel knows.
    pub(crate) fn new(tap: Tap) -> Self {
        let tcp = TapOffloads { checksum: true, tso4: true, tso6: true, ecn: true, uso: false };
        let known = Offloads::CSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::ECN;
        let offloads = if tap.set_offloads(TapOffloads { uso: true, ..tcp }).is_ok() {
            Offloads::ALL
        } else if tap.set_offloads(tcp).is_ok() {
            known
        } else {
            Offloads::NONE
        };
        TapPort { tap: Arc::new(tap), offloads }
    }

    /// Receives a frame with its virtio_net_hdr; `None` if there is none.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.tap.recv(buffer)
    }

    /// Sends a frame. Returns false when the TAP did not take it, or not all its segments.
    pub(crate) fn send(
        &self,
        frame: &mut Frame,
        pieces: &Pieces<'_>,
        scratch: &mut Scratch,
    ) -> bool {
        let takes = frame.request().is_none_or(|request| self.offloads.contains(request.needs()));
        if takes {
            return self.write(frame, pieces);
        }
        let mut sent = true;
        let finished = scratch.finish(frame, pieces, self.offloads, |frames, pieces| {
            for frame in frames {
                sent &= self.write(frame, pieces);
            }
            sent
        });
        sent && finished.is_ok()
    }

    fn write(&self, frame: &mut Frame, pieces: &Pieces<'_>) -> bool {
        frame.set_buffers(0);
        let rest: ArrayVec<Slice<'_>, MAX_PIECES> = frame.rest(pieces).collect();
        let mut all: ArrayVec<Slice<'_>, { MAX_PIECES + 1 }> = ArrayVec::new();
        all.push(Slice::from_mut(frame.plain_head_mut()));
        all.extend(rest);
        let sent = matches!(self.tap.send(&all), Ok(Sent::Done));
        drop(all);
        frame.set_buffers(1);
        sent
    }
}
