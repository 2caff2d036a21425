//! This module carries out the operations of a [`Transport`] as messages.

use super::{Client, MAX_MESSAGE, MAX_MSG_FDS, protocol, short};
use crate::vfio::spec::{self, command, flags, irq_set};
use crate::vfio::transport::{DmaMap, Doorbell, Region, Transport};
use crate::vfio::wire::{Fields, Message};
use crate::{Error, Result};
use rustix::net::RecvFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

impl Client {
    /// Sends `VFIO_USER_DEVICE_SET_IRQS` with any contents; `argsz` is filled in.
    pub fn set_irqs(
        &mut self,
        [set_flags, index, start, count]: [u32; 4],
        data: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let argsz = 20 + data.len() as u32;
        self.request(
            command::DEVICE_SET_IRQS,
            |m| m.u32(argsz).u32(set_flags).u32(index).u32(start).u32(count).bytes(data),
            fds,
        )
        .map(drop)
    }
}

impl Transport for Client {
    fn region(&self, index: u32) -> Option<Region> {
        self.regions.get(index as usize).copied()
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let limit = self.max_data_xfer_size.max(1);
        let mut at = offset;
        for part in data.chunks_mut(limit) {
            let count = part.len();
            let reply = self.request(
                command::REGION_READ,
                |m| m.u64(at).u32(region).u32(count as u32),
                &[],
            )?;
            let mut fields = Fields(&reply.payload);
            let head = (fields.u64(), fields.u32(), fields.u32());
            let body = fields.rest();
            if head != (Some(at), Some(region), Some(count as u32)) || body.len() != count {
                return Err(protocol(
                    command::REGION_READ,
                    format!("{head:?} with {} bytes for {count} at {at:#x}", body.len()),
                ));
            }
            part.copy_from_slice(body);
            at = at.wrapping_add(count as u64);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let limit = self.max_data_xfer_size.max(1);
        let mut at = offset;
        for part in data.chunks(limit) {
            let count = part.len() as u32;
            let reply = self.request(
                command::REGION_WRITE,
                |m| m.u64(at).u32(region).u32(count).bytes(part),
                &[],
            )?;
            let mut fields = Fields(&reply.payload);
            let head = (fields.u64(), fields.u32(), fields.u32());
            if head != (Some(at), Some(region), Some(count)) {
                return Err(protocol(
                    command::REGION_WRITE,
                    format!("{head:?} for {count} bytes at {at:#x}"),
                ));
            }
            at = at.wrapping_add(u64::from(count));
        }
        Ok(())
    }

    fn region_post(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let message = Message::new(
            self.take_id(),
            command::REGION_WRITE,
            flags::TYPE_COMMAND | flags::NO_REPLY,
        )
        .u64(offset)
        .u32(region)
        .u32(data.len() as u32)
        .bytes(data)
        .finish();
        self.send(command::REGION_WRITE, &message, &[])
    }

    fn doorbells(&mut self, region: u32) -> Result<Vec<Doorbell>> {
        const FIXED: usize = 16;
        const ENTRY: usize = 40;
        // The room is enough for any function here; a server with more says so in argsz.
        let mut argsz = (FIXED + MAX_MSG_FDS * ENTRY) as u32;
        let reply = loop {
            let asked = argsz;
            let reply = match self.request(
                command::DEVICE_GET_REGION_IO_FDS,
                |m| m.u32(asked).u32(0).u32(region).u32(0),
                &[],
            ) {
                Ok(reply) => reply,
                // This command is optional for a server, and optional for a region.
                Err(Error::Refused { .. }) => return Ok(Vec::new()),
                Err(e) => return Err(e),
            };
            argsz = Fields(&reply.payload).u32().ok_or_else(|| short(6))?;
            if argsz as usize <= asked as usize || argsz as usize > MAX_MESSAGE {
                break reply;
            }
        };
        let bad = || short(command::DEVICE_GET_REGION_IO_FDS);
        let mut fields = Fields(&reply.payload);
        let (_, _, _, count) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
        let count = count.ok_or_else(bad)? as usize;
        if count == 0 {
            return Ok(Vec::new());
        }
        let fds: Vec<Arc<OwnedFd>> = reply.fds.into_iter().map(Arc::new).collect();
        let entries = fields.rest();
        let stride = entries.len() / count;
        if stride < ENTRY {
            return Err(bad());
        }
        let mut doorbells = Vec::new();
        for entry in entries.chunks_exact(stride) {
            let mut fields = Fields(entry);
            let (Some(offset), Some(size)) = (fields.u64(), fields.u64()) else {
                return Err(bad());
            };
            let (Some(fd), Some(kind)) = (fields.u32(), fields.u32()) else { return Err(bad()) };
            let (Some(io_flags), Some(_), Some(value)) = (fields.u32(), fields.u32(), fields.u64())
            else {
                return Err(bad());
            };
            let fd = fds.get(fd as usize).ok_or_else(bad)?.clone();
            if kind == spec::IO_FD_TYPE_IOEVENTFD {
                let value = (io_flags & spec::IOEVENTFD_DATAMATCH != 0).then_some(value);
                doorbells.push(Doorbell { offset, size, value, fd });
            }
        }
        Ok(doorbells)
    }

    fn dma_map(&mut self, map: &DmaMap, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let permissions = if map.readable { spec::DMA_READABLE } else { 0 }
            | if map.writable { spec::DMA_WRITEABLE } else { 0 };
        let request =
            |m: Message| m.u32(32).u32(permissions).u64(map.offset).u64(map.iova).u64(map.size);
        self.request(command::DMA_MAP, request, fd.as_slice()).map(drop)
    }

    fn dma_unmap(&mut self, iova: u64, size: u64) -> Result<()> {
        let reply =
            self.request(command::DMA_UNMAP, |m| m.u32(24).u32(0).u64(iova).u64(size), &[])?;
        if reply.payload.len() < 24 {
            return Err(short(command::DMA_UNMAP));
        }
        Ok(())
    }

    fn irq_count(&mut self, index: u32) -> Result<u32> {
        let reply = self.request(
            command::DEVICE_GET_IRQ_INFO,
            |m| m.u32(16).u32(0).u32(index).u32(0),
            &[],
        )?;
        let mut fields = Fields(&reply.payload);
        let (_, _, _) = (fields.u32(), fields.u32(), fields.u32());
        fields.u32().ok_or_else(|| short(command::DEVICE_GET_IRQ_INFO))
    }

    fn set_irq_eventfds(&mut self, index: u32, start: u32, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut first = start;
        for part in fds.chunks(self.max_msg_fds.max(1)) {
            let count = part.len() as u32;
            let set_flags = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;
            self.set_irqs([set_flags, index, first, count], &[], part)?;
            first += count;
        }
        Ok(())
    }

    fn disable_irqs(&mut self, index: u32) -> Result<()> {
        self.set_irqs([irq_set::DATA_NONE | irq_set::ACTION_TRIGGER, index, 0, 0], &[], &[])
    }

    fn reset(&mut self) -> Result<()> {
        self.request(command::DEVICE_RESET, |m| m, &[]).map(drop)
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn service(&mut self) -> Result<()> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.socket, &mut [0; 1][..], flags) {
            Ok((0, _)) => Err(Error::Disconnected { command: "idle connection" }),
            Ok(_) => Err(protocol(0, "a message that was not asked for".into())),
            Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(e) => Err(self.failed(0, e.into())),
        }
    }
}
