//! Counters: one set per queue pair, written by one worker, read by anyone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_eswitch::DropReason;
use manifold_offload::Offloads;

use crate::config::Direction;
use crate::frame::Frame;

/// Why a frame did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drop {
    /// The switch dropped it; counted at the sender.
    Switch(DropReason),
    /// The sender's virtio_net_hdr asks for an offload that was not negotiated, or the chain is shorter than that
    /// header; counted at the sender.
    BadHeader,
    /// The receiver had no buffers; counted at the receiver.
    NoBuffer,
    /// The receiver has no driver, or it has not set up its queues; counted at the receiver.
    NotReady,
    /// The receiver's buffer is too small for the frame; counted at the receiver.
    BufferTooSmall,
    /// The uplink did not take it; counted at the sender.
    Uplink,
    /// The receiver's worker has fallen behind; counted at the sender.
    Handover,
}

const SWITCH: usize = DropReason::ALL.len();
const REASONS: usize = SWITCH + 6;

impl Drop {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Drop> {
        let own = [
            Drop::BadHeader,
            Drop::NoBuffer,
            Drop::NotReady,
            Drop::BufferTooSmall,
            Drop::Uplink,
            Drop::Handover,
        ];
        DropReason::ALL.into_iter().map(Drop::Switch).chain(own)
    }

    fn index(self) -> usize {
        match self {
            Drop::Switch(reason) => reason.index(),
            Drop::BadHeader => SWITCH,
            Drop::NoBuffer => SWITCH + 1,
            Drop::NotReady => SWITCH + 2,
            Drop::BufferTooSmall => SWITCH + 3,
            Drop::Uplink => SWITCH + 4,
            Drop::Handover => SWITCH + 5,
        }
    }

    /// At which side it is counted: the queue pair's sender, or its receiver.
    pub fn direction(self) -> Direction {
        match self {
            Drop::NoBuffer | Drop::NotReady | Drop::BufferTooSmall => Direction::Receive,
            Drop::Switch(_) | Drop::BadHeader | Drop::Uplink | Drop::Handover => {
                Direction::Transmit
            }
        }
    }

    /// A name for metrics and JSON, in snake case.
    pub fn name(self) -> &'static str {
        match self {
            Drop::Switch(reason) => reason.name(),
            Drop::BadHeader => "bad_header",
            Drop::NoBuffer => "no_buffer",
            Drop::NotReady => "not_ready",
            Drop::BufferTooSmall => "buffer_too_small",
            Drop::Uplink => "uplink",
            Drop::Handover => "handover",
        }
    }
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A counter with one writer: adding is a load and a store, not a locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One direction of a queue pair.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
    pub(crate) interrupts: Counter,
    /// Frames with a checksum still to be completed.
    pub(crate) partial: Counter,
    /// Unsegmented frames and their bytes.
    pub(crate) gso_frames: Counter,
    pub(crate) gso_bytes: Counter,
}

/// Frames of a burst, to be added to a [`Way`] in one go.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) frames: u64,
    bytes: u64,
    partial: u64,
    gso_frames: u64,
    gso_bytes: u64,
}

impl Tally {
    #[inline]
    pub(crate) fn count(&mut self, frame: &Frame) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if let Some(request) = frame.request()
            && request.needs() != Offloads::NONE
        {
            self.partial += 1;
            if request.is_gso() {
                self.gso_frames += 1;
                self.gso_bytes += frame.len() as u64;
            }
        }
    }
}

impl Way {
    #[inline]
    pub(crate) fn add(&self, tally: &Tally) {
        self.frames.add(tally.frames);
        self.bytes.add(tally.bytes);
        // Unsegmented frames leave their checksum, too.
        if tally.partial > 0 {
            self.partial.add(tally.partial);
            self.gso_frames.add(tally.gso_frames);
            self.gso_bytes.add(tally.gso_bytes);
        }
    }

    fn read(&self) -> WaySnapshot {
        WaySnapshot {
            frames: self.frames.get(),
            bytes: self.bytes.get(),
            interrupts: self.interrupts.get(),
            partial: self.partial.get(),
            gso_frames: self.gso_frames.get(),
            gso_bytes: self.gso_bytes.get(),
        }
    }
}

/// The counters of one queue pair, on cache lines of their own. Transmit and receive are seen from the driver.
///
/// A pair's two queues are on one worker, so each counter has one writer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PairCounters {
    pub(crate) tx: Way,
    pub(crate) rx: Way,
    /// Notifications that woke a worker.
    pub(crate) notifications: Counter,
    drops: [Counter; REASONS],
}

impl PairCounters {
    #[inline]
    pub(crate) fn drop(&self, reason: Drop) {
        if let Some(counter) = self.drops.get(reason.index()) {
            counter.add(1);
        }
    }

    /// Frames for a queue that nobody serves, dropped by whoever has them: several workers may count here at once, and no
    /// worker owns the counter.
    #[cold]
    pub(crate) fn not_ready(&self, frames: u32) {
        if let Some(counter) = self.drops.get(Drop::NotReady.index()) {
            counter.0.fetch_add(u64::from(frames), Ordering::Relaxed);
        }
    }

    /// The values now.
    pub fn snapshot(&self) -> PairSnapshot {
        PairSnapshot {
            tx: self.tx.read(),
            rx: self.rx.read(),
            notifications: self.notifications.get(),
            drops: Drop::all()
                .filter_map(|reason| {
                    let n = self.drops.get(reason.index())?.get();
                    (n > 0).then_some((reason, n))
                })
                .collect(),
        }
    }
}

/// The values of one direction at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaySnapshot {
    /// Transmit: frames the driver sent that the switch forwarded (a receiver may still have had no buffer). Receive:
    /// frames delivered to the driver.
    pub frames: u64,
    /// Their bytes, from the destination address on, without FCS.
    pub bytes: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Frames among them whose checksum is for the receiver to complete.
    pub partial: u64,
    /// Frames among them that are unsegmented.
    pub gso_frames: u64,
    /// Their bytes.
    pub gso_bytes: u64,
}

impl std::ops::AddAssign for WaySnapshot {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.interrupts += other.interrupts;
        self.partial += other.partial;
        self.gso_frames += other.gso_frames;
        self.gso_bytes += other.gso_bytes;
    }
}

/// The values of [`PairCounters`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairSnapshot {
    /// From the driver.
    pub tx: WaySnapshot,
    /// To the driver.
    pub rx: WaySnapshot,
    /// Notifications of the driver that woke a worker.
    pub notifications: u64,
    /// Frames that did not arrive, by reason; only reasons that occurred.
    pub drops: Vec<(Drop, u64)>,
}

impl PairSnapshot {
    /// How often frames were dropped for this reason.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops.iter().find(|(other, _)| *other == reason).map_or(0, |(_, n)| *n)
    }
}

/// The counters of a function: one set per queue pair.
#[derive(Clone, Debug)]
pub struct FunctionCounters(Arc<[PairCounters]>);

impl FunctionCounters {
    /// All zero, for `pairs` queue pairs (at least one).
    pub fn new(pairs: u16) -> Self {
        FunctionCounters((0..pairs.max(1)).map(|_| PairCounters::default()).collect())
    }

    /// One pair's counters; those of the last pair for a number beyond it.
    pub(crate) fn pair(&self, pair: u16) -> Option<&PairCounters> {
        self.0.get(usize::from(pair)).or(self.0.last())
    }

    /// Each pair's values.
    pub fn pairs(&self) -> impl Iterator<Item = PairSnapshot> {
        self.0.iter().map(PairCounters::snapshot)
    }

    /// The function's values: the sum over its pairs.
    pub fn total(&self) -> PairSnapshot {
        let mut total = PairSnapshot::default();
        let mut drops = [0; REASONS];
        for pair in self.0.iter() {
            total.tx += pair.tx.read();
            total.rx += pair.rx.read();
            total.notifications += pair.notifications.get();
            for (sum, counter) in drops.iter_mut().zip(&pair.drops) {
                *sum += counter.get();
            }
        }
        total.drops = Drop::all().zip(drops).filter(|(_, n)| *n > 0).collect();
        total
    }
}
