//! A worker thread: polls what is busy, sleeps when nothing is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_virtio::ring::RingError;
use manifold_virtio::transport::QueueState;

use crate::config::{Direction, QueueConfig};
use crate::deliver::Receiver;
use crate::handle::{Command, Shared};
use crate::poll::{Poller, Wake};
use crate::transmit::{Egress, Function, Transmitter, number};
use crate::uplink::Uplink;

/// Empty polls before a queue is armed and leaves the poll: a few microseconds, longer than a driver in a busy stream
/// takes between two bursts, too short to be seen in an idle adapter's CPU time.
const IDLE_POLLS: u32 = 64;
/// Rounds over the busy queues between two looks at the kicks of the others.
const ROUNDS_PER_LOOK: u32 = 32;
/// Deliveries after which the worker looks earlier than that: a round of broadcasts to 256 functions takes milliseconds.
const WORK_PER_LOOK: usize = 1024;

pub(crate) struct Worker {
    shared: Arc<Shared>,
    poller: Poller,
    table: Arc<Table>,
    functions: Vec<Option<Function>>,
    receivers: Vec<Vec<Option<Receiver>>>,
    transmitters: Vec<Option<Transmitter>>,
    /// Slots of the transmitters that are polled.
    active: Vec<usize>,
    uplink: Option<Uplink>,
    uplink_active: bool,
    /// Deliveries since the last look at the kicks.
    work: usize,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, table: Arc<Table>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&shared.wake, Wake::Command)?;
        Ok(Worker {
            shared,
            poller,
            table,
            functions: Vec::new(),
            receivers: Vec::new(),
            transmitters: Vec::new(),
            active: Vec::new(),
            uplink: None,
            uplink_active: false,
            work: 0,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut rounds = 0u32;
        let mut woken = Vec::new();
        let mut kicked = Vec::new();
        loop {
            if self.shared.pending.swap(false, Ordering::Acquire) {
                if !self.commands() {
                    return;
                }
                std::mem::swap(&mut kicked, &mut *self.shared.kicked.lock());
                for slot in kicked.drain(..) {
                    self.activate(slot);
                }
            }
            self.poll_queues();
            self.poll_uplink();
            rounds = rounds.wrapping_add(1);
            let idle = self.active.is_empty() && !self.uplink_active;
            if idle || rounds.is_multiple_of(ROUNDS_PER_LOOK) || self.work >= WORK_PER_LOOK {
                self.work = 0;
                woken.clear();
                if let Err(error) = self.poller.wait(idle, |wake| woken.push(wake)) {
                    tracing::error!(%error, "a worker cannot wait for events");
                    return;
                }
                for wake in woken.drain(..) {
                    match wake {
                        Wake::Command => self.shared.wake.clear(),
                        Wake::Uplink => self.uplink_active = self.uplink.is_some(),
                        Wake::Queue(slot) => self.activate(slot),
                    }
                }
            }
        }
    }

    fn activate(&mut self, slot: usize) {
        if let Some(Some(queue)) = self.transmitters.get_mut(slot)
            && !queue.failed
            && !queue.active
        {
            queue.active = true;
            queue.idle = 0;
            self.active.push(slot);
        }
    }

    fn poll_queues(&mut self) {
        let mut at = 0;
        while let Some(slot) = self.active.get(at).copied() {
            let Some(Some(queue)) = self.transmitters.get_mut(slot) else {
                self.active.swap_remove(at);
                continue;
            };
            let mut egress = Egress {
                table: &self.table,
                functions: &self.functions,
                receivers: &mut self.receivers,
                uplink: self.uplink.as_mut(),
                work: &mut self.work,
            };
            if queue.poll(&mut egress) > 0 {
                queue.idle = 0;
            } else {
                queue.idle += 1;
            }
            if queue.failed || (queue.idle >= IDLE_POLLS && !queue.arm(&self.functions)) {
                queue.active = false;
                self.active.swap_remove(at);
            } else {
                if queue.idle >= IDLE_POLLS {
                    queue.idle = 0;
                }
                at += 1;
            }
        }
    }

    fn poll_uplink(&mut self) {
        if !self.uplink_active {
            return;
        }
        let Some(mut uplink) = self.uplink.take() else { return };
        let mut egress = Egress {
            table: &self.table,
            functions: &self.functions,
            receivers: &mut self.receivers,
            uplink: None,
            work: &mut self.work,
        };
        // Edge-triggered: the uplink is polled until it is empty.
        self.uplink_active = uplink.poll(&mut egress);
        self.uplink = Some(uplink);
    }

    /// Carries out what is asked; false: stop.
    fn commands(&mut self) -> bool {
        loop {
            let Some((command, done)) = self.shared.commands.lock().waiting.pop_front() else {
                return true;
            };
            let result = match command {
                Command::SetActivePairs(id, pairs) => {
                    if let Some(function) = self.function(id) {
                        function.active_pairs = pairs;
                    }
                    Ok(None)
                }
                Command::Stop => {
                    let _ = done.send(Ok(None));
                    return false;
                }
                Command::SetTable(table) => {
                    self.table = table;
                    Ok(None)
                }
                Command::SetUplink(uplink) => self.set_uplink(uplink).map(|()| None),
                Command::AddFunction(id, function) => {
                    *self.function(id) = Some(*function);
                    Ok(None)
                }
                Command::RemoveFunction(id) => {
                    self.remove_function(id);
                    Ok(None)
                }
                Command::StartQueue(config) => self.start_queue(*config).map(|()| None),
                Command::StopQueue(id, pair, direction) => Ok(self.stop_queue(id, pair, direction)),
            };
            // Whoever asked may have given up waiting; that is theirs to know.
            let _ = done.send(result);
        }
    }

    fn function(&mut self, id: FunctionId) -> &mut Option<Function> {
        let number = number(id);
        if self.functions.len() <= number {
            self.functions.resize_with(number + 1, || None);
            self.receivers.resize_with(number + 1, Vec::new);
        }
        &mut self.functions[number]
    }

    fn remove_function(&mut self, id: FunctionId) {
        *self.function(id) = None;
        self.receivers[number(id)] = Vec::new();
        for slot in 0..self.transmitters.len() {
            self.drop_transmitter(slot, |queue| queue.function == id);
        }
    }

    fn start_queue(&mut self, config: QueueConfig) -> Result<(), QueueError> {
        self.stop_queue(config.function, config.pair, config.direction);
        if self.function(config.function).is_none() {
            // Kept, it would translate with the domain of whoever gets the number next.
            return Err(QueueError::NoFunction(config.function));
        }
        match config.direction {
            Direction::Receive => {
                let (number, pair) = (number(config.function), usize::from(config.pair));
                let receivers = &mut self.receivers[number];
                if receivers.len() <= pair {
                    receivers.resize_with(pair + 1, || None);
                }
                receivers[pair] = Some(Receiver::new(config)?);
            }
            Direction::Transmit => {
                let queue = Transmitter::new(config)?;
                let free = self.transmitters.iter().position(Option::is_none);
                let slot = free.unwrap_or_else(|| {
                    self.transmitters.push(None);
                    self.transmitters.len() - 1
                });
                self.poller.add(&queue.kick, Wake::Queue(slot))?;
                queue.kick.set_slot(slot);
                self.transmitters[slot] = Some(queue);
                self.active.push(slot);
            }
        }
        Ok(())
    }

    fn stop_queue(
        &mut self,
        id: FunctionId,
        pair: u16,
        direction: Direction,
    ) -> Option<QueueState> {
        match direction {
            Direction::Receive => {
                let receivers = self.receivers.get_mut(number(id))?;
                let receiver = receivers.get_mut(usize::from(pair))?.take()?;
                Some(receiver.state())
            }
            Direction::Transmit => (0..self.transmitters.len()).find_map(|slot| {
                self.drop_transmitter(slot, |q| q.function == id && q.pair == pair)
            }),
        }
    }

    fn drop_transmitter(
        &mut self,
        slot: usize,
        which: impl Fn(&Transmitter) -> bool,
    ) -> Option<QueueState> {
        let queue = self.transmitters.get_mut(slot)?.take_if(|queue| which(queue))?;
        self.poller.remove(&queue.kick);
        self.active.retain(|other| *other != slot);
        Some(queue.state())
    }

    fn set_uplink(&mut self, uplink: Option<Uplink>) -> Result<(), QueueError> {
        if let Some(old) = self.uplink.take() {
            self.poller.remove(&old);
        }
        if let Some(new) = &uplink {
            self.poller.add(new, Wake::Uplink)?;
        }
        self.uplink_active = uplink.is_some();
        self.uplink = uplink;
        Ok(())
    }
}

/// Why a queue or uplink could not be taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0} does not exist")]
    NoFunction(FunctionId),
}
