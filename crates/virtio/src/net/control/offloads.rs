//! This module switches receive offloads on and off (5.1.6.5.8).

use super::{Outcome, Refused};
use crate::net::features;
use crate::net::settings::{Changes, Settings};
use crate::spec::net::feature;

impl Settings {
    /// Carries out a command of class GUEST_OFFLOADS (5.1.6.5.8.1).
    ///
    /// Linux counts VIRTIO_NET_F_GUEST_HDRLEN among the offloads that it sets. To the device it is
    /// none.
    pub(super) fn offloads_set(&mut self, data: &[u8]) -> Outcome {
        self.require(feature::CTRL_GUEST_OFFLOADS)?;
        let wanted = data.try_into().map(u64::from_le_bytes).map_err(|_| Refused)?;
        let known = feature::GUEST_OFFLOADS | feature::GUEST_HDRLEN;
        if wanted & !(self.features & known) != 0 {
            return Err(Refused);
        }
        self.offloads = features::offloads_in_force(wanted);
        Ok(Changes::OFFLOADS)
    }
}
