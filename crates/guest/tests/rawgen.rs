//! The raw generator on a real adapter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod support;

use manifold_guest::rawgen::config::{
    Config, Flow, Frames, Load, Mac, PortConfig, Protocol, Rings, Work,
};
use manifold_guest::rawgen::run;
use manifold_pci::FunctionId;
use support::Bed;

fn config(bed: &Bed, flows: Vec<Flow>) -> Config {
    let port = |vf| PortConfig::new(bed.socket(vf), Protocol::VfioUser);
    Config { warm_up_ms: 50, duration_ms: 300, ..Config::new((0..2).map(port).collect(), flows) }
}

fn flow(from: usize, to: usize, load: Load) -> Flow {
    Flow { from, to, queue: 0, load }
}

#[test]
fn a_closed_loop_loses_nothing() {
    let bed = Bed::new(2, 1500);
    let window = Load::Closed(128);
    let flows = vec![flow(0, 1, window), flow(1, 0, window)];
    for (frames, verify) in
        [(Frames::Size(60), false), (Frames::Size(60), true), (Frames::Imix, true)]
    {
        let report = run(&Config { frames, verify, ..config(&bed, flows.clone()) }).unwrap();
        println!("{report:?}");
        for (port, other) in [(0, 1), (1, 0)] {
            let (sent, received) = (report.ports[port].sent, report.ports[other].received);
            assert!(received > 1000, "{report:?}");
            // Only what was on its way at the start or the end makes a difference.
            assert!(sent.abs_diff(received) <= 128, "{report:?}");
            assert_eq!(report.ports[port].lost, 0);
        }
    }
}

#[test]
fn every_queue_pair_is_used() {
    let bed = Bed::new(2, 1500);
    let socket = |vf, protocol| match protocol {
        Protocol::VhostUser => bed.dir.path().join(format!("vf{vf}.vhost.sock")),
        _ => bed.socket(vf),
    };
    // Both ways on every pair: the device learns from what a port sends on a pair what to deliver there.
    let flows: Vec<_> = (0..3)
        .flat_map(|queue| [(0, 1, queue), (1, 0, queue)])
        .map(|(from, to, queue)| Flow { queue, ..flow(from, to, Load::Closed(64)) })
        .collect();
    for protocol in [Protocol::VfioUser, Protocol::VhostUser] {
        for packed in [false, true] {
            let rings = Rings { pairs: 3, packed, ..Rings::default() };
            let ports = (0..2).map(|vf| PortConfig {
                mac: Some(Mac(bed.adapter.function(FunctionId::Vf(vf)).unwrap().mac)),
                ..PortConfig::new(socket(vf, protocol), protocol)
            });
            let config = Config { ports: ports.collect(), ..config(&bed, flows.clone()) };
            let report = run(&Config { rings, verify: true, ..config }).unwrap();
            println!("{report:?}");
            assert_eq!(report.lost, 0);
            for pair in report.ports.iter().flat_map(|port| &port.pairs) {
                assert!(pair.sent > 100 && pair.received > 100, "{report:?}");
            }
        }
    }
    let rings = Rings { pairs: 99, ..Rings::default() };
    let error = run(&Config { rings, ..config(&bed, flows) }).unwrap_err().to_string();
    assert!(error.contains("the device has 4"), "{error}");
}

#[test]
fn a_rate_is_kept() {
    let bed = Bed::new(2, 1500);
    let report = run(&config(&bed, vec![flow(0, 1, Load::Rate(10_000))])).unwrap();
    println!("{report:?}");
    let rate = report.ports[0].sent as f64 / report.seconds;
    assert!((8_000.0..12_000.0).contains(&rate), "{rate} frames/s");
}

#[test]
fn round_trips_are_timed() {
    let bed = Bed::new(2, 1500);
    for work in [
        Work::PingPong,
        Work::Sleeping { pause_us: 500, interrupts: false },
        Work::Sleeping { pause_us: 500, interrupts: true },
    ] {
        let report = run(&Config { work, ..config(&bed, Vec::new()) }).unwrap();
        println!("{work:?} {report:?}");
        let latency = report.latency.unwrap();
        assert!(latency.count > 20 && latency.lost == 0, "{report:?}");
        assert!(latency.min_ns > 0 && latency.p50_ns <= latency.p99_ns, "{report:?}");
    }
}

#[test]
fn flows_that_make_no_sense_are_refused() {
    let bed = Bed::new(2, 1500);
    let open = |from, to| flow(from, to, Load::Open);
    for flows in [vec![open(0, 9)], vec![open(9, 0)], vec![open(0, 1), open(0, 1)]] {
        assert!(run(&config(&bed, flows)).is_err());
    }
    let too_long = Config { frames: Frames::Size(1515), ..config(&bed, vec![open(0, 1)]) };
    assert!(run(&too_long).is_err());
}
