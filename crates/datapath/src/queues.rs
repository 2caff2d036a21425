//! What one worker serves: its queues, the uplink, and frames from other workers.

use std::io;
use std::sync::Arc;

use manifold_eswitch::Table;
use manifold_pci::FunctionId;
use manifold_virtio::net::Coalescing;
use manifold_virtio::ring::RingError;

use crate::clock::Clock;
use crate::command::Done;
use crate::config::{Direction, QueueConfig};
use crate::deliver::Receiver;
use crate::egress::{Delivered, Egress, Function, Place};
use crate::frame::{BURST, Frame, Frames};
use crate::mesh::Ports;
use crate::meter::Laps;
use crate::moderation::Moderation;
use crate::poll::{Poller, Wake};
use crate::route::Route;
use crate::software::Scratch;
use crate::steer::Steer;
use crate::transmit::Transmitter;
use crate::uplink::{Port, Uplink};

/// Everything a worker works on.
pub(crate) struct Queues {
    /// The worker's number.
    pub(crate) worker: usize,
    pub(crate) poller: Poller,
    pub(crate) clock: Clock,
    pub(crate) table: Arc<Table>,
    /// Grows with every command: what is derived from the table and the functions is of one version.
    pub(crate) version: u64,
    pub(crate) functions: Vec<Option<Function>>,
    pub(crate) places: Vec<Vec<Place>>,
    pub(crate) transmitters: Vec<Option<Transmitter>>,
    /// How many transmitters there are.
    serving: usize,
    /// Slots of the transmitters that are polled.
    active: Vec<usize>,
    /// How many transmitters there have been.
    lives: u32,
    pub(crate) ports: Ports,
    pub(crate) port: Option<Port>,
    uplink: Option<Uplink>,
    uplink_active: bool,
    /// Queues whose interrupts may wait.
    moderated: Vec<(FunctionId, u16, Direction)>,
    pub(crate) scratch: Scratch,
    /// Empty between bursts.
    pub(crate) delivered: Delivered,
    frames: Box<Frames>,
    pub(crate) laps: Laps,
    /// Deliveries since the last look at the kicks.
    pub(crate) work: usize,
}

/// What frames need on their way, borrowed from [`Queues`] apart from the transmitters.
macro_rules! egress {
    ($queues:expr) => {
        Egress {
            table: &$queues.table,
            version: $queues.version,
            functions: &$queues.functions,
            places: &mut $queues.places,
            outboxes: &mut $queues.ports.to,
            port: $queues.port.as_ref(),
            scratch: &mut $queues.scratch,
            delivered: &mut $queues.delivered,
            laps: &mut $queues.laps,
            work: &mut $queues.work,
        }
    };
}
pub(crate) use egress;

impl Queues {
    pub(crate) fn new(
        worker: usize,
        poller: Poller,
        clock: Clock,
        table: Arc<Table>,
        ports: Ports,
        laps: Laps,
    ) -> Self {
        Queues {
            worker,
            poller,
            clock,
            table,
            version: 1,
            functions: Vec::new(),
            places: Vec::new(),
            transmitters: Vec::new(),
            serving: 0,
            active: Vec::new(),
            lives: 0,
            ports,
            port: None,
            uplink: None,
            uplink_active: false,
            moderated: Vec::new(),
            scratch: Scratch::default(),
            delivered: Delivered::new(),
            frames: Box::new([Frame::EMPTY; BURST]),
            laps,
            work: 0,
        }
    }

    /// One round over everything that is busy; true if anything moved. A transmit queue that has been empty for `window`
    /// is armed and left alone. `now` is the time, more or less.
    pub(crate) fn poll(&mut self, now: u64, window: u64) -> bool {
        let mut moved = self.poll_transmitters(now, window);
        if self.uplink_active {
            moved |= self.poll_uplink();
        }
        if self.ports.is_connected() {
            moved |= self.exchange();
        }
        moved
    }

    /// Whether there is nothing to poll.
    pub(crate) fn is_quiet(&self) -> bool {
        self.active.is_empty() && !self.uplink_active && self.ports.is_quiet()
    }

    /// Whether there is anything that is not polled and has to be looked at now and then.
    pub(crate) fn is_partly_quiet(&self) -> bool {
        self.serving > self.active.len() || (self.uplink.is_some() && !self.uplink_active)
    }

    /// A transmit queue was kicked.
    pub(crate) fn activate(&mut self, slot: usize) {
        let Some(Some(queue)) = self.transmitters.get_mut(slot) else { return };
        if queue.failed || queue.leaving.is_some() || queue.active {
            return;
        }
        queue.active = true;
        queue.empty_since = None;
        self.active.push(slot);
        if let Some(Some(function)) = self.functions.get(queue.function.index())
            && let Some(counters) = function.counters.pair(queue.pair)
        {
            counters.notifications.add(1);
        }
    }

    pub(crate) fn wake_uplink(&mut self) {
        self.uplink_active = self.uplink.is_some();
    }

    fn poll_transmitters(&mut self, now: u64, window: u64) -> bool {
        let mut moved = false;
        let mut at = 0;
        while let Some(slot) = self.active.get(at).copied() {
            // The one after it is on its way while this one is worked on.
            let next = self.active.get(at + 1).or(self.active.first());
            if let Some(Some(next)) = next.and_then(|slot| self.transmitters.get(*slot)) {
                next.prefetch();
            }
            let Some(Some(queue)) = self.transmitters.get_mut(slot) else {
                self.active.swap_remove(at);
                continue;
            };
            let mut egress = egress!(self);
            let stays = if queue.poll(&mut egress, &mut self.frames) > 0 {
                moved = true;
                queue.empty_since = None;
                true
            } else {
                let since = *queue.empty_since.get_or_insert(now);
                let more = now.saturating_sub(since) < window || queue.arm(&egress);
                if more && now.saturating_sub(since) >= window {
                    queue.empty_since = None;
                }
                more
            };
            if stays && !queue.failed {
                at += 1;
            } else {
                queue.active = false;
                self.active.swap_remove(at);
            }
        }
        moved
    }

    fn poll_uplink(&mut self) -> bool {
        let Some(uplink) = &mut self.uplink else { return false };
        let mut egress = egress!(self);
        egress.laps.begin();
        let (received, more) = uplink.poll(&mut egress);
        egress.laps.end(received);
        // Edge-triggered: the uplink is polled until it is empty.
        self.uplink_active = more;
        received > 0
    }

    /// Raises the interrupts that have waited long enough.
    pub(crate) fn interrupts(&mut self, now: u64) {
        for index in 0..self.moderated.len() {
            let Some(place) = self.moderated.get(index).copied() else { break };
            let due = self.moderation(place).is_some_and(|moderation| moderation.due(now));
            if due {
                self.interrupt(place);
            }
        }
    }

    /// When the next interrupt is due.
    pub(crate) fn next_interrupt(&self) -> Option<u64> {
        let all = self.moderated.iter();
        all.filter_map(|(id, pair, direction)| match direction {
            Direction::Receive => match self.places.get(id.index())?.get(usize::from(*pair))? {
                Place::Here(receiver) => receiver.moderation.deadline(),
                _ => None,
            },
            Direction::Transmit => {
                let all = self.transmitters.iter().flatten();
                let mut own = all.filter(|queue| queue.function == *id && queue.pair == *pair);
                own.next()?.moderation.deadline()
            }
        })
        .min()
    }

    fn moderation(
        &mut self,
        (id, pair, direction): (FunctionId, u16, Direction),
    ) -> Option<&mut Moderation> {
        match direction {
            Direction::Receive => {
                match self.places.get_mut(id.index())?.get_mut(usize::from(pair))? {
                    Place::Here(receiver) => Some(&mut receiver.moderation),
                    _ => None,
                }
            }
            Direction::Transmit => {
                let queue = self.transmitters.iter_mut().flatten();
                let mut queue = queue.filter(|queue| queue.function == id && queue.pair == pair);
                queue.next().map(|queue| &mut queue.moderation)
            }
        }
    }

    fn interrupt(&mut self, (id, pair, direction): (FunctionId, u16, Direction)) {
        let Some(Some(function)) = self.functions.get(id.index()) else { return };
        let Some(counters) = function.counters.pair(pair) else { return };
        match direction {
            Direction::Receive => {
                let place = self.places.get(id.index()).and_then(|all| all.get(usize::from(pair)));
                if let Some(Place::Here(receiver)) = place {
                    counters.rx.interrupts.add(1);
                    receiver.events.interrupt();
                }
            }
            Direction::Transmit => {
                let mut all = self.transmitters.iter().flatten();
                if let Some(queue) = all.find(|queue| queue.function == id && queue.pair == pair) {
                    counters.tx.interrupts.add(1);
                    queue.events.interrupt();
                }
            }
        }
    }

    /// New parameters for a queue's interrupts.
    pub(crate) fn set_coalescing(
        &mut self,
        place: (FunctionId, u16, Direction),
        coalescing: Coalescing,
    ) {
        let clock = self.clock.clone();
        if let Some(moderation) = self.moderation(place) {
            moderation.set(coalescing, &clock);
            self.moderate(place);
        }
    }

    /// Looks after a queue's interrupts from now on.
    pub(crate) fn moderate(&mut self, place: (FunctionId, u16, Direction)) {
        if !self.moderated.contains(&place) {
            self.moderated.push(place);
        }
    }

    /// The slot for a function.
    pub(crate) fn function(&mut self, id: FunctionId) -> &mut Option<Function> {
        let number = id.index();
        if self.functions.len() <= number {
            self.functions.resize_with(number + 1, || None);
            self.places.resize_with(number + 1, Vec::new);
        }
        &mut self.functions[number]
    }

    /// The slot for a receive queue.
    pub(crate) fn place(&mut self, id: FunctionId, pair: u16) -> &mut Place {
        let _ = self.function(id);
        let (number, pair) = (id.index(), usize::from(pair));
        let places = &mut self.places[number];
        if places.len() <= pair {
            places.resize_with(pair + 1, || Place::Nobody);
        }
        &mut places[pair]
    }

    /// Forgets a function with its queues. None of them has a frame in flight any more.
    pub(crate) fn remove_function(&mut self, id: FunctionId) {
        *self.function(id) = None;
        self.places[id.index()] = Vec::new();
        self.moderated.retain(|(other, ..)| *other != id);
        for slot in 0..self.transmitters.len() {
            self.take_transmitter(slot, |queue| queue.function == id);
        }
    }

    /// Takes on a queue.
    pub(crate) fn start_queue(&mut self, config: QueueConfig) -> Result<(), QueueError> {
        let id = config.function;
        let Some(function) = self.function(id) else {
            // Kept, it would translate with the domain of whoever gets the number next.
            return Err(QueueError::NoFunction(id));
        };
        let offloads = function.offloads;
        match config.direction {
            Direction::Receive => {
                let pair = config.pair;
                let mut receiver = Receiver::new(config)?;
                if let Some(offloads) = offloads {
                    receiver.set_offloads(offloads);
                }
                *self.place(id, pair) = Place::Here(Box::new(receiver));
            }
            Direction::Transmit => self.add_transmitter(Transmitter::new(config)?)?,
        }
        Ok(())
    }

    pub(crate) fn add_transmitter(&mut self, mut queue: Transmitter) -> Result<(), QueueError> {
        let free = self.transmitters.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.transmitters.len());
        self.poller.add(&queue.kick, Wake::Queue(slot))?;
        self.lives = self.lives.wrapping_add(1);
        self.serving += 1;
        queue.kick.set_place(self.worker, slot);
        (queue.slot, queue.life) = (slot as u32, self.lives);
        // Versions of another worker's mean nothing here.
        queue.route = Route::default();
        (queue.active, queue.empty_since) = (true, None);
        self.active.push(slot);
        match self.transmitters.get_mut(slot) {
            Some(place) => *place = Some(queue),
            None => self.transmitters.push(Some(queue)),
        }
        Ok(())
    }

    /// Stops a queue and answers when nothing touches it any more.
    pub(crate) fn stop_queue(&mut self, id: FunctionId, pair: u16, way: Direction, done: Done) {
        self.moderated.retain(|queue| *queue != (id, pair, way));
        match way {
            Direction::Receive => {
                let place = self.places.get_mut(id.index());
                let state = match place.and_then(|all| all.get_mut(usize::from(pair))) {
                    Some(place @ Place::Here(_)) => match std::mem::replace(place, Place::Nobody) {
                        Place::Here(receiver) => Some(receiver.state()),
                        _ => None,
                    },
                    _ => None,
                };
                let _ = done.send(Ok(state));
            }
            Direction::Transmit => {
                let slot = self.transmitters.iter().position(|queue| {
                    queue.as_ref().is_some_and(|q| q.function == id && q.pair == pair)
                });
                let queue = slot.and_then(|slot| Some((slot, self.transmitters.get_mut(slot)?)));
                let Some((slot, Some(queue))) = queue else {
                    let _ = done.send(Ok(None));
                    return;
                };
                queue.active = false;
                queue.leaving = Some(done);
                self.active.retain(|other| *other != slot);
                self.leave(slot);
            }
        }
    }

    /// Lets a queue go that is to be stopped, if nothing of it is in flight any more.
    pub(crate) fn leave(&mut self, slot: usize) {
        let left =
            self.take_transmitter(slot, |queue| queue.leaving.is_some() && queue.flight.is_empty());
        if let Some(mut queue) = left
            && let Some(done) = queue.leaving.take()
        {
            let _ = done.send(Ok(Some(queue.state())));
        }
    }

    pub(crate) fn take_transmitter(
        &mut self,
        slot: usize,
        which: impl Fn(&Transmitter) -> bool,
    ) -> Option<Transmitter> {
        let queue = self.transmitters.get_mut(slot)?.take_if(|queue| which(queue))?;
        self.serving -= 1;
        self.poller.remove(&queue.kick);
        self.active.retain(|other| *other != slot);
        Some(queue)
    }

    /// Connects the way in from the uplink, or disconnects it.
    pub(crate) fn set_uplink(&mut self, uplink: Option<Uplink>) -> Result<(), QueueError> {
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

    pub(crate) fn set_steering(&mut self, id: FunctionId, steer: Arc<Steer>) {
        if let Some(function) = self.function(id) {
            function.steer = steer;
        }
    }

    /// Switches receive offloads of a running driver.
    pub(crate) fn set_offloads(&mut self, id: FunctionId, offloads: u64) {
        if let Some(function) = self.function(id) {
            function.offloads = Some(offloads);
        }
        for place in self.places.get_mut(id.index()).into_iter().flatten() {
            if let Place::Here(receiver) = place {
                receiver.set_offloads(offloads);
            }
        }
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
