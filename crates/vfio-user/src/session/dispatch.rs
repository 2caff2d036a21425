//! This module carries out the requests of an attached client.

use std::os::fd::OwnedFd;

use manifold_socket::Answer;
use rustix::io::Errno;

use super::{Attached, Session};
use crate::codec::{
    Command, DmaMapRequest, DmaUnmapRequest, RegionAccess, Reply, Request, SmallWrite,
};
use crate::device::{DmaMap, DmaMemory};
use crate::spec;

impl Session {
    /// Carries a request out and appends the payload of its reply. Descriptors that are not used
    /// are closed by being dropped.
    pub(super) fn dispatch(
        &self,
        attached: &Attached,
        request: Request<'_>,
        fds: Vec<OwnedFd>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let takes_fds = matches!(request, Request::DmaMap(_) | Request::DeviceSetIrqs(_));
        if !fds.is_empty() && !takes_fds {
            return Err(Errno::INVAL);
        }
        match request {
            // The client sends this once only, and never again.
            Request::Version(_) => Err(Errno::INVAL),
            Request::DmaMap(map) => self.dma_map(&map, fds),
            Request::DmaUnmap(unmap) => self.dma_unmap(unmap, answer),
            Request::DeviceGetInfo(info) => attached.device_info(info, answer),
            Request::DeviceGetRegionInfo(info) => self.region_info(attached, info, answer),
            Request::DeviceGetRegionIoFds(request) => {
                self.region_io_fds(attached, &request, answer)
            }
            Request::DeviceGetIrqInfo(info) => attached.irq_info(info, answer),
            Request::DeviceSetIrqs(set) => {
                self.device.set_irqs(attached.parse_set_irqs(&set, fds)?)
            }
            Request::RegionRead(access) => self.region_read(attached, access, answer),
            Request::RegionWrite { access, data } => {
                self.region_write(attached, access, data)?;
                Reply::RegionWrite(access).encode(&mut answer.bytes);
                Ok(())
            }
            Request::RegionWriteMulti(writes) => {
                let count = self.region_write_multi(attached, &writes)?;
                Reply::RegionWriteMulti { count }.encode(&mut answer.bytes);
                Ok(())
            }
            Request::DeviceReset if attached.info.resettable => self.device.reset(),
            Request::DeviceReset => Err(Errno::OPNOTSUPP),
            // Linux answers the same for a feature it does not know: clients take it for "no
            // migration", not for a failure.
            Request::NotServed(Command::DeviceFeature) => Err(Errno::NOTTY),
            Request::NotServed(_) => Err(Errno::OPNOTSUPP),
        }
    }

    fn dma_map(&self, map: &DmaMapRequest, mut fds: Vec<OwnedFd>) -> Result<(), Errno> {
        const KNOWN: u32 =
            spec::DMA_MAP_READ | spec::DMA_MAP_WRITE | spec::DMA_MAP_MMAP | spec::DMA_MAP_FILE_IO;
        let set = |flag| map.flags & flag != 0;
        let (readable, writable) = (set(spec::DMA_MAP_READ), set(spec::DMA_MAP_WRITE));
        if map.argsz < DmaMapRequest::SIZE || map.flags & !KNOWN != 0 || !(readable || writable) {
            return Err(Errno::INVAL);
        }
        if set(spec::DMA_MAP_FILE_IO) {
            return Err(Errno::OPNOTSUPP);
        }
        check_range(map.address, map.size)?;
        check_range(map.offset, map.size)?;
        let fd = fds.pop();
        if !fds.is_empty() || (fd.is_none() && set(spec::DMA_MAP_MMAP)) {
            return Err(Errno::INVAL);
        }
        let (iova, size) = (map.address, map.size);
        let memory = match fd {
            Some(fd) => DmaMemory::File { fd, offset: map.offset },
            None => DmaMemory::NotShared,
        };
        self.device.dma_map(DmaMap { iova, size, readable, writable, memory })
    }

    fn dma_unmap(&self, unmap: DmaUnmapRequest, answer: &mut Answer) -> Result<(), Errno> {
        if unmap.flags & spec::DMA_UNMAP_GET_DIRTY_BITMAP != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        if unmap.argsz < DmaUnmapRequest::SIZE || unmap.flags & !spec::DMA_UNMAP_ALL != 0 {
            return Err(Errno::INVAL);
        }
        if unmap.flags & spec::DMA_UNMAP_ALL == 0 {
            check_range(unmap.address, unmap.size)?;
            self.device.dma_unmap(unmap.address, unmap.size)?;
        } else if unmap.address == 0 && unmap.size == 0 {
            self.device.dma_unmap_all()?;
        } else {
            return Err(Errno::INVAL);
        }
        Reply::DmaUnmap(unmap).encode(&mut answer.bytes);
        Ok(())
    }

    /// Checks an access against the region; `permitted` says whether its direction is allowed.
    fn check_access(
        &self,
        attached: &Attached,
        access: &RegionAccess,
        permitted: bool,
    ) -> Result<(), Errno> {
        let region = attached.region(access.region)?;
        let end = access.offset.checked_add(u64::from(access.count)).ok_or(Errno::INVAL)?;
        if !permitted || access.count > self.max_data_xfer_size || end > region.size {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    fn region_read(
        &self,
        attached: &Attached,
        access: RegionAccess,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        self.check_access(attached, &access, attached.region(access.region)?.readable)?;
        Reply::RegionRead { access, data: &[] }.encode(&mut answer.bytes);
        let start = answer.bytes.len();
        answer.bytes.resize(start + access.count as usize, 0);
        match answer.bytes.get_mut(start..) {
            None | Some([]) => Ok(()),
            Some(data) => self.device.region_read(access.region, access.offset, data),
        }
    }

    fn region_write(
        &self,
        attached: &Attached,
        access: RegionAccess,
        data: &[u8],
    ) -> Result<(), Errno> {
        self.check_access(attached, &access, attached.region(access.region)?.writable)?;
        if data.is_empty() {
            return Ok(());
        }
        self.device.region_write(access.region, access.offset, data)
    }

    /// Does the writes up to the first that fails, and appends how many were done. It is an error
    /// only if none was.
    fn region_write_multi(&self, attached: &Attached, writes: &[SmallWrite]) -> Result<u64, Errno> {
        if !attached.write_multiple {
            return Err(Errno::OPNOTSUPP);
        }
        let mut done = 0;
        for write in writes {
            match self.region_write(attached, write.access, write.bytes()) {
                Ok(()) => done += 1,
                Err(errno) if done == 0 => return Err(errno),
                Err(errno) => {
                    tracing::debug!(done, of = writes.len(), %errno, "multiple write cut short");
                    break;
                }
            }
        }
        Ok(done)
    }
}

/// Checks that a range is not empty and its last byte has an address.
fn check_range(first: u64, size: u64) -> Result<(), Errno> {
    let last = size.checked_sub(1).and_then(|rest| first.checked_add(rest));
    last.map(drop).ok_or(Errno::INVAL)
}
