//! This module keeps the last route of a sender's frames from burst to burst.

use manifold_eswitch::{Decision, LastDecision};

use super::target::Target;

/// The switch's last decision for one sender that has a single receiver, with the receiver's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    last: LastDecision,
    /// Target of every frame of this decision, unless `steered` is set.
    pub(crate) target: Target,
    /// Index of the receiving function, if its steering chooses a queue frame by frame.
    pub(crate) steered: Option<u16>,
    /// [`Switch::version`](super::function::Switch::version) that the route was derived from.
    version: u64,
}

impl Default for Route {
    fn default() -> Self {
        let last = LastDecision::default();
        Route { last, target: Target::NONE, steered: None, version: 0 }
    }
}

impl Route {
    /// Forgets the route if it was derived from another version of the switch.
    #[inline]
    pub(crate) fn check(&mut self, version: u64) {
        if self.version != version {
            *self = Route { version, ..Route::default() };
        }
    }

    /// Returns true if a frame gets the same decision as the last one.
    #[inline]
    pub(crate) fn repeats(&self, header: &[u8], frame_len: usize) -> bool {
        self.last.repeats(header, frame_len)
    }

    /// Keeps a decision for one receiver.
    pub(crate) fn keep(
        &mut self,
        header: &[u8],
        frame_len: usize,
        decision: &Decision<'_>,
        steered: Option<u16>,
        target: Target,
    ) {
        self.last.remember(header, frame_len, decision);
        (self.steered, self.target) = (steered, target);
    }
}
