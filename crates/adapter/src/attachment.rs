//! An attachment is a function on its vfio-user socket. It does what Linux's vfio-pci does for a
//! VMM that has the function passed through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_dma::{Backing, Error as DmaError, Permissions};
use manifold_pci::CONFIG_SIZE;
use manifold_vfio_user::{
    Device, DeviceInfo, Disconnect, DmaLimits, DmaMap, DmaMemory, Errno, IoFd, IrqAction, IrqData,
    IrqInfo, Peer, RegionInfo, SetIrqs, spec,
};
use rustix::fd::AsFd;

use crate::function::{Function, Holder, Requester};
use crate::info::{PeerInfo, Protocol};
use crate::interrupt::EventFd;
use crate::model::Doorbell;

/// One function as a vfio-user device.
pub(crate) struct Attachment {
    function: Arc<Function>,
    /// Set once a refused mapping of this VMM has been logged. It can make as many as it likes.
    is_refusal_logged: AtomicBool,
}

impl Attachment {
    pub(crate) fn new(function: Arc<Function>) -> Self {
        Attachment { function, is_refusal_logged: AtomicBool::new(false) }
    }

    fn bar_size(&self, region: u32) -> Option<u64> {
        let bar = self.function.spec.bars.get(usize::try_from(region).ok()?)?;
        bar.as_ref().map(|bar| bar.size)
    }

    /// Reports whether the function has ceased to exist. It answers as the bus does: with ones, and
    /// writes go nowhere.
    fn gone(&self) -> bool {
        !self.function.is_present()
    }
}

/// Returns the errno that VFIO gives for what cannot be mapped or unmapped.
fn errno(error: &DmaError) -> Errno {
    match error {
        DmaError::Overlap { .. } => Errno::EXIST,
        DmaError::TooMany(_) => Errno::NOSPC,
        DmaError::ReadOnlyFile => Errno::ACCESS,
        DmaError::Map(error) => Errno::from_io_error(error).unwrap_or(Errno::INVAL),
        _ => Errno::INVAL,
    }
}

impl Device for Attachment {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::pci()
    }

    fn region_info(&self, index: u32) -> Option<RegionInfo> {
        // Virtio-pci's BARs hold registers whose every access has an effect, and an MSI-X table
        // that the VMM emulates: there is nothing to map. Doorbells, the one hot register, are
        // eventfds (`region_io_fds`).
        if index == spec::PCI_CONFIG_REGION {
            return Some(RegionInfo::messages(CONFIG_SIZE as u64));
        }
        self.bar_size(index).map(RegionInfo::messages)
    }

    fn irq_info(&self, index: u32) -> Option<IrqInfo> {
        let vectors = u32::from(self.function.msix.vectors());
        (index == spec::PCI_MSIX_IRQ).then(|| IrqInfo::eventfds(vectors))
    }

    fn dma_limits(&self) -> DmaLimits {
        let max_maps = manifold_dma::Domain::MAX_MAPPINGS as u64;
        DmaLimits { max_maps, page_sizes: manifold_dma::PAGE_SIZE }
    }

    fn region_read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if self.gone() {
            data.fill(0xff);
        } else if region == spec::PCI_CONFIG_REGION {
            let offset = u16::try_from(offset).map_err(|_| Errno::INVAL)?;
            self.function.config_read(Requester::Vmm, offset, data);
        } else {
            let bar = u8::try_from(region).map_err(|_| Errno::INVAL)?;
            self.function.bar_read(bar, offset, data);
        }
        Ok(())
    }

    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if self.gone() {
            return Ok(());
        }
        if region == spec::PCI_CONFIG_REGION {
            let offset = u16::try_from(offset).map_err(|_| Errno::INVAL)?;
            // A VMM reaches nothing that concerns VFs, so there is nothing more to act on.
            let _ = self.function.config_write(Requester::Vmm, offset, data);
        } else {
            let bar = u8::try_from(region).map_err(|_| Errno::INVAL)?;
            self.function.bar_write(bar, offset, data);
        }
        Ok(())
    }

    fn region_io_fds(&self, region: u32) -> Result<Vec<IoFd>, Errno> {
        if self.gone() {
            return Ok(Vec::new());
        }
        let doorbells = self.function.doorbells.iter();
        let doorbells = doorbells.filter(|doorbell| u32::from(doorbell.bar) == region);
        let eventfd = |doorbell: &Doorbell| {
            let fd = doorbell.kick.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            Ok(IoFd { offset: doorbell.offset, size: 0, datamatch: None, fd: Arc::new(fd) })
        };
        doorbells.map(eventfd).collect()
    }

    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno> {
        if request.index != spec::PCI_MSIX_IRQ {
            // The other interrupt types have no interrupts; disabling none of them is fine.
            return if request.count == 0 { Ok(()) } else { Err(Errno::INVAL) };
        }
        let msix = &self.function.msix;
        let vector = |number: u32| {
            u16::try_from(number).ok().and_then(|number| msix.vector(number)).ok_or(Errno::INVAL)
        };
        if request.is_disable_all() {
            for number in 0..u32::from(msix.vectors()) {
                let vector = vector(number)?;
                vector.set_sink(None);
                vector.host_release();
            }
            return Ok(());
        }
        let range = request.start..request.start.saturating_add(request.count);
        let act = |number: u32| {
            let vector = vector(number)?;
            match request.action {
                IrqAction::Mask => vector.host_mask(),
                IrqAction::Unmask => vector.host_unmask(),
                IrqAction::Trigger => vector.raise(),
            }
            Ok(())
        };
        match request.data {
            IrqData::None => range.into_iter().try_for_each(act),
            IrqData::Bools(which) => range
                .zip(which)
                .filter(|(_, chosen)| *chosen)
                .try_for_each(|(number, _)| act(number)),
            IrqData::EventFds(fds) => {
                if request.action != IrqAction::Trigger {
                    return Err(Errno::INVAL);
                }
                for (number, fd) in range.zip(fds) {
                    let vector = vector(number)?;
                    match fd {
                        Some(fd) => {
                            let sink = EventFd::new(fd).map_err(|_| Errno::INVAL)?;
                            vector.set_sink(Some(Arc::new(sink)));
                            vector.host_unmask();
                        }
                        None => {
                            vector.set_sink(None);
                            vector.host_mask();
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn dma_map(&self, map: DmaMap) -> Result<(), Errno> {
        if self.gone() {
            return Err(Errno::NODEV);
        }
        let permissions = Permissions { read: map.readable, write: map.writable };
        let backing = match map.memory {
            DmaMemory::File { fd, offset } => Backing::File { fd, offset },
            DmaMemory::NotShared => Backing::NotShared,
        };
        self.function.domain.map(map.iova, map.size, permissions, backing).map_err(|error| {
            if !self.is_refusal_logged.swap(true, Ordering::Relaxed) {
                tracing::warn!(function = %self.function.id, %error, "DMA mapping refused");
            }
            errno(&error)
        })
    }

    fn dma_unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        match self.function.domain.unmap(iova, size) {
            Ok(0) => Err(Errno::NOENT),
            Ok(_) => Ok(()),
            Err(error) => Err(errno(&error)),
        }
    }

    fn dma_unmap_all(&self) -> Result<(), Errno> {
        self.function.domain.unmap_all();
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        if !self.gone() {
            self.function.reset_by_vmm();
        }
        Ok(())
    }

    fn attached(&self, peer: &Peer) -> Result<(), Errno> {
        if self.gone() {
            return Err(Errno::NODEV);
        }
        let info = PeerInfo::new(Protocol::VfioUser, peer.pid);
        let claim = self.function.claim(Holder { info, status: None }).map_err(|holder| {
            tracing::warn!(
                function = %self.function.id, pid = peer.pid, "VMM turned away: {holder}"
            );
            Errno::BUSY
        })?;
        self.function.take();
        self.is_refusal_logged.store(false, Ordering::Relaxed);
        claim.keep();
        Ok(())
    }

    fn detached(&self, _: &Disconnect) {
        let _claim = self.function.kept_claim();
        self.function.release();
    }
}
