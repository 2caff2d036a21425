//! Sleeping and waking: eventfds and one epoll per worker.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// A doorbell: rung by whoever has work for a worker, heard in the worker's epoll. Clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Kick(Arc<OwnedFd>);

impl Kick {
    /// A new eventfd.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Kick(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// Rings.
    pub fn ring(&self) {
        // The only possible failure is a counter at its maximum, which has rung already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Resets the counter. The epoll below is edge-triggered, so this only keeps it from growing.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What woke a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// A command is waiting.
    Command,
    /// The uplink has frames.
    Uplink,
    /// The transmit queue in this slot was kicked.
    Queue(usize),
}

const COMMAND: u64 = u64::MAX;
const UPLINK: u64 = u64::MAX - 1;

impl Wake {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Wake::Command => COMMAND,
            Wake::Uplink => UPLINK,
            Wake::Queue(slot) => slot as u64,
        })
    }

    fn from_data(data: u64) -> Self {
        match data {
            COMMAND => Wake::Command,
            UPLINK => Wake::Uplink,
            slot => Wake::Queue(slot as usize),
        }
    }
}

/// One worker's epoll instance, edge-triggered.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, fd: impl AsFd, wake: Wake) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, wake.data(), EventFlags::IN | EventFlags::ET)?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        // Fails only where the descriptor is not registered, which is the aim.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events, for ever or not at all, and calls `each` with them.
    pub(crate) fn wait(&self, block: bool, mut each: impl FnMut(Wake)) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if block { None } else { Some(&now) };
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
