//! These cases have many functions at work at once: what one worker moves for 256 against what it
//! moves for 2.

use anyhow::Result;
use manifold_generator::config::Protocol;

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::raw::{self, Traffic};
use crate::bench::row::{Reach, Row};

const ALL: usize = 256;
/// Number of frames in flight to each VF: the same for 2 and for 256, and enough for a worker to
/// find full bursts.
pub(super) const WINDOW: u32 = 64;

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let mut many = Manifold::start(bed, ALL, Protocol::VhostUser)?;
    let mut few = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let samples = bed.interleave(&mut [&mut many, &mut few], |switch: &mut dyn Switch| {
        let senders = switch.ports().len();
        let traffic = Traffic { senders, window: WINDOW, ..Traffic::size(60) };
        Ok(raw::run(bed, switch.ports(), traffic)?.frames_per_s / 1e6)
    })?;
    let [many, few] = samples.as_slice() else { return Ok(Vec::new()) };
    Ok(vec![
        Row::new(
            Case::Vfs.name(),
            "64 B, 256 VFs active",
            "Mframes/s",
            many.iter().copied().collect(),
        )
        .against("2 VFs active", few.iter().copied().collect())
        .reach(Reach::AtLeast(0.8)),
    ])
}
