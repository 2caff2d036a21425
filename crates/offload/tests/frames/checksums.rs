use etherparse::checksum::Sum16BitWords;
use manifold_offload::{Error, Offloads, Plan, Sum, Verdict, checksum, parse, verify};
use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::wire::checksum as smoltcp;

use crate::packets::packet;

proptest! {
    #[test]
    fn sums_are_those_of_others(bytes in vec(any::<u8>(), 0..3000)) {
        let mut sum = Sum::new();
        sum.add(&bytes);
        prop_assert_eq!(sum.fold(), smoltcp::data(&bytes));
        let theirs = Sum16BitWords::new().add_slice(&bytes).ones_complement();
        prop_assert_eq!(sum.checksum(), u16::from_be(theirs));
    }

    #[test]
    fn cut_up_in_any_way_the_sum_is_the_same(
        pieces in vec(vec(any::<u8>(), 0..200), 0..20),
        copied in any::<bool>(),
    ) {
        let whole = pieces.concat();
        let mut sum = Sum::new();
        let mut copy = Vec::new();
        for piece in &pieces {
            if copied {
                let mut to = vec![0; piece.len()];
                prop_assert_eq!(sum.add_copy(piece, &mut to), piece.len());
                copy.extend(to);
            } else {
                sum.add(piece);
            }
        }
        prop_assert_eq!(sum.fold(), smoltcp::data(&whole));
        prop_assert!(!copied || copy == whole);
    }

    #[test]
    fn fields_are_added_and_taken_off(
        bytes in vec(any::<u8>(), 1..100),
        short in any::<u16>(),
        long in any::<u32>(),
    ) {
        // The bytes are not all zero, so that the sum of nothing is not in question.
        let bytes = [&[1, 1], &bytes[..]].concat();
        let mut sum = Sum::new();
        sum.add_u16(short);
        sum.add_u32(long);
        sum.add(&bytes);
        let all = [&short.to_be_bytes()[..], &long.to_be_bytes(), &bytes].concat();
        prop_assert_eq!(sum.fold(), smoltcp::data(&all));
        sum.remove_u16(short);
        sum.remove_u32(long);
        prop_assert_eq!(sum.fold(), smoltcp::data(&bytes));
        let mut two = Sum::new();
        two.add_sum(&sum);
        two.add_sum(&sum);
        let padded = [&bytes[..], &[0; 1][..bytes.len() % 2], &bytes].concat();
        prop_assert_eq!(two.fold(), smoltcp::data(&padded));
    }

    #[test]
    fn finishing_a_checksum_makes_the_frame_that_etherparse_makes(packet in packet(2000)) {
        let (header, mut frame) = packet.unfinished();
        let head = &frame[..frame.len().min(256)];
        let request = header.check(head, frame.len(), Offloads::CSUM).unwrap();
        prop_assert_eq!(request.plan(Offloads::CSUM, 1514), Plan::PassThrough(request.header()));
        prop_assert_eq!(request.header().csum_start, header.csum_start);
        prop_assert_eq!(request.plan(Offloads::NONE, 1514), Plan::Checksum);
        prop_assert_eq!(
            header.check(&frame, frame.len(), Offloads::NONE),
            Err(Error::NotNegotiated { needs: Offloads::CSUM, allowed: Offloads::NONE })
        );
        prop_assert!(checksum::finish(&mut frame, header.csum_start, header.csum_offset));
        prop_assert_eq!(frame, packet.build());
    }

    #[test]
    fn a_complete_frame_is_valid_and_one_with_a_wrong_bit_is_not(
        packet in packet(300),
        padding in 0..20usize,
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let mut frame = packet.build();
        let end = frame.len();
        // The padding is not part of the packet, nor of its checksum.
        frame.extend(vec![0xa5; padding]);
        prop_assert_eq!(verify(&frame, &parse(&frame)), Verdict::Valid);
        let at = packet.transport_at() + at.index(end - packet.transport_at());
        // Another length is another sum over other bytes, which may be right by chance.
        let length = packet.transport_at() + 4..packet.transport_at() + 6;
        prop_assume!(packet.is_tcp() || !length.contains(&at));
        frame[at] ^= 1u8 << bit;
        let verdict = verify(&frame, &parse(&frame));
        // A bit in UDP's checksum may make it the one that says there is none.
        let none = !packet.is_tcp() && frame[packet.transport_at() + 6..][..2] == [0, 0];
        prop_assert_eq!(verdict, if none { Verdict::Unknown } else { Verdict::Invalid });
    }

    #[test]
    fn a_frame_that_was_cut_off_is_not_valid(
        packet in packet(300),
        at in any::<prop::sample::Index>(),
    ) {
        let frame = packet.build();
        let frame = &frame[..at.index(frame.len())];
        prop_assert_ne!(verify(frame, &parse(frame)), Verdict::Valid);
    }
}

#[test]
fn what_is_not_in_the_frame_is_not_written() {
    let mut frame = [1; 20];
    for (start, offset) in [(21, 0), (20, 0), (19, 0), (0, 19), (10, 9), (u16::MAX, u16::MAX)] {
        assert!(!checksum::finish(&mut frame, start, offset), "{start} + {offset}");
    }
    assert_eq!(frame, [1; 20]);
    assert!(checksum::finish(&mut frame, 0, 18));
}

#[test]
fn a_zero_is_written_ffff_in_udp_alone() {
    // The sum is ffffh.
    let mut sum = Sum::new();
    sum.add(&[0xff, 0xfe, 0, 1]);
    assert_eq!((sum.fold(), sum.checksum()), (0xffff, 0));
    assert_eq!(sum.field(6), [0xff, 0xff]);
    assert_eq!(sum.field(16), [0, 0]);
    assert_eq!(Sum::new().checksum(), 0xffff, "of nothing");
}

#[test]
fn a_gigabyte_of_ones_does_not_overflow() {
    let ones = vec![0xff; 1 << 20];
    let mut sum = Sum::new();
    for _ in 0..1024 {
        sum.add(&ones);
    }
    assert_eq!(sum.fold(), 0xffff);
    // The copying sum gets an odd number of bytes at a time.
    let mut to = vec![0; (1 << 20) - 1];
    let mut sum = Sum::new();
    for _ in 0..4 {
        assert_eq!(sum.add_copy(&ones, &mut to), to.len());
    }
    assert_eq!(sum.fold(), 0xffff);
}
