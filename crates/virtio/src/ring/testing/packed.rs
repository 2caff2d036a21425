//! A driver's side of a packed virtqueue, written from the standard (virtio 1.3, 2.8) and not from the device's side.

use std::collections::VecDeque;
use std::io;

use super::{Descriptor, Driver, INDIRECT, NEXT, WRITE};
use crate::ring::{QueueAddresses, RingFeatures};

/// VIRTQ_DESC_F_AVAIL.
pub const AVAIL: u16 = 1 << 7;
/// VIRTQ_DESC_F_USED.
pub const USED: u16 = 1 << 15;

/// RING_EVENT_FLAGS_ENABLE.
pub const ENABLE: u16 = 0;
/// RING_EVENT_FLAGS_DISABLE.
pub const DISABLE: u16 = 1;
/// RING_EVENT_FLAGS_DESC.
pub const DESC: u16 = 2;

/// A place in the ring: an index and which lap.
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
    /// As in a position of vhost and in an event suppression area.
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

    /// AVAIL and USED of a descriptor that is available, or used, here.
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
    /// Buffer ID.
    pub id: u16,
    /// Bytes written; `None` where the device left the used descriptor out (VIRTIO_F_IN_ORDER).
    pub written: Option<u32>,
}

/// A driver of a packed queue.
#[derive(Debug)]
pub struct PackedDriver {
    /// The guest's memory and the domain that shows it to the device.
    pub guest: Driver,
    /// Where the next available descriptor goes.
    pub next_avail: Place,
    /// Where the next used descriptor is looked for.
    pub last_used: Place,
    /// Offered and not used: ID and number of descriptors, in order.
    pub offered: VecDeque<(u16, u16)>,
    next_id: u16,
}

impl PackedDriver {
    /// A queue of `size` descriptors in 1 MiB of memory, mapped one to one. Buffers are best put from 80000h on.
    ///
    /// # Errors
    /// The system's.
    pub fn new(size: u16, features: RingFeatures) -> io::Result<Self> {
        Ok(Self::with(Driver::new(size, features)?))
    }

    /// A queue where `guest` has its addresses.
    pub fn with(guest: Driver) -> Self {
        let begin = Place { index: 0, wrap: true };
        PackedDriver {
            guest,
            next_avail: begin,
            last_used: begin,
            offered: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Begins somewhere else, with a ring that looks as if it had been used up to there.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn begin_at(&mut self, place: Place) -> io::Result<()> {
        for index in 0..self.size() {
            let lap =
                Place { index, wrap: if index < place.index { place.wrap } else { !place.wrap } };
            self.put_flags(index, lap.flags(false))?;
        }
        (self.next_avail, self.last_used) = (place, place);
        Ok(())
    }

    fn size(&self) -> u16 {
        self.guest.addresses.size
    }

    fn at(&self, index: u16) -> u64 {
        self.guest.addresses.descriptors + 16 * u64::from(index)
    }

    fn put_flags(&self, index: u16, flags: u16) -> io::Result<()> {
        self.guest.put(self.at(index) + 14, &flags.to_le_bytes())
    }

    /// Writes a descriptor of the ring, whatever it says. In [`Descriptor`], `next` is the buffer ID.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn put_descriptor(&self, index: u16, descriptor: Descriptor) -> io::Result<()> {
        self.guest.put(self.at(index), &packed_bytes(descriptor))
    }

    /// Descriptors that are the driver's.
    pub fn free(&self) -> u16 {
        self.size() - self.offered.iter().map(|(_, count)| count).sum::<u16>()
    }

    /// Makes a chain of these buffers available ([`NEXT`] is added, `next` ignored). The result is its ID.
    ///
    /// # Errors
    /// Without room for it; where nothing is mapped.
    pub fn offer(&mut self, buffers: &[Descriptor]) -> io::Result<u16> {
        let count = buffers.len() as u16;
        if count > self.free() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // One that no offered chain has.
        while self.offered.iter().any(|(id, _)| *id == self.next_id) {
            self.next_id = (self.next_id + 1) % self.size();
        }
        let id = self.next_id;
        self.next_id = (self.next_id + 1) % self.size();
        let first = self.next_avail;
        let mut head = 0;
        let mut place = first;
        for (buffer, left) in buffers.iter().zip((0..count).rev()) {
            let more = if left > 0 { NEXT } else { 0 };
            let flags = buffer.flags & (WRITE | INDIRECT) | more | place.flags(true);
            // The ID is in the last one only.
            let next = if left > 0 { 0xdead } else { id };
            let bytes = packed_bytes(Descriptor { flags, next, ..*buffer });
            if place == first {
                // Its flags are written last.
                head = flags;
                self.guest.put(self.at(place.index), &bytes[..14])?;
            } else {
                self.guest.put(self.at(place.index), &bytes)?;
            }
            place.step(1, self.size());
        }
        self.put_flags(first.index, head)?;
        self.next_avail = place;
        self.offered.push_back((id, count));
        Ok(id)
    }

    /// Takes what the device has used.
    ///
    /// # Errors
    /// A used descriptor that the driver cannot make sense of; where nothing is mapped.
    pub fn used(&mut self) -> io::Result<Vec<UsedBuffer>> {
        let mut used = Vec::new();
        loop {
            // First the flags, then what they vouch for.
            let flags = u16::from_le_bytes(self.guest.get(self.at(self.last_used.index) + 14)?);
            let rest = u64::from_le_bytes(self.guest.get(self.at(self.last_used.index) + 8)?);
            let (len, id) = (rest as u32, (rest >> 32) as u16);
            if flags & (AVAIL | USED) != self.last_used.flags(false) {
                return Ok(used);
            }
            let written = if flags & WRITE != 0 { len } else { 0 };
            let found = self.offered.iter().position(|(offered, _)| *offered == id);
            let found = found.ok_or_else(|| io::Error::other(format!("unknown ID {id}")))?;
            if self.guest.features.in_order {
                // All before it were used, too.
                for (id, count) in self.offered.drain(..found) {
                    used.push(UsedBuffer { id, written: None });
                    self.last_used.step(count, self.guest.addresses.size);
                }
                let count = self.offered.pop_front().map_or(0, |(_, count)| count);
                self.last_used.step(count, self.guest.addresses.size);
            } else {
                let count = self.offered.remove(found).map_or(0, |(_, count)| count);
                self.last_used.step(count, self.guest.addresses.size);
            }
            used.push(UsedBuffer { id, written: Some(written) });
        }
    }

    /// Says which interrupts the driver wants.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn set_event(&self, position: u16, flags: u16) -> io::Result<()> {
        let bytes = u32::from(position) | u32::from(flags) << 16;
        self.guest.put(self.guest.addresses.driver, &bytes.to_le_bytes())
    }

    /// Which notifications the device wants: position and flags.
    ///
    /// # Errors
    /// Where nothing is mapped.
    pub fn device_event(&self) -> io::Result<(u16, u16)> {
        let bytes = u32::from_le_bytes(self.guest.get(self.guest.addresses.device)?);
        Ok((bytes as u16, (bytes >> 16) as u16))
    }
}

/// struct pvirtq_desc in memory.
pub fn packed_bytes(descriptor: Descriptor) -> [u8; 16] {
    let Descriptor { iova, len, flags, next } = descriptor;
    let whole = u128::from(iova)
        | u128::from(len) << 64
        | u128::from(next) << 96
        | u128::from(flags) << 112;
    whole.to_le_bytes()
}

/// The addresses of [`Driver::new`], with all parts at the ends of pages that a smaller or badly aligned part would miss.
pub fn tight(size: u16) -> QueueAddresses {
    QueueAddresses { size, descriptors: 0x1_0ff0, driver: 0x2_0ffc, device: 0x3_0004 }
}
