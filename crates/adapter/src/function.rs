//! A function has the registers, the device model and the DMA domain of one PCIe function.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_datapath::FunctionCounters;
use manifold_dma::Domain;
use manifold_pci::spec::header::{COMMAND, COMMAND_BUS_MASTER};
use manifold_pci::{
    ConfigSpace, Event, Events, FunctionId, FunctionSpec, Msix, Nic, Passthrough, Reset,
};
use manifold_vhost_user::DeviceStatus;
use parking_lot::{Mutex, MutexGuard};

use crate::info::PeerInfo;
use crate::model::{Doorbell, Model, Resources, Virtqueues};

/// A PCIe function of the adapter.
pub(crate) struct Function {
    pub(crate) id: FunctionId,
    /// MAC address that the PF assigned.
    pub(crate) mac: [u8; 6],
    pub(crate) spec: FunctionSpec,
    pub(crate) domain: Arc<Domain>,
    pub(crate) counters: FunctionCounters,
    pub(crate) msix: Msix,
    pub(crate) doorbells: Vec<Doorbell>,
    pub(crate) virtqueues: Option<Virtqueues>,
    /// The VMM that is attached. There is one at a time, whatever the protocol.
    holder: Mutex<Option<Holder>>,
    /// The flag is false once the function has ceased to exist, although a VMM may still hold its
    /// socket.
    present: AtomicBool,
    registers: Mutex<Registers>,
}

/// The VMM that is attached to a function.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) info: PeerInfo,
    /// The driver's progress, where the VMM keeps the registers (vhost-user).
    pub(crate) status: Option<Arc<DeviceStatus>>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the function is attached over {}", self.info.protocol)?;
        match self.info.pid {
            Some(pid) => write!(f, " by process {pid}"),
            None => Ok(()),
        }
    }
}

struct Registers {
    space: ConfigSpace,
    view: Passthrough,
    model: Box<dyn Nic>,
}

/// The sender of a configuration request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// The host sends the request over the bus.
    Host,
    /// A VMM sends the request, through what vfio-pci lets it see and do.
    Vmm,
}

/// A part of a BAR that is not the device model's.
enum MsixPart {
    Table(u64),
    Pba(u64),
}

/// A VMM's claim to a function. Dropping it, also in a panic, gives the function up.
pub(crate) struct Claim<'a>(&'a Mutex<Option<Holder>>);

impl<'a> Claim<'a> {
    fn new(place: &'a Mutex<Option<Holder>>, holder: Holder) -> Result<Self, Holder> {
        let mut present = place.lock();
        match &*present {
            Some(present) => Err(present.clone()),
            None => {
                *present = Some(holder);
                Ok(Claim(place))
            }
        }
    }

    /// Keeps the claim until [`Function::kept_claim`] is dropped.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Function {
    /// Puts a function together; nothing reaches it yet.
    pub(crate) fn new(
        resources: Resources,
        spec: FunctionSpec,
        space: ConfigSpace,
        model: Model,
    ) -> Self {
        let view = Passthrough::new(&space, &spec);
        Function {
            id: resources.id,
            mac: resources.mac,
            spec,
            domain: resources.domain,
            counters: resources.counters,
            msix: resources.msix,
            doorbells: model.doorbells,
            virtqueues: model.virtqueues,
            holder: Mutex::new(None),
            present: AtomicBool::new(true),
            registers: Mutex::new(Registers { space, view, model: model.nic }),
        }
    }

    /// Returns `true` while the function exists on the bus.
    pub(crate) fn is_present(&self) -> bool {
        self.present.load(Ordering::Acquire)
    }

    /// Locks the registers for a write, if the function exists. A write that comes in while the
    /// function is removed is either done before or not at all: another function may soon have the
    /// same number, and the workers and the switch know functions by number.
    fn live_registers(&self) -> Option<MutexGuard<'_, Registers>> {
        let registers = self.registers.lock();
        self.is_present().then_some(registers)
    }

    /// Reads configuration space.
    pub(crate) fn config_read(&self, from: Requester, offset: u16, data: &mut [u8]) {
        let mut registers = self.registers.lock();
        let Registers { space, view, model } = &mut *registers;
        if let Some((capability, at)) = space.vendor_capability_at(offset)
            && model.config_read(capability, at, data)
        {
            return;
        }
        match from {
            Requester::Host => space.read(offset, data),
            Requester::Vmm => view.read(space, offset, data),
        }
    }

    /// Writes configuration space. The caller acts on the returned events that concern VFs.
    pub(crate) fn config_write(&self, from: Requester, offset: u16, data: &[u8]) -> Events {
        let Some(mut registers) = self.live_registers() else { return Events::default() };
        let Registers { space, view, .. } = &mut *registers;
        let events = match from {
            Requester::Host => space.write(offset, data),
            Requester::Vmm => view.write(space, offset, data),
        };
        self.act(&mut registers, &events, offset, data);
        events
    }

    /// Reads a BAR.
    pub(crate) fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match self.msix_part(bar, offset) {
            Some(MsixPart::Table(at)) => self.msix.table_read(at, data),
            Some(MsixPart::Pba(at)) => self.msix.pba_read(at, data),
            None => self.registers.lock().model.read(bar, offset, data),
        }
    }

    /// Writes a BAR.
    pub(crate) fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        match self.msix_part(bar, offset) {
            Some(MsixPart::Table(at)) => self.msix.table_write(at, data),
            // The pending bits are read-only (PCIe Base 6.0, 7.7.2).
            Some(MsixPart::Pba(_)) => {}
            None => {
                if let Some(mut registers) = self.live_registers() {
                    registers.model.write(bar, offset, data);
                }
            }
        }
    }

    /// Resets the function as VFIO_DEVICE_RESET does: the device and its registers, but not the
    /// PF's SR-IOV capability.
    pub(crate) fn reset_by_vmm(&self) {
        let mut registers = self.registers.lock();
        registers.model.reset();
        let Registers { space, view, .. } = &mut *registers;
        let events = view.reset(space);
        self.act(&mut registers, &events, 0, &[]);
    }

    /// Resets the function conventionally, from the bus.
    pub(crate) fn hot_reset(&self) -> Events {
        let mut registers = self.registers.lock();
        registers.model.reset();
        let events = registers.space.reset(Reset::Conventional);
        self.act(&mut registers, &events, 0, &[]);
        events
    }

    /// Ends the function's existence: its queues stop, and it answers nobody any more.
    pub(crate) fn remove(&self) {
        self.present.store(false, Ordering::Release);
        let mut registers = self.registers.lock();
        registers.model.reset();
        drop(registers);
        self.domain.set_bus_master(false);
        self.domain.unmap_all();
    }

    /// Gives the function to a VMM while the result exists, or returns the one that has it.
    pub(crate) fn claim(&self, holder: Holder) -> Result<Claim<'_>, Holder> {
        Claim::new(&self.holder, holder)
    }

    /// Returns the claim that was [kept](Claim::keep); dropping it takes the function from its VMM.
    pub(crate) fn kept_claim(&self) -> Claim<'_> {
        Claim(&self.holder)
    }

    /// Returns the VMM that has the function.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.holder.lock().clone()
    }

    /// Sets or clears Bus Master Enable, for a VMM that keeps no such register.
    pub(crate) fn set_bus_master(&self, on: bool) {
        let mut command = [0; 2];
        self.config_read(Requester::Vmm, COMMAND, &mut command);
        let others = u16::from_le_bytes(command) & !COMMAND_BUS_MASTER;
        let command = others | if on { COMMAND_BUS_MASTER } else { 0 };
        // None of the events concerns VFs.
        let _ = self.config_write(Requester::Vmm, COMMAND, &command.to_le_bytes());
    }

    /// Prepares the function for a VMM, which finds it as after a reset and sees a plain endpoint.
    pub(crate) fn take(&self) {
        self.reset_by_vmm();
        let mut registers = self.registers.lock();
        let Registers { space, view, model } = &mut *registers;
        *view = Passthrough::new(space, &self.spec);
        model.offer_sr_iov(false);
    }

    /// Clears everything that a VMM set up, after the VMM has gone.
    pub(crate) fn release(&self) {
        let mut registers = self.registers.lock();
        let Registers { space, view, model } = &mut *registers;
        model.reset();
        model.offer_sr_iov(self.id == FunctionId::Pf);
        let events = view.close(space);
        self.act(&mut registers, &events, 0, &[]);
        drop(registers);
        for number in 0..self.msix.vectors() {
            if let Some(vector) = self.msix.vector(number) {
                vector.set_sink(None);
                vector.host_release();
            }
        }
        self.domain.unmap_all();
    }

    /// Looks at the configuration space.
    pub(crate) fn with_space<T>(&self, look: impl FnOnce(&ConfigSpace) -> T) -> T {
        look(&self.registers.lock().space)
    }

    /// Looks at the device model.
    pub(crate) fn with_model<T>(&self, look: impl FnOnce(&dyn Nic) -> T) -> T {
        look(&*self.registers.lock().model)
    }

    fn msix_part(&self, bar: u8, offset: u64) -> Option<MsixPart> {
        let msix = &self.spec.msix;
        let inside = |of_bar: u8, start: u32, len: u32| {
            let at = offset.checked_sub(u64::from(start))?;
            (bar == of_bar && at < u64::from(len)).then_some(at)
        };
        inside(msix.table_bar, msix.table_offset, msix.table_size())
            .map(MsixPart::Table)
            .or_else(|| inside(msix.pba_bar, msix.pba_offset, msix.pba_size()).map(MsixPart::Pba))
    }

    /// Carries register changes to the model and the DMA domain.
    fn act(&self, registers: &mut Registers, events: &Events, offset: u16, data: &[u8]) {
        for event in events {
            match *event {
                Event::BusMaster(on) => {
                    // When Bus Master Enable is cleared, queues stop first, so that none of them
                    // faults.
                    if on {
                        self.domain.set_bus_master(true);
                    }
                    registers.model.bus_master_changed(on);
                    if !on {
                        self.domain.set_bus_master(false);
                    }
                }
                Event::Flr => registers.model.reset(),
                Event::VendorWrite { capability, offset: at, len } => {
                    let first = registers.space.vendor_capability_offset(capability);
                    let skip = first
                        .and_then(|first| (first + u16::from(at)).checked_sub(offset))
                        .map_or(0, usize::from);
                    let bytes = data.get(skip..).unwrap_or_default();
                    let bytes = bytes.get(..usize::from(len)).unwrap_or(bytes);
                    registers.model.config_write(capability, at, bytes);
                }
                // Other events concern the registers alone, or the adapter.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use manifold_datapath::Datapath;
    use manifold_virtio::transport::layout;

    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::config::Config;
    use crate::factory::Factory;
    use crate::info::Protocol;
    use crate::switch::{Switch, empty_table};
    use crate::virtio_net::VirtioNet;

    /// Offset of `device_status` (virtio 1.3, 4.1.4.3); the common configuration comes first in its
    /// BAR.
    const DEVICE_STATUS: u64 = 0x14;

    #[test]
    fn a_function_that_was_removed_takes_no_writes() {
        let datapath = Arc::new(Datapath::start(&empty_table(), &[None]).unwrap());
        let switch = Arc::new(Switch::new(Arc::clone(&datapath), 1500, false));
        let config = Config::new("/tmp");
        let models = Box::new(VirtioNet::new(&config));
        let factory = Factory { config, models, datapath, switch };
        let vf = factory.vf(0).unwrap();
        let state = |vf: &Function| {
            (vf.with_space(ConfigSpace::bus_master), vf.with_model(|model| model.driver().status))
        };
        let write = |vf: &Function| {
            vf.set_bus_master(true);
            vf.bar_write(layout::BAR, DEVICE_STATUS, &[1]);
        };
        write(&vf);
        assert_eq!(state(&vf), (true, 1));
        vf.remove();
        let _ = vf.config_write(Requester::Host, COMMAND, &[0, 0]);
        assert_eq!(state(&vf), (true, 0));
        vf.release();
        write(&vf);
        assert_eq!(state(&vf), (false, 0));
    }

    #[test]
    fn a_panic_while_attaching_gives_the_function_up() {
        let place = Mutex::default();
        let holder = || Holder { info: PeerInfo::new(Protocol::VhostUser, 1), status: None };
        let attach = AssertUnwindSafe(|| {
            let _claim = Claim::new(&place, holder()).unwrap();
            panic!("as a device model may");
        });
        assert!(catch_unwind(attach).is_err());
        Claim::new(&place, holder()).unwrap().keep();
        assert!(Claim::new(&place, holder()).is_err(), "it has a holder");
        drop(Claim(&place));
        assert!(place.lock().is_none());
    }
}
