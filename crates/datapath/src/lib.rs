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
mod command;
mod config;
mod counters;
mod deliver;
mod egress;
mod exchange;
mod flight;
mod frame;
mod handle;
mod mesh;
mod meter;
mod moderation;
mod parcel;
mod placement;
mod poll;
mod queues;
mod rendezvous;
mod route;
mod sleep;
mod software;
mod steer;
mod sync;
mod transmit;
mod uplink;
mod window;
mod worker;

#[cfg(loom)]
#[cfg(test)]
mod models;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

pub use config::{Direction, QueueConfig};
pub use counters::{Drop, FunctionCounters, PairCounters, PairSnapshot, WaySnapshot};
pub use handle::{Datapath, Error, MAX_WORKERS};
pub use meter::{Stage, WorkerSnapshot};
pub use poll::Kick;
