//! Offloads are the work that a driver leaves to the device, and the device to the driver (virtio
//! 1.3, sections 5.1.6.2 and 5.1.6.4).
//!
//! ```text
//!   frame larger than the MTU ──► header: TCP over IPv4, segments of so many bytes, checksum to do
//!   TCP frame                 ──► header: checksum to do; in the frame the pseudo-header's sum
//!   received: checksum to do  ──► it never left this machine: nothing to check
//!   received: anything else   ──► the sum over the segment must come to nothing
//! ```

use super::spec::{NET_HEADER, feature, header};

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
/// Offset of the checksum in the TCP header.
const TCP_CHECKSUM: usize = 16;

/// The offloads of frames that were agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// True if the device completes checksums of sent frames.
    pub tx_checksum: bool,
    /// True if the device takes TCP over IPv4 larger than the MTU.
    pub tx_large: bool,
    /// True if the device may leave checksums of received frames incomplete.
    pub rx_checksum: bool,
}

impl Offloads {
    /// Returns the offloads among the features agreed on.
    pub fn of(features: u64) -> Self {
        let has = |bits| features & bits == bits;
        Self {
            tx_checksum: has(feature::CSUM),
            tx_large: has(feature::CSUM | feature::HOST_TSO4),
            rx_checksum: has(feature::GUEST_CSUM),
        }
    }
}

/// A `struct virtio_net_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetHeader {
    /// Flag bits (5.1.6): 1 if the checksum is to be completed, 2 if it was checked.
    pub flags: u8,
    /// Kind of large frame; 0 for an ordinary one.
    pub gso_type: u8,
    /// Length of all headers in bytes.
    pub hdr_len: u16,
    /// Payload per segment in bytes.
    pub gso_size: u16,
    /// Offset of the first byte that the checksum covers.
    pub csum_start: u16,
    /// Offset of the checksum from there.
    pub csum_offset: u16,
}

impl NetHeader {
    /// Returns the header as bytes, with `num_buffers` 0.
    pub fn bytes(&self) -> [u8; NET_HEADER] {
        let [a, b] = self.hdr_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, 0, 0]
    }

    /// Reads a header from bytes.
    pub fn parse(bytes: &[u8; NET_HEADER]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h, _, _] = *bytes;
        let word = |low, high| u16::from_le_bytes([low, high]);
        Self {
            flags,
            gso_type,
            hdr_len: word(a, b),
            gso_size: word(c, d),
            csum_start: word(e, f),
            csum_offset: word(g, h),
        }
    }
}

/// Offsets of the parts of a TCP segment over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tcp {
    /// Offset of the TCP header.
    start: usize,
    /// Offset of the payload.
    payload: usize,
    /// End of the packet; padding follows.
    end: usize,
}

/// Finds the parts, or returns `None` if a frame is anything but one whole TCP segment over IPv4.
fn tcp(frame: &[u8]) -> Option<Tcp> {
    let ip = frame.get(ETHERNET..)?;
    if frame.get(12..14)? != ETHERTYPE_IPV4 || ip.first()? >> 4 != 4 || *ip.get(9)? != TCP {
        return None;
    }
    let word = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
    // A fragment's checksum covers more than this packet.
    if word(6)? & 0x3fff != 0 {
        return None;
    }
    let start = ETHERNET + usize::from(ip.first()? & 0xf) * 4;
    let end = ETHERNET + usize::from(word(2)?);
    let payload = start + usize::from(frame.get(start + 12)? >> 4) * 4;
    let whole = start >= ETHERNET + 20
        && payload >= start + TCP_HEADER
        && end >= payload
        && end <= frame.len();
    whole.then_some(Tcp { start, payload, end })
}

/// Sums up the pseudo-header (RFC 9293, 3.1).
fn pseudo(frame: &[u8], tcp: &Tcp) -> u64 {
    let addresses = frame.get(ETHERNET + 12..ETHERNET + 20).unwrap_or_default();
    sum(addresses) + u64::from(TCP) + (tcp.end - tcp.start) as u64
}

/// Prepares a frame for a device that completes checksums, and that segments what is larger than
/// `mtu` allows. The frame's own TCP checksum is ignored. Returns `None` if it is too large and the
/// device cannot segment it.
pub(crate) fn prepare(frame: &mut [u8], mtu: u16, offloads: Offloads) -> Option<NetHeader> {
    let large = frame.len() > ETHERNET + usize::from(mtu);
    let Some(tcp) = offloads.tx_checksum.then(|| tcp(frame)).flatten() else {
        return (!large).then(NetHeader::default);
    };
    if large && !offloads.tx_large {
        return None;
    }
    let partial = fold(pseudo(frame, &tcp));
    let at = tcp.start + TCP_CHECKSUM;
    frame.get_mut(at..at + 2)?.copy_from_slice(&partial.to_be_bytes());
    let mut header = NetHeader {
        flags: header::F_NEEDS_CSUM,
        csum_start: tcp.start as u16,
        csum_offset: TCP_CHECKSUM as u16,
        ..NetHeader::default()
    };
    if large {
        header.gso_type = header::GSO_TCPV4;
        header.hdr_len = tcp.payload as u16;
        header.gso_size =
            mtu.checked_sub((tcp.payload - ETHERNET) as u16).filter(|size| *size > 0)?;
    }
    Some(header)
}

/// Returns true if a received frame's checksum is right. It is taken to be right if the device has
/// checked it, or if it is incomplete because the frame never left this machine.
pub(crate) fn is_intact(frame: &[u8], header: &NetHeader) -> bool {
    if header.flags & (header::F_NEEDS_CSUM | header::F_DATA_VALID) != 0 {
        return true;
    }
    let Some(tcp) = tcp(frame) else { return true };
    let segment = frame.get(tcp.start..tcp.end).unwrap_or_default();
    fold(pseudo(frame, &tcp) + sum(segment)) == 0xffff
}

/// Completes the checksum of a frame whose header says that it is to do, for a stack that would
/// check it.
pub(crate) fn complete(frame: &mut [u8], header: &NetHeader) {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if header.flags & header::F_NEEDS_CSUM == 0 || at + 2 > frame.len() {
        return;
    }
    let checksum = match !fold(sum(frame.get(start..).unwrap_or_default())) {
        // A checksum of 0 would mean that there is none (RFC 768).
        0 => 0xffff,
        other => other,
    };
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Adds up 16-bit words, big-endian, the last one padded (RFC 1071).
pub fn sum(bytes: &[u8]) -> u64 {
    // Summing four bytes at a time gives the same, because carries go around.
    let (fours, rest) = bytes.as_chunks::<4>();
    let all: u64 = fours.iter().map(|four| u64::from(u32::from_be_bytes(*four))).sum();
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    all + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum into 16 bits, carries added (RFC 1071).
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    };

    const ALL: Offloads = Offloads { tx_checksum: true, tx_large: true, rx_checksum: true };

    /// Returns a frame as smoltcp writes it, with all checksums right.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let (src_addr, dst_addr) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 2));
        let tcp = TcpRepr {
            src_port: 5000,
            dst_port: 6000,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(77),
            ack_number: Some(TcpSeqNumber(3)),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr,
            dst_addr,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes = vec![2; ETHERNET + ip.buffer_len() + tcp.buffer_len()];
        bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        let caps = ChecksumCapabilities::default();
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET..]);
        ip.emit(&mut packet, &caps);
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut segment, &src_addr.into(), &dst_addr.into(), &caps);
        bytes
    }

    #[test]
    fn a_completed_frame_is_what_smoltcp_would_have_sent() {
        for len in [0, 1, 5, 999, 1446] {
            let right = frame(&vec![0xa5; len]);
            let mut sent = right.clone();
            sent[ETHERNET + 20 + 16..][..2].fill(0);
            let header = prepare(&mut sent, 1500, ALL).unwrap();
            assert_eq!((header.flags, header.gso_type), (1, 0));
            assert_ne!(sent, right);
            complete(&mut sent, &header);
            assert_eq!(sent, right);
            assert!(is_intact(&sent, &NetHeader::default()));
            let last = sent.len() - 1;
            sent[last] ^= 0x10;
            assert!(!is_intact(&sent, &NetHeader::default()));
            assert!(is_intact(&sent, &header), "a frame that never left the machine");
        }
    }

    #[test]
    fn large_frames_ask_for_segments_that_fit() {
        let mut large = frame(&[7; 40000]);
        let header = prepare(&mut large, 1500, ALL).unwrap();
        assert_eq!((header.gso_type, header.gso_size, header.hdr_len), (1, 1460, 54));
        assert_eq!((header.csum_start, header.csum_offset), (34, 16));
        assert_eq!(NetHeader::parse(&header.bytes()), header);
        assert_eq!(prepare(&mut large, 1500, Offloads { tx_large: false, ..ALL }), None);
        let mut other = large.clone();
        other[ETHERNET + 9] = 17;
        assert_eq!(prepare(&mut other, 1500, ALL), None, "UDP cannot be segmented");
    }

    #[test]
    fn padding_and_fragments_are_left_alone() {
        let mut padded = frame(&[1]);
        padded.resize(60, 9);
        let mut sent = padded.clone();
        assert!(is_intact(&sent, &NetHeader::default()));
        assert!(prepare(&mut sent, 1500, ALL).unwrap().flags == 1);
        let mut fragment = padded.clone();
        fragment[ETHERNET + 7] = 3;
        assert_eq!(prepare(&mut fragment, 1500, ALL), Some(NetHeader::default()));
        for cut in 0..54 {
            let mut short = padded[..cut].to_vec();
            assert_eq!(prepare(&mut short, 1500, ALL), Some(NetHeader::default()));
            assert!(is_intact(&short, &NetHeader::default()));
        }
        let lying =
            NetHeader { flags: 1, csum_start: 60, csum_offset: 0xffff, ..NetHeader::default() };
        complete(&mut padded, &lying);
    }
}
