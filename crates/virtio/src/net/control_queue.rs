//! The control queue: commands out of guest memory, answers back into it (5.1.6.5).
//!
//! A command is read and answered under one pin of the DMA domain and made used under a second one. The data path hears
//! of the change in between, with nothing pinned, so that it may wait for whatever it has to; and the driver sees the
//! command used only when the change is in force.

use std::sync::Arc;

use manifold_dma::{Access, Domain, Reader, Slice};

use super::control::COMMAND_MAX;
use super::filters::Filters;
use super::state::{Change, Receive};
use crate::ring::{RingError, SplitQueue};
use crate::spec::net::ctrl;
use crate::transport::{QueueError, QueueEvents, QueueSetup, QueueState};

/// How many commands are taken in one go, so that a driver which never stops adding some cannot hold the device for ever.
/// What is left over waits for the next notification.
const BUDGET: usize = 4096;

pub(super) struct ControlQueue {
    ring: SplitQueue,
    reader: Reader,
    events: Arc<dyn QueueEvents>,
    command: Vec<u8>,
}

impl ControlQueue {
    pub(super) fn new(setup: QueueSetup, domain: &Arc<Domain>) -> Result<Self, QueueError> {
        let mut ring = SplitQueue::new(setup.addresses, setup.ring_features())?;
        if let Some(QueueState { next_avail, next_used }) = setup.resume {
            ring = ring.resume(next_avail, next_used);
        }
        Ok(ControlQueue {
            ring,
            reader: domain.reader(),
            events: setup.events,
            command: Vec::new(),
        })
    }

    /// How far the queue is.
    pub(super) fn state(&self) -> QueueState {
        let (next_avail, next_used) = self.ring.position();
        QueueState { next_avail, next_used }
    }

    /// Carries out what the driver has made available. `changed` is called with nothing pinned.
    pub(super) fn process(&mut self, state: &mut Receive, changed: &mut dyn FnMut(&Filters)) {
        if let Err(error) = self.take(state, changed) {
            self.events.fail(&error);
        }
    }

    fn take(
        &mut self,
        state: &mut Receive,
        changed: &mut dyn FnMut(&Filters),
    ) -> Result<(), RingError> {
        for _ in 0..BUDGET {
            let Some((head, change)) = self.answer_next(state)? else {
                if self.arm()? {
                    continue;
                }
                return Ok(());
            };
            if change == Change::Filters {
                changed(&state.filters);
            }
            let pin = self.reader.pin();
            let mut burst = self.ring.open(&pin)?;
            burst.complete(head, ACK_SIZE);
            let interrupt = burst.publish();
            drop(pin);
            if interrupt {
                self.events.interrupt();
            }
        }
        self.arm().map(|_| ())
    }

    fn arm(&mut self) -> Result<bool, RingError> {
        let pin = self.reader.pin();
        self.ring.open(&pin)?.arm()
    }

    /// Reads the next command, carries it out as far as it concerns `state`, and writes the answer.
    fn answer_next(&mut self, state: &mut Receive) -> Result<Option<(u16, Change)>, RingError> {
        let pin = self.reader.pin();
        let mut burst = self.ring.open(&pin)?;
        let command = &mut self.command;
        command.clear();
        let mut ack: Option<Slice<'_>> = None;
        let chain = burst.pop(|slice, access| {
            match access {
                Access::Read => append(command, slice),
                Access::Write if ack.is_none() => ack = Some(slice),
                Access::Write => {}
            }
            true
        })?;
        let Some(chain) = chain else { return Ok(None) };
        // Without a place for the answer nothing can be said: the driver is broken.
        let ack = ack.ok_or(RingError::NoBuffers("device-writable"))?;
        if chain.readable < 2 {
            return Err(RingError::NoBuffers("device-readable"));
        }
        let result =
            if chain.readable as usize > COMMAND_MAX { None } else { state.execute(command).ok() };
        ack.write(&[if result.is_some() { ctrl::OK } else { ctrl::ERR }]);
        Ok(Some((chain.head, result.unwrap_or(Change::None))))
    }
}

/// Bytes of an answer: `ack`.
const ACK_SIZE: u32 = 1;

/// Adds a part of a command, as far as a command goes.
fn append(command: &mut Vec<u8>, part: Slice<'_>) {
    let start = command.len();
    let part = part.take(COMMAND_MAX.saturating_sub(start));
    command.resize(start + part.len(), 0);
    if let Some(room) = command.get_mut(start..) {
        part.read(room);
    }
}
