//! This module is the device side of virtqueues, split and packed (virtio 1.3, 2.6 to 2.8).
//!
//! ```text
//!   Pinned (a burst's translations)  +  Queue (positions)
//!                 \                      /
//!                  v                    v
//!                   Queue::open -> Burst
//!                      |- pop      one available chain -> Slices of guest memory; pop_direct: many
//!                      |- complete one used chain, not yet visible; complete_all: many
//!                      |- publish  all of them at once; says whether the driver wants an interrupt
//!                      |           (make_visible, a barrier, wants_interrupt: one barrier for
//!                      |           several queues)
//!                      `- arm      ask for a notification; says whether something came meanwhile
//! ```
//!
//! Everything in a ring is written by a guest that may be hostile and may change it at any time:
//! each index and descriptor is read once, checked, and only the copy is used. What breaks the
//! rules of the standard is a [`RingError`]; the device then needs a reset.
//!
//! # VIRTIO_F_IN_ORDER
//!
//! The driver takes a buffer whose used entry was left out to have been read, or written,
//! completely (2.7.9, 2.8.8). A run of chains without device-writable buffers (transmitted frames)
//! becomes one used entry, in the place of the first and with the identity of the last. A chain
//! with device-writable buffers always has an entry of its own: how much was written matters, and
//! drivers that receive read each entry even where the standard would let the device leave out
//! those of buffers it has filled.

mod area;
mod burst;
mod chain;
mod error;
mod inflight;
mod packed;
mod position;
mod queue;
mod setup;
mod split;
mod virtqueue;

pub use burst::Burst;
pub use chain::Chain;
pub use error::RingError;
pub use inflight::Inflight;
pub use packed::{PackedBurst, PackedQueue, is_in_use};
pub use queue::{AnyBurst, Queue};
pub use setup::{MAX_QUEUE_SIZE, QueueAddresses, QueueState, RingFeatures};
pub use split::{SplitBurst, SplitQueue};
