//! This module is the doorbell of a transmit queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A transmit queue's doorbell, by which the driver says that buffers are available.
///
/// A VMM may hold the eventfd and signal it by itself. It may also make it blocking and fill it up,
/// so Manifold only polls it and never reads or writes it. To kick the queue from inside, call
/// [`Datapath::kick`](crate::Datapath::kick).
#[derive(Clone, Debug)]
pub struct Kick(Arc<QueueDoorbell>);

#[derive(Debug)]
struct QueueDoorbell {
    fd: OwnedFd,
    /// Number of the worker that serves the queue in the upper half, and the queue's slot there in
    /// the lower; [`UNSERVED`] before the queue is served for the first time.
    place: AtomicU64,
}

const UNSERVED: u64 = u64::MAX;

impl Kick {
    /// Makes a doorbell with a new eventfd.
    ///
    /// # Errors
    /// Fails when the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Kick::from_fd(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Makes a doorbell of a descriptor that becomes readable with each notification, such as an
    /// eventfd that a VMM passes.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Kick(Arc::new(QueueDoorbell { fd, place: AtomicU64::new(UNSERVED) }))
    }

    /// Returns the worker that serves the queue, and the queue's slot there.
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        let place = self.0.place.load(Ordering::Acquire);
        (place != UNSERVED).then_some(((place >> 32) as usize, place as u32 as usize))
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
