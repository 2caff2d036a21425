//! This crate is the data path, whose worker threads move frames from transmit queues to receive
//! queues and to the uplink.
//!
//! What it is: a [`Datapath`] owns worker threads, and a worker owns queues. Queues come and go by
//! [`Datapath::start_queue`] and [`Datapath::stop_queue`]; when the latter returns, no worker
//! touches that ring any more.
//!
//! What it is not: it does not decide where frames go (that is the eswitch's
//! [`Table`](manifold_eswitch::Table)), and it knows no registers, sockets or processes.
//!
//! The modules follow the way of a frame:
//!
//! ```text
//!   worker      a round over what is busy; sleeps when nothing is (wake)
//!     │
//!   transmit    a burst of chains is taken from a TX ring; headers are copied out,
//!     │         bodies stay where they are (frame)
//!   switch      each frame gets a target: a receive queue, the uplink, or none
//!     ├──────────────────────────────┬───────────────────────────────┐
//!   receive                        switch::tap_port               handover
//!     one copy, from the sender's    the TAP's system calls          a link to the worker that
//!     memory to the receiver's                                       serves the receive queue
//!     │
//!   transmit    the used entries are published, drivers are interrupted
//! ```
//!
//! The life of a queue:
//!
//! 1. [`Datapath::add_function`] makes its function known to every worker.
//! 2. [`Datapath::start_queue`] chooses a worker and gives it the queue; the other workers learn
//!    where it is.
//! 3. The worker polls the queue while it has traffic. A transmit queue that stays empty is armed,
//!    so that the driver notifies, and leaves the poll. A worker whose queues are all armed sleeps
//!    in `epoll_wait`, where each queue's kick is an eventfd.
//! 4. The queue may change workers when functions come and go ([`handover::rebalance`]).
//! 5. [`Datapath::stop_queue`] waits until nothing of the queue is in flight, and returns its
//!    place.
//!
//! Guest memory is touched only under a pin of its DMA domain. A pin is taken per burst: one of the
//! sender, and one of each receiver.

#![forbid(unsafe_code)]

mod clock;
mod config;
mod counters;
mod datapath;
mod error;
mod frame;
mod handover;
mod moderation;
mod receive;
mod stages;
mod switch;
mod sync;
mod transmit;
mod wake;
mod worker;

// Clippy knows test code by `cfg(test)` alone.
#[cfg(loom)]
#[cfg(test)]
mod models;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

pub use config::{Direction, QueueConfig};
pub use counters::{DirectionSnapshot, DropCause, FunctionCounters, PairCounters, PairSnapshot};
pub use datapath::Datapath;
pub use error::{Error, MAX_WORKERS};
pub use stages::{Stage, WorkerSnapshot};
pub use wake::kick::Kick;
