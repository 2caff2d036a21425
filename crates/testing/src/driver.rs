//! This module puts a virtqueue into a guest of its own: what tests of rings alone need.

use std::ops::Deref;
use std::sync::Arc;

use manifold_dma::{Domain, PAGE_SIZE, Permissions, Reader};
use manifold_virtio::ring::{QueueAddresses, RingFeatures};

use crate::memory::{GuestMemory, Memory};
use crate::packed::{PackedRing, Place, UsedBuffer};
use crate::split::{Descriptor, SplitRing};

/// IOVA at which the descriptor table of [`Guest::new`] begins; the rings follow on pages of their
/// own.
const DESCRIPTORS: u64 = 0x1_0000;

/// A guest's memory, the domain that shows it to the device, and the place of one queue.
#[derive(Debug)]
pub struct Guest {
    /// DMA domain of the function; Bus Master Enable is set.
    pub domain: Arc<Domain>,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// IOVAs of the queue's parts.
    pub addresses: QueueAddresses,
    /// Features that the driver accepted.
    pub features: RingFeatures,
    /// File offset of each page of IOVAs, `None` where nothing is mapped.
    pages: Vec<Option<u64>>,
}

impl Guest {
    /// Makes a queue of `size` descriptors in 1 MiB of memory, mapped one to one. Buffers are best
    /// put from 80000h on.
    pub fn new(size: u16, features: RingFeatures) -> Self {
        let pages: Vec<Option<u64>> = (0..256).map(|page| Some(page * PAGE_SIZE)).collect();
        let bytes = u64::from(size) * 16;
        let driver = (DESCRIPTORS + bytes).next_multiple_of(PAGE_SIZE);
        let device = (driver + 6 + 2 * u64::from(size)).next_multiple_of(PAGE_SIZE);
        let addresses = QueueAddresses { size, descriptors: DESCRIPTORS, driver, device };
        Self::at(addresses, features, &pages, Permissions::READ_WRITE)
    }

    /// Makes a queue at `addresses`; page n of IOVAs is mapped to the file offset in `pages[n]`.
    pub fn at(
        addresses: QueueAddresses,
        features: RingFeatures,
        pages: &[Option<u64>],
        permissions: Permissions,
    ) -> Self {
        let end = pages.iter().flatten().max().map_or(0, |last| last + PAGE_SIZE);
        let memory = GuestMemory::new("ring", end).unwrap();
        let domain = Domain::new("ring");
        domain.set_bus_master(true);
        let mut page = 0;
        while let Some(rest) = pages.get(page..).filter(|rest| !rest.is_empty()) {
            // Pages in a row that also follow each other in the file are one mapping, as a VMM
            // would make it.
            let Some(offset) = rest.first().copied().flatten() else {
                page += 1;
                continue;
            };
            let expected = |n: usize| Some(offset + n as u64 * PAGE_SIZE);
            let run = rest.iter().enumerate().take_while(|(n, at)| **at == expected(*n)).count();
            let (iova, len) = (page as u64 * PAGE_SIZE, run as u64 * PAGE_SIZE);
            domain.map(iova, len, permissions, memory.backing(offset).unwrap()).unwrap();
            page += run;
        }
        Guest { domain, memory, addresses, features, pages: pages.to_vec() }
    }

    /// Returns a translator for the device's side.
    pub fn reader(&self) -> Reader {
        self.domain.reader()
    }

    /// Calls `each` with the file offset of every page that `len` bytes at `iova` touch, and the
    /// range of the bytes in it.
    fn pieces(&self, iova: u64, len: usize, mut each: impl FnMut(u64, std::ops::Range<usize>)) {
        let mut from = 0;
        while from < len {
            let at = iova + from as u64;
            let to = len.min(from + (PAGE_SIZE - at % PAGE_SIZE) as usize);
            let page = self.pages.get((at / PAGE_SIZE) as usize).copied().flatten();
            let page = page.unwrap_or_else(|| panic!("{at:#x} is not mapped"));
            each(page + at % PAGE_SIZE, from..to);
            from = to;
        }
    }
}

impl Memory for Guest {
    fn get_into(&self, iova: u64, out: &mut [u8]) {
        self.pieces(iova, out.len(), |at, range| self.memory.read(at, &mut out[range]).unwrap());
    }

    fn put(&self, iova: u64, data: &[u8]) {
        self.pieces(iova, data.len(), |at, range| self.memory.write(at, &data[range]).unwrap());
    }
}

/// A driver of a split queue in a guest of its own.
#[derive(Debug)]
pub struct Driver {
    guest: Guest,
    ring: SplitRing,
}

impl Deref for Driver {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

/// Each method calls the [`SplitRing`]'s of this name.
#[allow(missing_docs, reason = "documented in SplitRing")]
impl Driver {
    pub fn new(size: u16, features: RingFeatures) -> Self {
        Self::with(Guest::new(size, features))
    }

    pub fn with(guest: Guest) -> Self {
        Driver { ring: SplitRing::new(guest.addresses), guest }
    }

    pub fn descriptor(&self, index: u16, descriptor: Descriptor) {
        self.ring.descriptor(&self.guest, index, descriptor);
    }

    pub fn offer(&mut self, head: u16) {
        self.ring.offer(&self.guest, head);
    }

    pub fn set_available(&mut self, index: u16) {
        self.ring.set_available(&self.guest, index);
    }

    pub fn used(&mut self) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| self.ring.take_used(&self.guest)).collect()
    }

    pub fn used_index(&self) -> u16 {
        self.ring.used_index(&self.guest)
    }

    pub fn set_flags(&self, flags: u16) {
        self.ring.set_flags(&self.guest, flags);
    }

    pub fn set_used_event(&self, index: u16) {
        self.ring.set_used_event(&self.guest, index);
    }

    pub fn device_flags(&self) -> u16 {
        self.ring.device_flags(&self.guest)
    }

    pub fn avail_event(&self) -> u16 {
        self.ring.avail_event(&self.guest)
    }
}

/// A driver of a packed queue in a guest of its own.
#[derive(Debug)]
pub struct PackedDriver {
    /// The guest.
    pub guest: Guest,
    ring: PackedRing,
}

impl Deref for PackedDriver {
    type Target = PackedRing;

    fn deref(&self) -> &PackedRing {
        &self.ring
    }
}

/// Each method calls the [`PackedRing`]'s of this name.
#[allow(missing_docs, reason = "documented in PackedRing")]
impl PackedDriver {
    pub fn new(size: u16, features: RingFeatures) -> Self {
        Self::with(Guest::new(size, features))
    }

    pub fn with(guest: Guest) -> Self {
        PackedDriver { ring: PackedRing::new(guest.addresses, guest.features.in_order), guest }
    }

    pub fn begin_at(&mut self, place: Place) {
        self.ring.begin_at(&self.guest, place);
    }

    pub fn put_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.ring.put_descriptor(&self.guest, index, descriptor);
    }

    pub fn offer(&mut self, buffers: &[Descriptor]) -> Option<u16> {
        self.ring.offer(&self.guest, buffers)
    }

    pub fn used(&mut self) -> Vec<UsedBuffer> {
        self.ring.used(&self.guest)
    }

    pub fn set_event(&self, position: u16, flags: u16) {
        self.ring.set_event(&self.guest, position, flags);
    }

    pub fn device_event(&self) -> (u16, u16) {
        self.ring.device_event(&self.guest)
    }
}

/// Returns addresses for [`Guest::at`] with all parts of a packed queue at the ends of pages, which
/// a smaller or badly aligned part would miss.
pub fn tight(size: u16) -> QueueAddresses {
    QueueAddresses { size, descriptors: 0x1_0ff0, driver: 0x2_0ffc, device: 0x3_0004 }
}
