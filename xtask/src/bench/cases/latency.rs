//! These cases measure round trips of a single frame, from port 0 to port 1 and back: through a
//! worker that polls, and to a receiver that sleeps behind a worker that may sleep too.

use anyhow::Result;
use manifold_generator::config::{Protocol, Work};
use manifold_generator::report::Latency;

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::peers::testpmd::TestpmdSwitch;
use crate::bench::raw;
use crate::bench::row::{Reach, Row};
use crate::bench::stats::Samples;

/// A percentile, as its name and how it is read from a report.
type Percentile = (&'static str, fn(&Latency) -> u64);
const PERCENTILES: [Percentile; 3] =
    [("p50", |l| l.p50_ns), ("p99", |l| l.p99_ns), ("p99.9", |l| l.p999_ns)];
/// Time in which a worker falls asleep.
const PAUSE_US: u64 = 1000;

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let group = Case::Latency.name();
    let mut ours = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let mut testpmd = TestpmdSwitch::start(bed)?;
    let samples = bed.interleave(&mut [&mut ours, &mut testpmd], |switch: &mut dyn Switch| {
        raw::round_trips(bed, switch.ports(), Work::PingPong)
    })?;
    let [our, its] = samples.as_slice() else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for (name, of) in PERCENTILES {
        let case = format!("round trip, polled: {name}");
        let row = Row::new(group, case, "us", microseconds(our, of))
            .against(testpmd.name(), microseconds(its, of));
        rows.push(if name == "p99.9" { row } else { row.reach(Reach::AtMost(1.0)) });
    }
    let mut sleeping = Vec::new();
    for _ in 0..bed.pace.rounds {
        let work = Work::Sleeping { pause_us: PAUSE_US, interrupts: true };
        sleeping.push(raw::round_trips(bed, ours.ports(), work)?);
    }
    for (name, of) in PERCENTILES {
        let case = format!("round trip, sleeping receiver, once per ms: {name}");
        rows.push(Row::new(group, case, "us", microseconds(&sleeping, of)));
    }
    Ok(rows)
}

fn microseconds(latencies: &[Latency], of: fn(&Latency) -> u64) -> Samples {
    latencies.iter().map(|latency| of(latency) as f64 / 1e3).collect()
}
