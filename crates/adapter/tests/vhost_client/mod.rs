//! This module is a driver over vhost-user: split rings of 256 entries in one memfd, one buffer per
//! entry.

#![allow(dead_code, reason = "a module of several tests")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use manifold_testing::{Descriptor, Memory, SplitRing, WRITE};
use manifold_virtio::ring::QueueAddresses;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const SIZE: u16 = 256;
const BUFFER: u64 = 2048;
/// Length of the virtio-net header with num_buffers, in bytes.
const HEADER: usize = 12;
/// Guest address of the memory; the client maps it at another one, as any VMM does.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7000_0000_0000;
/// Size of one ring with its buffers, in bytes.
const RING: u64 = 1 << 20;
const RINGS: u64 = 8;
const F_VERSION_1: u64 = 1 << 32;
const F_PROTOCOL_FEATURES: u64 = 1 << 30;

pub(crate) struct Client {
    pub(crate) frontend: Frontend,
    file: File,
    memory: Mapping,
    rings: Vec<Ring>,
}

/// The guest's memory, mapped; its addresses begin at [`GUEST`].
struct Mapping(GuestMemoryMmap);

impl Memory for Mapping {
    fn get_into(&self, iova: u64, out: &mut [u8]) {
        self.0.read_slice(out, GuestAddress(iova)).unwrap();
    }

    fn put(&self, iova: u64, data: &[u8]) {
        self.0.write_slice(data, GuestAddress(iova)).unwrap();
    }
}

struct Ring {
    kick: EventFd,
    call: EventFd,
    err: EventFd,
    split: SplitRing,
}

/// Returns a ring at its beginning.
fn beginning(ring: usize) -> SplitRing {
    let descriptors = GUEST + offset(ring);
    let (driver, device) = (descriptors + 0x1000, descriptors + 0x2000);
    SplitRing::new(QueueAddresses { size: SIZE, descriptors, driver, device })
}

fn negotiate(socket: &Path) -> Frontend {
    let mut frontend = connect(socket);
    let offered = frontend.get_features().unwrap();
    assert_ne!(offered & F_VERSION_1, 0);
    frontend.set_owner().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    let wanted = protocol - VhostUserProtocolFeatures::STATUS;
    frontend.set_protocol_features(wanted).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_features(F_VERSION_1 | F_PROTOCOL_FEATURES).unwrap();
    frontend
}

/// Connects a client that has said nothing yet.
pub(crate) fn connect(socket: &Path) -> Frontend {
    Frontend::connect(socket, RINGS).unwrap()
}

impl Client {
    /// Connects, negotiates and shares memory.
    pub(crate) fn attach(socket: &Path) -> Self {
        let frontend = negotiate(socket);
        let fd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, RING * RINGS).unwrap();
        let file = File::from(fd);
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let range = (GuestAddress(GUEST), (RING * RINGS) as usize, Some(offset));
        let memory = Mapping(GuestMemoryMmap::from_ranges_with_files([range]).unwrap());
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let rings = (0..RINGS)
            .map(|ring| Ring {
                kick: eventfd(),
                call: eventfd(),
                err: eventfd(),
                split: beginning(ring as usize),
            })
            .collect();
        let client = Self { frontend, file, memory, rings };
        client.share_memory();
        client
    }

    /// Connects anew, with the rings as they are.
    pub(crate) fn reattach(&mut self, socket: &Path) {
        self.frontend = negotiate(socket);
        self.share_memory();
    }

    /// Has what is in flight tracked in a new file.
    pub(crate) fn track(&mut self) -> (VhostUserInflight, File) {
        let asked = VhostUserInflight::new(0, 0, RINGS as u16, SIZE);
        self.frontend.get_inflight_fd(&asked).unwrap()
    }

    pub(crate) fn share_memory(&self) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST,
            memory_size: RING * RINGS,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).unwrap();
    }

    pub(crate) fn start_pair(&mut self, pair: usize) {
        for ring in [2 * pair, 2 * pair + 1] {
            let split = beginning(ring);
            self.memory.put(split.addresses.driver, &[0; 4]);
            self.memory.put(split.addresses.device, &[0; 4]);
            self.rings[ring].split = split;
        }
        self.resume_pair(pair, [0, 0]);
    }

    pub(crate) fn resume_pair(&mut self, pair: usize, bases: [u32; 2]) {
        for (ring, base) in [2 * pair, 2 * pair + 1].into_iter().zip(bases) {
            let user = USER + offset(ring);
            let addresses = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: user,
                avail_ring_addr: user + 0x1000,
                used_ring_addr: user + 0x2000,
                log_addr: None,
            };
            let state = &self.rings[ring];
            self.frontend.set_vring_num(ring, SIZE).unwrap();
            self.frontend.set_vring_base(ring, base as u16).unwrap();
            self.frontend.set_vring_addr(ring, &addresses).unwrap();
            self.frontend.set_vring_err(ring, &state.err).unwrap();
            self.frontend.set_vring_call(ring, &state.call).unwrap();
            self.frontend.set_vring_kick(ring, &state.kick).unwrap();
        }
        self.enable(2 * pair, true);
        self.enable(2 * pair + 1, true);
    }

    pub(crate) fn enable(&mut self, ring: usize, enable: bool) {
        self.frontend.set_vring_enable(ring, enable).unwrap();
    }

    pub(crate) fn stop_ring(&self, ring: usize) -> u32 {
        self.frontend.get_vring_base(ring).unwrap()
    }

    /// Makes a buffer available to receive into.
    pub(crate) fn provide(&mut self, pair: usize) {
        self.offer(2 * pair, BUFFER as u32, WRITE);
    }

    pub(crate) fn send(&mut self, pair: usize, frame: &[u8]) {
        let ring = 2 * pair + 1;
        let packet = [&[0; HEADER][..], frame].concat();
        self.memory.put(buffer(ring, self.next(ring)), &packet);
        self.offer(ring, packet.len() as u32, 0);
    }

    /// Returns the next descriptor to use.
    fn next(&self, ring: usize) -> u16 {
        self.rings[ring].split.next_avail % SIZE
    }

    fn offer(&mut self, ring: usize, len: u32, flags: u16) {
        let head = self.next(ring);
        let Ring { split, kick, .. } = &mut self.rings[ring];
        let descriptor = Descriptor { iova: buffer(ring, head), len, flags, next: 0 };
        split.descriptor(&self.memory, head, descriptor);
        split.offer(&self.memory, head);
        kick.write(1).unwrap();
    }

    /// Waits for the next frame of a pair and returns it.
    pub(crate) fn receive(&mut self, pair: usize) -> Vec<u8> {
        let ring = 2 * pair;
        let deadline = Instant::now() + Duration::from_secs(5);
        let (id, len) = loop {
            match self.rings[ring].split.take_used(&self.memory) {
                Some(used) => break used,
                None => assert!(Instant::now() < deadline, "no frame"),
            }
            std::thread::yield_now();
        };
        let mut packet = vec![0; len as usize];
        self.memory.get_into(buffer(ring, id as u16), &mut packet);
        packet.split_off(HEADER)
    }

    /// Returns how many frames a pair has received that were not yet read.
    pub(crate) fn received(&self, pair: usize) -> u16 {
        self.rings[2 * pair].split.pending(&self.memory)
    }

    /// Waits for an interrupt of a ring, and returns whether it came.
    pub(crate) fn interrupted(&self, ring: usize) -> bool {
        readable(&self.rings[ring].call)
    }

    /// Waits for a report that a ring is broken, and returns whether it came.
    pub(crate) fn failed(&self, ring: usize) -> bool {
        readable(&self.rings[ring].err)
    }

    /// Says that more entries are available than there are.
    pub(crate) fn break_ring(&mut self, ring: usize) {
        let Ring { mut split, ref kick, .. } = self.rings[ring];
        split.set_available(&self.memory, 0x8000);
        kick.write(1).unwrap();
    }

    /// Puts all rings back to their beginning.
    pub(crate) fn mend(&mut self) {
        for ring in 0..self.rings.len() {
            self.memory.put(GUEST + offset(ring), &vec![0; 0x3000]);
        }
    }
}

fn readable(fd: &EventFd) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if fd.read().is_ok() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn offset(ring: usize) -> u64 {
    RING * ring as u64
}

fn buffer(ring: usize, slot: u16) -> u64 {
    GUEST + offset(ring) + 0x8000 + BUFFER * u64::from(slot)
}

/// Returns an Ethernet frame of an experimental type, 60 bytes or more in front of what ends it.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], text: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0; 46], text].concat()
}

/// Returns a UDP datagram without payload, from a port.
pub(crate) fn udp(to: [u8; 6], from: [u8; 6], port: u16) -> Vec<u8> {
    let ip = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let [high, low] = port.to_be_bytes();
    let udp = [high, low, 0, 9, 0, 8, 0, 0];
    [&to[..], &from, &[8, 0], &ip, &udp, &[0; 18]].concat()
}
