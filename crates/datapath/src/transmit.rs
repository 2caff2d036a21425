//! Out of transmit queues: take a burst, forward it, give the buffers back.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};
use manifold_eswitch::Source;
use manifold_offload::Offloads;
use manifold_pci::FunctionId;
use manifold_virtio::ring::{Burst, Chain, Queue, RingError};
use manifold_virtio::transport::{QueueEvents, QueueState};

use crate::command::Done;
use crate::config::{QueueConfig, transmit_offloads};
use crate::counters::{Drop, PairCounters};
use crate::deliver::LINE;
use crate::egress::{Egress, Origin};
use crate::flight::Flight;
use crate::frame::{BURST, Convoy, Frames, PIECES, Pieces};
use crate::meter::Stage;
use crate::moderation::Moderation;
use crate::poll::Kick;
use crate::route::Route;

/// A transmit queue.
pub(crate) struct Transmitter {
    pub(crate) function: FunctionId,
    pub(crate) pair: u16,
    pub(crate) kick: Kick,
    /// In the worker's poll (as opposed to armed).
    pub(crate) active: bool,
    /// When it was first found empty, since it last had a frame.
    pub(crate) empty_since: Option<u64>,
    pub(crate) failed: bool,
    /// Its slot, and which of the queues in that slot it is.
    pub(crate) slot: u32,
    pub(crate) life: u32,
    /// Who waits for it to stop, which it does when nothing is in flight any more.
    pub(crate) leaving: Option<Done>,
    pub(crate) moderation: Moderation,
    pub(crate) flight: Flight,
    pub(crate) route: Route,
    queue: Queue,
    way: Way,
    pub(crate) events: Arc<dyn QueueEvents>,
}

/// How the driver hands frames over.
#[derive(Clone, Copy)]
struct Way {
    /// Bytes of virtio_net_hdr.
    header_len: usize,
    negotiated: Offloads,
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
            kick: config.kick.clone(),
            active: true,
            empty_since: None,
            failed: false,
            slot: 0,
            life: 0,
            leaving: None,
            moderation: Moderation::default(),
            flight: Flight::default(),
            route: Route::default(),
            queue: config.queue()?,
            way: Way {
                header_len: config.header_len(),
                negotiated: transmit_offloads(config.features),
            },
            events: config.events,
        })
    }

    /// Asks the processor for what the next burst looks at first.
    #[inline]
    pub(crate) fn prefetch(&self) {
        self.queue.prefetch();
    }

    /// Moves one burst; returns how many chains it took from the ring.
    #[inline]
    pub(crate) fn poll(&mut self, egress: &mut Egress<'_>, frames: &mut Frames) -> usize {
        let functions = egress.functions;
        let Some(Some(function)) = functions.get(self.function.index()) else { return 0 };
        let Some(counters) = function.counters.pair(self.pair) else { return 0 };
        let pin = function.reader.pin();
        // When a frame comes, its way is clear.
        egress.prefetch(self.route.target);
        let mut burst = Taken {
            origin: Origin {
                source: Source::Function(self.function),
                pair: self.pair,
                address: function.address,
                slot: self.slot,
                life: self.life,
                sequence: self.flight.next(),
            },
            way: self.way,
            flight: &mut self.flight,
            route: &mut self.route,
            moderation: &mut self.moderation,
            events: &*self.events,
            counters,
        };
        let result = match &mut self.queue {
            Queue::Split(queue) => {
                queue.open(&pin).and_then(|ring| burst.poll(ring, &pin, egress, frames))
            }
            Queue::Packed(queue) => {
                queue.open(&pin).and_then(|ring| burst.poll(ring, &pin, egress, frames))
            }
        };
        result.unwrap_or_else(|error| {
            self.fail(&error);
            0
        })
    }

    /// Gives back what has come back from other workers.
    pub(crate) fn settle(&mut self, egress: &mut Egress<'_>) {
        let functions = egress.functions;
        let Some(Some(function)) = functions.get(self.function.index()) else { return };
        let Some(counters) = function.counters.pair(self.pair) else { return };
        let pin = function.reader.pin();
        let (flight, moderation) = (&mut self.flight, &mut self.moderation);
        let (events, egress) = (&*self.events, &mut *egress);
        let result = match &mut self.queue {
            Queue::Split(queue) => queue
                .open(&pin)
                .map(|ring| settle(ring, flight, moderation, events, counters, egress)),
            Queue::Packed(queue) => queue
                .open(&pin)
                .map(|ring| settle(ring, flight, moderation, events, counters, egress)),
        };
        if let Err(error) = result {
            self.fail(&error);
        }
    }

    /// Asks the driver to notify; true when it need not, because frames are there.
    pub(crate) fn arm(&mut self, egress: &Egress<'_>) -> bool {
        let Some(Some(function)) = egress.functions.get(self.function.index()) else {
            return false;
        };
        let pin = function.reader.pin();
        match self.queue.open(&pin).and_then(|mut burst| burst.arm()) {
            Ok(more) => more,
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn fail(&mut self, error: &RingError) {
        self.failed = true;
        self.events.fail(error);
    }
}

fn settle<'p, R: Burst<'p>>(
    mut ring: R,
    flight: &mut Flight,
    moderation: &mut Moderation,
    events: &dyn QueueEvents,
    counters: &PairCounters,
    egress: &mut Egress<'_>,
) {
    let mut settled = 0;
    while let Some(chain) = flight.pop() {
        ring.complete(&chain, 0);
        settled += 1;
    }
    if settled > 0 {
        let wanted = ring.publish();
        if moderation.passed(settled, wanted, || egress.laps.now()) {
            counters.tx.interrupts.add(1);
            events.interrupt();
        }
    }
}

/// What a burst needs of its transmit queue, apart from the ring.
struct Taken<'t> {
    origin: Origin,
    way: Way,
    flight: &'t mut Flight,
    route: &'t mut Route,
    moderation: &'t mut Moderation,
    events: &'t dyn QueueEvents,
    counters: &'t PairCounters,
}

impl Taken<'_> {
    /// Forwards a burst, if there is one; whoever finds none need not make room for it.
    #[inline]
    fn poll<'p, R: Burst<'p>>(
        &mut self,
        mut ring: R,
        pin: &'p Pinned<'_>,
        egress: &mut Egress<'_>,
        frames: &mut Frames,
    ) -> Result<usize, RingError> {
        if ring.available()? == 0 { Ok(0) } else { self.forward(ring, pin, egress, frames) }
    }

    #[inline(never)]
    fn forward<'p, R: Burst<'p>>(
        &mut self,
        mut ring: R,
        pin: &'p Pinned<'_>,
        egress: &mut Egress<'_>,
        frames: &mut Frames,
    ) -> Result<usize, RingError> {
        ring.disarm();
        egress.laps.begin();
        let mut pieces = Pieces::new();
        let mut chains: ArrayVec<Chain, BURST> = ArrayVec::new();
        let mut ends: ArrayVec<u16, BURST> = ArrayVec::new();
        let taken = take(&mut ring, &mut pieces, &mut chains, &mut ends);
        // Where these probably go, buffers are looked up by the time they are decided on.
        egress.prepare(self.route.target, chains.len());
        egress.laps.lap(Stage::Take);

        let (mut at, mut good) = (0, 0);
        for (index, (chain, end)) in chains.iter().zip(&ends).enumerate() {
            let end = usize::from(*end);
            let extent = (at, end - at);
            at = end;
            let Way { header_len, negotiated } = self.way;
            let Some(frame) = frames.get_mut(good) else { break };
            frame.set_position(index);
            match frame.read(&pieces, extent, header_len, negotiated, chain.readable) {
                Ok(()) => good += 1,
                Err(_) => self.counters.drop(Drop::BadHeader),
            }
        }
        let frames = frames.get_mut(..good).unwrap_or_default();
        egress.laps.lap(Stage::Read);

        let mut tickets = [0; BURST];
        let mut convoy = Convoy::new(frames, &pieces);
        let sender = Some((self.counters, &mut tickets));
        egress.forward(&self.origin, Some(pin), self.route, &mut convoy, sender);

        if self.flight.is_empty() && tickets == [0; BURST] {
            ring.complete_all(&chains, |_| 0);
        } else {
            for (chain, tickets) in chains.iter().zip(tickets) {
                self.flight.add(*chain, tickets);
            }
            while let Some(chain) = self.flight.pop() {
                ring.complete(&chain, 0);
            }
        }
        let visible = ring.make_visible();
        if !egress.interrupt() && visible {
            fence(Ordering::SeqCst);
        }
        let wanted = ring.wants_interrupt();
        if self.moderation.passed(chains.len(), wanted, || egress.laps.now()) {
            self.counters.tx.interrupts.add(1);
            self.events.interrupt();
        }
        egress.laps.lap(Stage::Return);
        egress.laps.end(chains.len());
        // What was good before a bad chain has gone out.
        taken.map(|()| chains.len())
    }
}

/// Takes up to a burst of chains, each with the end of its pieces, and asks for the frames' first cache lines.
#[inline]
fn take<'p, R: Burst<'p>>(
    ring: &mut R,
    pieces: &mut Pieces<'p>,
    chains: &mut ArrayVec<Chain, BURST>,
    ends: &mut ArrayVec<u16, BURST>,
) -> Result<(), RingError> {
    loop {
        let wanted = chains.remaining_capacity();
        ring.pop_direct(wanted, Access::Read, |chain, slice| {
            ask(&slice);
            pieces.push(slice);
            chains.push(chain);
            ends.push(pieces.len() as u16);
        })?;
        if chains.is_full() || !take_any(ring, pieces, chains, ends)? {
            return Ok(());
        }
    }
}

/// As [`take`], for one chain of any shape; false when there is none, or no room for it in this burst.
#[inline(never)]
fn take_any<'p, R: Burst<'p>>(
    ring: &mut R,
    pieces: &mut Pieces<'p>,
    chains: &mut ArrayVec<Chain, BURST>,
    ends: &mut ArrayVec<u16, BURST>,
) -> Result<bool, RingError> {
    // One for each chain that may yet be taken in one piece.
    let limit = PIECES - chains.remaining_capacity();
    let first = pieces.len();
    let popped = ring.pop(|slice: Slice<'p>, access| {
        if access == Access::Write {
            return true;
        }
        ask(&slice);
        let fits = pieces.len() < limit || (first == 0 && !pieces.is_full());
        if fits {
            pieces.push(slice);
        }
        fits
    });
    match popped {
        Ok(Some(chain)) => {
            chains.push(chain);
            ends.push(pieces.len() as u16);
            Ok(pieces.len() < limit)
        }
        Ok(None) => Ok(false),
        Err(RingError::TooManyPieces(_)) if first > 0 => {
            // Not too many for a burst of its own.
            pieces.truncate(first);
            Ok(false)
        }
        Err(error) => {
            pieces.truncate(first);
            Err(error)
        }
    }
}

/// Asks for the cache lines that are looked at first.
#[inline]
fn ask(slice: &Slice<'_>) {
    slice.prefetch();
    if slice.len() > LINE {
        slice.skip(LINE).prefetch();
    }
}
