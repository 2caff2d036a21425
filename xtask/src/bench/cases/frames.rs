//! These cases use our generator over vhost-user, the same for every switch: 64-byte and 1518-byte
//! frames.

use anyhow::Result;
use manifold_generator::config::Protocol;

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::peers::ovs::OpenVswitch;
use crate::bench::peers::testpmd::TestpmdSwitch;
use crate::bench::raw::{self, Traffic};
use crate::bench::row::{Reach, Row};
use crate::bench::stats::Samples;

/// Length in bytes of a frame that is 64 bytes on a wire, without its FCS.
const SMALL: u32 = 60;
/// Length in bytes of a frame that is 1,518 bytes on a wire, without its FCS.
const LARGE: u32 = 1514;
const FRAMES: &str = "Mframes/s";
const CYCLES: &str = "cycles/frame";

/// Takes one sample of one switch.
struct Sample {
    /// Rate in million frames per second.
    rate: f64,
    /// Cycles of the worker per frame, where the switch tells them.
    cycles: Option<f64>,
    /// Part of the time that the generator was at work.
    generator_busy: f64,
}

fn measure(bed: &Bed, switch: &mut dyn Switch, traffic: Traffic) -> Result<Sample> {
    let ports = switch.ports().to_vec();
    switch.reset_cycles()?;
    let report = raw::run(bed, &ports, traffic)?;
    Ok(Sample {
        rate: report.frames_per_s / 1e6,
        cycles: switch.cycles_per_frame()?,
        generator_busy: report.generator.busy,
    })
}

fn rates(samples: &[Sample]) -> Samples {
    samples.iter().map(|sample| sample.rate).collect()
}

/// Measures against testpmd io and OVS-DPDK, with cycles per frame and by stage.
pub(super) fn small(bed: &Bed) -> Result<Vec<Row>> {
    let group = Case::Raw64.name();
    let mut ours = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let mut testpmd = TestpmdSwitch::start(bed)?;
    let mut ovs = OpenVswitch::start(bed)?;
    let traffic = Traffic::size(SMALL);
    let samples = bed.interleave(&mut [&mut ours, &mut testpmd, &mut ovs], |switch| {
        measure(bed, switch, traffic)
    })?;
    let [our, its, ovs_] = samples.as_slice() else { return Ok(Vec::new()) };
    let busy: Samples = our.iter().map(|sample| sample.generator_busy).collect();
    let case = "64 B, raw generator";
    let mut rows = vec![
        Row::new(group, case, FRAMES, rates(our))
            .against(testpmd.name(), rates(its))
            .reach(Reach::AtLeast(1.5))
            .note(format!(
                "{case}: the generator was at work {:.0} % of the time (above 95 % it is the \
                 limit, not the worker)",
                100.0 * busy.median()
            )),
        Row::new(group, case, FRAMES, rates(our))
            .against(ovs.name(), rates(ovs_))
            .reach(Reach::AtLeast(2.5)),
    ];
    let cycles = |samples: &[Sample]| samples.iter().filter_map(|sample| sample.cycles).collect();
    rows.push(
        Row::new(group, format!("{case}: worker"), CYCLES, cycles(our))
            .against(ovs.name(), cycles(ovs_)),
    );
    // The stages are those of the last round, which is as good as any.
    for (stage, cycles) in ours.work()?.stages() {
        let cycles = std::iter::once(cycles).collect();
        rows.push(Row::new(group, format!("{case}: stage {stage}"), CYCLES, cycles));
    }
    Ok(rows)
}

/// Measures large frames against testpmd io.
pub(super) fn large(bed: &Bed) -> Result<Vec<Row>> {
    let group = Case::Raw1518.name();
    let mut ours = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let mut testpmd = TestpmdSwitch::start(bed)?;
    let mut ovs = OpenVswitch::start(bed)?;
    let traffic = Traffic::size(LARGE);
    let samples = bed.interleave(&mut [&mut ours, &mut testpmd, &mut ovs], |switch| {
        measure(bed, switch, traffic)
    })?;
    let [our, its, ovs_] = samples.as_slice() else { return Ok(Vec::new()) };
    let case = "1518 B, raw generator";
    Ok(vec![
        Row::new(group, case, FRAMES, rates(our))
            .against(testpmd.name(), rates(its))
            .reach(Reach::AtLeast(1.5)),
        Row::new(group, case, FRAMES, rates(our)).against(ovs.name(), rates(ovs_)),
    ])
}
