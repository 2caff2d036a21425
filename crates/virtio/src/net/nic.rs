//! This module answers with a [`NetDevice`] what an adapter asks of a network interface.

use manifold_pci::{DriverReport, Nic};

use super::{NetDevice, feature_names};
use crate::transport::DeviceState;

impl Nic for NetDevice {
    fn mac(&self) -> [u8; 6] {
        self.device.settings.filters.mac.octets()
    }

    fn mtu(&self) -> u16 {
        self.device.config.mtu
    }

    fn link_up(&self) -> bool {
        self.device.config.link_up
    }

    fn driver(&self) -> DriverReport {
        let DeviceState { status, features, failure } = self.state();
        DriverReport { status, features: feature_names(features).collect(), failure }
    }

    /// Sets whether VIRTIO_F_SR_IOV is offered to the next driver. A driver that does not see the
    /// SR-IOV capability must not see the feature either.
    fn offer_sr_iov(&mut self, offer: bool) {
        self.device.config.sr_iov = offer;
    }
}
