//! A worker thread: polls what is busy, sleeps when nothing is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Clock;
use crate::handle::Shared;
use crate::meter::Meter;
use crate::poll::{Limit, Wake};
use crate::queues::Queues;
use crate::window::Window;

/// Microseconds between two looks at the kicks of the queues that are not polled: they cost a system call.
const INTERVAL: u64 = 25;
/// Deliveries after which the worker looks earlier than that: a round of broadcasts to 256 functions takes milliseconds.
const WORK_PER_LOOK: usize = 1024;

pub(crate) struct Worker {
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    clock: Clock,
    queues: Queues,
    window: Window,
    /// Ticks between two looks.
    interval: u64,
    woken: Vec<Wake>,
    kicked: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        meter: Arc<Meter>,
        clock: Clock,
        queues: Queues,
    ) -> Self {
        let window = Window::new(&clock);
        let interval = clock.ticks(INTERVAL);
        let (woken, kicked) = (Vec::new(), Vec::new());
        Worker { shared, meter, clock, queues, window, interval, woken, kicked }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut begun = self.clock.now();
        let (mut moved_last, mut looked_last) = (begun, begun);
        loop {
            // Mostly false, and a load costs nothing.
            if self.shared.pending.load(Ordering::Relaxed)
                && self.shared.pending.swap(false, Ordering::Acquire)
                && !self.requests()
            {
                return;
            }
            let moved = self.queues.poll(begun, self.window.ticks());
            let now = self.clock.now();
            self.queues.interrupts(now);
            let spent = now.saturating_sub(begun);
            begun = now;
            if moved {
                moved_last = now;
                self.meter.busy.add(spent);
            } else {
                self.meter.idle.add(spent);
            }
            let idle = !moved
                && self.queues.is_quiet()
                && now.saturating_sub(moved_last) >= self.window.ticks();
            let looked = if idle {
                self.sleep(now)
            } else if (now.saturating_sub(looked_last) > self.interval
                || self.queues.work >= WORK_PER_LOOK)
                && self.queues.is_partly_quiet()
            {
                looked_last = now;
                self.queues.work = 0;
                self.look(Limit::Now)
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
        let (shared, queues) = (Arc::clone(&self.shared), &self.queues);
        let sleeper = &shared.doorbell.sleeper;
        if !sleeper.doze(|| !shared.pending.load(Ordering::Acquire) && queues.is_quiet()) {
            return Ok(());
        }
        self.meter.sleeps.add(1);
        let limit = match self.queues.next_interrupt() {
            Some(due) => {
                let ticks = due.saturating_sub(now);
                Limit::After(Duration::from_nanos(self.clock.nanos(ticks)))
            }
            None => Limit::Never,
        };
        let result = self.look(limit);
        sleeper.awake();
        if limit == Limit::Never {
            self.window.slept(self.clock.now().saturating_sub(now));
        }
        result
    }

    /// Looks at what was kicked, waiting at most so long.
    fn look(&mut self, limit: Limit) -> io::Result<()> {
        let woken = &mut self.woken;
        woken.clear();
        self.queues.poller.wait(limit, |wake| woken.push(wake))?;
        for wake in woken.drain(..) {
            match wake {
                Wake::Command => self.shared.doorbell.bell.clear(),
                Wake::Timer => {}
                Wake::Uplink => self.queues.wake_uplink(),
                Wake::Queue(slot) => self.queues.activate(slot),
            }
        }
        Ok(())
    }

    /// Does what is asked; false: stop.
    fn requests(&mut self) -> bool {
        loop {
            let Some((command, done)) = self.shared.commands.lock().waiting.pop_front() else {
                break;
            };
            if !self.queues.carry_out(command, done) {
                return false;
            }
        }
        std::mem::swap(&mut self.kicked, &mut *self.shared.kicked.lock());
        for slot in self.kicked.drain(..) {
            self.queues.activate(slot);
        }
        true
    }
}
