//! The control queue carries commands to the device, one at a time (virtio 1.3, section 5.1.6.5).

use super::device::VirtioPci;
use super::queue::{Descriptor, Queue};
use super::spec::{ctrl, ring};
use crate::memory::Span;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// Time that the device may take for a command.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Size of a command's data in bytes: both MAC tables with 256 entries.
const DATA: usize = 3 * 1024 + 16;

/// The control queue.
#[derive(Debug)]
pub struct ControlQueue {
    index: u16,
    queue: Queue,
    /// Memory of a command: class and command at 0, data from 8, then the answer.
    buffer: Span,
}

impl ControlQueue {
    /// Makes a control queue on queue `index`.
    pub fn new(index: u16, queue: Queue, device: &mut VirtioPci) -> Result<Self> {
        let buffer = device.function().arena().alloc(8 + DATA + 1, 8)?;
        Ok(Self { index, queue, buffer })
    }

    /// Sends `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`.
    pub fn set_queue_pairs(&mut self, device: &mut VirtioPci, pairs: u16) -> Result<()> {
        let (name, command) = ("VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET", ctrl::MQ_VQ_PAIRS_SET);
        self.command(device, name, command, &pairs.to_le_bytes())
    }

    /// Sends a command and waits for the answer. Fails with [`Error::Refused`] if the device says
    /// anything but OK.
    pub(crate) fn command(
        &mut self,
        device: &mut VirtioPci,
        name: &'static str,
        (class, command): (u8, u8),
        data: &[u8],
    ) -> Result<()> {
        if data.len() > DATA {
            let bytes = data.len();
            return Err(Error::Command(format!("{name}: {bytes} bytes are too many")));
        }
        let arena = device.function().arena().clone();
        let iova = |offset| arena.iova_of(offset);
        let (head, body) = (self.buffer.offset, self.buffer.offset + 8);
        let answer = body + DATA;
        arena.write(head, &[class, command])?;
        arena.write(body, data)?;
        arena.write(answer, &[0xff])?;
        let parts = [(head, 2, 0), (body, data.len(), 0), (answer, 1, ring::F_WRITE)];
        let used = parts.iter().filter(|(_, len, _)| *len > 0);
        let count = used.clone().count() as u16;
        for (index, &(offset, len, flags)) in (0..).zip(used) {
            let flags = if index + 1 < count { flags | ring::F_NEXT } else { flags };
            let (iova, len, next) = (iova(offset), len as u32, index + 1);
            self.queue.set_descriptor(index, Descriptor { iova, len, flags, next })?;
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
        if ack[0] != ctrl::OK {
            return Err(Error::Refused { command: name, errno: 0 });
        }
        Ok(())
    }
}
