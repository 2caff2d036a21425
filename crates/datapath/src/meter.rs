//! Where a worker's time goes.

use std::sync::Arc;

use crate::clock::Clock;
use crate::counters::Counter;

/// What is done with a burst, in this order; the middle is repeated for each receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Descriptors of the transmit ring, and their translation.
    Take,
    /// The frames' heads, out of guest memory.
    Read,
    /// The switch's decision, spoofchk and VLAN handling, and steering to a queue pair.
    Classify,
    /// Descriptors of the receive ring, and their translation.
    Claim,
    /// The copy into the receiver's buffers.
    Copy,
    /// The receive ring's used entries, and the interrupt.
    Publish,
    /// The transmit ring's used entries, and the interrupt.
    Return,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 7] = [
        Stage::Take,
        Stage::Read,
        Stage::Classify,
        Stage::Claim,
        Stage::Copy,
        Stage::Publish,
        Stage::Return,
    ];

    /// A name for metrics and JSON.
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

/// One burst in so many is timed by stage, so that the timing itself does not count, not even for the hundredth frame that
/// had to wait longest.
const SAMPLE: u32 = 256;

/// One worker's counters.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Meter {
    pub(crate) busy: Counter,
    pub(crate) idle: Counter,
    pub(crate) frames: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) handed_over: Counter,
    sampled: Counter,
    stages: [Counter; Stage::ALL.len()],
}

/// What a worker has done since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// The processor it is pinned to.
    pub core: Option<usize>,
    /// Queue pairs it serves.
    pub pairs: usize,
    /// Ticks of the time-stamp counter per second.
    pub frequency: u64,
    /// Ticks of rounds that moved something.
    pub busy: u64,
    /// Ticks of rounds that found nothing to do. Asleep, none pass.
    pub idle: u64,
    /// Frames taken from transmit queues and the uplink.
    pub frames: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Frames handed to another worker.
    pub handed_over: u64,
    /// Frames of bursts that were timed by stage.
    pub sampled: u64,
    /// Ticks of those, by stage.
    pub stages: [(Stage, u64); Stage::ALL.len()],
}

impl Meter {
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
pub(crate) struct Laps {
    clock: Clock,
    meter: Arc<Meter>,
    bursts: u32,
    /// When the stage began, in a burst that is timed.
    since: Option<u64>,
}

impl Laps {
    pub(crate) fn new(clock: Clock, meter: Arc<Meter>) -> Self {
        Laps { clock, meter, bursts: 0, since: None }
    }

    /// A burst begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.bursts = self.bursts.wrapping_add(1);
        self.since = self.bursts.is_multiple_of(SAMPLE).then(|| self.clock.now());
    }

    /// A stage ends.
    #[inline]
    pub(crate) fn lap(&mut self, stage: Stage) {
        if let Some(since) = self.since {
            let now = self.clock.now();
            if let Some(counter) = self.meter.stages.get(stage as usize) {
                counter.add(now.saturating_sub(since));
            }
            self.since = Some(now);
        }
    }

    /// Frames go to another worker.
    pub(crate) fn handed_over(&self, frames: u32) {
        self.meter.handed_over.add(u64::from(frames));
    }

    /// The time.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The burst ends; it had so many frames.
    #[inline]
    pub(crate) fn end(&mut self, frames: usize) {
        self.meter.frames.add(frames as u64);
        if self.since.take().is_some() {
            self.meter.sampled.add(frames as u64);
        }
    }
}
