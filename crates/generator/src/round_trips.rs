//! This module measures round trips of a single frame.
//!
//! ```text
//!   port 0 ── frame ──► device ──► port 1       time from giving the frame to the device
//!      ▲                             │          until its answer is seen
//!      └─────── device ◄── answer ───┘
//! ```

use crate::clock::Clock;
use crate::config::Work;
use crate::port::Port;
use crate::report::Latency;
use manifold_guest::{Error, Result};
use std::os::fd::RawFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Milliseconds after which a frame is lost.
const LOST_AFTER_MS: u64 = 200;
/// Number of polls before the generator yields its processor, which the device may need.
const PATIENCE: u32 = 20_000;
/// Largest number of round trips that are kept.
const KEPT: usize = 1 << 24;

/// The way in which a port waits for frames.
enum Wait {
    Poll,
    Interrupt([Epoll; 2]),
}

/// Round trips between two ports.
pub(crate) struct RoundTrips {
    clock: Clock,
    pause: Option<Duration>,
    wait: Wait,
    lost_after: u64,
}

impl RoundTrips {
    pub(crate) fn new(work: Work, ports: &[Port<'_>], clock: &Clock) -> Result<Self> {
        let [a, b] = ports else {
            return Err(Error::Command(format!(
                "round trips take two ports, there are {}",
                ports.len()
            )));
        };
        let (pause, interrupts) = match work {
            Work::Sleeping { pause_us, interrupts } => {
                (Some(Duration::from_micros(pause_us)), interrupts)
            }
            _ => (None, false),
        };
        let wait = match interrupts {
            true => Wait::Interrupt([watch(&a.interrupts())?, watch(&b.interrupts())?]),
            false => Wait::Poll,
        };
        let lost_after = clock.cycles(LOST_AFTER_MS);
        Ok(Self { clock: clock.clone(), pause, wait, lost_after })
    }

    /// Makes round trips for at least `cycles` cycles. Returns how many cycles it took.
    pub(crate) fn run(&self, ports: &mut [Port<'_>], cycles: u64) -> Result<(u64, Latency)> {
        let [a, b] = ports else { return Ok((0, Latency::default())) };
        let (mut trips, mut lost) = (Vec::new(), 0);
        let begin = self.clock.now();
        loop {
            if let Some(pause) = self.pause {
                std::thread::sleep(pause);
            }
            let sent = self.clock.now();
            if sent.wrapping_sub(begin) >= cycles || trips.len() == KEPT {
                return Ok((sent.wrapping_sub(begin), summary(&self.clock, trips, lost)));
            }
            if self.deliver(a, b, 1)? && self.deliver(b, a, 0)? {
                trips.push(self.clock.now().wrapping_sub(sent));
            } else {
                lost += 1;
                // A late frame must not be taken for the next one.
                std::thread::sleep(Duration::from_millis(2));
                while a.receive(u16::MAX)? + b.receive(u16::MAX)? > 0 {}
                fence(Ordering::SeqCst);
                a.ring_doorbells()?;
                b.ring_doorbells()?;
            }
        }
    }

    /// Sends a frame and waits for it at `to`, port `receiver`. Returns false if it does not come.
    fn deliver(&self, from: &mut Port<'_>, to: &mut Port<'_>, receiver: usize) -> Result<bool> {
        if from.send(0, 1)? == 0 {
            return Ok(false);
        }
        fence(Ordering::SeqCst);
        from.ring_doorbells()?;
        let begin = self.clock.now();
        let mut looks = 0;
        loop {
            if to.receive(1)? > 0 {
                // The device need not be notified of the buffer now: the next send's barrier serves
                // both.
                return Ok(true);
            }
            looks += 1;
            if let Wait::Interrupt(epolls) = &self.wait {
                if !to.arm()
                    && let Some(epoll) = epolls.get(receiver)
                {
                    sleep(epoll)?;
                }
                to.disarm();
            } else if looks % PATIENCE == 0 {
                rustix::thread::sched_yield();
            } else {
                std::hint::spin_loop();
            }
            if self.clock.now().wrapping_sub(begin) > self.lost_after {
                return Ok(false);
            }
        }
    }
}

fn watch(fds: &[RawFd]) -> Result<Epoll> {
    let failed = |e| Error::io("watching interrupts", e);
    let epoll = Epoll::new().map_err(failed)?;
    for fd in fds {
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, *fd, event).map_err(failed)?;
    }
    Ok(epoll)
}

fn sleep(epoll: &Epoll) -> Result<()> {
    let mut events = [EpollEvent::default()];
    match epoll.wait(LOST_AFTER_MS as i32, &mut events) {
        Err(e) if e.kind() != std::io::ErrorKind::Interrupted => {
            Err(Error::io("waiting for an interrupt", e))
        }
        _ => Ok(()),
    }
}

/// Computes percentiles by the nearest rank.
fn summary(clock: &Clock, mut trips: Vec<u64>, lost: u64) -> Latency {
    trips.sort_unstable();
    let ns = |cycles: Option<&u64>| cycles.map_or(0, |cycles| clock.ns(*cycles).round() as u64);
    let rank = |part: f64| (trips.len() as f64 * part).ceil() as usize;
    let percentile = |part: f64| ns(trips.get(rank(part).saturating_sub(1)));
    let sum: u64 = trips.iter().sum();
    Latency {
        count: trips.len() as u64,
        min_ns: ns(trips.first()),
        mean_ns: clock.ns(sum) / trips.len().max(1) as f64,
        p50_ns: percentile(0.5),
        p99_ns: percentile(0.99),
        p999_ns: percentile(0.999),
        max_ns: ns(trips.last()),
        lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let clock = Clock::new();
        let cycles = |ns: u64| (ns as f64 * clock.hz() * 1e-9).round() as u64;
        let trips = (1..=1000).rev().map(|n| cycles(n * 1000)).collect();
        let latency = summary(&clock, trips, 3);
        assert_eq!((latency.count, latency.lost), (1000, 3));
        for (found, ns) in [
            (latency.min_ns, 1000),
            (latency.p50_ns, 500_000),
            (latency.p99_ns, 990_000),
            (latency.p999_ns, 999_000),
            (latency.max_ns, 1_000_000),
        ] {
            assert!(found.abs_diff(ns) < 3, "{latency:?}");
        }
        assert_eq!(summary(&clock, Vec::new(), 0), Latency::default());
    }
}
