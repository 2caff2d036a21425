//! What the generator found.

use serde::{Deserialize, Serialize};

/// What one queue pair did while it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairReport {
    /// Frames given to the device.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
}

/// What one port did while it was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortReport {
    /// Frames given to the device.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Doorbells rung.
    pub kicks: u64,
    /// Frames of closed loops given up as lost.
    pub lost: u64,
    /// Each queue pair.
    pub pairs: Vec<PairReport>,
}

impl std::ops::Sub for PairReport {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { sent: self.sent - before.sent, received: self.received - before.received }
    }
}

impl std::ops::Sub for PortReport {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            kicks: self.kicks - before.kicks,
            lost: self.lost - before.lost,
            pairs: self.pairs.into_iter().zip(before.pairs).map(|(a, b)| a - b).collect(),
        }
    }
}

/// What the generator itself took. A round looks at every flow and every port once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Nanoseconds per frame, sending and receiving together, of the rounds that moved any.
    pub ns_per_frame: f64,
    /// The same in cycles of the time stamp counter.
    pub cycles_per_frame: f64,
    /// The part of the time that such rounds took: near 1 the generator, not the device, is the limit.
    pub busy: f64,
    /// Frames sent or received in such a round, on average.
    pub frames_per_round: f64,
}

/// Percentiles of round trips, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Round trips.
    pub count: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The mean.
    pub mean_ns: f64,
    /// The median.
    pub p50_ns: u64,
    /// 99 % are not longer.
    pub p99_ns: u64,
    /// 99.9 % are not longer.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Round trips given up, because a frame was lost.
    pub lost: u64,
}

/// What the generator counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Seconds counted.
    pub seconds: f64,
    /// Frames received per second, all ports.
    pub frames_per_s: f64,
    /// Nanoseconds per received frame: the reciprocal of the above; 0 where none came.
    pub ns_per_frame: f64,
    /// Bits received per second, all ports, of frames without FCS.
    pub bits_per_s: f64,
    /// Bytes of a frame, on average.
    pub bytes_per_frame: f64,
    /// Frames sent, all ports.
    pub sent: u64,
    /// Frames received, all ports.
    pub received: u64,
    /// Sent and not received. A few are on their way at the start and at the end of counting, so in a closed
    /// loop that loses none this is between minus and plus the window.
    pub missing: i64,
    /// Frames of closed loops given up as lost.
    pub lost: u64,
    /// Each port, in the order of the configuration.
    pub ports: Vec<PortReport>,
    /// What the generator itself took.
    pub generator: Cost,
    /// Cycles of the time stamp counter per second.
    pub tsc_hz: f64,
    /// Of round trips; `null` for flows.
    pub latency: Option<Latency>,
    /// Features agreed on with port 0, in hexadecimal.
    pub features: String,
}
