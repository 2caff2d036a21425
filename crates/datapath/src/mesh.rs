//! Frames between workers: for each pair of workers a ring that one writes and the other reads.
//!
//! What travels is a [`Batch`], once per round: frames for receivers of the other worker, and receipts for frames that came
//! from there. Neither side ever waits for the other. The vectors go back empty, so that none is allocated in the long run.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::parcel::{Parcel, Ticket};
use crate::poll::Bell;
use crate::sleep::Sleeper;

/// Batches on their way from one worker to another.
const DEPTH: usize = 32;
/// Frames that wait for room in the ring. More are dropped, as a receive ring drops what finds no buffer.
const BACKLOG: usize = 512;

/// What one worker has for another.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) parcels: Vec<Parcel>,
    /// Frames of the other's transmit queues that are done with.
    pub(crate) receipts: Vec<Ticket>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.receipts.is_empty()
    }
}

/// How a worker is woken by others.
#[derive(Debug)]
pub(crate) struct Doorbell {
    pub(crate) sleeper: Sleeper,
    pub(crate) bell: Bell,
}

impl Doorbell {
    pub(crate) fn ring(&self) {
        if self.sleeper.must_ring() {
            self.bell.ring();
        }
    }
}

/// Towards one other worker.
pub(crate) struct Outbox {
    open: Batch,
    full: Producer<Batch>,
    empty: Consumer<Batch>,
    to: Arc<Doorbell>,
}

impl Outbox {
    /// Adds a frame; false when the other worker has fallen too far behind.
    #[inline]
    pub(crate) fn send(&mut self, parcel: Parcel) -> bool {
        let room = self.open.parcels.len() < BACKLOG;
        if room {
            self.open.parcels.push(parcel);
        }
        room
    }

    /// Adds a receipt. There are never more of them than frames the other worker has in flight.
    pub(crate) fn acknowledge(&mut self, ticket: Ticket) {
        self.open.receipts.push(ticket);
    }

    /// Sends what was added, if there is room; false when some of it is still here.
    #[inline]
    pub(crate) fn flush(&mut self) -> bool {
        if self.open.is_empty() {
            return true;
        }
        if self.full.is_full() {
            self.to.ring();
            return false;
        }
        let next = self.empty.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.open, next);
        // There was room, and nobody else pushes.
        let pushed = self.full.push(batch).is_ok();
        self.to.ring();
        pushed
    }
}

/// From one other worker.
pub(crate) struct Inbox {
    full: Consumer<Batch>,
    empty: Producer<Batch>,
}

impl Inbox {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    /// The next batch, to be given back by [`Inbox::recycle`].
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Batch> {
        self.full.pop().ok()
    }

    pub(crate) fn recycle(&mut self, mut batch: Batch) {
        batch.parcels.clear();
        batch.receipts.clear();
        // Without room it is freed: more are on their way than the ring holds.
        let _ = self.empty.push(batch);
    }
}

/// A worker's ends of the rings: by the other worker's number; `None` at its own.
#[derive(Default)]
pub(crate) struct Ports {
    pub(crate) to: Vec<Option<Outbox>>,
    pub(crate) from: Vec<Option<Inbox>>,
}

impl Ports {
    /// Whether there are other workers.
    #[inline]
    pub(crate) fn is_connected(&self) -> bool {
        self.to.len() > 1
    }

    /// Whether nothing waits to be taken or to be sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.from.iter().flatten().all(Inbox::is_empty)
            && self.to.iter().flatten().all(|outbox| outbox.open.is_empty())
    }

    /// Whether another worker has ended.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.to.iter().flatten().any(|outbox| outbox.full.is_abandoned())
    }

    /// The next batch from a worker.
    pub(crate) fn take(&mut self, from: usize) -> Option<Batch> {
        self.from.get_mut(from)?.as_mut()?.take()
    }

    /// Gives a batch back.
    pub(crate) fn recycle(&mut self, from: usize, batch: Batch) {
        if let Some(Some(inbox)) = self.from.get_mut(from) {
            inbox.recycle(batch);
        }
    }
}

/// Rings between all workers, whose doorbells are given.
pub(crate) fn connect(doorbells: &[Arc<Doorbell>]) -> Vec<Ports> {
    let count = doorbells.len();
    let mut ports: Vec<Ports> = (0..count).map(|_| Ports::default()).collect();
    for (receiver, doorbell) in doorbells.iter().enumerate() {
        for sender in 0..count {
            let (outbox, inbox) = if sender == receiver {
                (None, None)
            } else {
                let (full_in, full_out) = RingBuffer::new(DEPTH);
                let (empty_in, empty_out) = RingBuffer::new(DEPTH);
                let outbox = Outbox {
                    open: Batch::default(),
                    full: full_in,
                    empty: empty_out,
                    to: Arc::clone(doorbell),
                };
                (Some(outbox), Some(Inbox { full: full_out, empty: empty_in }))
            };
            if let Some(ports) = ports.get_mut(sender) {
                ports.to.push(outbox);
            }
            if let Some(ports) = ports.get_mut(receiver) {
                ports.from.push(inbox);
            }
        }
    }
    ports
}
