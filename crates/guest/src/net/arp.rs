//! This module makes and reads the few ARP frames that the guest handles beside its stack (RFC
//! 826).
//!
//! smoltcp resolves one neighbour a second. A guest that is to ping 255 others asks for all of them
//! at once by itself; the answers also reach smoltcp, which keeps them.

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};
use std::net::Ipv4Addr;

/// Bytes in an ARP frame, Ethernet header included.
const LEN: usize = 14 + 28;

fn frame(
    to: [u8; 6],
    operation: ArpOperation,
    from: ([u8; 6], Ipv4Addr),
    target: ([u8; 6], Ipv4Addr),
) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr {
        src_addr: EthernetAddress(from.0),
        dst_addr: EthernetAddress(to),
        ethertype: EthernetProtocol::Arp,
    }
    .emit(&mut ethernet);
    ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress(target.0),
        target_protocol_addr: target.1,
    }
    .emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
    bytes
}

/// Makes a broadcast that asks for `target`.
pub(crate) fn request(mac: [u8; 6], own: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    frame([0xff; 6], ArpOperation::Request, (mac, own), ([0; 6], target))
}

/// Makes an answer from `address` to the guest itself.
pub(crate) fn reply(mac: [u8; 6], address: Ipv4Addr, to: [u8; 6], own: Ipv4Addr) -> Vec<u8> {
    frame(to, ArpOperation::Reply, (mac, address), (to, own))
}

/// Returns who sent this frame, if it is an ARP reply or asks for the guest's `own` address.
pub(crate) fn sender(frame: &[u8], own: Option<Ipv4Addr>) -> Option<(Ipv4Addr, [u8; 6])> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let tells = match operation {
        ArpOperation::Reply => true,
        ArpOperation::Request => own == Some(target_protocol_addr),
        _ => false,
    };
    tells.then_some((source_protocol_addr, source_hardware_addr.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn what_is_made_is_what_rfc_826_says() {
        let bytes = request([2, 0, 0, 0, 0, 1], A, B);
        assert_eq!(bytes[0..6], [0xff; 6]);
        assert_eq!(bytes[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(bytes[28..32], [10, 0, 0, 1]);
        assert_eq!(bytes[38..42], [10, 0, 0, 2]);
        assert_eq!(sender(&bytes, None), None, "a request to somebody else");
        assert_eq!(sender(&bytes, Some(A)), None, "likewise");
        assert_eq!(sender(&bytes, Some(B)), Some((A, [2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn replies_are_read_and_rubbish_is_not() {
        let bytes = reply([2, 0, 0, 0, 0, 2], B, [2, 0, 0, 0, 0, 1], A);
        assert_eq!(sender(&bytes, Some(A)), Some((B, [2, 0, 0, 0, 0, 2])));
        for cut in 0..bytes.len() {
            assert_eq!(sender(&bytes[..cut], Some(A)), None);
        }
    }
}
