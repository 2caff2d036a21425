//! This example attaches to two VFs of a running adapter, as the VMMs of two virtual machines
//! would, and sends a frame from the first to the second.
//!
//!     cargo run -- serve --num-vfs 2 --run-dir /tmp/m &
//!     cargo run -p manifold-guest --example attach -- /tmp/m
//!
//! ```text
//!   VirtioNet ── registers over vf0.sock ──► adapter ◄── registers over vf1.sock ── VirtioNet
//!     Arena ──────── TX buffers, by DMA ────────┴───────► RX buffers, by DMA ────────► Arena
//! ```

use manifold_guest::memory::Arena;
use manifold_guest::vfio::{ClientKind, DmaMode, Function};
use manifold_guest::virtio::{NetOptions, VirtioNet};
use manifold_guest::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Attaches to the function behind a vfio-user socket and brings its network device up.
fn attach(socket: &Path) -> Result<VirtioNet> {
    let options = NetOptions::default();
    // 1. A machine needs memory: one file, which the adapter maps as well. The device sees it at
    //    this address, its IOVA, and reaches nothing else.
    let arena = Arc::new(Arena::new(options.memory(u16::MAX), 0x1_0000_0000)?);
    // 2. The VMM connects, asks for the function's BARs, and maps the memory for DMA.
    let function = Function::open(socket, ClientKind::Own, DmaMode::Shared, arena)?;
    // 3. The machine's driver does this: it finds the virtio registers through the PCI
    //    capabilities, agrees on features, sets up MSI-X and virtqueues, and gives the device
    //    receive buffers.
    VirtioNet::start(function, &options)
}

fn main() -> Result<()> {
    let run_dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut sender = attach(&run_dir.join("vf0.sock"))?;
    let mut receiver = attach(&run_dir.join("vf1.sock"))?;

    // The adapter knows its functions' addresses. It drops a frame whose source is not the sender's
    // (spoofchk).
    let (to, from) = (receiver.info().mac, sender.info().mac);
    let mut frame = [&to[..], &from, &[0x88, 0xb5], b"hello"].concat();
    frame.resize(60, 0);
    let (device, _, tx) = sender.parts();
    for queue in tx.iter_mut().take(1) {
        queue.send(&frame)?; // written to guest memory, described in the ring
        queue.flush(device)?; // published, and the doorbell is rung if the device asks for it
    }

    // Here the receiver polls. `VirtioNet::interrupts` are the eventfds that it could sleep on
    // instead.
    let (mut room, begin) = (vec![0; 1 << 16], Instant::now());
    while begin.elapsed() < Duration::from_secs(5) {
        let (device, rx, _) = receiver.parts();
        for queue in rx {
            while let Some(len) = queue.receive(&mut room)? {
                let received = room.get(..len).unwrap_or_default();
                println!(
                    "vf1 received {len} bytes; the frame that was sent: {}",
                    received == frame
                );
            }
            queue.flush(device)?; // gives the buffers back
        }
        std::thread::sleep(Duration::from_millis(100));
        if receiver.counters().rx_frames > 0 {
            return Ok(());
        }
    }
    Err(Error::Device("the frame did not arrive within 5 s".into()))
}
