//! This module finds how undisturbed the two processors are. On a machine that others use too, or a
//! virtual one whose host is busy, all figures suffer, and not all alike; so the result says how it
//! was.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use super::cores::Cores;
use super::stats::Samples;

/// The disturbances of the processors, found before anything ran on them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quiet {
    /// Time in nanoseconds for a cache line from the generator's processor to the worker's and
    /// back.
    pub(crate) core_to_core_ns: f64,
    /// Part of the worker's processor, in percent, that a thread which never waits did not get.
    pub(crate) lost_percent: f64,
}

impl Quiet {
    /// Largest part in percent that may be lost without a warning.
    const MUCH_LOST: f64 = 2.0;

    pub(crate) fn look(cores: Cores) -> Result<Self> {
        let quiet = Self { core_to_core_ns: round_trip(cores)?, lost_percent: lost(cores.worker)? };
        if quiet.lost_percent > Self::MUCH_LOST {
            eprintln!(
                "xtask: processor {} is busy with something else for {:.0} % of its time: do not \
                 trust these figures",
                cores.worker, quiet.lost_percent
            );
        }
        Ok(quiet)
    }
}

/// Returns the median of several batches, in nanoseconds.
fn round_trip(cores: Cores) -> Result<f64> {
    const BATCHES: u32 = 20;
    const TRIPS: u32 = 5000;
    const LAST: u32 = 2 * BATCHES * TRIPS;
    // An odd number is to be answered. The answer is the next even number.
    let ball = Arc::new(AtomicU32::new(0));
    let theirs = Arc::clone(&ball);
    let answering = on(cores.worker, move || {
        let mut seen = 0;
        while seen < LAST {
            let now = theirs.load(Ordering::Acquire);
            if now % 2 == 1 {
                seen = now + 1;
                theirs.store(seen, Ordering::Release);
            } else {
                spin_loop();
            }
        }
    });
    let asking = on(cores.generator, move || {
        let mut batches = Samples::default();
        for batch in 0..BATCHES {
            let begin = Instant::now();
            for trip in 0..TRIPS {
                let ask = 2 * (batch * TRIPS + trip) + 1;
                ball.store(ask, Ordering::Release);
                while ball.load(Ordering::Acquire) != ask + 1 {
                    spin_loop();
                }
            }
            batches.push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS));
        }
        batches.median()
    });
    let time = joined(asking)?;
    joined(answering)?;
    Ok(time)
}

/// Returns the percentage of time lost: it looks at the clock all the time, and a long step is lost
/// time.
fn lost(core: usize) -> Result<f64> {
    const TIME: Duration = Duration::from_millis(300);
    const STEP: Duration = Duration::from_micros(20);
    joined(on(core, || {
        let begin = Instant::now();
        let (mut last, mut lost) = (begin, Duration::ZERO);
        while last - begin < TIME {
            let now = Instant::now();
            if now - last > STEP {
                lost += now - last;
            }
            last = now;
        }
        100.0 * lost.as_secs_f64() / (last - begin).as_secs_f64()
    }))
}

/// Runs `work` on one processor.
fn on<T: Send + 'static>(
    core: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<Result<T>> {
    thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).context("cannot stay on one processor")?;
        Ok(work())
    })
}

fn joined<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a measuring thread panicked"))?
}
