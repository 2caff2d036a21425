//! This module uses the rust-vmm project's vfio-user client as a [`Transport`]; the parent module
//! says what it cannot do.

use super::spec::irq_set;
use super::transport::{DmaMap, Region, Transport};
use crate::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// Number of descriptors per `SET_IRQS`: this client does not tell what the server takes.
const FDS_PER_MESSAGE: usize = 8;

/// A connection through `vfio_user::Client`.
pub struct Independent(vfio_user::Client);

impl std::fmt::Debug for Independent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Independent(vfio_user::Client)")
    }
}

impl Independent {
    /// Connects, negotiates, and asks for the regions. Waits for answers as long as it takes.
    pub fn connect(path: &Path) -> Result<Self> {
        match vfio_user::Client::new(path) {
            Ok(client) => Ok(Self(client)),
            Err(vfio_user::Error::Connect(source)) => {
                Err(Error::Connect { path: path.to_owned(), source })
            }
            Err(source) => Err(Error::Independent { command: "connecting", source }),
        }
    }
}

fn failed(command: &'static str) -> impl FnOnce(vfio_user::Error) -> Error {
    move |source| Error::Independent { command, source }
}

impl Transport for Independent {
    fn region(&self, index: u32) -> Option<Region> {
        self.0.region(index).map(|r| Region { size: r.size, flags: r.flags })
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        self.0.region_read(region, offset, data).map_err(failed("VFIO_USER_REGION_READ"))
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        self.0.region_write(region, offset, data).map_err(failed("VFIO_USER_REGION_WRITE"))
    }

    fn dma_map(&mut self, map: &DmaMap, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let fd = fd.ok_or(Error::Unsupported("DMA by messages"))?;
        if !(map.readable && map.writable) {
            return Err(Error::Unsupported("mappings that are not both readable and writable"));
        }
        self.0
            .dma_map(map.offset, map.iova, map.size, fd.as_raw_fd())
            .map_err(failed("VFIO_USER_DMA_MAP"))
    }

    fn dma_unmap(&mut self, iova: u64, size: u64) -> Result<()> {
        self.0.dma_unmap(iova, size).map_err(failed("VFIO_USER_DMA_UNMAP"))
    }

    fn irq_count(&mut self, index: u32) -> Result<u32> {
        let info = self.0.get_irq_info(index).map_err(failed("VFIO_USER_DEVICE_GET_IRQ_INFO"))?;
        Ok(info.count)
    }

    fn set_irq_eventfds(&mut self, index: u32, start: u32, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let set_flags = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;
        let mut first = start;
        for part in fds.chunks(FDS_PER_MESSAGE) {
            let raw: Vec<_> = part.iter().map(AsRawFd::as_raw_fd).collect();
            let count = raw.len() as u32;
            self.0
                .set_irqs(index, set_flags, first, count, &raw)
                .map_err(failed("VFIO_USER_DEVICE_SET_IRQS"))?;
            first += count;
        }
        Ok(())
    }

    fn disable_irqs(&mut self, index: u32) -> Result<()> {
        self.0
            .set_irqs(index, irq_set::DATA_NONE | irq_set::ACTION_TRIGGER, 0, 0, &[])
            .map_err(failed("VFIO_USER_DEVICE_SET_IRQS"))
    }

    fn reset(&mut self) -> Result<()> {
        self.0.reset().map_err(failed("VFIO_USER_DEVICE_RESET"))
    }
}
