//! A driver's side of virtqueues, for tests, fuzz targets and timing examples; nothing here runs in an adapter.
//!
//! It writes what it is told, right or wrong, and trusts the device as little as the device trusts it.

pub mod packed;

use std::io;
use std::sync::Arc;

use manifold_dma::testing::GuestMemory;
use manifold_dma::{Domain, PAGE_SIZE, Permissions, Reader};

use super::{QueueAddresses, RingFeatures};

/// Where the descriptor table of [`Driver::new`] begins; the rings follow on pages of their own.
const DESCRIPTORS: u64 = 0x1_0000;

/// VIRTQ_DESC_F_NEXT.
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT.
pub const INDIRECT: u16 = 4;

/// One descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// IOVA of the buffer.
    pub iova: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// As it is in memory.
    pub fn to_bytes(self) -> [u8; 16] {
        let Descriptor { iova, len, flags, next } = self;
        let whole = u128::from(iova)
            | u128::from(len) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        whole.to_le_bytes()
    }
}

/// A driver, its guest's memory and the domain that shows it to the device.
#[derive(Debug)]
pub struct Driver {
    /// The function's domain; Bus Master Enable is set.
    pub domain: Arc<Domain>,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Where the rings are.
    pub addresses: QueueAddresses,
    /// What the driver accepted.
    pub features: RingFeatures,
    /// File offset of each page of IOVAs, `None` where nothing is mapped.
    pages: Vec<Option<u64>>,
    next_avail: u16,
    last_used: u16,
}

impl Driver {
    /// A queue of `size` descriptors in 1 MiB of memory, mapped one to one. Buffers are best put from 80000h on.
    ///
    /// # Errors
    /// The system's.
    pub fn new(size: u16, features: RingFeatures) -> io::Result<Self> {
        let pages: Vec<Option<u64>> = (0..256).map(|page| Some(page * PAGE_SIZE)).collect();
        let bytes = u64::from(size) * 16;
        let driver = (DESCRIPTORS + bytes).next_multiple_of(PAGE_SIZE);
        let device = (driver + 6 + 2 * u64::from(size)).next_multiple_of(PAGE_SIZE);
        let addresses = QueueAddresses { size, descriptors: DESCRIPTORS, driver, device };
        Self::at(addresses, features, &pages, Permissions::READ_WRITE)
    }

    /// A queue at `addresses`; page n of IOVAs is mapped to the file offset in `pages[n]`.
    ///
    /// # Errors
    /// The system's; addresses outside of the memory.
    pub fn at(
        addresses: QueueAddresses,
        features: RingFeatures,
        pages: &[Option<u64>],
        permissions: Permissions,
    ) -> io::Result<Self> {
        let end = pages.iter().flatten().max().map_or(0, |last| last + PAGE_SIZE);
        let memory = GuestMemory::new("ring", end)?;
        let domain = Domain::new("ring");
        domain.set_bus_master(true);
        let mut page = 0;
        while let Some(rest) = pages.get(page..).filter(|rest| !rest.is_empty()) {
            // Pages in a row that follow each other in the file, too, are one mapping, as a VMM would make it.
            let Some(offset) = rest.first().copied().flatten() else {
                page += 1;
                continue;
            };
            let expected = |n: usize| Some(offset + n as u64 * PAGE_SIZE);
            let run = rest.iter().enumerate().take_while(|(n, at)| **at == expected(*n)).count();
            let (iova, len) = (page as u64 * PAGE_SIZE, run as u64 * PAGE_SIZE);
            domain
                .map(iova, len, permissions, memory.backing(offset)?)
                .map_err(io::Error::other)?;
            page += run;
        }
        let pages = pages.to_vec();
        Ok(Driver { domain, memory, addresses, features, pages, next_avail: 0, last_used: 0 })
    }

    /// A translator for the device's side.
    pub fn reader(&self) -> Reader {
        self.domain.reader()
    }

    fn offset(&self, iova: u64) -> io::Result<u64> {
        let page = usize::try_from(iova / PAGE_SIZE).ok().and_then(|page| self.pages.get(page));
        let page = page.copied().flatten().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(page + iova % PAGE_SIZE)
    }

    /// Writes guest memory at `iova`.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn put(&self, iova: u64, data: &[u8]) -> io::Result<()> {
        let mut at = iova;
        let mut data = data;
        while !data.is_empty() {
            let room = (PAGE_SIZE - at % PAGE_SIZE) as usize;
            let (now, later) = data.split_at(room.min(data.len()));
            self.memory.write(self.offset(at)?, now)?;
            at += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    /// Reads `N` bytes, at most a page, of guest memory at `iova`.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn get<const N: usize>(&self, iova: u64) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        let room = (PAGE_SIZE - iova % PAGE_SIZE) as usize;
        let (now, later) = out.split_at_mut(room.min(N));
        self.memory.read(self.offset(iova)?, now)?;
        if !later.is_empty() {
            self.memory.read(self.offset(iova + room as u64)?, later)?;
        }
        Ok(out)
    }

    fn word(&self, iova: u64) -> io::Result<u16> {
        Ok(u16::from_le_bytes(self.get(iova)?))
    }

    /// Writes a descriptor of the queue's table.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn descriptor(&self, index: u16, descriptor: Descriptor) -> io::Result<()> {
        self.put(self.addresses.descriptors + 16 * u64::from(index), &descriptor.to_bytes())
    }

    /// Makes the chain at `head` available.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn offer(&mut self, head: u16) -> io::Result<()> {
        let slot = u64::from(self.next_avail % self.addresses.size);
        self.put(self.addresses.driver + 4 + 2 * slot, &head.to_le_bytes())?;
        self.next_avail = self.next_avail.wrapping_add(1);
        self.put(self.addresses.driver + 2, &self.next_avail.to_le_bytes())
    }

    /// Writes the available index, whatever it was.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn set_available(&mut self, index: u16) -> io::Result<()> {
        self.next_avail = index;
        self.put(self.addresses.driver + 2, &index.to_le_bytes())
    }

    /// Takes what the device has used: head and length of each.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn used(&mut self) -> io::Result<Vec<(u32, u32)>> {
        let index = self.word(self.addresses.device + 2)?;
        let mut used = Vec::new();
        while self.last_used != index {
            let slot = u64::from(self.last_used % self.addresses.size);
            let element = u64::from_le_bytes(self.get(self.addresses.device + 4 + 8 * slot)?);
            used.push((element as u32, (element >> 32) as u32));
            self.last_used = self.last_used.wrapping_add(1);
        }
        Ok(used)
    }

    /// The used index.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn used_index(&self) -> io::Result<u16> {
        self.word(self.addresses.device + 2)
    }

    /// Writes the available ring's flags.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn set_flags(&self, flags: u16) -> io::Result<()> {
        self.put(self.addresses.driver, &flags.to_le_bytes())
    }

    /// Writes `used_event`.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn set_used_event(&self, index: u16) -> io::Result<()> {
        let at = self.addresses.driver + 4 + 2 * u64::from(self.addresses.size);
        self.put(at, &index.to_le_bytes())
    }

    /// The used ring's flags.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn device_flags(&self) -> io::Result<u16> {
        self.word(self.addresses.device)
    }

    /// `avail_event`.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn avail_event(&self) -> io::Result<u16> {
        self.word(self.addresses.device + 4 + 8 * u64::from(self.addresses.size))
    }
}
