//! A transmit queue takes a burst, forwards it, and gives its buffers back.

pub(crate) mod in_flight;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};
use manifold_eswitch::Source;
use manifold_offload::Offloads;
use manifold_pci::FunctionId;
use manifold_virtio::ring::{Burst, Chain, Queue, RingError};
use manifold_virtio::transport::{QueueEvents, QueueState};

use self::in_flight::InFlight;
use crate::config::{QueueConfig, transmit_offloads};
use crate::counters::{DropCause, PairCounters};
use crate::frame::burst::{BURST, FrameBurst, Frames};
use crate::frame::pieces::{LINE, MAX_PIECES, Pieces};
use crate::handover::message::{CompletionToken, FunctionInstance};
use crate::moderation::Moderation;
use crate::stages::Stage;
use crate::switch::egress::Egress;
use crate::switch::forward::{Forwarder, Sender};
use crate::switch::function::Switch;
use crate::switch::route::Route;

/// A transmit queue, as the worker that serves it sees it.
pub(crate) struct TxQueue {
    pub(crate) function: FunctionId,
    pub(crate) pair: u16,
    /// Slot of the queue at its worker, and its number among the queues that have been in that
    /// slot.
    pub(crate) slot: u32,
    pub(crate) life: u32,
    pub(crate) failed: bool,
    pub(crate) moderation: Moderation,
    pub(crate) in_flight: InFlight,
    pub(crate) route: Route,
    queue: Queue,
    format: TxFormat,
    events: Arc<dyn QueueEvents>,
}

/// The form in which the driver hands frames over.
#[derive(Clone, Copy)]
struct TxFormat {
    /// Length of virtio_net_hdr in bytes.
    header_len: usize,
    /// Offloads that the driver may request.
    negotiated: Offloads,
}

impl TxQueue {
    pub(crate) fn new(config: QueueConfig) -> Result<Self, RingError> {
        Ok(TxQueue {
            function: config.function,
            pair: config.pair,
            slot: 0,
            life: 0,
            failed: false,
            moderation: Moderation::default(),
            in_flight: InFlight::default(),
            route: Route::default(),
            queue: config.queue()?,
            format: TxFormat {
                header_len: config.header_len(),
                negotiated: transmit_offloads(config.features),
            },
            events: config.events,
        })
    }

    /// Returns the place that the queue has reached, for the one that serves it next.
    pub(crate) fn state(&self) -> QueueState {
        self.queue.position()
    }

    /// Asks the processor for what the next burst looks at first.
    #[inline]
    pub(crate) fn prefetch(&self) {
        self.queue.prefetch();
    }

    /// Moves one burst. Returns how many chains it took from the ring.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        switch: &Switch,
        egress: &mut Egress,
        frames: &mut Frames,
    ) -> usize {
        let Some((function, counters)) = switch.queue(self.function.index(), self.pair) else {
            return 0;
        };
        let pin = function.reader.pin();
        // The receiver's ring is in the cache when a frame comes.
        egress.prefetch(self.route.target);
        let mut burst = TransmitBurst {
            function: self.function,
            instance: function.instance,
            pair: self.pair,
            first: CompletionToken {
                slot: self.slot,
                life: self.life,
                sequence: self.in_flight.next(),
            },
            format: self.format,
            in_flight: &mut self.in_flight,
            route: &mut self.route,
            moderation: &mut self.moderation,
            events: &*self.events,
            counters,
            pin: &pin,
            switch,
            egress,
        };
        let result = match &mut self.queue {
            Queue::Split(queue) => queue.open(&pin).and_then(|ring| burst.poll(ring, frames)),
            Queue::Packed(queue) => queue.open(&pin).and_then(|ring| burst.poll(ring, frames)),
        };
        result.unwrap_or_else(|error| {
            self.fail(&error);
            0
        })
    }

    /// Gives back the chains at the front that have no completion outstanding any more.
    pub(crate) fn give_back(&mut self, switch: &Switch, now: impl FnOnce() -> u64) {
        let Some((function, counters)) = switch.queue(self.function.index(), self.pair) else {
            return;
        };
        let pin = function.reader.pin();
        let chains = || self.in_flight.pop();
        let result = match &mut self.queue {
            Queue::Split(queue) => queue.open(&pin).map(|ring| complete(ring, chains)),
            Queue::Packed(queue) => queue.open(&pin).map(|ring| complete(ring, chains)),
        };
        match result {
            Ok((0, _)) => {}
            Ok((completed, wanted)) => {
                if self.moderation.passed(completed, wanted, now) {
                    self.raise(counters);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Asks the driver to notify. Returns true when it need not, because frames are there.
    pub(crate) fn arm(&mut self, switch: &Switch) -> bool {
        let Some(function) = switch.function(self.function.index()) else { return false };
        let pin = function.reader.pin();
        match self.queue.open(&pin).and_then(|mut burst| burst.arm()) {
            Ok(more) => more,
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Raises the interrupt that has waited long enough.
    pub(crate) fn raise(&self, counters: &PairCounters) {
        counters.tx.interrupts.add(1);
        self.events.interrupt();
    }

    fn fail(&mut self, error: &RingError) {
        self.failed = true;
        self.events.fail(error);
    }
}

/// Completes chains. Returns how many, and whether the driver wants an interrupt for them.
fn complete<'p, R: Burst<'p>>(
    mut ring: R,
    mut chains: impl FnMut() -> Option<Chain>,
) -> (usize, bool) {
    let mut completed = 0;
    while let Some(chain) = chains() {
        ring.complete(&chain, 0);
        completed += 1;
    }
    (completed, completed > 0 && ring.publish())
}

/// The parts of a transmit queue that a burst needs apart from the ring, and what it is sent to.
struct TransmitBurst<'t> {
    function: FunctionId,
    instance: FunctionInstance,
    pair: u16,
    /// Completion token of the burst's first frame.
    first: CompletionToken,
    format: TxFormat,
    in_flight: &'t mut InFlight,
    route: &'t mut Route,
    moderation: &'t mut Moderation,
    events: &'t dyn QueueEvents,
    counters: &'t PairCounters,
    pin: &'t Pinned<'t>,
    switch: &'t Switch,
    egress: &'t mut Egress,
}

impl<'t> TransmitBurst<'t> {
    /// Moves a burst if there is one. An idle poll makes no room for one.
    #[inline]
    fn poll<R: Burst<'t>>(&mut self, mut ring: R, frames: &mut Frames) -> Result<usize, RingError> {
        if ring.available()? == 0 { Ok(0) } else { self.transfer(ring, frames) }
    }

    #[inline(never)]
    fn transfer<R: Burst<'t>>(
        &mut self,
        mut ring: R,
        frames: &mut Frames,
    ) -> Result<usize, RingError> {
        ring.disarm();
        self.egress.timer.begin_burst();
        let mut pieces = Pieces::new();
        let mut chains: ArrayVec<Chain, BURST> = ArrayVec::new();
        let mut ends: ArrayVec<u16, BURST> = ArrayVec::new();
        let taken = take(&mut ring, &mut pieces, &mut chains, &mut ends);
        // The buffers of the likely receiver are fetched before the switch decides.
        self.egress.prefetch_buffers(self.switch, self.route.target, chains.len());
        self.egress.timer.end_stage(Stage::Take);

        let (mut at, mut good) = (0, 0);
        for (index, (chain, end)) in chains.iter().zip(&ends).enumerate() {
            let end = usize::from(*end);
            let extent = (at, end - at);
            at = end;
            let TxFormat { header_len, negotiated } = self.format;
            let Some(frame) = frames.get_mut(good) else { break };
            frame.set_position(index);
            match frame.read(&pieces, extent, header_len, negotiated, chain.readable) {
                Ok(()) => good += 1,
                Err(_) => self.counters.drop(DropCause::BadNetHeader),
            }
        }
        let frames = frames.get_mut(..good).unwrap_or_default();
        self.egress.timer.end_stage(Stage::Read);

        let outstanding = self.forward(&mut FrameBurst::new(frames, &pieces));
        if self.in_flight.is_empty() && outstanding == [0; BURST] {
            ring.complete_all(&chains, |_| 0);
        } else {
            for (chain, completions) in chains.iter().zip(outstanding) {
                self.in_flight.add(*chain, completions);
            }
            while let Some(chain) = self.in_flight.pop() {
                ring.complete(&chain, 0);
            }
        }
        let visible = ring.make_visible();
        if !self.egress.interrupt(self.switch) && visible {
            fence(Ordering::SeqCst);
        }
        let wanted = ring.wants_interrupt();
        let timer = &mut self.egress.timer;
        if self.moderation.passed(chains.len(), wanted, || timer.now()) {
            self.counters.tx.interrupts.add(1);
            self.events.interrupt();
        }
        timer.end_stage(Stage::Return);
        timer.end_burst(chains.len());
        // The frames before a bad chain have gone out.
        taken.map(|()| chains.len())
    }

    /// Sends the frames through the switch. Returns how many completions are outstanding for each
    /// chain.
    #[inline]
    fn forward(&mut self, burst: &mut FrameBurst<'_, '_>) -> [u16; BURST] {
        let sender = Sender {
            function: self.instance,
            pair: self.pair,
            first: self.first,
            pin: self.pin,
            counters: self.counters,
            outstanding: [0; BURST],
        };
        let mut forwarder = Forwarder {
            switch: self.switch,
            egress: self.egress,
            source: Source::Function(self.function),
            sender: Some(sender),
        };
        forwarder.forward(self.route, burst);
        forwarder.sender.map_or([0; BURST], |sender| sender.outstanding)
    }
}

/// Takes up to a burst of chains, each with the end of its pieces, and prefetches the frames' first
/// cache lines.
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
            prefetch_frame(&slice);
            pieces.push(slice);
            chains.push(chain);
            ends.push(pieces.len() as u16);
        })?;
        if chains.is_full() || !take_any(ring, pieces, chains, ends)? {
            return Ok(());
        }
    }
}

/// Takes one chain of any shape. Returns false if there is none, or no room for it in this burst.
#[inline(never)]
fn take_any<'p, R: Burst<'p>>(
    ring: &mut R,
    pieces: &mut Pieces<'p>,
    chains: &mut ArrayVec<Chain, BURST>,
    ends: &mut ArrayVec<u16, BURST>,
) -> Result<bool, RingError> {
    // The burst keeps one piece for each chain that may yet be taken in one piece.
    let limit = MAX_PIECES - chains.remaining_capacity();
    let first = pieces.len();
    let popped = ring.pop(|slice: Slice<'p>, access| {
        if access == Access::Write {
            return true;
        }
        prefetch_frame(&slice);
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
            // The pieces are not too many for a burst of its own.
            pieces.truncate(first);
            Ok(false)
        }
        Err(error) => {
            pieces.truncate(first);
            Err(error)
        }
    }
}

/// Prefetches the cache lines of a frame that are looked at first.
#[inline]
fn prefetch_frame(slice: &Slice<'_>) {
    slice.prefetch();
    if slice.len() > LINE {
        slice.skip(LINE).prefetch();
    }
}
