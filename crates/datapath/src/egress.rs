//! Where frames go: the switch's decision, the receiver's queue, and who serves it.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use manifold_dma::{Pinned, Reader};
use manifold_eswitch::{Decision, Source, Table};

use crate::counters::{Drop, FunctionCounters, PairCounters, Tally};
use crate::deliver::{Receiver, Tools};
use crate::frame::{BURST, Convoy, Frame, Pieces};
use crate::mesh::Outbox;
use crate::meter::{Laps, Stage};
use crate::parcel::{Address, Body, Parcel, Ticket};
use crate::route::Route;
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
    /// Grows with every change to the table, the functions and their steering.
    pub(crate) version: u64,
    /// By `FunctionId::index`.
    pub(crate) functions: &'w [Option<Function>],
    /// By `FunctionId::index`, then by queue pair.
    pub(crate) places: &'w mut [Vec<Place>],
    pub(crate) outboxes: &'w mut [Option<Outbox>],
    pub(crate) port: Option<&'w Port>,
    pub(crate) scratch: &'w mut Scratch,
    pub(crate) delivered: &'w mut Delivered,
    pub(crate) laps: &'w mut Laps,
    /// Counts frames and copies of them.
    pub(crate) work: &'w mut usize,
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
pub(crate) const NOWHERE: u32 = u32::MAX;
/// The uplink.
const UPLINK: u32 = u32::MAX - 1;

/// A receive queue as a number.
#[inline]
fn key(function: usize, pair: u16) -> u32 {
    (function as u32) << 16 | u32::from(pair)
}

/// The function and the pair of a receive queue.
#[inline]
fn place(key: u32) -> (usize, usize) {
    ((key >> 16) as usize, usize::from(key as u16))
}

/// Receive queues that frames were delivered to and whose drivers were not yet asked whether they want an interrupt. More
/// than so many at a time is a broadcast.
pub(crate) type Delivered = ArrayVec<u32, 64>;

impl Egress<'_> {
    /// Sends each frame where the switch says. Frames to one receive queue stay in order. [`Egress::interrupt`] is to be
    /// called when the burst is over.
    ///
    /// `route` is the sender's, `pin` of its memory. Frames from the uplink have none, and no `sender`.
    pub(crate) fn forward(
        &mut self,
        from: &Origin,
        pin: Option<&Pinned<'_>>,
        route: &mut Route,
        convoy: &mut Convoy<'_, '_>,
        mut sender: Sender<'_>,
    ) {
        *self.work += convoy.frames.len();
        let learn = self.functions.get(usize::from(from.address.number)).and_then(Option::as_ref);
        let learn = learn.filter(|function| sender.is_some() && function.steer.learns());
        let mut targets: ArrayVec<u32, BURST> = ArrayVec::new();
        let mut several: ArrayVec<(usize, Decision<'_>), BURST> = ArrayVec::new();
        let mut sent = Tally::default();
        // Whether all frames have one target.
        let mut alike = true;
        route.check(self.version);
        for (index, frame) in convoy.frames.iter_mut().enumerate().take(BURST) {
            let len = frame.switched_len(convoy.pieces);
            let repeats = route.repeats(frame.header(), len);
            let target = if repeats && route.steered.is_none() {
                route.target
            } else if repeats && let Some(function) = route.steered {
                self.steer(usize::from(function), frame, convoy.pieces).0
            } else {
                match self.table.classify(from.source, frame.header(), len) {
                    Decision::Drop(reason) => {
                        if let Some((counters, _)) = &sender {
                            counters.drop(Drop::Switch(reason));
                        }
                        alike = false;
                        targets.push(NOWHERE);
                        continue;
                    }
                    decision @ Decision::Multi(_) => {
                        several.push((index, decision));
                        NOWHERE
                    }
                    decision => self.single(route, &decision, frame, len, convoy.pieces),
                }
            };
            alike &= targets.last().is_none_or(|last| *last == target);
            targets.push(target);
            sent.count(frame);
            if let Some(function) = learn {
                function.steer.learn(frame, convoy.pieces, from.pair);
            }
        }
        if let Some((counters, _)) = &sender {
            counters.tx.add(&sent);
        }
        self.laps.lap(Stage::Classify);
        if let (true, Some(&target)) = (alike && several.is_empty(), targets.first()) {
            self.deliver(from, pin, target, convoy, convoy.all(), &mut sender);
            return;
        }
        // A replicated frame must not overtake or be overtaken, so it divides the burst.
        let mut start = 0;
        for (index, decision) in &several {
            self.unicast(from, pin, convoy, (start, *index), &targets, &mut sender);
            start = index + 1;
            if let Decision::Multi(to) = decision {
                for function in to.functions() {
                    *self.work += 1;
                    let Some(frame) = convoy.frames.get_mut(*index) else { break };
                    let (target, _) = self.steer(function.index(), frame, convoy.pieces);
                    self.deliver(from, pin, target, convoy, 1 << index, &mut sender);
                }
                if to.uplink() {
                    self.deliver(from, pin, UPLINK, convoy, 1 << index, &mut sender);
                }
            }
        }
        self.unicast(from, pin, convoy, (start, targets.len()), &targets, &mut sender);
    }

    /// Where a frame for one receiver goes; the route remembers it.
    #[inline(never)]
    fn single(
        &self,
        route: &mut Route,
        decision: &Decision<'_>,
        frame: &mut Frame,
        len: usize,
        pieces: &Pieces<'_>,
    ) -> u32 {
        let (target, steered) = match decision {
            Decision::Function(function) => {
                let function = function.index();
                let (target, fixed) = self.steer(function, frame, pieces);
                (target, (!fixed).then_some(function as u16))
            }
            _ => (UPLINK, None),
        };
        route.keep(frame.header(), len, decision, steered, target);
        self.prefetch(target);
        target
    }

    /// The receive queue of a frame for a function, and whether all others go there, too.
    #[inline]
    fn steer(&self, function: usize, frame: &mut Frame, pieces: &Pieces<'_>) -> (u32, bool) {
        match self.functions.get(function) {
            Some(Some(receiver)) if !receiver.steer.is_trivial() => {
                let (pair, hash) = receiver.steer.choose(frame, pieces);
                frame.set_hash(hash);
                (key(function, pair), false)
            }
            _ => (key(function, 0), true),
        }
    }

    /// Asks for what a delivery there looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, target: u32) {
        let (function, pair) = place(target);
        let place = self.places.get(function).and_then(|all| all.get(pair));
        if let Some(Place::Here(receiver)) = place {
            receiver.prefetch();
        }
    }

    /// Asks for the descriptors of the buffers that so many frames for there will take.
    #[inline]
    pub(crate) fn prepare(&mut self, target: u32, count: usize) {
        let (number, pair) = place(target);
        let Some(Some(function)) = self.functions.get(number) else { return };
        let place = self.places.get_mut(number).and_then(|all| all.get_mut(pair));
        if let Some(Place::Here(receiver)) = place {
            receiver.prepare(&function.reader.pin(), count);
        }
    }

    /// Sends frames `from..to` of a burst on, those with one target.
    fn unicast(
        &mut self,
        from: &Origin,
        pin: Option<&Pinned<'_>>,
        convoy: &mut Convoy<'_, '_>,
        (start, end): (usize, usize),
        targets: &[u32],
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
            self.deliver(from, pin, target, convoy, group, sender);
        }
    }

    /// Sends the frames that `which` has a bit for to one target.
    #[inline]
    fn deliver(
        &mut self,
        from: &Origin,
        pin: Option<&Pinned<'_>>,
        target: u32,
        convoy: &mut Convoy<'_, '_>,
        which: u64,
        sender: &mut Sender<'_>,
    ) {
        match target {
            NOWHERE => return,
            UPLINK => return self.send(convoy, which, sender),
            _ => {}
        }
        let (number, pair) = place(target);
        let Some(Some(function)) = self.functions.get(number) else { return };
        // Never to the sender: the switch does not say so, and its ring is open.
        if sender.is_some() && function.address == from.address {
            return;
        }
        let Some(counters) = function.counters.pair(target as u16) else { return };
        // A queue is asked about each batch by itself: of two, a ring that goes round says nothing.
        if self.delivered.is_full() || self.delivered.contains(&target) {
            self.interrupt();
        }
        let place = self.places.get_mut(number).and_then(|all| all.get_mut(pair));
        match place {
            Some(Place::Here(receiver)) => {
                let mut tools = Tools { counters, scratch: self.scratch, laps: self.laps };
                if receiver.deliver(&function.reader.pin(), convoy, which, &mut tools) {
                    self.delivered.push(target);
                }
            }
            Some(Place::There(worker)) => {
                if let Some(Some(outbox)) = self.outboxes.get_mut(*worker) {
                    let to = (function.address, target as u16);
                    hand_over(outbox, from, pin, to, convoy, which, sender);
                    self.laps.handed_over(which.count_ones());
                }
            }
            _ => counters.not_ready(which.count_ones()),
        }
    }

    /// Interrupts the drivers that were delivered to and want it. True when there were any to be asked: then a full barrier
    /// has been passed.
    #[inline]
    pub(crate) fn interrupt(&mut self) -> bool {
        let any = !self.delivered.is_empty();
        if any {
            fence(Ordering::SeqCst);
        }
        for target in self.delivered.drain(..) {
            let (number, pair) = place(target);
            let Some(Some(function)) = self.functions.get(number) else { continue };
            let Some(counters) = function.counters.pair(target as u16) else { continue };
            let place = self.places.get_mut(number).and_then(|all| all.get_mut(pair));
            if let Some(Place::Here(receiver)) = place {
                receiver.interrupt(&function.reader.pin(), counters, self.laps);
            }
        }
        any
    }

    fn send(&mut self, convoy: &mut Convoy<'_, '_>, which: u64, sender: &Sender<'_>) {
        for (index, frame) in convoy.frames.iter_mut().enumerate() {
            if which & (1 << index) == 0 {
                continue;
            }
            let sent = match self.port {
                Some(port) => port.send(frame, convoy.pieces, self.scratch),
                None => false,
            };
            if !sent && let Some((counters, _)) = sender {
                counters.drop(Drop::Uplink);
            }
        }
    }
}

/// Hands frames to the worker that serves the receive queue.
#[cold]
fn hand_over(
    outbox: &mut Outbox,
    from: &Origin,
    pin: Option<&Pinned<'_>>,
    (to, pair): (Address, u16),
    convoy: &Convoy<'_, '_>,
    which: u64,
    sender: &mut Sender<'_>,
) {
    for (index, frame) in convoy.frames.iter().enumerate() {
        if which & (1 << index) == 0 {
            continue;
        }
        let place = frame.position();
        let body = Body::of(frame, convoy.pieces, pin, || {
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
