//! This module is the device status register of a device whose registers the client has.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::spec::status;

/// The progress of the driver as the device status register shows it (virtio 1.3, 2.1): as the
/// client says, or as its requests imply.
#[derive(Debug, Default)]
pub struct DeviceStatus {
    register: AtomicU8,
    /// Virtio's feature bits that the driver accepted.
    features: AtomicU64,
    /// The first reason since the last reset why the device needs one.
    failure: Mutex<Option<String>>,
}

impl DeviceStatus {
    /// Returns the register.
    #[must_use]
    pub fn get(&self) -> u8 {
        self.register.load(Ordering::Acquire)
    }

    /// Returns virtio's feature bits that the driver accepted; 0 before it accepted any.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features.load(Ordering::Acquire)
    }

    /// Returns the reason why the device needs a reset, if it does.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(crate) fn set_features(&self, features: u64) {
        self.features.store(features, Ordering::Release);
    }

    /// Resets the register: the driver is gone.
    pub(crate) fn clear(&self) {
        self.register.store(0, Ordering::Release);
        self.features.store(0, Ordering::Release);
        *self.failure.lock() = None;
    }

    /// Sets the register to what the driver says, but keeps DEVICE_NEEDS_RESET of a broken ring.
    pub(crate) fn keep_needs_reset(&self, value: u8) {
        let update = |old: u8| Some(value | old & status::NEEDS_RESET);
        // The update never declines.
        let _ = self.register.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Sets DEVICE_NEEDS_RESET; the first reason since a reset is kept.
    pub(crate) fn fail(&self, reason: String) {
        self.failure.lock().get_or_insert(reason);
        self.register.fetch_or(status::NEEDS_RESET, Ordering::AcqRel);
    }
}
