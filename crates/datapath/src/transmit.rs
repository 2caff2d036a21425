//! Out of transmit queues: take a burst, forward it, give the buffers back.

use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Reader};
use manifold_eswitch::{Decision, Source, Table};
use manifold_pci::FunctionId;
use manifold_virtio::ring::{Burst, Queue, RingError};
use manifold_virtio::transport::{QueueEvents, QueueState};

use crate::config::QueueConfig;
use crate::counters::{Drop, FunctionCounters, PairCounters};
use crate::deliver::Receiver;
use crate::frame::{BURST, Frame, Pieces};
use crate::poll::Kick;
use crate::uplink::Uplink;

/// What a worker keeps of a function.
pub(crate) struct Function {
    pub(crate) reader: Reader,
    pub(crate) counters: FunctionCounters,
    /// How many of its receive queues frames go to.
    pub(crate) active_pairs: u16,
}

/// Where frames can go: everything a burst needs but its own transmit queue.
pub(crate) struct Egress<'w> {
    pub(crate) table: &'w Table,
    /// By [`number`].
    pub(crate) functions: &'w [Option<Function>],
    /// By [`number`], then by queue pair.
    pub(crate) receivers: &'w mut [Vec<Option<Receiver>>],
    pub(crate) uplink: Option<&'w mut Uplink>,
    /// Counts frames and copies of them.
    pub(crate) work: &'w mut usize,
}

/// The PF is 0, VF n is n + 1.
pub(crate) fn number(function: FunctionId) -> usize {
    match function {
        FunctionId::Pf => 0,
        FunctionId::Vf(index) => usize::from(index) + 1,
    }
}

/// A transmit queue.
pub(crate) struct Transmitter {
    pub(crate) function: FunctionId,
    pub(crate) pair: u16,
    pub(crate) kick: Kick,
    /// In the worker's poll (as opposed to armed).
    pub(crate) active: bool,
    /// Polls since it last had a frame.
    pub(crate) idle: u32,
    pub(crate) failed: bool,
    queue: Queue,
    events: Arc<dyn QueueEvents>,
}

impl Transmitter {
    /// Where the queue is, for whoever serves it next.
    pub(crate) fn state(&self) -> QueueState {
        self.queue.position()
    }

    pub(crate) fn new(config: QueueConfig) -> Result<Self, RingError> {
        Ok(Transmitter {
            function: config.function,
            pair: config.pair,
            kick: config.kick,
            active: true,
            idle: 0,
            failed: false,
            queue: Queue::new(config.addresses, config.features)?.resume(config.resume)?,
            events: config.events,
        })
    }

    /// Moves one burst; returns how many chains it took from the ring.
    pub(crate) fn poll(&mut self, egress: &mut Egress<'_>) -> usize {
        let functions = egress.functions;
        let Some(Some(function)) = functions.get(number(self.function)) else { return 0 };
        let Some(counters) = function.counters.pair(self.pair) else { return 0 };
        let pin = function.reader.pin();
        match self.burst(&pin, egress, counters) {
            Ok(taken) => taken,
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    /// Asks the driver to notify; true when it need not, because frames are there.
    pub(crate) fn arm(&mut self, functions: &[Option<Function>]) -> bool {
        let Some(Some(function)) = functions.get(number(self.function)) else { return false };
        let pin = function.reader.pin();
        match self.queue.open(&pin).and_then(|mut burst| burst.arm()) {
            Ok(more) => more,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn fail(&mut self, error: RingError) {
        self.failed = true;
        self.events.fail(&error);
    }

    fn burst(
        &mut self,
        pin: &Pinned<'_>,
        egress: &mut Egress<'_>,
        counters: &PairCounters,
    ) -> Result<usize, RingError> {
        let mut ring = self.queue.open(pin)?;
        if ring.available()? == 0 {
            return Ok(0);
        }
        ring.disarm();
        let mut pieces = Pieces::new();
        let mut frames: ArrayVec<Frame, BURST> = ArrayVec::new();
        let mut taken = 0;
        let mut result = Ok(());
        while !frames.is_full() && taken < 2 * BURST {
            let first = pieces.len();
            let popped =
                ring.pop(|slice, access| access == Access::Write || pieces.try_push(slice).is_ok());
            let chain = match popped {
                Ok(Some(chain)) => chain,
                Ok(None) => break,
                Err(RingError::TooManyPieces(_)) if first > 0 => {
                    // Not too many for a burst of its own.
                    pieces.truncate(first);
                    break;
                }
                Err(error) => {
                    // What was good before the bad chain still goes out.
                    pieces.truncate(first);
                    result = Err(error);
                    break;
                }
            };
            taken += 1;
            match Frame::read(&pieces, first, chain) {
                Ok(frame) => frames.push(frame),
                Err(_) => {
                    pieces.truncate(first);
                    counters.drop(Drop::BadHeader);
                    ring.complete(&chain, 0);
                }
            }
        }
        let from = Origin { source: Source::Function(self.function), pair: self.pair };
        egress.forward(from, &mut frames, &pieces, Some(counters));
        for frame in &frames {
            ring.complete(&frame.chain, 0);
        }
        if ring.publish() {
            counters.interrupts.add(1);
            self.events.interrupt();
        }
        result.map(|()| taken)
    }
}

/// Where a burst comes from.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) source: Source,
    /// Queue pair it was sent on; it is received on the pair of the same number, modulo the receiver's pairs.
    pub(crate) pair: u16,
}

impl Egress<'_> {
    /// Sends each frame where the switch says. Frames to one receiver stay in order.
    ///
    /// `counters` are the sender's; frames from the uplink have none.
    pub(crate) fn forward(
        &mut self,
        from: Origin,
        frames: &mut [Frame],
        pieces: &Pieces<'_>,
        counters: Option<&PairCounters>,
    ) {
        let table = self.table;
        *self.work += frames.len();
        let decisions: ArrayVec<Decision<'_>, BURST> = frames
            .iter()
            .take(BURST)
            .map(|frame| table.classify(from.source, frame.header(), frame.len()))
            .collect();
        let (mut forwarded, mut bytes) = (0, 0);
        for (frame, decision) in frames.iter().zip(&decisions) {
            match decision {
                Decision::Drop(reason) => {
                    if let Some(counters) = counters {
                        counters.drop(Drop::Switch(*reason));
                    }
                }
                _ => {
                    forwarded += 1;
                    bytes += frame.len() as u64;
                }
            }
        }
        if let Some(counters) = counters {
            counters.tx_frames.add(forwarded);
            counters.tx_bytes.add(bytes);
        }
        // A replicated frame must not overtake or be overtaken, so it divides the burst.
        let mut start = 0;
        while start < decisions.len() {
            let rest = decisions.get(start..).unwrap_or_default();
            let run = rest.iter().take_while(|d| !matches!(d, Decision::Multi(_))).count();
            if let Some(frames) = frames.get_mut(start..start + run) {
                self.forward_unicast(from, frames, rest, pieces, counters);
            }
            start += run;
            if let (Some(Decision::Multi(to)), Some(frame)) =
                (decisions.get(start), frames.get_mut(start))
            {
                for function in to.functions() {
                    *self.work += 1;
                    self.deliver(from, function, std::iter::once(&mut *frame), pieces);
                }
                if to.uplink() {
                    self.send(frame, pieces, counters);
                }
                start += 1;
            }
        }
    }

    fn forward_unicast(
        &mut self,
        from: Origin,
        frames: &mut [Frame],
        decisions: &[Decision<'_>],
        pieces: &Pieces<'_>,
        counters: Option<&PairCounters>,
    ) {
        // One bit per frame that is still to go; BURST is 32.
        let mut todo = (1u64 << frames.len()) - 1;
        while todo != 0 {
            let first = todo.trailing_zeros() as usize;
            todo &= todo - 1;
            match decisions.get(first) {
                Some(Decision::Function(function)) => {
                    let mut group = 1u64 << first;
                    for (index, decision) in decisions.iter().enumerate().take(frames.len()) {
                        if matches!(decision, Decision::Function(other) if other == function) {
                            group |= 1 << index;
                        }
                    }
                    todo &= !group;
                    let same = frames
                        .iter_mut()
                        .enumerate()
                        .filter(|(index, _)| group & (1 << index) != 0)
                        .map(|(_, frame)| frame);
                    self.deliver(from, *function, same, pieces);
                }
                Some(Decision::Uplink) => {
                    if let Some(frame) = frames.get_mut(first) {
                        self.send(frame, pieces, counters);
                    }
                }
                _ => {}
            }
        }
    }

    fn deliver<'f>(
        &mut self,
        from: Origin,
        to: FunctionId,
        frames: impl Iterator<Item = &'f mut Frame>,
        pieces: &Pieces<'_>,
    ) {
        let to_number = number(to);
        // Never to the sender: the switch does not say so, and its reader is pinned.
        if from.source == Source::Function(to) {
            return;
        }
        let Some(Some(function)) = self.functions.get(to_number) else { return };
        let receivers = self.receivers.get_mut(to_number).map_or(&mut [][..], |all| all);
        let pair =
            usize::from(from.pair).checked_rem(usize::from(function.active_pairs)).unwrap_or(0);
        let Some(counters) = function.counters.pair(pair as u16) else { return };
        match receivers.get_mut(pair) {
            Some(Some(receiver)) => {
                receiver.deliver(&function.reader.pin(), frames, pieces, counters);
            }
            _ => frames.for_each(|_| counters.drop(Drop::NotReady)),
        }
    }

    fn send(&mut self, frame: &mut Frame, pieces: &Pieces<'_>, counters: Option<&PairCounters>) {
        let sent = self.uplink.as_mut().is_some_and(|uplink| uplink.send(frame, pieces));
        if !sent && let Some(counters) = counters {
            counters.drop(Drop::Uplink);
        }
    }
}
