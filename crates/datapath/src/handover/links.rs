//! A link is a ring for a pair of workers, which one worker writes and the other reads.
//!
//! A [`HandoverBatch`] travels once per round, with frames for receivers of the other worker and
//! completions of frames that came from there. Neither side ever waits for the other. The batch's
//! vectors go back empty, so that none is allocated in the long run.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::message::{CompletionToken, HandoverFrame};
use crate::wake::waker::WorkerWaker;

/// Largest number of batches on their way from one worker to another.
const DEPTH: usize = 32;
/// Largest number of frames that wait for room in the ring. More are dropped, as a receive queue
/// drops frames that find no buffer.
const BACKLOG: usize = 512;

/// Frames and completions that one worker has for another.
#[derive(Debug, Default)]
pub(crate) struct HandoverBatch {
    pub(crate) frames: Vec<HandoverFrame>,
    /// Tokens of frames from the other worker's transmit queues that have been copied.
    pub(crate) completions: Vec<CompletionToken>,
}

impl HandoverBatch {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.completions.is_empty()
    }
}

/// The sending end of a link to another worker.
pub(crate) struct Outbox {
    open: HandoverBatch,
    full: Producer<HandoverBatch>,
    empty: Consumer<HandoverBatch>,
    to: Arc<WorkerWaker>,
}

impl Outbox {
    /// Adds a frame. Returns false when the other worker has fallen too far behind.
    #[inline]
    pub(crate) fn send(&mut self, frame: HandoverFrame) -> bool {
        let room = self.open.frames.len() < BACKLOG;
        if room {
            self.open.frames.push(frame);
        }
        room
    }

    /// Adds a completion. There are never more of them than frames that the other worker has in
    /// flight.
    pub(crate) fn complete(&mut self, token: CompletionToken) {
        self.open.completions.push(token);
    }

    /// Sends what was added if there is room. Returns false when some of it is still here.
    #[inline]
    fn flush(&mut self) -> bool {
        if self.open.is_empty() {
            return true;
        }
        if self.full.is_full() {
            self.to.wake();
            return false;
        }
        let next = self.empty.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.open, next);
        // The push succeeds: there was room, and nobody else pushes.
        let pushed = self.full.push(batch).is_ok();
        self.to.wake();
        pushed
    }
}

/// The sending ends of a worker's links, by the other worker's number; `None` at its own.
pub(crate) struct Outboxes(Vec<Option<Outbox>>);

impl Outboxes {
    pub(crate) fn get_mut(&mut self, worker: usize) -> Option<&mut Outbox> {
        self.0.get_mut(worker)?.as_mut()
    }

    /// Sends what was added to any of them. Returns false when some of it has to wait.
    pub(crate) fn flush(&mut self) -> bool {
        let mut all = true;
        for outbox in self.0.iter_mut().flatten() {
            all &= outbox.flush();
        }
        all
    }

    /// Returns true if nothing waits to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(|outbox| outbox.open.is_empty())
    }

    /// Returns true if another worker has ended.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.iter().flatten().any(|outbox| outbox.full.is_abandoned())
    }
}

/// The receiving end of a link from another worker.
struct Inbox {
    full: Consumer<HandoverBatch>,
    empty: Producer<HandoverBatch>,
}

/// The receiving ends of a worker's links, by the other worker's number; `None` at its own.
pub(crate) struct Inboxes(Vec<Option<Inbox>>);

impl Inboxes {
    /// Returns the number of workers.
    #[inline]
    pub(crate) fn workers(&self) -> usize {
        self.0.len()
    }

    /// Returns true if nothing waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(|inbox| inbox.full.is_empty())
    }

    /// Takes the next batch from a worker. Give it back by [`Inboxes::recycle`].
    #[inline]
    pub(crate) fn take(&mut self, from: usize) -> Option<HandoverBatch> {
        self.0.get_mut(from)?.as_mut()?.full.pop().ok()
    }

    /// Gives a batch's memory back to the worker it came from.
    pub(crate) fn recycle(&mut self, from: usize, mut batch: HandoverBatch) {
        batch.frames.clear();
        batch.completions.clear();
        if let Some(Some(inbox)) = self.0.get_mut(from) {
            // Without room the batch is freed: more are on their way than the ring holds.
            let _ = inbox.empty.push(batch);
        }
    }
}

/// Makes the links between all workers, whose wakers are given.
pub(crate) fn connect(wakers: &[Arc<WorkerWaker>]) -> Vec<(Outboxes, Inboxes)> {
    let count = wakers.len();
    let mut ends: Vec<_> =
        (0..count).map(|_| (Outboxes(Vec::new()), Inboxes(Vec::new()))).collect();
    for (receiver, waker) in wakers.iter().enumerate() {
        for sender in 0..count {
            let (outbox, inbox) = if sender == receiver {
                (None, None)
            } else {
                let (full_in, full_out) = RingBuffer::new(DEPTH);
                let (empty_in, empty_out) = RingBuffer::new(DEPTH);
                let outbox = Outbox {
                    open: HandoverBatch::default(),
                    full: full_in,
                    empty: empty_out,
                    to: Arc::clone(waker),
                };
                (Some(outbox), Some(Inbox { full: full_out, empty: empty_in }))
            };
            if let Some((outboxes, _)) = ends.get_mut(sender) {
                outboxes.0.push(outbox);
            }
            if let Some((_, inboxes)) = ends.get_mut(receiver) {
                inboxes.0.push(inbox);
            }
        }
    }
    ends
}
