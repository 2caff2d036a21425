//! The control queue: commands to the device, one at a time (virtio 1.3, section 5.1.6.5).

use super::device::VirtioPci;
use super::queue::Queue;
use super::spec::{ctrl, ring};
use crate::memory::Span;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// How long the device may take for a command.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes for a command's data: both MAC tables with 256 entries.
const DATA: usize = 3 * 1024 + 16;

/// The control queue.
#[derive(Debug)]
pub struct ControlQueue {
    index: u16,
    queue: Queue,
    /// Class and command at 0, data from 8, the answer in the last byte.
    buffer: Span,
}

impl ControlQueue {
    /// A control queue on queue `index`.
    pub(crate) fn new(index: u16, queue: Queue, device: &mut VirtioPci) -> Result<Self> {
        let buffer = device.function().arena().alloc(8 + DATA + 1, 8)?;
        Ok(Self { index, queue, buffer })
    }

    /// Sends a command and waits for the answer. [`Error::Refused`] where the device says anything but OK.
    pub(crate) fn command(
        &mut self,
        device: &mut VirtioPci,
        name: &'static str,
        (class, command): (u8, u8),
        data: &[u8],
    ) -> Result<()> {
        if data.len() > DATA {
            return Err(Error::Command(format!("{name}: {} bytes are too many", data.len())));
        }
        let arena = device.function().arena().clone();
        let iova = |offset| arena.iova_of(offset);
        let (head, body) = (self.buffer.offset, self.buffer.offset + 8);
        let answer = self.buffer.offset + self.buffer.len - 1;
        arena.write(head, &[class, command])?;
        arena.write(body, data)?;
        arena.write(answer, &[0xff])?;
        self.queue.set_descriptor(0, iova(head), 2, ring::F_NEXT, 1)?;
        if data.is_empty() {
            self.queue.set_descriptor(1, iova(answer), 1, ring::F_WRITE, 0)?;
        } else {
            self.queue.set_descriptor(1, iova(body), data.len() as u32, ring::F_NEXT, 2)?;
            self.queue.set_descriptor(2, iova(answer), 1, ring::F_WRITE, 0)?;
        }
        self.queue.offer(0)?;
        if self.queue.publish()? {
            device.kick(self.index)?;
        }
        let begin = Instant::now();
        while self.queue.take()?.is_none() {
            let waited = begin.elapsed();
            if waited > TIMEOUT {
                return Err(Error::Timeout { command: name, after: TIMEOUT });
            }
            // The device may need this very thread to reach memory.
            device.function().transport().service()?;
            if waited > Duration::from_micros(50) {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                rustix::thread::sched_yield();
            }
        }
        let mut ack = [0; 1];
        arena.read(answer, &mut ack)?;
        if ack[0] == ctrl::OK { Ok(()) } else { Err(Error::Refused { command: name, errno: 0 }) }
    }
}
