//! Where a sender's frames went last.

use manifold_eswitch::{Decision, Recent};

use crate::egress::NOWHERE;

/// The last single answer of the switch for one sender, with the receiver's queue if all frames for it go to one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    recent: Recent,
    /// The function's number, if it is one whose steering looks at each frame.
    pub(crate) steered: Option<u16>,
    /// Otherwise where all of them go.
    pub(crate) target: u32,
    /// That of everything it was derived from.
    version: u64,
}

impl Default for Route {
    fn default() -> Self {
        Route { recent: Recent::default(), steered: None, target: NOWHERE, version: 0 }
    }
}

impl Route {
    /// Forgets everything if it is from another version of the table, the functions and their steering.
    #[inline]
    pub(crate) fn check(&mut self, version: u64) {
        if self.version != version {
            *self = Route { version, ..Route::default() };
        }
    }

    /// Whether it is the frame's, too.
    #[inline]
    pub(crate) fn repeats(&self, header: &[u8], frame_len: usize) -> bool {
        self.recent.repeats(header, frame_len)
    }

    /// Keeps a decision for one receiver.
    pub(crate) fn keep(
        &mut self,
        header: &[u8],
        frame_len: usize,
        decision: &Decision<'_>,
        steered: Option<u16>,
        target: u32,
    ) {
        self.recent.remember(header, frame_len, decision);
        (self.steered, self.target) = (steered, target);
    }
}
