//! What a split virtqueue costs its device: nanoseconds per chain for taking, completing and publishing bursts of 64. Run
//! with `cargo run --release -p manifold-virtio --example ring`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use manifold_dma::{PAGE_SIZE, Permissions};
use manifold_virtio::ring::testing::{Descriptor, Driver, INDIRECT, NEXT};
use manifold_virtio::ring::{Burst, QueueAddresses, RingError, RingFeatures, SplitQueue};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SIZE: u16 = 256;
const BURST: u16 = 64;
const ROUNDS: u32 = 20_000;
const BUFFERS: u64 = 0x8_0000;

fn main() -> Result<()> {
    let features = RingFeatures { event_index: true, indirect: true, ..RingFeatures::default() };
    let driver = Driver::new(SIZE, features)?;
    for index in 0..SIZE {
        driver.descriptor(index, buffer(index, 0, 0))?;
    }
    run("one descriptor", driver)?;

    let driver = Driver::new(SIZE, features)?;
    for index in (0..SIZE).step_by(2) {
        driver.descriptor(index, buffer(index, NEXT, index + 1))?;
        driver.descriptor(index + 1, buffer(index + 1, 0, 0))?;
    }
    run("two descriptors", driver)?;

    let driver = Driver::new(SIZE, features)?;
    for index in 0..SIZE {
        let table = 0x4_0000 + 32 * u64::from(index);
        driver.put(table, &buffer(index, NEXT, 1).to_bytes())?;
        driver.put(table + 16, &buffer(index, 0, 0).to_bytes())?;
        let descriptor = Descriptor { iova: table, len: 32, flags: INDIRECT, next: 0 };
        driver.descriptor(index, descriptor)?;
    }
    run("an indirect table of two", driver)?;

    // Every second page of the file, so that each page is a mapping of its own, as behind a virtual IOMMU.
    let pages: Vec<Option<u64>> = (0..256).map(|page| Some(2 * page * PAGE_SIZE)).collect();
    let addresses =
        QueueAddresses { size: SIZE, descriptors: 0x1_0000, driver: 0x2_0000, device: 0x3_0000 };
    let driver = Driver::at(addresses, features, &pages, Permissions::READ_WRITE)?;
    for index in 0..SIZE {
        driver.descriptor(index, buffer(index, 0, 0))?;
    }
    run("one descriptor, each page mapped alone", driver)
}

fn buffer(index: u16, flags: u16, next: u16) -> Descriptor {
    Descriptor { iova: BUFFERS + 2048 * u64::from(index % 256), len: 1526, flags, next }
}

fn run(what: &str, mut driver: Driver) -> Result<()> {
    let reader = driver.reader();
    let mut queue = SplitQueue::new(driver.addresses, driver.features)?;
    let mut spent = Duration::ZERO;
    let mut available = 0u16;
    // Even heads only, so that the two-descriptor chains fit as well.
    for slot in 0..SIZE {
        driver.offer(slot * 2 % SIZE)?;
    }
    driver.set_available(0)?;
    for _ in 0..ROUNDS {
        available = available.wrapping_add(BURST);
        driver.set_available(available)?;
        let begin = Instant::now();
        let pin = reader.pin();
        let mut burst = queue.open(&pin)?;
        let mut bytes = 0;
        for _ in 0..BURST {
            burst.prefetch(2);
            let taken = burst.pop(|slice, _| {
                bytes += slice.len();
                true
            })?;
            let Some(chain) = taken else { break };
            burst.complete(&chain, 0);
        }
        black_box((bytes, burst.publish()));
        drop(pin);
        spent += begin.elapsed();
    }
    if queue.position().next_avail != available {
        return Err(RingError::NoBuffers("taken").into());
    }
    let ns = spent.as_nanos() as f64 / f64::from(ROUNDS * u32::from(BURST));
    println!("{what:<44} {ns:>7.1} ns per chain");
    Ok(())
}
