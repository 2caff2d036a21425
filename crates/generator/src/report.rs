//! This module is the generator's report.

use serde::{Deserialize, Serialize};

/// Counters of a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairReport {
    /// Number of frames given to the device.
    pub sent: u64,
    /// Number of frames received.
    pub received: u64,
}

/// Counters of a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortReport {
    /// Number of frames given to the device.
    pub sent: u64,
    /// Number of frames received.
    pub received: u64,
    /// Number of doorbells rung.
    pub kicks: u64,
    /// Number of frames of closed loops given up as lost.
    pub lost: u64,
    /// Counters of each queue pair.
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

/// The time that the generator itself took. A round looks at every flow and every port once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Nanoseconds per frame sent or received, in rounds that moved any.
    pub ns_per_frame: f64,
    /// Cycles of the time stamp counter per frame sent or received.
    pub cycles_per_frame: f64,
    /// Part of the time that was spent in rounds that moved frames, 0 to 1. Near 1 the generator is
    /// the limit, not the device.
    pub busy: f64,
    /// Average number of frames sent or received per round that moved any.
    pub frames_per_round: f64,
}

/// Percentiles of round trips, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Number of round trips.
    pub count: u64,
    /// Shortest round trip.
    pub min_ns: u64,
    /// Mean round trip.
    pub mean_ns: f64,
    /// Median round trip.
    pub p50_ns: u64,
    /// Time that 99 % of round trips do not exceed.
    pub p99_ns: u64,
    /// Time that 99.9 % of round trips do not exceed.
    pub p999_ns: u64,
    /// Longest round trip.
    pub max_ns: u64,
    /// Number of round trips given up because a frame was lost.
    pub lost: u64,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Seconds for which frames were counted.
    pub seconds: f64,
    /// Frames received per second, all ports.
    pub frames_per_s: f64,
    /// Nanoseconds per received frame, all ports; 0 if none came.
    pub ns_per_frame: f64,
    /// Bits received per second, all ports, of frames without FCS.
    pub bits_per_s: f64,
    /// Average length of a frame in bytes.
    pub bytes_per_frame: f64,
    /// Number of frames sent, all ports.
    pub sent: u64,
    /// Number of frames received, all ports.
    pub received: u64,
    /// Number of frames sent and not received. A few are on their way at the start and at the end
    /// of counting, so in a closed loop that loses none this is between minus and plus the window.
    pub missing: i64,
    /// Number of frames of closed loops given up as lost.
    pub lost: u64,
    /// Counters of each port, in the order of the configuration.
    pub ports: Vec<PortReport>,
    /// The time that the generator itself took.
    pub generator: Cost,
    /// Cycles of the time stamp counter per second.
    pub tsc_hz: f64,
    /// Percentiles of round trips; `null` for flows.
    pub latency: Option<Latency>,
    /// Features agreed on with port 0, in hexadecimal.
    pub features: String,
}
