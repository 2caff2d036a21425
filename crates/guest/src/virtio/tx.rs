//! This module is the transmit queue (virtio 1.3, section 5.1.6.2).

use super::device::VirtioPci;
use super::offload::NetHeader;
use super::queue::{BATCH, Descriptor, Queue, Used};
use super::spec::{feature, net_header, ring};
use crate::memory::{Arena, Span};
use crate::{Error, Result};
use std::sync::Arc;

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    pub(super) index: u16,
    vector: u16,
    pub(crate) queue: Queue,
    arena: Arc<Arena>,
    /// Offset of slot 0 in the arena. A slot holds header and frame.
    base: usize,
    /// Length in bytes of the header before a frame.
    header: usize,
    /// Size of a slot in bytes.
    slot: usize,
    slots: u16,
    /// Offset of the indirect tables, two descriptors per slot, if they are used.
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
        mut queue: Queue,
        arena: &Arc<Arena>,
        frame: usize,
        features: u64,
        slots: u16,
    ) -> Result<Self> {
        let (header, indirect) = (net_header(features), features & feature::INDIRECT_DESC != 0);
        let slot = (header + frame).next_multiple_of(64);
        let slots = queue.size().min(slots).max(1);
        let base = arena.alloc(slot * usize::from(slots), 64)?;
        let mut tables = None;
        if indirect {
            tables = Some(arena.alloc(2 * ring::DESC * usize::from(slots), ring::DESC)?.offset);
        }
        for i in 0..slots {
            let at = base.offset + usize::from(i) * slot;
            arena.clear(Span { offset: at, len: header })?;
            let iova = arena.iova_of(at);
            if let Some(tables) = tables {
                let table = tables + 2 * ring::DESC * usize::from(i);
                let body = iova + header as u64;
                queue.set_indirect(arena, table, 0, (iova, header as u32), Some(1))?;
                queue.set_indirect(arena, table, 1, (body, 0), None)?;
                let bytes = 2 * ring::DESC as u32;
                let (iova, flags) = (arena.iova_of(table), ring::F_INDIRECT);
                queue.set_descriptor(i, Descriptor { iova, len: bytes, flags, next: 0 })?;
            } else {
                queue.set_descriptor(i, Descriptor { iova, ..Descriptor::default() })?;
            }
        }
        Ok(Self {
            index,
            vector,
            queue,
            arena: arena.clone(),
            base: base.offset,
            header,
            slot,
            slots,
            tables,
            free: (0..slots).rev().collect(),
            frames: 0,
            bytes: 0,
            dropped: 0,
        })
    }

    /// Returns the MSI-X vector of this queue.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// Returns true if a frame can be sent now.
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

    /// Returns how many frames the device has, as far as known.
    pub fn in_flight(&self) -> usize {
        usize::from(self.slots).saturating_sub(self.free.len())
    }

    /// Queues a frame, which [`Self::flush`] shows to the device. Returns false and counts it if
    /// there is no room.
    pub fn send(&mut self, frame: &[u8]) -> Result<bool> {
        self.send_with(&NetHeader::default(), frame)
    }

    /// Queues a frame with a header that asks something of the device.
    pub fn send_with(&mut self, header: &NetHeader, frame: &[u8]) -> Result<bool> {
        if self.header + frame.len() > self.slot {
            return Err(Error::Command(format!(
                "a frame of {} bytes; the device takes {}",
                frame.len(),
                self.slot - self.header
            )));
        }
        if !self.has_room()? {
            self.dropped += 1;
            return Ok(false);
        }
        let Some(slot) = self.free.pop() else { return Ok(false) };
        let at = self.base + usize::from(slot) * self.slot;
        self.arena.write(at, &header.bytes())?;
        self.arena.write(at + self.header, frame)?;
        self.offer(slot, frame.len())?;
        Ok(true)
    }

    fn set_length(&mut self, slot: u16, len: usize) -> Result<()> {
        match self.tables {
            Some(tables) => {
                let at = tables + ring::DESC * (2 * usize::from(slot) + 1) + 8;
                self.arena.store_u64(at, len as u64)
            }
            None => self.queue.set_length(slot, (self.header + len) as u32, 0),
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

    /// Calls [`Self::flush`] if `many` frames have come together.
    pub fn flush_if(&mut self, device: &mut VirtioPci, many: u16) -> Result<()> {
        if self.queue.unpublished() >= many { self.flush(device) } else { Ok(()) }
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
