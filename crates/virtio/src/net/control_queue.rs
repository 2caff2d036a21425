//! This module serves the control queue: it reads commands from guest memory and writes the answers
//! back (5.1.6.5).
//!
//! All commands that are waiting are carried out together. They are read and answered under one pin
//! of the DMA domain and made used under a second one. The data path hears of the changes in
//! between, with nothing pinned, so that it may wait for whatever it has to; and the driver sees a
//! command used only when its change is in force.

use std::sync::Arc;

use manifold_dma::{Access, Domain, Reader, Slice};

use super::control::{COMMAND_MAX, RESULT_MAX};
use crate::ring::{Burst, Chain, Queue, RingError};
use crate::spec::net::ctrl;
use crate::transport::{QueueError, QueueEvents, QueueSetup, QueueState};

/// Number of commands that are taken on one notification, so that a driver which never stops adding
/// some cannot keep the device busy for ever. What is left over waits for the next notification.
const BUDGET: usize = 4096;

/// The part of the device that carries out commands.
pub(super) trait Commands {
    /// Carries out one command, `class` and `command` bytes first, and appends to the empty
    /// `result` what follows the acknowledgement. Returns false if the command is refused.
    fn execute(&mut self, command: &[u8], result: &mut Vec<u8>) -> bool;

    /// Puts in force what the commands since the last call have changed. The caller pins no memory.
    fn settle(&mut self);
}

pub(super) struct ControlQueue {
    ring: Queue,
    reader: Reader,
    events: Arc<dyn QueueEvents>,
    command: Vec<u8>,
    result: Vec<u8>,
    /// Chains to complete, with the number of bytes written to each.
    answered: Vec<(Chain, u32)>,
}

impl ControlQueue {
    pub(super) fn new(setup: QueueSetup, domain: &Arc<Domain>) -> Result<Self, QueueError> {
        let mut ring = Queue::new(setup.addresses, setup.ring_features())?;
        if let Some(state) = setup.resume {
            ring = ring.resume(state)?;
        }
        Ok(ControlQueue {
            ring,
            reader: domain.reader(),
            events: setup.events,
            command: Vec::new(),
            result: Vec::new(),
            answered: Vec::new(),
        })
    }

    /// Returns how far the queue has come.
    pub(super) fn state(&self) -> QueueState {
        self.ring.position()
    }

    /// Carries out what the driver has made available.
    pub(super) fn process(&mut self, commands: &mut dyn Commands) {
        if let Err(error) = self.serve(commands) {
            self.events.fail(&error);
        }
    }

    fn serve(&mut self, commands: &mut dyn Commands) -> Result<(), RingError> {
        let mut left = BUDGET;
        while left > 0 {
            // A chain that breaks the rules does not undo the commands before it.
            let taken = self.take(commands, left.min(self.ring.size().into()));
            left -= self.answered.len();
            if !self.answered.is_empty() {
                commands.settle();
                self.publish()?;
            }
            taken?;
            if !self.arm()? {
                return Ok(());
            }
        }
        self.arm().map(|_| ())
    }

    /// Takes up to `most` commands, has them carried out and writes the answers. The driver does
    /// not see them used yet.
    fn take(&mut self, commands: &mut dyn Commands, most: usize) -> Result<(), RingError> {
        let ControlQueue { ring, reader, command, result, answered, .. } = self;
        answered.clear();
        let pin = reader.pin();
        let mut burst = ring.open(&pin)?;
        let mut answer = Answer::default();
        while answered.len() < most {
            command.clear();
            answer.clear();
            let chain = burst.pop(|slice, access| {
                match access {
                    Access::Read => append(command, slice),
                    Access::Write => answer.add(slice),
                }
                true
            })?;
            let Some(chain) = chain else { break };
            // A command without room for an answer cannot be acknowledged: the driver is broken.
            if answer.room == 0 {
                return Err(RingError::NoBuffers("device-writable"));
            }
            if chain.readable < 2 {
                return Err(RingError::NoBuffers("device-readable"));
            }
            result.clear();
            let written = if commands.execute(command, result) {
                answer.write(&[&[ctrl::OK], result])
            } else {
                answer.write(&[&[ctrl::ERR]])
            };
            answered.push((chain, written));
        }
        Ok(())
    }

    /// Makes the answered commands used.
    fn publish(&mut self) -> Result<(), RingError> {
        let pin = self.reader.pin();
        let mut burst = self.ring.open(&pin)?;
        for (chain, written) in self.answered.drain(..) {
            burst.complete(&chain, written);
        }
        let interrupt = burst.publish();
        drop(pin);
        if interrupt {
            self.events.interrupt();
        }
        Ok(())
    }

    fn arm(&mut self) -> Result<bool, RingError> {
        let pin = self.reader.pin();
        self.ring.open(&pin)?.arm()
    }
}

/// The place of a command's answer: its device-writable buffers, up to [`RESULT_MAX`] and the
/// acknowledgement.
#[derive(Default)]
struct Answer<'p> {
    pieces: Vec<Slice<'p>>,
    /// Total length of the pieces in bytes.
    room: usize,
}

impl<'p> Answer<'p> {
    fn clear(&mut self) {
        self.pieces.clear();
        self.room = 0;
    }

    fn add(&mut self, piece: Slice<'p>) {
        if self.room <= RESULT_MAX && !piece.is_empty() {
            self.room += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Writes the parts of an answer one after the other, as much as there is room for. Returns how
    /// many bytes that were.
    fn write(&self, parts: &[&[u8]]) -> u32 {
        let mut pieces = self.pieces.iter().copied();
        let mut room: Option<Slice<'p>> = None;
        let mut written = 0;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let Some(piece) = room.filter(|room| !room.is_empty()).or_else(|| pieces.next())
                else {
                    return written;
                };
                let len = piece.write(rest);
                written += len as u32;
                room = Some(piece.skip(len));
                rest = rest.get(len..).unwrap_or_default();
            }
        }
        written
    }
}

/// Adds a part of a command, up to one byte more than the longest command has.
fn append(command: &mut Vec<u8>, part: Slice<'_>) {
    let start = command.len();
    let part = part.take((COMMAND_MAX + 1).saturating_sub(start));
    command.resize(start + part.len(), 0);
    if let Some(room) = command.get_mut(start..) {
        part.read(room);
    }
}
