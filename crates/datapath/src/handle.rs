//! The data path as its owner sees it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use manifold_dma::Domain;
use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_port::Tap;
use manifold_virtio::ring::RingError;
use manifold_virtio::transport::QueueState;
use parking_lot::Mutex;

use crate::config::{Direction, QueueConfig};
use crate::counters::FunctionCounters;
use crate::poll::{Bell, Kick};
use crate::transmit::Function;
use crate::uplink::Uplink;
use crate::worker::{QueueError, Worker};

/// Why the data path refused something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue cannot be served as it is set up.
    #[error("the queue cannot be served: {0}")]
    Ring(#[from] RingError),
    /// A queue of a function that was not added, or has been removed.
    #[error("{0} does not exist")]
    NoFunction(FunctionId),
    /// A thread, eventfd or epoll could not be had.
    #[error("the data path is out of resources: {0}")]
    Io(#[from] io::Error),
    /// The worker has ended.
    #[error("the worker thread has ended")]
    WorkerGone,
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Ring(error) => Error::Ring(error),
            QueueError::Io(error) => Error::Io(error),
            QueueError::NoFunction(id) => Error::NoFunction(id),
        }
    }
}

pub(crate) enum Command {
    SetTable(Arc<Table>),
    SetUplink(Option<Uplink>),
    AddFunction(FunctionId, Box<Function>),
    RemoveFunction(FunctionId),
    StartQueue(Box<QueueConfig>),
    StopQueue(FunctionId, u16, Direction),
    SetActivePairs(FunctionId, u16),
    Stop,
}

/// Answered with where a stopped queue was.
type Done = SyncSender<Result<Option<QueueState>, QueueError>>;

/// Commands that wait for the worker.
pub(crate) struct Commands {
    /// False once the worker has ended: nobody would answer.
    open: bool,
    pub(crate) waiting: VecDeque<(Command, Done)>,
}

/// Held by the worker's thread. However that ends, nobody is left waiting for an answer.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "a worker panicked: no frame moves any more; please report this as a bug"
            );
        }
        let mut commands = self.0.commands.lock();
        commands.open = false;
        commands.waiting.clear();
    }
}

/// What the owner and a worker share.
pub(crate) struct Shared {
    pub(crate) commands: Mutex<Commands>,
    /// Looked at by the worker once per round, instead of the lock.
    pub(crate) pending: AtomicBool,
    /// Slots of the transmit queues that were kicked.
    pub(crate) kicked: Mutex<Vec<usize>>,
    pub(crate) wake: Bell,
}

/// Worker threads and the queues they serve. One worker to begin with. Dropping it stops them.
pub struct Datapath {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Datapath")
    }
}

impl Datapath {
    /// Starts the worker, with nothing to serve, forwarding by `table`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start(table: Arc<Table>) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            commands: Mutex::new(Commands { open: true, waiting: VecDeque::new() }),
            pending: AtomicBool::new(false),
            kicked: Mutex::default(),
            wake: Bell::new()?,
        });
        let worker = Worker::new(Arc::clone(&shared), table)?;
        let closing = Closing(Arc::clone(&shared));
        let worker = std::thread::Builder::new().name("worker0".into()).spawn(move || {
            let _closing = closing;
            worker.run();
        })?;
        Ok(Datapath { shared, worker: Some(worker) })
    }

    /// Replaces the forwarding table. Frames taken from a queue after this returns follow it.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_table(&self, table: Arc<Table>) -> Result<(), Error> {
        self.call(Command::SetTable(table))
    }

    /// Connects the uplink, or disconnects it.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::WorkerGone`].
    pub fn set_uplink(&self, tap: Option<Tap>) -> Result<(), Error> {
        self.call(Command::SetUplink(tap.map(Uplink::new)))
    }

    /// Makes a function known, with its DMA domain and the counters to count into.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn add_function(
        &self,
        id: FunctionId,
        domain: &Arc<Domain>,
        counters: FunctionCounters,
    ) -> Result<(), Error> {
        let function = Function { reader: domain.reader(), counters, active_pairs: 1 };
        self.call(Command::AddFunction(id, Box::new(function)))
    }

    /// Forgets a function and its queues. When it returns nothing touches its memory.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn remove_function(&self, id: FunctionId) -> Result<(), Error> {
        self.call(Command::RemoveFunction(id))
    }

    /// Serves a queue of a function that was added. A queue in the same place is stopped first.
    ///
    /// # Errors
    /// [`Error::Ring`] for a size out of range, [`Error::NoFunction`], [`Error::Io`] or [`Error::WorkerGone`].
    pub fn start_queue(&self, config: QueueConfig) -> Result<(), Error> {
        self.call(Command::StartQueue(Box::new(config)))
    }

    /// Stops a queue and says where it was; `None` if it was not served. When it returns nothing touches its ring or
    /// buffers.
    ///
    /// # Errors
    /// [`Error::WorkerGone`], and then nothing touches them either.
    pub fn stop_queue(
        &self,
        function: FunctionId,
        pair: u16,
        direction: Direction,
    ) -> Result<Option<QueueState>, Error> {
        self.ask(Command::StopQueue(function, pair, direction))
    }

    /// Says that the driver made buffers available in a transmit queue. Does not wait.
    pub fn kick(&self, kick: &Kick) {
        self.shared.kicked.lock().push(kick.slot());
        self.shared.pending.store(true, Ordering::Release);
        self.shared.wake.ring();
    }

    /// Frames for a function go to its first `pairs` receive queues (virtio 1.3, 5.1.6.5.6.1). One to begin with.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_active_pairs(&self, function: FunctionId, pairs: u16) -> Result<(), Error> {
        self.call(Command::SetActivePairs(function, pairs))
    }

    fn call(&self, command: Command) -> Result<(), Error> {
        self.ask(command).map(|_| ())
    }

    fn ask(&self, command: Command) -> Result<Option<QueueState>, Error> {
        let (done, wait) = sync_channel(1);
        let mut commands = self.shared.commands.lock();
        if !commands.open {
            return Err(Error::WorkerGone);
        }
        commands.waiting.push_back((command, done));
        drop(commands);
        self.shared.pending.store(true, Ordering::Release);
        self.shared.wake.ring();
        Ok(wait.recv().map_err(|_| Error::WorkerGone)??)
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        let _ = self.call(Command::Stop);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
