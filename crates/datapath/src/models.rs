//! These are models of the protocols between workers, run by loom through every order in which
//! their steps can be seen: `cargo xtask test --only models`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::handover::barrier::PhaseBarrier;
use crate::wake::sleeper::Sleeper;

/// A bell that counts how often it is rung.
#[derive(Default)]
struct Bell(AtomicUsize);

/// A worker that goes to sleep sees work that is published meanwhile, or its bell is rung.
#[test]
fn nobody_sleeps_through_work() {
    loom::model(|| {
        let sleeper = Arc::new(Sleeper::new());
        let work = Arc::new(AtomicUsize::new(0));
        let bell = Arc::new(Bell::default());
        let producer = {
            let (sleeper, work, bell) =
                (Arc::clone(&sleeper), Arc::clone(&work), Arc::clone(&bell));
            thread::spawn(move || {
                work.store(1, Ordering::Release);
                if sleeper.needs_wake() {
                    bell.0.fetch_add(1, Ordering::Release);
                }
            })
        };
        let asleep = sleeper.try_sleep(|| work.load(Ordering::Acquire) == 0);
        producer.join().unwrap();
        let rung = bell.0.load(Ordering::Acquire);
        if asleep {
            assert_eq!(rung, 1, "asleep with work waiting");
        }
        assert!(rung <= 1);
    });
}

/// Two threads bring work at once: one of them rings, and one only.
#[test]
fn the_bell_is_rung_once() {
    let mut model = loom::model::Builder::new();
    // With three threads every order would take minutes; errors need few changes of thread.
    model.preemption_bound = Some(3);
    model.check(|| {
        let sleeper = Arc::new(Sleeper::new());
        let work = Arc::new(AtomicUsize::new(0));
        let bell = Arc::new(Bell::default());
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let (sleeper, work, bell) =
                    (Arc::clone(&sleeper), Arc::clone(&work), Arc::clone(&bell));
                thread::spawn(move || {
                    work.fetch_add(1, Ordering::Release);
                    if sleeper.needs_wake() {
                        bell.0.fetch_add(1, Ordering::Release);
                    }
                })
            })
            .collect();
        let asleep = sleeper.try_sleep(|| work.load(Ordering::Acquire) == 0);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        let rung = bell.0.load(Ordering::Acquire);
        assert!(rung <= 1, "{rung}");
        assert!(!asleep || rung == 1);
    });
}

/// A ring for one writer and one reader, as simple as it can be, in place of the real one.
#[derive(Default)]
struct Ring(AtomicUsize);

impl Ring {
    fn push(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn take(&self) -> bool {
        let full = self.0.load(Ordering::Acquire) > 0;
        if full {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        full
    }
}

/// A frame is handed over and its sender's queue stops: the memory goes away only when the
/// completion is back, so the receiver's worker never touches memory that is gone.
#[test]
fn a_queue_waits_for_its_completions() {
    loom::model(|| {
        let memory = Arc::new(AtomicBool::new(true));
        let (there, back) = (Arc::new(Ring::default()), Arc::new(Ring::default()));
        let receiver = {
            let (memory, there, back) =
                (Arc::clone(&memory), Arc::clone(&there), Arc::clone(&back));
            thread::spawn(move || {
                while !there.take() {
                    thread::yield_now();
                }
                assert!(memory.load(Ordering::Relaxed), "touched after it was given back");
                back.push();
            })
        };
        there.push();
        while !back.take() {
            thread::yield_now();
        }
        memory.store(false, Ordering::Relaxed);
        receiver.join().unwrap();
    });
}

/// Two workers meet while a frame is on its way between them, and a queue moves from the second to
/// the first: the second leaves it before the first adopts it, and the frame has been delivered and
/// its completion returned before either.
#[test]
fn nothing_is_in_flight_when_queues_move() {
    loom::model(|| {
        let barrier = Arc::new(PhaseBarrier::new(2));
        let (frames, completions) = (Arc::new(Ring::default()), Arc::new(Ring::default()));
        // The value is 0 while the second worker has the queue, and 1 once it has left it.
        let queue = Arc::new(AtomicUsize::new(0));
        let second = {
            let (barrier, frames, completions, queue) = (
                Arc::clone(&barrier),
                Arc::clone(&frames),
                Arc::clone(&completions),
                Arc::clone(&queue),
            );
            thread::spawn(move || {
                let deliver = || {
                    if frames.take() {
                        assert_eq!(queue.load(Ordering::Relaxed), 0, "the queue has left");
                        completions.push();
                    }
                };
                barrier.pass(1, deliver);
                deliver();
                barrier.pass(2, deliver);
                queue.store(1, Ordering::Relaxed);
                barrier.pass(3, || {});
            })
        };
        frames.push();
        barrier.pass(1, || {});
        barrier.pass(2, || {});
        assert!(completions.take(), "still in flight");
        barrier.pass(3, || {});
        assert_eq!(queue.load(Ordering::Relaxed), 1);
        second.join().unwrap();
    });
}
