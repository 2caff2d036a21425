//! This module measures throughput: decides how much each flow may send, and counts what arrives.

use crate::clock::Clock;
use crate::config::{Config, Flow, Load};
use crate::loopback::Loopback;
use crate::port::Port;
use crate::report::Cost;
use manifold_guest::Result;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// Milliseconds without movement after which a closed loop counts what was in flight as lost.
const LOST_AFTER_MS: u64 = 250;
/// Milliseconds to wait for a probe frame. One that takes longer was sent too soon.
const PROBE_MS: u64 = 10;
/// Pause between two polls for a probe frame. The device may need this processor to get ready.
const LOOK: Duration = Duration::from_micros(50);
/// Number of rounds without a frame before the generator yields its processor, which the device may
/// need. The number is large, because otherwise a device on a processor of its own would wait for
/// the scheduler.
const PATIENCE: u32 = 1000;
/// Microseconds after which a round is taken to have been interrupted by the scheduler. Such a
/// round is not the generator's cost.
const INTERRUPTED_US: u64 = 200;

/// A flow and what it has sent.
#[derive(Debug)]
struct Sender {
    flow: Flow,
    begun: u64,
    sent: u64,
    /// Cycles after which a frame that did not arrive is lost.
    lost_after: u64,
}

/// All flows, and the time that moving their frames took.
#[derive(Debug)]
pub(crate) struct Throughput {
    senders: Vec<Sender>,
    /// Index of the flow that sends first. It changes each round, because flows to one receiver
    /// share its window.
    first: usize,
    burst: u16,
    clock: Clock,
    interrupted: u64,
    loopback: Option<Loopback>,
    /// Cycles of rounds that moved frames, and the number of such rounds and frames.
    busy: u64,
    rounds: u64,
    frames: u64,
}

impl Throughput {
    pub(crate) fn new(config: &Config, clock: &Clock, loopback: Option<Loopback>) -> Self {
        let (begun, lost_after) = (clock.now(), clock.cycles(LOST_AFTER_MS));
        let sender = |flow: &Flow| Sender { flow: *flow, begun, sent: 0, lost_after };
        Self {
            senders: config.flows.iter().map(sender).collect(),
            first: 0,
            burst: config.burst.max(1),
            clock: clock.clone(),
            interrupted: clock.cycles(INTERRUPTED_US) / 1000,
            loopback,
            busy: 0,
            rounds: 0,
            frames: 0,
        }
    }

    /// Sends single frames of each closed loop until one arrives. A device that has answered every
    /// request of its protocol may still be about to start: then it loses what it is given, and of
    /// two ports one may be ready before the other. If nothing arrives at all, it returns after
    /// `patience` cycles, and the report shows it.
    pub(crate) fn wait_ready(&mut self, ports: &mut [Port<'_>], patience: u64) -> Result<()> {
        let begin = self.clock.now();
        let probe = self.clock.cycles(PROBE_MS);
        for index in 0..self.senders.len() {
            let Some(&Sender { flow, .. }) = self.senders.get(index) else { break };
            if !matches!(flow.load, Load::Closed(1..)) {
                continue;
            }
            let mut arrived = false;
            while !arrived && self.clock.now().wrapping_sub(begin) < patience {
                let now = self.clock.now();
                // Frames that the device has not even taken are not lost.
                let taken = |port: &mut Port<'_>| port.has_sent_all(flow.queue);
                if ports.get_mut(flow.from).map_or(Ok(false), taken)?
                    && let Some(sender) = self.senders.get_mut(index)
                {
                    sender.send(ports, 1, now, &self.clock)?;
                }
                ring_doorbells(ports)?;
                while !arrived && self.clock.now().wrapping_sub(now) < probe {
                    if let Some(loopback) = &mut self.loopback {
                        loopback.pump()?;
                    }
                    self.receive(ports, self.clock.now())?;
                    ring_doorbells(ports)?;
                    arrived = ports.get(flow.to).is_none_or(|port| port.last_arrival > now);
                    if !arrived {
                        std::thread::sleep(LOOK);
                    }
                }
                if let Some(port) = ports.get_mut(flow.to) {
                    port.outstanding = 0;
                }
            }
        }
        Ok(())
    }

    /// Sends and receives for at least `cycles` cycles. Returns how many it took and what they were
    /// used for.
    pub(crate) fn run(&mut self, ports: &mut [Port<'_>], cycles: u64) -> Result<(u64, Cost)> {
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

    /// Has every port receive once, then every flow send once. What arrived makes room in windows,
    /// so that one barrier serves both directions.
    #[inline]
    fn round(&mut self, ports: &mut [Port<'_>], now: u64) -> Result<u64> {
        let mut moved = self.receive(ports, now)?;
        let (later, sooner) = self.senders.split_at_mut_checked(self.first).unwrap_or_default();
        for sender in sooner.iter_mut().chain(later) {
            moved += sender.send(ports, self.burst, now, &self.clock)?;
        }
        self.first = if self.first + 1 < self.senders.len() { self.first + 1 } else { 0 };
        ring_doorbells(ports)?;
        Ok(moved)
    }

    /// Has every port receive once.
    #[inline]
    fn receive(&self, ports: &mut [Port<'_>], now: u64) -> Result<u64> {
        let mut moved = 0;
        for port in ports {
            let received = port.receive(self.burst)?;
            if received > 0 {
                port.outstanding = port.outstanding.saturating_sub(received);
                port.last_arrival = now;
                moved += received;
            }
        }
        Ok(moved)
    }
}

/// Rings the doorbells that the devices want rung.
#[inline]
fn ring_doorbells(ports: &mut [Port<'_>]) -> Result<()> {
    if ports.iter().any(Port::has_posted) {
        // Everything published must be visible before the devices' event suppression is read.
        fence(Ordering::SeqCst);
        ports.iter_mut().try_for_each(Port::ring_doorbells)?;
    }
    Ok(())
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
            // This is checked here, and not where nothing moves, because the other direction may be
            // busy.
            if matches!(self.flow.load, Load::Closed(_))
                && let Some(receiver) = ports.get_mut(self.flow.to)
                && now.wrapping_sub(receiver.last_arrival) > self.lost_after
            {
                receiver.lost += std::mem::take(&mut receiver.outstanding);
                receiver.last_arrival = now;
            }
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
