//! A burst is frames that travel together.

use super::Frame;
use super::pieces::Pieces;

/// Largest number of frames in one burst.
pub(crate) const BURST: usize = 32;

/// Room for the frames of a burst, which a worker uses again and again.
pub(crate) type Frames = [Frame; BURST];

/// A burst of frames on its way, at most 64.
pub(crate) struct FrameBurst<'b, 'p> {
    pub(crate) frames: &'b mut [Frame],
    /// The memory that holds what follows the frames' headers.
    pub(crate) pieces: &'b Pieces<'p>,
    /// One bit for each frame whose sender left an offload to be done.
    pub(crate) requesting: u64,
}

impl<'b, 'p> FrameBurst<'b, 'p> {
    #[inline]
    pub(crate) fn new(frames: &'b mut [Frame], pieces: &'b Pieces<'p>) -> Self {
        let requesting =
            (0..64).zip(&*frames).fold(0, |all, (i, frame)| all | u64::from(frame.requests) << i);
        FrameBurst { frames, pieces, requesting }
    }

    /// Returns one bit for each frame.
    #[inline]
    pub(crate) fn all(&self) -> u64 {
        u64::MAX.checked_shr(64 - self.frames.len().min(64) as u32).unwrap_or(0)
    }
}
