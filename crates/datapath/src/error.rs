//! This module has the reasons why the data path refuses something.

use std::io;

use manifold_pci::FunctionId;
use manifold_virtio::ring::RingError;

/// Largest number of workers of a data path.
pub const MAX_WORKERS: usize = 64;

/// The reason why the data path refused something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue cannot be served as it is set up.
    #[error("the queue cannot be served: {0}")]
    Ring(#[from] RingError),
    /// The queue belongs to a function that was not added, or that has been removed.
    #[error("{0} does not exist")]
    NoFunction(FunctionId),
    /// A thread, eventfd or epoll could not be had.
    #[error("the data path is out of resources: {0}")]
    Io(#[from] io::Error),
    /// There would be no worker, or too many.
    #[error("{0} workers: there must be 1 to {MAX_WORKERS}")]
    Workers(usize),
    /// A worker cannot be pinned to the processor that it is to run on.
    #[error("a worker cannot run on processor {core}: {source}")]
    Core {
        /// Number of the processor.
        core: usize,
        /// Error of the system.
        source: io::Error,
    },
    /// A worker has ended.
    #[error("a worker thread has ended")]
    WorkerGone,
}
