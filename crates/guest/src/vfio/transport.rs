//! This module says what [`Function`](super::Function) asks of a vfio-user client.

use crate::Result;
use serde::{Deserialize, Serialize};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The vfio-user client that the guest connects with; the module [`vfio`](super) says how they
/// differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// The guest uses this crate's own client, which has timeouts, posted doorbells, doorbell
    /// eventfds and memory without descriptors.
    #[default]
    Own,
    /// The guest uses the rust-vmm project's `vfio_user::Client`: written by others, so a check on
    /// the server.
    RustVmm,
}

/// The way in which the device can or cannot reach guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DmaMode {
    /// The memory's file descriptor goes with `VFIO_USER_DMA_MAP`; the device maps it.
    #[default]
    Shared,
    /// The memory is mapped without a descriptor, so that every access by the device is a fault.
    NotShared,
}

/// A region of a function: a BAR or configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Size in bytes; 0 where the function has no such region.
    pub size: u64,
    /// `VFIO_REGION_INFO_FLAG_*`: 1 read, 2 write, 4 mmap, 8 capabilities.
    pub flags: u32,
}

/// A mapping of guest memory for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaMap {
    /// IOVA of the mapping.
    pub iova: u64,
    /// Length in bytes.
    pub size: u64,
    /// Offset in bytes into the file.
    pub offset: u64,
    /// True if the device may read.
    pub readable: bool,
    /// True if the device may write.
    pub writable: bool,
}

/// An eventfd that stands for a write to a doorbell.
#[derive(Debug, Clone)]
pub struct Doorbell {
    /// Offset in bytes into the region.
    pub offset: u64,
    /// Width in bytes of the write that it stands for; 0 for any.
    pub size: u64,
    /// Value that it stands for, where it does not stand for all.
    pub value: Option<u64>,
    /// The eventfd.
    pub fd: Arc<OwnedFd>,
}

/// A vfio-user client's operations. Offsets and sizes are in bytes; every call may fail with
/// whatever the server answers.
pub trait Transport: Send {
    /// Returns what the server says of a region, or `None` if it has none of that index.
    fn region(&self, index: u32) -> Option<Region>;

    /// Reads a region.
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()>;

    /// Writes a region and waits for the answer.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()>;

    /// Writes a region without waiting, where the client can.
    fn region_post(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        self.region_write(region, offset, data)
    }

    /// Returns the doorbells that the server takes as eventfds. There are none where
    /// client or server cannot do it.
    fn doorbells(&mut self, region: u32) -> Result<Vec<Doorbell>> {
        let _ = region;
        Ok(Vec::new())
    }

    /// Maps memory. Without a descriptor the device cannot reach it.
    fn dma_map(&mut self, map: &DmaMap, fd: Option<BorrowedFd<'_>>) -> Result<()>;

    /// Unmaps memory; on return the device does not touch it any more.
    fn dma_unmap(&mut self, iova: u64, size: u64) -> Result<()>;

    /// Returns how many interrupts of a kind the function has.
    fn irq_count(&mut self, index: u32) -> Result<u32>;

    /// Has interrupts `start..` of a kind signal these eventfds.
    fn set_irq_eventfds(&mut self, index: u32, start: u32, fds: &[BorrowedFd<'_>]) -> Result<()>;

    /// Takes all eventfds of a kind away.
    fn disable_irqs(&mut self, index: u32) -> Result<()>;

    /// Sends `VFIO_USER_DEVICE_RESET`.
    fn reset(&mut self) -> Result<()>;

    /// Returns a descriptor that becomes readable when the server goes away; then [`Self::service`]
    /// is to be called.
    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Checks without waiting that the server is still there.
    ///
    /// # Errors
    /// [`Error::Disconnected`](crate::Error::Disconnected) if it went away.
    fn service(&mut self) -> Result<()> {
        Ok(())
    }
}
