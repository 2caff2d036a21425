//! The data path: worker threads that move frames from transmit queues to receive queues and the uplink.
//!
//! What it is: a [`Datapath`] owns worker threads; a worker owns queues. Queues come and go by [`Datapath::start_queue`]
//! and [`Datapath::stop_queue`]; when the latter returns, no worker touches that ring any more.
//!
//! What it is not: it decides nothing about where frames go (that is the eswitch's [`Table`](manifold_eswitch::Table)),
//! and knows no registers, sockets or processes.
//!
//! ```text
//!   TX ring --pop--> Burst of frames --classify--> per receiver: RX ring --publish, interrupt-->
//!   uplink --recv->  (headers copied   (eswitch)   or uplink (TAP)
//!                     out; bodies stay                 \
//!                     where they are)                   one copy: sender's memory -> receiver's memory
//! ```
//!
//! A worker polls the queues that have traffic. A queue that stays empty is armed (the driver is asked to notify) and
//! leaves the poll; a worker whose queues are all armed sleeps in `epoll_wait`, where each queue's kick is an eventfd.
//!
//! Guest memory is touched only under a pin of its DMA domain, taken per burst; one pin per sender and one per receiver
//! of a run of frames.

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

#[cfg(all(loom, test))]
mod models;
#[cfg(all(not(loom), test))]
mod tests;

pub use config::{Direction, QueueConfig};
pub use counters::{DirectionSnapshot, DropCause, FunctionCounters, PairCounters, PairSnapshot};
pub use datapath::Datapath;
pub use error::{Error, MAX_WORKERS};
pub use stages::{Stage, WorkerSnapshot};
pub use wake::kick::Kick;
