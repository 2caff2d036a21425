//! This module has what crosses from one worker to another.

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};

use crate::frame::Frame;
use crate::frame::pieces::Pieces;

/// Largest number of payload bytes that travel with the frame. So few are cheaper to copy twice
/// than to fetch from the sender's memory, which takes a completion.
const MAX_INLINE: usize = 236;
/// Largest number of pieces of a payload that stays in place. A longer list is rare, and its
/// payload is copied.
const MAX_IN_PLACE: usize = 20;

/// One life of a function: a function that is removed and added again is another instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FunctionInstance {
    /// Index of the function ([`FunctionId::index`](manifold_pci::FunctionId::index)).
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

/// Names a frame in flight to its sender's worker, which gets it back as the frame's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletionToken {
    /// Slot of the transmit queue.
    pub(crate) slot: u32,
    /// Number of the queue among those that have been in this slot.
    pub(crate) life: u32,
    /// Number of the frame among those that the queue has sent.
    pub(crate) sequence: u32,
}

impl CompletionToken {
    /// Returns the token of the frame `position` places further on in the same queue.
    pub(crate) fn plus(self, position: usize) -> Self {
        CompletionToken { sequence: self.sequence.wrapping_add(position as u32), ..self }
    }
}

/// The part of a frame behind its copied headers.
#[derive(Debug)]
pub(crate) enum Payload {
    /// The payload is short and comes along.
    Inline(ArrayVec<u8, MAX_INLINE>),
    /// The payload is where the sender put it, as IOVAs and lengths. The receiver's worker
    /// translates them for itself, so that memory unmapped meanwhile is a fault and nothing worse.
    /// The sender gets its buffers back when the token returns.
    InPlace {
        from: FunctionInstance,
        pieces: ArrayVec<(u64, u32), MAX_IN_PLACE>,
        token: CompletionToken,
    },
    /// The payload is a copy, because it was in too many pieces or not in a guest's memory.
    Copied(Box<[u8]>),
}

impl Payload {
    /// Makes the payload of a frame. It stays in place if it is long and in memory that the
    /// sender's pin covers; `sender` is that pin with the sender's function and the frame's token.
    pub(crate) fn of(
        frame: &Frame,
        pieces: &Pieces<'_>,
        sender: Option<(&Pinned<'_>, FunctionInstance, CompletionToken)>,
    ) -> Payload {
        let len = frame.len() - frame.header().len();
        if len <= MAX_INLINE {
            let mut inline = ArrayVec::from([0; MAX_INLINE]);
            read(frame, pieces, inline.get_mut(..len).unwrap_or_default());
            inline.truncate(len);
            return Payload::Inline(inline);
        }
        if let Some((pin, from, token)) = sender {
            let mut left = ArrayVec::new();
            let all = frame.rest(pieces).all(|piece| {
                pin.iova_of(&piece)
                    .is_some_and(|iova| left.try_push((iova, piece.len() as u32)).is_ok())
            });
            if all {
                return Payload::InPlace { from, pieces: left, token };
            }
        }
        let mut copy = vec![0; len];
        read(frame, pieces, &mut copy);
        Payload::Copied(copy.into())
    }

    /// Returns the function in whose memory the payload is.
    pub(crate) fn sender(&self) -> Option<FunctionInstance> {
        match self {
            Payload::InPlace { from, .. } => Some(*from),
            _ => None,
        }
    }

    /// Adds the payload's memory to `pieces`. Returns false if it cannot be reached any more; `pin`
    /// is of the sender's memory.
    pub(crate) fn add_to<'p>(
        &'p mut self,
        pin: Option<&'p Pinned<'_>>,
        pieces: &mut Pieces<'p>,
    ) -> bool {
        match self {
            Payload::Inline(bytes) => {
                bytes.is_empty() || pieces.try_push(Slice::from_mut(bytes)).is_ok()
            }
            Payload::Copied(bytes) => pieces.try_push(Slice::from_mut(bytes)).is_ok(),
            Payload::InPlace { pieces: left, .. } => pin.is_some_and(|pin| {
                left.iter().all(|(iova, len)| {
                    let reached = pin.slices_while(*iova, *len as usize, Access::Read, |slice| {
                        pieces.try_push(slice).is_ok()
                    });
                    reached == Ok(true)
                })
            }),
        }
    }
}

fn read(frame: &Frame, pieces: &Pieces<'_>, mut out: &mut [u8]) {
    for piece in frame.rest(pieces) {
        let done = piece.read(out);
        out = out.get_mut(done..).unwrap_or_default();
    }
}

/// A frame for a receive queue of another worker.
#[derive(Debug)]
pub(crate) struct HandoverFrame {
    pub(crate) to: FunctionInstance,
    /// Queue pair of the receiver.
    pub(crate) pair: u16,
    pub(crate) frame: Frame,
    pub(crate) payload: Payload,
}
