//! A frame on its way to a receiver of another worker.

use arrayvec::ArrayVec;
use manifold_dma::Pinned;

use crate::frame::{Frame, Pieces};

/// Bytes that travel with the frame: for so few a second copy costs less than going back to the sender's memory and
/// telling its worker.
pub(crate) const CARRIED: usize = 236;
/// Most pieces of a frame that stays where it is. A longer list is rare, and copied.
pub(crate) const LEFT: usize = 20;

/// A function as a worker knows it: its number and which of the functions that had this number it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) number: u16,
    pub(crate) generation: u32,
}

/// A frame that was handed over, for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Slot of the transmit queue.
    pub(crate) slot: u32,
    /// Which of the queues that were in this slot.
    pub(crate) life: u32,
    /// Which of its frames in flight.
    pub(crate) sequence: u32,
}

/// What follows a frame's head.
#[derive(Debug)]
pub(crate) enum Body {
    /// Little enough to come along.
    Carried(ArrayVec<u8, CARRIED>),
    /// Still where the sender put it: IOVAs and lengths. The receiver's worker translates them for itself, so that memory
    /// unmapped meanwhile is a fault and nothing worse; the sender gets its buffers back when the ticket returns.
    Left { from: Address, pieces: ArrayVec<(u64, u32), LEFT>, ticket: Ticket },
    /// A copy: it was in too many pieces, or not in a guest's memory.
    Copied(Box<[u8]>),
}

impl Body {
    /// The rest of a frame. It is left where it is, if that is in memory pinned by `pin` and a ticket is at hand.
    pub(crate) fn of(
        frame: &Frame,
        pieces: &Pieces<'_>,
        pin: Option<&Pinned<'_>>,
        ticket: impl FnOnce() -> (Address, Ticket),
    ) -> Body {
        let rest = frame.len() - frame.header().len();
        if rest <= CARRIED {
            let mut carried = ArrayVec::from([0; CARRIED]);
            let mut have = 0;
            for piece in frame.rest(pieces) {
                have += piece.read(carried.get_mut(have..rest).unwrap_or_default());
            }
            carried.truncate(rest);
            return Body::Carried(carried);
        }
        let mut left = ArrayVec::new();
        let whole = pin.is_some_and(|pin| {
            frame.rest(pieces).all(|piece| {
                pin.iova_of(&piece)
                    .is_some_and(|iova| left.try_push((iova, piece.len() as u32)).is_ok())
            })
        });
        if whole {
            let (from, ticket) = ticket();
            return Body::Left { from, pieces: left, ticket };
        }
        let mut copy = vec![0; rest];
        let mut have = 0;
        for piece in frame.rest(pieces) {
            have += piece.read(copy.get_mut(have..).unwrap_or_default());
        }
        Body::Copied(copy.into())
    }
}

/// A frame for a receive queue of another worker.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) to: Address,
    pub(crate) pair: u16,
    pub(crate) frame: Frame,
    pub(crate) body: Body,
}
