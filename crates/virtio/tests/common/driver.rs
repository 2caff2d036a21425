//! This module takes the driver's steps in the order in which Linux's virtio_pci_modern and
//! virtio_net take them.

use manifold_virtio::spec::net::ctrl;
use manifold_virtio::spec::pci::common;
use manifold_virtio::spec::status;

pub use manifold_testing::{Descriptor, INDIRECT, NEXT, WRITE};
use manifold_testing::{Memory as _, SplitRing};
use manifold_virtio::ring::QueueAddresses;

use super::{Memory, Rig};

/// Resets, acknowledges and negotiates; returns whether the device keeps FEATURES_OK.
pub fn drive_to_features_ok(rig: &mut Rig, features: u64) -> bool {
    rig.write8(common::DEVICE_STATUS, 0);
    assert_eq!(rig.status(), 0, "reset is done at once");
    rig.add_status(status::ACKNOWLEDGE);
    rig.add_status(status::DRIVER);
    rig.choose(features);
    rig.add_status(status::FEATURES_OK);
    rig.status() & status::FEATURES_OK != 0
}

/// A split virtqueue in guest memory, driver side.
#[derive(Clone, Copy, Debug)]
pub struct QueueMemory {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl QueueMemory {
    pub fn new(memory: &mut Memory, size: u16) -> Self {
        let descriptors = memory.allocate(16 * u64::from(size));
        let available = memory.allocate(6 + 2 * u64::from(size));
        let used = memory.allocate(6 + 8 * u64::from(size));
        // The memory may have been another queue's.
        memory.write(available, &vec![0; 6 + 2 * usize::from(size)]);
        memory.write(used, &vec![0; 6 + 8 * usize::from(size)]);
        QueueMemory { size, descriptors, available, used }
    }

    /// Configures the queue as vp_active_vq does: select, size, addresses. The queue is not enabled
    /// yet.
    pub fn configure(&self, rig: &mut Rig, index: u16) {
        rig.select(index);
        rig.write16(common::QUEUE_SIZE, self.size);
        assert_eq!(rig.read16(common::QUEUE_SIZE), self.size);
        rig.write64(common::QUEUE_DESC, self.descriptors);
        rig.write64(common::QUEUE_DRIVER, self.available);
        rig.write64(common::QUEUE_DEVICE, self.used);
    }

    fn ring(&self, memory: &Memory) -> SplitRing {
        let QueueMemory { size, descriptors, available: driver, used: device } = *self;
        SplitRing::found(memory, QueueAddresses { size, descriptors, driver, device })
    }

    pub fn descriptor(&self, memory: &Memory, index: u16, entry: (u64, u32, u16, u16)) {
        self.ring(memory).descriptor(memory, index, descriptor(entry));
    }

    /// Makes the chain that begins at `head` available.
    pub fn offer(&self, memory: &Memory, head: u16) {
        self.ring(memory).offer(memory, head);
    }

    pub fn used_index(&self, memory: &Memory) -> u16 {
        self.ring(memory).used_index(memory)
    }

    /// Returns head and written length of the used element of this number.
    pub fn used_element(&self, memory: &Memory, number: u16) -> (u32, u32) {
        self.ring(memory).used_element(memory, number)
    }
}

fn descriptor((iova, len, flags, next): (u64, u32, u16, u16)) -> Descriptor {
    Descriptor { iova, len, flags, next }
}

pub fn write_descriptor(memory: &Memory, at: u64, entry: (u64, u32, u16, u16)) {
    memory.put(at, &descriptor(entry).to_bytes());
}

/// The control queue with a buffer for one command.
pub struct Control {
    pub queue: QueueMemory,
    pub index: u16,
    pub buffer: u64,
    pub indirect: bool,
    pub event_index: bool,
}

pub const BUFFER_SIZE: u64 = 0x2_0000;

impl Control {
    pub fn new(rig: &mut Rig, index: u16) -> Self {
        let queue = QueueMemory::new(&mut rig.memory, 64);
        let buffer = rig.memory.allocate(BUFFER_SIZE);
        queue.configure(rig, index);
        Control { queue, index, buffer, indirect: false, event_index: false }
    }

    /// Returns the control queue of a driver which has none.
    pub fn nowhere() -> Self {
        let queue = QueueMemory { size: 0, descriptors: 0, available: 0, used: 0 };
        Control { queue, index: 0, buffer: 0, indirect: false, event_index: false }
    }

    /// Sends a command as virtnet_send_command does: header, data, acknowledgement, one descriptor
    /// each. Returns the acknowledgement, or `None` when the device used nothing.
    pub fn send(&self, rig: &mut Rig, class: u8, command: u8, data: &[u8]) -> Option<u8> {
        self.request(rig, class, command, data, 0).map(|(ack, _)| ack)
    }

    /// Sends a command as virtnet_send_command_reply does, with a buffer of `room` bytes for a
    /// result. Returns what of it was written.
    pub fn request(
        &self,
        rig: &mut Rig,
        class: u8,
        command: u8,
        data: &[u8],
        room: u32,
    ) -> Option<(u8, Vec<u8>)> {
        let used = self.queue.used_index(&rig.memory);
        self.offer_with_room(rig, class, command, data, room);
        rig.ring_doorbell(self.index);
        let now = self.queue.used_index(&rig.memory);
        if now == used {
            return None;
        }
        assert_eq!(now, used.wrapping_add(1), "one command, one used element");
        let (head, written) = self.queue.used_element(&rig.memory, used);
        assert_eq!(head, 0);
        assert!((1..=1 + room).contains(&written), "{written} bytes written");
        let ack = u8::from_le_bytes(rig.memory.read(self.ack()));
        assert!(ack == 0 || written == 1, "nothing but the acknowledgement of what is refused");
        let bytes = rig.memory.read_vec(self.result(), room as usize);
        let (result, rest) = bytes.split_at(written as usize - 1);
        assert!(rest.iter().all(|byte| *byte == 0xee), "the rest is as it was");
        Some((ack, result.to_vec()))
    }

    pub fn ack(&self) -> u64 {
        self.buffer + BUFFER_SIZE - 1
    }

    /// Returns where results go: the second half of the buffer, which only the longest commands
    /// reach.
    pub fn result(&self) -> u64 {
        self.buffer + BUFFER_SIZE / 2
    }

    /// Makes a command available without telling the device.
    pub fn offer(&self, rig: &mut Rig, class: u8, command: u8, data: &[u8]) {
        self.offer_with_room(rig, class, command, data, 0);
    }

    fn offer_with_room(&self, rig: &mut Rig, class: u8, command: u8, data: &[u8], room: u32) {
        let memory = &rig.memory;
        memory.write(self.result(), &vec![0xee; room as usize]);
        memory.write(self.buffer, &[class, command]);
        memory.write(self.buffer + 2, data);
        memory.write(self.ack(), &[0xee]);
        if self.event_index {
            // The driver wants an interrupt for the next used element.
            self.queue.ring(memory).set_used_event(memory, self.queue.used_index(memory));
        }
        let mut entries = vec![(self.buffer, 2, 0)];
        if !data.is_empty() {
            entries.push((self.buffer + 2, data.len() as u32, 0));
        }
        entries.push((self.ack(), 1, WRITE));
        if room != 0 {
            entries.push((self.result(), room, WRITE));
        }
        let last = entries.len() - 1;
        let entries = (0..).zip(entries).map(|(at, (address, len, flags))| {
            let next = if usize::from(at) < last { NEXT } else { 0 };
            (address, len, flags | next, at + 1)
        });
        if self.indirect {
            let table = self.queue.descriptors + 0x200;
            let len = 16 * (last as u32 + 1);
            for (at, entry) in (0..).zip(entries) {
                write_descriptor(memory, table + 16 * at, entry);
            }
            self.queue.descriptor(memory, 0, (table, len, INDIRECT, 0));
        } else {
            for (at, entry) in (0..).zip(entries) {
                self.queue.descriptor(memory, at, entry);
            }
        }
        self.queue.offer(memory, 0);
    }

    /// Sends a command that must succeed.
    pub fn ok(&self, rig: &mut Rig, class: u8, command: u8, data: &[u8]) {
        assert_eq!(
            self.send(rig, class, command, data),
            Some(ctrl::OK),
            "{class}.{command} {data:02x?}"
        );
    }

    /// Sends a command that must be refused.
    pub fn refused(&self, rig: &mut Rig, class: u8, command: u8, data: &[u8]) {
        assert_eq!(
            self.send(rig, class, command, data),
            Some(ctrl::ERR),
            "{class}.{command} {data:02x?}"
        );
    }

    /// Sends a command that must succeed, with a result of at most `room` bytes.
    pub fn get(&self, rig: &mut Rig, class: u8, command: u8, data: &[u8], room: u32) -> Vec<u8> {
        let (ack, result) = self.request(rig, class, command, data, room).unwrap();
        assert_eq!(ack, ctrl::OK, "{class}.{command} {data:02x?}");
        result
    }
}
