//! These tests run the raw generator on a real adapter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

#[path = "../../guest/tests/support/bed.rs"]
mod bed;

use bed::Bed;
use manifold_generator::config::{
    Config, Flow, Frames, Load, Mac, PortConfig, Protocol, Rings, Work,
};
use manifold_generator::run;
use manifold_pci::FunctionId;

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
            // Only frames on their way at the start or the end make a difference.
            assert!(sent.abs_diff(received) <= 128, "{report:?}");
            assert_eq!(report.ports[port].lost, 0);
        }
    }
}

/// Returns flows both ways on three pairs: the device learns from what a port sends on a pair what
/// to deliver there.
fn three_pairs() -> Vec<Flow> {
    (0..3)
        .flat_map(|queue| [(0, 1, queue), (1, 0, queue)])
        .map(|(from, to, queue)| Flow { queue, ..flow(from, to, Load::Closed(64)) })
        .collect()
}

fn every_queue_pair_is_used(protocol: Protocol, packed: bool) {
    let bed = Bed::new(2, 1500);
    let port = |vf| PortConfig {
        mac: Some(Mac(bed.adapter.function(FunctionId::Vf(vf)).unwrap().mac)),
        ..PortConfig::new(
            match protocol {
                Protocol::VhostUser => bed.dir.path().join(format!("vf{vf}.vhost.sock")),
                _ => bed.socket(vf),
            },
            protocol,
        )
    };
    let config = Config {
        ports: (0..2).map(port).collect(),
        rings: Rings { pairs: 3, packed, ..Rings::default() },
        verify: true,
        ..config(&bed, three_pairs())
    };
    let report = run(&config).unwrap();
    println!("{report:?}");
    assert_eq!(report.lost, 0);
    for pair in report.ports.iter().flat_map(|port| &port.pairs) {
        assert!(pair.sent > 100 && pair.received > 100, "{report:?}");
    }
}

#[test]
fn every_queue_pair_is_used_over_vfio_user() {
    every_queue_pair_is_used(Protocol::VfioUser, false);
    every_queue_pair_is_used(Protocol::VfioUser, true);
}

#[test]
fn every_queue_pair_is_used_over_vhost_user() {
    every_queue_pair_is_used(Protocol::VhostUser, false);
    every_queue_pair_is_used(Protocol::VhostUser, true);
}

#[test]
fn more_queue_pairs_than_there_are_cannot_be_used() {
    let bed = Bed::new(2, 1500);
    let rings = Rings { pairs: 5, ..Rings::default() };
    let error = run(&Config { rings, ..config(&bed, three_pairs()) }).unwrap_err().to_string();
    assert!(error.contains("the device has 4"), "{error}");
}

#[test]
fn frames_that_get_lost_are_given_up_while_others_are_busy() {
    let bed = Bed::new(3, 1500);
    let window = Load::Closed(32);
    let nobody = Some(Mac([0x02, 0xaa, 0, 0, 0, 1]));
    let port = |vf| PortConfig {
        mac: nobody.filter(|_| vf == 2),
        ..PortConfig::new(bed.socket(vf), Protocol::VfioUser)
    };
    let flows =
        vec![flow(0, 1, window), flow(1, 0, window), Flow { queue: 1, ..flow(0, 2, window) }];
    let config = Config {
        ports: (0..3).map(port).collect(),
        rings: Rings { pairs: 2, ..Rings::default() },
        ready_ms: 30,
        duration_ms: 700,
        ..config(&bed, flows)
    };
    let report = run(&config).unwrap();
    println!("{report:?}");
    let [a, b, lost] = &report.ports[..] else { panic!("{report:?}") };
    assert!(a.received > 1000 && b.received > 1000 && lost.received == 0, "{report:?}");
    assert!(lost.lost >= 32 && lost.lost.is_multiple_of(32), "{report:?}");
    // Each window was sent again.
    assert!(a.pairs[1].sent.abs_diff(lost.lost) <= 32, "{report:?}");
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
