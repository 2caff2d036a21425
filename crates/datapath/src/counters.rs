//! Counters: one set per queue pair, written by one worker, read by anyone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifold_eswitch::DropReason;

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
}

const SWITCH: usize = DropReason::ALL.len();
const REASONS: usize = SWITCH + 5;

impl Drop {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Drop> {
        let own =
            [Drop::BadHeader, Drop::NoBuffer, Drop::NotReady, Drop::BufferTooSmall, Drop::Uplink];
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

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one queue pair, on cache lines of their own. Transmit and receive are seen from the driver.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PairCounters {
    pub(crate) tx_frames: Counter,
    pub(crate) tx_bytes: Counter,
    pub(crate) rx_frames: Counter,
    pub(crate) rx_bytes: Counter,
    pub(crate) interrupts: Counter,
    drops: [Counter; REASONS],
}

impl PairCounters {
    #[inline]
    pub(crate) fn drop(&self, reason: Drop) {
        if let Some(counter) = self.drops.get(reason.index()) {
            counter.add(1);
        }
    }

    /// The values now.
    pub fn snapshot(&self) -> PairSnapshot {
        PairSnapshot {
            tx_frames: self.tx_frames.get(),
            tx_bytes: self.tx_bytes.get(),
            rx_frames: self.rx_frames.get(),
            rx_bytes: self.rx_bytes.get(),
            interrupts: self.interrupts.get(),
            drops: Drop::all()
                .filter_map(|reason| {
                    let n = self.drops.get(reason.index())?.get();
                    (n > 0).then_some((reason, n))
                })
                .collect(),
        }
    }
}

/// The values of [`PairCounters`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairSnapshot {
    /// Frames the driver sent that the switch forwarded (a receiver may still have had no buffer).
    pub tx_frames: u64,
    /// Their bytes, from the destination address on, without FCS.
    pub tx_bytes: u64,
    /// Frames delivered to the driver.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Frames that did not arrive, by reason; only reasons that occurred.
    pub drops: Vec<(Drop, u64)>,
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
            total.tx_frames += pair.tx_frames.get();
            total.tx_bytes += pair.tx_bytes.get();
            total.rx_frames += pair.rx_frames.get();
            total.rx_bytes += pair.rx_bytes.get();
            total.interrupts += pair.interrupts.get();
            for (sum, counter) in drops.iter_mut().zip(&pair.drops) {
                *sum += counter.get();
            }
        }
        total.drops = Drop::all().zip(drops).filter(|(_, n)| *n > 0).collect();
        total
    }
}
