//! This case compares frames of 64 KiB that no one segments with one memcpy of the same bytes.

use anyhow::{Context, Result};
use manifold_generator::config::{Frames, Protocol};

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::peers::manifold::Manifold;
use crate::bench::peers::{Switch, halt, memcpy, resume};
use crate::bench::raw::{self, Traffic};
use crate::bench::row::{Reach, Row};
use crate::bench::stats::Samples;

/// Length in bytes of the largest IP packet and its Ethernet header.
const BYTES: u32 = 65_535 + 14;
/// Length in bytes of the TCP payload of a segment at an MTU of 1500, with the timestamp option.
const MSS: u16 = 1448;
/// Number of frames in flight each way; with the ring's size of buffers to go through, this does
/// not shrink the working set.
const WINDOW: u32 = 64;
/// Number of buffers of a ring, which are used in turn.
const BUFFERS: usize = 256;

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let ours = Manifold::start(bed, 2, Protocol::VhostUser)?;
    let traffic = Traffic {
        frames: Frames::Tso { bytes: BYTES, mss: MSS },
        window: WINDOW,
        ..Traffic::size(60)
    };
    let (mut frames, mut copies) = (Samples::default(), Samples::default());
    for _ in 0..bed.pace.rounds {
        resume(&ours)?;
        let report = raw::run(bed, ours.ports(), traffic)?;
        frames.push(report.bits_per_s / 8e9);
        halt(&ours)?;
        // Each of two directions has a ring of buffers.
        let bytes = usize::try_from(BYTES).context("a frame does not fit memory")?;
        copies.push(memcpy::copy_rate(bed, bytes, 2 * BUFFERS)? / 1e9);
    }
    resume(&ours)?;
    Ok(vec![
        Row::new(Case::Tso.name(), "64 KiB TSO frames, raw generator", "GB/s", frames)
            .against("memcpy", copies)
            .reach(Reach::AtLeast(0.8)),
    ])
}
