//! This module takes frames from other workers, and completions of the frames that went to them.

use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;

use super::queues::Queues;
use crate::frame::Frame;
use crate::frame::burst::{BURST, FrameBurst};
use crate::frame::pieces::Pieces;
use crate::handover::links::HandoverBatch;
use crate::handover::message::{CompletionToken, HandoverFrame, Payload};
use crate::receive::RxContext;
use crate::switch::egress::Egress;
use crate::switch::function::Switch;

impl Queues {
    /// Takes what other workers sent and sends what is for them. Returns true if anything moved.
    pub(crate) fn exchange(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.inboxes.workers() {
            while let Some(mut batch) = self.inboxes.take(from) {
                moved = true;
                self.unpack(from, &mut batch);
                self.inboxes.recycle(from, batch);
            }
        }
        self.flush();
        moved
    }

    /// Sends what is for other workers. Returns false when some of it has to wait.
    pub(crate) fn flush(&mut self) -> bool {
        let all = self.egress.outboxes.flush();
        if self.egress.outboxes.is_abandoned() {
            // A worker has died, and the frames that it had in flight are lost.
            for slot in 0..self.transmit.len() {
                if let Some(Some(place)) = self.transmit.get_mut(slot) {
                    place.queue.in_flight.give_up();
                }
                self.give_back(slot);
            }
        }
        all
    }

    fn unpack(&mut self, from: usize, batch: &mut HandoverBatch) {
        let mut frames = &mut batch.frames[..];
        while let Some(first) = frames.first() {
            let same = |frame: &&HandoverFrame| {
                (frame.to, frame.pair) == (first.to, first.pair)
                    && frame.payload.sender() == first.payload.sender()
            };
            let run = frames.iter().take(BURST).take_while(same).count();
            let (run, rest) = frames.split_at_mut(run);
            frames = rest;
            self.egress.work += run.len();
            deliver(&self.switch, &mut self.egress, run);
            let Some(outbox) = self.egress.outboxes.get_mut(from) else { continue };
            for frame in run {
                if let Payload::InPlace { token, .. } = &frame.payload {
                    outbox.complete(*token);
                }
            }
        }
        self.complete(&batch.completions);
    }

    /// Counts completions, and gives back the chains of each transmit queue that had some.
    fn complete(&mut self, completions: &[CompletionToken]) {
        for of_slot in completions.chunk_by(|one, other| one.slot == other.slot) {
            let Some(slot) = of_slot.first().map(|token| token.slot as usize) else { continue };
            if let Some(Some(place)) = self.transmit.get_mut(slot) {
                for token in of_slot.iter().filter(|token| token.life == place.queue.life) {
                    place.queue.in_flight.completed(token.sequence);
                }
            }
            self.give_back(slot);
        }
    }

    /// Gives back chains of a transmit queue that are not in flight any more.
    fn give_back(&mut self, slot: usize) {
        if let Some(Some(place)) = self.transmit.get_mut(slot) {
            place.queue.give_back(&self.switch, || self.egress.timer.now());
        }
        self.finish_stopping(slot);
    }
}

/// Delivers frames for one receive queue, whose payloads are in one sender's memory or came along.
fn deliver(switch: &Switch, egress: &mut Egress, frames: &mut [HandoverFrame]) {
    let Some(first) = frames.first() else { return };
    let (to, pair) = (first.to, first.pair);
    // A function that is gone has no counters to count in, and another may have its index.
    let Some(function) = switch.instance(to) else { return };
    let Some(counters) = function.counters.pair(pair) else { return };
    let Some((queue, scratch, timer)) = egress.local_with_context(usize::from(to.index), pair)
    else {
        counters.no_driver(frames.len() as u32);
        return;
    };
    let sender = first.payload.sender().and_then(|sender| switch.instance(sender));
    let pin = sender.map(|sender| sender.reader.pin());
    let mut pieces = Pieces::new();
    let mut ready = ArrayVec::<Frame, BURST>::new();
    for HandoverFrame { frame, payload, .. } in frames {
        let start = pieces.len();
        if payload.add_to(pin.as_ref(), &mut pieces) {
            ready.push(frame.with_rest(start, pieces.len() - start));
        } else {
            // The memory was unmapped meanwhile, which the domain's faults say.
            pieces.truncate(start);
        }
    }
    let mut burst = FrameBurst::new(&mut ready, &pieces);
    let all = burst.all();
    let pin = function.reader.pin();
    let mut context = RxContext { counters, scratch, timer };
    if queue.deliver(&pin, &mut burst, all, &mut context) {
        fence(Ordering::SeqCst);
        queue.interrupt(&pin, counters, timer);
    }
}
