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
use crate::frame::{Frame, Pieces};
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
            failed: false,
        })
    }

    /// Receive offloads from now on, as masks of feature bits.
    pub(crate) fn set_offloads(&mut self, offloads: u64) {
        self.way.accepts = receive_offloads(offloads);
    }

    /// Delivers the frames that `which` has a bit for, in order; those that do not fit are counted and dropped.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        pin: &Pinned<'_>,
        frames: &mut [Frame],
        which: u64,
        pieces: &Pieces<'_>,
        tools: &mut Tools<'_>,
    ) {
        if self.failed {
            refuse(which, tools.counters);
            return;
        }
        let delivery =
            Delivery { way: &self.way, moderation: &mut self.moderation, events: &*self.events };
        let unopened = |error| (error, which);
        let result = match &mut self.queue {
            Queue::Split(queue) => (queue.open(pin).map_err(unopened))
                .and_then(|ring| delivery.run(ring, frames, which, pieces, tools)),
            Queue::Packed(queue) => (queue.open(pin).map_err(unopened))
                .and_then(|ring| delivery.run(ring, frames, which, pieces, tools)),
        };
        if let Err((error, left)) = result {
            refuse(left, tools.counters);
            self.failed = true;
            self.events.fail(&error);
        }
    }
}

fn refuse(frames: u64, counters: &PairCounters) {
    for _ in 0..frames.count_ones() {
        counters.drop(Drop::NotReady);
    }
}

/// The error, if the ring broke, with the frames that were not delivered for it.
type Outcome = Result<(), (RingError, u64)>;

/// What a delivery needs of its receive queue, apart from the ring.
struct Delivery<'d> {
    way: &'d Way,
    moderation: &'d mut Moderation,
    events: &'d dyn QueueEvents,
}

impl Delivery<'_> {
    #[inline]
    fn run<'p, R: Burst<'p>>(
        self,
        mut ring: R,
        frames: &mut [Frame],
        which: u64,
        pieces: &Pieces<'_>,
        tools: &mut Tools<'_>,
    ) -> Outcome {
        let Delivery { way, moderation, events } = self;
        // Buffers are looked for when a frame comes, so the driver need never notify of them.
        ring.disarm();
        let mut done = Tally::default();
        let mut outcome = Ok(());
        let mut left = which;
        let unfinished = way.unfinished(frames, which);
        while left != 0 && outcome.is_ok() {
            let first = 1 << left.trailing_zeros();
            if unfinished & first != 0 {
                left &= !first;
                if let Some(frame) = frames.get(first.trailing_zeros() as usize) {
                    outcome = finish(&mut ring, way, frame, pieces, &mut done, tools)
                        .map_err(|error| (error, left));
                }
                continue;
            }
            // Frames up to the first that has to be worked on.
            let next = unfinished & left;
            let run = if next == 0 { left } else { left & ((1 << next.trailing_zeros()) - 1) };
            left &= !run;
            outcome = put(&mut ring, way, frames, run, pieces, &mut done, tools)
                .map_err(|(error, rest)| (error, rest | left));
        }
        if done.frames > 0 {
            tools.counters.rx.add(&done);
            let wanted = ring.publish();
            if moderation.passed(done.frames as usize, wanted, || tools.laps.now()) {
                tools.counters.rx.interrupts.add(1);
                events.interrupt();
            }
        }
        tools.laps.lap(Stage::Publish);
        outcome
    }
}

impl Way {
    /// The frames that this driver does not take as they are. The others get the virtio_net_hdr for it.
    #[inline]
    fn unfinished(&self, frames: &mut [Frame], which: u64) -> u64 {
        let mut unfinished = 0;
        for (index, frame) in frames.iter_mut().enumerate() {
            if which & (1 << index) != 0 && !frame.prepare(self.accepts) {
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
        let all = (1 << frames.len()) - 1;
        result = put(ring, way, frames, all, pieces, done, &mut tools).map_err(|(error, _)| error);
        result.is_ok()
    });
    if finished.is_err() {
        counters.drop(Drop::BadHeader);
    }
    result
}

/// A frame and the one buffer, in one piece, that it goes to: nearly every frame.
struct Simple<'p> {
    frame: u8,
    chain: Chain,
    room: Slice<'p>,
}

/// Puts frames that the driver takes as they are into its buffers.
#[inline]
fn put<'p, R: Burst<'p>>(
    ring: &mut R,
    way: &Way,
    frames: &mut [Frame],
    which: u64,
    pieces: &Pieces<'_>,
    done: &mut Tally,
    tools: &mut Tools<'_>,
) -> Result<(), (RingError, u64)> {
    let mut left = which;
    while left != 0 {
        let mut simple: ArrayVec<Simple<'p>, 64> = ArrayVec::new();
        let mut outcome = Ok(());
        // First all buffers: their cache lines are fetched while the next descriptors are read.
        let mut other = None;
        while left != 0 {
            let index = left.trailing_zeros();
            let Some(frame) = frames.get(index as usize) else { break };
            match claim_simple(ring, way.header_len + frame.len()) {
                Ok(Some((chain, room))) => simple.push(Simple { frame: index as u8, chain, room }),
                Ok(None) => {
                    other = Some(index as usize);
                    left &= left - 1;
                    break;
                }
                Err(error) => {
                    outcome = Err((error, left));
                    break;
                }
            }
            left &= left - 1;
        }
        tools.laps.lap(Stage::Claim);
        for Simple { frame, chain, room } in &simple {
            let Some(frame) = frames.get_mut(usize::from(*frame)) else { continue };
            write(frame, 1, way.header_len, std::slice::from_ref(room), pieces);
            ring.complete(chain, (way.header_len + frame.len()) as u32);
            done.count(frame);
        }
        tools.laps.lap(Stage::Copy);
        outcome?;
        if let Some(frame) = other.and_then(|index| frames.get_mut(index)) {
            let own = other.map_or(0, |index| 1 << index);
            put_any(ring, way, frame, pieces, done, tools).map_err(|error| (error, own | left))?;
        }
    }
    Ok(())
}

/// Takes a buffer of at least `needed` bytes in one piece, if that is the next one.
#[inline]
fn claim_simple<'p, R: Burst<'p>>(
    ring: &mut R,
    needed: usize,
) -> Result<Option<(Chain, Slice<'p>)>, RingError> {
    let mut room = None;
    let popped = ring.pop(|slice, access| {
        let fits = access == Access::Write && room.is_none() && slice.len() >= needed;
        if fits {
            slice.prefetch_write();
            if needed > LINE {
                slice.skip(LINE).prefetch_write();
            }
            room = Some(slice);
        }
        fits
    });
    match (popped, room) {
        (Ok(Some(chain)), Some(room)) => Ok(Some((chain, room))),
        (Ok(Some(chain)), None) => {
            // Without a buffer at all: that is found out again.
            ring.put_back(&[chain]);
            Ok(None)
        }
        (Ok(None) | Err(RingError::TooManyPieces(_)), _) => Ok(None),
        (Err(error), _) => Err(error),
    }
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
    write(frame, chains.len(), way.header_len, &room, pieces);
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

/// The copy.
#[inline]
fn write(
    frame: &mut Frame,
    buffers: usize,
    header_len: usize,
    room: &[Slice<'_>],
    pieces: &Pieces<'_>,
) {
    frame.set_buffers(buffers as u16);
    if let ([room], true) = (room, header_len == header::SIZE)
        && let Some((head, rest)) = frame.usual(pieces)
        && room.len() >= header_len + frame.len()
        && room.write_array(head)
    {
        room.skip(head.len()).copy_from(&rest);
        return;
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
