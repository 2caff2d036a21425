//! This module is the driver's side of a packed virtqueue, written from the standard (virtio 1.3,
//! 2.8) and not from the device's side.

use std::collections::VecDeque;

use manifold_virtio::ring::QueueAddresses;

use crate::memory::Memory;
use crate::split::{Descriptor, INDIRECT, NEXT, WRITE};

/// Descriptor flag VIRTQ_DESC_F_AVAIL.
pub const AVAIL: u16 = 1 << 7;
/// Descriptor flag VIRTQ_DESC_F_USED.
pub const USED: u16 = 1 << 15;

/// Event suppression flag RING_EVENT_FLAGS_ENABLE.
pub const ENABLE: u16 = 0;
/// Event suppression flag RING_EVENT_FLAGS_DISABLE.
pub const DISABLE: u16 = 1;
/// Event suppression flag RING_EVENT_FLAGS_DESC.
pub const DESC: u16 = 2;

/// A place in the ring: an index and a wrap counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of a descriptor.
    pub index: u16,
    /// The wrap counter.
    pub wrap: bool,
}

impl From<u16> for Place {
    fn from(bits: u16) -> Self {
        Place { index: bits & 0x7fff, wrap: bits >> 15 != 0 }
    }
}

impl Place {
    /// Place at which a ring begins.
    pub const START: Place = Place { index: 0, wrap: true };

    /// Returns the place as vhost and event suppression areas write it.
    pub fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// Goes on by `count` descriptors.
    pub fn step(&mut self, count: u16, size: u16) {
        for _ in 0..count {
            self.index += 1;
            if self.index == size {
                self.index = 0;
                self.wrap = !self.wrap;
            }
        }
    }

    /// Returns AVAIL and USED of a descriptor that is available, or else used, here.
    pub fn flags(self, available: bool) -> u16 {
        match (self.wrap, available) {
            (true, true) => AVAIL,
            (false, true) => USED,
            (true, false) => AVAIL | USED,
            (false, false) => 0,
        }
    }
}

/// A buffer that the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedBuffer {
    /// ID of the buffer.
    pub id: u16,
    /// Number of bytes written; `None` where the device left the used descriptor out
    /// (VIRTIO_F_IN_ORDER).
    pub written: Option<u32>,
}

/// A packed ring with the driver's positions in it.
#[derive(Debug)]
pub struct PackedRing {
    /// Size and place of the three parts.
    pub addresses: QueueAddresses,
    /// True if VIRTIO_F_IN_ORDER was negotiated.
    pub in_order: bool,
    /// Place of the next available descriptor.
    pub next_avail: Place,
    /// Place of the next used descriptor.
    pub last_used: Place,
    /// Chains that were offered and not used: ID and number of descriptors, in order.
    pub offered: VecDeque<(u16, u16)>,
    next_id: u16,
}

impl PackedRing {
    /// Makes a ring at its beginning. Its memory must be zero.
    pub fn new(addresses: QueueAddresses, in_order: bool) -> Self {
        let (next_avail, last_used) = (Place::START, Place::START);
        let offered = VecDeque::new();
        PackedRing { addresses, in_order, next_avail, last_used, offered, next_id: 0 }
    }

    /// Begins somewhere else, with a ring that looks as if it had been used up to there.
    pub fn begin_at(&mut self, memory: &impl Memory, place: Place) {
        for index in 0..self.addresses.size {
            let lap =
                Place { index, wrap: if index < place.index { place.wrap } else { !place.wrap } };
            self.put_flags(memory, index, lap.flags(false));
        }
        (self.next_avail, self.last_used) = (place, place);
    }

    fn at(&self, index: u16) -> u64 {
        self.addresses.descriptors + 16 * u64::from(index)
    }

    fn put_flags(&self, memory: &impl Memory, index: u16, flags: u16) {
        memory.put(self.at(index) + 14, &flags.to_le_bytes());
    }

    /// Writes descriptor `index` of the ring, whatever it says.
    pub fn put_descriptor(&self, memory: &impl Memory, index: u16, descriptor: Descriptor) {
        memory.put(self.at(index), &descriptor.to_packed_bytes());
    }

    /// Returns how many descriptors are the driver's.
    pub fn free(&self) -> u16 {
        self.addresses.size - self.offered.iter().map(|(_, count)| count).sum::<u16>()
    }

    /// Makes a chain of these buffers available ([`NEXT`] is added, `next` ignored). Returns its
    /// ID, one that no offered chain has; `None` without room for it.
    pub fn offer(&mut self, memory: &impl Memory, buffers: &[Descriptor]) -> Option<u16> {
        if buffers.len() > usize::from(self.free()) {
            return None;
        }
        while self.offered.iter().any(|(id, _)| *id == self.next_id) {
            self.next_id = (self.next_id + 1) % self.addresses.size;
        }
        let id = self.next_id;
        self.next_id = (self.next_id + 1) % self.addresses.size;
        self.offer_as(memory, id, buffers);
        Some(id)
    }

    /// Makes a chain of these buffers available as buffer `id`.
    pub fn offer_as(&mut self, memory: &impl Memory, id: u16, buffers: &[Descriptor]) {
        let (size, count) = (self.addresses.size, buffers.len() as u16);
        let first = self.next_avail;
        let mut head = 0;
        let mut place = first;
        for (buffer, left) in buffers.iter().zip((0..count).rev()) {
            let more = if left > 0 { NEXT } else { 0 };
            let flags = buffer.flags & (WRITE | INDIRECT) | more | place.flags(true);
            // Only the last descriptor has the ID.
            let next = if left > 0 { 0xdead } else { id };
            let bytes = Descriptor { flags, next, ..*buffer }.to_packed_bytes();
            if place == first {
                // The flags of the first descriptor are written last.
                head = flags;
                memory.put(self.at(place.index), &bytes[..14]);
            } else {
                memory.put(self.at(place.index), &bytes);
            }
            place.step(1, size);
        }
        self.put_flags(memory, first.index, head);
        self.next_avail = place;
        self.offered.push_back((id, count));
    }

    /// Takes all that the device has used.
    pub fn used(&mut self, memory: &impl Memory) -> Vec<UsedBuffer> {
        let mut used = Vec::new();
        while self.take_used(memory, &mut used) {}
        used
    }

    /// Adds to `used` what the next used descriptor stands for; false if there is none.
    pub fn take_used(&mut self, memory: &impl Memory, used: &mut Vec<UsedBuffer>) -> bool {
        // The flags are read first, then the fields that they make valid.
        let flags = memory.get16(self.at(self.last_used.index) + 14);
        let rest = u64::from_le_bytes(memory.get(self.at(self.last_used.index) + 8));
        let (len, id) = (rest as u32, (rest >> 32) as u16);
        if flags & (AVAIL | USED) != self.last_used.flags(false) {
            return false;
        }
        let written = if flags & WRITE != 0 { len } else { 0 };
        assert_eq!(written, len, "a length without WRITE");
        let found = self.offered.iter().position(|(offered, _)| *offered == id);
        let found = found.unwrap_or_else(|| panic!("buffer {id} was never offered"));
        // With VIRTIO_F_IN_ORDER, all buffers before this one were used, too.
        let first = if self.in_order { 0 } else { found };
        for (id, count) in self.offered.drain(first..=found) {
            used.push(UsedBuffer { id, written: None });
            self.last_used.step(count, self.addresses.size);
        }
        used.last_mut().unwrap().written = Some(written);
        true
    }

    /// Says which interrupts the driver wants.
    pub fn set_event(&self, memory: &impl Memory, position: u16, flags: u16) {
        let bytes = u32::from(position) | u32::from(flags) << 16;
        memory.put(self.addresses.driver, &bytes.to_le_bytes());
    }

    /// Returns which notifications the device wants: position and flags.
    pub fn device_event(&self, memory: &impl Memory) -> (u16, u16) {
        let bytes = u32::from_le_bytes(memory.get(self.addresses.device));
        (bytes as u16, (bytes >> 16) as u16)
    }
}
