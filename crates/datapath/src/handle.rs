//! The data path as its owner sees it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use manifold_dma::Domain;
use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_port::Tap;
use manifold_virtio::net::{Coalescing, Steering};
use manifold_virtio::ring::{QueueState, RingError};
use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::clock::Clock;
use crate::command::{Command, Done};
use crate::config::{Direction, QueueConfig};
use crate::counters::FunctionCounters;
use crate::egress::Function;
use crate::exchange::Meeting;
use crate::mesh::{Doorbell, Ports, connect};
use crate::meter::{Laps, Meter, WorkerSnapshot};
use crate::parcel::Address;
use crate::placement::{Pair, Placement};
use crate::poll::{Bell, Kick, Poller, Wake};
use crate::queues::{QueueError, Queues};
use crate::sleep::Sleeper;
use crate::steer::Steer;
use crate::uplink::{Port, Uplink};
use crate::worker::Worker;

/// The most workers of a data path.
pub const MAX_WORKERS: usize = 64;

/// The least time between two times that queues change workers: for as long as that takes all of them stand still, and
/// those who come and go are guests.
const REBALANCE: Duration = Duration::from_millis(100);

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
    /// No worker, or too many.
    #[error("{0} workers: there must be 1 to {MAX_WORKERS}")]
    Workers(usize),
    /// A worker cannot be pinned to the processor it is to run on.
    #[error("a worker cannot run on processor {core}: {source}")]
    Core {
        /// The processor's number.
        core: usize,
        /// What the system says.
        source: io::Error,
    },
    /// A worker has ended.
    #[error("a worker thread has ended")]
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

/// Commands that wait for a worker.
pub(crate) struct Commands {
    /// False once the worker has ended: nobody would answer.
    open: bool,
    pub(crate) waiting: VecDeque<(Command, Done)>,
}

/// Held by a worker's thread. However that ends, nobody is left waiting for an answer, nor for frames in flight: the other
/// workers are woken to find their rings abandoned.
struct Closing {
    own: Arc<Shared>,
    all: Vec<Arc<Doorbell>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "a worker panicked: its queues are served no more; please report this as a bug"
            );
        }
        let mut commands = self.own.commands.lock();
        commands.open = false;
        commands.waiting.clear();
        drop(commands);
        self.all.iter().for_each(|doorbell| doorbell.bell.ring());
    }
}

/// What the owner and a worker share.
pub(crate) struct Shared {
    pub(crate) commands: Mutex<Commands>,
    /// Looked at by the worker once per round, instead of the lock.
    pub(crate) pending: AtomicBool,
    /// Slots of the transmit queues that were kicked.
    pub(crate) kicked: Mutex<Vec<usize>>,
    pub(crate) doorbell: Arc<Doorbell>,
}

impl Shared {
    fn new() -> io::Result<Arc<Self>> {
        let doorbell = Arc::new(Doorbell { sleeper: Sleeper::new(), bell: Bell::new()? });
        Ok(Arc::new(Shared {
            commands: Mutex::new(Commands { open: true, waiting: VecDeque::new() }),
            pending: AtomicBool::new(false),
            kicked: Mutex::default(),
            doorbell,
        }))
    }

    fn wake(&self) {
        self.pending.store(true, Ordering::Release);
        self.doorbell.ring();
    }

    /// Hands a command over; the answer comes through the result.
    fn ask(&self, command: Command) -> Result<Receiver<Answer>, Error> {
        let (done, wait) = sync_channel(1);
        let mut commands = self.commands.lock();
        if !commands.open {
            return Err(Error::WorkerGone);
        }
        commands.waiting.push_back((command, done));
        drop(commands);
        self.wake();
        Ok(wait)
    }
}

type Answer = Result<Option<QueueState>, QueueError>;

/// A worker as its owner sees it.
struct Member {
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    core: Option<usize>,
    thread: Option<JoinHandle<()>>,
}

/// Worker threads and the queues they serve. Dropping it stops them.
pub struct Datapath {
    workers: Vec<Member>,
    clock: Clock,
    generation: AtomicU32,
    /// Held while queues start, stop and move, so that all workers agree on where each is.
    placement: Mutex<(Placement, Option<Instant>)>,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Starts workers with nothing to serve, forwarding by `table`: one for each of `cores`, pinned to that processor if
    /// one is given.
    ///
    /// # Errors
    /// [`Error::Workers`], [`Error::Core`] or [`Error::Io`].
    pub fn start(table: &Arc<Table>, cores: &[Option<usize>]) -> Result<Self, Error> {
        if !(1..=MAX_WORKERS).contains(&cores.len()) {
            return Err(Error::Workers(cores.len()));
        }
        let clock = Clock::new();
        let shared = cores.iter().map(|_| Shared::new()).collect::<io::Result<Vec<_>>>()?;
        let doorbells: Vec<_> = shared.iter().map(|s| Arc::clone(&s.doorbell)).collect();
        let mut datapath = Datapath {
            workers: Vec::new(),
            clock: clock.clone(),
            generation: AtomicU32::new(0),
            placement: Mutex::new((Placement::new(cores.len()), None)),
        };
        for (((number, core), shared), ports) in
            cores.iter().enumerate().zip(shared).zip(connect(&doorbells))
        {
            let closing = Closing { own: Arc::clone(&shared), all: doorbells.clone() };
            let member = Member::start(number, *core, shared, ports, table, &clock, closing)?;
            datapath.workers.push(member);
        }
        Ok(datapath)
    }

    /// Replaces the forwarding table. Frames taken from a queue after this returns follow it.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_table(&self, table: &Arc<Table>) -> Result<(), Error> {
        self.tell_all(|_| Command::SetTable(Arc::clone(table)))
    }

    /// Connects the uplink, or disconnects it.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::WorkerGone`].
    pub fn set_uplink(&self, tap: Option<Tap>) -> Result<(), Error> {
        let port = tap.map(Port::new);
        self.tell_all(|worker| {
            let uplink = if worker == 0 { port.clone().map(Uplink::new) } else { None };
            Command::SetUplink(port.clone(), uplink)
        })
    }

    /// Makes a function known, with its DMA domain and the counters to count into.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn add_function(
        &self,
        id: FunctionId,
        domain: &Arc<Domain>,
        counters: &FunctionCounters,
    ) -> Result<(), Error> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let steer = Arc::new(Steer::new(&Steering::default()));
        self.tell_all(|_| {
            let function = Function {
                address: Address { number: id.index() as u16, generation },
                reader: domain.reader(),
                counters: counters.clone(),
                steer: Arc::clone(&steer),
                offloads: None,
            };
            Command::AddFunction(id, Box::new(function))
        })
    }

    /// Forgets a function and its queues. When it returns nothing touches its memory.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn remove_function(&self, id: FunctionId) -> Result<(), Error> {
        let mut placement = self.placement.lock();
        for (pair, worker) in placement.0.pairs_of(id) {
            // Frames in flight come back first.
            self.ask(worker, Command::StopQueue(id, pair, Direction::Transmit))?;
        }
        let result = self.tell_all(|_| Command::RemoveFunction(id));
        placement.0.forget(id);
        self.rebalance(&mut placement)?;
        result
    }

    /// Serves a queue of a function that was added. A queue in the same place is stopped first.
    ///
    /// # Errors
    /// [`Error::Ring`] for a size out of range, [`Error::NoFunction`], [`Error::Io`] or [`Error::WorkerGone`].
    pub fn start_queue(&self, config: QueueConfig) -> Result<(), Error> {
        let (id, pair, direction) = (config.function, config.pair, config.direction);
        let mut placement = self.placement.lock();
        let known = placement.0.find((id, pair)).is_some();
        let worker = placement.0.place((id, pair));
        self.ask(worker, Command::StopQueue(id, pair, direction))?;
        if let Err(error) = self.ask(worker, Command::StartQueue(Box::new(config))) {
            if !known {
                placement.0.forget_pair((id, pair));
            }
            return Err(error);
        }
        if direction == Direction::Receive {
            for other in (0..self.workers.len()).filter(|other| *other != worker) {
                self.ask(other, Command::Point(id, pair, worker))?;
            }
        }
        self.rebalance(&mut placement)
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
        let placement = self.placement.lock();
        match placement.0.find((function, pair)) {
            Some(worker) => self.ask(worker, Command::StopQueue(function, pair, direction)),
            None => Ok(None),
        }
    }

    /// Says that the driver made buffers available in a transmit queue. Does not wait.
    pub fn kick(&self, kick: &Kick) {
        if let Some((worker, slot)) = kick.place()
            && let Some(worker) = self.workers.get(worker)
        {
            worker.shared.kicked.lock().push(slot);
            worker.shared.wake();
        }
    }

    /// How frames for a function are spread over its queue pairs. To the first only, to begin with.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_steering(&self, function: FunctionId, steering: &Steering) -> Result<(), Error> {
        let steer = Arc::new(Steer::new(steering));
        self.tell_all(|_| Command::SetSteering(function, Arc::clone(&steer)))
    }

    /// Which receive offloads are in force, as masks of virtio's feature bits, for all queues of a function that run and
    /// all that start from now on.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_offloads(&self, function: FunctionId, offloads: u64) -> Result<(), Error> {
        self.tell_all(|_| Command::SetOffloads(function, offloads))
    }

    /// How interrupts of a queue that is served are coalesced. A queue starts without.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_coalescing(
        &self,
        function: FunctionId,
        pair: u16,
        direction: Direction,
        coalescing: Coalescing,
    ) -> Result<(), Error> {
        let placement = self.placement.lock();
        let Some(worker) = placement.0.find((function, pair)) else { return Ok(()) };
        self.ask(worker, Command::SetCoalescing(function, pair, direction, coalescing)).map(|_| ())
    }

    /// What each worker has done.
    pub fn workers(&self) -> Vec<WorkerSnapshot> {
        let loads = self.placement.lock().0.loads().to_vec();
        let all = self.workers.iter().zip(loads);
        all.map(|(worker, pairs)| worker.meter.snapshot(worker.core, pairs, &self.clock)).collect()
    }

    /// Evens out which worker serves how many queue pairs, unless that was done a moment ago.
    fn rebalance(&self, placement: &mut (Placement, Option<Instant>)) -> Result<(), Error> {
        let (placement, last) = placement;
        if placement.is_even() || last.is_some_and(|last| last.elapsed() < REBALANCE) {
            return Ok(());
        }
        *last = Some(Instant::now());
        let moves: Vec<(Pair, usize)> = placement.balance();
        tracing::debug!(?moves, "queue pairs change workers");
        let meeting = Arc::new(Meeting::new(self.workers.len(), moves));
        self.tell_all(|_| Command::Meet(Arc::clone(&meeting)))
    }

    /// Tells every worker, and waits until all have done it.
    fn tell_all(&self, command: impl Fn(usize) -> Command) -> Result<(), Error> {
        let asked: Vec<_> = self
            .workers
            .iter()
            .enumerate()
            .map(|(number, worker)| worker.shared.ask(command(number)))
            .collect();
        let mut result = Ok(());
        for wait in asked {
            let answer = wait.and_then(|wait| answer(&wait));
            result = result.and(answer.map(|_| ()));
        }
        result
    }

    fn ask(&self, worker: usize, command: Command) -> Result<Option<QueueState>, Error> {
        let worker = self.workers.get(worker).ok_or(Error::WorkerGone)?;
        answer(&worker.shared.ask(command)?)
    }
}

fn answer(wait: &Receiver<Answer>) -> Result<Option<QueueState>, Error> {
    Ok(wait.recv().map_err(|_| Error::WorkerGone)??)
}

impl Member {
    fn start(
        number: usize,
        core: Option<usize>,
        shared: Arc<Shared>,
        ports: Ports,
        table: &Arc<Table>,
        clock: &Clock,
        closing: Closing,
    ) -> Result<Self, Error> {
        let poller = Poller::new()?;
        poller.add(&shared.doorbell.bell, Wake::Command)?;
        let meter = Arc::new(Meter::default());
        let laps = Laps::new(clock.clone(), Arc::clone(&meter));
        let queues = Queues::new(number, poller, clock.clone(), Arc::clone(table), ports, laps);
        let worker = Worker::new(Arc::clone(&shared), Arc::clone(&meter), clock.clone(), queues);
        let (pinned, wait) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name(format!("worker{number}")).spawn(move || {
                let _closing = closing;
                let result = core.map_or(Ok(()), pin);
                let go = result.is_ok();
                let _ = pinned.send(result);
                if go {
                    worker.run();
                }
            })?;
        let member = Member { shared, meter, core, thread: Some(thread) };
        match wait.recv() {
            Ok(Ok(())) => Ok(member),
            Ok(Err(source)) => Err(Error::Core { core: core.unwrap_or_default(), source }),
            Err(_) => Err(Error::WorkerGone),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Ok(wait) = self.shared.ask(Command::Stop) {
            let _ = wait.recv();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps the calling thread on one processor.
fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
