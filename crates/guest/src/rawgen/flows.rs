//! Flows: who may send how much, and how many arrive.

use super::clock::Clock;
use super::config::{Config, Flow, Load};
use super::loopback::Loopback;
use super::port::Port;
use super::report::Cost;
use crate::Result;
use std::sync::atomic::{Ordering, fence};

/// A closed loop in which nothing moves for this many milliseconds has lost what was in flight.
const LOST_AFTER_MS: u64 = 250;
/// Rounds without a frame before the processor is given up for a moment: whoever is to move the frames may
/// need this very one. Many, for else a device on a processor of its own waits for the scheduler.
const PATIENCE: u32 = 1000;
/// A round that took longer, in microseconds, was interrupted by the scheduler, which is not the generator's
/// cost.
const INTERRUPTED_US: u64 = 200;

/// A flow at work.
#[derive(Debug)]
struct Sender {
    flow: Flow,
    begun: u64,
    sent: u64,
}

/// All flows, and what moving their frames took.
#[derive(Debug)]
pub(super) struct Flows {
    senders: Vec<Sender>,
    /// Who sends first: another one each round, for flows to one receiver share its window.
    first: usize,
    burst: u16,
    clock: Clock,
    lost_after: u64,
    interrupted: u64,
    loopback: Option<Loopback>,
    /// Cycles of rounds that moved frames, and how many such rounds and frames there were.
    busy: u64,
    rounds: u64,
    frames: u64,
}

impl Flows {
    pub(super) fn new(config: &Config, clock: &Clock, loopback: Option<Loopback>) -> Self {
        let begun = clock.now();
        let sender = |flow: &Flow| Sender { flow: *flow, begun, sent: 0 };
        Self {
            senders: config.flows.iter().map(sender).collect(),
            first: 0,
            burst: config.burst.max(1),
            clock: clock.clone(),
            lost_after: clock.cycles(LOST_AFTER_MS),
            interrupted: clock.cycles(INTERRUPTED_US) / 1000,
            loopback,
            busy: 0,
            rounds: 0,
            frames: 0,
        }
    }

    /// Sends and receives for so many cycles, and tells how many it were and what they were used for.
    pub(super) fn run(&mut self, ports: &mut [Port<'_>], cycles: u64) -> Result<(u64, Cost)> {
        (self.busy, self.rounds, self.frames) = (0, 0, 0);
        let begin = self.clock.now();
        let (mut now, mut outside, mut idle) = (begin, 0, 0);
        while now.wrapping_sub(begin) < cycles {
            let moved = self.round(ports, now)?;
            let end = self.clock.now();
            if moved > 0 {
                let took = end.wrapping_sub(now);
                if took < self.interrupted {
                    self.busy += took;
                    self.rounds += 1;
                    self.frames += moved;
                } else {
                    outside += took;
                }
                idle = 0;
            } else {
                idle += 1;
                if idle > PATIENCE {
                    idle = 0;
                    rustix::thread::sched_yield();
                    self.give_up_lost(ports, end);
                } else {
                    std::hint::spin_loop();
                }
            }
            now = end;
            if let Some(loopback) = &mut self.loopback {
                loopback.pump()?;
                now = self.clock.now();
                outside += now.wrapping_sub(end);
            }
        }
        let all = now.wrapping_sub(begin);
        let frames = self.frames.max(1) as f64;
        let cost = Cost {
            ns_per_frame: self.clock.ns(self.busy) / frames,
            cycles_per_frame: self.busy as f64 / frames,
            busy: self.busy as f64 / (all - outside).max(1) as f64,
            frames_per_round: self.frames as f64 / self.rounds.max(1) as f64,
        };
        Ok((all, cost))
    }

    /// Every port receives once, then every flow sends once: what arrived makes room in windows, so that one barrier does
    /// for both directions.
    #[inline]
    fn round(&mut self, ports: &mut [Port<'_>], now: u64) -> Result<u64> {
        let mut moved = 0;
        for port in ports.iter_mut() {
            let received = port.receive(self.burst)?;
            if received > 0 {
                port.outstanding = port.outstanding.saturating_sub(received);
                port.last_arrival = now;
                moved += received;
            }
        }
        let (later, sooner) = self.senders.split_at_mut_checked(self.first).unwrap_or_default();
        for sender in sooner.iter_mut().chain(later) {
            moved += sender.send(ports, self.burst, now, &self.clock)?;
        }
        self.first = if self.first + 1 < self.senders.len() { self.first + 1 } else { 0 };
        if ports.iter().any(Port::is_unsettled) {
            // What was published must be visible before the devices' wishes are read.
            fence(Ordering::SeqCst);
            ports.iter_mut().try_for_each(Port::settle)?;
        }
        Ok(moved)
    }

    fn give_up_lost(&self, ports: &mut [Port<'_>], now: u64) {
        for port in ports {
            if port.outstanding > 0 && now.wrapping_sub(port.last_arrival) > self.lost_after {
                port.lost += port.outstanding;
                port.outstanding = 0;
                port.last_arrival = now;
            }
        }
    }
}

impl Sender {
    /// Sends at most a burst, as the load allows.
    #[inline]
    fn send(&mut self, ports: &mut [Port<'_>], burst: u16, now: u64, clock: &Clock) -> Result<u64> {
        let Some(receiver) = ports.get(self.flow.to) else { return Ok(0) };
        let most = u64::from(burst);
        let allowed = match self.flow.load {
            Load::Open => most,
            Load::Rate(rate) => {
                let due = now.wrapping_sub(self.begun) as f64 / clock.hz() * rate as f64;
                (due as u64).saturating_sub(self.sent).min(most)
            }
            Load::Closed(window) => {
                u64::from(window).saturating_sub(receiver.outstanding).min(most)
            }
        };
        if allowed == 0 {
            return Ok(0);
        }
        let Some(sender) = ports.get_mut(self.flow.from) else { return Ok(0) };
        let sent = u64::from(sender.send(self.flow.queue, allowed as u16)?);
        self.sent += sent;
        if sent > 0
            && matches!(self.flow.load, Load::Closed(_))
            && let Some(receiver) = ports.get_mut(self.flow.to)
        {
            if receiver.outstanding == 0 {
                receiver.last_arrival = now;
            }
            receiver.outstanding += sent;
        }
        Ok(sent)
    }
}
