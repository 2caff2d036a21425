//! This module has the changes by a configuration access that someone beside the register has to
//! act on.

use crate::power::PowerState;

/// A change that a write to, or a reset of, a configuration space brought about.
///
/// The registers have their new values by the time the event is seen. Only changes are reported: a
/// write that leaves Bus Master Enable as it was yields nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The function may (or may no longer) send memory requests: Bus Master Enable is set and it is
    /// in D0.
    BusMaster(bool),
    /// The function answers (or no longer answers) memory requests to its own BARs: Memory Space
    /// Enable is set and it is in D0.
    MemoryEnable(bool),
    /// The address in the BAR of this index changed.
    BarMoved(u8),
    /// Software initiated a function-level reset. The registers are in their initial state already,
    /// and what that changed is reported before this event. The owner has to reset the device
    /// model.
    Flr,
    /// The function entered this power state.
    Power(PowerState),
    /// MSI-X Enable or Function Mask changed. The function's [`Msix`](crate::Msix) follows by
    /// itself.
    MsixControl {
        /// Value of MSI-X Enable.
        enabled: bool,
        /// Value of Function Mask.
        masked: bool,
    },
    /// VF Enable changed: `num_vfs` VFs exist from now on, or none do any more.
    VfEnable {
        /// Value of VF Enable.
        enabled: bool,
        /// Value of NumVFs.
        num_vfs: u16,
    },
    /// VFs that exist answer (or no longer answer) memory requests to the VF BARs: VF Enable and VF
    /// MSE are set, and the PF is in D0.
    VfMemoryEnable(bool),
    /// The address, or through System Page Size the size, in the VF BAR of this index changed.
    VfBarMoved(u8),
    /// Software wrote into a vendor-specific capability.
    VendorWrite {
        /// Index into [`FunctionSpec::vendor`](crate::FunctionSpec::vendor).
        capability: usize,
        /// First byte written, counted from the capability's ID byte.
        offset: u8,
        /// Number of bytes written.
        len: u8,
    },
}

/// The events of one access, in the order in which they took effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "an event that nobody acts on leaves the device out of step with its registers"]
pub struct Events(Vec<Event>);

impl Events {
    /// Returns whether nothing happened that anyone has to act on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the events, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.0.iter()
    }

    /// Adds an event. A vendor write that continues the one before becomes part of it, so that an
    /// access of any size and alignment is reported as one.
    pub(crate) fn push(&mut self, event: Event) {
        if let (
            Some(Event::VendorWrite { capability, offset, len }),
            Event::VendorWrite { capability: next_capability, offset: next, len: more },
        ) = (self.0.last_mut(), event)
            && *capability == next_capability
            && offset.checked_add(*len) == Some(next)
        {
            *len = len.saturating_add(more);
            return;
        }
        self.0.push(event);
    }

    /// Adds the events of a later access.
    pub(crate) fn append(&mut self, later: Events) {
        for event in later {
            self.push(event);
        }
    }
}

impl IntoIterator for Events {
    type Item = Event;
    type IntoIter = std::vec::IntoIter<Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vendor(capability: usize, offset: u8, len: u8) -> Event {
        Event::VendorWrite { capability, offset, len }
    }

    #[test]
    fn adjoining_vendor_writes_become_one() {
        let mut events = Events::default();
        events.push(vendor(0, 4, 2));
        events.push(vendor(0, 6, 4));
        events.push(vendor(1, 10, 1));
        events.push(Event::Flr);
        events.push(vendor(1, 11, 1));
        assert_eq!(
            events.into_iter().collect::<Vec<_>>(),
            [vendor(0, 4, 6), vendor(1, 10, 1), Event::Flr, vendor(1, 11, 1)]
        );
    }
}
