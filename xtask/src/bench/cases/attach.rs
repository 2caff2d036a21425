//! This case measures the same traffic through the same adapter, attached by either protocol.

use anyhow::Result;
use manifold_generator::config::Protocol;

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::raw::{self, Traffic};
use crate::bench::row::{Reach, Row};

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let mut vfio = Manifold::start(bed, 2, Protocol::VfioUser)?;
    let mut vhost = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let mut rows = Vec::new();
    for (name, bytes) in [("64 B", 60), ("1518 B", 1514)] {
        let samples = bed.interleave(&mut [&mut vfio, &mut vhost], |switch: &mut dyn Switch| {
            Ok(raw::run(bed, switch.ports(), Traffic::size(bytes))?.frames_per_s / 1e6)
        })?;
        let [vfio, vhost] = samples.as_slice() else { continue };
        let case = format!("{name}, attached by vfio-user");
        rows.push(
            Row::new(Case::Attach.name(), case, "Mframes/s", vfio.iter().copied().collect())
                .against("attached by vhost-user", vhost.iter().copied().collect())
                .reach(Reach::Within(0.03)),
        );
    }
    Ok(rows)
}
