//! Interrupts to a VMM: an MSI-X vector that ends in an eventfd.

use std::io;
use std::os::fd::OwnedFd;

use manifold_pci::MsiSink;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// An eventfd that a VMM handed over for one vector.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// Takes the descriptor over. It is made non-blocking: a worker writes to it.
    ///
    /// # Errors
    /// When it is not an eventfd: nothing else is sure never to block.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
        if !link.to_bytes().starts_with(b"anon_inode:[eventfd") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an eventfd"));
        }
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(EventFd(fd))
    }
}

impl MsiSink for EventFd {
    fn deliver(&self, _address: u64, _data: u32) {
        // Fails only when the counter is at its maximum, and then it is signalled anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
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
        let sink = EventFd::new(fd).unwrap();
        // At its maximum a blocking eventfd would block the next write.
        rustix::io::write(&other, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        sink.deliver(0, 0);
        assert!(fcntl_getfl(&other).unwrap().contains(OFlags::NONBLOCK));
    }
}
