//! Sleeping and waking: eventfds and one epoll per worker.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// An eventfd that wakes a worker. Clones ring the same bell.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Bell(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    pub(crate) fn ring(&self) {
        // The only possible failure is a counter at its maximum, which has rung already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Resets the counter. The epoll below is edge-triggered, so this only keeps it from growing.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A transmit queue's doorbell. A VMM may hold the eventfd and signal it by itself; it may also make it blocking and fill
/// it up, so nobody here ever reads or writes it. Who wants to kick the queue calls
/// [`Datapath::kick`](crate::Datapath::kick).
#[derive(Clone, Debug)]
pub struct Kick(Arc<Doorbell>);

#[derive(Debug)]
struct Doorbell {
    fd: OwnedFd,
    /// The worker that serves the queue and its slot there; [`NOBODY`] while it is not served.
    place: AtomicU64,
}

const NOBODY: u64 = u64::MAX;

impl Kick {
    /// A new eventfd.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Kick::from_fd(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// A descriptor that becomes readable, anew, with each notification: an eventfd that a VMM brings along.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Kick(Arc::new(Doorbell { fd, place: AtomicU64::new(NOBODY) }))
    }

    /// The worker that serves the queue, and its slot there.
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        let place = self.0.place.load(Ordering::Acquire);
        (place != NOBODY).then_some(((place >> 32) as usize, place as u32 as usize))
    }

    pub(crate) fn set_place(&self, worker: usize, slot: usize) {
        self.0.place.store((worker as u64) << 32 | slot as u64, Ordering::Release);
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// What woke a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Commands or kicks are waiting.
    Command,
    /// The uplink has frames.
    Uplink,
    /// The time to wait is over.
    Timer,
    /// The transmit queue in this slot was kicked.
    Queue(usize),
}

const COMMAND: u64 = u64::MAX;
const UPLINK: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;

impl Wake {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Wake::Command => COMMAND,
            Wake::Uplink => UPLINK,
            Wake::Timer => TIMER,
            Wake::Queue(slot) => slot as u64,
        })
    }

    fn from_data(data: u64) -> Self {
        match data {
            COMMAND => Wake::Command,
            UPLINK => Wake::Uplink,
            TIMER => Wake::Timer,
            slot => Wake::Queue(slot as usize),
        }
    }
}

/// One worker's epoll instance, edge-triggered.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// For waits with an end: epoll itself counts in milliseconds.
    timer: OwnedFd,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Not at all.
    Now,
    /// So long.
    After(Duration),
    /// Until something happens.
    Never,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let poller = Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, timer };
        poller.add(&poller.timer, Wake::Timer)?;
        Ok(poller)
    }

    pub(crate) fn add(&self, fd: impl AsFd, wake: Wake) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, wake.data(), EventFlags::IN | EventFlags::ET)?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        // Fails only where the descriptor is not registered, which is the aim.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events and calls `each` with them.
    pub(crate) fn wait(&self, limit: Limit, mut each: impl FnMut(Wake)) -> io::Result<()> {
        const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = match limit {
            Limit::Now => Some(&ZERO),
            Limit::Never => None,
            Limit::After(time) => {
                // Zero would turn the timer off.
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
                    each(Wake::from_data(event.data.u64()));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
