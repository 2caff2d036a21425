//! These tests run guests on a real adapter: ping, TCP, both clients, several queues, memory by
//! messages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use manifold_dma::{Access, FaultReason};
use manifold_guest::protocol::{Command, Config, Direction, Event, Incoming, Outgoing};
use manifold_guest::vfio::{ClientKind, DmaMode};
use manifold_pci::FunctionId;
use support::{Bed, Guest, ip};

fn all_answered(events: &[Event], count: u32) {
    for event in events {
        let Event::Pinged { sent, received, rtt_us, .. } = event else { panic!("{event:?}") };
        assert_eq!((*sent, *received), (count, count), "{event:?}");
        assert!(rtt_us.is_some_and(|rtt| rtt.min > 0.0 && rtt.min <= rtt.median));
    }
}

/// Sends `bytes` from one guest to the other and compares what arrived.
fn transfer(from: &mut Guest, to: &mut Guest, to_ip: std::net::Ipv4Addr, bytes: u64) -> f64 {
    to.tell(&Command::Receive { transfers: vec![Incoming { id: 7, port: 5000 }] });
    assert_eq!(to.next(), Event::Listening { transfers: 1 });
    from.tell(&Command::Send {
        transfers: vec![Outgoing { id: 7, to: to_ip, port: 5000, bytes, seed: 1 }],
    });
    let (sent, received) = (from.next(), to.next());
    let Event::Sent { id: 7, bytes: b1, digest: d1, seconds } = sent else { panic!("{sent:?}") };
    let Event::Received { id: 7, bytes: b2, digest: d2, .. } = received else {
        panic!("{received:?}")
    };
    assert_eq!((b1, b2), (bytes, bytes));
    assert_eq!(d1, d2);
    let rate = bytes as f64 * 8.0 / seconds / 1e9;
    println!("{bytes} bytes in {seconds:.3} s: {rate:.2} Gbit/s");
    rate
}

fn ping_and_transfer(a: Config, b: Config, bytes: u64) {
    let (mut a, mut b) = (Guest::start(a), Guest::start(b));
    a.configure(ip(0));
    b.configure(ip(1));
    all_answered(&a.ping(&[ip(1)], 10), 10);
    all_answered(&b.ping(&[ip(0)], 10), 10);
    transfer(&mut a, &mut b, ip(1), bytes);
    transfer(&mut b, &mut a, ip(0), bytes);
    a.stop();
    b.stop();
}

#[test]
fn two_guests_ping_and_transfer() {
    let bed = Bed::new(2, 9000);
    ping_and_transfer(Config::new(bed.socket(0)), Config::new(bed.socket(1)), 16 << 20);
}

#[test]
fn with_an_mtu_of_1500() {
    let bed = Bed::new(2, 1500);
    ping_and_transfer(Config::new(bed.socket(0)), Config::new(bed.socket(1)), 4 << 20);
}

#[test]
fn through_the_independent_client() {
    let bed = Bed::new(2, 9000);
    let theirs = |vf| Config { client: ClientKind::RustVmm, ..Config::new(bed.socket(vf)) };
    ping_and_transfer(theirs(0), theirs(1), 4 << 20);
}

#[test]
fn with_several_queue_pairs_and_indirect_descriptors() {
    let bed = Bed::new(2, 9000);
    let config = |vf| Config { queue_pairs: 4, indirect: true, ..Config::new(bed.socket(vf)) };
    ping_and_transfer(config(0), config(1), 4 << 20);
}

#[test]
fn without_the_features_that_a_driver_may_refuse() {
    use manifold_guest::virtio::feature;
    let bed = Bed::new(2, 9000);
    let plain = |vf| Config {
        refuse_features: feature::EVENT_IDX | feature::MRG_RXBUF | feature::CTRL_VQ,
        ..Config::new(bed.socket(vf))
    };
    ping_and_transfer(plain(0), plain(1), 4 << 20);
}

/// The data path needs memory it can map. A guest that shares none is told by DEVICE_NEEDS_RESET,
/// the operator by a fault with the reason; nobody else notices.
#[test]
fn memory_that_is_not_shared_stops_its_own_device_only() {
    let bed = Bed::new(3, 1500);
    let config = Config { dma: DmaMode::NotShared, ..Config::new(bed.socket(2)) };
    let mut unshared = Guest::start(config);
    let event = unshared.next();
    assert!(matches!(event, Event::Fatal { .. }), "{event:?}");
    let vf2 = bed.adapter.function(FunctionId::Vf(2)).unwrap();
    let reasons: Vec<_> = vf2.dma.faults.recent.iter().map(|fault| fault.reason).collect();
    assert!(reasons.contains(&FaultReason::NotShared), "{reasons:?}");
    ping_and_transfer(Config::new(bed.socket(0)), Config::new(bed.socket(1)), 1 << 20);
}

#[test]
fn rogue_dma_is_recorded_and_the_guest_goes_on() {
    let bed = Bed::new(3, 1500);
    let (mut a, mut b, mut c) =
        (Guest::attach(&bed, 0), Guest::attach(&bed, 1), Guest::attach(&bed, 2));
    for (n, guest) in (0..).zip([&mut a, &mut b, &mut c]) {
        guest.configure(ip(n));
    }
    all_answered(&a.ping(&[ip(1), ip(2)], 3), 3);
    for (iova, direction) in
        [(0xdead_beef_0000, Direction::Read), (0xdead_beef_8000, Direction::Write)]
    {
        a.tell(&Command::RogueDma { iova, direction });
        let event = a.next();
        let Event::RogueDma { needs_reset, recovered, .. } = event else { panic!("{event:?}") };
        assert!(needs_reset && recovered, "{event:?}");
        let faults = bed.adapter.function(FunctionId::Vf(0)).unwrap().dma.faults;
        let fault = faults.recent.iter().find(|fault| fault.iova == iova);
        let access = match direction {
            Direction::Read => Access::Read,
            Direction::Write => Access::Write,
        };
        assert!(
            fault.is_some_and(|f| f.reason == FaultReason::NotMapped && f.access == access),
            "{faults:?}"
        );
        all_answered(&a.ping(&[ip(1), ip(2)], 3), 3);
        all_answered(&b.ping(&[ip(2)], 3), 3);
    }
    assert_eq!(bed.adapter.function(FunctionId::Vf(1)).unwrap().dma.faults.count, 0);
}

#[test]
fn eight_guests_ping_each_other_and_transfer_all_at_once() {
    const N: u16 = 8;
    const BYTES: u64 = 2 << 20;
    let bed = Bed::new(N, 9000);
    let mut guests: Vec<_> = (0..N).map(|vf| Guest::attach(&bed, vf)).collect();
    for (n, guest) in (0..).zip(&mut guests) {
        guest.configure(ip(n));
    }
    let others = |n: u16| (0..N).filter(move |m| *m != n);
    for (n, guest) in (0..).zip(&mut guests) {
        let targets: Vec<_> = others(n).map(ip).collect();
        all_answered(&guest.ping(&targets, 3), 3);
    }
    for (n, guest) in (0..).zip(&mut guests) {
        let transfers = others(n)
            .map(|m| Incoming { id: u32::from(m) << 8 | u32::from(n), port: 5000 + m })
            .collect();
        guest.tell(&Command::Receive { transfers });
        assert!(matches!(guest.next(), Event::Listening { .. }));
    }
    for (n, guest) in (0..).zip(&mut guests) {
        let outgoing = |m: u16| Outgoing {
            id: u32::from(n) << 8 | u32::from(m),
            to: ip(m),
            port: 5000 + n,
            bytes: BYTES,
            seed: (u64::from(n) << 8) | u64::from(m),
        };
        guest.tell(&Command::Send { transfers: others(n).map(outgoing).collect() });
    }
    let mut digests = std::collections::HashMap::<u32, Vec<String>>::new();
    for guest in &mut guests {
        for _ in 0..2 * (N - 1) {
            match guest.next() {
                Event::Sent { id, bytes: BYTES, digest, .. }
                | Event::Received { id, bytes: BYTES, digest, .. } => {
                    digests.entry(id).or_default().push(digest);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(digests.len(), usize::from(N * (N - 1)));
    assert!(digests.values().all(|pair| pair.len() == 2 && pair[0] == pair[1]));
    guests.into_iter().for_each(Guest::stop);
}

/// As many requests and answers at once as a ring holds must not overrun anything inside a guest
/// either.
#[test]
fn a_flood_of_pings_is_answered_in_full() {
    const COUNT: u32 = 40;
    let bed = Bed::new(4, 1500);
    let mut guests: Vec<_> = (0..4).map(|vf| Guest::attach(&bed, vf)).collect();
    for (n, guest) in (0..).zip(&mut guests) {
        guest.configure(ip(n));
    }
    for (n, guest) in (0..).zip(&mut guests) {
        let targets = (0..4).filter(|m| *m != n).map(ip).collect();
        let (interval_ms, timeout_ms, payload) = (0, 10_000, 1000);
        guest.tell(&Command::Ping { targets, count: COUNT, interval_ms, timeout_ms, payload });
    }
    for guest in &mut guests {
        let events: Vec<_> = (0..3).map(|_| guest.next()).collect();
        all_answered(&events, COUNT);
    }
}

#[test]
fn a_guest_whose_function_goes_away_ends() {
    let bed = Bed::new(2, 1500);
    let (mut a, b) = (Guest::attach(&bed, 0), Guest::attach(&bed, 1));
    a.configure(ip(0));
    bed.adapter.disable_vfs();
    for mut guest in [a, b] {
        let event = guest.next();
        assert!(matches!(event, Event::Fatal { .. }), "{event:?}");
    }
    bed.adapter.enable_vfs(2).unwrap();
    ping_and_transfer(Config::new(bed.socket(0)), Config::new(bed.socket(1)), 1 << 20);
}

#[test]
fn bad_commands_are_answered_and_forgotten() {
    let bed = Bed::new(1, 1500);
    let mut guest = Guest::attach(&bed, 0);
    let failed = |guest: &mut Guest, text: &str| {
        guest.tell_line(text);
        let event = guest.next();
        assert!(matches!(event, Event::Failed { id: None, .. }), "{text}: {event:?}");
    };
    failed(&mut guest, "nonsense");
    failed(&mut guest, "{}");
    failed(&mut guest, r#"{"command":"ping","targets":["10.77.0.2"],"count":1}"#);
    failed(&mut guest, r#"{"command":"configure","address":"10.77.0.1","prefix":33}"#);
    failed(&mut guest, r#"{"command":"send","transfers":[{"id":1}]}"#);
    guest.configure(ip(0));
    guest.stop();
}

#[test]
fn a_guest_that_listens_to_nobody_fails_alone() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) = (Guest::attach(&bed, 0), Guest::attach(&bed, 1));
    a.configure(ip(0));
    b.configure(ip(1));
    let to = |id, to| Outgoing { id, to, port: 9, bytes: 1, seed: 0 };
    a.tell(&Command::Send { transfers: vec![to(1, ip(1))] });
    let refused = a.next();
    assert!(matches!(refused, Event::Failed { id: Some(1), .. }), "{refused:?}");
    a.tell(&Command::Ping {
        targets: vec![ip(99)],
        count: 1,
        interval_ms: 1,
        timeout_ms: 300,
        payload: 8,
    });
    let unanswered = a.next();
    assert!(
        matches!(unanswered, Event::Pinged { received: 0, rtt_us: None, .. }),
        "{unanswered:?}"
    );
    all_answered(&a.ping(&[ip(1)], 3), 3);
}
