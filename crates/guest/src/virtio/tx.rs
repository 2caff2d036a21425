//! Transmitting: frames out (virtio 1.3, section 5.1.6.2).

use super::device::VirtioPci;
use super::queue::{BATCH, Queue, Used, write_descriptor};
use super::spec::{NET_HEADER, ring};
use crate::memory::Arena;
use crate::{Error, Result};
use std::sync::Arc;

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    pub(super) index: u16,
    vector: u16,
    pub(crate) queue: Queue,
    arena: Arc<Arena>,
    /// Offset of slot 0 in the arena: header, then frame.
    base: usize,
    /// Bytes per slot.
    slot: usize,
    slots: u16,
    /// Offset of the indirect tables, two descriptors per slot, where used.
    tables: Option<usize>,
    /// Slots that the device does not have.
    pub(super) free: Vec<u16>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

impl TxQueue {
    pub(super) fn new(
        index: u16,
        vector: u16,
        queue: Queue,
        arena: &Arc<Arena>,
        frame: usize,
        indirect: bool,
        slots: u16,
    ) -> Result<Self> {
        let slot = (NET_HEADER + frame).next_multiple_of(64);
        let slots = queue.size().min(slots).max(1);
        let base = arena.alloc(slot * usize::from(slots), 64)?;
        let mut tables = None;
        if indirect {
            tables = Some(arena.alloc(2 * ring::DESC * usize::from(slots), ring::DESC)?.offset);
        }
        for i in 0..slots {
            let at = base.offset + usize::from(i) * slot;
            // The header says: no checksum, no segmentation. It never changes.
            arena.write(at, &[0; NET_HEADER])?;
            let iova = arena.iova_of(at);
            if let Some(tables) = tables {
                let table = tables + 2 * ring::DESC * usize::from(i);
                write_descriptor(arena, table, 0, iova, NET_HEADER as u32, ring::F_NEXT, 1)?;
                write_descriptor(arena, table, 1, iova + NET_HEADER as u64, 0, 0, 0)?;
                let bytes = 2 * ring::DESC as u32;
                queue.set_descriptor(i, arena.iova_of(table), bytes, ring::F_INDIRECT, 0)?;
            } else {
                queue.set_descriptor(i, iova, 0, 0, 0)?;
            }
        }
        Ok(Self {
            index,
            vector,
            queue,
            arena: arena.clone(),
            base: base.offset,
            slot,
            slots,
            tables,
            free: (0..slots).rev().collect(),
            frames: 0,
            bytes: 0,
            dropped: 0,
        })
    }

    /// The MSI-X vector of this queue.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// True where a frame can be sent now.
    pub fn has_room(&mut self) -> Result<bool> {
        if self.free.is_empty() {
            self.reclaim()?;
        }
        Ok(!self.free.is_empty())
    }

    /// Takes back the slots that the device is done with, and returns how many are free.
    pub fn reclaim(&mut self) -> Result<usize> {
        loop {
            let mut used = [Used::default(); BATCH];
            let used = self.queue.take_many(&mut used)?;
            if used.is_empty() {
                return Ok(self.free.len());
            }
            self.free.extend(used.iter().map(|used| used.head));
        }
    }

    /// Frames that the device has and is not done with, as far as known.
    pub fn in_flight(&self) -> usize {
        usize::from(self.slots).saturating_sub(self.free.len())
    }

    /// Queues a frame; [`Self::flush`] shows it to the device. False, and counted, where there is no room.
    pub fn send(&mut self, frame: &[u8]) -> Result<bool> {
        if NET_HEADER + frame.len() > self.slot {
            return Err(Error::Command(format!(
                "a frame of {} bytes; the device takes {}",
                frame.len(),
                self.slot - NET_HEADER
            )));
        }
        if !self.has_room()? {
            self.dropped += 1;
            return Ok(false);
        }
        let Some(slot) = self.free.pop() else { return Ok(false) };
        self.arena.write(self.base + usize::from(slot) * self.slot + NET_HEADER, frame)?;
        self.offer(slot, frame.len())?;
        Ok(true)
    }

    /// Writes a frame into every free slot, for [`Self::resend`].
    pub fn prefill(&mut self, frame: &[u8]) -> Result<()> {
        for &slot in &self.free {
            self.arena.write(self.base + usize::from(slot) * self.slot + NET_HEADER, frame)?;
            self.set_length(slot, frame.len())?;
        }
        Ok(())
    }

    /// Queues up to `count` of the frames that [`Self::prefill`] wrote; returns how many.
    pub fn resend(&mut self, count: usize, len: usize) -> Result<usize> {
        if self.free.len() < count {
            self.reclaim()?;
        }
        let count = count.min(self.free.len());
        let slots = self.free.len() - count;
        self.queue.offer_many(self.free.get(slots..).unwrap_or_default())?;
        self.free.truncate(slots);
        self.frames += count as u64;
        self.bytes += (count * len) as u64;
        Ok(count)
    }

    fn set_length(&self, slot: u16, len: usize) -> Result<()> {
        match self.tables {
            Some(tables) => {
                let at = tables + ring::DESC * (2 * usize::from(slot) + 1) + 8;
                self.arena.store_u64(at, len as u64)
            }
            None => self.queue.set_length(slot, (NET_HEADER + len) as u32, 0),
        }
    }

    fn offer(&mut self, slot: u16, len: usize) -> Result<()> {
        self.set_length(slot, len)?;
        self.queue.offer(slot)?;
        self.frames += 1;
        self.bytes += len as u64;
        Ok(())
    }

    /// Shows the device what was queued.
    pub fn flush(&mut self, device: &mut VirtioPci) -> Result<()> {
        if self.queue.publish()? { device.kick(self.index) } else { Ok(()) }
    }

    /// As [`Self::flush`], but only when `many` frames have come together.
    pub fn flush_if(&mut self, device: &mut VirtioPci, many: u16) -> Result<()> {
        if self.queue.unpublished() >= many { self.flush(device) } else { Ok(()) }
    }

    /// See [`Queue::arm`].
    pub fn arm(&mut self) -> Result<bool> {
        self.queue.arm()
    }

    /// See [`Queue::disarm`].
    pub fn disarm(&mut self) -> Result<()> {
        self.queue.disarm()
    }
}
