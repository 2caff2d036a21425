//! The bystanders are two guests that do nothing wrong and count every frame.

use manifold_guest::memory::Arena;
use manifold_guest::vfio::{ClientKind, DmaMode, Function};
use manifold_guest::virtio::{NetOptions, VirtioNet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Largest number of frames on their way, fewer than a ring holds, so that none may be lost.
const WINDOW: u64 = 32;

/// A stream of numbered frames from one VF to another, in a thread of its own.
pub(crate) struct Bystanders {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    thread: Option<JoinHandle<u64>>,
}

fn open(socket: &Path) -> VirtioNet {
    let options = NetOptions { rx_buffer: 2048, ..NetOptions::default() };
    let arena = Arc::new(Arena::new(options.memory(1500), 0x1_0000_0000).unwrap());
    let function = Function::open(socket, ClientKind::Own, DmaMode::Shared, arena).unwrap();
    VirtioNet::start(function, &options).unwrap()
}

impl Bystanders {
    pub(crate) fn start(from: &Path, to: &Path) -> Self {
        let (mut a, mut b) = (open(from), open(to));
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (stop.clone(), received.clone());
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 600];
            frame[0..6].copy_from_slice(&b.info().mac);
            frame[6..12].copy_from_slice(&a.info().mac);
            frame[12..14].copy_from_slice(&[0x88, 0xb6]);
            let (mut sent, mut expected) = (0u64, 0u64);
            let mut room = vec![0; 65536];
            let mut last = Instant::now();
            loop {
                let stopping = stopped.load(Ordering::Relaxed);
                while !stopping && sent - expected < WINDOW {
                    frame[14..22].copy_from_slice(&sent.to_be_bytes());
                    let (device, _, tx) = a.parts();
                    if !tx[0].send(&frame).unwrap() {
                        break;
                    }
                    tx[0].flush(device).unwrap();
                    sent += 1;
                }
                let (device, rx, _) = b.parts();
                while let Some(len) = rx[0].receive(&mut room).unwrap() {
                    if room[12..14] == [0x88, 0xb6] {
                        assert_eq!(len, frame.len());
                        let number = u64::from_be_bytes(room[14..22].try_into().unwrap());
                        assert_eq!(number, expected, "a frame was lost, doubled or reordered");
                        expected += 1;
                        last = Instant::now();
                    }
                }
                rx[0].flush(device).unwrap();
                // The accomplice's broadcasts arrive at the sender too.
                let (device, rx, _) = a.parts();
                rx[0].discard(256).unwrap();
                rx[0].flush(device).unwrap();
                count.store(expected, Ordering::Relaxed);
                if stopping && sent == expected {
                    a.check().unwrap();
                    b.check().unwrap();
                    return expected;
                }
                assert!(last.elapsed() < Duration::from_secs(20), "{sent} sent, {expected} came");
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        Self { stop, received, thread: Some(thread) }
    }

    /// Frames that arrived so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for everything to arrive that was sent. Panics where anything was lost.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}
