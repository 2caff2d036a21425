//! This module has the eventfd by which other threads wake a worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::wake::sleeper::Sleeper;

/// Wakes one worker. Every other thread that brings it work holds a reference.
#[derive(Debug)]
pub(crate) struct WorkerWaker {
    pub(crate) sleeper: Sleeper,
    eventfd: OwnedFd,
}

impl WorkerWaker {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(WorkerWaker { sleeper: Sleeper::new(), eventfd })
    }

    /// Wakes the worker if it sleeps. Call it after work has been published.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.sleeper.needs_wake() {
            self.signal();
        }
    }

    /// Signals the eventfd, whether the worker sleeps or not.
    pub(crate) fn signal(&self) {
        // The write fails only when the counter is at its maximum, and then the worker is being
        // woken.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// Resets the eventfd's counter. The worker's epoll is edge-triggered, so this only keeps the
    /// counter from growing.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }
}

impl AsFd for WorkerWaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
