//! This module names feature bits for people to read.

use crate::spec::feature as common;
use crate::spec::net::feature;

/// Makes one row of each constant: its mask, and its name as it is spelled.
macro_rules! names {
    ($($module:ident: $($name:ident)*;)*) => {
        [$($(($module::$name, stringify!($name)),)*)*]
    };
}

/// The features' bits and names, in the order of the bits.
const NAMES: [(u64, &str); 41] = names! {
    feature: CSUM GUEST_CSUM CTRL_GUEST_OFFLOADS MTU MAC GUEST_TSO4 GUEST_TSO6 GUEST_ECN HOST_TSO4
        HOST_TSO6 HOST_ECN MRG_RXBUF STATUS CTRL_VQ CTRL_RX CTRL_VLAN CTRL_RX_EXTRA GUEST_ANNOUNCE
        MQ CTRL_MAC_ADDR;
    common: INDIRECT_DESC EVENT_IDX VERSION_1 ACCESS_PLATFORM RING_PACKED IN_ORDER ORDER_PLATFORM
        SR_IOV NOTIFICATION_DATA NOTIF_CONFIG_DATA RING_RESET;
    feature: DEVICE_STATS VQ_NOTF_COAL NOTF_COAL GUEST_USO4 GUEST_USO6 HOST_USO HASH_REPORT
        GUEST_HDRLEN RSS SPEED_DUPLEX;
};

/// Returns the features of a network device that are in the set, as the specification names them
/// without the prefix (VIRTIO_NET_F_, VIRTIO_F_); a bit without a name here is left out.
pub fn feature_names(features: u64) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(move |(bit, _)| features & bit != 0).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SUPPORTED;

    #[test]
    fn every_feature_on_offer_has_a_name() {
        let named = NAMES.iter().fold(0, |set, (bit, _)| set | bit);
        assert_eq!(SUPPORTED & !named, 0);
        assert!(NAMES.is_sorted(), "not in the order of the bits");
        assert!(NAMES.iter().all(|(bit, _)| bit.is_power_of_two()));
        let some = common::RING_PACKED | feature::MQ | 1 << 62;
        assert_eq!(feature_names(some).collect::<Vec<_>>(), ["MQ", "RING_PACKED"]);
    }
}
