//! This module is the interface between a function's PCIe side and the device behind it.
//!
//! [`DeviceModel`] is what any device is to PCIe. [`Nic`] adds what an adapter asks of a device
//! that is a network interface. Nothing in this crate calls `Nic`: it is here because device models
//! import this crate and not the adapter.

/// A device behind a function's BARs and vendor-specific capabilities.
///
/// The PCIe core knows devices through this trait alone. Whoever owns the function routes accesses
/// here and acts on the [`Events`](crate::Events) of its configuration space. Registers of the
/// standard (BARs, MSI-X table, power state) never reach the model. The
/// [`FunctionSpec`](crate::FunctionSpec) says what the configuration space is built from; it is
/// known before the model is, because the model is built with the space's MSI-X vectors.
pub trait DeviceModel: Send {
    /// Reads from a BAR. Ranges of the MSI-X table and pending bit array never get here. The model
    /// writes all of `data`; bytes that it does not define read as zero.
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes to a BAR. Ranges of the MSI-X table and pending bit array never get here.
    fn write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// Offers the model a read of a vendor-specific capability. `capability` is an index into
    /// [`FunctionSpec::vendor`](crate::FunctionSpec::vendor), and `offset` counts from the
    /// capability's ID byte. The model returns `true` if it filled `data`; otherwise the
    /// configuration space answers.
    fn config_read(&mut self, _capability: usize, _offset: u8, _data: &mut [u8]) -> bool {
        false
    }

    /// Reports a write to a vendor-specific capability, after the configuration space has stored
    /// what is writable. `offset` counts from the capability's ID byte.
    fn config_write(&mut self, _capability: usize, _offset: u8, _data: &[u8]) {}

    /// Returns the model to its state after power-on (FLR, VF Enable cleared, VMM gone). When it
    /// returns, all queues are stopped and nothing touches the function's DMA domain any more. Bus
    /// Master Enable counts as clear afterwards.
    fn reset(&mut self);

    /// Reports that the function may (or may no longer) send memory requests.
    fn bus_master_changed(&mut self, _on: bool) {}
}

/// A device model that is a network interface: what an adapter asks of it for policy and for
/// display.
pub trait Nic: DeviceModel {
    /// Returns the MAC address in use, in the order of transmission: the assigned one, unless the
    /// driver changed it.
    fn mac(&self) -> [u8; 6];

    /// Returns the MTU offered to the driver, in bytes.
    fn mtu(&self) -> u16;

    /// Returns `true` while the driver sees the link as up.
    fn link_up(&self) -> bool;

    /// Returns the progress of the driver.
    fn driver(&self) -> DriverReport;

    /// Tells a PF's model whether its driver sees the SR-IOV capability. A VMM's guest does not, so
    /// a model that announces SR-IOV by registers of its own must hide it there. The call comes
    /// while the model is reset.
    fn offer_sr_iov(&mut self, _offer: bool) {}
}

/// The progress of the driver of a [`Nic`], for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverReport {
    /// Progress in the bits of virtio's device status register (virtio 1.3, section 2.1), whatever
    /// the model: 0 after a reset, 1 | 2 while a driver starts, 4 set once it runs, 40h set when
    /// the device needs a reset.
    pub status: u8,
    /// Names of the features in use; empty before the driver has accepted some.
    pub features: Vec<&'static str>,
    /// The reason why the device needs a reset, if it does.
    pub failure: Option<String>,
}
