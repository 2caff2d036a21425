//! These tests use the control queue and queue pairs of a real adapter, frame by frame.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use manifold_guest::memory::Arena;
use manifold_guest::vfio::{ClientKind, DmaMode, Function};
use manifold_guest::virtio::{NetOptions, VirtioNet};
use manifold_guest::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::Bed;

/// Time to wait for a frame that must not come.
const QUIET: Duration = Duration::from_millis(40);

fn open(bed: &Bed, vf: u16, options: NetOptions) -> VirtioNet {
    let arena = Arc::new(Arena::new(options.memory(9000), 0x1_0000_0000).unwrap());
    let function =
        Function::open(&bed.socket(vf), ClientKind::Own, DmaMode::Shared, arena).unwrap();
    VirtioNet::start(function, &options).unwrap()
}

/// Sends a frame of `len` bytes, optionally tagged.
fn send(net: &mut VirtioNet, to: [u8; 6], vlan: Option<u16>, len: usize) {
    let mut frame = vec![0x5a; len];
    frame[0..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&net.info().mac);
    match vlan {
        Some(id) => {
            frame[12..14].copy_from_slice(&[0x81, 0x00]);
            frame[14..16].copy_from_slice(&id.to_be_bytes());
            frame[16..18].copy_from_slice(&[0x88, 0xb5]);
        }
        None => frame[12..14].copy_from_slice(&[0x88, 0xb5]),
    }
    let (device, _, tx) = net.parts();
    assert!(tx[0].send(&frame).unwrap());
    tx[0].flush(device).unwrap();
}

/// Returns the length of the next frame that arrives on any queue within `time`.
fn receive(net: &mut VirtioNet, time: Duration) -> Option<usize> {
    let begin = Instant::now();
    let mut room = vec![0; 65536];
    while begin.elapsed() < time {
        let (device, rx, _) = net.parts();
        for queue in rx {
            let len = queue.receive(&mut room).unwrap();
            queue.flush(device).unwrap();
            if len.is_some() {
                return len;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    None
}

fn arrives(net: &mut VirtioNet) -> bool {
    receive(net, support::LONG).is_some()
}

fn stays_away(net: &mut VirtioNet) -> bool {
    receive(net, QUIET).is_none()
}

const OTHER: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 1];
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 7];

#[test]
fn addresses_and_modes_decide_what_arrives() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) =
        (open(&bed, 0, NetOptions::default()), open(&bed, 1, NetOptions::default()));
    let original = b.info().mac;

    send(&mut a, original, None, 60);
    assert!(arrives(&mut b));
    send(&mut a, OTHER, None, 60);
    assert!(stays_away(&mut b), "an address that is nobody's");
    b.set_mac(OTHER).unwrap();
    send(&mut a, OTHER, None, 60);
    assert!(arrives(&mut b), "its new address");
    send(&mut a, original, None, 60);
    assert!(stays_away(&mut b), "its old address");
    b.set_mac_table(&[original], &[]).unwrap();
    send(&mut a, original, None, 60);
    assert!(arrives(&mut b), "an address of its table");

    send(&mut a, GROUP, None, 60);
    assert!(stays_away(&mut b), "a group it has not joined");
    b.set_mac_table(&[], &[GROUP]).unwrap();
    send(&mut a, GROUP, None, 60);
    assert!(arrives(&mut b), "a group it has joined");
    b.set_mac_table(&[], &[]).unwrap();
    b.set_all_multicast(true).unwrap();
    send(&mut a, GROUP, None, 60);
    assert!(arrives(&mut b), "all groups");
    b.set_all_multicast(false).unwrap();
    send(&mut a, GROUP, None, 60);
    assert!(stays_away(&mut b));

    // The addresses are the device's own again after a reset.
    let mut b = VirtioNet::start(b.into_function(), &NetOptions::default()).unwrap();
    assert_eq!(b.info().mac, original);
    send(&mut a, original, None, 60);
    assert!(arrives(&mut b));
}

#[test]
fn vlan_filters_decide_what_arrives() {
    let bed = Bed::new(2, 1500);
    let (mut a, mut b) =
        (open(&bed, 0, NetOptions::default()), open(&bed, 1, NetOptions::default()));
    let to = b.info().mac;
    send(&mut a, to, Some(7), 64);
    assert!(stays_away(&mut b), "a VLAN that was not asked for");
    b.set_vlan(7, true).unwrap();
    send(&mut a, to, Some(7), 64);
    assert!(arrives(&mut b));
    send(&mut a, to, Some(8), 64);
    assert!(stays_away(&mut b));
    b.set_vlan(7, false).unwrap();
    send(&mut a, to, Some(7), 64);
    assert!(stays_away(&mut b));
    send(&mut a, to, None, 60);
    assert!(arrives(&mut b), "untagged frames pass");
}

#[test]
fn frames_of_every_length_arrive_whole() {
    let bed = Bed::new(2, 9000);
    let small = NetOptions { rx_buffer: 256, ..NetOptions::default() };
    let (mut a, mut b) = (open(&bed, 0, NetOptions::default()), open(&bed, 1, small));
    let to = b.info().mac;
    // The lengths cross all boundaries of buffers of 256 bytes, 12 of them header, and include a
    // jumbo frame.
    for len in (60..800).step_by(7).chain([1514, 9014]) {
        send(&mut a, to, None, len);
        assert_eq!(receive(&mut b, support::LONG), Some(len));
    }
}

#[test]
fn queue_pairs_come_and_go_by_command() {
    let bed = Bed::new(2, 1500);
    let two = NetOptions { queue_pairs: 2, ..NetOptions::default() };
    let (mut a, mut b) = (open(&bed, 0, two), open(&bed, 1, two));
    assert_eq!(b.info().queue_pairs, 2);
    let to = b.info().mac;
    let second = |a: &mut VirtioNet, b: &mut VirtioNet| {
        let mut frame = vec![0; 60];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&a.info().mac);
        let (device, _, tx) = a.parts();
        assert!(tx[1].send(&frame).unwrap());
        tx[1].flush(device).unwrap();
        assert!(arrives(b));
    };
    second(&mut a, &mut b);
    b.set_queue_pairs(1).unwrap();
    second(&mut a, &mut b);
    let refused = |result: Result<()>| matches!(result, Err(Error::Refused { .. }));
    assert!(refused(b.set_queue_pairs(0)));
    assert!(refused(b.set_queue_pairs(u16::MAX)));
    second(&mut a, &mut b);
}

#[test]
fn the_device_says_what_it_is() {
    let bed = Bed::new(2, 9000);
    let mut net = open(&bed, 1, NetOptions::default());
    let info = net.info();
    assert_eq!(info.mtu, 9000);
    assert!(net.device().link_up().unwrap());
    assert_eq!(net.device().function().id().unwrap(), (0x1af4, 0x1041));
    let bars = net.device().function().bars().unwrap();
    assert!(bars.iter().all(|bar| bar.wide && bar.size.is_power_of_two()), "{bars:?}");
    // Any reset brings the device back to the beginning, and it can be used again.
    net.device().function().flr().unwrap();
    assert_eq!(net.device().status().unwrap(), 0);
    net.restart(&NetOptions::default()).unwrap();
    assert_eq!(net.info(), info);
}
