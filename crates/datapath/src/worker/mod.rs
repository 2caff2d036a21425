//! A worker is a thread, its mailbox, and everything that it serves.

pub(crate) mod commands;
pub(crate) mod exchange;
pub(crate) mod mailbox;
pub(crate) mod moderated;
pub(crate) mod queues;
pub(crate) mod rebalancing;
pub(crate) mod round;
pub(crate) mod thread;
pub(crate) mod uplink;
pub(crate) mod window;
