//! These attacks send headers that ask for what cannot be done, and steering commands that lead
//! nowhere.

use crate::attack::{Answer, Attack, Target};
use crate::control::{ANSWER, COMMAND};
use manifold_guest::Result;
use manifold_guest::virtio::spec::ring::{F_NEXT, F_WRITE};
use manifold_guest::virtio::{NetHeader, feature};

/// All offloads of sent frames.
const OFFLOADS: u64 = feature::CSUM
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::HOST_USO
    | feature::GUEST_HDRLEN;
const STEERING: u64 = feature::RSS
    | feature::HASH_REPORT
    | feature::CTRL_GUEST_OFFLOADS
    | feature::NOTF_COAL
    | feature::VQ_NOTF_COAL
    | feature::DEVICE_STATS;
/// Kinds of large frames.
const TCP4: u8 = 1;
const UDP_FRAGMENTS: u8 = 3;
const TCP6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;
/// Header flag of a checksum that is to be completed.
const CSUM: u8 = 1;

/// Header that fits the frame of [`tcp`].
const RIGHT: NetHeader = NetHeader {
    flags: CSUM,
    gso_type: TCP4,
    hdr_len: 54,
    gso_size: 1000,
    csum_start: 34,
    csum_offset: 16,
};

/// Makes a broadcast TCP frame over IPv4 of `len` bytes.
fn tcp(from: &[u8], len: usize) -> Vec<u8> {
    let mut frame = vec![0; len.max(54)];
    frame[..12].copy_from_slice(from);
    frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
    frame[16..18].copy_from_slice(&((len.saturating_sub(14)) as u16).to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[46] = 5 << 4;
    frame.truncate(len);
    frame
}

fn send(
    target: &mut Target,
    header: &NetHeader,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<Answer> {
    let mut addresses = [0; 12];
    target.arena.read(target.data.offset + 12, &mut addresses)?;
    let mut frame = tcp(&addresses, 8000);
    change(&mut frame);
    target.arena.write(target.data.offset, &header.bytes())?;
    target.arena.write(target.data.offset + 12, &frame)?;
    target.tx_chain(&[(target.at(0), 12 + frame.len() as u32, 0, 0)])?;
    target.send(&[0])
}

/// Headers that lie, for frames that are right.
const HEADERS: &[(&str, NetHeader)] = &[
    ("as it should be", RIGHT),
    ("no checksum asked for", NetHeader { flags: 0, ..RIGHT }),
    ("all flags", NetHeader { flags: 0xff, ..RIGHT }),
    ("segments of 0 bytes", NetHeader { gso_size: 0, ..RIGHT }),
    ("segments of 1 byte", NetHeader { gso_size: 1, ..RIGHT }),
    ("segments larger than the frame", NetHeader { gso_size: 0xffff, ..RIGHT }),
    ("headers of 0 bytes", NetHeader { hdr_len: 0, ..RIGHT }),
    ("headers of 65535 bytes", NetHeader { hdr_len: 0xffff, ..RIGHT }),
    ("headers that end in the TCP header", NetHeader { hdr_len: 50, ..RIGHT }),
    ("a checksum that starts beyond the frame", NetHeader { csum_start: 0xffff, ..RIGHT }),
    ("a checksum in the last byte", NetHeader { csum_start: 7983, ..RIGHT }),
    ("a checksum beyond the frame", NetHeader { csum_offset: 0xffff, ..RIGHT }),
    ("a checksum over the Ethernet header", NetHeader { csum_start: 0, csum_offset: 0, ..RIGHT }),
    ("a checksum at a wrap", NetHeader { csum_start: 0xffff, csum_offset: 0xffff, ..RIGHT }),
    ("a plain frame with such", NetHeader { gso_type: 0, csum_start: 0xffff, ..RIGHT }),
    ("IPv4 called IPv6", NetHeader { gso_type: TCP6, ..RIGHT }),
    ("TCP called UDP", NetHeader { gso_type: UDP, csum_offset: 6, ..RIGHT }),
    ("congestion notified of UDP", NetHeader { gso_type: UDP | ECN, ..RIGHT }),
    ("congestion notified of nothing", NetHeader { gso_type: ECN, ..RIGHT }),
    ("a kind that was withdrawn", NetHeader { gso_type: UDP_FRAGMENTS, ..RIGHT }),
    ("a kind that never was", NetHeader { gso_type: 0x7f, ..RIGHT }),
];

pub(crate) fn offload_headers(attack: &mut Attack) -> Result<()> {
    for (what, header) in HEADERS {
        attack.attempt_with(OFFLOADS, what, |_, target| send(target, header, |_| {}))?;
    }
    Ok(())
}

pub(crate) fn offload_unasked(attack: &mut Attack) -> Result<()> {
    attack.attempt("segmentation", |_, target| send(target, &RIGHT, |_| {}))?;
    let checksum = NetHeader { gso_type: 0, gso_size: 0, ..RIGHT };
    attack
        .attempt("a checksum", |_, target| send(target, &checksum, |frame| frame.truncate(200)))?;
    let udp = NetHeader { gso_type: UDP, ..RIGHT };
    attack.attempt_with(feature::CSUM | feature::HOST_TSO4, "of UDP", |_, target| {
        send(target, &udp, |_| {})
    })
}

pub(crate) fn offload_frames(attack: &mut Attack) -> Result<()> {
    for len in [1, 13, 14, 15, 33, 34, 35, 47, 53, 54, 55] {
        let what = format!("a TSO frame of {len} bytes");
        attack.attempt_with(OFFLOADS, &what, |_, target| {
            send(target, &RIGHT, |frame| frame.truncate(len))
        })?;
    }
    type Change = (&'static str, fn(&mut Vec<u8>));
    let changes: &[Change] = &[
        ("an IPv4 header of 0 bytes", |frame| frame[14] = 0x40),
        ("an IPv4 header of 60 bytes", |frame| frame[14] = 0x4f),
        ("IP version 15", |frame| frame[14] = 0xf5),
        ("IPv6 where the header says IPv4", |frame| {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame[14] = 0x60;
        }),
        ("a total length of 0", |frame| frame[16..18].fill(0)),
        ("a total length of 65535", |frame| frame[16..18].fill(0xff)),
        ("a fragment", |frame| frame[20..22].fill(0x3f)),
        ("UDP where the header says TCP", |frame| frame[23] = 17),
        ("a TCP header of 0 bytes", |frame| frame[46] = 0),
        ("a TCP header of 60 bytes", |frame| frame[46] = 0xf0),
        ("VLAN tags all the way", |frame| {
            for tag in frame[12..].chunks_exact_mut(4) {
                tag.copy_from_slice(&[0x81, 0, 0, 1]);
            }
        }),
        ("nothing but 0xff", |frame| frame[12..].fill(0xff)),
    ];
    for (what, change) in changes {
        attack.attempt_with(OFFLOADS, what, |_, target| send(target, &RIGHT, change))?;
    }
    Ok(())
}

pub(crate) fn steering_garbage(attack: &mut Attack) -> Result<()> {
    let rss = |mask: u16, unclassified: u16, entry: u16, max_tx: u16, key: u8| {
        let mut bytes = vec![4, 1, 0xff, 0, 0, 0];
        bytes.extend([mask, unclassified].map(u16::to_le_bytes).as_flattened());
        for _ in 0..=mask.min(511) {
            bytes.extend_from_slice(&entry.to_le_bytes());
        }
        bytes.extend_from_slice(&max_tx.to_le_bytes());
        bytes.push(key);
        bytes.resize(bytes.len() + usize::from(key), 0x5a);
        bytes
    };
    let commands: &[(&str, Vec<u8>)] = &[
        ("RSS to a queue that is not", rss(127, 0, 0x7fff, 1, 40)),
        ("RSS with an unclassified queue that is not", rss(127, 0xffff, 0, 1, 40)),
        ("RSS with a table of 65536", rss(0xffff, 0, 0, 1, 40)),
        ("RSS with a table of 3", rss(2, 0, 0, 1, 40)),
        ("RSS with no transmit queue", rss(127, 0, 0, 0, 40)),
        ("RSS with 65535 transmit queues", rss(127, 0, 0, 0xffff, 40)),
        ("RSS with a key of 255 bytes", rss(127, 0, 0, 1, 255)),
        ("RSS with no key", rss(127, 0, 0, 1, 0)),
        ("RSS cut short", rss(127, 0, 0, 1, 40)[..100].to_vec()),
        ("half a hash configuration", vec![4, 2, 1, 0]),
        ("receive offloads never agreed on", vec![5, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("coalescing for ever", vec![6, 1, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("coalescing of a queue that is not", {
            vec![6, 2, 255, 255, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
        }),
        ("statistics of a queue that is not", {
            vec![8, 1, 255, 255, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
        }),
        ("statistics of everything, with no room for them", {
            vec![8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
        }),
    ];
    for (what, bytes) in commands {
        attack.attempt_with(STEERING, what, |_, target| {
            target.arena.write(target.data.offset + COMMAND, bytes)?;
            let rest = bytes.len() as u32 - 2;
            let shape = [
                (target.at(COMMAND), 2, F_NEXT),
                (target.at(COMMAND + 2), rest, F_NEXT),
                (target.at(ANSWER), 1, F_WRITE),
            ];
            target.control_chain(&shape)?;
            target.send_control()
        })?;
    }
    Ok(())
}
