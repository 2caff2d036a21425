//! This module is the common configuration structure (4.1.4.3): what each register reads and what
//! writing it does.

use super::VirtioPci;
use super::access::Register;
use super::device::VirtioDevice;
use crate::spec::pci::{NO_VECTOR, common as reg};

// These are the upper halves of the 64-bit registers.
const QUEUE_DESC_HIGH: u8 = reg::QUEUE_DESC + 4;
const QUEUE_DRIVER_HIGH: u8 = reg::QUEUE_DRIVER + 4;
const QUEUE_DEVICE_HIGH: u8 = reg::QUEUE_DEVICE + 4;

const fn register(offset: u8, size: u8) -> Register {
    Register { offset, size }
}

/// All registers, ascending; 64-bit ones are two of 32 bits (4.1.3).
const REGISTERS: [Register; 22] = [
    register(reg::DEVICE_FEATURE_SELECT, 4),
    register(reg::DEVICE_FEATURE, 4),
    register(reg::DRIVER_FEATURE_SELECT, 4),
    register(reg::DRIVER_FEATURE, 4),
    register(reg::CONFIG_MSIX_VECTOR, 2),
    register(reg::NUM_QUEUES, 2),
    register(reg::DEVICE_STATUS, 1),
    register(reg::CONFIG_GENERATION, 1),
    register(reg::QUEUE_SELECT, 2),
    register(reg::QUEUE_SIZE, 2),
    register(reg::QUEUE_MSIX_VECTOR, 2),
    register(reg::QUEUE_ENABLE, 2),
    register(reg::QUEUE_NOTIFY_OFF, 2),
    register(reg::QUEUE_DESC, 4),
    register(QUEUE_DESC_HIGH, 4),
    register(reg::QUEUE_DRIVER, 4),
    register(QUEUE_DRIVER_HIGH, 4),
    register(reg::QUEUE_DEVICE, 4),
    register(QUEUE_DEVICE_HIGH, 4),
    register(reg::QUEUE_NOTIF_CONFIG_DATA, 2),
    register(reg::QUEUE_RESET, 2),
    // The registers admin_queue_index and admin_queue_num are both zero: VIRTIO_F_ADMIN_VQ is not
    // offered.
    register(reg::ADMIN_QUEUE_INDEX, 4),
];

impl<D: VirtioDevice> VirtioPci<D> {
    /// Reads `data.len()` bytes at `start`.
    pub(super) fn read_common(&self, start: u64, data: &mut [u8]) {
        for register in REGISTERS {
            if register.touches(start, data.len()) {
                register.read(self.read_register(register.offset), start, data);
            }
        }
    }

    /// Writes `data` at `start`.
    pub(super) fn write_common(&mut self, start: u64, data: &[u8]) {
        for register in REGISTERS {
            if register.touches(start, data.len()) {
                let value = register.merge(self.read_register(register.offset), start, data);
                self.write_register(register.offset, value);
            }
        }
    }

    fn read_register(&self, offset: u8) -> u32 {
        match offset {
            reg::DEVICE_FEATURE_SELECT => self.selectors.device_feature,
            reg::DEVICE_FEATURE => match self.selectors.device_feature {
                0 => self.device.features() as u32,
                1 => (self.device.features() >> 32) as u32,
                _ => 0,
            },
            reg::DRIVER_FEATURE_SELECT => self.selectors.driver_feature,
            reg::DRIVER_FEATURE => usize::try_from(self.selectors.driver_feature)
                .ok()
                .and_then(|select| self.driver_features.get(select))
                .copied()
                .unwrap_or(0),
            reg::CONFIG_MSIX_VECTOR => self.shared.config_vector().into(),
            reg::NUM_QUEUES => self.facts.queues.into(),
            reg::DEVICE_STATUS => self.shared.status().into(),
            reg::CONFIG_GENERATION => self.config.generation.into(),
            reg::QUEUE_SELECT => self.selectors.queue.into(),
            _ => self.read_queue_register(offset),
        }
    }

    /// Reads a register of the selected queue. If the queue does not exist, all but the vector read
    /// zero.
    fn read_queue_register(&self, offset: u8) -> u32 {
        let index = self.selectors.queue;
        let Some(queue) = self.queue(index) else {
            return if offset == reg::QUEUE_MSIX_VECTOR { NO_VECTOR.into() } else { 0 };
        };
        let low = |address: u64| address as u32;
        let high = |address: u64| (address >> 32) as u32;
        match offset {
            reg::QUEUE_SIZE => self.queue_size(index).into(),
            reg::QUEUE_MSIX_VECTOR => self.shared.queue_vector(index).into(),
            reg::QUEUE_ENABLE => queue.enabled.into(),
            reg::QUEUE_NOTIFY_OFF | reg::QUEUE_NOTIF_CONFIG_DATA => index.into(),
            reg::QUEUE_DESC => low(queue.descriptors),
            QUEUE_DESC_HIGH => high(queue.descriptors),
            reg::QUEUE_DRIVER => low(queue.driver),
            QUEUE_DRIVER_HIGH => high(queue.driver),
            reg::QUEUE_DEVICE => low(queue.device),
            QUEUE_DEVICE_HIGH => high(queue.device),
            // A queue is reset by the time the write to `queue_reset` is done.
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u8, value: u32) {
        match offset {
            reg::DEVICE_FEATURE_SELECT => self.selectors.device_feature = value,
            reg::DRIVER_FEATURE_SELECT => self.selectors.driver_feature = value,
            reg::DRIVER_FEATURE => self.write_driver_feature(value),
            reg::CONFIG_MSIX_VECTOR => self.shared.set_config_vector(value as u16),
            reg::DEVICE_STATUS => self.write_status(value as u8),
            reg::QUEUE_SELECT => self.selectors.queue = value as u16,
            reg::QUEUE_SIZE => self.write_queue_size(value as u16),
            reg::QUEUE_MSIX_VECTOR => {
                let index = self.selectors.queue;
                if self.queue(index).is_some() {
                    self.shared.set_queue_vector(index, value as u16);
                }
            }
            // The driver must not write 0 (4.1.4.3.2); it disables a queue by resetting it.
            reg::QUEUE_ENABLE if value == 1 => self.enable_queue(self.selectors.queue),
            reg::QUEUE_RESET if value == 1 => self.reset_queue(self.selectors.queue),
            _ => self.write_queue_address(offset, value),
        }
    }

    /// Writes `driver_feature`. The upper selectors exist so that a driver which accepts features
    /// that were not offered is detected.
    fn write_driver_feature(&mut self, value: u32) {
        let select = usize::try_from(self.selectors.driver_feature).unwrap_or(usize::MAX);
        if !self.features_ok()
            && let Some(features) = self.driver_features.get_mut(select)
        {
            *features = value;
        }
    }

    /// Writes a queue's address, unless the queue is enabled: the place of its rings is fixed then.
    fn write_queue_address(&mut self, offset: u8, value: u32) {
        let Some(queue) = self.queue_mut(self.selectors.queue).filter(|queue| !queue.enabled)
        else {
            return;
        };
        let (address, half) = match offset {
            reg::QUEUE_DESC => (&mut queue.descriptors, 0),
            QUEUE_DESC_HIGH => (&mut queue.descriptors, 32),
            reg::QUEUE_DRIVER => (&mut queue.driver, 0),
            QUEUE_DRIVER_HIGH => (&mut queue.driver, 32),
            reg::QUEUE_DEVICE => (&mut queue.device, 0),
            QUEUE_DEVICE_HIGH => (&mut queue.device, 32),
            _ => return,
        };
        *address = *address & !(u64::from(u32::MAX) << half) | u64::from(value) << half;
    }
}
