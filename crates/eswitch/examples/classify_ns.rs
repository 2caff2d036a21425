//! This program measures nanoseconds per classification, by the number of functions and the kind of
//! frame.
//!
//! `cargo run --release -p manifold-eswitch --example classify_ns`

use std::hint::black_box;
use std::time::Instant;

use manifold_eswitch::{Decision, MacAddr, Policy, Source, TableBuilder};
use manifold_pci::FunctionId;

const ROUND: usize = 1 << 20;
const ROUNDS: usize = 41;

fn mac(n: u16) -> MacAddr {
    let [high, low] = n.to_be_bytes();
    MacAddr([0x02, 0x4d, 0x46, 0, high, low])
}

fn frame(to: MacAddr, from: MacAddr) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&to.octets());
    frame[6..12].copy_from_slice(&from.octets());
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame
}

fn main() {
    println!(
        "functions  unicast  unknown  broadcast  (ns per frame, spoofchk on, best of {ROUNDS})"
    );
    for functions in [2_u16, 16, 64, 256] {
        let policies: Vec<_> = (0..functions).map(|n| Policy::new(mac(n))).collect();
        let mut builder = TableBuilder::new();
        builder.uplink(true);
        for (n, policy) in (0..).zip(&policies) {
            builder.function(FunctionId::Vf(n), policy);
        }
        let table = builder.build();
        let measure = |to: &dyn Fn(u16) -> MacAddr| {
            // The frames visit all functions, each pair of neighbours at the same stride.
            let frames: Vec<_> = (0..functions)
                .map(|n| (Source::Function(FunctionId::Vf(n)), frame(to(n), mac(n))))
                .collect();
            (0..ROUNDS)
                .map(|_| {
                    let start = Instant::now();
                    for (source, frame) in frames.iter().cycle().take(ROUND) {
                        match table.classify(black_box(*source), black_box(frame), 64) {
                            Decision::Function(id) => drop(black_box(id)),
                            Decision::Multi(all) => drop(black_box(all.uplink())),
                            Decision::Uplink => (),
                            Decision::Drop(reason) => drop(black_box(reason)),
                        }
                    }
                    start.elapsed()
                })
                .min()
                .map_or(f64::NAN, |best| best.as_secs_f64() * 1e9 / ROUND as f64)
        };
        let unicast = measure(&|n| mac((n + functions / 2 + 1) % functions));
        let unknown = measure(&|n| mac(n | 0x8000));
        let broadcast = measure(&|_| MacAddr::BROADCAST);
        println!("{functions:9}  {unicast:7.2}  {unknown:7.2}  {broadcast:9.2}");
    }
}
