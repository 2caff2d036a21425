//! These tests check when rings are served: once they are started and enabled, have memory, and
//! everything is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod support;

use manifold_vhost_user::QueueState;
use manifold_vhost_user::spec::{request, status};
use support::{Call, Fixture, addresses, pair, region};

const GUEST: u64 = 0x1_0000;
const USER: u64 = 0x7fff_0000_0000;

fn started(ring: u16, next: u16) -> Call {
    Call::Start {
        ring,
        at: [GUEST, GUEST + 0x1000, GUEST + 0x2000],
        size: 256,
        position: QueueState { next_avail: next, next_used: next },
        kick: true,
        tracked: false,
    }
}

#[test]
fn a_ring_is_served_once_everything_is_said_in_any_order() {
    let orders: [&[&str]; 4] = [
        &["memory", "ring", "kick", "enable"],
        &["enable", "kick", "ring", "memory"],
        &["kick", "memory", "enable", "ring"],
        &["ring", "enable", "memory", "kick"],
    ];
    for order in orders {
        let fixture = Fixture::new();
        let mut client = fixture.negotiated();
        for (step, what) in order.iter().enumerate() {
            match *what {
                "memory" => assert_eq!(client.share(GUEST, USER), 0),
                "ring" => client.set_up_ring(1, USER),
                "kick" => assert_eq!(client.kick(1), 0),
                _ => assert_eq!(client.enable(1, 1), 0),
            }
            let calls = fixture.dummy.take();
            assert_eq!(calls.contains(&started(1, 7)), step == 3, "{order:?}: {calls:?}");
        }
    }
}

#[test]
fn a_ring_pauses_and_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    assert_eq!(client.share(GUEST, USER), 0);
    client.set_up_ring(1, USER);
    client.kick(1);
    client.enable(1, 1);
    *fixture.dummy.position.lock() = QueueState { next_avail: 9, next_used: 9 };
    fixture.dummy.take();
    // The ring is disabled and enabled again, kicked another way, and has other memory.
    client.enable(1, 0);
    assert_eq!(fixture.dummy.take(), [Call::Stop(1)]);
    client.enable(1, 1);
    assert_eq!(fixture.dummy.take(), [started(1, 9)]);
    client.kick(1);
    assert_eq!(fixture.dummy.take(), [Call::Stop(1), started(1, 9)]);
    assert_eq!(client.share(GUEST + 0x10_0000, USER), 0);
    let calls = fixture.dummy.take();
    assert_eq!(calls[0], Call::Stop(1));
    assert!(matches!(calls[1..], [Call::Unmap(_), Call::Map(_), Call::Start { ring: 1, .. }]));
    // These requests ask for what cannot change meanwhile.
    for (code, payload) in [
        (request::SET_VRING_NUM, pair(1, 128)),
        (request::SET_VRING_BASE, pair(1, 0)),
        (request::SET_VRING_ADDR, addresses(1, [USER + 0x3000, USER, USER])),
        (request::SET_FEATURES, (1_u64 << 32).to_ne_bytes().to_vec()),
    ] {
        assert_eq!(client.acknowledged(code, &payload, &[]), 1, "{code}");
    }
    client.tell(request::GET_VRING_BASE, &pair(1, 0));
    assert_eq!(client.reply(request::GET_VRING_BASE), pair(1, 9));
    assert_eq!(fixture.dummy.take(), [Call::Stop(1)]);
    client.tell(request::GET_VRING_BASE, &pair(0, 0));
    assert_eq!(client.reply(request::GET_VRING_BASE), pair(0, 0));
}

#[test]
fn frames_are_steered_to_the_leading_pairs() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    client.share(GUEST, USER);
    for ring in 0..4 {
        client.set_up_ring(ring, USER);
        client.kick(ring);
    }
    for (ring, enable, pairs) in [
        (0, 1, None),
        (2, 1, Some(2)),
        (1, 1, None),
        (0, 0, Some(1)),
        (0, 1, Some(2)),
        (2, 0, Some(1)),
    ] {
        fixture.dummy.take();
        client.enable(ring, enable);
        let calls = fixture.dummy.take();
        let steered = calls.iter().position(|call| matches!(call, Call::Pairs(_)));
        assert_eq!(steered.map(|at| calls[at].clone()), pairs.map(Call::Pairs), "{calls:?}");
        if let (Some(at), 0) = (steered, enable) {
            assert_eq!(at, 0, "frames still come to a ring that was stopped: {calls:?}");
        }
    }
}

#[test]
fn regions_come_and_go_one_by_one() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    assert!(client.ask(request::GET_MAX_MEM_SLOTS) >= 8);
    let single = |guest, user| [vec![0; 8], region(guest, 0x10000, user)].concat();
    let file = support::memory();
    let fds = [std::os::fd::AsFd::as_fd(&file)];
    assert_eq!(client.acknowledged(request::ADD_MEM_REG, &single(GUEST, USER), &fds), 0);
    client.set_up_ring(0, USER);
    client.kick(0);
    client.enable(0, 1);
    fixture.dummy.take();
    // Another region beside it does not disturb the ring.
    let (guest, user) = (GUEST + 0x10_0000, USER + 0x10_0000);
    assert_eq!(client.acknowledged(request::ADD_MEM_REG, &single(guest, user), &fds), 0);
    assert!(matches!(fixture.dummy.take()[..], [Call::Map(_)]));
    // Old clients send a descriptor along.
    assert_eq!(client.acknowledged(request::REM_MEM_REG, &single(guest, user), &fds), 0);
    assert!(matches!(fixture.dummy.take()[..], [Call::Unmap(_)]));
    assert_eq!(client.acknowledged(request::REM_MEM_REG, &single(guest, user), &[]), 1);
    assert_eq!(client.acknowledged(request::ADD_MEM_REG, &single(GUEST, user), &fds), 1);
}

#[test]
fn the_status_register_is_the_clients_or_derived() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    let set = |client: &mut support::Raw, value: u64| {
        assert_eq!(client.acknowledged(request::SET_STATUS, &value.to_ne_bytes(), &[]), 0);
    };
    set(&mut client, 7);
    assert_eq!(client.ask(request::GET_STATUS), 7);
    client.share(GUEST, USER);
    client.set_up_ring(1, USER);
    client.kick(1);
    client.enable(1, 1);
    fixture.dummy.fds.lock()[0].fail(&"broken");
    set(&mut client, 15);
    assert_eq!(client.ask(request::GET_STATUS), 15 | u64::from(status::NEEDS_RESET));
    // A reset stops the rings and keeps the memory.
    fixture.dummy.take();
    set(&mut client, 0);
    assert_eq!(fixture.dummy.take(), [Call::Stop(1)]);
    assert_eq!(client.ask(request::GET_STATUS), 0);
    client.set_up_ring(1, USER);
    client.kick(1);
    client.enable(1, 1);
    assert_eq!(fixture.dummy.take(), [started(1, 7)]);
    client.acknowledged(request::RESET_DEVICE, &[], &[]);
    assert_eq!(fixture.dummy.take(), [Call::Stop(1)]);
}

#[test]
fn what_is_in_flight_is_tracked_in_a_file_of_the_clients_keeping() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    let mut asked = vec![0; 16];
    asked.extend(4_u16.to_ne_bytes());
    asked.extend(256_u16.to_ne_bytes());
    client.tell(request::GET_INFLIGHT_FD, &asked);
    let answer = client.reply(request::GET_INFLIGHT_FD);
    let size = u64::from_ne_bytes(answer[..8].try_into().unwrap());
    assert_eq!(size, 4 * (256 * 16 + 64));
    client.share(GUEST, USER);
    client.set_up_ring(1, USER);
    client.kick(1);
    client.enable(1, 1);
    assert!(
        fixture.dummy.take().iter().any(|call| matches!(call, Call::Start { tracked: true, .. }))
    );
    // A region that is given back must be as large as what it tracks.
    let file = support::memory();
    let fds = [std::os::fd::AsFd::as_fd(&file)];
    assert_eq!(client.acknowledged(request::SET_INFLIGHT_FD, &answer, &fds), 0);
    let mut short = answer.clone();
    short[..8].copy_from_slice(&100_u64.to_ne_bytes());
    assert_eq!(client.acknowledged(request::SET_INFLIGHT_FD, &short, &fds), 1);
}

#[test]
fn announcement_and_mtu_reach_the_device() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    fixture.dummy.take();
    let mac = [2, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(client.acknowledged(request::SEND_RARP, &mac, &[]), 0);
    assert_eq!(client.acknowledged(request::NET_SET_MTU, &1400_u64.to_ne_bytes(), &[]), 0);
    assert_eq!(client.acknowledged(request::NET_SET_MTU, &9000_u64.to_ne_bytes(), &[]), 1);
    assert_eq!(client.acknowledged(request::NET_SET_MTU, &u64::MAX.to_ne_bytes(), &[]), 1);
    assert_eq!(fixture.dummy.take(), [Call::Announce([2, 0, 0, 0, 0, 1]), Call::Mtu(1400)]);
}
