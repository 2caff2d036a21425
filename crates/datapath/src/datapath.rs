//! This module is the data path as its owner sees it: workers, and the functions and queues they
//! serve.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use manifold_dma::Domain;
use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_port::Tap;
use manifold_virtio::net::{Coalescing, Steering as SteeringConfig};
use manifold_virtio::ring::QueueState;
use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::clock::Clock;
use crate::config::{Direction, QueueConfig};
use crate::counters::FunctionCounters;
use crate::error::{Error, MAX_WORKERS};
use crate::handover::links::{Inboxes, Outboxes, connect};
use crate::handover::message::FunctionInstance;
use crate::handover::placement::Placement;
use crate::handover::rebalance::Rebalance;
use crate::stages::{StageTimer, WorkerCounters, WorkerSnapshot};
use crate::switch::function::Function;
use crate::switch::steering::Steering;
use crate::switch::tap_port::TapPort;
use crate::wake::kick::Kick;
use crate::wake::poller::{Poller, WakeReason};
use crate::worker::commands::Command;
use crate::worker::mailbox::{CloseOnExit, Mailbox, Reply};
use crate::worker::queues::Queues;
use crate::worker::thread::Worker;
use crate::worker::uplink::Uplink;

/// Shortest time between two rebalancings. All workers stand still during one, and it is guests
/// that come and go.
const REBALANCE: Duration = Duration::from_millis(100);

/// A worker as the data path sees it.
struct WorkerHandle {
    mailbox: Arc<Mailbox<Command>>,
    counters: Arc<WorkerCounters>,
    core: Option<usize>,
    thread: Option<JoinHandle<()>>,
}

/// Worker threads and the queues they serve. Dropping it stops them.
pub struct Datapath {
    workers: Vec<WorkerHandle>,
    clock: Clock,
    generation: AtomicU32,
    /// Placement of the queue pairs, locked while queues start, stop and move, so that all workers
    /// agree on it. The time is that of the last rebalancing.
    placement: Mutex<(Placement, Option<Instant>)>,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Starts workers with nothing to serve, forwarding by `table`: one for each of `cores`, pinned
    /// to that processor if one is given.
    ///
    /// # Errors
    /// [`Error::Workers`], [`Error::Core`] or [`Error::Io`].
    pub fn start(table: &Arc<Table>, cores: &[Option<usize>]) -> Result<Self, Error> {
        if !(1..=MAX_WORKERS).contains(&cores.len()) {
            return Err(Error::Workers(cores.len()));
        }
        let clock = Clock::new();
        let mailboxes = cores.iter().map(|_| Mailbox::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers: Vec<_> = mailboxes.iter().map(|m| Arc::clone(&m.waker)).collect();
        let mut datapath = Datapath {
            workers: Vec::new(),
            clock: clock.clone(),
            generation: AtomicU32::new(0),
            placement: Mutex::new((Placement::new(cores.len()), None)),
        };
        for ((core, mailbox), links) in cores.iter().zip(mailboxes).zip(connect(&wakers)) {
            let close = CloseOnExit { mailbox, wakers: wakers.clone() };
            let number = datapath.workers.len();
            let worker = WorkerHandle::start(number, *core, close, links, table, &clock)?;
            datapath.workers.push(worker);
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

    /// Connects the uplink to a TAP, or disconnects it.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::WorkerGone`].
    pub fn set_uplink(&self, tap: Option<Tap>) -> Result<(), Error> {
        let port = tap.map(TapPort::new);
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
        let steering = Arc::new(Steering::new(&SteeringConfig::default()));
        self.tell_all(|_| {
            let function = Function {
                instance: FunctionInstance { index: id.index() as u16, generation },
                reader: domain.reader(),
                counters: counters.clone(),
                steering: Arc::clone(&steering),
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
            // The completions of frames in flight come back first.
            self.ask(worker, Command::StopQueue((id, pair, Direction::Transmit)))?;
        }
        let result = self.tell_all(|_| Command::RemoveFunction(id));
        placement.0.forget(id);
        self.rebalance(&mut placement)?;
        result
    }

    /// Serves a queue of a function that was added. A queue in the same place is stopped first.
    ///
    /// # Errors
    /// [`Error::Ring`] for a size out of range, [`Error::NoFunction`], [`Error::Io`] or
    /// [`Error::WorkerGone`].
    pub fn start_queue(&self, config: QueueConfig) -> Result<(), Error> {
        let (id, pair, direction) = (config.function, config.pair, config.direction);
        let mut placement = self.placement.lock();
        let known = placement.0.find((id, pair)).is_some();
        let worker = placement.0.place((id, pair));
        self.ask(worker, Command::StopQueue((id, pair, direction)))?;
        if let Err(error) = self.ask(worker, Command::StartQueue(Box::new(config))) {
            if !known {
                placement.0.forget_pair((id, pair));
            }
            return Err(error);
        }
        if direction == Direction::Receive {
            for other in (0..self.workers.len()).filter(|other| *other != worker) {
                self.ask(other, Command::SetRemote(id, pair, worker))?;
            }
        }
        self.rebalance(&mut placement)
    }

    /// Stops a queue and returns the place it had reached; `None` if it was not served. When it
    /// returns nothing touches its ring or buffers.
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
            Some(worker) => self.ask(worker, Command::StopQueue((function, pair, direction))),
            None => Ok(None),
        }
    }

    /// Tells the worker that the driver made buffers available in a transmit queue. It does not
    /// wait.
    pub fn kick(&self, kick: &Kick) {
        if let Some((worker, slot)) = kick.place()
            && let Some(worker) = self.workers.get(worker)
        {
            worker.mailbox.kick(slot);
        }
    }

    /// Sets how frames for a function are spread over its queue pairs. To begin with, all go to the
    /// first.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_steering(
        &self,
        function: FunctionId,
        steering: &SteeringConfig,
    ) -> Result<(), Error> {
        let steering = Arc::new(Steering::new(steering));
        self.tell_all(|_| Command::SetSteering(function, Arc::clone(&steering)))
    }

    /// Sets the receive offloads in force, as masks of virtio's feature bits, for all queues of a
    /// function that run and all that start from now on.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn set_offloads(&self, function: FunctionId, offloads: u64) -> Result<(), Error> {
        self.tell_all(|_| Command::SetOffloads(function, offloads))
    }

    /// Sets how interrupts of a queue that is served are coalesced. A queue starts without.
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
        self.ask(worker, Command::SetCoalescing((function, pair, direction), coalescing))
            .map(|_| ())
    }

    /// Returns what each worker has done.
    pub fn workers(&self) -> Vec<WorkerSnapshot> {
        let loads = self.placement.lock().0.loads().to_vec();
        let all = self.workers.iter().zip(loads);
        all.map(|(worker, pairs)| worker.counters.snapshot(worker.core, pairs, &self.clock))
            .collect()
    }

    /// Evens out how many queue pairs each worker serves, unless that was done a moment ago.
    fn rebalance(&self, placement: &mut (Placement, Option<Instant>)) -> Result<(), Error> {
        let (placement, last) = placement;
        if placement.is_even() || last.is_some_and(|last| last.elapsed() < REBALANCE) {
            return Ok(());
        }
        *last = Some(Instant::now());
        let moves = placement.balance();
        tracing::debug!(?moves, "queue pairs change workers");
        let rebalance = Arc::new(Rebalance::new(self.workers.len(), moves));
        self.tell_all(|_| Command::Rebalance(Arc::clone(&rebalance)))
    }

    /// Tells every worker, and waits until all have done it.
    fn tell_all(&self, command: impl Fn(usize) -> Command) -> Result<(), Error> {
        let asked: Vec<_> = self
            .workers
            .iter()
            .enumerate()
            .map(|(number, worker)| worker.mailbox.send(command(number)))
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
        answer(&worker.mailbox.send(command)?)
    }
}

fn answer(wait: &Receiver<Reply>) -> Result<Option<QueueState>, Error> {
    wait.recv().map_err(|_| Error::WorkerGone)?
}

impl WorkerHandle {
    /// Starts a worker thread. `close` has its mailbox.
    fn start(
        number: usize,
        core: Option<usize>,
        close: CloseOnExit<Command>,
        links: (Outboxes, Inboxes),
        table: &Arc<Table>,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let mailbox = Arc::clone(&close.mailbox);
        let poller = Poller::new()?;
        poller.add(&*mailbox.waker, WakeReason::Mailbox)?;
        let counters = Arc::new(WorkerCounters::default());
        let timer = StageTimer::new(clock.clone(), Arc::clone(&counters));
        let queues = Queues::new(number, poller, clock.clone(), Arc::clone(table), links, timer);
        let worker =
            Worker::new(Arc::clone(&mailbox), Arc::clone(&counters), clock.clone(), queues);
        let (pinned, wait) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name(format!("worker{number}")).spawn(move || {
                let _close = close;
                let result = core.map_or(Ok(()), pin);
                let go = result.is_ok();
                let _ = pinned.send(result);
                if go {
                    worker.run();
                }
            })?;
        let handle = WorkerHandle { mailbox, counters, core, thread: Some(thread) };
        match wait.recv() {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(source)) => Err(Error::Core { core: core.unwrap_or_default(), source }),
            Err(_) => Err(Error::WorkerGone),
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        if let Ok(wait) = self.mailbox.send(Command::Stop) {
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
