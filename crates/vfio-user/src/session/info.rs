//! These requests ask what the device has. `argsz` is how much of the answer the client has room
//! for (vfio-user, "Message sizes").

use std::sync::Arc;

use manifold_socket::Answer;
use rustix::io::Errno;

use super::{Attached, Session};
use crate::codec::{
    InfoRequest, IoFdEntry, RegionInfoReply, RegionIoFdsReply, RegionIoFdsRequest, Reply,
};
use crate::device::IoFd;
use crate::spec;

impl Attached {
    pub(super) fn device_info(
        &self,
        request: InfoRequest,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        if request.argsz < spec::DEVICE_INFO_SIZE {
            return Err(Errno::INVAL);
        }
        let reset = flag(self.info.resettable, spec::DEVICE_FLAG_RESET);
        Reply::DeviceInfo {
            flags: spec::DEVICE_FLAG_PCI | reset,
            num_regions: self.info.regions,
            num_irqs: self.info.irqs,
        }
        .encode(&mut answer.bytes);
        Ok(())
    }

    pub(super) fn irq_info(&self, request: InfoRequest, answer: &mut Answer) -> Result<(), Errno> {
        let irq = self.irq(request.index)?;
        if request.argsz < spec::IRQ_INFO_SIZE {
            return Err(Errno::INVAL);
        }
        Reply::IrqInfo {
            flags: flag(irq.count > 0, spec::IRQ_FLAG_EVENTFD)
                | flag(irq.maskable, spec::IRQ_FLAG_MASKABLE)
                | flag(irq.automasked, spec::IRQ_FLAG_AUTOMASKED)
                | flag(irq.fixed_set, spec::IRQ_FLAG_NORESIZE),
            index: request.index,
            count: irq.count,
        }
        .encode(&mut answer.bytes);
        Ok(())
    }
}

impl Session {
    /// Answers what a region is. A client with too little room gets the structure without the
    /// capability, and the size it needs. The descriptor comes with every answer that says the
    /// region can be mapped.
    pub(super) fn region_info(
        &self,
        attached: &Attached,
        request: InfoRequest,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let region = *attached.region(request.index)?;
        if request.argsz < RegionInfoReply::SIZE {
            return Err(Errno::INVAL);
        }
        let mapping = (region.size > 0 && attached.client_max_fds > 0)
            .then(|| self.device.region_info(request.index)?.mapping)
            .flatten();
        let (offset, mut areas) = match &mapping {
            Some(mapping) => (mapping.offset, mapping.areas.clone()),
            None => (0, Vec::new()),
        };
        let argsz = RegionInfoReply::complete_size(areas.len());
        if argsz > request.argsz {
            areas.clear();
        }
        Reply::RegionInfo(RegionInfoReply {
            argsz,
            flags: flag(region.size > 0 && region.readable, spec::REGION_FLAG_READ)
                | flag(region.size > 0 && region.writable, spec::REGION_FLAG_WRITE)
                | flag(mapping.is_some(), spec::REGION_FLAG_MMAP),
            index: request.index,
            size: region.size,
            offset,
            areas,
        })
        .encode(&mut answer.bytes);
        answer.fds.extend(mapping.map(|mapping| mapping.fd));
        Ok(())
    }

    pub(super) fn region_io_fds(
        &self,
        attached: &Attached,
        request: &RegionIoFdsRequest,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let region = attached.region(request.index)?;
        let is_zero = request.flags == 0 && request.count == 0;
        if region.size == 0 || request.argsz < RegionIoFdsReply::SIZE || !is_zero {
            return Err(Errno::INVAL);
        }
        let io_fds = self.device.region_io_fds(request.index)?;
        let (mut entries, mut fds) = (Vec::new(), Vec::new());
        for io_fd in io_fds {
            let shared = fds.iter().position(|fd| Arc::ptr_eq(fd, &io_fd.fd));
            let index = shared.unwrap_or(fds.len());
            if index == attached.client_max_fds {
                break;
            }
            entries.push(entry(&io_fd, index));
            if shared.is_none() {
                fds.push(io_fd.fd);
            }
        }
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let argsz = count
            .saturating_mul(RegionIoFdsReply::ENTRY_SIZE)
            .saturating_add(RegionIoFdsReply::SIZE);
        if argsz > request.argsz {
            entries.clear();
            fds.clear();
        }
        let index = request.index;
        Reply::RegionIoFds(RegionIoFdsReply { argsz, index, count, entries })
            .encode(&mut answer.bytes);
        answer.fds = fds;
        Ok(())
    }
}

fn entry(io_fd: &IoFd, fd_index: usize) -> IoFdEntry {
    IoFdEntry {
        offset: io_fd.offset,
        size: io_fd.size,
        fd_index: u32::try_from(fd_index).unwrap_or(u32::MAX),
        kind: spec::IO_FD_TYPE_IOEVENTFD,
        flags: flag(io_fd.datamatch.is_some(), spec::IO_FD_FLAG_DATAMATCH),
        datamatch: io_fd.datamatch.unwrap_or_default(),
    }
}

fn flag(condition: bool, flag: u32) -> u32 {
    if condition { flag } else { 0 }
}
