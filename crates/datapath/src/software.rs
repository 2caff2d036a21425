//! Checksums and segmentation for receivers that do not take frames unfinished.

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_offload::{Error, Offloads, Plan, Segments, checksum};

use crate::frame::{BURST, Frame, Pieces};

/// Memory to work in.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    whole: Vec<u8>,
    segments: Vec<u8>,
}

impl Scratch {
    /// Finishes a frame for a receiver that takes `accepts`, and hands the results to `each`, up to a burst at a time,
    /// until it returns false.
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
        frame.linearize(pieces, &mut self.whole);
        let header = request.header();
        match request.plan(accepts, usize::MAX) {
            Plan::PassThrough(_) => {}
            Plan::Checksum => {
                checksum::finish(&mut self.whole, header.csum_start, header.csum_offset);
                let mut pieces = Pieces::new();
                pieces.push(Slice::from_mut(&mut self.whole));
                each(&mut [Frame::finished(&pieces, 0, frame, None)], &pieces);
            }
            Plan::Segment(checksums) => {
                let cut = Segments::new(&self.whole, request, checksums)?;
                let size = cut.max_len();
                self.segments.resize(size * BURST, 0);
                for first in (0..cut.len()).step_by(BURST) {
                    let mut made = Pieces::new();
                    for (i, room) in (first..cut.len()).zip(self.segments.chunks_exact_mut(size)) {
                        let len = cut.write(i, room).unwrap_or(0);
                        made.push(Slice::from_mut(room.get_mut(..len).unwrap_or_default()));
                    }
                    let mut frames: ArrayVec<Frame, BURST> = (0..made.len())
                        .map(|at| Frame::finished(&made, at, frame, Some(cut.net_header())))
                        .collect();
                    if !each(&mut frames, &made) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
