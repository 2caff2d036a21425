//! This module has the pieces of guest memory that a burst of frames is in.

use arrayvec::ArrayVec;
use manifold_dma::Slice;

/// Largest number of pieces of guest memory in one burst. The longest chain must fit.
pub(crate) const MAX_PIECES: usize = 1024;

/// The pieces of a burst's frames, in the order of the frames.
pub(crate) type Pieces<'p> = ArrayVec<Slice<'p>, MAX_PIECES>;

/// Size of a cache line in bytes.
pub(crate) const LINE: usize = 64;
