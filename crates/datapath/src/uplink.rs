//! The uplink: frames between the switch and a TAP.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_eswitch::Source;
use manifold_offload::Offloads;
use manifold_port::{Offloads as TapOffloads, Sent, Tap};

use crate::egress::{Egress, Origin};
use crate::frame::{BURST, Convoy, Frame, PIECES, Pieces};
use crate::parcel::Address;
use crate::route::Route;
use crate::software::Scratch;

/// The longest frame a TAP hands over, with its virtio_net_hdr.
const BUFFER: usize = 12 + 65_536 + 18;

/// The way out to a TAP, for any worker.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    tap: Arc<Tap>,
    /// What the host's kernel takes unfinished, and hands over unfinished.
    offloads: Offloads,
}

impl Port {
    /// A TAP, with as many offloads as the kernel knows.
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
        Port { tap: Arc::new(tap), offloads }
    }

    /// Sends a frame; false when the TAP did not take it, or not all its segments.
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
        let rest: ArrayVec<Slice<'_>, PIECES> = frame.rest(pieces).collect();
        let mut all: ArrayVec<Slice<'_>, { PIECES + 1 }> = ArrayVec::new();
        all.push(Slice::from_mut(frame.plain_head_mut()));
        all.extend(rest);
        let sent = matches!(self.tap.send(&all), Ok(Sent::Done));
        drop(all);
        frame.set_buffers(1);
        sent
    }
}

/// The way in, for one worker: with the buffer that frames are received into.
pub(crate) struct Uplink {
    port: Port,
    buffer: Box<[u8]>,
    route: Route,
}

impl AsFd for Uplink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.tap.as_fd()
    }
}

impl Uplink {
    pub(crate) fn new(port: Port) -> Self {
        Uplink { port, buffer: vec![0; BUFFER].into(), route: Route::default() }
    }

    /// Receives up to a burst of frames and forwards them; says how many, and whether there may be more.
    pub(crate) fn poll(&mut self, egress: &mut Egress<'_>) -> (usize, bool) {
        for received in 0..BURST {
            match self.port.tap.recv(&mut self.buffer) {
                Ok(Some(len)) => {
                    let Some(bytes) = self.buffer.get_mut(..len) else { continue };
                    let mut pieces = Pieces::new();
                    pieces.push(Slice::from_mut(bytes));
                    if let Ok(mut frame) = Frame::from_uplink(&pieces, 0, self.port.offloads) {
                        let from = Origin {
                            source: Source::Uplink,
                            pair: 0,
                            address: Address { number: u16::MAX, generation: 0 },
                            slot: 0,
                            life: 0,
                            sequence: 0,
                        };
                        let mut convoy = Convoy::new(std::slice::from_mut(&mut frame), &pieces);
                        egress.forward(&from, None, &mut self.route, &mut convoy, None);
                        egress.interrupt();
                    }
                }
                Ok(None) => return (received, false),
                Err(error) => {
                    tracing::warn!(%error, "the uplink cannot be read");
                    return (received, false);
                }
            }
        }
        (BURST, true)
    }
}
