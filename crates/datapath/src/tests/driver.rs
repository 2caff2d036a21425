//! This driver for tests has a function's memory, rings in it, and the far side of its queues.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use manifold_dma::{Domain, Permissions, Reader};
use manifold_pci::FunctionId;
use manifold_testing::{Descriptor, GuestMemory, Memory as _, SplitRing, WRITE};
use manifold_virtio::ring::{QueueAddresses, QueueState, RingFeatures};
use manifold_virtio::spec::net::feature;
use manifold_virtio::transport::QueueEvents;
use parking_lot::Mutex;

use crate::{Datapath, Direction, FunctionCounters, Kick, QueueConfig};

pub(super) const MEMORY: u64 = 16 << 20;
pub(super) const SIZE: u16 = 256;
pub(super) const PAIRS: u16 = 2;
/// IOVA at which buffers begin; each descriptor index has its own 16 KiB.
const BUFFERS: u64 = 1 << 20;
const BUFFER: u64 = 16 << 10;

#[derive(Default)]
pub(super) struct Events {
    pub(super) interrupts: AtomicU32,
    pub(super) failure: Mutex<Option<String>>,
    /// Callback that runs in the worker at the next interrupt.
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

/// A queue as its driver sees it: the ring, its buffers, and what is called when something happens.
pub(super) struct Ring {
    pub(super) split: SplitRing,
    /// Queue pair that it is started as.
    pub(super) pair: u16,
    buffers: u64,
    pub(super) events: Arc<Events>,
    pub(super) kick: Kick,
}

pub(super) struct Driver {
    pub(super) id: FunctionId,
    pub(super) domain: Arc<Domain>,
    pub(super) counters: FunctionCounters,
    memory: Reader,
    /// Features, such as offloads, for queues started from now on.
    pub(super) features: u64,
    every_interrupt: bool,
    pub(super) tx: Ring,
    pub(super) rx: Ring,
}

impl Ring {
    fn new(base: u64, buffers: u64) -> Self {
        let split = SplitRing::new(QueueAddresses {
            size: SIZE,
            descriptors: base,
            driver: base + 0x1000,
            device: base + 0x2000,
        });
        Ring { split, pair: 0, buffers, events: Arc::default(), kick: Kick::new().unwrap() }
    }

    /// Kicks, as a hypervisor does that was given the eventfd.
    pub(super) fn ring(&self) {
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).unwrap();
    }

    /// Returns the index of the next descriptor to use, and the address of its buffer.
    fn next(&self) -> (u16, u64) {
        let index = self.split.next_avail % SIZE;
        (index, self.buffers + u64::from(index) * BUFFER)
    }
}

impl Driver {
    /// Starts a function of a data path with both queues.
    pub(super) fn start(datapath: &Datapath, id: FunctionId, mergeable: bool) -> Driver {
        let driver = Driver::new(datapath, id);
        for direction in [Direction::Receive, Direction::Transmit] {
            driver.start_queue(datapath, direction, mergeable, QueueState::default());
        }
        driver
    }

    pub(super) fn new(datapath: &Datapath, id: FunctionId) -> Driver {
        let domain = Domain::new(id.to_string());
        let backing = GuestMemory::new("test", MEMORY).unwrap().backing(0).unwrap();
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
            addresses: ring.split.addresses,
            ring: RingFeatures { event_index: true, indirect: false, ..RingFeatures::default() },
            features: self.features | if mergeable { feature::MRG_RXBUF } else { 0 },
            kick: ring.kick.clone(),
            resume: Some(resume),
            inflight: None,
            events: Arc::clone(&ring.events) as Arc<_>,
        }
    }

    pub(super) fn write(&self, iova: u64, data: &[u8]) {
        self.memory.put(iova, data);
    }

    pub(super) fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.get_into(iova, &mut data);
        data
    }

    pub(super) fn descriptor(
        &self,
        ring: &Ring,
        index: u16,
        (iova, len, flags, next): (u64, u32, u16, u16),
    ) {
        ring.split.descriptor(&self.memory, index, Descriptor { iova, len, flags, next });
    }

    /// Sends a frame behind a virtio_net_hdr of zeros, in one descriptor.
    pub(super) fn send(&mut self, frame: &[u8]) {
        self.send_with_header([0; 12], frame);
    }

    /// Makes a frame available as [`Driver::send`] does, without the kick.
    pub(super) fn prepare(&mut self, frame: &[u8]) {
        let head = self.place([0; 12], frame);
        self.make_available(head);
    }

    pub(super) fn send_with_header(&mut self, header: [u8; 12], frame: &[u8]) {
        let head = self.place(header, frame);
        self.offer_tx(head);
    }

    fn place(&self, header: [u8; 12], frame: &[u8]) -> u16 {
        let (index, iova) = self.tx.next();
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
        self.tx.split.offer(&self.memory, head);
    }

    /// Makes a receive buffer of `len` bytes available.
    pub(super) fn post(&mut self, len: u32) {
        let (index, iova) = self.rx.next();
        self.descriptor(&self.rx, index, (iova, len, WRITE, 0));
        self.rx.split.offer(&self.memory, index);
    }

    /// Waits for the next received buffer: what the device wrote to it.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        eventually("a received frame", || self.rx_pending() != 0);
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

    /// Returns the number of receive buffers that are not filled yet.
    pub(super) fn rx_left(&self) -> u16 {
        self.rx.split.next_avail.wrapping_sub(self.rx.split.used_index(&self.memory))
    }

    /// Returns the number of received buffers that were not yet read.
    pub(super) fn rx_pending(&self) -> u16 {
        self.rx.split.pending(&self.memory)
    }

    /// Asks for an interrupt with each received frame, as far as used_event can say that once and
    /// for all: it is just behind where the queue is now, and moves on with every look.
    pub(super) fn want_every_interrupt(&mut self) {
        self.every_interrupt = true;
        self.move_event();
    }

    fn move_event(&self) {
        self.rx.split.set_used_event(&self.memory, self.rx.split.last_used);
    }

    /// Returns the next received buffer, if there is one now.
    pub(super) fn take_received(&mut self) -> Option<Vec<u8>> {
        let (id, len) = self.rx.split.take_used(&self.memory)?;
        if self.every_interrupt {
            self.move_event();
        }
        Some(self.read(self.rx.buffers + u64::from(id) * BUFFER, len as usize))
    }

    /// Waits until the worker has left the transmit queue: the driver is asked to notify of exactly
    /// the next frame.
    pub(super) fn wait_armed(&self) {
        let asked = || self.tx.split.avail_event(&self.memory);
        eventually("the queue to be armed", || asked() == self.tx.split.next_avail);
    }

    /// Waits until every sent chain has been given back.
    pub(super) fn wait_sent(&self) {
        eventually("sent chains to be given back", || {
            self.tx.split.used_index(&self.memory) == self.tx.split.next_avail
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
