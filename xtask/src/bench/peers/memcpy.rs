//! This module measures what moving bytes costs at least: one copy, on the worker's core, of
//! buffers like those of the traffic it is compared with.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use memmap2::{MmapMut, MmapOptions};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bench::bed::Bed;

/// Bytes per second when `buffers` buffers of `bytes` each are copied one after the other, again
/// and again, between two areas of huge pages.
pub(crate) fn copy_rate(bed: &Bed, bytes: usize, buffers: usize) -> Result<f64> {
    bed.reserve_hugepages()?;
    let worker = bed.cores.worker;
    let (warm_up, sample) = (bed.pace.warm_up, bed.pace.sample);
    let copying = thread::spawn(move || -> Result<f64> {
        let mut set = CpuSet::new();
        set.set(worker);
        sched_setaffinity(None, &set).context("cannot stay on one processor")?;
        let (mut from, mut to) = (area(bytes * buffers)?, area(bytes * buffers)?);
        from.fill(0x5a);
        to.fill(0);
        let mut copied = 0_u64;
        let mut begin = Instant::now();
        let mut warm = false;
        loop {
            for (from, to) in from.chunks_exact(bytes).zip(to.chunks_exact_mut(bytes)) {
                to.copy_from_slice(from);
                black_box(to);
            }
            copied += (bytes * buffers) as u64;
            let time = begin.elapsed();
            if !warm && time >= warm_up {
                (warm, copied, begin) = (true, 0, Instant::now());
            } else if warm && time >= sample {
                return Ok(copied as f64 / time.as_secs_f64());
            }
        }
    });
    copying.join().map_err(|_| anyhow!("the copying thread panicked"))?
}

/// Returns zeroed memory of 2 MiB pages.
fn area(bytes: usize) -> Result<MmapMut> {
    /// Size of the pages as a power of two.
    const PAGE: u8 = 21;
    MmapOptions::new()
        .len(bytes.next_multiple_of(1 << PAGE))
        .huge(Some(PAGE))
        .map_anon()
        .context("cannot map huge pages")
}
