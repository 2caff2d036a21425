//! A driver for tests: a function's memory, rings in it, and the far side of its queues.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use manifold_dma::{Backing, Domain, Permissions, Reader};
use manifold_pci::FunctionId;
use manifold_virtio::ring::{QueueAddresses, QueueState, RingFeatures};
use manifold_virtio::spec::net::feature;
use manifold_virtio::transport::QueueEvents;
use parking_lot::Mutex;

use crate::{Datapath, Direction, FunctionCounters, Kick, QueueConfig};

pub(super) const MEMORY: u64 = 16 << 20;
pub(super) const SIZE: u16 = 256;
pub(super) const PAIRS: u16 = 2;
/// Buffers begin here; each descriptor index has its own 16 KiB.
const BUFFERS: u64 = 1 << 20;
const BUFFER: u64 = 16 << 10;

#[derive(Default)]
pub(super) struct Events {
    pub(super) interrupts: AtomicU32,
    pub(super) failure: Mutex<Option<String>>,
    /// Runs in the worker at the next interrupt.
    pub(super) then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl QueueEvents for Events {
    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        if let Some(then) = self.then.lock().take() {
            then();
        }
    }

    fn fail(&self, reason: &dyn fmt::Display) {
        *self.failure.lock() = Some(reason.to_string());
    }
}

/// One side of a queue: writes descriptors, reads used elements.
pub(super) struct Ring {
    pub(super) base: u64,
    /// The queue pair it is started as.
    pub(super) pair: u16,
    buffers: u64,
    pub(super) available: u16,
    seen: u16,
    pub(super) events: Arc<Events>,
    pub(super) kick: Kick,
}

pub(super) struct Driver {
    pub(super) id: FunctionId,
    pub(super) domain: Arc<Domain>,
    pub(super) counters: FunctionCounters,
    memory: Reader,
    /// Offloads and the like, for queues started from now on.
    pub(super) features: u64,
    every_interrupt: bool,
    pub(super) tx: Ring,
    pub(super) rx: Ring,
}

pub(super) fn memfd(size: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, size).unwrap();
    fd
}

impl Ring {
    fn new(base: u64, buffers: u64) -> Self {
        let kick = Kick::new().unwrap();
        Ring { base, pair: 0, buffers, available: 0, seen: 0, events: Arc::default(), kick }
    }

    /// Kicks, as a hypervisor does that was given the eventfd.
    pub(super) fn ring(&self) {
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).unwrap();
    }

    pub(super) fn addresses(&self) -> QueueAddresses {
        QueueAddresses {
            size: SIZE,
            descriptors: self.base,
            driver: self.base + 0x1000,
            device: self.base + 0x2000,
        }
    }
}

impl Driver {
    /// A function of a data path with both queues running.
    pub(super) fn start(datapath: &Datapath, id: FunctionId, mergeable: bool) -> Driver {
        let driver = Driver::new(datapath, id);
        for direction in [Direction::Receive, Direction::Transmit] {
            driver.start_queue(datapath, direction, mergeable, QueueState::default());
        }
        driver
    }

    pub(super) fn new(datapath: &Datapath, id: FunctionId) -> Driver {
        let domain = Domain::new(id.to_string());
        let backing = Backing::File { fd: memfd(MEMORY), offset: 0 };
        domain.map(0, MEMORY, Permissions::READ_WRITE, backing).unwrap();
        domain.set_bus_master(true);
        let counters = FunctionCounters::new(PAIRS);
        datapath.add_function(id, &domain, &counters).unwrap();
        Driver {
            id,
            memory: domain.reader(),
            features: 0,
            every_interrupt: false,
            domain,
            counters,
            tx: Ring::new(0x1_0000, BUFFERS),
            rx: Ring::new(0x2_0000, BUFFERS + u64::from(SIZE) * BUFFER),
        }
    }

    pub(super) fn start_queue(
        &self,
        datapath: &Datapath,
        direction: Direction,
        mergeable: bool,
        resume: QueueState,
    ) {
        datapath.start_queue(self.config(direction, mergeable, resume)).unwrap();
    }

    pub(super) fn config(
        &self,
        direction: Direction,
        mergeable: bool,
        resume: QueueState,
    ) -> QueueConfig {
        let ring = match direction {
            Direction::Receive => &self.rx,
            Direction::Transmit => &self.tx,
        };
        QueueConfig {
            function: self.id,
            pair: ring.pair,
            direction,
            addresses: ring.addresses(),
            ring: RingFeatures { event_index: true, indirect: false, ..RingFeatures::default() },
            features: self.features | if mergeable { feature::MRG_RXBUF } else { 0 },
            kick: ring.kick.clone(),
            resume: Some(resume),
            inflight: None,
            events: Arc::clone(&ring.events) as Arc<_>,
        }
    }

    pub(super) fn write(&self, iova: u64, data: &[u8]) {
        self.memory.pin().write(iova, data).unwrap();
    }

    pub(super) fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.pin().read(iova, &mut data).unwrap();
        data
    }

    fn word(&self, iova: u64) -> u16 {
        u16::from_le_bytes(self.read(iova, 2).try_into().unwrap())
    }

    pub(super) fn descriptor(
        &self,
        ring: &Ring,
        index: u16,
        (iova, len, flags, next): (u64, u32, u16, u16),
    ) {
        let mut raw = iova.to_le_bytes().to_vec();
        raw.extend(len.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend(next.to_le_bytes());
        self.write(ring.base + 16 * u64::from(index), &raw);
    }

    /// Sends a frame behind a virtio_net_hdr of zeros, in one descriptor.
    pub(super) fn send(&mut self, frame: &[u8]) {
        self.send_with_header([0; 12], frame);
    }

    /// As [`Driver::send`], without the kick.
    pub(super) fn prepare(&mut self, frame: &[u8]) {
        let head = self.place([0; 12], frame);
        self.make_available(head);
    }

    pub(super) fn send_with_header(&mut self, header: [u8; 12], frame: &[u8]) {
        let head = self.place(header, frame);
        self.offer_tx(head);
    }

    fn place(&self, header: [u8; 12], frame: &[u8]) -> u16 {
        let index = self.tx.available % SIZE;
        let iova = self.tx.buffers + u64::from(index) * BUFFER;
        self.write(iova, &[&header[..], frame].concat());
        let len = (12 + frame.len()) as u32;
        self.descriptor(&self.tx, index, (iova, len, 0, 0));
        index
    }

    /// Makes the transmit chain that begins at `head` available and kicks.
    pub(super) fn offer_tx(&mut self, head: u16) {
        self.make_available(head);
        self.tx.ring();
    }

    fn make_available(&mut self, head: u16) {
        let slot = u64::from(self.tx.available % SIZE);
        self.write(self.tx.base + 0x1000 + 4 + 2 * slot, &head.to_le_bytes());
        self.tx.available = self.tx.available.wrapping_add(1);
        self.write(self.tx.base + 0x1002, &self.tx.available.to_le_bytes());
    }

    /// Makes a receive buffer of `len` bytes available.
    pub(super) fn post(&mut self, len: u32) {
        let index = self.rx.available % SIZE;
        let iova = self.rx.buffers + u64::from(index) * BUFFER;
        self.descriptor(&self.rx, index, (iova, len, 2, 0));
        self.write(self.rx.base + 0x1000 + 4 + 2 * u64::from(index), &index.to_le_bytes());
        self.rx.available = self.rx.available.wrapping_add(1);
        self.write(self.rx.base + 0x1002, &self.rx.available.to_le_bytes());
    }

    /// Waits for the next received buffer: what the device wrote to it.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        eventually("a received frame", || self.rx_used() != self.rx.seen);
        self.take_received().unwrap()
    }

    /// Waits for the next received frame, in however many buffers: its virtio_net_hdr, and the
    /// frame.
    pub(super) fn receive_with_header(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut header = self.receive();
        let mut frame = header.split_off(12);
        for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
            frame.extend(self.receive());
        }
        (header, frame)
    }

    pub(super) fn receive_whole(&mut self) -> Vec<u8> {
        self.receive_with_header().1
    }

    /// Receive buffers that are not filled yet.
    pub(super) fn rx_left(&self) -> u16 {
        self.rx.available.wrapping_sub(self.rx_used())
    }

    /// Received buffers not yet looked at.
    pub(super) fn rx_pending(&self) -> u16 {
        self.rx_used().wrapping_sub(self.rx.seen)
    }

    /// Asks for an interrupt with each received frame, as far as used_event can say that once and
    /// for all: it is just behind where the queue is now, and moves on with every look.
    pub(super) fn want_every_interrupt(&mut self) {
        self.every_interrupt = true;
        self.move_event();
    }

    fn move_event(&self) {
        let event = self.rx.base + 0x1004 + 2 * u64::from(SIZE);
        self.write(event, &self.rx.seen.to_le_bytes());
    }

    /// The next received buffer, if there is one now.
    pub(super) fn take_received(&mut self) -> Option<Vec<u8>> {
        if self.rx_used() == self.rx.seen {
            return None;
        }
        let element = self.rx.base + 0x2004 + 8 * u64::from(self.rx.seen % SIZE);
        let raw = self.read(element, 8);
        let id = u32::from_le_bytes(raw[..4].try_into().unwrap());
        let len = u32::from_le_bytes(raw[4..].try_into().unwrap());
        self.rx.seen = self.rx.seen.wrapping_add(1);
        if self.every_interrupt {
            self.move_event();
        }
        Some(self.read(self.rx.buffers + u64::from(id) * BUFFER, len as usize))
    }

    fn rx_used(&self) -> u16 {
        self.word(self.rx.base + 0x2002)
    }

    /// Waits until the worker has left the transmit queue: the driver is asked to notify of exactly
    /// the next frame.
    pub(super) fn wait_armed(&self) {
        let asked = self.tx.base + 0x2000 + 4 + 8 * u64::from(SIZE);
        eventually("the queue to be armed", || self.word(asked) == self.tx.available);
    }

    /// Waits until every sent chain has been given back.
    pub(super) fn wait_sent(&self) {
        eventually("sent chains to be given back", || {
            self.word(self.tx.base + 0x2002) == self.tx.available
        });
    }

    pub(super) fn drops(&self, name: &str) -> u64 {
        let total = self.counters.total();
        total.drops.iter().filter(|(reason, _)| reason.name() == name).map(|(_, n)| n).sum()
    }
}

/// Waits for something that must happen.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited 10 s for {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}
