//! This program measures what a virtqueue costs its device: nanoseconds per chain for taking,
//! completing and publishing bursts of 32, with the driver on the same thread.
//!
//! `cargo run --release -p manifold-virtio --example ring_ns`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dma::{PAGE_SIZE, Permissions, SharedMemory};
use manifold_testing::{
    AVAIL, Descriptor, Driver, Guest, GuestMemory, INDIRECT, Memory, NEXT, USED, WRITE,
};
use manifold_virtio::ring::{
    Burst, Chain, Inflight, Queue, QueueAddresses, RingError, RingFeatures,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SIZE: u16 = 256;
const BURST: u16 = 32;
const ROUNDS: u32 = 50_000;
const BUFFERS: u64 = 0x8_0000;
const TABLES: u64 = 0x4_0000;

/// The descriptors that make up a chain.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    One,
    Two,
    Indirect,
}

/// One line of the result.
#[derive(Clone, Copy)]
struct Case {
    what: &'static str,
    shape: Shape,
    writes: bool,
    in_order: bool,
    inflight: bool,
    /// True if every page is a mapping of its own, as behind a virtual IOMMU.
    scattered: bool,
}

const PLAIN: Case = Case {
    what: "one descriptor",
    shape: Shape::One,
    writes: false,
    in_order: false,
    inflight: false,
    scattered: false,
};

const CASES: [Case; 7] = [
    PLAIN,
    Case { what: "one descriptor, device-writable", writes: true, ..PLAIN },
    Case { what: "one descriptor, in order", in_order: true, ..PLAIN },
    Case { what: "two descriptors", shape: Shape::Two, ..PLAIN },
    Case { what: "an indirect table of two", shape: Shape::Indirect, ..PLAIN },
    Case { what: "one descriptor, inflight recorded", inflight: true, ..PLAIN },
    Case { what: "one descriptor, pages mapped alone", scattered: true, ..PLAIN },
];

fn main() -> Result<()> {
    println!("{:<40} {:>8} {:>8}   ns per chain", "", "split", "packed");
    for case in CASES {
        println!("{:<40} {:>8.1} {:>8.1}", case.what, run(case, false)?, run(case, true)?);
    }
    Ok(())
}

/// The driver: it fills the rings through a mapping of its own, and acts between bursts.
struct Ring {
    memory: SharedMemory,
    driver: Driver,
    packed: bool,
    /// The ring with every descriptor available, for both values of the wrap counter.
    laps: [Vec<u8>; 2],
    /// Descriptors offered so far.
    offered: usize,
    /// Descriptors per burst.
    step: usize,
    /// Distance in the file of pages that follow each other in the guest.
    spread: u64,
}

impl Ring {
    fn new(case: Case, packed: bool) -> Result<Self> {
        let features =
            RingFeatures { event_index: true, indirect: true, packed, in_order: case.in_order };
        let spread = if case.scattered { 2 } else { 1 };
        let pages: Vec<Option<u64>> =
            (0..256).map(|page| Some(spread * page * PAGE_SIZE)).collect();
        let addresses = QueueAddresses {
            size: SIZE,
            descriptors: 0x1_0000,
            driver: 0x2_0000,
            device: 0x3_0000,
        };
        let driver = Driver::with(Guest::at(addresses, features, &pages, Permissions::READ_WRITE));
        let write = if case.writes { WRITE } else { 0 };
        let bytes = |descriptor: Descriptor| {
            if packed { descriptor.to_packed_bytes() } else { descriptor.to_bytes() }
        };
        let buffer = |index: u16| Descriptor {
            iova: BUFFERS + 2048 * u64::from(index),
            len: 1526,
            flags: write,
            next: index,
        };
        let mut laps = [Vec::new(), Vec::new()];
        for index in 0..SIZE {
            let mut descriptor = buffer(index);
            if case.shape == Shape::Indirect {
                let table = TABLES + 32 * u64::from(index);
                let first = Descriptor { flags: write | NEXT, next: 1, ..buffer(index) };
                driver.put(table, &bytes(first));
                driver.put(table + 16, &bytes(buffer(index)));
                descriptor = Descriptor { iova: table, len: 32, flags: INDIRECT, next: index };
            }
            if case.shape == Shape::Two && index % 2 == 0 {
                descriptor.flags |= NEXT;
                descriptor.next = index + 1;
            }
            for (lap, turn) in laps.iter_mut().zip([AVAIL, USED]) {
                let turn = if packed { turn } else { 0 };
                lap.extend(bytes(Descriptor { flags: descriptor.flags | turn, ..descriptor }));
            }
        }
        let per_chain = if case.shape == Shape::Two { 2 } else { 1 };
        if !packed {
            driver.put(addresses.descriptors, &laps[0]);
            for slot in 0..SIZE {
                let head = slot * per_chain % SIZE;
                driver.put(addresses.driver + 4 + 2 * u64::from(slot), &head.to_le_bytes());
            }
        }
        let file = driver.memory.file().try_clone()?;
        let memory = SharedMemory::map(&file.into(), 0, (255 * spread + 1) * PAGE_SIZE)?;
        let step = usize::from(if packed { BURST * per_chain } else { BURST });
        Ok(Ring { memory, driver, packed, laps, offered: 0, step, spread })
    }

    /// Makes a burst of chains available.
    fn offer(&mut self) -> Result<()> {
        let QueueAddresses { descriptors, driver, .. } = self.driver.addresses;
        // Page n of IOVAs is page n of the file, or page 2n: the rings used here fit their first
        // page.
        let scale = |iova: u64| (iova * self.spread) as usize;
        if self.packed {
            let (lap, index) = (self.offered / usize::from(SIZE), self.offered % usize::from(SIZE));
            let bytes = &self.laps[lap % 2][16 * index..16 * (index + self.step)];
            let slice = self.memory.slice(scale(descriptors) + 16 * index, bytes.len());
            slice.ok_or("outside")?.write(bytes);
            self.offered += self.step;
        } else {
            self.offered += self.step;
            let slice = self.memory.slice(scale(driver) + 2, 2).ok_or("outside")?;
            slice.write(&(self.offered as u16).to_le_bytes());
        }
        Ok(())
    }
}

fn run(case: Case, packed: bool) -> Result<f64> {
    let mut ring = Ring::new(case, packed)?;
    let mut queue = Queue::new(ring.driver.addresses, ring.driver.features)?;
    if case.inflight {
        let bytes = Inflight::size(SIZE, packed);
        let region = GuestMemory::new("inflight", bytes as u64)?;
        let region = SharedMemory::map(&region.file().try_clone()?.into(), 0, bytes as u64)?;
        queue = queue.with_inflight(Inflight::new(Arc::new(region), 0))?;
    }
    let reader = ring.driver.reader();
    let clock = (0..100).map(|_| clock()).fold(f64::MAX, f64::min);
    let mut spent = Duration::ZERO;
    let (mut best, mut samples) = (f64::MAX, 0);
    let mut chains = [Chain::default(); BURST as usize];
    for round in 0..ROUNDS {
        ring.offer()?;
        let begin = Instant::now();
        let pin = reader.pin();
        let taken = match &mut queue {
            Queue::Split(queue) => burst(&mut queue.open(&pin)?, &mut chains)?,
            Queue::Packed(queue) => burst(&mut queue.open(&pin)?, &mut chains)?,
        };
        drop(pin);
        spent += begin.elapsed();
        if taken != BURST {
            return Err(RingError::NoBuffers("taken").into());
        }
        samples += 1;
        // The machine has other work, so the quietest of many short stretches counts.
        if round % 500 == 499 {
            let ns = (spent.as_nanos() as f64 / f64::from(samples) - clock) / f64::from(BURST);
            best = best.min(ns);
            (spent, samples) = (Duration::ZERO, 0);
        }
    }
    Ok(best)
}

#[inline(never)]
fn burst<'p>(
    burst: &mut impl Burst<'p>,
    chains: &mut [Chain; BURST as usize],
) -> std::result::Result<u16, RingError> {
    let (mut bytes, mut taken) = (0, 0);
    for chain in &mut *chains {
        let popped = burst.pop(|slice, _| {
            bytes += slice.len();
            true
        })?;
        let Some(popped) = popped else { break };
        *chain = popped;
        taken += 1;
    }
    for chain in chains.iter().take(usize::from(taken)) {
        burst.complete(chain, 0);
    }
    black_box((bytes, burst.publish()));
    Ok(taken)
}

/// Returns how many nanoseconds a look at the clock takes.
fn clock() -> f64 {
    let begin = Instant::now();
    for _ in 0..64 {
        black_box(Instant::now());
    }
    begin.elapsed().as_nanos() as f64 / 65.0
}
