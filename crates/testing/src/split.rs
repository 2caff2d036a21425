//! This module is the driver's side of a split virtqueue (virtio 1.3, 2.7).

use std::sync::atomic::{Ordering, fence};

use manifold_virtio::ring::QueueAddresses;

use crate::memory::Memory;

/// Descriptor flag VIRTQ_DESC_F_NEXT.
pub const NEXT: u16 = 1;
/// Descriptor flag VIRTQ_DESC_F_WRITE.
pub const WRITE: u16 = 2;
/// Descriptor flag VIRTQ_DESC_F_INDIRECT.
pub const INDIRECT: u16 = 4;

/// One descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// IOVA of the buffer.
    pub iova: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// Flags: [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor; in a packed ring the buffer ID.
    pub next: u16,
}

impl Descriptor {
    /// Returns struct virtq_desc as it lies in memory.
    pub fn to_bytes(self) -> [u8; 16] {
        let Descriptor { iova, len, flags, next } = self;
        let whole = u128::from(iova)
            | u128::from(len) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        whole.to_le_bytes()
    }

    /// Returns struct pvirtq_desc as it lies in memory.
    pub fn to_packed_bytes(self) -> [u8; 16] {
        Descriptor { flags: self.next, next: self.flags, ..self }.to_bytes()
    }
}

/// A split ring with the driver's positions in it.
#[derive(Clone, Copy, Debug)]
pub struct SplitRing {
    /// Size and place of the three parts.
    pub addresses: QueueAddresses,
    /// Index of the next entry of the available ring to write.
    pub next_avail: u16,
    /// Index of the next entry of the used ring to read.
    pub last_used: u16,
}

impl SplitRing {
    /// Makes a ring at its beginning. Its memory must be zero.
    pub fn new(addresses: QueueAddresses) -> Self {
        SplitRing { addresses, next_avail: 0, last_used: 0 }
    }

    /// Makes a ring that goes on where the available ring in `memory` says.
    pub fn found(memory: &impl Memory, addresses: QueueAddresses) -> Self {
        let next_avail = memory.get16(addresses.driver + 2);
        SplitRing { addresses, next_avail, last_used: 0 }
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index % self.addresses.size)
    }

    /// Writes descriptor `index` of the table.
    pub fn descriptor(&self, memory: &impl Memory, index: u16, descriptor: Descriptor) {
        memory.put(self.addresses.descriptors + 16 * u64::from(index), &descriptor.to_bytes());
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, memory: &impl Memory, head: u16) {
        let slot = self.slot(self.next_avail);
        memory.put(self.addresses.driver + 4 + 2 * slot, &head.to_le_bytes());
        fence(Ordering::SeqCst);
        self.set_available(memory, self.next_avail.wrapping_add(1));
    }

    /// Writes the available index, whatever it was.
    pub fn set_available(&mut self, memory: &impl Memory, index: u16) {
        self.next_avail = index;
        memory.put(self.addresses.driver + 2, &index.to_le_bytes());
    }

    /// Returns the used index.
    pub fn used_index(&self, memory: &impl Memory) -> u16 {
        let index = memory.get16(self.addresses.device + 2);
        fence(Ordering::SeqCst);
        index
    }

    /// Returns how many used elements have not been taken.
    pub fn pending(&self, memory: &impl Memory) -> u16 {
        self.used_index(memory).wrapping_sub(self.last_used)
    }

    /// Returns head and written length of the used element of this number.
    pub fn used_element(&self, memory: &impl Memory, number: u16) -> (u32, u32) {
        let at = self.addresses.device + 4 + 8 * self.slot(number);
        let element = u64::from_le_bytes(memory.get(at));
        (element as u32, (element >> 32) as u32)
    }

    /// Takes the next chain that the device has used: head and written length.
    pub fn take_used(&mut self, memory: &impl Memory) -> Option<(u32, u32)> {
        if self.pending(memory) == 0 {
            return None;
        }
        let element = self.used_element(memory, self.last_used);
        self.last_used = self.last_used.wrapping_add(1);
        Some(element)
    }

    /// Writes the available ring's flags.
    pub fn set_flags(&self, memory: &impl Memory, flags: u16) {
        memory.put(self.addresses.driver, &flags.to_le_bytes());
    }

    /// Writes `used_event`.
    pub fn set_used_event(&self, memory: &impl Memory, index: u16) {
        let at = self.addresses.driver + 4 + 2 * u64::from(self.addresses.size);
        memory.put(at, &index.to_le_bytes());
    }

    /// Returns the used ring's flags.
    pub fn device_flags(&self, memory: &impl Memory) -> u16 {
        memory.get16(self.addresses.device)
    }

    /// Returns `avail_event`.
    pub fn avail_event(&self, memory: &impl Memory) -> u16 {
        memory.get16(self.addresses.device + 4 + 8 * u64::from(self.addresses.size))
    }
}
