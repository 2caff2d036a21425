//! This module is the adapter as the bus sees it: one PF and its VFs, found by routing ID and
//! address.

use std::sync::Arc;

use manifold_fabric::decode::{Decoder, MemoryTarget};
use manifold_fabric::{ConfigType, Endpoint};
use manifold_pci::{Event, Events, FunctionId, RoutingId};
use parking_lot::{Mutex, RwLock};

use crate::factory::Factory;
use crate::function::{Function, Requester};

/// The device at the end of the root port's link. VFs come and go with the PF's VF Enable.
pub(crate) struct Device {
    factory: Factory,
    pf: Arc<Function>,
    vfs: RwLock<Vec<Arc<Function>>>,
    /// The requests that the device decodes, as the PF's registers say; rebuilt when they change.
    decoder: RwLock<Decoder>,
    /// The lock is held while the VFs change, so that two writes to VF Enable take effect one after
    /// the other.
    changing: Mutex<()>,
}

impl Device {
    /// Builds a device out of reset. Its PF is on bus 0 until a configuration write tells it its
    /// bus.
    pub(crate) fn new(factory: Factory) -> Result<Self, crate::error::Error> {
        let pf = factory.pf()?;
        factory.switch.add([(pf.id, pf.mac)]);
        let decoder = pf.with_space(|space| Decoder::new(RoutingId::from_raw(0), space));
        Ok(Device {
            factory,
            pf,
            vfs: RwLock::default(),
            decoder: RwLock::new(decoder),
            changing: Mutex::new(()),
        })
    }

    /// Returns the function, if it exists now.
    pub(crate) fn function(&self, id: FunctionId) -> Option<Arc<Function>> {
        match id {
            FunctionId::Pf => Some(Arc::clone(&self.pf)),
            FunctionId::Vf(index) => self.vfs.read().get(usize::from(index)).cloned(),
        }
    }

    /// Returns all functions that exist now: the PF, then the VFs in order.
    pub(crate) fn functions(&self) -> Vec<Arc<Function>> {
        std::iter::once(&self.pf).chain(self.vfs.read().iter()).cloned().collect()
    }

    fn act(&self, function: FunctionId, events: &Events) {
        if function != FunctionId::Pf || events.is_empty() {
            return;
        }
        for event in events {
            if let Event::VfEnable { enabled, num_vfs } = *event {
                self.set_vfs(if enabled { num_vfs } else { 0 });
            }
        }
        let pf = self.decoder.read().pf();
        self.decode_from(pf);
    }

    fn decode_from(&self, pf: RoutingId) {
        let decoder = self.pf.with_space(|space| Decoder::new(pf, space));
        *self.decoder.write() = decoder;
    }

    fn set_vfs(&self, count: u16) {
        let _changing = self.changing.lock();
        let gone = std::mem::take(&mut *self.vfs.write());
        if !gone.is_empty() {
            for vf in &gone {
                vf.remove();
                if let Err(error) = self.factory.datapath.remove_function(vf.id) {
                    tracing::error!(function = %vf.id, %error, "cannot be removed");
                }
            }
            self.factory.switch.remove(|id| id != FunctionId::Pf);
        }
        let mut vfs = Vec::with_capacity(usize::from(count));
        for index in 0..count {
            match self.factory.vf(index) {
                Ok(vf) => vfs.push(vf),
                Err(error) => {
                    // The PF driver finds that the VF does not answer, and says so.
                    tracing::error!(vf = index, %error, "cannot be created");
                    break;
                }
            }
        }
        self.factory.switch.add(vfs.iter().map(|vf| (vf.id, vf.mac)));
        *self.vfs.write() = vfs;
    }

    fn memory(&self, address: u64, len: usize) -> Option<(Arc<Function>, MemoryTarget)> {
        let target = self.decoder.read().memory_at(address, len)?;
        Some((self.function(target.function)?, target))
    }
}

impl Endpoint for Device {
    fn config_read(
        &self,
        kind: ConfigType,
        target: RoutingId,
        offset: u16,
        data: &mut [u8],
    ) -> bool {
        let id = self.decoder.read().function_at(kind, target);
        let Some(function) = id.and_then(|id| self.function(id)) else { return false };
        function.config_read(Requester::Host, offset, data);
        true
    }

    fn config_write(&self, kind: ConfigType, target: RoutingId, offset: u16, data: &[u8]) -> bool {
        let id = self.decoder.read().function_at(kind, target);
        let Some(function) = id.and_then(|id| self.function(id)) else { return false };
        if kind == ConfigType::Type0 && target.bus() != self.decoder.read().pf().bus() {
            // A Type 0 write tells the device its bus number (PCIe Base 6.0, 2.2.6.2).
            self.decode_from(RoutingId::from_raw(u16::from_be_bytes([target.bus(), 0])));
        }
        let events = function.config_write(Requester::Host, offset, data);
        self.act(function.id, &events);
        true
    }

    fn mem_read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some((function, target)) = self.memory(address, data.len()) else { return false };
        function.bar_read(target.bar, target.offset, data);
        true
    }

    fn mem_write(&self, address: u64, data: &[u8]) -> bool {
        let Some((function, target)) = self.memory(address, data.len()) else { return false };
        function.bar_write(target.bar, target.offset, data);
        true
    }

    fn hot_reset(&self) {
        let events = self.pf.hot_reset();
        self.act(FunctionId::Pf, &events);
    }
}
