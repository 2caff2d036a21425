//! Which of a function's receive queues a frame goes to.

use std::sync::atomic::{AtomicU16, Ordering};

use manifold_offload::{Hash, Hasher, Layers, parse, rss};
use manifold_virtio::net::{Indirection, Steering};

use crate::frame::{Frame, PEEKED, Pieces};

/// Entries of a flow table: flows that share one may be steered to each other's queue, and nothing worse.
const FLOWS: usize = 1024;

/// A function's steering, ready for use. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Steer {
    /// From 1.
    pairs: u16,
    hasher: Option<(Hasher, u32)>,
    table: Option<Indirection>,
    /// For automatic steering: one more than the pair on which the driver last sent frames of the flow (virtio 1.3,
    /// 5.1.6.5.5.1); 0: none yet.
    flows: Box<[AtomicU16]>,
}

impl Steer {
    pub(crate) fn new(steering: &Steering) -> Self {
        let pairs = steering.pairs.max(1);
        let automatic = pairs > 1 && steering.table.is_none();
        Steer {
            pairs,
            hasher: steering.hash.as_ref().map(|hash| (Hasher::new(&hash.key), hash.types)),
            table: steering.table.clone(),
            flows: (0..if automatic { FLOWS } else { 0 }).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// True when every frame goes to the first queue and has no hash: nothing need be looked at.
    #[inline]
    pub(crate) fn is_trivial(&self) -> bool {
        self.pairs == 1 && self.hasher.is_none()
    }

    /// The queue pair of a frame, and its hash.
    pub(crate) fn choose(&self, frame: &Frame, pieces: &Pieces<'_>) -> (u16, Option<Hash>) {
        let mut room = [0; PEEKED];
        let (head, layers) = headers(frame, pieces, &mut room);
        let hash =
            self.hasher.as_ref().and_then(|(hasher, types)| hasher.hash(&layers, head, *types));
        let pair = match (&self.table, hash) {
            (Some(table), None) => table.unclassified,
            (Some(table), Some(hash)) => {
                let mask = table.entries.len().wrapping_sub(1);
                table.entries.get(hash.value as usize & mask).copied().unwrap_or(0)
            }
            (None, _) if self.pairs == 1 => 0,
            (None, _) => {
                let flow = rss::flow(&layers, head);
                let learned = self.flow(flow).map_or(0, |entry| entry.load(Ordering::Relaxed));
                // Until the driver has answered, any queue will do, as long as it stays the same.
                learned.checked_sub(1).filter(|pair| *pair < self.pairs).unwrap_or_else(|| {
                    // The high half: the low bits choose the entry.
                    ((flow >> 16) % u32::from(self.pairs)) as u16
                })
            }
        };
        (pair, hash)
    }

    /// Whether [`Steer::learn`] does anything.
    pub(crate) fn learns(&self) -> bool {
        !self.flows.is_empty()
    }

    /// The driver sends a frame on a queue pair: where it wants to receive the other direction of the flow.
    pub(crate) fn learn(&self, frame: &Frame, pieces: &Pieces<'_>, pair: u16) {
        let mut room = [0; PEEKED];
        let (head, layers) = headers(frame, pieces, &mut room);
        if let Some(entry) = self.flow(rss::flow(&layers, head)) {
            let value = pair.saturating_add(1);
            // Shared by workers: written only when it changes.
            if entry.load(Ordering::Relaxed) != value {
                entry.store(value, Ordering::Relaxed);
            }
        }
    }

    fn flow(&self, hash: u32) -> Option<&AtomicU16> {
        // Empty where nothing is learned.
        self.flows.get(hash as usize % FLOWS)
    }
}

/// The headers of a frame, as far as they matter, and where they are.
fn headers<'b>(
    frame: &'b Frame,
    pieces: &Pieces<'_>,
    room: &'b mut [u8; PEEKED],
) -> (&'b [u8], Layers) {
    let head = frame.header();
    let layers = parse(head);
    if !layers.truncated || frame.is_whole() {
        return (head, layers);
    }
    let more = frame.peek(pieces, room);
    (more, parse(more))
}
