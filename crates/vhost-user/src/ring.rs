//! This module holds one ring as the client has set it up so far.

use std::sync::Arc;

use manifold_socket::EventFd;
use manifold_virtio::ring::QueueState;

use crate::codec::RingAddresses;
use crate::ring_fds::RingFds;
use crate::status::DeviceStatus;

/// Reads the base of SET_VRING_BASE ("Ring base"). A stopped ring has nothing in flight, so where
/// the message tells one index only it is both: a split ring's, and a packed ring's of DPDK's
/// virtio-user, which leaves the upper half zero.
pub(crate) fn from_base(base: u32, packed: bool) -> QueueState {
    let (low, high) = (base as u16, (base >> 16) as u16);
    QueueState { next_avail: low, next_used: if packed && high != 0 { high } else { low } }
}

/// Returns the base that GET_VRING_BASE answers.
pub(crate) fn to_base(state: QueueState, packed: bool) -> u32 {
    let high = if packed { u32::from(state.next_used) << 16 } else { 0 };
    high | u32::from(state.next_avail)
}

/// The state of a ring that a client sets up before it runs.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) size: Option<u16>,
    pub(crate) addresses: Option<RingAddresses>,
    /// Base at which the ring continues when it is started; `None` means its beginning.
    pub(crate) base: Option<u32>,
    pub(crate) kick: Kick,
    pub(crate) enabled: bool,
    pub(crate) fds: Arc<RingFds>,
    /// True if the device serves the ring.
    pub(crate) running: bool,
}

/// The way in which a ring is kicked. The client starts the ring by setting it.
#[derive(Debug, Default)]
pub(crate) enum Kick {
    /// The client has not said: the ring is stopped.
    #[default]
    Stopped,
    /// The driver kicks by an eventfd.
    By(EventFd),
    /// The driver does not kick: the ring is to be polled.
    Polled,
}

impl Ring {
    pub(crate) fn new(status: &Arc<DeviceStatus>) -> Self {
        Self {
            size: None,
            addresses: None,
            base: None,
            kick: Kick::Stopped,
            enabled: false,
            fds: Arc::new(RingFds::new(Arc::clone(status))),
            running: false,
        }
    }

    /// Reports whether the client has started and enabled the ring.
    pub(crate) fn is_wanted(&self) -> bool {
        self.enabled && !matches!(self.kick, Kick::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_one_index_or_two() {
        let at = |next_avail, next_used| QueueState { next_avail, next_used };
        assert_eq!(from_base(7, false), at(7, 7));
        assert_eq!(to_base(at(7, 7), false), 7);
        assert_eq!(from_base(0x8005_8006, true), at(0x8006, 0x8005));
        assert_eq!(to_base(at(0x8006, 0x8005), true), 0x8005_8006);
        assert_eq!(from_base(0x0000_8000, true), at(0x8000, 0x8000));
        assert_eq!(to_base(QueueState::start(true), true), 0x8000_8000);
        assert_eq!(to_base(QueueState::start(false), false), 0);
    }
}
