//! This module delivers interrupts to a VMM: an MSI-X vector ends in an eventfd.

use std::io;
use std::os::fd::OwnedFd;

use manifold_pci::MsiSink;

/// An eventfd that a VMM handed over for one vector.
#[derive(Debug)]
pub(crate) struct EventFd(manifold_socket::EventFd);

impl EventFd {
    /// Takes ownership of the descriptor.
    ///
    /// # Errors
    /// When it is not an eventfd.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        manifold_socket::EventFd::new(fd).map(EventFd)
    }
}

impl MsiSink for EventFd {
    fn deliver(&self, _address: u64, _data: u32) {
        self.0.signal();
    }
}
