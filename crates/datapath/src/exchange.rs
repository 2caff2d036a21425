//! Frames from other workers, and the news of those that went there.

use std::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use manifold_dma::{Access, Pinned, Slice};
use parking_lot::Mutex;

use crate::config::Direction;
use crate::deliver::{Receiver, Tools};
use crate::egress::{Egress, Place};
use crate::frame::{BURST, Convoy, Frame, Pieces};
use crate::mesh::Batch;
use crate::parcel::{Address, Body, Parcel, Ticket};
use crate::placement::Pair;
use crate::queues::{Queues, egress};
use crate::rendezvous::Rendezvous;
use crate::transmit::Transmitter;

/// Queue pairs change workers while all of them wait for each other.
pub(crate) struct Meeting {
    rendezvous: Rendezvous,
    /// Each with its new worker.
    moves: Vec<(Pair, usize)>,
    /// Queues laid down, each for the worker that is to pick it up.
    hall: Mutex<Vec<(usize, Moving)>>,
}

enum Moving {
    Receive(Pair, Box<Receiver>),
    Transmit(Box<Transmitter>),
}

impl Meeting {
    pub(crate) fn new(workers: usize, moves: Vec<(Pair, usize)>) -> Self {
        Meeting { rendezvous: Rendezvous::new(workers), moves, hall: Mutex::default() }
    }
}

impl Queues {
    /// Takes what other workers sent and sends what is for them; true if anything moved.
    pub(crate) fn exchange(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.ports.from.len() {
            while let Some(mut batch) = self.ports.take(from) {
                moved = true;
                self.unpack(from, &mut batch);
                self.ports.recycle(from, batch);
            }
        }
        self.flush();
        moved
    }

    /// Sends what is for other workers; false when some of it has to wait.
    fn flush(&mut self) -> bool {
        let mut all = true;
        for outbox in self.ports.to.iter_mut().flatten() {
            all &= outbox.flush();
        }
        if self.ports.is_abandoned() {
            // A worker has died, and with it what it had in flight.
            self.transmitters.iter_mut().flatten().for_each(|queue| queue.flight.give_up());
            for slot in 0..self.transmitters.len() {
                self.settle(slot);
            }
        }
        all
    }

    fn unpack(&mut self, from: usize, batch: &mut Batch) {
        let mut parcels = &mut batch.parcels[..];
        while let Some(first) = parcels.first() {
            let same = |parcel: &&Parcel| {
                (parcel.to, parcel.pair) == (first.to, first.pair)
                    && parcel.body.sender() == first.body.sender()
            };
            let run = parcels.iter().take(BURST).take_while(same).count();
            let (run, rest) = parcels.split_at_mut(run);
            parcels = rest;
            self.accept(run, from);
        }
        let mut touched = None;
        for ticket in &batch.receipts {
            let Ticket { slot, life, sequence } = *ticket;
            if touched.is_some_and(|other| other != slot) {
                self.settle(touched.unwrap_or_default() as usize);
            }
            touched = Some(slot);
            if let Some(Some(queue)) = self.transmitters.get_mut(slot as usize)
                && queue.life == life
            {
                queue.flight.landed(sequence);
            }
        }
        if let Some(slot) = touched {
            self.settle(slot as usize);
        }
    }

    /// Gives back chains of a transmit queue that are not in flight any more.
    fn settle(&mut self, slot: usize) {
        let mut egress = egress!(self);
        if let Some(Some(queue)) = self.transmitters.get_mut(slot) {
            queue.settle(&mut egress);
        }
        self.leave(slot);
    }

    /// Delivers frames for one receive queue, whose rests are in one sender's memory or came along.
    fn accept(&mut self, parcels: &mut [Parcel], from: usize) {
        let Some(first) = parcels.first() else { return };
        let (to, pair) = (first.to, first.pair);
        self.work += parcels.len();
        let egress = egress!(self);
        let Egress { functions, places, scratch, laps, outboxes, .. } = egress;
        let live = |address: Address| {
            let function = functions.get(usize::from(address.number))?.as_ref()?;
            (function.address == address).then_some(function)
        };
        let place = places.get_mut(usize::from(to.number));
        let place = place.and_then(|all| all.get_mut(usize::from(pair)));
        // A function that is gone has no counters to count in, and another may have its number.
        if let Some(function) = live(to)
            && let Some(counters) = function.counters.pair(pair)
        {
            if let Some(Place::Here(receiver)) = place {
                let sender = first.body.sender().and_then(live);
                let pin = sender.map(|sender| sender.reader.pin());
                let mut pieces = Pieces::new();
                let mut frames = ArrayVec::<Frame, BURST>::new();
                for parcel in parcels.iter_mut() {
                    let start = pieces.len();
                    if parcel.body.place(pin.as_ref(), &mut pieces) {
                        frames.push(parcel.frame.with_rest(start, pieces.len() - start));
                    } else {
                        // Unmapped meanwhile: the domain's faults say so.
                        pieces.truncate(start);
                    }
                }
                let mut convoy = Convoy::new(&mut frames, &pieces);
                let all = convoy.all();
                let pin = function.reader.pin();
                let mut tools = Tools { counters, scratch, laps };
                if receiver.deliver(&pin, &mut convoy, all, &mut tools) {
                    fence(Ordering::SeqCst);
                    receiver.interrupt(&pin, counters, laps);
                }
            } else {
                counters.not_ready(parcels.len() as u32);
            }
        }
        if let Some(Some(outbox)) = outboxes.get_mut(from) {
            for parcel in parcels {
                if let Body::Left { ticket, .. } = &parcel.body {
                    outbox.acknowledge(*ticket);
                }
            }
        }
    }

    /// Takes part in a meeting of all workers.
    pub(crate) fn meet(&mut self, meeting: &Meeting) {
        let Meeting { rendezvous, moves, hall } = meeting;
        // Arrive: no transmit queue is polled from here on.
        rendezvous.step(1, || {
            self.exchange();
        });
        // Settle: whatever was sent has left this worker...
        while !self.flush() {
            self.exchange();
        }
        rendezvous.step(2, || {
            self.exchange();
        });
        // ... and been delivered; the receipts leave.
        while self.exchange() || !self.flush() {}
        rendezvous.step(3, || {
            self.exchange();
        });
        while self.exchange() {}
        for (pair, to) in moves {
            self.lay_down(*pair, *to, hall);
        }
        rendezvous.step(4, || {});
        let mut waiting = hall.lock();
        let own = waiting.extract_if(.., |(to, _)| *to == self.worker);
        for (_, moving) in own.collect::<Vec<_>>() {
            match moving {
                Moving::Receive((id, pair), receiver) => {
                    if receiver.moderation.is_set() {
                        self.moderate((id, pair, Direction::Receive));
                    }
                    *self.place(id, pair) = Place::Here(receiver);
                }
                Moving::Transmit(queue) => {
                    if queue.moderation.is_set() {
                        self.moderate((queue.function, queue.pair, Direction::Transmit));
                    }
                    if let Err(error) = self.add_transmitter(*queue) {
                        tracing::error!(%error, "a queue cannot be served any more");
                    }
                }
            }
        }
    }

    fn lay_down(&mut self, pair: Pair, to: usize, hall: &Mutex<Vec<(usize, Moving)>>) {
        let (id, number_of_pair) = pair;
        if to == self.worker || self.functions.get(id.index()).is_none_or(Option::is_none) {
            return;
        }
        let place = self.place(id, number_of_pair);
        match std::mem::replace(place, Place::There(to)) {
            Place::Here(receiver) => hall.lock().push((to, Moving::Receive(pair, receiver))),
            Place::Nobody => *place = Place::Nobody,
            Place::There(_) => {}
        }
        for slot in 0..self.transmitters.len() {
            let taken = self.take_transmitter(slot, |queue| {
                (queue.function, queue.pair) == pair && queue.leaving.is_none()
            });
            if let Some(queue) = taken {
                hall.lock().push((to, Moving::Transmit(Box::new(queue))));
            }
        }
    }
}

impl Body {
    /// In whose memory it is.
    fn sender(&self) -> Option<Address> {
        match self {
            Body::Left { from, .. } => Some(*from),
            _ => None,
        }
    }

    /// Adds where it is; false when that cannot be reached any more.
    fn place<'p>(&'p mut self, pin: Option<&'p Pinned<'_>>, pieces: &mut Pieces<'p>) -> bool {
        match self {
            Body::Carried(bytes) => {
                bytes.is_empty() || pieces.try_push(Slice::from_mut(bytes)).is_ok()
            }
            Body::Copied(bytes) => pieces.try_push(Slice::from_mut(bytes)).is_ok(),
            Body::Left { pieces: left, .. } => pin.is_some_and(|pin| {
                left.iter().all(|(iova, len)| {
                    let reached = pin.slices_while(*iova, *len as usize, Access::Read, |slice| {
                        pieces.try_push(slice).is_ok()
                    });
                    reached == Ok(true)
                })
            }),
        }
    }
}
