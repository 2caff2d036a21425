//! This module counts a worker's work, with its time by stage of a frame's way.

use std::sync::Arc;

use crate::clock::Clock;
use crate::counters::Counter;

/// A stage of a burst's way, in the order in which a burst passes them. `Claim`, `Copy` and
/// `Publish` are repeated for each receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Descriptors are taken from the transmit ring and translated.
    Take,
    /// The frames' headers are copied out of guest memory.
    Read,
    /// The switch decides, with spoofchk and VLAN filters, and RSS chooses queue pairs.
    Classify,
    /// Descriptors are taken from the receive ring and translated.
    Claim,
    /// The frames are copied into the receiver's buffers.
    Copy,
    /// The receive ring's used entries are published.
    Publish,
    /// The transmit ring's used entries are published, and drivers are interrupted.
    Return,
}

impl Stage {
    /// Lists all stages in order.
    pub const ALL: [Stage; 7] = [
        Stage::Take,
        Stage::Read,
        Stage::Classify,
        Stage::Claim,
        Stage::Copy,
        Stage::Publish,
        Stage::Return,
    ];

    /// Returns a name for metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Take => "take",
            Stage::Read => "read",
            Stage::Classify => "classify",
            Stage::Claim => "claim",
            Stage::Copy => "copy",
            Stage::Publish => "publish",
            Stage::Return => "return",
        }
    }
}

/// Number of bursts of which one is timed by stage. The timing itself is then not seen even in the
/// slowest hundredth of the frames.
const SAMPLE: u32 = 256;

/// The counters of one worker, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCounters {
    pub(crate) busy: Counter,
    pub(crate) idle: Counter,
    pub(crate) frames: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) handed_over: Counter,
    sampled: Counter,
    stages: [Counter; Stage::ALL.len()],
}

/// A snapshot of what a worker has done since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Processor that the worker is pinned to.
    pub core: Option<usize>,
    /// Number of queue pairs that the worker serves.
    pub pairs: usize,
    /// Number of ticks of the time-stamp counter per second.
    pub frequency: u64,
    /// Number of ticks of rounds that moved something.
    pub busy: u64,
    /// Number of ticks of rounds that found nothing to do. Time asleep is not counted.
    pub idle: u64,
    /// Number of frames taken from transmit queues and the uplink.
    pub frames: u64,
    /// Number of times that the worker went to sleep.
    pub sleeps: u64,
    /// Number of frames handed to another worker.
    pub handed_over: u64,
    /// Number of frames of bursts that were timed by stage.
    pub sampled: u64,
    /// Number of ticks of the timed bursts, by stage.
    pub stages: [(Stage, u64); Stage::ALL.len()],
}

impl WorkerCounters {
    pub(crate) fn snapshot(
        &self,
        core: Option<usize>,
        pairs: usize,
        clock: &Clock,
    ) -> WorkerSnapshot {
        let mut stages = Stage::ALL.map(|stage| (stage, 0));
        for ((_, value), counter) in stages.iter_mut().zip(&self.stages) {
            *value = counter.get();
        }
        WorkerSnapshot {
            core,
            pairs,
            frequency: clock.frequency(),
            busy: self.busy.get(),
            idle: self.idle.get(),
            frames: self.frames.get(),
            sleeps: self.sleeps.get(),
            handed_over: self.handed_over.get(),
            sampled: self.sampled.get(),
            stages,
        }
    }
}

/// Times the stages of some bursts.
#[derive(Debug)]
pub(crate) struct StageTimer {
    clock: Clock,
    counters: Arc<WorkerCounters>,
    bursts: u32,
    /// Time at which the present stage began, if the present burst is timed.
    since: Option<u64>,
}

impl StageTimer {
    pub(crate) fn new(clock: Clock, counters: Arc<WorkerCounters>) -> Self {
        StageTimer { clock, counters, bursts: 0, since: None }
    }

    /// Begins a burst.
    #[inline]
    pub(crate) fn begin_burst(&mut self) {
        self.bursts = self.bursts.wrapping_add(1);
        self.since = self.bursts.is_multiple_of(SAMPLE).then(|| self.clock.now());
    }

    /// Ends a stage; the next one begins.
    #[inline]
    pub(crate) fn end_stage(&mut self, stage: Stage) {
        if let Some(since) = self.since {
            let now = self.clock.now();
            if let Some(counter) = self.counters.stages.get(stage as usize) {
                counter.add(now.saturating_sub(since));
            }
            self.since = Some(now);
        }
    }

    /// Counts frames that go to another worker.
    pub(crate) fn handed_over(&self, frames: u32) {
        self.counters.handed_over.add(u64::from(frames));
    }

    /// Returns the time in ticks.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Ends a burst of `frames` frames.
    #[inline]
    pub(crate) fn end_burst(&mut self, frames: usize) {
        self.counters.frames.add(frames as u64);
        if self.since.take().is_some() {
            self.counters.sampled.add(frames as u64);
        }
    }
}
