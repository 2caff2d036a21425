//! A raw generator and sink of Ethernet frames, for measurements: the same driver, no stack, one thread.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How much a port sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// As fast as the ring takes frames, whatever arrives.
    Open,
    /// At most this many frames a second.
    Rate(u64),
    /// At most this many frames sent and not yet received at the far end; nothing is lost to overload.
    Closed(u32),
}

/// A stream of frames from one port to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Index into [`Config::ports`] of the sender.
    pub from: usize,
    /// Index into [`Config::ports`] of the receiver.
    pub to: usize,
    /// How much.
    pub load: Load,
}

/// What to generate. One thread drives all ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The functions' vfio-user sockets.
    pub ports: Vec<PathBuf>,
    /// Who sends to whom.
    pub flows: Vec<Flow>,
    /// Bytes per frame on the wire, without FCS: 60 to the MTU plus 14. A frame of 64 bytes on a real wire
    /// is 60 here.
    pub frame_size: u16,
    /// Entries per virtqueue.
    pub queue_size: u16,
    /// Frames per burst.
    pub burst: u16,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time counted.
    pub duration: Duration,
}

/// What one flow did while it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FlowReport {
    /// Frames that the sender's device took.
    pub sent: u64,
    /// Frames that arrived at the receiver.
    pub received: u64,
    /// Frames received per second.
    pub frames_per_s: f64,
}

/// What the generator counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Each flow, in the order of [`Config::flows`].
    pub flows: Vec<FlowReport>,
    /// Frames received per second, all flows.
    pub frames_per_s: f64,
    /// Seconds counted.
    pub seconds: f64,
    /// Doorbells rung, all ports.
    pub kicks: u64,
}

/// Runs the generator.
pub fn run(config: &Config) -> Result<Report> {
    let _ = config;
    Err(Error::Unsupported("rawgen"))
}
