//! These tests show that clients which break the rules, or die, harm nobody but themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod support;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use manifold_vhost_user::Disconnect;
use manifold_vhost_user::spec::request;
use proptest::prelude::*;
use support::{BAD_REGION, Call, Fixture, Raw, addresses, event, memory, message, pair, region};

const GUEST: u64 = 0x1_0000;
const USER: u64 = 0x7fff_0000_0000;

fn table(regions: &[Vec<u8>]) -> Vec<u8> {
    [(regions.len() as u64).to_ne_bytes().to_vec(), regions.concat()].concat()
}

#[test]
fn a_request_that_makes_no_sense_is_refused_and_the_connection_lives() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    let number = |value: u64| value.to_ne_bytes().to_vec();
    let good = region(GUEST, 0x1000, USER);
    let (file, kick) = (memory(), event());
    let (_, pipe) = rustix::pipe::pipe().unwrap();
    let (file, kick, pipe) = (file.as_fd(), kick.as_fd(), pipe.as_fd());
    let cases: Vec<(u32, Vec<u8>, Vec<_>)> = vec![
        // These requests are unknown, or never served.
        (0, vec![], vec![]),
        (6, vec![0; 16], vec![file]),
        (22, vec![0; 32], vec![]),
        (28, vec![], vec![]),
        (35, number(0), vec![]),
        (9999, vec![1, 2, 3], vec![kick]),
        // These have wrong sizes.
        (request::SET_FEATURES, vec![0; 7], vec![]),
        (request::SET_FEATURES, vec![0; 9], vec![]),
        (request::SET_OWNER, vec![0], vec![]),
        (request::SET_VRING_ADDR, vec![0; 39], vec![]),
        (request::SET_MEM_TABLE, vec![], vec![]),
        (request::SET_MEM_TABLE, table(&[good[..31].to_vec()]), vec![file]),
        (request::SET_MEM_TABLE, pair(u32::MAX, 0), vec![]),
        // These have too few or too many descriptors, or ones that are not eventfds.
        (request::SET_OWNER, vec![], vec![kick]),
        (request::SET_MEM_TABLE, table(std::slice::from_ref(&good)), vec![]),
        (request::SET_MEM_TABLE, table(std::slice::from_ref(&good)), vec![file, file]),
        (request::ADD_MEM_REG, [vec![0; 8], good.clone()].concat(), vec![]),
        (request::SET_VRING_KICK, number(0), vec![]),
        (request::SET_VRING_KICK, number(0), vec![kick, kick]),
        (request::SET_VRING_KICK, number(0), vec![pipe]),
        (request::SET_VRING_CALL, number(0), vec![file]),
        (request::SET_VRING_ERR, number(0), vec![pipe]),
        (request::SET_VRING_CALL, number(0x100), vec![kick]),
        // These have wrong values.
        (request::SET_FEATURES, number(1 << 26), vec![]),
        (request::SET_PROTOCOL_FEATURES, number(1 << 63), vec![]),
        (request::SET_VRING_NUM, pair(4, 256), vec![]),
        (request::SET_VRING_NUM, pair(u32::MAX, 256), vec![]),
        (request::SET_VRING_NUM, pair(0, 0), vec![]),
        (request::SET_VRING_NUM, pair(0, 1025), vec![]),
        (request::SET_VRING_NUM, pair(0, 65_536 + 256), vec![]),
        (request::SET_VRING_BASE, pair(4, 0), vec![]),
        (request::SET_VRING_ENABLE, pair(0, 2), vec![]),
        (request::SET_VRING_KICK, number(4), vec![kick]),
        (request::SET_VRING_KICK, number(0x200), vec![kick]),
        (request::SET_VRING_KICK, number(0x101), vec![]),
        (request::SET_VRING_ADDR, [pair(0, 1), vec![0; 32]].concat(), vec![]),
        (request::SET_STATUS, number(256), vec![]),
        // These have no region, or a wrapping, overlapping or unmappable one.
        (request::SET_MEM_TABLE, table(&[region(GUEST, 0, USER)]), vec![file]),
        (request::SET_MEM_TABLE, table(&[region(GUEST, u64::MAX, USER)]), vec![file]),
        (request::SET_MEM_TABLE, table(&[region(0, 0x1000, u64::MAX)]), vec![file]),
        (request::SET_MEM_TABLE, table(&[good.clone(), good.clone()]), vec![file, file]),
        (
            request::SET_MEM_TABLE,
            table(&[good, region(GUEST + 0x1000, 0x1000, USER + 0xfff)]),
            vec![file, file],
        ),
        (request::SET_MEM_TABLE, table(&[region(BAD_REGION, 0x1000, USER)]), vec![file]),
    ];
    for (code, payload, fds) in cases {
        assert_eq!(client.acknowledged(code, &payload, &fds), 1, "{code}: {payload:?}");
    }
    // These addresses are outside the memory.
    assert_eq!(client.share(GUEST, USER), 0);
    for at in [[0, USER, USER], [USER, USER + 0x10000, USER], [USER, USER, USER - 1]] {
        let payload = addresses(0, at);
        assert_eq!(client.acknowledged(request::SET_VRING_ADDR, &payload, &[]), 1, "{at:x?}");
    }
    client.set_up_ring(0, USER);
    assert_eq!(client.kick(0), 0);
    assert_eq!(client.enable(0, 1), 0);
    assert!(fixture.dummy.take().iter().any(|call| matches!(call, Call::Start { ring: 0, .. })));
}

#[test]
fn a_table_that_fails_leaves_no_memory_and_rings_wait_for_some() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    client.share(GUEST, USER);
    client.set_up_ring(0, USER);
    client.kick(0);
    client.enable(0, 1);
    fixture.dummy.take();
    let (a, b) = (memory(), memory());
    let regions = [region(GUEST, 0x1000, USER), region(BAD_REGION, 0x1000, USER + 0x1000)];
    let fds = [a.as_fd(), b.as_fd()];
    assert_eq!(client.acknowledged(request::SET_MEM_TABLE, &table(&regions), &fds), 1);
    let calls = fixture.dummy.take();
    assert!(
        matches!(calls[..], [Call::Stop(0), Call::Unmap(_), Call::Map(_), Call::Unmap(_)]),
        "{calls:?}"
    );
    assert_eq!(client.share(GUEST, USER), 0);
    assert!(matches!(fixture.dummy.take()[..], [Call::Map(_), Call::Start { ring: 0, .. }]));
}

#[test]
fn where_the_client_cannot_be_told_the_connection_ends() {
    let cases: [(Vec<u8>, &str); 6] = [
        // This one is without NEED_REPLY.
        (message(request::SET_VRING_NUM, 1, &pair(9, 256)), "SET_VRING_NUM"),
        (message(12345, 1, &[]), "an unknown request"),
        // A question has an answer of its own.
        (message(request::GET_VRING_BASE, 9, &pair(9, 0)), "GET_VRING_BASE"),
        // These are no requests: a reply, or another version.
        (message(request::SET_OWNER, 1 | 4, &[]), "SET_OWNER"),
        (message(request::SET_OWNER, 2, &[]), "SET_OWNER"),
        (message(request::SET_OWNER, 0, &[]), "SET_OWNER"),
    ];
    for (bytes, expected) in cases {
        let fixture = Fixture::new();
        let mut client = fixture.negotiated();
        client.send(&bytes, &[]);
        assert!(client.is_ended(), "{expected}");
        match fixture.dummy.end() {
            Disconnect::Refused { request, .. } => assert_eq!(request, expected),
            other => panic!("{other}"),
        }
        // The next client can have the device.
        fixture.negotiated();
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    for (code, payload) in [
        (request::GET_QUEUE_NUM, vec![]),
        (request::GET_MAX_MEM_SLOTS, vec![]),
        (request::RESET_DEVICE, vec![]),
        (request::SET_STATUS, vec![0; 8]),
        (request::GET_STATUS, vec![]),
        (request::SEND_RARP, vec![0; 8]),
        (request::NET_SET_MTU, vec![0; 8]),
        (request::GET_INFLIGHT_FD, vec![1; 20]),
    ] {
        let fixture = Fixture::new();
        let mut client = fixture.client();
        client.tell(code, &payload);
        assert!(client.is_ended(), "{code}");
    }
}

#[test]
fn a_size_out_of_bounds_ends_the_connection() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    let mut bytes = message(request::SET_MEM_TABLE, 1, &[]);
    bytes[8..].copy_from_slice(&u32::MAX.to_ne_bytes());
    client.send(&bytes, &[]);
    assert!(client.is_ended());
    assert!(matches!(fixture.dummy.end(), Disconnect::Protocol(_)));
    // A client that begins so is not given the device either.
    fixture.dummy.take();
    let mut client = fixture.client();
    client.send(&bytes, &[]);
    assert!(client.is_ended());
    assert_eq!(fixture.dummy.take(), []);
}

#[test]
fn messages_in_pieces_and_many_at_once_are_understood() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    for byte in message(request::GET_FEATURES, 1, &[]) {
        client.send(&[byte], &[]);
    }
    let features = client.number(request::GET_FEATURES);
    assert_ne!(features & support::VERSION_1, 0);
    client.send(&message(request::GET_PROTOCOL_FEATURES, 1, &[]).repeat(3), &[]);
    for _ in 0..3 {
        client.number(request::GET_PROTOCOL_FEATURES);
    }
    let split = message(request::SET_FEATURES, 1, &features.to_ne_bytes());
    client.send(&split[..15], &[]);
    std::thread::sleep(Duration::from_millis(20));
    client.send(&split[15..], &[]);
    client.ask(request::GET_FEATURES);
}

#[test]
fn a_client_may_die_at_any_byte() {
    let bytes =
        [message(request::GET_FEATURES, 1, &[]), message(request::SET_VRING_NUM, 1, &pair(0, 256))]
            .concat();
    let fixture = Fixture::new();
    for cut in 0..=bytes.len() {
        let mut client = fixture.client();
        client.send(&bytes[..cut], &[]);
        drop(client);
    }
    let mut client = fixture.negotiated();
    client.share(GUEST, USER);
    client.set_up_ring(0, USER);
    client.kick(0);
    client.enable(0, 1);
    fixture.dummy.take();
    drop(client);
    assert_eq!(fixture.dummy.end(), Disconnect::Closed);
    let calls = fixture.dummy.take();
    assert!(
        matches!(calls[..], [Call::Stop(0), .., Call::Unmap(_), Call::Detached(_)]),
        "{calls:?}"
    );
}

#[test]
fn one_client_at_a_time_and_a_silent_one_keeps_nobody_away() {
    let fixture = Fixture::new();
    let _silent = fixture.client();
    let first = fixture.negotiated();
    let mut second = fixture.client();
    second.tell(request::GET_FEATURES, &[]);
    let begin = Instant::now();
    assert!(second.is_ended());
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(fixture.endpoint.peer().is_some());
    drop(first);
    // The next client is served as soon as the first is cleaned up.
    fixture.negotiated();
    // The device may also refuse the client.
    fixture.dummy.refuses.store(true, Ordering::Relaxed);
    let mut third = fixture.client();
    third.tell(request::GET_FEATURES, &[]);
    assert!(third.is_ended());
}

#[test]
fn this_side_can_end_it() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    fixture.endpoint.disconnect();
    assert!(client.is_ended());
    assert_eq!(fixture.dummy.end(), Disconnect::Server);
    let path = fixture.path().to_owned();
    let mut client = fixture.negotiated();
    fixture.endpoint.close();
    assert!(client.is_ended());
    assert!(!path.exists());
}

#[test]
fn a_device_that_panics_loses_its_client_and_no_more() {
    let fixture = Fixture::new();
    let mut client = fixture.negotiated();
    client.share(GUEST, USER);
    client.set_up_ring(0, USER);
    client.kick(0);
    fixture.dummy.panics.store(true, Ordering::Relaxed);
    client.tell(request::SET_VRING_ENABLE, &pair(0, 1));
    assert!(client.is_ended());
    assert_eq!(fixture.dummy.end(), Disconnect::DevicePanicked);
    fixture.dummy.panics.store(false, Ordering::Relaxed);
    fixture.negotiated();
}

#[test]
fn a_device_that_panics_when_a_client_attaches_can_be_attached_later() {
    let fixture = Fixture::new();
    fixture.dummy.panics.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let mut client = fixture.client();
        client.tell(request::GET_PROTOCOL_FEATURES, &[]);
        assert!(client.is_ended());
    }
    assert_eq!(fixture.dummy.take(), [], "it was never attached, so it is not detached");
    fixture.dummy.panics.store(false, Ordering::Relaxed);
    fixture.negotiated();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A client may send anything: what it had is given back, and the next one is served.
    #[test]
    fn any_requests_leave_the_device_as_it_was(
        requests in prop::collection::vec(
            (1u32..42, prop::collection::vec(any::<u8>(), 0..48), 0usize..3, any::<bool>()), 0..40),
    ) {
        let fixture = Fixture::new();
        let mut client = fixture.negotiated();
        client.share(GUEST, USER);
        client.set_up_ring(0, USER);
        let (file, kick) = (memory(), event());
        let fds = [file.as_fd(), kick.as_fd(), kick.as_fd()];
        client.0.set_nonblocking(true).unwrap();
        for (code, mut payload, count, small) in requests {
            // Indices and numbers are small, or nothing would get past the first check.
            if small {
                payload.iter_mut().skip(1).for_each(|byte| *byte = 0);
            }
            let flags = if small { support::NEED_REPLY } else { 1 };
            client.send(&message(code, flags, &payload), &fds[..count]);
        }
        drop(client);
        fixture.dummy.end();
        let calls = fixture.dummy.take();
        let count = |which: fn(&Call) -> bool| calls.iter().filter(|call| which(call)).count();
        prop_assert_eq!(
            count(|call| matches!(call, Call::Map(_))),
            count(|call| matches!(call, Call::Unmap(_)))
        );
        prop_assert_eq!(
            count(|call| matches!(call, Call::Start { .. })),
            count(|call| matches!(call, Call::Stop(_)))
        );
        Raw::connect(fixture.path()).ask(request::GET_FEATURES);
    }
}
