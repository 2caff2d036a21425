//! A worker thread polls what is busy, and sleeps when nothing is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::commands::Command;
use super::mailbox::Mailbox;
use super::queues::Queues;
use super::window::Window;
use crate::clock::Clock;
use crate::stages::WorkerCounters;
use crate::wake::poller::{Timeout, WakeReason};

/// Microseconds between two checks of the kicks of queues that are not polled. A check is a system
/// call.
const LOOK_INTERVAL: u64 = 25;
/// Number of deliveries after which the worker checks even earlier. A round of broadcasts to 256
/// functions takes milliseconds.
const WORK_PER_LOOK: usize = 1024;

pub(crate) struct Worker {
    mailbox: Arc<Mailbox<Command>>,
    counters: Arc<WorkerCounters>,
    clock: Clock,
    queues: Queues,
    window: Window,
    /// Ticks between two checks.
    interval: u64,
    woken: Vec<WakeReason>,
    kicked: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(
        mailbox: Arc<Mailbox<Command>>,
        counters: Arc<WorkerCounters>,
        clock: Clock,
        queues: Queues,
    ) -> Self {
        let window = Window::new(&clock);
        let interval = clock.ticks(LOOK_INTERVAL);
        let (woken, kicked) = (Vec::new(), Vec::new());
        Worker { mailbox, counters, clock, queues, window, interval, woken, kicked }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut begun = self.clock.now();
        let (mut moved_last, mut looked_last) = (begun, begun);
        loop {
            if self.mailbox.take_filled() && !self.empty_mailbox() {
                return;
            }
            let moved = self.queues.poll(begun, self.window.ticks());
            let now = self.clock.now();
            self.queues.raise_due(now);
            let spent = now.saturating_sub(begun);
            begun = now;
            if moved {
                moved_last = now;
                self.counters.busy.add(spent);
            } else {
                self.counters.idle.add(spent);
            }
            let idle = !moved
                && self.queues.is_quiet()
                && now.saturating_sub(moved_last) >= self.window.ticks();
            let looked = if idle {
                self.sleep(now)
            } else if (now.saturating_sub(looked_last) > self.interval
                || self.queues.egress.work >= WORK_PER_LOOK)
                && self.queues.is_partly_quiet()
            {
                looked_last = now;
                self.queues.egress.work = 0;
                self.look(Timeout::Now)
            } else {
                continue;
            };
            if let Err(error) = looked {
                tracing::error!(%error, "a worker cannot wait for events");
                return;
            }
            begun = self.clock.now();
        }
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self, now: u64) -> io::Result<()> {
        let mailbox = Arc::clone(&self.mailbox);
        let sleeper = &mailbox.waker.sleeper;
        if !sleeper.try_sleep(|| !mailbox.is_filled() && self.queues.is_quiet()) {
            return Ok(());
        }
        self.counters.sleeps.add(1);
        let timeout = match self.queues.next_due() {
            Some(due) => {
                let ticks = due.saturating_sub(now);
                Timeout::After(Duration::from_nanos(self.clock.nanos(ticks)))
            }
            None => Timeout::Never,
        };
        let result = self.look(timeout);
        sleeper.woke();
        if timeout == Timeout::Never {
            self.window.slept(self.clock.now().saturating_sub(now));
        }
        result
    }

    /// Looks at what was kicked, waiting for it until `timeout`.
    fn look(&mut self, timeout: Timeout) -> io::Result<()> {
        let woken = &mut self.woken;
        woken.clear();
        self.queues.poller.wait(timeout, |reason| woken.push(reason))?;
        for reason in woken.drain(..) {
            match reason {
                WakeReason::Mailbox => self.mailbox.waker.clear(),
                WakeReason::Timer => {}
                WakeReason::Uplink => {
                    self.queues.uplink_active = self.queues.uplink.is_some();
                }
                WakeReason::Queue(slot) => self.queues.activate(slot),
            }
        }
        Ok(())
    }

    /// Carries out the commands and kicks that wait. Returns false if the worker is to stop.
    fn empty_mailbox(&mut self) -> bool {
        while let Some((command, reply)) = self.mailbox.next() {
            if !self.queues.carry_out(command, reply) {
                return false;
            }
        }
        self.mailbox.swap_kicked(&mut self.kicked);
        for slot in self.kicked.drain(..) {
            self.queues.activate(slot);
        }
        true
    }
}
