//! This module is the driver side of a packed virtqueue in guest memory (2.8).

use manifold_testing::{Descriptor, INDIRECT, Memory as _, PackedRing};
use manifold_virtio::ring::QueueAddresses;
use manifold_virtio::spec::pci::common;

use super::{Memory, Rig};

#[derive(Debug)]
pub struct PackedMemory {
    pub size: u16,
    pub ring: u64,
    pub driver: u64,
    pub device: u64,
    table: u64,
    packed: PackedRing,
}

impl PackedMemory {
    pub fn new(memory: &mut Memory, size: u16) -> Self {
        let ring = memory.allocate(16 * u64::from(size));
        let area = memory.allocate(8);
        let table = memory.allocate(0x1000);
        memory.write(ring, &vec![0; 16 * usize::from(size)]);
        memory.write(area, &[0; 8]);
        let (driver, device) = (area, area + 4);
        let addresses = QueueAddresses { size, descriptors: ring, driver, device };
        // The device uses chains in order here, each with a used descriptor of its own.
        let packed = PackedRing::new(addresses, false);
        PackedMemory { size, ring, driver, device, table, packed }
    }

    /// Configures the queue as vp_active_vq does: select, size, addresses. The queue is not enabled
    /// yet.
    pub fn configure(&self, rig: &mut Rig, index: u16) {
        rig.select(index);
        rig.write16(common::QUEUE_SIZE, self.size);
        assert_eq!(rig.read16(common::QUEUE_SIZE), self.size);
        rig.write64(common::QUEUE_DESC, self.ring);
        rig.write64(common::QUEUE_DRIVER, self.driver);
        rig.write64(common::QUEUE_DEVICE, self.device);
    }

    /// Makes a chain of `(address, length, flags)` available, directly or as an indirect table.
    pub fn offer(&mut self, memory: &Memory, id: u16, entries: &[(u64, u32, u16)], indirect: bool) {
        // NEXT and ID mean nothing in a table.
        let descriptor = |&(iova, len, flags)| Descriptor { iova, len, flags, next: 0x7777 };
        let chain: Vec<_> = entries.iter().map(descriptor).collect();
        if !indirect {
            return self.packed.offer_as(memory, id, &chain);
        }
        for (at, entry) in (0..).zip(&chain) {
            memory.put(self.table + 16 * at, &entry.to_packed_bytes());
        }
        let len = 16 * chain.len() as u32;
        let table = Descriptor { iova: self.table, len, flags: INDIRECT, next: 0 };
        self.packed.offer_as(memory, id, &[table]);
    }

    /// Returns ID and written length of the next chain that the device used. The device uses them
    /// in order.
    pub fn used(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        let expected = self.packed.offered.front().copied();
        let mut used = Vec::new();
        self.packed.take_used(memory, &mut used).then_some(())?;
        assert_eq!(Some(used[0].id), expected.map(|(id, _)| id), "in order");
        used[0].written.map(|written| (used[0].id, written))
    }
}
