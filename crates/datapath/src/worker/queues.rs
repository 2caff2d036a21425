//! This module has everything that one worker serves.

use std::sync::Arc;

use manifold_eswitch::Table;
use manifold_pci::FunctionId;

use super::mailbox::ReplySender;
use super::uplink::Uplink;
use crate::clock::Clock;
use crate::config::Direction;
use crate::error::Error;
use crate::frame::Frame;
use crate::frame::burst::{BURST, Frames};
use crate::handover::links::{Inboxes, Outboxes};
use crate::handover::placement::Pair;
use crate::receive::RxQueue;
use crate::stages::StageTimer;
use crate::switch::egress::Egress;
use crate::switch::function::Switch;
use crate::switch::route::Route;
use crate::transmit::TxQueue;
use crate::wake::kick::Kick;
use crate::wake::poller::{Poller, WakeReason};

/// One queue of a function.
pub(crate) type QueueId = (FunctionId, u16, Direction);

/// A transmit queue with the state by which the worker schedules it.
pub(crate) struct TxSlot {
    pub(crate) queue: TxQueue,
    pub(crate) kick: Kick,
    /// True while the worker polls the queue; false while the driver is to notify.
    pub(crate) active: bool,
    /// Time at which the queue was first found empty, since it last had a frame.
    pub(crate) empty_since: Option<u64>,
    /// Sender of the answer to the command that stops the queue, sent when nothing is in flight any
    /// more.
    pub(crate) stopping: Option<ReplySender>,
}

impl TxSlot {
    pub(crate) fn new(queue: TxQueue, kick: Kick) -> Self {
        TxSlot { queue, kick, active: true, empty_since: None, stopping: None }
    }

    /// Returns true if this is the transmit queue of a function's pair.
    pub(crate) fn is(&self, function: FunctionId, pair: u16) -> bool {
        self.queue.function == function && self.queue.pair == pair
    }
}

/// A queue on its way to another worker.
pub(crate) enum MovingQueue {
    Receive(Pair, Box<RxQueue>),
    Transmit(Box<TxSlot>),
}

/// The queues and everything else that a worker serves.
pub(crate) struct Queues {
    /// Number of the worker.
    pub(crate) worker: usize,
    pub(crate) poller: Poller,
    pub(crate) clock: Clock,
    pub(crate) switch: Switch,
    pub(crate) egress: Egress,
    pub(crate) inboxes: Inboxes,
    /// Transmit queues by slot.
    pub(crate) transmit: Vec<Option<TxSlot>>,
    /// Number of transmit queues that there are.
    serving: usize,
    /// Slots of the transmit queues that are polled.
    pub(crate) active: Vec<usize>,
    /// Number of transmit queues that there have been.
    lives: u32,
    pub(crate) uplink: Option<Uplink>,
    pub(crate) uplink_active: bool,
    /// Queues whose interrupts may wait.
    pub(crate) moderated: Vec<QueueId>,
    pub(crate) frames: Box<Frames>,
}

impl Queues {
    pub(crate) fn new(
        worker: usize,
        poller: Poller,
        clock: Clock,
        table: Arc<Table>,
        (outboxes, inboxes): (Outboxes, Inboxes),
        timer: StageTimer,
    ) -> Self {
        Queues {
            worker,
            poller,
            clock,
            switch: Switch::new(table),
            egress: Egress::new(outboxes, timer),
            inboxes,
            transmit: Vec::new(),
            serving: 0,
            active: Vec::new(),
            lives: 0,
            uplink: None,
            uplink_active: false,
            moderated: Vec::new(),
            frames: Box::new([Frame::EMPTY; BURST]),
        }
    }

    /// Returns true if there is nothing to poll.
    pub(crate) fn is_quiet(&self) -> bool {
        self.active.is_empty()
            && !self.uplink_active
            && self.inboxes.is_empty()
            && self.egress.outboxes.is_empty()
    }

    /// Returns true if there is anything that is not polled, so that its kicks are to be looked at
    /// now and then.
    pub(crate) fn is_partly_quiet(&self) -> bool {
        self.serving > self.active.len() || (self.uplink.is_some() && !self.uplink_active)
    }

    /// Polls a transmit queue that was kicked.
    pub(crate) fn activate(&mut self, slot: usize) {
        let Some(Some(place)) = self.transmit.get_mut(slot) else { return };
        if place.queue.failed || place.stopping.is_some() || place.active {
            return;
        }
        place.active = true;
        place.empty_since = None;
        self.active.push(slot);
        let (function, pair) = (place.queue.function, place.queue.pair);
        if let Some((_, counters)) = self.switch.queue(function.index(), pair) {
            counters.notifications.add(1);
        }
    }

    /// Returns a transmit queue and its slot.
    pub(crate) fn transmit_slot(
        &mut self,
        function: FunctionId,
        pair: u16,
    ) -> Option<(usize, &mut TxSlot)> {
        let mut all = self.transmit.iter_mut().enumerate();
        all.find_map(|(slot, place)| {
            Some((slot, place.as_mut().filter(|place| place.is(function, pair))?))
        })
    }

    /// Takes on a transmit queue.
    pub(crate) fn add_transmit(&mut self, mut place: TxSlot) -> Result<(), Error> {
        let free = self.transmit.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.transmit.len());
        self.poller.add(&place.kick, WakeReason::Queue(slot))?;
        self.lives = self.lives.wrapping_add(1);
        self.serving += 1;
        place.kick.set_place(self.worker, slot);
        (place.queue.slot, place.queue.life) = (slot as u32, self.lives);
        // The route's version is another worker's, so it means nothing here.
        place.queue.route = Route::default();
        (place.active, place.empty_since) = (true, None);
        self.active.push(slot);
        match self.transmit.get_mut(slot) {
            Some(free) => *free = Some(place),
            None => self.transmit.push(Some(place)),
        }
        Ok(())
    }

    /// Takes a transmit queue out of its slot, if `which` says so.
    pub(crate) fn take_transmit(
        &mut self,
        slot: usize,
        which: impl Fn(&TxSlot) -> bool,
    ) -> Option<TxSlot> {
        let place = self.transmit.get_mut(slot)?.take_if(|place| which(place))?;
        self.serving -= 1;
        self.poller.remove(&place.kick);
        self.active.retain(|other| *other != slot);
        Some(place)
    }

    /// Lets a transmit queue go that is to be stopped, if nothing of it is in flight any more.
    pub(crate) fn finish_stopping(&mut self, slot: usize) {
        let stopped = self.take_transmit(slot, |place| {
            place.stopping.is_some() && place.queue.in_flight.is_empty()
        });
        if let Some(mut place) = stopped
            && let Some(reply) = place.stopping.take()
        {
            let _ = reply.send(Ok(Some(place.queue.state())));
        }
    }
}
