//! This module holds the eventfds of a ring, for interrupts and errors from the device to the
//! client.

use std::fmt;
use std::sync::Arc;

use manifold_socket::EventFd;
use parking_lot::Mutex;

use crate::status::DeviceStatus;

/// The eventfds of a ring. Whoever serves the ring holds them; the client may exchange them at any
/// time.
#[derive(Debug)]
pub struct RingFds {
    call: Mutex<Option<EventFd>>,
    err: Mutex<Option<EventFd>>,
    status: Arc<DeviceStatus>,
}

impl RingFds {
    pub(crate) fn new(status: Arc<DeviceStatus>) -> Self {
        Self { call: Mutex::new(None), err: Mutex::new(None), status }
    }

    /// Tells the driver that buffers were used, from any thread. It waits for nothing but another
    /// call for this ring.
    pub fn interrupt(&self) {
        if let Some(call) = &*self.call.lock() {
            call.signal();
        }
    }

    /// Tells the client that the ring broke the rules, for `reason`, and is not served any more:
    /// the device needs a reset.
    pub fn fail(&self, reason: &dyn fmt::Display) {
        self.status.fail(reason.to_string());
        if let Some(err) = &*self.err.lock() {
            err.signal();
        }
    }

    /// Exchanges the call eventfd. An interrupt may have gone to the old one that its reader no
    /// longer looks at, so a `running` ring interrupts once through the new one.
    pub(crate) fn set_call(&self, call: Option<EventFd>, running: bool) {
        if let (Some(call), true) = (&call, running) {
            call.signal();
        }
        *self.call.lock() = call;
    }

    pub(crate) fn set_err(&self, err: Option<EventFd>) {
        *self.err.lock() = err;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::spec::status;

    fn pair() -> (EventFd, OwnedFd) {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let other = fd.try_clone().unwrap();
        (EventFd::new(fd).unwrap(), other)
    }

    fn count(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    #[test]
    fn an_interrupt_under_way_is_not_lost_when_the_eventfd_is_exchanged() {
        let fds = RingFds::new(Arc::default());
        fds.interrupt();
        let (first, reader) = pair();
        fds.set_call(Some(first), false);
        assert_eq!(count(&reader), 0);
        fds.interrupt();
        fds.interrupt();
        assert_eq!(count(&reader), 2);
        let (second, reader) = pair();
        fds.set_call(Some(second), true);
        assert_eq!(count(&reader), 1);
    }

    #[test]
    fn a_broken_ring_shows_in_the_status_until_the_device_is_reset() {
        let status = Arc::new(DeviceStatus::default());
        let fds = RingFds::new(Arc::clone(&status));
        let (err, reader) = pair();
        fds.set_err(Some(err));
        status.keep_needs_reset(15);
        status.set_features(1);
        fds.fail(&"first");
        fds.fail(&"second");
        assert_eq!((status.get(), count(&reader)), (15 | status::NEEDS_RESET, 2));
        assert_eq!(status.failure().as_deref(), Some("first"));
        status.keep_needs_reset(7);
        assert_eq!((status.get(), status.features()), (7 | status::NEEDS_RESET, 1));
        status.clear();
        assert_eq!((status.get(), status.features(), status.failure()), (0, 0, None));
    }
}
