//! This module holds what both the registers and the queues' workers touch: device status, ISR
//! status and interrupt vectors. It consists of atomics, so that a worker can raise an interrupt or
//! give up on a queue while another thread, holding the device, waits for that worker to stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use manifold_pci::{Msix, Vector};
use parking_lot::Mutex;

use super::queue::QueueEvents;
use crate::spec::pci::{NO_VECTOR, isr};
use crate::spec::status;

/// Unit of the number of resets, which is above the device status in the low byte: a worker's
/// verdict on a queue of an earlier life cannot hit the present one.
const EPOCH: u64 = 1 << 8;

pub(super) struct SharedStatus {
    name: String,
    state: AtomicU64,
    isr: AtomicU8,
    config_vector: AtomicU16,
    queue_vectors: Box<[AtomicU16]>,
    vectors: Box<[Vector]>,
    /// The reason why the device needs a reset. The lock is never held while calling anything.
    failure: Mutex<Option<String>>,
}

impl SharedStatus {
    pub(super) fn new(name: String, queues: u16, vectors: u16, msix: &Msix) -> Self {
        SharedStatus {
            name,
            state: AtomicU64::new(0),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            vectors: (0..vectors).filter_map(|n| msix.vector(n)).collect(),
            failure: Mutex::new(None),
        }
    }

    pub(super) fn status(&self) -> u8 {
        self.state.load(Ordering::Acquire) as u8
    }

    pub(super) fn add_status(&self, bits: u8) {
        self.state.fetch_or(u64::from(bits), Ordering::AcqRel);
    }

    /// Sets everything to what it is after power-on. All queues are stopped.
    pub(super) fn reset(&self) {
        // Nothing but DEVICE_NEEDS_RESET can be added meanwhile, and it is lost with the rest.
        let epoch = self.state.load(Ordering::Acquire) & !(EPOCH - 1);
        self.state.store(epoch.wrapping_add(EPOCH), Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
        *self.failure.lock() = None;
    }

    /// Returns the ISR status, which reading clears (4.1.4.5).
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.mapped(vector), Ordering::Release);
    }

    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        self.queue_vectors
            .get(usize::from(queue))
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(register) = self.queue_vectors.get(usize::from(queue)) {
            register.store(self.mapped(vector), Ordering::Release);
        }
    }

    /// Returns the vector as it is stored: one that does not exist reads back as NO_VECTOR
    /// (4.1.5.1.2.1).
    fn mapped(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.vectors.len() { vector } else { NO_VECTOR }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Tells a live driver that configuration or status changed (4.1.5.4).
    pub(super) fn notify_config(&self) {
        if self.status() & status::DRIVER_OK != 0 {
            self.isr.fetch_or(isr::CONFIG, Ordering::AcqRel);
            self.raise(self.config_vector());
        }
    }

    fn raise(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.raise();
        }
    }

    /// Returns the [`QueueEvents`] of a queue that starts now.
    pub(super) fn queue_events(self: &Arc<Self>, queue: u16) -> Arc<dyn QueueEvents> {
        let epoch = self.state.load(Ordering::Acquire) & !(EPOCH - 1);
        Arc::new(QueueReporter { shared: Arc::clone(self), queue, epoch })
    }

    fn fail(&self, epoch: u64, queue: u16, reason: &dyn fmt::Display) {
        let needs_reset = u64::from(status::DEVICE_NEEDS_RESET);
        let first = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state & !(EPOCH - 1) == epoch && state & needs_reset == 0)
                .then_some(state | needs_reset)
        });
        if first.is_ok() {
            // A guest can get here as often as it likes, so this is no louder than debug.
            tracing::debug!(function = %self.name, queue, %reason, "device needs a reset");
            *self.failure.lock() = Some(format!("queue {queue}: {reason}"));
            self.notify_config();
        }
    }
}

/// The way of one queue's events to the driver.
struct QueueReporter {
    shared: Arc<SharedStatus>,
    queue: u16,
    epoch: u64,
}

impl QueueEvents for QueueReporter {
    fn interrupt(&self) {
        let shared = &*self.shared;
        // Nobody reads the ISR status with MSI-X, so the bit stays set and costs a load of a line
        // that is not written.
        if shared.isr.load(Ordering::Relaxed) & isr::QUEUE == 0 {
            shared.isr.fetch_or(isr::QUEUE, Ordering::AcqRel);
        }
        shared.raise(shared.queue_vector(self.queue));
    }

    fn fail(&self, reason: &dyn fmt::Display) {
        self.shared.fail(self.epoch, self.queue, reason);
    }
}
