//! Where frames go: the switch's decision, the receiver's queue, and who serves it.

use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::{Pinned, Reader};
use manifold_eswitch::{Decision, Recent, Source, Table};
use manifold_pci::FunctionId;

use crate::counters::{Drop, FunctionCounters, PairCounters, Tally};
use crate::deliver::{Receiver, Tools};
use crate::frame::{BURST, Frame, Pieces};
use crate::mesh::Outbox;
use crate::meter::{Laps, Stage};
use crate::parcel::{Address, Body, Parcel, Ticket};
use crate::software::Scratch;
use crate::steer::Steer;
use crate::uplink::Port;

/// What a worker keeps of a function.
pub(crate) struct Function {
    pub(crate) address: Address,
    pub(crate) reader: Reader,
    pub(crate) counters: FunctionCounters,
    pub(crate) steer: Arc<Steer>,
    /// Receive offloads the driver has switched off or on since it started, as masks of feature bits.
    pub(crate) offloads: Option<u64>,
}

/// Who serves a receive queue.
pub(crate) enum Place {
    Nobody,
    Here(Box<Receiver>),
    /// The worker of this number.
    There(usize),
}

/// Where frames can go: everything a burst needs but its own transmit queue.
pub(crate) struct Egress<'w> {
    pub(crate) table: &'w Table,
    /// By [`number`].
    pub(crate) functions: &'w [Option<Function>],
    /// By [`number`], then by queue pair.
    pub(crate) places: &'w mut [Vec<Place>],
    pub(crate) outboxes: &'w mut [Option<Outbox>],
    pub(crate) port: Option<&'w Port>,
    pub(crate) scratch: &'w mut Scratch,
    pub(crate) laps: &'w mut Laps,
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

/// Where a burst comes from.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) source: Source,
    /// Queue pair it was sent on.
    pub(crate) pair: u16,
    /// The sender; means nothing for the uplink.
    pub(crate) address: Address,
    /// Its transmit queue, for tickets.
    pub(crate) slot: u32,
    pub(crate) life: u32,
    /// Sequence number of the burst's first frame.
    pub(crate) sequence: u32,
}

/// A sender's counters, and how many tickets were given out for each of its frames.
type Sender<'s> = Option<(&'s PairCounters, &'s mut [u16; BURST])>;

/// No function and not the uplink: dropped, or for several receivers.
const NOWHERE: u32 = u32::MAX;
/// The uplink.
const UPLINK: u32 = u32::MAX - 1;

/// A receive queue as a number.
fn key(function: usize, pair: u16) -> u32 {
    (function as u32) << 16 | u32::from(pair)
}

impl Egress<'_> {
    /// Sends each frame where the switch says. Frames to one receive queue stay in order.
    ///
    /// `pin` is of the sender's memory. Frames from the uplink have none, and no `sender`.
    pub(crate) fn forward(
        &mut self,
        from: &Origin,
        pin: Option<&Pinned<'_>>,
        frames: &mut [Frame],
        pieces: &Pieces<'_>,
        mut sender: Sender<'_>,
    ) {
        let table = self.table;
        *self.work += frames.len();
        let learn = self.functions.get(usize::from(from.address.number)).and_then(Option::as_ref);
        let mut targets: ArrayVec<u32, BURST> = ArrayVec::new();
        let mut several: ArrayVec<(usize, Decision<'_>), BURST> = ArrayVec::new();
        let mut sent = Tally::default();
        // The receiver of the frame before, if all its frames go to one queue.
        let mut before = (usize::MAX, NOWHERE);
        let learn = learn.filter(|function| sender.is_some() && function.steer.learns());
        let mut recent = Recent::new(table, from.source);
        for (index, frame) in frames.iter_mut().enumerate().take(BURST) {
            let decision = recent.classify(frame.header(), frame.switched_len(pieces));
            let target = match decision {
                Decision::Drop(reason) => {
                    if let Some((counters, _)) = &sender {
                        counters.drop(Drop::Switch(reason));
                    }
                    targets.push(NOWHERE);
                    continue;
                }
                Decision::Function(function) => {
                    let function = number(function);
                    if function != before.0 {
                        let trivial = self.functions.get(function).and_then(Option::as_ref);
                        let trivial = trivial.is_none_or(|f| f.steer.is_trivial());
                        before = if trivial {
                            (function, key(function, 0))
                        } else {
                            (usize::MAX, self.steer(function, frame, pieces))
                        };
                    }
                    before.1
                }
                Decision::Uplink => UPLINK,
                Decision::Multi(_) => {
                    several.push((index, decision));
                    NOWHERE
                }
            };
            targets.push(target);
            sent.count(frame);
            if let Some(function) = learn {
                function.steer.learn(frame, pieces, from.pair);
            }
        }
        if let Some((counters, _)) = &sender {
            counters.tx.add(&sent);
        }
        self.laps.lap(Stage::Classify);
        // A replicated frame must not overtake or be overtaken, so it divides the burst.
        let mut start = 0;
        for (index, decision) in &several {
            self.unicast(from, pin, frames, (start, *index), &targets, pieces, &mut sender);
            start = index + 1;
            if let Decision::Multi(to) = decision {
                for function in to.functions() {
                    *self.work += 1;
                    let Some(frame) = frames.get_mut(*index) else { break };
                    let target = self.steer(number(function), frame, pieces);
                    self.deliver(from, pin, target, frames, 1 << index, pieces, &mut sender);
                }
                if to.uplink() {
                    self.send(frames, 1 << index, pieces, &sender);
                }
            }
        }
        self.unicast(from, pin, frames, (start, targets.len()), &targets, pieces, &mut sender);
    }

    /// The receive queue of a frame for a function.
    #[inline]
    fn steer(&self, function: usize, frame: &mut Frame, pieces: &Pieces<'_>) -> u32 {
        match self.functions.get(function) {
            Some(Some(receiver)) if !receiver.steer.is_trivial() => {
                let (pair, hash) = receiver.steer.choose(frame, pieces);
                frame.set_hash(hash);
                key(function, pair)
            }
            _ => key(function, 0),
        }
    }

    /// Sends frames `from..to` of a burst on, those with one target.
    #[expect(clippy::too_many_arguments, reason = "a burst and its surroundings")]
    #[inline]
    fn unicast(
        &mut self,
        from: &Origin,
        pin: Option<&Pinned<'_>>,
        frames: &mut [Frame],
        (start, end): (usize, usize),
        targets: &[u32],
        pieces: &Pieces<'_>,
        sender: &mut Sender<'_>,
    ) {
        // One bit per frame that is still to go; BURST is 32.
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
            match target {
                NOWHERE => {}
                UPLINK => self.send(frames, group, pieces, sender),
                _ => self.deliver(from, pin, target, frames, group, pieces, sender),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a burst and its surroundings")]
    #[inline]
    fn deliver(
        &mut self,
        from: &Origin,
        pin: Option<&Pinned<'_>>,
        target: u32,
        frames: &mut [Frame],
        which: u64,
        pieces: &Pieces<'_>,
        sender: &mut Sender<'_>,
    ) {
        let (to, pair) = ((target >> 16) as usize, target as u16);
        let Some(Some(function)) = self.functions.get(to) else { return };
        // Never to the sender: the switch does not say so, and its ring is open.
        if sender.is_some() && function.address == from.address {
            return;
        }
        let Some(counters) = function.counters.pair(pair) else { return };
        let place = self.places.get_mut(to).and_then(|all| all.get_mut(usize::from(pair)));
        match place {
            Some(Place::Here(receiver)) => {
                let mut tools = Tools { counters, scratch: self.scratch, laps: self.laps };
                receiver.deliver(&function.reader.pin(), frames, which, pieces, &mut tools);
            }
            Some(Place::There(worker)) => {
                if let Some(Some(outbox)) = self.outboxes.get_mut(*worker) {
                    hand_over(
                        outbox,
                        from,
                        pin,
                        function.address,
                        pair,
                        frames,
                        which,
                        pieces,
                        sender,
                    );
                    self.laps.handed_over(which.count_ones());
                }
            }
            _ => counters.not_ready(which.count_ones()),
        }
    }

    fn send(&mut self, frames: &mut [Frame], which: u64, pieces: &Pieces<'_>, sender: &Sender<'_>) {
        for (index, frame) in frames.iter_mut().enumerate() {
            if which & (1 << index) == 0 {
                continue;
            }
            let sent = match self.port {
                Some(port) => port.send(frame, pieces, self.scratch),
                None => false,
            };
            if !sent && let Some((counters, _)) = sender {
                counters.drop(Drop::Uplink);
            }
        }
    }
}

/// Hands frames to the worker that serves the receive queue.
#[expect(clippy::too_many_arguments, reason = "a burst and its surroundings")]
#[cold]
fn hand_over(
    outbox: &mut Outbox,
    from: &Origin,
    pin: Option<&Pinned<'_>>,
    to: Address,
    pair: u16,
    frames: &[Frame],
    which: u64,
    pieces: &Pieces<'_>,
    sender: &mut Sender<'_>,
) {
    for (index, frame) in frames.iter().enumerate() {
        if which & (1 << index) == 0 {
            continue;
        }
        let place = frame.position();
        let body = Body::of(frame, pieces, pin, || {
            let sequence = from.sequence.wrapping_add(place as u32);
            (from.address, Ticket { slot: from.slot, life: from.life, sequence })
        });
        let ticketed = matches!(body, Body::Left { .. });
        let sent = outbox.send(Parcel { to, pair, frame: *frame, body });
        if let Some((counters, tickets)) = sender {
            if !sent {
                counters.drop(Drop::Handover);
            } else if ticketed && let Some(out) = tickets.get_mut(place) {
                *out += 1;
            }
        }
    }
}
