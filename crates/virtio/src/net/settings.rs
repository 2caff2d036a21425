//! This module keeps what a driver has set by features and control commands between two resets.

use manifold_offload::{Filters, MacAddr};

use super::features;
use super::host::{QueueHost, Role};
use super::steering::{Coalescing, Steering};
use crate::spec::net::feature;

/// The settings of one device. The data path is told of [`Filters`], [`Steering`], offloads and
/// coalescing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Negotiated features; 0 while the device is not live.
    pub(super) features: u64,
    /// Queue pairs the driver may use.
    pub(super) max_pairs: u16,
    /// True if the driver is asked to announce itself and has not yet confirmed.
    pub(super) announce: bool,
    pub(super) filters: Filters,
    /// True if the driver switched all-multicast mode on; an overflowing table may imply it, too.
    pub(super) all_multicast: bool,
    pub(super) all_unicast: bool,
    pub(super) multicast_overflow: bool,
    pub(super) unicast_overflow: bool,
    pub(super) steering: Steering,
    /// Receive offloads in force.
    pub(super) offloads: u64,
    pub(super) coalescing: QueueCoalescing,
}

impl Settings {
    /// Returns the settings of a device without a driver.
    pub(super) fn new(mac: MacAddr, max_pairs: u16) -> Self {
        Settings {
            features: 0,
            max_pairs,
            announce: false,
            filters: Filters::new(mac),
            all_multicast: false,
            all_unicast: false,
            multicast_overflow: false,
            unicast_overflow: false,
            steering: Steering::default(),
            offloads: 0,
            coalescing: QueueCoalescing::new(max_pairs),
        }
    }

    /// Puts the features that a driver negotiated in force.
    pub(super) fn activate(&mut self, features: u64) {
        self.features = features;
        self.filters.vlan_filtering = features & feature::CTRL_VLAN != 0;
        self.merge_modes();
        // Each negotiated offload is on until a command switches it off (5.1.6.5.8.1).
        self.offloads = features::offloads_in_force(features);
    }

    /// Brings the filters in line with the modes.
    pub(super) fn merge_modes(&mut self) {
        // Without VIRTIO_NET_F_CTRL_RX nobody could ever subscribe to a multicast address.
        let unfiltered = self.features & feature::CTRL_RX == 0;
        self.filters.all_multicast = self.all_multicast || self.multicast_overflow || unfiltered;
        self.filters.all_unicast = self.all_unicast || self.unicast_overflow;
    }

    /// Returns how many queue pairs there are with the features negotiated.
    pub(super) fn pairs(&self) -> u16 {
        if self.features & feature::MULTIQUEUE != 0 { self.max_pairs } else { 1 }
    }
}

/// Notification coalescing, queue by queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueCoalescing {
    /// The coalescing that was last set for all receive queues, which one of them has after being
    /// reset.
    receive: Coalescing,
    /// The coalescing that was last set for all transmit queues.
    transmit: Coalescing,
    queues: Vec<Coalescing>,
}

impl QueueCoalescing {
    fn new(pairs: u16) -> Self {
        QueueCoalescing {
            receive: Coalescing::default(),
            transmit: Coalescing::default(),
            queues: vec![Coalescing::default(); 2 * usize::from(pairs)],
        }
    }

    pub(super) fn get(&self, index: u16) -> Coalescing {
        self.queues.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// Sets the coalescing of one queue.
    pub(super) fn set(&mut self, index: u16, to: Coalescing) {
        if let Some(coalescing) = self.queues.get_mut(usize::from(index)) {
            *coalescing = to;
        }
    }

    /// Sets the coalescing of all receive or all transmit queues, one of which has number `like`.
    pub(super) fn set_all(&mut self, like: Kind, to: Coalescing) {
        match like {
            Kind::Receive => self.receive = to,
            Kind::Transmit => self.transmit = to,
        }
        for (coalescing, index) in self.queues.iter_mut().zip(0..) {
            if Kind::of(index) == like {
                *coalescing = to;
            }
        }
    }

    /// Sets the coalescing of a queue that has been reset (5.1.6.5.9).
    pub(super) fn reset(&mut self, index: u16) {
        let to = match Kind::of(index) {
            Kind::Receive => self.receive,
            Kind::Transmit => self.transmit,
        };
        self.set(index, to);
    }
}

/// The two kinds of data queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Receive,
    Transmit,
}

impl Kind {
    /// Returns the kind of the data queue of this number.
    pub(super) fn of(index: u16) -> Self {
        match Role::of(index) {
            Role::Rx(_) => Kind::Receive,
            Role::Tx(_) => Kind::Transmit,
        }
    }
}

/// A set of data queues, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queues(u64);

impl Queues {
    /// Returns all data queues of one kind.
    pub(super) fn all(kind: Kind) -> Self {
        Queues(match kind {
            Kind::Receive => 0x5555_5555_5555_5555,
            Kind::Transmit => 0xaaaa_aaaa_aaaa_aaaa,
        })
    }

    pub(super) fn one(index: u16) -> Self {
        Queues(1u64.checked_shl(index.into()).unwrap_or(0))
    }

    pub(super) fn contains(self, index: u16) -> bool {
        self.0 & Self::one(index).0 != 0
    }

    pub(super) fn insert(&mut self, more: Self) {
        self.0 |= more.0;
    }

    pub(super) fn remove(&mut self, index: u16) {
        self.0 &= !Self::one(index).0;
    }

    /// Returns the queues in both sets, ascending.
    pub(super) fn and(self, other: Self) -> impl Iterator<Item = u16> {
        let both = Queues(self.0 & other.0);
        (0..64).filter(move |index| both.contains(*index))
    }
}

/// The settings that have changed since the data path was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) filters: bool,
    pub(super) steering: bool,
    pub(super) offloads: bool,
    /// The queues whose coalescing has changed.
    pub(super) coalescing: Queues,
}

impl Changes {
    pub(super) const NONE: Changes =
        Changes { filters: false, steering: false, offloads: false, coalescing: Queues(0) };
    pub(super) const FILTERS: Changes = Changes { filters: true, ..Changes::NONE };
    pub(super) const STEERING: Changes = Changes { steering: true, ..Changes::NONE };
    pub(super) const OFFLOADS: Changes = Changes { offloads: true, ..Changes::NONE };

    pub(super) fn coalescing(queues: Queues) -> Changes {
        Changes { coalescing: queues, ..Changes::NONE }
    }

    pub(super) fn merge(&mut self, more: Changes) {
        self.filters |= more.filters;
        self.steering |= more.steering;
        self.offloads |= more.offloads;
        self.coalescing.insert(more.coalescing);
    }

    /// Tells `host`, once for each kind of change. A queue that is not `started` gets its
    /// coalescing when it starts.
    pub(super) fn tell(self, host: &dyn QueueHost, settings: &Settings, started: Queues) {
        if self.filters {
            host.filters_changed(&settings.filters);
        }
        if self.steering {
            host.steering_changed(&settings.steering);
        }
        if self.offloads {
            host.offloads_changed(settings.offloads);
        }
        for index in self.coalescing.and(started) {
            host.coalescing_changed(index, settings.coalescing.get(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_queues() {
        let mut queues = Queues::one(0);
        queues.insert(Queues::one(33));
        queues.insert(Queues::one(64));
        assert!(queues.contains(0) && queues.contains(33) && !queues.contains(64));
        assert_eq!(queues.and(Queues::all(Kind::Transmit)).collect::<Vec<_>>(), [33]);
        assert_eq!(queues.and(Queues::all(Kind::Receive)).collect::<Vec<_>>(), [0]);
        queues.remove(33);
        queues.remove(200);
        assert_eq!(queues, Queues::one(0));
    }
}
