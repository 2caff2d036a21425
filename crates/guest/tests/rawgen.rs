//! The raw generator on a real adapter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use manifold_guest::rawgen::{Config, Flow, Load, run};
use std::time::Duration;
use support::Bed;

fn config(bed: &Bed, flows: Vec<Flow>) -> Config {
    Config {
        ports: (0..2).map(|vf| bed.socket(vf)).collect(),
        flows,
        frame_size: 60,
        queue_size: 256,
        burst: 32,
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(300),
    }
}

#[test]
fn a_closed_loop_loses_nothing() {
    let bed = Bed::new(2, 1500);
    let flow = |from, to| Flow { from, to, load: Load::Closed(128) };
    let report = run(&config(&bed, vec![flow(0, 1), flow(1, 0)])).unwrap();
    println!("{report:?}");
    for (port, other) in [(0, 1), (1, 0)] {
        let (sent, received) = (report.ports[port].sent, report.ports[other].received);
        assert!(received > 1000, "{report:?}");
        // Only what was on its way at the start or the end makes a difference.
        assert!(sent.abs_diff(received) <= 128, "{report:?}");
        assert_eq!(report.ports[port].lost, 0);
    }
}

#[test]
fn a_rate_is_kept() {
    let bed = Bed::new(2, 1500);
    let flow = Flow { from: 0, to: 1, load: Load::Rate(10_000) };
    let report = run(&config(&bed, vec![flow])).unwrap();
    println!("{report:?}");
    let rate = report.ports[0].sent as f64 / report.seconds;
    assert!((8_000.0..12_000.0).contains(&rate), "{rate} frames/s");
}

#[test]
fn flows_that_make_no_sense_are_refused() {
    let bed = Bed::new(2, 1500);
    let flow = |from, to| Flow { from, to, load: Load::Open };
    for flows in [vec![flow(0, 9)], vec![flow(9, 0)], vec![flow(0, 1), flow(0, 1)]] {
        assert!(run(&config(&bed, flows)).is_err());
    }
    let too_long = Config { frame_size: 1515, ..config(&bed, vec![flow(0, 1)]) };
    assert!(run(&too_long).is_err());
}
