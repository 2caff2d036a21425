//! This module segments a frame that is in one piece.

use manifold_offload::{Checksums, Error, NetHeader, Request, Segmenter, Sum};

/// The segments of a frame in one piece, through [`Segmenter`].
#[derive(Clone, Copy, Debug)]
pub struct Segments<'f> {
    segmenter: Segmenter<'f>,
    checksums: Checksums,
    frame: &'f [u8],
}

impl<'f> Segments<'f> {
    /// Makes the segments of `frame`, which is what `request` was made of.
    ///
    /// # Errors
    /// See [`Segmenter::new`]; or `frame` is shorter than the request says.
    pub fn new(frame: &'f [u8], request: &Request, checksums: Checksums) -> Result<Self, Error> {
        let frame = frame.get(..request.frame_len()).ok_or(Error::Truncated(frame.len()))?;
        let segmenter = Segmenter::new(frame, request, checksums)?;
        Ok(Segments { segmenter, checksums, frame })
    }

    /// Returns how many segments there are, from 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.segmenter.len()
    }

    /// Returns the length of the longest segment in bytes.
    pub fn max_len(&self) -> usize {
        self.segmenter.segment_len(0)
    }

    /// Returns the virtio_net_hdr in front of each segment.
    pub fn net_header(&self) -> NetHeader {
        self.segmenter.net_header()
    }

    /// Writes segment `i` to the beginning of `out` and returns its length; `None` if there is no
    /// such segment or no room.
    pub fn write(&self, i: usize, out: &mut [u8]) -> Option<usize> {
        let len = self.segmenter.segment_len(i);
        let payload = self.frame.get(self.segmenter.payload(i))?;
        let (headers, body) =
            out.get_mut(..len)?.split_at_mut_checked(self.segmenter.headers_len())?;
        let mut sum = Sum::new();
        match self.checksums {
            Checksums::Complete => {
                sum.add_copy(payload, body);
            }
            Checksums::Partial => body.copy_from_slice(payload),
        }
        self.segmenter.write_headers(i, &sum, headers)?;
        Some(len)
    }
}
