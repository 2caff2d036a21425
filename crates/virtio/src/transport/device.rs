//! This module is the interface between the virtio-pci registers and a device.

use super::queue::{QueueError, QueueSetup, QueueState};

/// The properties of a virtio device that no state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The virtio device ID (section 5).
    pub device_id: u16,
    /// The PCI class code, 24 bits.
    pub class_code: u32,
    /// The largest number of queues the driver can have (`num_queues`), whatever is negotiated. It
    /// is at most 1,024: the notification area has room for no more.
    pub queues: u16,
    /// Size of the device-specific configuration in bytes.
    pub config_size: u16,
}

/// A virtio device of some type, without its transport.
///
/// The transport calls all methods from whatever thread accesses the registers, one at a time. A
/// queue is started once it is enabled, the device is live (DRIVER_OK) and the function may master
/// the bus; it is stopped when one of these ends.
pub trait VirtioDevice: Send {
    /// Returns what never changes about the device.
    fn facts(&self) -> DeviceFacts;

    /// Returns the features offered. They may change, but only while the device is reset.
    fn features(&self) -> u64;

    /// Checks a subset of the offered features. FEATURES_OK is refused with the message that says
    /// what is wrong.
    ///
    /// # Errors
    /// When a feature lacks one that it requires, or the device cannot work without one that is
    /// missing.
    fn check_features(&self, features: u64) -> Result<(), &'static str>;

    /// Returns the largest size of a queue with `features` negotiated; 0 if there is no such queue.
    fn queue_max_size(&self, index: u16, features: u64) -> u16;

    /// Fills `config`, [`DeviceFacts::config_size`] bytes, with the present device-specific
    /// configuration.
    fn read_config(&self, config: &mut [u8]);

    /// Makes the device live with these features, after DRIVER_OK was set. Its queues start next.
    fn activate(&mut self, features: u64);

    /// Begins to serve a queue.
    ///
    /// # Errors
    /// The device then needs a reset.
    fn start_queue(&mut self, setup: QueueSetup) -> Result<(), QueueError>;

    /// Ends serving a queue. When it returns, nothing touches the queue's memory any more, and
    /// nothing will call its [`QueueEvents`](super::QueueEvents).
    fn stop_queue(&mut self, index: u16) -> QueueState;

    /// Tells that the driver made buffers available in a started queue.
    fn notify(&mut self, index: u16);

    /// Returns to the state after power-on. All queues are stopped already.
    fn reset(&mut self);
}
