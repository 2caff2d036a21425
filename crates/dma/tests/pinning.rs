//! These tests check that whoever changes mappings waits for those who use them, and for no one
//! else.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use manifold_dma::{Access, Domain, FaultReason, PAGE_SIZE, Permissions};
use manifold_testing::GuestMemory;

const RW: Permissions = Permissions::READ_WRITE;

fn domain(memory: &GuestMemory) -> Arc<Domain> {
    let domain = Domain::new("vf0");
    domain.set_bus_master(true);
    domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
    domain
}

/// Checks that `change` does not return while a pin exists, and does once it is gone.
fn waits(change: impl FnOnce(&Domain) + Send) {
    let memory = GuestMemory::new("waits", PAGE_SIZE).unwrap();
    let domain = domain(&memory);
    let reader = domain.reader();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let pin = reader.pin();
        let slice = pin.contiguous(0, 4, Access::Write).unwrap().unwrap();
        let changed = scope.spawn(|| {
            change(&domain);
            done.store(true, Ordering::SeqCst);
        });
        thread::sleep(Duration::from_millis(30));
        assert!(!done.load(Ordering::SeqCst), "returned while the memory was in use");
        assert_eq!(slice.write(b"last"), 4, "and the memory is still there");
        pin.write(0, b"LAST").unwrap();
        drop(pin);
        changed.join().unwrap();
    });
    let mut found = [0; 4];
    memory.read(0, &mut found).unwrap();
    assert_eq!(&found, b"LAST");
    assert!(reader.pin().write(0, b"gone").is_err());
}

#[test]
fn unmap_waits_for_a_burst() {
    waits(|domain| assert_eq!(domain.unmap(0, PAGE_SIZE).unwrap(), PAGE_SIZE));
}

#[test]
fn unmap_all_waits_for_a_burst() {
    waits(Domain::unmap_all);
}

#[test]
fn clearing_bus_master_waits_for_a_burst() {
    waits(|domain| domain.set_bus_master(false));
}

#[test]
fn a_pin_never_waits_for_a_change() {
    let memory = GuestMemory::new("never", PAGE_SIZE).unwrap();
    let domain = domain(&memory);
    let (held, free) = (domain.reader(), domain.reader());
    thread::scope(|scope| {
        let pin = held.pin();
        let changed = scope.spawn(|| domain.unmap(0, PAGE_SIZE).unwrap());
        // The change waits for `held`; `free` goes on meanwhile, and sees it sooner or later.
        let mut tries = 0;
        while free.pin().read(0, &mut [0]).is_ok() && tries < 2_000 {
            tries += 1;
            thread::sleep(Duration::from_millis(1));
        }
        assert!(free.pin().read(0, &mut [0]).is_err());
        assert!(!changed.is_finished());
        pin.read(0, &mut [0]).unwrap();
        drop(pin);
        assert_eq!(changed.join().unwrap(), PAGE_SIZE);
    });
}

#[test]
fn pins_of_one_reader_nest_and_see_the_same() {
    let memory = GuestMemory::new("nested", PAGE_SIZE).unwrap();
    let domain = domain(&memory);
    let reader = domain.reader();
    thread::scope(|scope| {
        let outer = reader.pin();
        let changed = scope.spawn(|| domain.unmap_all());
        thread::sleep(Duration::from_millis(10));
        let inner = reader.pin();
        assert_eq!(inner.version(), outer.version());
        drop(outer);
        thread::sleep(Duration::from_millis(10));
        assert!(!changed.is_finished());
        inner.write(0, b"still").unwrap();
        drop(inner);
        changed.join().unwrap();
    });
    assert_eq!(reader.pin().read(0, &mut [0]).unwrap_err().reason, FaultReason::NotMapped);
}

#[test]
fn versions_tell_domains_and_changes_apart() {
    let memory = GuestMemory::new("versions", PAGE_SIZE).unwrap();
    let (one, other) = (domain(&memory), domain(&memory));
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        for domain in [&one, &other] {
            assert!(seen.insert(domain.reader().pin().version()));
            domain.set_bus_master(false);
            domain.set_bus_master(true);
            let version = domain.reader().pin().version();
            domain.set_bus_master(true);
            assert_eq!(domain.reader().pin().version(), version, "nothing has changed");
            assert!(seen.insert(version));
            domain.unmap_all();
        }
    }
}

/// Two memories take turns at one IOVA. A worker that finds the wrong bytes, or bytes after the
/// unmap, saw a mapping that was no longer one.
#[test]
fn a_worker_never_sees_what_was_unmapped() {
    const TURNS: u64 = 500;
    let domain = Domain::new("vf0");
    domain.set_bus_master(true);
    let memories = ["even", "odd"].map(|name| GuestMemory::new(name, PAGE_SIZE).unwrap());
    // The turn whose memory is mapped; none is if this is odd.
    let mapped = AtomicU64::new(1);
    let start = Barrier::new(3);
    let (mut hits, mut misses) = (0u64, 0u64);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let reader = domain.reader();
                let (mapped, start) = (&mapped, &start);
                scope.spawn(move || {
                    let (mut hits, mut misses) = (0u64, 0u64);
                    start.wait();
                    loop {
                        let pin = reader.pin();
                        let before = mapped.load(Ordering::SeqCst);
                        if before == u64::MAX {
                            return (hits, misses);
                        }
                        let mut found = [0; 8];
                        match pin.read(64, &mut found) {
                            Ok(()) => {
                                hits += 1;
                                let turn = u64::from_le_bytes(found);
                                // The value of `mapped` is set after the memory was mapped, and
                                // cleared before it is unmapped, which waits for this pin.
                                let after = mapped.load(Ordering::SeqCst);
                                let fits = turn <= before + 1 && after <= turn + 1;
                                assert!(fits, "{turn}: {before} to {after}");
                            }
                            Err(fault) => {
                                misses += 1;
                                assert_eq!(fault.reason, FaultReason::NotMapped);
                                assert_eq!(before % 2, 1, "it was mapped");
                            }
                        }
                    }
                })
            })
            .collect();
        start.wait();
        for turn in (2..2 * TURNS).step_by(2) {
            let [even, odd] = &memories;
            let memory = if turn % 4 == 0 { even } else { odd };
            memory.write(64, &turn.to_le_bytes()).unwrap();
            domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
            mapped.store(turn, Ordering::SeqCst);
            mapped.store(turn + 1, Ordering::SeqCst);
            domain.unmap(0, PAGE_SIZE).unwrap();
            assert!(memory.host_mappings().unwrap().is_empty());
        }
        mapped.store(u64::MAX, Ordering::SeqCst);
        for worker in workers {
            let (hit, missed) = worker.join().unwrap();
            hits += hit;
            misses += missed;
        }
    });
    assert!(hits > 0 && misses > 0, "{hits} {misses}");
    assert_eq!(domain.faults().count, misses);
}

#[test]
fn readers_come_and_go_while_mappings_change() {
    let memory = GuestMemory::new("coming", PAGE_SIZE).unwrap();
    let domain = domain(&memory);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                domain.unmap(0, PAGE_SIZE).unwrap();
                domain.map(0, PAGE_SIZE, RW, memory.backing(0).unwrap()).unwrap();
                count += 1;
            }
            count
        });
        for _ in 0..500 {
            let reader = domain.reader();
            let _ = reader.pin().write(0, b"x");
            // A reader that may be moved to another thread may be dropped there.
            scope.spawn(move || {
                let _ = reader.pin().write(0, b"y");
            });
        }
        stop.store(true, Ordering::Relaxed);
        assert!(changes.join().unwrap() > 0);
    });
    domain.unmap_all();
    assert!(memory.host_mappings().unwrap().is_empty());
}
