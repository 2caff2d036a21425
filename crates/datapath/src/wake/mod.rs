//! This module puts a worker to sleep and wakes it.

pub(crate) mod kick;
pub(crate) mod poller;
pub(crate) mod sleeper;
pub(crate) mod waker;
