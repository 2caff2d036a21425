//! This module moves work from one worker to another: frames for its receive queues, completions,
//! and queues that change workers.

pub(crate) mod barrier;
pub(crate) mod links;
pub(crate) mod message;
pub(crate) mod placement;
pub(crate) mod rebalance;
