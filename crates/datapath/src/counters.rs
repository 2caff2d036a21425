//! There is one set of counters per queue pair, written by one worker and read by anyone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_eswitch::DropReason;
use manifold_offload::Offloads;

use crate::config::Direction;
use crate::frame::Frame;

/// The cause for which a frame did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// The switch dropped the frame. This is counted at the sender.
    Switch(DropReason),
    /// The sender's virtio_net_hdr asks for an offload that was not negotiated, or the chain is
    /// shorter than that header. This is counted at the sender.
    BadNetHeader,
    /// The receiver had no buffers. This is counted at the receiver.
    NoReceiveBuffer,
    /// The receiver has no driver, or its driver has not set up the queue. This is counted at the
    /// receiver.
    NoDriver,
    /// The receiver's buffer is too small for the frame. This is counted at the receiver.
    ReceiveBufferTooSmall,
    /// The uplink did not take the frame. This is counted at the sender.
    UplinkRefused,
    /// The worker that serves the receiver has fallen behind. This is counted at the sender.
    WorkerOverloaded,
}

/// Causes outside the switch, each with the direction that counts it and its name.
const OWN: [(DropCause, Direction, &str); 6] = [
    (DropCause::BadNetHeader, Direction::Transmit, "bad_net_header"),
    (DropCause::NoReceiveBuffer, Direction::Receive, "no_receive_buffer"),
    (DropCause::NoDriver, Direction::Receive, "no_driver"),
    (DropCause::ReceiveBufferTooSmall, Direction::Receive, "receive_buffer_too_small"),
    (DropCause::UplinkRefused, Direction::Transmit, "uplink_refused"),
    (DropCause::WorkerOverloaded, Direction::Transmit, "worker_overloaded"),
];

const CAUSES: usize = DropReason::ALL.len() + OWN.len();

impl DropCause {
    /// Returns every cause, in the order of the counters.
    pub fn all() -> impl Iterator<Item = DropCause> {
        DropReason::ALL.into_iter().map(DropCause::Switch).chain(OWN.map(|(cause, ..)| cause))
    }

    /// Returns the number of the cause's counter.
    #[inline]
    fn index(self) -> usize {
        let own = match self {
            DropCause::Switch(reason) => return reason.index(),
            DropCause::BadNetHeader => 0,
            DropCause::NoReceiveBuffer => 1,
            DropCause::NoDriver => 2,
            DropCause::ReceiveBufferTooSmall => 3,
            DropCause::UplinkRefused => 4,
            DropCause::WorkerOverloaded => 5,
        };
        DropReason::ALL.len() + own
    }

    fn own(self) -> Option<(DropCause, Direction, &'static str)> {
        OWN.get(self.index().checked_sub(DropReason::ALL.len())?).copied()
    }

    /// Returns the side at which the cause is counted: the sender's (`Transmit`) or the receiver's.
    pub fn direction(self) -> Direction {
        self.own().map_or(Direction::Transmit, |(_, direction, _)| direction)
    }

    /// Returns a name for metrics and JSON, in snake case.
    pub fn name(self) -> &'static str {
        match self {
            DropCause::Switch(reason) => reason.name(),
            _ => self.own().map_or("unknown", |(.., name)| name),
        }
    }
}

impl fmt::Display for DropCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A counter with one writer, so that an addition is a load and a store, not a locked instruction.
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

/// The counters of one direction of a queue pair.
#[derive(Debug, Default)]
pub(crate) struct DirectionCounters {
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
    pub(crate) interrupts: Counter,
    /// Number of frames with a checksum still to be completed.
    pub(crate) partial: Counter,
    /// Number of unsegmented frames, and their bytes.
    pub(crate) gso_frames: Counter,
    pub(crate) gso_bytes: Counter,
}

/// The sums over a burst, which are added to [`DirectionCounters`] in one go.
#[derive(Debug, Default)]
pub(crate) struct BurstTally {
    pub(crate) frames: u64,
    bytes: u64,
    partial: u64,
    gso_frames: u64,
    gso_bytes: u64,
}

impl BurstTally {
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

impl DirectionCounters {
    #[inline]
    pub(crate) fn add(&self, tally: &BurstTally) {
        self.frames.add(tally.frames);
        self.bytes.add(tally.bytes);
        // An unsegmented frame always has its checksum left to be completed, too.
        if tally.partial > 0 {
            self.partial.add(tally.partial);
            self.gso_frames.add(tally.gso_frames);
            self.gso_bytes.add(tally.gso_bytes);
        }
    }

    fn read(&self) -> DirectionSnapshot {
        DirectionSnapshot {
            frames: self.frames.get(),
            bytes: self.bytes.get(),
            interrupts: self.interrupts.get(),
            partial: self.partial.get(),
            gso_frames: self.gso_frames.get(),
            gso_bytes: self.gso_bytes.get(),
        }
    }
}

/// The counters of one queue pair, on cache lines of their own. Transmit and receive are seen from
/// the driver.
///
/// One worker serves both queues of a pair, so each counter has one writer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PairCounters {
    pub(crate) tx: DirectionCounters,
    pub(crate) rx: DirectionCounters,
    /// Number of notifications that woke a worker.
    pub(crate) notifications: Counter,
    drops: [Counter; CAUSES],
}

impl PairCounters {
    #[inline]
    pub(crate) fn drop(&self, cause: DropCause) {
        if let Some(counter) = self.drops.get(cause.index()) {
            counter.add(1);
        }
    }

    /// Counts frames for a queue that no worker serves. Several workers may count here at once, so
    /// this is the one counter that is added to atomically.
    #[cold]
    pub(crate) fn no_driver(&self, frames: u32) {
        if let Some(counter) = self.drops.get(DropCause::NoDriver.index()) {
            counter.0.fetch_add(u64::from(frames), Ordering::Relaxed);
        }
    }

    /// Returns the present values.
    pub fn snapshot(&self) -> PairSnapshot {
        PairSnapshot {
            tx: self.tx.read(),
            rx: self.rx.read(),
            notifications: self.notifications.get(),
            drops: DropCause::all()
                .filter_map(|cause| {
                    let n = self.drops.get(cause.index())?.get();
                    (n > 0).then_some((cause, n))
                })
                .collect(),
        }
    }
}

/// The values of one direction at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionSnapshot {
    /// Number of frames. Transmit: frames the driver sent that the switch forwarded (a receiver may
    /// still have had no buffer). Receive: frames delivered to the driver.
    pub frames: u64,
    /// Number of bytes of those frames, from the destination address on, without FCS.
    pub bytes: u64,
    /// Number of interrupts raised.
    pub interrupts: u64,
    /// Number of frames among them whose checksum is for the receiver to complete.
    pub partial: u64,
    /// Number of frames among them that are unsegmented.
    pub gso_frames: u64,
    /// Number of bytes of the unsegmented frames.
    pub gso_bytes: u64,
}

impl std::ops::AddAssign for DirectionSnapshot {
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
    /// Counters of the frames that the driver sent.
    pub tx: DirectionSnapshot,
    /// Counters of the frames that the driver received.
    pub rx: DirectionSnapshot,
    /// Number of notifications of the driver that woke a worker.
    pub notifications: u64,
    /// Number of frames that did not arrive, by cause. Causes that did not occur are left out.
    pub drops: Vec<(DropCause, u64)>,
}

impl PairSnapshot {
    /// Returns how many frames were dropped for this cause.
    pub fn dropped(&self, cause: DropCause) -> u64 {
        self.drops.iter().find(|(other, _)| *other == cause).map_or(0, |(_, n)| *n)
    }
}

/// The counters of a function: one set per queue pair.
#[derive(Clone, Debug)]
pub struct FunctionCounters(Arc<[PairCounters]>);

impl FunctionCounters {
    /// Makes counters of zero for `pairs` queue pairs, at least one.
    pub fn new(pairs: u16) -> Self {
        FunctionCounters((0..pairs.max(1)).map(|_| PairCounters::default()).collect())
    }

    /// Returns one pair's counters, or those of the last pair for a number beyond it.
    pub(crate) fn pair(&self, pair: u16) -> Option<&PairCounters> {
        self.0.get(usize::from(pair)).or(self.0.last())
    }

    /// Returns the present values of each pair.
    pub fn pairs(&self) -> impl Iterator<Item = PairSnapshot> {
        self.0.iter().map(PairCounters::snapshot)
    }

    /// Returns the function's present values, summed over its pairs.
    pub fn total(&self) -> PairSnapshot {
        let mut total = PairSnapshot::default();
        let mut drops = [0; CAUSES];
        for pair in self.0.iter() {
            total.tx += pair.tx.read();
            total.rx += pair.rx.read();
            total.notifications += pair.notifications.get();
            for (sum, counter) in drops.iter_mut().zip(&pair.drops) {
                *sum += counter.get();
            }
        }
        total.drops = DropCause::all().zip(drops).filter(|(_, n)| *n > 0).collect();
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_finds_itself() {
        for (index, cause) in DropCause::all().enumerate() {
            assert_eq!(cause.index(), index, "{cause}");
        }
        for own in OWN {
            assert_eq!(own.0.own(), Some(own));
            assert_eq!((own.0.direction(), own.0.name()), (own.1, own.2));
        }
        assert_eq!(DropCause::all().count(), CAUSES);
    }
}
