//! This module shows a function as its driver sees it.

use super::client::Client;
use super::independent::Independent;
use super::transport::{ClientKind, DmaMap, DmaMode, Doorbell, Transport};
use super::{pci, spec};
use crate::memory::Arena;
use crate::{Error, Result};
use rustix::event::EventfdFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time that the crate's own client waits for any answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number of capabilities, which live in 192 bytes.
const MAX_CAPABILITIES: usize = 48;

/// A Base Address Register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Number of the BAR, which is also the number of its region.
    pub index: u8,
    /// Size in bytes.
    pub size: u64,
    /// True if the BAR has 64 bits and takes the next register too.
    pub wide: bool,
}

/// A function, its memory and its interrupts.
pub struct Function {
    transport: Box<dyn Transport>,
    arena: Arc<Arena>,
    interrupts: Vec<OwnedFd>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("interrupts", &self.interrupts).finish_non_exhaustive()
    }
}

impl Function {
    /// Connects to a function and maps all of `arena` for it, readable and writable.
    pub fn open(
        socket: &Path,
        client: ClientKind,
        dma: DmaMode,
        arena: Arc<Arena>,
    ) -> Result<Self> {
        let transport: Box<dyn Transport> = match client {
            ClientKind::Own => Box::new(Client::connect(socket, TIMEOUT)?),
            ClientKind::RustVmm => Box::new(Independent::connect(socket)?),
        };
        let mut function = Self::over(transport, arena);
        function.map_arena(dma)?;
        Ok(function)
    }

    /// Makes a function over a given transport, without mapping anything.
    pub fn over(transport: Box<dyn Transport>, arena: Arc<Arena>) -> Self {
        Self { transport, arena, interrupts: Vec::new() }
    }

    /// Maps all of the arena.
    pub fn map_arena(&mut self, dma: DmaMode) -> Result<()> {
        let arena = self.arena.clone();
        let map = DmaMap {
            iova: arena.iova(),
            size: arena.size() as u64,
            offset: 0,
            readable: true,
            writable: true,
        };
        match dma {
            DmaMode::Shared => self.transport.dma_map(&map, Some(arena.fd())),
            DmaMode::NotShared => self.transport.dma_map(&map, None),
        }
    }

    /// Returns the function's memory.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Returns the client below.
    pub fn transport(&mut self) -> &mut dyn Transport {
        &mut *self.transport
    }

    /// Returns a descriptor to watch, as [`Transport::watch`] does.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.transport.watch()
    }

    /// Reads configuration space.
    pub fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.transport.region_read(spec::REGION_CONFIG, offset.into(), data)
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<()> {
        self.transport.region_write(spec::REGION_CONFIG, offset.into(), data)
    }

    pub(crate) fn config_u8(&mut self, offset: u16) -> Result<u8> {
        let mut data = [0; 1];
        self.config_read(offset, &mut data)?;
        Ok(data[0])
    }

    pub(crate) fn config_u16(&mut self, offset: u16) -> Result<u16> {
        let mut data = [0; 2];
        self.config_read(offset, &mut data)?;
        Ok(u16::from_le_bytes(data))
    }

    pub(crate) fn config_u32(&mut self, offset: u16) -> Result<u32> {
        let mut data = [0; 4];
        self.config_read(offset, &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    /// Reads vendor and device ID.
    pub fn id(&mut self) -> Result<(u16, u16)> {
        let id = self.config_u32(pci::ID)?;
        Ok((id as u16, (id >> 16) as u16))
    }

    /// Returns all capabilities as (ID, offset), in list order.
    pub fn capabilities(&mut self) -> Result<Vec<(u8, u16)>> {
        let mut found = Vec::new();
        if self.config_u16(pci::STATUS)? & pci::STATUS_CAPABILITIES == 0 {
            return Ok(found);
        }
        let mut offset = u16::from(self.config_u8(pci::CAPABILITIES)? & !0b11);
        while offset != 0 {
            if offset < 0x40 || found.len() == MAX_CAPABILITIES {
                return Err(Error::Device(format!(
                    "the capability list is broken at {offset:#04x}, after {found:02x?}"
                )));
            }
            let header = self.config_u16(offset)?;
            found.push((header as u8, offset));
            offset = (header >> 8) & !0b11;
        }
        Ok(found)
    }

    /// Returns the offset of the first capability with this ID.
    pub fn capability(&mut self, id: u8) -> Result<Option<u16>> {
        Ok(self.capabilities()?.into_iter().find(|(i, _)| *i == id).map(|(_, offset)| offset))
    }

    /// Sizes the BARs as firmware does, by writing ones; their contents are put back. Memory
    /// decoding is off meanwhile.
    pub fn bars(&mut self) -> Result<Vec<Bar>> {
        let saved = self.config_u16(pci::COMMAND)?;
        self.config_write(pci::COMMAND, &(saved & !pci::COMMAND_MEMORY).to_le_bytes())?;
        let mut bars = Vec::new();
        let mut index = 0;
        while index < 6 {
            let register = pci::BAR0 + 4 * u16::from(index);
            let old = self.config_u32(register)?;
            let mut mask = u64::from(self.size_register(register)?);
            let wide = mask != 0 && old & (pci::BAR_IO | pci::BAR_TYPE_MASK) == pci::BAR_TYPE_64;
            if wide && index < 5 {
                mask |= u64::from(self.size_register(register + 4)?) << 32;
            } else if mask != 0 {
                mask |= 0xffff_ffff << 32;
            }
            mask &= !0xf;
            if mask != 0 {
                let size = (!mask).wrapping_add(1);
                let region = self.transport.region(index.into()).map_or(0, |r| r.size);
                if size != region {
                    return Err(Error::Device(format!(
                        "BAR {index} sizes to {size:#x} bytes, its region has {region:#x}"
                    )));
                }
                bars.push(Bar { index, size, wide });
            }
            index += if wide { 2 } else { 1 };
        }
        self.config_write(pci::COMMAND, &saved.to_le_bytes())?;
        Ok(bars)
    }

    fn size_register(&mut self, register: u16) -> Result<u32> {
        let old = self.config_u32(register)?;
        self.config_write(register, &u32::MAX.to_le_bytes())?;
        let mask = self.config_u32(register)?;
        self.config_write(register, &old.to_le_bytes())?;
        Ok(mask)
    }

    /// Turns memory decoding and bus mastering on and INTx off.
    pub fn enable(&mut self) -> Result<()> {
        let command = self.config_u16(pci::COMMAND)?
            | pci::COMMAND_MEMORY
            | pci::COMMAND_BUS_MASTER
            | pci::COMMAND_INTX_DISABLE;
        self.config_write(pci::COMMAND, &command.to_le_bytes())
    }

    /// Turns bus mastering, and with it all DMA, on or off.
    pub fn set_bus_master(&mut self, on: bool) -> Result<()> {
        let command = self.config_u16(pci::COMMAND)?;
        let command =
            if on { command | pci::COMMAND_BUS_MASTER } else { command & !pci::COMMAND_BUS_MASTER };
        self.config_write(pci::COMMAND, &command.to_le_bytes())
    }

    /// Does a function level reset.
    pub fn flr(&mut self) -> Result<()> {
        let express = self
            .capability(pci::CAP_EXPRESS)?
            .ok_or_else(|| Error::Device("no PCI Express capability".into()))?;
        if self.config_u32(express + pci::DEVICE_CAPABILITIES)? & pci::DEVICE_CAPABILITIES_FLR == 0
        {
            return Err(Error::Device("no function level reset".into()));
        }
        let control = self.config_u16(express + pci::DEVICE_CONTROL)? | pci::DEVICE_CONTROL_FLR;
        self.config_write(express + pci::DEVICE_CONTROL, &control.to_le_bytes())
    }

    /// Sets up `wanted` MSI-X vectors, or as many as there are: eventfds, table entries, enable
    /// bit. What was set up before is replaced.
    pub fn enable_msix(&mut self, wanted: u16) -> Result<u16> {
        let capability = self
            .capability(pci::CAP_MSIX)?
            .ok_or_else(|| Error::Device("no MSI-X capability".into()))?;
        let control = self.config_u16(capability + pci::MSIX_CONTROL)?;
        let table = self.config_u32(capability + pci::MSIX_TABLE)?;
        let vectors = (control & pci::MSIX_TABLE_SIZE) + 1;
        let irqs = self.transport.irq_count(spec::IRQ_MSIX)?;
        if irqs != u32::from(vectors) {
            return Err(Error::Device(format!(
                "{vectors} MSI-X vectors in configuration space, {irqs} in the interrupt \
                 information"
            )));
        }
        let count = vectors.min(wanted);
        let fds = (0..count)
            .map(|_| rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::io("making an eventfd", e))?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.transport.set_irq_eventfds(spec::IRQ_MSIX, 0, &borrowed)?;
        for vector in 0..count {
            // The eventfd stands for address and data, which are the VMM's business; the mask bit
            // is the driver's.
            let mut entry = [0; pci::MSIX_ENTRY as usize];
            entry[0..4].copy_from_slice(&0xfee0_0000u32.to_le_bytes());
            entry[8..12].copy_from_slice(&u32::from(vector).to_le_bytes());
            let offset = u64::from(table & !pci::MSIX_BIR) + u64::from(vector) * pci::MSIX_ENTRY;
            let bar = table & pci::MSIX_BIR;
            for (word, at) in entry.chunks_exact(4).zip((0..).step_by(4)) {
                self.transport.region_write(bar, offset + at, word)?;
            }
        }
        let control = control | pci::MSIX_ENABLE;
        self.config_write(capability + pci::MSIX_CONTROL, &control.to_le_bytes())?;
        self.interrupts = fds;
        Ok(count)
    }

    /// Returns the eventfds of the MSI-X vectors, by vector.
    pub fn interrupts(&self) -> &[OwnedFd] {
        &self.interrupts
    }

    /// Returns the doorbells of one BAR that may be rung through eventfds.
    pub(crate) fn doorbells(&mut self, bar: u8) -> Result<Vec<Doorbell>> {
        self.transport.doorbells(bar.into())
    }
}
