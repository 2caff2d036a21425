//! This program measures translation: nanoseconds per map, translate and unmap at 100,000 one-page
//! mappings, per pin, and how long an unmap waits for a busy worker.
//!
//! `cargo run --release -p manifold-dma --example translate_ns`

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use manifold_dma::{Access, Domain, PAGE_SIZE, Permissions};
use manifold_testing::GuestMemory;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MAPPINGS: u64 = 100_000;
const ROUNDS: u64 = 1_000_000;

fn main() -> Result<()> {
    let memory = GuestMemory::new("timing", MAPPINGS * PAGE_SIZE)?;
    pins(&memory)?;
    many(&memory)?;
    busy(&memory)
}

/// Prints the cost of one of `count` operations.
fn report(what: &str, count: u64, begin: Instant) {
    let ns = begin.elapsed().as_nanos() as f64 / count as f64;
    println!("{what:<56} {ns:>9.1} ns");
}

/// Returns a different page each time, in no order the processor could guess.
fn scattered(round: u64) -> u64 {
    round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % MAPPINGS * PAGE_SIZE
}

fn pins(memory: &GuestMemory) -> Result<()> {
    let domain = Domain::new("timing");
    domain.set_bus_master(true);
    domain.map(0, MAPPINGS * PAGE_SIZE, Permissions::READ_WRITE, memory.backing(0)?)?;
    let reader = domain.reader();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        black_box(reader.pin().version());
    }
    report("pin and let go", ROUNDS, begin);
    let pin = reader.pin();
    let begin = Instant::now();
    for round in 0..ROUNDS {
        black_box(pin.contiguous(scattered(round), 1500, Access::Read)?);
    }
    report("translate 1500 bytes, one mapping", ROUNDS, begin);
    Ok(())
}

fn many(memory: &GuestMemory) -> Result<()> {
    let domain = Domain::new("timing");
    domain.set_bus_master(true);
    let reader = domain.reader();
    let begin = Instant::now();
    for page in 0..MAPPINGS {
        let at = page * PAGE_SIZE;
        domain.map(at, PAGE_SIZE, Permissions::READ_WRITE, memory.backing(at)?)?;
    }
    report("map one page, growing to 100,000 (with dup of the fd)", MAPPINGS, begin);
    {
        let pin = reader.pin();
        let begin = Instant::now();
        for round in 0..ROUNDS {
            black_box(pin.contiguous(scattered(round), 1500, Access::Read)?);
        }
        report("translate 1500 bytes in one of 100,000 mappings", ROUNDS, begin);
        let begin = Instant::now();
        let mut pieces = 0;
        for round in 0..ROUNDS / 16 {
            let at = scattered(round).min((MAPPINGS - 16) * PAGE_SIZE);
            pin.slices(at, 16 * PAGE_SIZE as usize, Access::Read, |_| pieces += 1)?;
        }
        report("translate 64 KiB across 16 of 100,000 mappings", ROUNDS / 16, begin);
        black_box(pieces);
    }
    let begin = Instant::now();
    for round in 0..MAPPINGS {
        let at = scattered(round);
        domain.unmap(at, PAGE_SIZE)?;
        domain.map(at, PAGE_SIZE, Permissions::READ_WRITE, memory.backing(at)?)?;
    }
    report("unmap and map again, at 100,000 mappings", MAPPINGS, begin);
    let begin = Instant::now();
    for page in 0..MAPPINGS {
        domain.unmap(page * PAGE_SIZE, PAGE_SIZE)?;
    }
    report("unmap one page, shrinking from 100,000", MAPPINGS, begin);
    for page in 0..MAPPINGS {
        let at = page * PAGE_SIZE;
        domain.map(at, PAGE_SIZE, Permissions::READ_WRITE, memory.backing(at)?)?;
    }
    let begin = Instant::now();
    domain.unmap(0, MAPPINGS * PAGE_SIZE)?;
    report("unmap 100,000 pages at once, each", MAPPINGS, begin);
    Ok(())
}

/// Runs a worker that is pinned nearly always, in bursts of 5 µs, against a VMM that maps and
/// unmaps.
fn busy(memory: &GuestMemory) -> Result<()> {
    let domain = Domain::new("timing");
    domain.set_bus_master(true);
    let reader = domain.reader();
    let stop = &AtomicBool::new(false);
    let (bursts, longest, result) = std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let (mut bursts, mut longest) = (0u64, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let pin = reader.pin();
                longest = longest.max(asked.elapsed());
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_micros(5) {
                    black_box(pin.version());
                }
                bursts += 1;
            }
            (bursts, longest)
        });
        let begin = Instant::now();
        let result = (|| -> Result<()> {
            for _ in 0..2_000 {
                domain.map(0, PAGE_SIZE, Permissions::READ_WRITE, memory.backing(0)?)?;
                domain.unmap(0, PAGE_SIZE)?;
            }
            Ok(())
        })();
        report("map or unmap beside a worker in bursts of 5 us", 4_000, begin);
        stop.store(true, Ordering::Relaxed);
        let (bursts, longest) = worker.join().unwrap_or_default();
        (bursts, longest, result)
    });
    result?;
    println!("worker meanwhile: {bursts} bursts, longest wait for a pin {longest:?}");
    Ok(())
}
