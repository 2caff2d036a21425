//! A case measures a group of rows of the result, in a file of its own.

mod attach;
mod case;
mod frames;
mod functions;
mod guests;
mod idle;
mod latency;
mod sriov;
mod sweep;
mod third_party;
mod tso;

use anyhow::Result;

pub(crate) use self::case::Case;
use super::bed::Bed;
use super::row::Row;

impl Case {
    /// Measures the rows.
    pub(crate) fn run(self, bed: &Bed) -> Result<Vec<Row>> {
        match self {
            Self::Raw64 => frames::small(bed),
            Self::Testpmd64 => third_party::run(bed),
            Self::Raw1518 => frames::large(bed),
            Self::Tso => tso::run(bed),
            Self::Attach => attach::run(bed),
            Self::Vfs => functions::run(bed),
            Self::Idle => idle::run(bed),
            Self::Latency => latency::run(bed),
            Self::Guests => guests::run(bed),
            Self::Sriov => sriov::run(bed),
            Self::Sweep => sweep::run(bed),
        }
    }
}
