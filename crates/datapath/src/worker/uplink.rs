//! This module is the way in from the uplink, which one worker serves.

use std::os::fd::{AsFd, BorrowedFd};

use manifold_dma::Slice;
use manifold_eswitch::Source;

use crate::frame::Frame;
use crate::frame::burst::{BURST, FrameBurst};
use crate::frame::pieces::Pieces;
use crate::switch::egress::Egress;
use crate::switch::forward::Forwarder;
use crate::switch::function::Switch;
use crate::switch::route::Route;
use crate::switch::tap_port::TapPort;

/// Length in bytes of the longest frame that a TAP hands over, with its virtio_net_hdr.
const BUFFER: usize = 12 + 65_536 + 18;

/// The way in from a TAP, with the buffer that frames are received into.
pub(crate) struct Uplink {
    port: TapPort,
    buffer: Box<[u8]>,
    route: Route,
}

impl AsFd for Uplink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl Uplink {
    pub(crate) fn new(port: TapPort) -> Self {
        Uplink { port, buffer: vec![0; BUFFER].into(), route: Route::default() }
    }

    /// Receives up to a burst of frames and forwards them. Returns how many, and whether there may
    /// be more.
    pub(crate) fn poll(&mut self, switch: &Switch, egress: &mut Egress) -> (usize, bool) {
        for received in 0..BURST {
            match self.port.recv(&mut self.buffer) {
                Ok(Some(len)) => {
                    let Some(bytes) = self.buffer.get_mut(..len) else { continue };
                    let mut pieces = Pieces::new();
                    pieces.push(Slice::from_mut(bytes));
                    if let Ok(mut frame) = Frame::from_uplink(&pieces, 0, self.port.offloads) {
                        let mut burst = FrameBurst::new(std::slice::from_mut(&mut frame), &pieces);
                        Forwarder { switch, egress, source: Source::Uplink, sender: None }
                            .forward(&mut self.route, &mut burst);
                        egress.interrupt(switch);
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
