//! The uplink: frames between the switch and a TAP.

use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_eswitch::Source;
use manifold_port::{Sent, Tap};

use crate::frame::{BURST, Frame, NET_HEADER, PIECES, Pieces};
use crate::transmit::{Egress, Origin};

/// The longest frame a TAP hands over, with its virtio_net_hdr.
const BUFFER: usize = NET_HEADER + 65_536 + 18;

/// A TAP with the buffer its frames are received into.
pub(crate) struct Uplink {
    tap: Tap,
    buffer: Box<[u8]>,
}

impl AsFd for Uplink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl Uplink {
    pub(crate) fn new(tap: Tap) -> Self {
        Uplink { tap, buffer: vec![0; BUFFER].into() }
    }

    /// Receives up to a burst of frames and forwards them; true when there may be more.
    pub(crate) fn poll(&mut self, egress: &mut Egress<'_>) -> bool {
        for _ in 0..BURST {
            match self.tap.recv(&mut self.buffer) {
                Ok(Some(len)) => {
                    let Some(bytes) = self.buffer.get_mut(NET_HEADER..len) else { continue };
                    let mut pieces = Pieces::new();
                    pieces.push(Slice::from_mut(bytes));
                    if let Some(frame) = Frame::from_wire(&pieces, 0) {
                        let from = Origin { source: Source::Uplink, pair: 0 };
                        egress.forward(from, &mut [frame], &pieces, None);
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(%error, "the uplink cannot be read");
                    return false;
                }
            }
        }
        true
    }

    /// Sends a frame; false when the TAP did not take it.
    pub(crate) fn send(&mut self, frame: &mut Frame, pieces: &Pieces<'_>) -> bool {
        let rest: ArrayVec<Slice<'_>, PIECES> = frame.rest(pieces).collect();
        let mut all: ArrayVec<Slice<'_>, { PIECES + 1 }> = ArrayVec::new();
        all.push(Slice::from_mut(frame.head_mut()));
        all.extend(rest);
        matches!(self.tap.send(&all), Ok(Sent::Done))
    }
}
