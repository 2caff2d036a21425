use std::fmt;

use manifold_pci::FunctionId;

use crate::drop_reason::DropReason;
use crate::table::{Record, Table};

/// The sender of a frame into the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The frame comes from a function's transmit queue.
    Function(FunctionId),
    /// The frame comes from the adapter's port.
    Uplink,
}

/// The places that a frame goes to.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// The frame goes to this function only.
    Function(FunctionId),
    /// The frame goes out of the port only.
    Uplink,
    /// The frame goes to each of these, of which there is at least one.
    Multi(Destinations<'a>),
    /// The frame goes to nobody.
    Drop(DropReason),
}

/// The receivers of a frame that is replicated, borrowed from the table.
#[derive(Clone, Copy)]
pub struct Destinations<'a> {
    pub(crate) table: &'a Table,
    /// Slots that receive every frame of this kind.
    pub(crate) always: &'a [u16],
    /// Slots that receive this destination; none of them is in `always`.
    pub(crate) members: &'a [u16],
    pub(crate) uplink: bool,
    /// The sender's slot, or [`Record::NONE`].
    pub(crate) source: u16,
    /// The frame's VLAN, if its tag names one.
    pub(crate) vid: Option<u16>,
}

impl<'a> Destinations<'a> {
    /// Returns the functions to deliver to, each once, never the sender.
    pub fn functions(self) -> impl Iterator<Item = FunctionId> + 'a {
        self.records().map(|record| record.id)
    }

    /// Returns whether the frame also goes out of the port.
    pub const fn uplink(self) -> bool {
        self.uplink
    }

    pub(crate) fn records(self) -> impl Iterator<Item = &'a Record> + 'a {
        let Self { table, always, members, source, vid, .. } = self;
        always
            .iter()
            .chain(members)
            .filter(move |slot| **slot != source)
            .filter_map(move |slot| table.record(*slot))
            .filter(move |record| record.admits(vid))
    }
}

impl fmt::Debug for Destinations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destinations")
            .field("functions", &self.functions().collect::<Vec<_>>())
            .field("uplink", &self.uplink)
            .finish()
    }
}
