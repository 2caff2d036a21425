//! These tests run the generator in loopback, without a device.

use super::*;
use crate::config::{Config, Flow, Frames, Load, PortConfig, Protocol, Rings, Work};

fn loopback(ports: usize, flows: &[(usize, usize, u16)]) -> Config {
    let flow = |&(from, to, queue): &(usize, usize, u16)| Flow {
        from,
        to,
        queue,
        load: Load::Closed(100),
    };
    Config {
        warm_up_ms: 5,
        duration_ms: 20,
        ..Config::new(
            vec![PortConfig::new("", Protocol::Loopback); ports],
            flows.iter().map(flow).collect(),
        )
    }
}

#[test]
fn every_kind_of_ring_turns() {
    for packed in [false, true] {
        for (in_order, assume_order) in [(false, true), (false, false), (true, true), (true, false)]
        {
            for verify in [false, true] {
                let rings = Rings { packed, in_order, assume_order, size: 64, ..Rings::default() };
                let config = Config { rings, verify, ..loopback(2, &[(0, 1, 0), (1, 0, 0)]) };
                let report = run(&config).unwrap();
                assert!(report.received > 0, "{rings:?} {report:?}");
                assert!(report.missing.abs() <= 200 && report.lost == 0, "{report:?}");
            }
        }
    }
}

#[test]
fn frames_of_all_kinds_arrive_whole() {
    for frames in [Frames::Imix, Frames::Size(1514), Frames::Tso { bytes: 65549, mss: 1448 }] {
        for packed in [false, true] {
            for rx_buffer in [0, 2048] {
                let mergeable = rx_buffer > 0;
                let rings = Rings { packed, mergeable, rx_buffer, ..Rings::default() };
                let config = Config { rings, frames, verify: true, ..loopback(2, &[(0, 1, 0)]) };
                let report = run(&config).unwrap();
                assert!(report.received > 0, "{rings:?} {report:?}");
                // Without verification as many frames are counted as there are.
                let config = Config { verify: false, ..config };
                let report = run(&config).unwrap();
                assert!(report.missing.abs() <= 100 && report.received > 0, "{report:?}");
            }
        }
    }
}

#[test]
fn queues_and_ports_are_used_as_told() {
    let rings = Rings { pairs: 3, ..Rings::default() };
    let config = Config { rings, ..loopback(4, &[(0, 1, 0), (0, 1, 2), (2, 3, 1)]) };
    let report = run(&config).unwrap();
    let sent: Vec<_> = report.ports.iter().map(|port| port.sent > 0).collect();
    let received: Vec<_> = report.ports.iter().map(|port| port.received > 0).collect();
    assert_eq!(sent, [true, false, true, false]);
    assert_eq!(received, [false, true, false, true]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = loopback(2, &[(0, 1, 0)]);
    let rings = |rings: Rings| Config { rings, ..good.clone() };
    for bad in [
        loopback(0, &[]),
        loopback(2, &[]),
        loopback(2, &[(0, 2, 0)]),
        loopback(2, &[(0, 1, 1)]),
        loopback(2, &[(0, 1, 0), (0, 1, 0)]),
        Config { work: Work::PingPong, ..good.clone() },
        Config { frames: Frames::Size(59), ..good.clone() },
        rings(Rings { size: 100, ..Rings::default() }),
        rings(Rings { size: 2048, ..Rings::default() }),
        rings(Rings { rx_buffer: 64, ..Rings::default() }),
        Config { cpu: Some(usize::MAX), ..good.clone() },
    ] {
        assert!(run(&bad).is_err(), "{bad:?}");
    }
}
