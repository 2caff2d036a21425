//! This module holds the eventfds that clients hand over.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// An eventfd of a client.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Takes the descriptor over and makes it non-blocking, since whoever signals it must not wait.
    ///
    /// # Errors
    /// When it is not an eventfd: nothing else is sure never to block.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
        if !link.to_bytes().starts_with(b"anon_inode:[eventfd") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an eventfd"));
        }
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    /// Adds one to the counter.
    pub fn signal(&self) {
        // The write fails only when the counter is at its maximum, and then it is signalled anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl From<EventFd> for OwnedFd {
    fn from(eventfd: EventFd) -> Self {
        eventfd.0
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_refused_and_an_eventfd_made_non_blocking() {
        let (_read, write) = rustix::pipe::pipe().unwrap();
        assert_eq!(EventFd::new(write).unwrap_err().kind(), io::ErrorKind::InvalidInput);

        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        let other = fd.try_clone().unwrap();
        let eventfd = EventFd::new(fd).unwrap();
        // A blocking eventfd at its maximum would block the next write.
        rustix::io::write(&other, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        eventfd.signal();
        assert!(fcntl_getfl(&other).unwrap().contains(OFlags::NONBLOCK));
    }
}
