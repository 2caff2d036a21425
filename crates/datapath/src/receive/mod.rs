//! A receive queue makes one copy, from the sender's memory to the receiver's.

mod copy;

use std::sync::Arc;

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};
use manifold_offload::Offloads;
use manifold_virtio::ring::{Burst, Chain, Queue, RingError};
use manifold_virtio::transport::{QueueEvents, QueueState};

use self::copy::{write, write_any};
use crate::config::{QueueConfig, receive_offloads};
use crate::counters::{BurstTally, DropCause, PairCounters};
use crate::frame::Frame;
use crate::frame::burst::{BURST, FrameBurst};
use crate::frame::finish::Scratch;
use crate::frame::pieces::{LINE, Pieces};
use crate::moderation::Moderation;
use crate::stages::{Stage, StageTimer};

/// Largest number of buffers that one frame is spread over. It is twice what 64 KiB take in buffers
/// of the smallest size that the standard advises.
const CHAINS: usize = 128;
/// Largest number of pieces of memory that those buffers are in.
const ROOM: usize = 1024;

/// A receive queue, as the worker that serves it sees it.
pub(crate) struct RxQueue {
    queue: Queue,
    format: RxFormat,
    pub(crate) moderation: Moderation,
    events: Arc<dyn QueueEvents>,
    /// Number of frames of the last delivery.
    delivered: usize,
    failed: bool,
}

/// The form in which the driver takes frames.
struct RxFormat {
    mergeable: bool,
    /// Length of virtio_net_hdr in bytes.
    header_len: usize,
    /// Receive offloads that are in force.
    accepts: Offloads,
}

/// The context of a delivery besides the queue and the frames. The counters are the receiver's.
pub(crate) struct RxContext<'t> {
    pub(crate) counters: &'t PairCounters,
    pub(crate) scratch: &'t mut Scratch,
    pub(crate) timer: &'t mut StageTimer,
}

impl RxQueue {
    /// Returns the place that the queue has reached, for the one that serves it next.
    pub(crate) fn state(&self) -> QueueState {
        self.queue.position()
    }

    pub(crate) fn new(config: QueueConfig) -> Result<Self, RingError> {
        Ok(RxQueue {
            format: RxFormat {
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

    /// Asks the processor for the descriptors of the next `count` buffers.
    #[inline]
    pub(crate) fn prefetch_buffers(&mut self, pin: &Pinned<'_>, count: usize) {
        // A fault in the ring is reported when a frame comes for it, and not before.
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

    /// Sets the receive offloads in force, as masks of feature bits.
    pub(crate) fn set_offloads(&mut self, offloads: u64) {
        self.format.accepts = receive_offloads(offloads);
    }

    /// Delivers the frames that `which` has a bit for, in order. Frames that do not fit are counted
    /// and dropped. Returns true if some were delivered; then [`RxQueue::interrupt`] is to be
    /// called after a full barrier.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        pin: &Pinned<'_>,
        burst: &mut FrameBurst<'_, '_>,
        which: u64,
        context: &mut RxContext<'_>,
    ) -> bool {
        if self.failed {
            refuse(which, context.counters);
            return false;
        }
        let format = &self.format;
        let unopened = |error| (error, which);
        let mut done = BurstTally::default();
        let result = match &mut self.queue {
            Queue::Split(queue) => (queue.open(pin).map_err(unopened))
                .and_then(|ring| deliver(ring, format, burst, which, &mut done, context)),
            Queue::Packed(queue) => (queue.open(pin).map_err(unopened))
                .and_then(|ring| deliver(ring, format, burst, which, &mut done, context)),
        };
        self.delivered = done.frames as usize;
        context.counters.rx.add(&done);
        context.timer.end_stage(Stage::Publish);
        if let Err((error, left)) = result {
            refuse(left, context.counters);
            self.fail(&error);
        }
        self.delivered > 0
    }

    /// Interrupts the driver if it wants that for what was just delivered.
    #[inline]
    pub(crate) fn interrupt(
        &mut self,
        pin: &Pinned<'_>,
        counters: &PairCounters,
        timer: &StageTimer,
    ) {
        let wanted = match &mut self.queue {
            Queue::Split(queue) => queue.open(pin).map(|mut ring| ring.wants_interrupt()),
            Queue::Packed(queue) => queue.open(pin).map(|mut ring| ring.wants_interrupt()),
        };
        match wanted {
            Ok(wanted) => {
                if self.moderation.passed(self.delivered, wanted, || timer.now()) {
                    self.raise(counters);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Raises the interrupt that has waited long enough.
    pub(crate) fn raise(&self, counters: &PairCounters) {
        counters.rx.interrupts.add(1);
        self.events.interrupt();
    }

    fn fail(&mut self, error: &RingError) {
        self.failed = true;
        self.events.fail(error);
    }
}

fn refuse(frames: u64, counters: &PairCounters) {
    for _ in 0..frames.count_ones() {
        counters.drop(DropCause::NoDriver);
    }
}

/// The result of a delivery. An error comes with the frames that it kept from being delivered.
type Outcome = Result<(), (RingError, u64)>;

#[inline]
fn deliver<'p, R: Burst<'p>>(
    mut ring: R,
    format: &RxFormat,
    burst: &mut FrameBurst<'_, '_>,
    which: u64,
    done: &mut BurstTally,
    context: &mut RxContext<'_>,
) -> Outcome {
    // The worker looks for buffers when a frame comes, so the driver need never notify it of them.
    ring.disarm();
    let mut outcome = Ok(());
    let mut left = which & burst.all();
    let unfinished = format.unfinished(burst, left);
    while left != 0 && outcome.is_ok() {
        let first = 1 << left.trailing_zeros();
        if unfinished & first != 0 {
            if let Some(frame) = burst.frames.get(left.trailing_zeros() as usize) {
                outcome = finish(&mut ring, format, frame, burst.pieces, done, context)
                    .map_err(|error| (error, left));
            }
            left &= !first;
            continue;
        }
        // The run ends before the next frame that must be finished in software.
        let next = unfinished & left;
        let run = if next == 0 { left } else { left & ((1 << next.trailing_zeros()) - 1) };
        left &= !run;
        outcome = put(&mut ring, format, burst, run, done, context)
            .map_err(|(error, rest)| (error, rest | left));
    }
    ring.make_visible();
    outcome
}

impl RxFormat {
    /// Returns the frames that this driver does not take as they are. The others get the
    /// virtio_net_hdr for it.
    #[inline]
    fn unfinished(&self, burst: &mut FrameBurst<'_, '_>, which: u64) -> u64 {
        let mut unfinished = 0;
        let mut requesting = which & burst.requesting;
        while requesting != 0 {
            let index = requesting.trailing_zeros();
            requesting &= requesting - 1;
            let frame = burst.frames.get_mut(index as usize);
            if frame.is_some_and(|frame| !frame.prepare(self.accepts)) {
                unfinished |= 1 << index;
            }
        }
        unfinished
    }
}

/// Finishes a frame in software for a driver that did not negotiate the offload, and delivers it.
#[cold]
fn finish<'p, R: Burst<'p>>(
    ring: &mut R,
    format: &RxFormat,
    frame: &Frame,
    pieces: &Pieces<'_>,
    done: &mut BurstTally,
    context: &mut RxContext<'_>,
) -> Result<(), RingError> {
    let RxContext { counters, scratch, timer } = context;
    let mut result = Ok(());
    let finished = scratch.finish(frame, pieces, format.accepts, |frames, pieces| {
        let mut context = RxContext { counters, scratch: &mut Scratch::default(), timer };
        let mut burst = FrameBurst::new(frames, pieces);
        let all = burst.all();
        result = put(ring, format, &mut burst, all, done, &mut context).map_err(|(error, _)| error);
        result.is_ok()
    });
    if finished.is_err() {
        counters.drop(DropCause::BadNetHeader);
    }
    result
}

/// Puts frames that the driver takes as they are into its buffers.
#[inline]
fn put<'p, R: Burst<'p>>(
    ring: &mut R,
    format: &RxFormat,
    burst: &mut FrameBurst<'_, '_>,
    which: u64,
    done: &mut BurstTally,
    context: &mut RxContext<'_>,
) -> Outcome {
    let FrameBurst { frames, pieces, .. } = burst;
    let mut left = which;
    while left != 0 {
        // All buffers are taken first, so that their cache lines are fetched while the next
        // descriptors are read. Nearly every frame goes to one buffer in one piece.
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
        context.timer.end_stage(Stage::Claim);
        taken.map_err(|error| (error, left))?;
        let mut lengths = [0; BURST];
        let mut used = 0;
        for (room, length) in room.iter().zip(&mut lengths) {
            let Some(frame) = frames.get_mut(left.trailing_zeros() as usize) else { break };
            let needed = format.header_len + frame.len();
            if room.len() < needed {
                break;
            }
            write(frame, format.header_len, room, pieces);
            done.count(frame);
            *length = needed as u32;
            left &= left - 1;
            used += 1;
        }
        let (whole, rest) = chains.split_at(used.min(chains.len()));
        ring.put_back(rest);
        ring.complete_all(whole, |index| lengths.get(index).copied().unwrap_or(0));
        context.timer.end_stage(Stage::Copy);
        if used < wanted {
            let Some(frame) = frames.get_mut(left.trailing_zeros() as usize) else { break };
            put_any(ring, format, frame, pieces, done, context).map_err(|error| (error, left))?;
            left &= left - 1;
        }
    }
    Ok(())
}

/// Puts one frame into buffers of any shape.
#[inline(never)]
fn put_any<'p, R: Burst<'p>>(
    ring: &mut R,
    format: &RxFormat,
    frame: &mut Frame,
    pieces: &Pieces<'_>,
    done: &mut BurstTally,
    context: &mut RxContext<'_>,
) -> Result<(), RingError> {
    let mut chains: ArrayVec<Chain, CHAINS> = ArrayVec::new();
    let mut room: ArrayVec<Slice<'p>, ROOM> = ArrayVec::new();
    let mut rest = format.header_len + frame.len();
    let refused = claim(ring, format.mergeable, rest, &mut chains, &mut room)?;
    context.timer.end_stage(Stage::Claim);
    if let Some(reason) = refused {
        ring.put_back(&chains);
        context.counters.drop(reason);
        return Ok(());
    }
    write_any(frame, chains.len(), format.header_len, &room, pieces);
    for chain in &chains {
        let written = rest.min(chain.writable as usize);
        ring.complete(chain, written as u32);
        rest -= written;
    }
    done.count(frame);
    context.timer.end_stage(Stage::Copy);
    Ok(())
}

/// Takes buffers of `needed` bytes altogether. Returns the cause if there are none, and then what
/// was taken so far is to be put back.
#[inline]
fn claim<'p, R: Burst<'p>>(
    ring: &mut R,
    mergeable: bool,
    needed: usize,
    chains: &mut ArrayVec<Chain, CHAINS>,
    room: &mut ArrayVec<Slice<'p>, ROOM>,
) -> Result<Option<DropCause>, RingError> {
    let mut capacity = 0;
    while capacity < needed {
        if chains.is_full() || (capacity > 0 && !mergeable) {
            return Ok(Some(DropCause::ReceiveBufferTooSmall));
        }
        let popped = ring.pop(|slice, access| {
            access == Access::Read || {
                slice.prefetch_write();
                room.try_push(slice).is_ok()
            }
        });
        let chain = match popped {
            Ok(Some(chain)) => chain,
            Ok(None) => return Ok(Some(DropCause::NoReceiveBuffer)),
            Err(RingError::TooManyPieces(_)) => return Ok(Some(DropCause::ReceiveBufferTooSmall)),
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
