//! This module is virtio over PCI, for modern devices only (4.1): the register file of a function,
//! and the life of its queues.
//!
//! ```text
//!   driver's write to BAR0 --> common.rs (registers) -+-> lifecycle.rs -start/stop-> VirtioDevice
//!   or through configuration   pci_cfg.rs             |   (which queues run)             |
//!                                                     `-> doorbell ------notify----------'
//!
//!   a queue's worker --QueueEvents--> shared_status.rs (status, ISR, vectors: atomics) --> MSI-X
//! ```
//!
//! [`VirtioPci`] knows nothing of networks, and a [`VirtioDevice`] nothing of registers. All
//! register state is the transport's; a queue runs exactly while it is enabled, the device is live
//! and the function may master the bus.

mod access;
mod common;
mod device;
pub mod layout;
mod lifecycle;
mod pci_cfg;
mod queue;
mod registers;
mod shared_status;

use std::sync::Arc;

use manifold_pci::{DeviceModel, Msix};

pub use device::{DeviceFacts, VirtioDevice};
pub use queue::{QueueError, QueueEvents, QueueSetup, QueueState};

use pci_cfg::PciCfg;
use registers::{Queue, Selectors};
use shared_status::SharedStatus;

/// Size of the common configuration structure in bytes.
const COMMON_SIZE: u64 = crate::spec::pci::common::SIZE as u64;

/// A virtio device as a PCIe function.
pub struct VirtioPci<D> {
    pub(crate) device: D,
    facts: DeviceFacts,
    shared: Arc<SharedStatus>,
    selectors: Selectors,
    /// Values that the driver wrote to `driver_feature`, by `driver_feature_select`.
    driver_features: [u32; 4],
    /// The negotiated features; zero before FEATURES_OK.
    features: u64,
    queues: Vec<Queue>,
    pci_cfg: PciCfg,
    bus_master: bool,
    config: ConfigView,
}

/// The device-specific configuration as the driver last saw it, to know when to change
/// `config_generation` (4.1.4.3.1).
struct ConfigView {
    generation: u8,
    seen: Vec<u8>,
    now: Vec<u8>,
}

/// The state of a device, for those who look at a function from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// The device status register (2.1).
    pub status: u8,
    /// The negotiated features; zero before FEATURES_OK.
    pub features: u64,
    /// The reason why the device needs a reset, if it does.
    pub failure: Option<String>,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Makes a function named `name` (in logs) that holds `device`, as after power-on: Bus Master
    /// Enable is clear. `msix` are the vectors of its configuration space.
    pub fn with_device(device: D, name: impl Into<String>, msix: &Msix) -> Self {
        let facts = device.facts();
        let shared = SharedStatus::new(name.into(), facts.queues, layout::vectors(&facts), msix);
        let mut config = vec![0; facts.config_size.into()];
        device.read_config(&mut config);
        VirtioPci {
            device,
            facts,
            shared: Arc::new(shared),
            selectors: Selectors::default(),
            driver_features: [0; 4],
            features: 0,
            queues: (0..facts.queues).map(|_| Queue::default()).collect(),
            pci_cfg: PciCfg::new(),
            bus_master: false,
            config: ConfigView { generation: 0, seen: config.clone(), now: config },
        }
    }

    /// Returns the device's present state.
    pub fn state(&self) -> DeviceState {
        DeviceState {
            status: self.shared.status(),
            features: self.features,
            failure: self.shared.failure(),
        }
    }

    /// Tells a live driver that the device-specific configuration changed (4.1.5.4).
    pub(crate) fn notify_config(&self) {
        self.shared.notify_config();
    }

    fn read_device_config(&mut self, offset: u64, data: &mut [u8]) {
        let ConfigView { generation, seen, now } = &mut self.config;
        self.device.read_config(now);
        if seen != now {
            *generation = generation.wrapping_add(1);
            seen.copy_from_slice(now);
        }
        let from = now.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for (out, byte) in data.iter_mut().zip(from) {
            *out = *byte;
        }
    }

    fn notify(&mut self, index: u16) {
        if self.is_running(index) {
            self.device.notify(index);
        }
    }
}

impl<D: VirtioDevice> DeviceModel for VirtioPci<D> {
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != layout::BAR {
            return;
        }
        let len = data.len();
        if let Some((at, range)) = access::part(offset, len, layout::COMMON, COMMON_SIZE) {
            self.read_common(at, data.get_mut(range).unwrap_or_default());
        }
        if let Some((_, range)) = access::part(offset, len, layout::ISR, 1) {
            let isr = self.shared.take_isr();
            data.get_mut(range).unwrap_or_default().fill(isr);
        }
        let config = self.facts.config_size.into();
        if let Some((at, range)) = access::part(offset, len, layout::DEVICE, config) {
            self.read_device_config(at, data.get_mut(range).unwrap_or_default());
        }
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar != layout::BAR {
            return;
        }
        if let Some((at, range)) = access::part(offset, data.len(), layout::COMMON, COMMON_SIZE) {
            self.write_common(at, data.get(range).unwrap_or_default());
        }
        if let Some(queue) = layout::doorbell(offset).filter(|_| !data.is_empty()) {
            self.notify(queue);
        }
    }

    fn config_read(&mut self, capability: usize, offset: u8, data: &mut [u8]) -> bool {
        if capability != layout::WINDOW_CAPABILITY {
            return false;
        }
        let Some(target) = self.pci_cfg.reads(offset, data.len()) else { return false };
        let mut value = [0; 4];
        let value = value.get_mut(..target.len).unwrap_or_default();
        self.read(target.bar, target.offset, value);
        self.pci_cfg.fill(value, offset, data);
        true
    }

    fn config_write(&mut self, capability: usize, offset: u8, data: &[u8]) {
        if capability != layout::WINDOW_CAPABILITY {
            return;
        }
        if let Some((target, value)) = self.pci_cfg.write(offset, data) {
            self.write(target.bar, target.offset, value.get(..target.len).unwrap_or_default());
        }
    }

    /// Resets the function. Bus Master Enable is clear after every such reset: the queues of the
    /// next driver start once [`bus_master_changed`](DeviceModel::bus_master_changed) says it is
    /// set.
    fn reset(&mut self) {
        self.reset_device();
        self.pci_cfg = PciCfg::new();
        self.bus_master = false;
    }

    /// Stops the queues where they are, or lets them continue. So that no queue uses memory that it
    /// may not, tell the device of `false` before its DMA domain, and of `true` after it.
    fn bus_master_changed(&mut self, on: bool) {
        self.bus_master = on;
        self.update_queues();
    }
}
