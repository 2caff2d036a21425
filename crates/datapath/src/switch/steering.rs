//! This module chooses a function's receive queue for a frame: RSS, or automatic steering.

use std::sync::atomic::{AtomicU16, Ordering};

use manifold_offload::{Hash, Hasher, Layers, parse, rss};
use manifold_virtio::net::{Indirection, Steering as SteeringConfig};

use crate::frame::pieces::Pieces;
use crate::frame::{Frame, PEEKED};

/// Number of entries of a flow table. Flows that share an entry may be steered to each other's
/// queue, and nothing worse.
const FLOWS: usize = 1024;

/// A function's steering, ready for use. All workers share it.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Number of queue pairs in use, from 1.
    pairs: u16,
    hasher: Option<(Hasher, u32)>,
    table: Option<Indirection>,
    /// The flow table of automatic steering (virtio 1.3, 5.1.6.5.5.1). An entry is one more than
    /// the pair on which the driver last sent frames of the flow, or 0 if it has not sent any.
    flows: Box<[AtomicU16]>,
}

impl Steering {
    pub(crate) fn new(steering: &SteeringConfig) -> Self {
        let pairs = steering.pairs.max(1);
        let automatic = pairs > 1 && steering.table.is_none();
        Steering {
            pairs,
            hasher: steering.hash.as_ref().map(|hash| (Hasher::new(&hash.key), hash.types)),
            table: steering.table.clone(),
            flows: (0..if automatic { FLOWS } else { 0 }).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// Returns true if every frame goes to the first queue and has no hash, so that nobody need
    /// look.
    #[inline]
    pub(crate) fn is_trivial(&self) -> bool {
        self.pairs == 1 && self.hasher.is_none()
    }

    /// Returns the queue pair of a frame, and its hash.
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
                // Until the driver has answered, any queue is right as long as it stays the same.
                learned.checked_sub(1).filter(|pair| *pair < self.pairs).unwrap_or_else(|| {
                    // The high half of the hash chooses the queue, because the low bits choose the
                    // entry.
                    ((flow >> 16) % u32::from(self.pairs)) as u16
                })
            }
        };
        (pair, hash)
    }

    /// Returns true if [`Steering::learn`] does anything.
    pub(crate) fn learns(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Learns that the driver sends a flow on a queue pair, and so wants to receive it there.
    pub(crate) fn learn(&self, frame: &Frame, pieces: &Pieces<'_>, pair: u16) {
        let mut room = [0; PEEKED];
        let (head, layers) = headers(frame, pieces, &mut room);
        if let Some(entry) = self.flow(rss::flow(&layers, head)) {
            let value = pair.saturating_add(1);
            // Workers share the entry, so it is written only when it changes.
            if entry.load(Ordering::Relaxed) != value {
                entry.store(value, Ordering::Relaxed);
            }
        }
    }

    fn flow(&self, hash: u32) -> Option<&AtomicU16> {
        // The table is empty where nothing is learned.
        self.flows.get(hash as usize % FLOWS)
    }
}

/// Returns the headers of a frame as far as they matter, and where each layer is.
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
