//! What a worker is asked to do.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_virtio::net::Coalescing;
use manifold_virtio::ring::QueueState;

use crate::config::{Direction, QueueConfig};
use crate::egress::{Function, Place};
use crate::exchange::Meeting;
use crate::queues::{QueueError, Queues};
use crate::steer::Steer;
use crate::uplink::{Port, Uplink};

pub(crate) enum Command {
    SetTable(Arc<Table>),
    /// The way out for everyone, and the way in for one.
    SetUplink(Option<Port>, Option<Uplink>),
    AddFunction(FunctionId, Box<Function>),
    RemoveFunction(FunctionId),
    StartQueue(Box<QueueConfig>),
    StopQueue(FunctionId, u16, Direction),
    /// A receive queue is served by another worker.
    Point(FunctionId, u16, usize),
    SetSteering(FunctionId, Arc<Steer>),
    SetOffloads(FunctionId, u64),
    SetCoalescing(FunctionId, u16, Direction, Coalescing),
    Meet(Arc<Meeting>),
    Stop,
}

/// Answered with where a stopped queue was.
pub(crate) type Done = SyncSender<Result<Option<QueueState>, QueueError>>;

impl Queues {
    /// Does it and answers, at once or later; false: the worker is to stop.
    pub(crate) fn carry_out(&mut self, command: Command, done: Done) -> bool {
        let mut result = Ok(None);
        self.version += 1;
        match command {
            Command::Stop => {
                let _ = done.send(Ok(None));
                return false;
            }
            Command::StopQueue(id, pair, direction) => {
                self.stop_queue(id, pair, direction, done);
                return true;
            }
            Command::SetTable(table) => self.table = table,
            Command::SetUplink(port, uplink) => {
                self.port = port;
                result = self.set_uplink(uplink).map(|()| None);
            }
            Command::AddFunction(id, function) => *self.function(id) = Some(*function),
            Command::RemoveFunction(id) => self.remove_function(id),
            Command::StartQueue(config) => result = self.start_queue(*config).map(|()| None),
            Command::Point(id, pair, worker) => *self.place(id, pair) = Place::There(worker),
            Command::SetSteering(id, steer) => self.set_steering(id, steer),
            Command::SetOffloads(id, offloads) => self.set_offloads(id, offloads),
            Command::SetCoalescing(id, pair, direction, coalescing) => {
                self.set_coalescing((id, pair, direction), coalescing);
            }
            Command::Meet(meeting) => self.meet(&meeting),
        }
        // Whoever asked may have given up waiting; that is theirs to know.
        let _ = done.send(result);
        true
    }
}
