//! This module says which features a network device can offer, and which of them go together.

use crate::spec::feature as common;
use crate::spec::net::feature;

/// The features of a device whose data path moves whole frames over split rings, and does nothing
/// else with them.
pub const PLAIN: u64 = common::VERSION_1
    | common::ACCESS_PLATFORM
    | common::INDIRECT_DESC
    | common::EVENT_IDX
    | common::RING_RESET
    | feature::MAC
    | feature::STATUS
    | feature::MTU
    | feature::MRG_RXBUF
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_RX_EXTRA
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR
    | feature::GUEST_ANNOUNCE
    | feature::MQ;

/// Every feature of which this crate does its part. The rest is the
/// [`QueueHost`](super::QueueHost)'s.
///
/// - CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_USO, GUEST_HDRLEN: it takes frames to be
///   checksummed and segmented.
/// - [`GUEST_OFFLOADS`](feature::GUEST_OFFLOADS), CTRL_GUEST_OFFLOADS: it gives such frames to
///   whoever takes them, and minds
///   [`QueueHost::offloads_changed`](super::QueueHost::offloads_changed).
/// - RSS, HASH_REPORT: it hashes and steers as [`Steering`](super::Steering) says, and lengthens
///   the header for the report.
/// - NOTF_COAL, VQ_NOTF_COAL: it minds [`Coalescing`](super::Coalescing).
/// - DEVICE_STATS: it counts what is in [`QueueStatistics`](super::QueueStatistics).
/// - SPEED_DUPLEX: nothing.
/// - RING_PACKED, IN_ORDER: it serves such rings, as [`crate::ring`] does.
pub const SUPPORTED: u64 = PLAIN
    | common::RING_PACKED
    | common::IN_ORDER
    | feature::CSUM
    | feature::GUEST_OFFLOADS
    | feature::CTRL_GUEST_OFFLOADS
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::HOST_USO
    | feature::GUEST_HDRLEN
    | feature::RSS
    | feature::HASH_REPORT
    | feature::NOTF_COAL
    | feature::VQ_NOTF_COAL
    | feature::DEVICE_STATS
    | feature::SPEED_DUPLEX;

/// A feature, and those of which it requires at least one.
struct Requirement {
    feature: u64,
    any_of: u64,
    message: &'static str,
}

/// Makes a [`Requirement`] from the names of the feature and of what it requires.
macro_rules! requires {
    ($feature:ident, $first:ident $(or $other:ident)*) => {
        Requirement {
            feature: feature::$feature,
            any_of: feature::$first $(| feature::$other)*,
            message: concat!(
                "VIRTIO_NET_F_", stringify!($feature), " requires VIRTIO_NET_F_", stringify!($first)
                $(, " or VIRTIO_NET_F_", stringify!($other))*
            ),
        }
    };
}

/// The requirements of 5.1.3.1, and that of 5.1.4.2 for CTRL_RX_EXTRA and HASH_REPORT. Without a
/// control queue the commands of CTRL_GUEST_OFFLOADS and DEVICE_STATS have nowhere to go either,
/// and Linux stops the machine over it.
const REQUIREMENTS: [Requirement; 21] = [
    requires!(GUEST_TSO4, GUEST_CSUM),
    requires!(GUEST_TSO6, GUEST_CSUM),
    requires!(GUEST_ECN, GUEST_TSO4 or GUEST_TSO6),
    requires!(GUEST_USO4, GUEST_CSUM),
    requires!(GUEST_USO6, GUEST_CSUM),
    requires!(HOST_TSO4, CSUM),
    requires!(HOST_TSO6, CSUM),
    requires!(HOST_ECN, HOST_TSO4 or HOST_TSO6),
    requires!(HOST_USO, CSUM),
    requires!(CTRL_RX, CTRL_VQ),
    requires!(CTRL_RX_EXTRA, CTRL_VQ),
    requires!(CTRL_VLAN, CTRL_VQ),
    requires!(GUEST_ANNOUNCE, CTRL_VQ),
    requires!(MQ, CTRL_VQ),
    requires!(CTRL_MAC_ADDR, CTRL_VQ),
    requires!(NOTF_COAL, CTRL_VQ),
    requires!(VQ_NOTF_COAL, CTRL_VQ),
    requires!(RSS, CTRL_VQ),
    requires!(HASH_REPORT, CTRL_VQ),
    requires!(CTRL_GUEST_OFFLOADS, CTRL_VQ),
    requires!(DEVICE_STATS, CTRL_VQ),
];

/// Checks that each feature in the set has what it requires, and says what is wrong if not.
pub(super) fn check(features: u64) -> Result<(), &'static str> {
    for Requirement { feature, any_of, message } in &REQUIREMENTS {
        if features & feature != 0 && features & any_of == 0 {
            return Err(message);
        }
    }
    Ok(())
}

/// Returns the receive offloads in force when `wanted` ones are switched on: one whose requirement
/// is switched off is not.
pub(super) fn offloads_in_force(wanted: u64) -> u64 {
    let mut offloads = wanted & feature::GUEST_OFFLOADS;
    if offloads & feature::GUEST_CSUM == 0 {
        return 0;
    }
    if offloads & (feature::GUEST_TSO4 | feature::GUEST_TSO6) == 0 {
        offloads &= !feature::GUEST_ECN;
    }
    offloads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_legal_sets() {
        assert_eq!(check(PLAIN), Ok(()));
        assert_eq!(check(SUPPORTED), Ok(()));
        assert_eq!(SUPPORTED & PLAIN, PLAIN);
    }

    #[test]
    fn messages_name_what_is_missing() {
        assert_eq!(
            check(feature::HOST_ECN),
            Err("VIRTIO_NET_F_HOST_ECN requires VIRTIO_NET_F_HOST_TSO4 or VIRTIO_NET_F_HOST_TSO6")
        );
        assert_eq!(check(feature::RSS), Err("VIRTIO_NET_F_RSS requires VIRTIO_NET_F_CTRL_VQ"));
    }

    #[test]
    fn an_offload_is_in_force_only_with_what_it_requires() {
        let (csum, tso4, ecn) = (feature::GUEST_CSUM, feature::GUEST_TSO4, feature::GUEST_ECN);
        assert_eq!(offloads_in_force(tso4 | ecn), 0);
        assert_eq!(offloads_in_force(csum | ecn), csum);
        assert_eq!(offloads_in_force(csum | tso4 | ecn), csum | tso4 | ecn);
        assert_eq!(offloads_in_force(u64::MAX), feature::GUEST_OFFLOADS);
        // Each requirement of 5.1.3.1 among receive offloads is kept.
        for bits in 0..64u64 {
            let wanted = [7, 8, 9, 54, 55, 1].iter().enumerate();
            let wanted = wanted.fold(0, |set, (n, bit)| set | (bits >> n & 1) << bit);
            assert_eq!(check(offloads_in_force(wanted)), Ok(()), "{wanted:#x}");
        }
    }
}
