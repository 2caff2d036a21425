//! How a worker sleeps, and what wakes it.

pub(crate) mod kick;
pub(crate) mod poller;
pub(crate) mod sleeper;
pub(crate) mod waker;
