//! This module derives events from registers: it compares the state that others act on before and
//! after an access.

use crate::capability::SriovView;
use crate::event::{Event, Events};
use crate::power::PowerState;

/// The part of a function's registers that others act on.
///
/// Events are not raised where registers are written but found by comparing this before and after,
/// so no path (an access of any shape, FLR, a hot reset, a change of power state) can forget one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    pub(super) power: PowerState,
    pub(super) bus_master: bool,
    pub(super) memory_enable: bool,
    pub(super) bars: [Option<u64>; 6],
    pub(super) msix_enabled: bool,
    pub(super) msix_masked: bool,
    pub(super) sriov: Option<SriovView>,
}

impl State {
    /// Adds the events that lead from `self` to `now`.
    ///
    /// Events that take something away come first: a function that moves its BARs and enables
    /// decoding by one write decodes the new address.
    pub(super) fn events(&self, now: &Self, events: &mut Events) {
        if self.bus_master && !now.bus_master {
            events.push(Event::BusMaster(false));
        }
        if self.memory_enable && !now.memory_enable {
            events.push(Event::MemoryEnable(false));
        }
        if let (Some(was), Some(is)) = (&self.sriov, &now.sriov) {
            sriov_events(was, is, events);
        }
        for (index, (was, is)) in (0..).zip(self.bars.iter().zip(&now.bars)) {
            if was != is {
                events.push(Event::BarMoved(index));
            }
        }
        if (self.msix_enabled, self.msix_masked) != (now.msix_enabled, now.msix_masked) {
            events.push(Event::MsixControl { enabled: now.msix_enabled, masked: now.msix_masked });
        }
        if self.power != now.power {
            events.push(Event::Power(now.power));
        }
        if !self.memory_enable && now.memory_enable {
            events.push(Event::MemoryEnable(true));
        }
        if !self.bus_master && now.bus_master {
            events.push(Event::BusMaster(true));
        }
    }
}

fn sriov_events(was: &SriovView, is: &SriovView, events: &mut Events) {
    let enable = Event::VfEnable { enabled: is.vf_enable, num_vfs: is.num_vfs };
    if was.vf_memory && !is.vf_memory {
        events.push(Event::VfMemoryEnable(false));
    }
    if was.vf_enable && !is.vf_enable {
        events.push(enable);
    }
    for (index, (was, is)) in (0..).zip(was.vf_bars.iter().zip(&is.vf_bars)) {
        if was != is {
            events.push(Event::VfBarMoved(index));
        }
    }
    if !was.vf_enable && is.vf_enable {
        events.push(enable);
    }
    if !was.vf_memory && is.vf_memory {
        events.push(Event::VfMemoryEnable(true));
    }
}
