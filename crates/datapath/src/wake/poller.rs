//! This module is the epoll instance of a worker.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// The reason why a worker woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// Commands or kicks wait in the worker's mailbox, or frames from another worker.
    Mailbox,
    /// The uplink has frames.
    Uplink,
    /// The timeout has passed.
    Timer,
    /// The transmit queue in this slot was kicked.
    Queue(usize),
}

const MAILBOX: u64 = u64::MAX;
const UPLINK: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;

impl WakeReason {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            WakeReason::Mailbox => MAILBOX,
            WakeReason::Uplink => UPLINK,
            WakeReason::Timer => TIMER,
            WakeReason::Queue(slot) => slot as u64,
        })
    }

    fn from_data(data: u64) -> Self {
        match data {
            MAILBOX => WakeReason::Mailbox,
            UPLINK => WakeReason::Uplink,
            TIMER => WakeReason::Timer,
            slot => WakeReason::Queue(slot as usize),
        }
    }
}

/// The time for which a worker waits for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// The worker does not wait.
    Now,
    /// The worker waits until this time has passed.
    After(Duration),
    /// The worker waits until something happens.
    Never,
}

/// One worker's epoll instance, edge-triggered.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Timerfd for timeouts, because epoll itself counts in milliseconds.
    timer: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let poller = Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, timer };
        poller.add(&poller.timer, WakeReason::Timer)?;
        Ok(poller)
    }

    pub(crate) fn add(&self, fd: impl AsFd, reason: WakeReason) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, reason.data(), EventFlags::IN | EventFlags::ET)?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        // This fails only for a descriptor that is not registered, and every one is.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events and calls `each` with their reasons.
    pub(crate) fn wait(
        &self,
        timeout: Timeout,
        mut each: impl FnMut(WakeReason),
    ) -> io::Result<()> {
        const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = match timeout {
            Timeout::Now => Some(&ZERO),
            Timeout::Never => None,
            Timeout::After(time) => {
                // A time of zero would turn the timer off.
                let time = time.max(Duration::from_nanos(1));
                let it_value = Timespec {
                    tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: time.subsec_nanos().into(),
                };
                let once = Itimerspec { it_interval: ZERO, it_value };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
                None
            }
        };
        let mut room = [MaybeUninit::uninit(); 64];
        match epoll::wait(&self.epoll, &mut room, timeout) {
            Ok((events, _)) => {
                for event in events {
                    each(WakeReason::from_data(event.data.u64()));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
