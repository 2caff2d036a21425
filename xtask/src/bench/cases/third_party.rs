//! This case uses testpmd over virtio-user as generator, the same for every switch. It saturates
//! before a good switch does, so what tells is the worker's cycles per frame.

use anyhow::Result;
use manifold_generator::config::Protocol;

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::peers::ovs::OpenVswitch;
use crate::bench::peers::testpmd::{self, Load, TestpmdSwitch};
use crate::bench::row::{Reach, Row};
use crate::bench::stats::Samples;

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let mut ours = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let mut testpmd = TestpmdSwitch::start(bed)?;
    let mut ovs = OpenVswitch::start(bed)?;
    let mut rows = Vec::new();
    let split = Load { bytes: 60, packed: false, queue_size: 256 };
    rows.extend(compare(bed, &mut ours, &mut testpmd, &mut ovs, "split rings", split)?);
    if !bed.pace.quick {
        let packed = Load { packed: true, ..split };
        rows.extend(compare(bed, &mut ours, &mut testpmd, &mut ovs, "packed rings", packed)?);
    }
    Ok(rows)
}

fn compare(
    bed: &Bed,
    ours: &mut Manifold,
    testpmd: &mut TestpmdSwitch,
    ovs: &mut OpenVswitch<'_>,
    rings: &str,
    load: Load,
) -> Result<[Row; 3]> {
    let group = Case::Testpmd64.name();
    let samples = bed.interleave(&mut [ours, testpmd, ovs], |switch| {
        let rate = testpmd::generate(bed, switch, load)?;
        Ok((rate / 1e6, switch.cycles_per_frame()?))
    })?;
    let rates = |index: usize| -> Samples {
        samples.get(index).into_iter().flatten().map(|(rate, _)| *rate).collect()
    };
    let cycles = |index: usize| -> Samples {
        samples.get(index).into_iter().flatten().filter_map(|(_, cycles)| *cycles).collect()
    };
    let case = format!("64 B, testpmd generator, {rings}");
    Ok([
        Row::new(group, case.clone(), "Mframes/s", rates(0))
            .against(testpmd.name(), rates(1))
            .reach(Reach::AtLeast(1.0)),
        Row::new(group, format!("{case}: worker"), "cycles/frame", cycles(0))
            .against(ovs.name(), cycles(2))
            .reach(Reach::AtMost(0.5)),
        Row::new(group, case, "Mframes/s", rates(0)).against(ovs.name(), rates(2)),
    ])
}
