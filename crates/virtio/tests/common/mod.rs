//! This module puts a network device in a rig: guest memory in a memfd, a host that keeps book of
//! what it is told, and a driver that knows the device only through its registers, capabilities and
//! memory.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

pub mod driver;
pub mod memory;
pub mod packed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use manifold_dma::Domain;
use manifold_pci::{DeviceModel, MsiSink, Msix};
use manifold_virtio::net::{
    Coalescing, Filters, NetConfig, NetDevice, QueueHost, QueueStatistics, Role, Steering,
};
use manifold_virtio::spec::pci::{cap, common};
use manifold_virtio::transport::{QueueError, QueueSetup, QueueState, layout};

pub use driver::{Control, QueueMemory, drive_to_features_ok};
pub use memory::Memory;

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// An event that the device told its host of.
#[derive(Clone, Debug, PartialEq)]
pub enum HostEvent {
    Start(u16, Role),
    Stop(u16),
    Notify(u16),
    Filters(Box<Filters>),
    Steering(Steering),
    Offloads(u64),
    Coalescing(u16, Coalescing),
}

/// The state that a host believes in after all it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub filters: Filters,
    pub steering: Steering,
    pub offloads: u64,
    /// The coalescing of each queue that runs.
    pub coalescing: BTreeMap<u16, Coalescing>,
}

impl Default for View {
    fn default() -> Self {
        View {
            filters: Filters::new(MAC),
            steering: Steering::default(),
            offloads: 0,
            coalescing: BTreeMap::new(),
        }
    }
}

impl View {
    fn learn(&mut self, host_events: &HostEvent) {
        match host_events {
            HostEvent::Start(index, _) => {
                self.coalescing.insert(*index, Coalescing::default());
            }
            HostEvent::Stop(index) => {
                self.coalescing.remove(index);
            }
            HostEvent::Notify(_) => {}
            HostEvent::Filters(filters) => self.filters = (**filters).clone(),
            HostEvent::Steering(steering) => self.steering = steering.clone(),
            HostEvent::Offloads(offloads) => self.offloads = *offloads,
            HostEvent::Coalescing(index, coalescing) => {
                self.coalescing.insert(*index, *coalescing);
            }
        }
    }
}

/// A host that serves nothing and remembers everything. It panics where the device breaks the
/// contract.
#[derive(Default)]
pub struct Host {
    host_events: Mutex<Vec<HostEvent>>,
    view: Mutex<View>,
    running: Mutex<BTreeMap<u16, QueueSetup>>,
    pub refuse: Mutex<bool>,
    /// A function called when anything that holds for the device changes.
    pub hook: Mutex<Option<Hook>>,
    /// True if every queue breaks while it is being stopped, found out by a worker that `stop`
    /// waits for.
    pub break_on_stop: Mutex<bool>,
}

pub type Hook = Box<dyn FnMut() + Send>;

impl Host {
    pub fn take(&self) -> Vec<HostEvent> {
        std::mem::take(&mut self.host_events.lock().unwrap())
    }

    pub fn running(&self) -> MutexGuard<'_, BTreeMap<u16, QueueSetup>> {
        self.running.lock().unwrap()
    }

    /// The filters told last, if any were told since the last [`Host::take`].
    pub fn last_filters(&self) -> Option<Filters> {
        self.host_events.lock().unwrap().iter().rev().find_map(|host_events| match host_events {
            HostEvent::Filters(filters) => Some((**filters).clone()),
            _ => None,
        })
    }

    /// The steering told last, if any was told since the last [`Host::take`].
    pub fn last_steering(&self) -> Option<Steering> {
        self.host_events.lock().unwrap().iter().rev().find_map(|host_events| match host_events {
            HostEvent::Steering(steering) => Some(steering.clone()),
            _ => None,
        })
    }

    /// The receive offloads told last, if any were told since the last [`Host::take`].
    pub fn last_offloads(&self) -> Option<u64> {
        self.host_events.lock().unwrap().iter().rev().find_map(|host_events| match host_events {
            HostEvent::Offloads(offloads) => Some(*offloads),
            _ => None,
        })
    }

    /// Returns what follows from all that the host was ever told.
    pub fn view(&self) -> View {
        self.view.lock().unwrap().clone()
    }

    fn note(&self, host_events: HostEvent) {
        self.view.lock().unwrap().learn(&host_events);
        self.host_events.lock().unwrap().push(host_events);
    }

    fn tell(&self, host_events: HostEvent) {
        self.note(host_events);
        if let Some(hook) = &mut *self.hook.lock().unwrap() {
            hook();
        }
    }
}

/// Returns what queue `index` is said to have done: 1000 times the index, plus the field's number.
pub fn statistics(index: u16) -> QueueStatistics {
    let base = 1000 * u64::from(index);
    QueueStatistics {
        packets: base + 1,
        bytes: base + 2,
        interrupts: base + 3,
        notifications: base + 4,
        drops: base + 5,
        overruns: base + 6,
        malformed: base + 7,
        partial_checksums: base + 8,
        gso_packets: base + 9,
        gso_bytes: base + 10,
    }
}

impl QueueHost for Host {
    fn start(&self, role: Role, setup: QueueSetup) -> Result<(), QueueError> {
        let index = setup.index;
        let expected = match role {
            Role::Rx(pair) => 2 * pair,
            Role::Tx(pair) => 2 * pair + 1,
        };
        assert_eq!(index, expected, "role and number agree");
        if *self.refuse.lock().unwrap() {
            return Err(QueueError::Unserved("host_events to refuse".into()));
        }
        self.note(HostEvent::Start(index, role));
        assert!(self.running().insert(index, setup).is_none(), "queue {index} started twice");
        Ok(())
    }

    fn stop(&self, index: u16) -> QueueState {
        self.note(HostEvent::Stop(index));
        let setup = self.running().remove(&index);
        let setup = setup.unwrap_or_else(|| panic!("queue {index} stopped while stopped"));
        if *self.break_on_stop.lock().unwrap() {
            let worker = std::thread::spawn(move || {
                setup.events.fail(&"broken");
                setup.events.interrupt();
            });
            worker.join().unwrap();
        }
        QueueState { next_avail: 100 + index, next_used: 200 + index }
    }

    fn notify(&self, index: u16) {
        assert!(self.running().contains_key(&index), "queue {index} notified while stopped");
        self.note(HostEvent::Notify(index));
    }

    fn filters_changed(&self, filters: &Filters) {
        self.tell(HostEvent::Filters(Box::new(filters.clone())));
    }

    fn steering_changed(&self, steering: &Steering) {
        self.tell(HostEvent::Steering(steering.clone()));
    }

    fn offloads_changed(&self, offloads: u64) {
        self.tell(HostEvent::Offloads(offloads));
    }

    fn coalescing_changed(&self, index: u16, coalescing: Coalescing) {
        assert!(self.running().contains_key(&index), "queue {index} coalesced while stopped");
        self.tell(HostEvent::Coalescing(index, coalescing));
    }

    fn statistics(&self, index: u16) -> QueueStatistics {
        statistics(index)
    }
}

/// A counter of the messages of each vector.
struct Counter(Arc<Mutex<BTreeMap<u16, u32>>>, u16);

impl MsiSink for Counter {
    fn deliver(&self, _address: u64, _data: u32) {
        *self.0.lock().unwrap().entry(self.1).or_default() += 1;
    }
}

pub struct Rig {
    pub device: NetDevice,
    pub host: Arc<Host>,
    pub domain: Arc<Domain>,
    pub memory: Memory,
    messages: Arc<Mutex<BTreeMap<u16, u32>>>,
}

pub fn config() -> NetConfig {
    NetConfig { queue_pairs: 2, mtu: 9000, ..NetConfig::new("vf0", MAC) }
}

impl Rig {
    /// Makes a device as after power-on, with memory mapped and MSI-X enabled. Bus Master Enable is
    /// clear.
    pub fn new(config: NetConfig) -> Self {
        let domain = Domain::new("vf0");
        let memory = Memory::new(&domain);
        let spec = config.function_spec();
        let msix = Msix::new(spec.msix.vectors).unwrap();
        msix.set_control(true, false);
        let messages = Arc::default();
        for number in 0..spec.msix.vectors {
            msix.table_write(u64::from(number) * 16 + 12, &0u32.to_le_bytes());
            let sink = Counter(Arc::clone(&messages), number);
            msix.vector(number).unwrap().set_sink(Some(Arc::new(sink)));
        }
        let host = Arc::new(Host::default());
        let device = NetDevice::new(config, Arc::clone(&domain), &msix, host.clone()).unwrap();
        Rig { device, host, domain, memory, messages }
    }

    /// Makes a device as [`Rig::new`] does, with Bus Master Enable set.
    pub fn with_bus_master(config: NetConfig) -> Self {
        let mut rig = Self::new(config);
        rig.set_bus_master(true);
        rig
    }

    /// Sets Bus Master Enable as an owner does it: the domain opens first and closes last.
    pub fn set_bus_master(&mut self, on: bool) {
        if on {
            self.domain.set_bus_master(true);
            self.device.bus_master_changed(true);
        } else {
            self.device.bus_master_changed(false);
            self.domain.set_bus_master(false);
        }
    }

    /// Returns what the device itself says of all that it tells its host.
    pub fn view(&self) -> View {
        let running = self.host.running().keys().copied().collect::<Vec<_>>();
        View {
            filters: self.device.filters().clone(),
            steering: self.device.steering().clone(),
            offloads: self.device.offloads(),
            coalescing: running
                .into_iter()
                .map(|index| (index, self.device.coalescing(index)))
                .collect(),
        }
    }

    /// Returns the messages sent through a vector since the last call.
    pub fn messages(&self, vector: u16) -> u32 {
        self.messages.lock().unwrap().remove(&vector).unwrap_or(0)
    }

    pub fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0xa5; N];
        self.device.read(layout::BAR, offset, &mut data);
        data
    }

    pub fn read8(&mut self, field: u8) -> u8 {
        u8::from_le_bytes(self.read(layout::COMMON + u64::from(field)))
    }

    pub fn read16(&mut self, field: u8) -> u16 {
        u16::from_le_bytes(self.read(layout::COMMON + u64::from(field)))
    }

    pub fn read32(&mut self, field: u8) -> u32 {
        u32::from_le_bytes(self.read(layout::COMMON + u64::from(field)))
    }

    pub fn write8(&mut self, field: u8, value: u8) {
        self.device.write(layout::BAR, layout::COMMON + u64::from(field), &[value]);
    }

    pub fn write16(&mut self, field: u8, value: u16) {
        let offset = layout::COMMON + u64::from(field);
        self.device.write(layout::BAR, offset, &value.to_le_bytes());
    }

    pub fn write32(&mut self, field: u8, value: u32) {
        let offset = layout::COMMON + u64::from(field);
        self.device.write(layout::BAR, offset, &value.to_le_bytes());
    }

    /// Writes a 64-bit register as Linux does: low half, high half.
    pub fn write64(&mut self, field: u8, value: u64) {
        self.write32(field, value as u32);
        self.write32(field + 4, (value >> 32) as u32);
    }

    pub fn status(&mut self) -> u8 {
        self.read8(common::DEVICE_STATUS)
    }

    pub fn add_status(&mut self, bits: u8) {
        let present = self.status();
        self.write8(common::DEVICE_STATUS, present | bits);
    }

    pub fn select(&mut self, queue: u16) {
        self.write16(common::QUEUE_SELECT, queue);
    }

    pub fn offered(&mut self) -> u64 {
        self.write32(common::DEVICE_FEATURE_SELECT, 1);
        let high = self.read32(common::DEVICE_FEATURE);
        self.write32(common::DEVICE_FEATURE_SELECT, 0);
        let low = self.read32(common::DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    pub fn choose(&mut self, features: u64) {
        self.write32(common::DRIVER_FEATURE_SELECT, 0);
        self.write32(common::DRIVER_FEATURE, features as u32);
        self.write32(common::DRIVER_FEATURE_SELECT, 1);
        self.write32(common::DRIVER_FEATURE, (features >> 32) as u32);
    }

    pub fn ring_doorbell(&mut self, queue: u16) {
        self.device.write(layout::BAR, layout::doorbell_offset(queue), &queue.to_le_bytes());
    }

    /// Points the window capability at a dword, the only way to it without a mapped BAR.
    pub fn window_point(&mut self, offset: u64, len: u32) {
        self.device.config_write(4, cap::BAR, &[layout::BAR]);
        self.device.config_write(4, cap::OFFSET, &(offset as u32).to_le_bytes());
        self.device.config_write(4, cap::LENGTH, &len.to_le_bytes());
    }
}
