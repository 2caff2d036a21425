//! These tests use an uplink to this machine's kernel, each in a network namespace of its own.
//! They need root, `ip` and `unshare`.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use manifold_eswitch::{MacAddr, Policy, TableBuilder};
use manifold_pci::FunctionId::{self, Vf};
use manifold_port::Tap;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::driver::{Driver, eventually};
use super::{BROADCAST, mac};
use crate::Datapath;

const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
const HOST_IP: [u8; 4] = [10, 77, 0, 1];
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];

/// Moves this thread, and what it opens and starts from now on, into a new network namespace.
fn own_namespace() {
    let net = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    let mut holder = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
    let (id, ours) = (holder.id().to_string(), net("thread-self"));
    eventually("a network namespace; these tests run as root", || net(&id) != ours);
    let namespace = File::open(format!("/proc/{id}/ns/net")).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {text}");
}

fn vf_ip(id: FunctionId) -> [u8; 4] {
    [10, 77, 0, 10 + mac(id)[5]]
}

/// Returns three functions and an uplink, whose other end is the namespace's kernel. vf2 listens to
/// a multicast group.
fn switch() -> (Datapath, Vec<Driver>, UdpSocket) {
    own_namespace();
    let tap = Tap::open("up0").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "1").unwrap();
    ip("link set up0 address 02:00:00:00:ff:01 mtu 9000 up");
    ip("address add 10.77.0.1/24 broadcast 10.77.0.255 dev up0");
    ip("route add 239.0.0.0/8 dev up0");
    let ids = [Vf(0), Vf(1), Vf(2)];
    let mut policies = ids.map(|id| Policy::new(MacAddr(mac(id))));
    policies[2].filters.multicast.push(MacAddr(GROUP_MAC));
    let mut builder = TableBuilder::new();
    builder.uplink(true).max_frame_len(1514);
    for (id, policy) in ids.iter().zip(&policies) {
        builder.function(*id, policy);
        let [a, b, c, d] = vf_ip(*id);
        let [.., last] = mac(*id);
        ip(&format!("neighbour add {a}.{b}.{c}.{d} lladdr 02:00:00:00:01:{last:02x} dev up0"));
    }
    let datapath = Datapath::start(&Arc::new(builder.build()), &[None]).unwrap();
    datapath.set_uplink(Some(tap)).unwrap();
    let mut drivers: Vec<_> = ids.iter().map(|id| Driver::start(&datapath, *id, true)).collect();
    for driver in &mut drivers {
        for _ in 0..200 {
            driver.post(2048);
        }
    }
    let socket = UdpSocket::bind("0.0.0.0:7000").unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (datapath, drivers, socket)
}

/// Returns a UDP datagram to the host's port 7000.
fn datagram(to: [u8; 6], from: FunctionId, data: &[u8]) -> Vec<u8> {
    let udp_len = (8 + data.len()) as u16;
    let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0].to_vec();
    header[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    header.extend(vf_ip(from));
    header.extend(if to == BROADCAST { [10, 77, 0, 255] } else { HOST_IP });
    let mut sum: u32 = header.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
    let udp = [7001u16, 7000, udp_len, 0].map(u16::to_be_bytes).concat();
    [&to[..], &mac(from), &[8, 0], &header, &udp, data].concat()
}

fn received(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut data = vec![0; 2048];
    let len = socket.recv(&mut data)?;
    data.truncate(len);
    Ok(data)
}

/// Returns the data of the next datagram for a function, and the address its frame was for.
fn next(driver: &mut Driver) -> ([u8; 6], Vec<u8>) {
    loop {
        let bytes = driver.receive();
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let frame = &bytes[12..];
        assert_eq!(frame[6..12], HOST_MAC);
        // The kernel may send frames of its own (IGMP, ARP).
        if frame[12..14] == [8, 0] && frame[23] == 17 {
            return (frame[..6].try_into().unwrap(), frame[42..].to_vec());
        }
    }
}

#[test]
fn frames_go_out_to_the_host() {
    let (datapath, mut vfs, host) = switch();
    let long = vec![7; 1400];
    vfs[0].send(&datagram(HOST_MAC, Vf(0), b"unicast"));
    assert_eq!(received(&host).unwrap(), b"unicast");
    vfs[1].send(&datagram(HOST_MAC, Vf(1), &long));
    assert_eq!(received(&host).unwrap(), long);
    // A broadcast goes to the host and to the others, never back.
    vfs[0].send(&datagram(BROADCAST, Vf(0), b"broadcast"));
    assert_eq!(received(&host).unwrap(), b"broadcast");
    for vf in &mut vfs[1..] {
        assert_eq!(vf.receive()[12 + 42..], *b"broadcast");
    }
    assert!(vfs[0].take_received().is_none());
    assert_eq!(vfs[0].counters.total().tx.frames, 2);

    // An interface that is down loses frames, and its sender counts them.
    ip("link set up0 down");
    vfs[0].send(&datagram(HOST_MAC, Vf(0), b"lost"));
    vfs[0].wait_sent();
    assert_eq!(vfs[0].drops("uplink_refused"), 1);
    ip("link set up0 up");
    vfs[0].send(&datagram(HOST_MAC, Vf(0), b"again"));
    assert_eq!(received(&host).unwrap(), b"again");

    datapath.set_uplink(None).unwrap();
    vfs[0].send(&datagram(HOST_MAC, Vf(0), b"nowhere"));
    vfs[0].wait_sent();
    assert_eq!(vfs[0].drops("uplink_refused"), 2);
}

#[test]
fn frames_come_in_from_the_host() {
    let (_datapath, mut vfs, host) = switch();
    // The datagrams are longer than a burst, and each round begins while the worker sleeps.
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(20));
        for number in 0..50u8 {
            host.send_to(&[round, number], "10.77.0.11:7000").unwrap();
        }
        for number in 0..50 {
            assert_eq!(next(&mut vfs[1]), (mac(Vf(1)), vec![round, number]));
        }
    }
    host.send_to(b"everybody", "10.77.0.255:7000").unwrap();
    for vf in &mut vfs {
        assert_eq!(next(vf), (BROADCAST, b"everybody".to_vec()));
    }
    // A group's frame goes to its listeners; a frame that is too long, or for nobody known, goes
    // nowhere.
    host.send_to(b"group", "239.1.2.3:7000").unwrap();
    host.send_to(&[0; 3000], "10.77.0.10:7000").unwrap();
    ip("neighbour add 10.77.0.99 lladdr 02:00:00:00:01:99 dev up0");
    host.send_to(b"stranger", "10.77.0.99:7000").unwrap();
    host.send_to(&[1; 1400], "10.77.0.10:7000").unwrap();
    host.send_to(b"last", "10.77.0.12:7000").unwrap();
    assert_eq!(next(&mut vfs[0]), (mac(Vf(0)), vec![1; 1400]));
    assert_eq!(next(&mut vfs[2]), (GROUP_MAC, b"group".to_vec()));
    assert_eq!(next(&mut vfs[2]), (mac(Vf(2)), b"last".to_vec()));
    assert!(vfs[0].take_received().is_none());
}
