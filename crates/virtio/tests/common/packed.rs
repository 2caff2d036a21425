//! A packed virtqueue in guest memory, driver side (2.8).

use manifold_virtio::spec::pci::common;

use super::driver::{INDIRECT, NEXT, WRITE};
use super::{Memory, Rig};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// An index in the ring and a wrap counter.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    const START: Place = Place { index: 0, wrap: true };

    fn advance(&mut self, count: u16, size: u16) {
        self.index += count;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }
}

#[derive(Debug)]
pub struct PackedMemory {
    pub size: u16,
    pub ring: u64,
    pub driver: u64,
    pub device: u64,
    table: u64,
    next: Place,
    used: Place,
    /// ID and number of descriptors of what the device has, in order.
    under_way: Vec<(u16, u16)>,
}

impl PackedMemory {
    pub fn new(memory: &mut Memory, size: u16) -> Self {
        let ring = memory.allocate(16 * u64::from(size));
        let area = memory.allocate(8);
        let table = memory.allocate(0x1000);
        memory.write(ring, &vec![0; 16 * usize::from(size)]);
        memory.write(area, &[0; 8]);
        let (next, used) = (Place::START, Place::START);
        let (driver, device, under_way) = (area, area + 4, Vec::new());
        PackedMemory { size, ring, driver, device, table, next, used, under_way }
    }

    /// vp_active_vq: select, size, addresses. The queue is not enabled yet.
    pub fn configure(&self, rig: &mut Rig, index: u16) {
        rig.select(index);
        rig.write16(common::QUEUE_SIZE, self.size);
        assert_eq!(rig.read16(common::QUEUE_SIZE), self.size);
        rig.write64(common::QUEUE_DESC, self.ring);
        rig.write64(common::QUEUE_DRIVER, self.driver);
        rig.write64(common::QUEUE_DEVICE, self.device);
    }

    fn write(&self, memory: &Memory, at: u64, (address, len): (u64, u32), id: u16, flags: u16) {
        memory.write(at, &address.to_le_bytes());
        memory.write(at + 8, &len.to_le_bytes());
        memory.write(at + 12, &id.to_le_bytes());
        memory.write(at + 14, &flags.to_le_bytes());
    }

    fn put(&mut self, memory: &Memory, id: u16, (address, len, flags): (u64, u32, u16)) {
        let Place { index, wrap } = self.next;
        let turn = if wrap { AVAIL } else { USED };
        let at = self.ring + 16 * u64::from(index);
        self.write(memory, at, (address, len), id, flags | turn);
        self.next.advance(1, self.size);
    }

    /// Makes a chain of `(address, length, flags)` available, directly or as an indirect table.
    pub fn offer(&mut self, memory: &Memory, id: u16, entries: &[(u64, u32, u16)], indirect: bool) {
        if indirect {
            for (at, (address, len, flags)) in (0..).zip(entries) {
                // NEXT and ID mean nothing in a table.
                self.write(memory, self.table + 16 * at, (*address, *len), 0x7777, *flags);
            }
            self.put(memory, id, (self.table, 16 * entries.len() as u32, INDIRECT));
        } else {
            let last = entries.len() - 1;
            for (at, (address, len, flags)) in entries.iter().enumerate() {
                let next = if at < last { NEXT } else { 0 };
                self.put(memory, id, (*address, *len, flags | next));
            }
        }
        let count = if indirect { 1 } else { entries.len() as u16 };
        self.under_way.push((id, count));
    }

    /// ID and written length of the next chain that the device used. The device uses them in order.
    pub fn used(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        let at = self.ring + 16 * u64::from(self.used.index);
        let flags = memory.read16(at + 14);
        let turn = if self.used.wrap { AVAIL | USED } else { 0 };
        if flags & (AVAIL | USED) != turn || self.under_way.is_empty() {
            return None;
        }
        let (id, len) = (memory.read16(at + 12), memory.read32(at + 8));
        let (expected, count) = self.under_way.remove(0);
        assert_eq!(id, expected, "in order");
        assert_eq!(flags & WRITE != 0, len != 0);
        self.used.advance(count, self.size);
        Some((id, len))
    }
}
