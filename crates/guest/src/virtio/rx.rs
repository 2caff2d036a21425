//! This module is the receive queue (virtio 1.3, section 5.1.6.3).

use super::device::VirtioPci;
use super::offload::NetHeader;
use super::queue::{BATCH, Descriptor, Queue, Used};
use super::spec::{NET_HEADER, NET_HEADER_NUM_BUFFERS, header, net_header, ring};
use crate::memory::Arena;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A receive queue, which hands out buffers and takes frames in.
#[derive(Debug)]
pub struct RxQueue {
    pub(super) index: u16,
    vector: u16,
    pub(crate) queue: Queue,
    arena: Arc<Arena>,
    /// Offset of buffer 0 in the arena.
    base: usize,
    /// Size of a buffer in bytes.
    buffer: usize,
    merge: bool,
    /// Length in bytes of the header before a frame.
    header: usize,
    /// Header of the last frame, and its hash and hash report if the device sends them.
    last: (NetHeader, Option<(u32, u16)>),
    /// Number of buffers, one per descriptor.
    buffers: u16,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl RxQueue {
    pub(super) fn new(
        index: u16,
        vector: u16,
        mut queue: Queue,
        arena: &Arc<Arena>,
        buffer: usize,
        merge: bool,
        features: u64,
    ) -> Result<Self> {
        let header = net_header(features);
        let buffer = buffer.max(header + 64).next_multiple_of(64);
        let buffers = queue.size();
        let base = arena.alloc(buffer * usize::from(buffers), 64)?.offset;
        for i in 0..buffers {
            let iova = arena.iova_of(base + usize::from(i) * buffer);
            let (len, flags) = (buffer as u32, ring::F_WRITE);
            queue.set_descriptor(i, Descriptor { iova, len, flags, next: 0 })?;
        }
        let arena = arena.clone();
        Ok(Self {
            index,
            vector,
            queue,
            arena,
            base,
            buffer,
            merge,
            header,
            last: (NetHeader::default(), None),
            buffers,
            frames: 0,
            bytes: 0,
        })
    }

    /// Offers all buffers.
    pub(super) fn fill(&mut self, device: &mut VirtioPci) -> Result<()> {
        for i in 0..self.buffers {
            self.queue.offer(i)?;
        }
        self.flush(device)
    }

    /// Returns the MSI-X vector of this queue.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// Returns how many frames of `len` bytes the buffers hold.
    pub fn room_for(&self, len: usize) -> usize {
        usize::from(self.buffers) / (self.header + len).div_ceil(self.buffer).max(1)
    }

    /// Copies the next frame into `frame` and returns its length, or `None` if there is none. A
    /// frame that does not fit is an error of the device.
    pub fn receive(&mut self, frame: &mut [u8]) -> Result<Option<usize>> {
        let Some(first) = self.queue.take()? else { return Ok(None) };
        let at = self.offset(first.head)?;
        let short = || Error::Device(format!("a used length of {} bytes", first.len));
        let mut part = (first.len as usize).checked_sub(self.header).ok_or_else(short)?;
        self.read_header(at)?;
        let more = match self.merge {
            true => self.arena.load_u16(at + NET_HEADER_NUM_BUFFERS, Ordering::Relaxed)?,
            false => 1,
        };
        let mut from = at + self.header;
        let mut head = first.head;
        let mut done = 0;
        for left in (0..more.max(1)).rev() {
            if from + part > self.offset(head)? + self.buffer {
                return Err(Error::Device(format!("{part} bytes in a buffer of {}", self.buffer)));
            }
            let place = frame.get_mut(done..done + part).ok_or_else(|| {
                Error::Device(format!("a frame of more than {} bytes", done + part))
            })?;
            self.arena.read(from, place)?;
            done += part;
            self.queue.offer(head)?;
            if left > 0 {
                let next = self.queue.take()?.ok_or_else(|| {
                    Error::Device(format!("a frame lacks {left} of its {more} buffers"))
                })?;
                head = next.head;
                part = next.len as usize;
                from = self.offset(head)?;
            }
        }
        self.frames += 1;
        self.bytes += done as u64;
        Ok(Some(done))
    }

    fn read_header(&mut self, at: usize) -> Result<()> {
        let mut bytes = [0; NET_HEADER];
        self.arena.read(at, &mut bytes)?;
        let hash = match self.header > NET_HEADER {
            true => {
                let mut hash = [0; 4];
                self.arena.read(at + header::HASH_VALUE, &mut hash)?;
                let kind = self.arena.load_u16(at + header::HASH_REPORT, Ordering::Relaxed)?;
                Some((u32::from_le_bytes(hash), kind))
            }
            false => None,
        };
        self.last = (NetHeader::parse(&bytes), hash);
        Ok(())
    }

    /// Returns the header of the frame last received.
    pub fn header(&self) -> NetHeader {
        self.last.0
    }

    /// Returns the hash of the frame last received and its `hash_report` (5.1.6.4.4), with
    /// VIRTIO_NET_F_HASH_REPORT.
    pub fn hash(&self) -> Option<(u32, u16)> {
        self.last.1
    }

    /// Takes up to `limit` frames without looking at them, and returns how many there were. Each
    /// frame must fit one buffer.
    pub fn discard(&mut self, limit: usize) -> Result<usize> {
        let mut frames = 0;
        while frames < limit {
            let mut used = [Used::default(); BATCH];
            let room = used.get_mut(..BATCH.min(limit - frames)).unwrap_or_default();
            let used = self.queue.take_many(room)?;
            if used.is_empty() {
                break;
            }
            let mut heads = [0; BATCH];
            for (used, head) in used.iter().zip(&mut heads) {
                *head = used.head;
                self.bytes += u64::from(used.len).saturating_sub(self.header as u64);
            }
            self.queue.offer_many(heads.get(..used.len()).unwrap_or_default())?;
            frames += used.len();
        }
        self.frames += frames as u64;
        Ok(frames)
    }

    fn offset(&self, head: u16) -> Result<usize> {
        if head < self.buffers {
            Ok(self.base + usize::from(head) * self.buffer)
        } else {
            Err(Error::Device(format!("RX descriptor {head} holds no buffer")))
        }
    }

    /// Gives the buffers back that were taken.
    pub fn flush(&mut self, device: &mut VirtioPci) -> Result<()> {
        if self.queue.publish()? { device.kick(self.index) } else { Ok(()) }
    }

    /// Calls [`Self::flush`] if a quarter of the ring has come together.
    pub fn flush_if_many(&mut self, device: &mut VirtioPci) -> Result<()> {
        if self.queue.unpublished() >= self.queue.size() / 4 { self.flush(device) } else { Ok(()) }
    }

    /// Asks for an interrupt, as [`Queue::arm`] does.
    pub fn arm(&mut self) -> Result<bool> {
        self.queue.arm()
    }

    /// Asks for no interrupts, as [`Queue::disarm`] does.
    pub fn disarm(&mut self) -> Result<()> {
        self.queue.disarm()
    }
}
