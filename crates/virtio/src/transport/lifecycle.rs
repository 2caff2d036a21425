//! This module holds the device status (2.1), negotiates features (2.2) and decides which queues
//! run (2.6).

use super::VirtioPci;
use super::device::VirtioDevice;
use super::queue::QueueSetup;
use super::registers::{Queue, Selectors};
use crate::ring::QueueAddresses;
use crate::spec::{feature, status};

impl<D: VirtioDevice> VirtioPci<D> {
    pub(super) fn features_ok(&self) -> bool {
        self.shared.status() & status::FEATURES_OK != 0
    }

    /// Writes the device status. Zero resets the device; otherwise bits can only be added (2.1.1),
    /// and only bits that belong to the driver.
    pub(super) fn write_status(&mut self, value: u8) {
        if value == 0 {
            self.reset_device();
            return;
        }
        let mut added = value & status::DRIVER_BITS & !self.shared.status();
        if added & status::FEATURES_OK != 0 {
            match self.negotiated() {
                Ok(features) => self.features = features,
                Err(reason) => {
                    let features = self.driver_features;
                    tracing::debug!(?features, reason, "FEATURES_OK refused");
                    added &= !status::FEATURES_OK;
                }
            }
        }
        if (self.shared.status() | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.shared.add_status(added);
        if added & status::DRIVER_OK != 0 {
            self.device.activate(self.features);
            self.update_queues();
        }
    }

    /// Returns the features the driver chose, if the device can work with them (2.2.2).
    fn negotiated(&self) -> Result<u64, &'static str> {
        let [low, high, beyond @ ..] = self.driver_features;
        let features = u64::from(high) << 32 | u64::from(low);
        if features & !self.device.features() != 0 || beyond != [0; 2] {
            return Err("a feature that was not offered");
        }
        if features & feature::VERSION_1 == 0 {
            return Err("VIRTIO_F_VERSION_1 is missing: there is no legacy interface");
        }
        self.device.check_features(features)?;
        Ok(features)
    }

    /// Returns to status 0: all queues stopped, all registers as after power-on (2.4.1).
    pub(super) fn reset_device(&mut self) {
        for index in 0..self.facts.queues {
            self.stop_queue(index);
            if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                *queue = Queue::default();
            }
        }
        self.selectors = Selectors::default();
        self.driver_features = [0; 4];
        self.features = 0;
        self.device.reset();
        // The status is reset last, so that whoever reads status 0 finds the rest done.
        self.shared.reset();
    }

    /// Returns the queue, if it exists with the features negotiated so far.
    pub(super) fn queue(&self, index: u16) -> Option<&Queue> {
        self.queues
            .get(usize::from(index))
            .filter(|_| self.device.queue_max_size(index, self.features) != 0)
    }

    pub(super) fn queue_mut(&mut self, index: u16) -> Option<&mut Queue> {
        self.queue(index)?;
        self.queues.get_mut(usize::from(index))
    }

    pub(super) fn is_running(&self, index: u16) -> bool {
        self.queues.get(usize::from(index)).is_some_and(|queue| queue.running)
            && self.shared.status() & status::DEVICE_NEEDS_RESET == 0
    }

    pub(super) fn queue_size(&self, index: u16) -> u16 {
        let chosen = self.queues.get(usize::from(index)).and_then(|queue| queue.size);
        chosen.unwrap_or_else(|| self.device.queue_max_size(index, self.features))
    }

    /// Sets a queue's size. A driver can make a queue smaller (4.1.4.3), a split one to a power of
    /// two (2.7), a packed one to any size (2.8). Other sizes are not taken; it can read that.
    pub(super) fn write_queue_size(&mut self, size: u16) {
        let packed = self.features & feature::RING_PACKED != 0;
        let index = self.selectors.queue;
        let max = self.device.queue_max_size(index, self.features);
        if let Some(queue) = self.queue_mut(index).filter(|queue| !queue.enabled)
            && size <= max
            && size != 0
            && (packed || size.is_power_of_two())
        {
            queue.size = Some(size);
        }
    }

    /// Enables a queue; before FEATURES_OK nobody knows what the queue is.
    pub(super) fn enable_queue(&mut self, index: u16) {
        if !self.features_ok() {
            return;
        }
        if let Some(queue) = self.queue_mut(index) {
            queue.enabled = true;
            self.update_queues();
        }
    }

    /// Resets a queue to an unconfigured one (2.6.1.1), if VIRTIO_F_RING_RESET was negotiated. It
    /// is done on return, so `queue_reset` always reads 0.
    pub(super) fn reset_queue(&mut self, index: u16) {
        if self.features & feature::RING_RESET == 0 || self.queue(index).is_none() {
            return;
        }
        self.stop_queue(index);
        if let Some(queue) = self.queue_mut(index) {
            *queue = Queue::default();
        }
        self.shared.set_queue_vector(index, crate::spec::pci::NO_VECTOR);
    }

    /// Starts and stops queues so that those run which should. Once the device needs a reset
    /// nothing starts any more.
    pub(super) fn update_queues(&mut self) {
        for index in 0..self.facts.queues {
            let enabled = self.queue(index).is_some_and(|queue| queue.enabled);
            let status = self.shared.status();
            if !enabled || !self.bus_master || status & status::DRIVER_OK == 0 {
                self.stop_queue(index);
            } else if status & status::DEVICE_NEEDS_RESET == 0 {
                self.start_queue(index);
            }
        }
    }

    fn start_queue(&mut self, index: u16) {
        let addresses = self.addresses(index);
        let features = self.features;
        let Some(queue) = self.queue_mut(index).filter(|queue| !queue.running) else { return };
        let resume = queue.resume.take();
        queue.running = true;
        let events = self.shared.queue_events(index);
        let setup = QueueSetup { index, addresses, features, resume, events: events.clone() };
        if let Err(error) = self.device.start_queue(setup) {
            if let Some(queue) = self.queue_mut(index) {
                queue.running = false;
            }
            events.fail(&error);
        }
    }

    fn stop_queue(&mut self, index: u16) {
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return };
        if std::mem::take(&mut queue.running) {
            queue.resume = Some(self.device.stop_queue(index));
        }
    }

    fn addresses(&self, index: u16) -> QueueAddresses {
        let size = self.queue_size(index);
        self.queue(index).map_or_else(QueueAddresses::default, |queue| QueueAddresses {
            size,
            descriptors: queue.descriptors,
            driver: queue.driver,
            device: queue.device,
        })
    }
}
