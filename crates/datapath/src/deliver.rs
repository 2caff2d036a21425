//! Into receive queues: one copy, from the sender's memory to the receiver's.

use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};
use manifold_offload::Offloads;
use manifold_virtio::ring::{Burst, Chain, Queue, RingError};
use manifold_virtio::spec::net::header;
use manifold_virtio::transport::{QueueEvents, QueueState};

use crate::config::{QueueConfig, receive_offloads};
use crate::counters::{Drop, PairCounters, Tally};
use crate::frame::{BURST, Convoy, Frame, Pieces};
use crate::meter::{Laps, Stage};
use crate::moderation::Moderation;
use crate::software::Scratch;

/// The most buffers one frame is spread over: 64 KiB in buffers of the smallest size the standard advises, twice over.
const CHAINS: usize = 128;
/// Pieces those buffers may be in.
const ROOM: usize = 1024;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// A receive queue.
pub(crate) struct Receiver {
    queue: Queue,
    way: Way,
    pub(crate) moderation: Moderation,
    pub(crate) events: Arc<dyn QueueEvents>,
    /// Frames delivered last.
    delivered: usize,
    failed: bool,
}

/// How the driver takes frames.
struct Way {
    mergeable: bool,
    /// Bytes of virtio_net_hdr.
    header_len: usize,
    /// Receive offloads in force.
    accepts: Offloads,
}

/// What a delivery needs besides the queue and the frames.
pub(crate) struct Tools<'t> {
    pub(crate) counters: &'t PairCounters,
    pub(crate) scratch: &'t mut Scratch,
    pub(crate) laps: &'t mut Laps,
}

impl Receiver {
    /// Where the queue is, for whoever serves it next.
    pub(crate) fn state(&self) -> QueueState {
        self.queue.position()
    }

    pub(crate) fn new(config: QueueConfig) -> Result<Self, RingError> {
        Ok(Receiver {
            way: Way {
                mergeable: config.is_mergeable(),
                header_len: config.header_len(),
                accepts: receive_offloads(config.features),
            },
            queue: config.queue()?,
            moderation: Moderation::default(),
            events: config.events,
            delivered: 0,
            failed: false,
        })
    }

    /// Asks the processor for what a delivery looks at first.
    #[inline]
    pub(crate) fn prefetch(&self) {
        self.queue.prefetch();
    }

    /// Asks the processor for the descriptors of the next buffers.
    #[inline]
    pub(crate) fn prepare(&mut self, pin: &Pinned<'_>, count: usize) {
        // What is wrong with a ring is to be found out when a frame comes for it, and not before.
        if !self.queue.is_resolved(pin) {
            return;
        }
        match &mut self.queue {
            Queue::Split(queue) => {
                let _ = queue.open(pin).map(|mut ring| ring.prepare(count));
            }
            Queue::Packed(queue) => {
                let _ = queue.open(pin).map(|mut ring| ring.prepare(count));
            }
        }
    }

    /// Receive offloads from now on, as masks of feature bits.
    pub(crate) fn set_offloads(&mut self, offloads: u64) {
        self.way.accepts = receive_offloads(offloads);
    }

    /// Delivers the frames that `which` has a bit for, in order; those that do not fit are counted and dropped. True when
    /// some were delivered, so that [`Receiver::interrupt`] is to be called after a full barrier.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        pin: &Pinned<'_>,
        convoy: &mut Convoy<'_, '_>,
        which: u64,
        tools: &mut Tools<'_>,
    ) -> bool {
        if self.failed {
            refuse(which, tools.counters);
            return false;
        }
        let way = &self.way;
        let unopened = |error| (error, which);
        let mut done = Tally::default();
        let result = match &mut self.queue {
            Queue::Split(queue) => (queue.open(pin).map_err(unopened))
                .and_then(|ring| deliver(ring, way, convoy, which, &mut done, tools)),
            Queue::Packed(queue) => (queue.open(pin).map_err(unopened))
                .and_then(|ring| deliver(ring, way, convoy, which, &mut done, tools)),
        };
        self.delivered = done.frames as usize;
        tools.counters.rx.add(&done);
        tools.laps.lap(Stage::Publish);
        if let Err((error, left)) = result {
            refuse(left, tools.counters);
            self.fail(&error);
        }
        self.delivered > 0
    }

    /// Interrupts the driver, if it wants that for what was just delivered.
    #[inline]
    pub(crate) fn interrupt(&mut self, pin: &Pinned<'_>, counters: &PairCounters, laps: &Laps) {
        let wanted = match &mut self.queue {
            Queue::Split(queue) => queue.open(pin).map(|mut ring| ring.wants_interrupt()),
            Queue::Packed(queue) => queue.open(pin).map(|mut ring| ring.wants_interrupt()),
        };
        match wanted {
            Ok(wanted) => {
                if self.moderation.passed(self.delivered, wanted, || laps.now()) {
                    counters.rx.interrupts.add(1);
                    self.events.interrupt();
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &RingError) {
        self.failed = true;
        self.events.fail(error);
    }
}

fn refuse(frames: u64, counters: &PairCounters) {
    for _ in 0..frames.count_ones() {
        counters.drop(Drop::NotReady);
    }
}

/// The error, if the ring broke, with the frames that were not delivered for it.
type Outcome = Result<(), (RingError, u64)>;

#[inline]
fn deliver<'p, R: Burst<'p>>(
    mut ring: R,
    way: &Way,
    convoy: &mut Convoy<'_, '_>,
    which: u64,
    done: &mut Tally,
    tools: &mut Tools<'_>,
) -> Outcome {
    // Buffers are looked for when a frame comes, so the driver need never notify of them.
    ring.disarm();
    let mut outcome = Ok(());
    let mut left = which & convoy.all();
    let unfinished = way.unfinished(convoy, left);
    while left != 0 && outcome.is_ok() {
        let first = 1 << left.trailing_zeros();
        if unfinished & first != 0 {
            if let Some(frame) = convoy.frames.get(left.trailing_zeros() as usize) {
                outcome = finish(&mut ring, way, frame, convoy.pieces, done, tools)
                    .map_err(|error| (error, left));
            }
            left &= !first;
            continue;
        }
        // Frames up to the first that has to be worked on.
        let next = unfinished & left;
        let run = if next == 0 { left } else { left & ((1 << next.trailing_zeros()) - 1) };
        left &= !run;
        outcome = put(&mut ring, way, convoy, run, done, tools)
            .map_err(|(error, rest)| (error, rest | left));
    }
    ring.make_visible();
    outcome
}

impl Way {
    /// The frames that this driver does not take as they are. The others get the virtio_net_hdr for it.
    #[inline]
    fn unfinished(&self, convoy: &mut Convoy<'_, '_>, which: u64) -> u64 {
        let mut unfinished = 0;
        let mut asking = which & convoy.asking;
        while asking != 0 {
            let index = asking.trailing_zeros();
            asking &= asking - 1;
            let frame = convoy.frames.get_mut(index as usize);
            if frame.is_some_and(|frame| !frame.prepare(self.accepts)) {
                unfinished |= 1 << index;
            }
        }
        unfinished
    }
}

/// Does in software what the driver does not take over, and delivers the result.
#[cold]
fn finish<'p, R: Burst<'p>>(
    ring: &mut R,
    way: &Way,
    frame: &Frame,
    pieces: &Pieces<'_>,
    done: &mut Tally,
    tools: &mut Tools<'_>,
) -> Result<(), RingError> {
    let Tools { counters, scratch, laps } = tools;
    let mut result = Ok(());
    let finished = scratch.finish(frame, pieces, way.accepts, |frames, pieces| {
        let mut tools = Tools { counters, scratch: &mut Scratch::default(), laps };
        let mut convoy = Convoy::new(frames, pieces);
        let all = convoy.all();
        result = put(ring, way, &mut convoy, all, done, &mut tools).map_err(|(error, _)| error);
        result.is_ok()
    });
    if finished.is_err() {
        counters.drop(Drop::BadHeader);
    }
    result
}

/// Puts frames that the driver takes as they are into its buffers.
#[inline]
fn put<'p, R: Burst<'p>>(
    ring: &mut R,
    way: &Way,
    convoy: &mut Convoy<'_, '_>,
    which: u64,
    done: &mut Tally,
    tools: &mut Tools<'_>,
) -> Outcome {
    let Convoy { frames, pieces, .. } = convoy;
    let mut left = which;
    while left != 0 {
        // First all buffers: their cache lines are fetched while the next descriptors are read. Nearly every frame goes
        // to one buffer in one piece.
        let mut chains: ArrayVec<Chain, BURST> = ArrayVec::new();
        let mut room: ArrayVec<Slice<'p>, BURST> = ArrayVec::new();
        let wanted = (left.count_ones() as usize).min(BURST);
        let taken = ring.pop_direct(wanted, Access::Write, |chain, slice| {
            slice.prefetch_write();
            if slice.len() > LINE {
                slice.skip(LINE).prefetch_write();
            }
            chains.push(chain);
            room.push(slice);
        });
        tools.laps.lap(Stage::Claim);
        taken.map_err(|error| (error, left))?;
        let mut lengths = [0; BURST];
        let mut used = 0;
        for (room, length) in room.iter().zip(&mut lengths) {
            let Some(frame) = frames.get_mut(left.trailing_zeros() as usize) else { break };
            let needed = way.header_len + frame.len();
            if room.len() < needed {
                break;
            }
            write(frame, way.header_len, room, pieces);
            done.count(frame);
            *length = needed as u32;
            left &= left - 1;
            used += 1;
        }
        let (whole, rest) = chains.split_at(used.min(chains.len()));
        ring.put_back(rest);
        ring.complete_all(whole, |index| lengths.get(index).copied().unwrap_or(0));
        tools.laps.lap(Stage::Copy);
        if used < wanted {
            let Some(frame) = frames.get_mut(left.trailing_zeros() as usize) else { break };
            put_any(ring, way, frame, pieces, done, tools).map_err(|error| (error, left))?;
            left &= left - 1;
        }
    }
    Ok(())
}

/// As [`put`], for one frame and buffers of any shape.
#[inline(never)]
fn put_any<'p, R: Burst<'p>>(
    ring: &mut R,
    way: &Way,
    frame: &mut Frame,
    pieces: &Pieces<'_>,
    done: &mut Tally,
    tools: &mut Tools<'_>,
) -> Result<(), RingError> {
    let mut chains: ArrayVec<Chain, CHAINS> = ArrayVec::new();
    let mut room: ArrayVec<Slice<'p>, ROOM> = ArrayVec::new();
    let mut rest = way.header_len + frame.len();
    let refused = claim(ring, way.mergeable, rest, &mut chains, &mut room)?;
    tools.laps.lap(Stage::Claim);
    if let Some(reason) = refused {
        ring.put_back(&chains);
        tools.counters.drop(reason);
        return Ok(());
    }
    write_any(frame, chains.len(), way.header_len, &room, pieces);
    for chain in &chains {
        let written = rest.min(chain.writable as usize);
        ring.complete(chain, written as u32);
        rest -= written;
    }
    done.count(frame);
    tools.laps.lap(Stage::Copy);
    Ok(())
}

/// Takes buffers of `needed` bytes altogether, or says why there are none; what was taken so far is to be put back then.
#[inline]
fn claim<'p, R: Burst<'p>>(
    ring: &mut R,
    mergeable: bool,
    needed: usize,
    chains: &mut ArrayVec<Chain, CHAINS>,
    room: &mut ArrayVec<Slice<'p>, ROOM>,
) -> Result<Option<Drop>, RingError> {
    let mut capacity = 0;
    while capacity < needed {
        if chains.is_full() || (capacity > 0 && !mergeable) {
            return Ok(Some(Drop::BufferTooSmall));
        }
        let popped = ring.pop(|slice, access| {
            access == Access::Read || {
                slice.prefetch_write();
                room.try_push(slice).is_ok()
            }
        });
        let chain = match popped {
            Ok(Some(chain)) => chain,
            Ok(None) => return Ok(Some(Drop::NoBuffer)),
            Err(RingError::TooManyPieces(_)) => return Ok(Some(Drop::BufferTooSmall)),
            Err(error) => return Err(error),
        };
        if chain.writable == 0 {
            return Err(RingError::NoBuffers("device-writable"));
        }
        capacity += chain.writable as usize;
        chains.push(chain);
    }
    Ok(None)
}

/// The copy, to one piece that is long enough.
#[inline]
fn write(frame: &mut Frame, header_len: usize, room: &Slice<'_>, pieces: &Pieces<'_>) {
    if header_len == header::SIZE
        && let Some((head, rest)) = frame.usual(pieces)
        && room.write_array(head)
    {
        room.skip(head.len()).copy_from(&rest);
    } else {
        write_any(frame, 1, header_len, std::slice::from_ref(room), pieces);
    }
}

/// As [`write`], for any frame and room.
#[inline(never)]
fn write_any(
    frame: &mut Frame,
    buffers: usize,
    header_len: usize,
    room: &[Slice<'_>],
    pieces: &Pieces<'_>,
) {
    // What was stored just now makes whoever loads more than that wait: only where it is needed.
    if buffers != 1 {
        frame.set_buffers(buffers as u16);
    }
    let mut scatter = Scatter { room, skip: 0 };
    let plain = frame.plain_head();
    if header_len == header::SIZE {
        scatter.write(plain);
    } else {
        scatter.write(&frame.hashed_header());
        scatter.write(frame.header());
    }
    if !frame.is_whole() {
        for piece in frame.rest(pieces) {
            scatter.copy(piece);
        }
    }
    if buffers != 1 {
        frame.set_buffers(1);
    }
}

/// Writes bytes one after the other into pieces of memory.
struct Scatter<'r, 'p> {
    room: &'r [Slice<'p>],
    skip: usize,
}

impl Scatter<'_, '_> {
    #[inline]
    fn write(&mut self, mut data: &[u8]) {
        while let Some((first, others)) = self.room.split_first()
            && !data.is_empty()
        {
            let target = first.skip(self.skip);
            let done = target.write(data);
            data = data.get(done..).unwrap_or_default();
            self.advance(done, target.len(), others.len());
        }
    }

    #[inline]
    fn copy(&mut self, mut source: Slice<'_>) {
        while let Some((first, others)) = self.room.split_first()
            && !source.is_empty()
        {
            let target = first.skip(self.skip);
            let done = target.copy_from(&source);
            source = source.skip(done);
            self.advance(done, target.len(), others.len());
        }
    }

    #[inline]
    fn advance(&mut self, done: usize, had: usize, others: usize) {
        if done == had {
            self.room = &self.room[self.room.len() - others..];
            self.skip = 0;
        } else {
            self.skip += done;
        }
    }
}
