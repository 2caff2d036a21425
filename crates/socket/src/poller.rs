//! This module is the epoll instance that the acceptor waits with, and the eventfd that wakes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::error::Error;

/// Token of the eventfd that wakes the acceptor.
pub(crate) const WAKE: u64 = 0;

/// Descriptors that the acceptor waits for, by token.
#[derive(Debug)]
pub(crate) struct Poller {
    pub(crate) epoll: OwnedFd,
    wake: OwnedFd,
    is_shut_down: AtomicBool,
    next_token: AtomicU64,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Error> {
        let failed = |what| move |errno: Errno| Error::Start { what, source: errno.into() };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let poller = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("no epoll"))?,
            wake: eventfd(0, flags).map_err(failed("no eventfd"))?,
            is_shut_down: AtomicBool::new(false),
            next_token: AtomicU64::new(WAKE + 1),
        };
        poller.watch(poller.wake.as_fd(), WAKE, EventFlags::IN).map_err(failed("no epoll"))?;
        Ok(poller)
    }

    pub(crate) fn shut_down(&self) {
        self.is_shut_down.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.is_shut_down.load(Ordering::Acquire)
    }

    pub(crate) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn watch(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        flags: EventFlags,
    ) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // The removal fails only if the descriptor was never watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    pub(crate) fn wake(&self) {
        // The write fails only if the acceptor has not seen 2^64 - 2 earlier calls.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}
