//! These tests run two threads, a driver and a device, that sleep whenever they may: neither must
//! ever wait for the other in vain.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use manifold_dma::Reader;
use manifold_testing::{DESC, DISABLE, Descriptor, Driver, ENABLE, Memory, PackedDriver};
use manifold_virtio::ring::{Burst, Queue, QueueState, RingFeatures};

const CHAINS: usize = 20_000;
/// The time that nobody who is woken at all ever waits.
const PATIENCE: Duration = Duration::from_secs(20);

struct Device {
    reader: Reader,
    queue: Queue,
    kicks: Receiver<()>,
    interrupt: Sender<()>,
}

impl Device {
    /// Serves the queue as a worker does; returns how often it slept.
    fn run(mut self) -> usize {
        let (mut served, mut slept) = (0, 0);
        while served < CHAINS {
            let wait = {
                let pin = self.reader.pin();
                let mut burst = self.queue.open(&pin).unwrap();
                let mut taken = 0;
                burst.disarm();
                while let Some(chain) = burst.pop(|_, _| true).unwrap() {
                    burst.complete(&chain, 0);
                    taken += 1;
                }
                served += taken;
                if burst.publish() {
                    self.interrupt.send(()).unwrap();
                }
                taken == 0 && !burst.arm().unwrap()
            };
            if wait {
                self.kicks.recv_timeout(PATIENCE).unwrap();
                slept += 1;
            }
        }
        slept
    }
}

/// Returns whether the one who wrote indices `old` to `new` must notify the one who asked for
/// `event` (2.7.7.1).
fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

fn nobody_sleeps_for_ever(features: RingFeatures) {
    // The start is close to the end, so that the indices wrap around.
    const BEGIN: u16 = 50_000;
    let mut driver = Driver::new(4, features);
    driver.set_available(BEGIN);
    driver.put(driver.addresses.device + 2, &BEGIN.to_le_bytes());
    let (kick, kicks) = channel();
    let (interrupt, interrupts) = channel();
    let state = QueueState { next_avail: BEGIN, next_used: BEGIN };
    let queue = Queue::new(driver.addresses, features).unwrap().resume(state).unwrap();
    let device = Device { reader: driver.reader(), queue, kicks, interrupt };
    let mut slept = 0;
    thread::scope(|scope| {
        let device = scope.spawn(|| device.run());
        let (mut offered, mut used) = (0usize, 0usize);
        let index = |count: usize| BEGIN.wrapping_add(count as u16);
        while used < CHAINS {
            // The driver offers one to three at a time, as many as fit.
            let batch = (1 + offered % 3).min(4 - (offered - used)).min(CHAINS - offered);
            let old = index(offered);
            for _ in 0..batch {
                driver.offer((offered % 4) as u16);
                offered += 1;
            }
            fence(Ordering::SeqCst);
            let wanted = if features.event_index {
                passed(driver.avail_event(), old, index(offered))
            } else {
                driver.device_flags() == 0
            };
            if batch > 0 && wanted {
                kick.send(()).unwrap();
            }
            let done = driver.used_index().wrapping_sub(index(used));
            used += usize::from(done);
            if done > 0 || offered - used < 4 && offered < CHAINS {
                continue;
            }
            // The ring is full, so the driver asks for an interrupt, looks once more and sleeps.
            driver.set_flags(0);
            driver.set_used_event(index(used));
            fence(Ordering::SeqCst);
            if driver.used_index() == index(used) {
                interrupts.recv_timeout(PATIENCE).unwrap();
                slept += 1;
            }
            driver.set_flags(1);
        }
        slept += device.join().unwrap();
    });
    assert!(slept > 0, "the test never got to what it tests");
}

#[test]
fn nobody_sleeps_for_ever_with_flags() {
    nobody_sleeps_for_ever(RingFeatures {
        event_index: false,
        indirect: false,
        ..RingFeatures::default()
    });
}

#[test]
fn nobody_sleeps_for_ever_with_event_index() {
    nobody_sleeps_for_ever(RingFeatures {
        event_index: true,
        indirect: false,
        ..RingFeatures::default()
    });
}

fn nobody_sleeps_for_ever_in_a_packed_ring(features: RingFeatures) {
    const SIZE: u16 = 5;
    let mut driver = PackedDriver::new(SIZE, features);
    let (kick, kicks) = channel();
    let (interrupt, interrupts) = channel();
    let queue = Queue::new(driver.guest.addresses, features).unwrap();
    let device = Device { reader: driver.guest.reader(), queue, kicks, interrupt };
    let buffer = Descriptor { iova: 0x8_0000, len: 1, ..Descriptor::default() };
    let mut slept = 0;
    thread::scope(|scope| {
        let device = scope.spawn(|| device.run());
        let (mut offered, mut used) = (0usize, 0usize);
        while used < CHAINS {
            // The driver offers one to three chains of one to three descriptors, as many as fit.
            let mut places = Vec::new();
            for _ in 0..(1 + offered % 3).min(CHAINS - offered) {
                let place = driver.next_avail;
                if driver.offer(&vec![buffer; 1 + offered % 3]).is_none() {
                    break;
                }
                places.push(place.bits());
                offered += 1;
            }
            fence(Ordering::SeqCst);
            let wanted = match driver.device_event() {
                (_, DISABLE) => false,
                (event, DESC) => places.contains(&event),
                _ => true,
            };
            if !places.is_empty() && wanted {
                kick.send(()).unwrap();
            }
            let done = driver.used().len();
            used += done;
            if done > 0 || driver.free() >= 3 && offered < CHAINS {
                continue;
            }
            // The ring is full, so the driver asks for an interrupt, looks once more and sleeps.
            let flags = if features.event_index { DESC } else { ENABLE };
            driver.set_event(driver.last_used.bits(), flags);
            fence(Ordering::SeqCst);
            let done = driver.used().len();
            used += done;
            if done == 0 {
                interrupts.recv_timeout(PATIENCE).unwrap();
                slept += 1;
            }
            driver.set_event(0, DISABLE);
        }
        slept += device.join().unwrap();
    });
    assert!(slept > 0, "the test never got to what it tests");
}

#[test]
fn nobody_sleeps_for_ever_in_a_packed_ring_with_flags() {
    let features = RingFeatures { packed: true, ..RingFeatures::default() };
    nobody_sleeps_for_ever_in_a_packed_ring(features);
}

#[test]
fn nobody_sleeps_for_ever_in_a_packed_ring_with_event_index() {
    let features = RingFeatures { packed: true, event_index: true, ..RingFeatures::default() };
    nobody_sleeps_for_ever_in_a_packed_ring(features);
}

#[test]
fn nobody_sleeps_for_ever_in_a_packed_ring_in_order() {
    let event_index = RingFeatures { packed: true, event_index: true, ..RingFeatures::default() };
    nobody_sleeps_for_ever_in_a_packed_ring(RingFeatures { in_order: true, ..event_index });
}
