//! This module forwards a burst through the switch.
//!
//! ```text
//!   burst ─ classify ─► a target for each frame ─┬─ all alike: one delivery
//!           (or the kept route)                  ├─ several targets: one delivery for each
//!                                                └─ several receivers: frame by frame, in order
//! ```

use arrayvec::ArrayVec;
use manifold_dma::Pinned;
use manifold_eswitch::{Decision, Source};

use super::egress::Egress;
use super::function::Switch;
use super::route::Route;
use super::target::{Target, TargetKind};
use crate::counters::{BurstTally, DropCause, PairCounters};
use crate::frame::Frame;
use crate::frame::burst::{BURST, FrameBurst};
use crate::frame::pieces::Pieces;
use crate::handover::message::{CompletionToken, FunctionInstance, HandoverFrame, Payload};
use crate::stages::Stage;

/// The transmit queue that a burst comes from.
pub(crate) struct Sender<'s> {
    pub(crate) function: FunctionInstance,
    /// Queue pair of the sender.
    pub(crate) pair: u16,
    /// Completion token of the burst's first frame.
    pub(crate) first: CompletionToken,
    /// Pin of the sender's memory.
    pub(crate) pin: &'s Pinned<'s>,
    pub(crate) counters: &'s PairCounters,
    /// Number of completions that are outstanding for each frame, by its position in the burst.
    pub(crate) outstanding: [u16; BURST],
}

/// The state that a burst needs on its way: the switch that decides, and the side that it is
/// delivered to.
pub(crate) struct Forwarder<'w> {
    pub(crate) switch: &'w Switch,
    pub(crate) egress: &'w mut Egress,
    pub(crate) source: Source,
    /// Sender of the burst; `None` for the uplink.
    pub(crate) sender: Option<Sender<'w>>,
}

impl Forwarder<'_> {
    /// Sends each frame where the switch says. Frames to one receive queue stay in order.
    /// [`Egress::interrupt`] is to be called when the burst is over.
    ///
    /// `route` is the sender's.
    pub(crate) fn forward(&mut self, route: &mut Route, burst: &mut FrameBurst<'_, '_>) {
        self.egress.work += burst.frames.len();
        let sender = self.sender.as_ref();
        let learner = sender
            .and_then(|sender| self.switch.function(usize::from(sender.function.index)))
            .filter(|function| function.steering.learns());
        let mut targets: ArrayVec<Target, BURST> = ArrayVec::new();
        let mut replicated: ArrayVec<(usize, Decision<'_>), BURST> = ArrayVec::new();
        let mut sent = BurstTally::default();
        // This is true as long as all frames have one target.
        let mut alike = true;
        route.check(self.switch.version);
        for (index, frame) in burst.frames.iter_mut().enumerate().take(BURST) {
            let len = frame.switched_len(burst.pieces);
            let repeats = route.repeats(frame.header(), len);
            let target = if repeats && route.steered.is_none() {
                route.target
            } else if repeats && let Some(function) = route.steered {
                self.steer(usize::from(function), frame, burst.pieces).0
            } else {
                match self.switch.table.classify(self.source, frame.header(), len) {
                    Decision::Drop(reason) => {
                        if let Some(sender) = sender {
                            sender.counters.drop(DropCause::Switch(reason));
                        }
                        alike = false;
                        targets.push(Target::NONE);
                        continue;
                    }
                    decision @ Decision::Multi(_) => {
                        replicated.push((index, decision));
                        Target::NONE
                    }
                    decision => self.route(route, &decision, frame, len, burst.pieces),
                }
            };
            alike &= targets.last().is_none_or(|last| *last == target);
            targets.push(target);
            sent.count(frame);
            if let (Some(function), Some(sender)) = (learner, sender) {
                function.steering.learn(frame, burst.pieces, sender.pair);
            }
        }
        if let Some(sender) = sender {
            sender.counters.tx.add(&sent);
        }
        self.egress.timer.end_stage(Stage::Classify);
        if let (true, Some(&target)) = (alike && replicated.is_empty(), targets.first()) {
            self.send(target, burst, burst.all());
            return;
        }
        self.send_mixed(burst, &targets, &replicated);
    }

    /// Finds the target of a frame that has one receiver, and keeps the route.
    #[inline(never)]
    fn route(
        &self,
        route: &mut Route,
        decision: &Decision<'_>,
        frame: &mut Frame,
        len: usize,
        pieces: &Pieces<'_>,
    ) -> Target {
        let (target, steered) = match decision {
            Decision::Function(function) => {
                let index = function.index();
                let (target, fixed) = self.steer(index, frame, pieces);
                (target, (!fixed).then_some(index as u16))
            }
            _ => (Target::UPLINK, None),
        };
        route.keep(frame.header(), len, decision, steered, target);
        self.egress.prefetch(target);
        target
    }

    /// Returns the receive queue of a frame for a function, and true if every frame for the
    /// function goes there.
    #[inline]
    fn steer(&self, function: usize, frame: &mut Frame, pieces: &Pieces<'_>) -> (Target, bool) {
        match self.switch.function(function) {
            Some(receiver) if !receiver.steering.is_trivial() => {
                let (pair, hash) = receiver.steering.choose(frame, pieces);
                frame.set_hash(hash);
                (Target::queue(function, pair), false)
            }
            _ => (Target::queue(function, 0), true),
        }
    }

    /// Sends the frames of a burst that do not all have one target. A replicated frame must not
    /// overtake others or be overtaken, so it divides the burst.
    fn send_mixed(
        &mut self,
        burst: &mut FrameBurst<'_, '_>,
        targets: &[Target],
        replicated: &[(usize, Decision<'_>)],
    ) {
        let mut start = 0;
        for (index, decision) in replicated {
            self.send_range(burst, targets, start, *index);
            start = index + 1;
            if let Decision::Multi(receivers) = decision {
                for function in receivers.functions() {
                    self.egress.work += 1;
                    let Some(frame) = burst.frames.get_mut(*index) else { break };
                    let (target, _) = self.steer(function.index(), frame, burst.pieces);
                    self.send(target, burst, 1 << index);
                }
                if receivers.uplink() {
                    self.send(Target::UPLINK, burst, 1 << index);
                }
            }
        }
        self.send_range(burst, targets, start, targets.len());
    }

    /// Sends the frames `start..end` of a burst, those for one target together.
    fn send_range(
        &mut self,
        burst: &mut FrameBurst<'_, '_>,
        targets: &[Target],
        start: usize,
        end: usize,
    ) {
        // There is one bit for each frame that is still to go. BURST is 32.
        let mut todo = ((1u64 << end) - 1) & !((1u64 << start) - 1);
        while todo != 0 {
            let first = todo.trailing_zeros() as usize;
            let Some(&target) = targets.get(first) else { break };
            let mut group = 0;
            for (index, other) in targets.iter().enumerate().skip(first) {
                group |= u64::from(*other == target) << index;
            }
            group &= todo;
            todo &= !group;
            self.send(target, burst, group);
        }
    }

    /// Sends the frames that `which` has a bit for to one target.
    #[inline]
    fn send(&mut self, target: Target, burst: &mut FrameBurst<'_, '_>, which: u64) {
        match target.kind() {
            TargetKind::None => {}
            TargetKind::Uplink => self.send_to_uplink(burst, which),
            TargetKind::Queue(function, _) => {
                // The switch never sends a frame back to its sender. This makes sure of it, because
                // the sender's ring is open.
                let own = |sender: &Sender<'_>| usize::from(sender.function.index) == function;
                if self.sender.as_ref().is_some_and(own) {
                    return;
                }
                if let Some(worker) = self.egress.deliver(self.switch, target, burst, which) {
                    self.hand_over(worker, target, burst, which);
                }
            }
        }
    }

    fn send_to_uplink(&mut self, burst: &mut FrameBurst<'_, '_>, which: u64) {
        for (index, frame) in burst.frames.iter_mut().enumerate() {
            if which & (1 << index) == 0 {
                continue;
            }
            let sent = match &self.switch.port {
                Some(port) => port.send(frame, burst.pieces, &mut self.egress.scratch),
                None => false,
            };
            if !sent && let Some(sender) = &self.sender {
                sender.counters.drop(DropCause::UplinkRefused);
            }
        }
    }

    /// Hands frames to the worker that serves the receive queue.
    #[cold]
    fn hand_over(&mut self, worker: usize, target: Target, burst: &FrameBurst<'_, '_>, which: u64) {
        let TargetKind::Queue(index, pair) = target.kind() else { return };
        let Some(receiver) = self.switch.function(index) else { return };
        let Some(outbox) = self.egress.outboxes.get_mut(worker) else { return };
        for (index, frame) in burst.frames.iter().enumerate() {
            if which & (1 << index) == 0 {
                continue;
            }
            let position = frame.position();
            let payload = Payload::of(
                frame,
                burst.pieces,
                self.sender
                    .as_ref()
                    .map(|sender| (sender.pin, sender.function, sender.first.plus(position))),
            );
            let in_place = matches!(payload, Payload::InPlace { .. });
            let frame = HandoverFrame { to: receiver.instance, pair, frame: *frame, payload };
            let sent = outbox.send(frame);
            if let Some(sender) = &mut self.sender {
                if !sent {
                    sender.counters.drop(DropCause::WorkerOverloaded);
                } else if in_place && let Some(count) = sender.outstanding.get_mut(position) {
                    *count += 1;
                }
            }
        }
        self.egress.timer.handed_over(which.count_ones());
    }
}
