//! This module has the commands of a worker, and what each does.

use std::sync::Arc;

use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_virtio::net::Coalescing;

use super::mailbox::ReplySender;
use super::queues::{MovingQueue, QueueId, Queues, TxSlot};
use super::uplink::Uplink;
use crate::config::{Direction, QueueConfig};
use crate::error::Error;
use crate::handover::rebalance::Rebalance;
use crate::receive::RxQueue;
use crate::switch::egress::RxOwner;
use crate::switch::function::Function;
use crate::switch::steering::Steering;
use crate::switch::tap_port::TapPort;
use crate::transmit::TxQueue;
use crate::wake::poller::WakeReason;

/// A request to a worker.
pub(crate) enum Command {
    SetTable(Arc<Table>),
    /// All workers get the way out, which is the first; one of them gets the way in, the second.
    SetUplink(Option<TapPort>, Option<Uplink>),
    AddFunction(FunctionId, Box<Function>),
    RemoveFunction(FunctionId),
    StartQueue(Box<QueueConfig>),
    StopQueue(QueueId),
    /// Another worker, of this number, serves a receive queue.
    SetRemote(FunctionId, u16, usize),
    SetSteering(FunctionId, Arc<Steering>),
    SetOffloads(FunctionId, u64),
    SetCoalescing(QueueId, Coalescing),
    Rebalance(Arc<Rebalance<MovingQueue>>),
    Stop,
}

impl Queues {
    /// Carries out a command and answers it, at once or later. Returns false if the worker is to
    /// stop.
    pub(crate) fn carry_out(&mut self, command: Command, reply: ReplySender) -> bool {
        let mut result = Ok(());
        self.switch.version += 1;
        match command {
            Command::Stop => {
                let _ = reply.send(Ok(None));
                return false;
            }
            Command::StopQueue(id) => {
                self.stop_queue(id, reply);
                return true;
            }
            Command::SetTable(table) => self.switch.table = table,
            Command::SetUplink(port, uplink) => {
                self.switch.port = port;
                result = self.set_uplink(uplink);
            }
            Command::AddFunction(id, function) => *self.switch.function_mut(id) = Some(*function),
            Command::RemoveFunction(id) => self.remove_function(id),
            Command::StartQueue(config) => result = self.start_queue(*config),
            Command::SetRemote(id, pair, worker) => {
                *self.egress.owner_mut(id, pair) = RxOwner::Remote(worker);
            }
            Command::SetSteering(id, steering) => {
                if let Some(function) = self.switch.function_mut(id) {
                    function.steering = steering;
                }
            }
            Command::SetOffloads(id, offloads) => self.set_offloads(id, offloads),
            Command::SetCoalescing(id, coalescing) => self.set_coalescing(id, coalescing),
            Command::Rebalance(rebalance) => self.rebalance(&rebalance),
        }
        // The thread that asked may have given up waiting, which does not matter here.
        let _ = reply.send(result.map(|()| None));
        true
    }

    /// Forgets a function with its queues. None of them has a frame in flight any more.
    fn remove_function(&mut self, id: FunctionId) {
        *self.switch.function_mut(id) = None;
        self.egress.remove_function(id);
        self.moderated.retain(|(other, ..)| *other != id);
        for slot in 0..self.transmit.len() {
            self.take_transmit(slot, |place| place.queue.function == id);
        }
    }

    fn start_queue(&mut self, config: QueueConfig) -> Result<(), Error> {
        let id = config.function;
        let Some(function) = self.switch.function(id.index()) else {
            // A queue that was kept would use the domain of the next function with this index.
            return Err(Error::NoFunction(id));
        };
        match config.direction {
            Direction::Receive => {
                let (pair, offloads) = (config.pair, function.offloads);
                let mut queue = RxQueue::new(config)?;
                if let Some(offloads) = offloads {
                    queue.set_offloads(offloads);
                }
                *self.egress.owner_mut(id, pair) = RxOwner::Local(Box::new(queue));
                Ok(())
            }
            Direction::Transmit => {
                let kick = config.kick.clone();
                self.add_transmit(TxSlot::new(TxQueue::new(config)?, kick))
            }
        }
    }

    /// Stops a queue and answers when nothing touches it any more.
    fn stop_queue(&mut self, id: QueueId, reply: ReplySender) {
        self.moderated.retain(|queue| *queue != id);
        let (function, pair, direction) = id;
        match direction {
            Direction::Receive => {
                let state = self.egress.local(function.index(), pair).map(|queue| queue.state());
                if state.is_some() {
                    *self.egress.owner_mut(function, pair) = RxOwner::None;
                }
                let _ = reply.send(Ok(state));
            }
            Direction::Transmit => {
                let Some((slot, place)) = self.transmit_slot(function, pair) else {
                    let _ = reply.send(Ok(None));
                    return;
                };
                place.active = false;
                place.stopping = Some(reply);
                self.active.retain(|other| *other != slot);
                self.finish_stopping(slot);
            }
        }
    }

    /// Connects the way in from the uplink, or disconnects it.
    fn set_uplink(&mut self, uplink: Option<Uplink>) -> Result<(), Error> {
        if let Some(old) = self.uplink.take() {
            self.poller.remove(&old);
        }
        if let Some(new) = &uplink {
            self.poller.add(new, WakeReason::Uplink)?;
        }
        self.uplink_active = uplink.is_some();
        self.uplink = uplink;
        Ok(())
    }

    /// Sets the receive offloads of a running driver.
    fn set_offloads(&mut self, id: FunctionId, offloads: u64) {
        if let Some(function) = self.switch.function_mut(id) {
            function.offloads = Some(offloads);
        }
        self.egress.local_queues(id).for_each(|queue| queue.set_offloads(offloads));
    }
}
