//! This case takes figures without a bound: frame sizes, IMIX, ring kinds, numbers of active VFs.

use anyhow::Result;
use manifold_generator::config::{Frames, Protocol};

use super::case::Case;
use super::functions;
use crate::bench::bed::Bed;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::peers::ovs::OpenVswitch;
use crate::bench::peers::testpmd::TestpmdSwitch;
use crate::bench::raw::{self, Traffic};
use crate::bench::row::Row;
use crate::bench::stats::Samples;

const FCS: u32 = 4;
const SIZES: [u32; 6] = [64, 128, 256, 512, 1024, 1518];
const VFS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let mut rows = sizes(bed)?;
    rows.extend(functions(bed)?);
    Ok(rows)
}

/// Measures sizes and ring kinds, beside testpmd io and OVS-DPDK.
fn sizes(bed: &Bed) -> Result<Vec<Row>> {
    let mut ours = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let mut testpmd = TestpmdSwitch::start(bed)?;
    let mut ovs = OpenVswitch::start(bed)?;
    let sizes = SIZES.map(|size| (format!("{size} B"), Frames::Size(size - FCS)));
    let imix = ("IMIX".to_owned(), Frames::Imix);
    // A quick run has the smallest and the largest already, in cases of their own.
    let skip = usize::from(bed.pace.quick) * SIZES.len();
    let mut rows = Vec::new();
    for (name, frames) in sizes.into_iter().skip(skip).chain([imix]) {
        for packed in [false, true] {
            let traffic = Traffic { frames, packed, ..Traffic::size(60) };
            let kind = if packed { "packed" } else { "split" };
            let samples = bed.interleave(
                &mut [&mut ours, &mut testpmd, &mut ovs],
                |switch: &mut dyn Switch| {
                    Ok(raw::run(bed, switch.ports(), traffic)?.frames_per_s / 1e6)
                },
            )?;
            let rates = |index: usize| -> Samples {
                samples.get(index).into_iter().flatten().copied().collect()
            };
            for (index, peer) in [(1, testpmd.name()), (2, ovs.name())] {
                rows.push(
                    Row::new(
                        Case::Sweep.name(),
                        format!("{name}, {kind} rings"),
                        "Mframes/s",
                        rates(0),
                    )
                    .against(peer, rates(index)),
                );
            }
        }
    }
    Ok(rows)
}

/// Measures 1 to 256 sending VFs of 256.
fn functions(bed: &Bed) -> Result<Vec<Row>> {
    let ours = Manifold::start(bed, 256, Protocol::VhostUser)?;
    let mut rows = Vec::new();
    for senders in VFS {
        if bed.pace.quick && senders != 16 {
            continue;
        }
        let traffic = Traffic { senders, window: functions::WINDOW, ..Traffic::size(60) };
        let mut rates = Samples::default();
        for _ in 0..bed.pace.rounds {
            rates.push(raw::run(bed, ours.ports(), traffic)?.frames_per_s / 1e6);
        }
        let case = format!("64 B, {senders} of 256 VFs sending");
        rows.push(Row::new(Case::Sweep.name(), case, "Mframes/s", rates));
    }
    Ok(rows)
}
