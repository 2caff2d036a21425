//! This module puts a function's header and capabilities together.

mod header;
mod list;
mod state;

pub(crate) use header::bar_index;
pub(crate) use list::{Kind, List, Placed};

use header::Header;
use list::Capabilities;
use state::State;

use crate::bars::{Bar, Bars};
use crate::capability::SriovView;
use crate::capability::{Request, Role};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::function::{FunctionSpec, MsixSpec, SriovSpec};
use crate::msix::Msix;
use crate::power::PowerState;
use crate::registers::{Reset, Write, read_dwords, writes};
use crate::spec;
use crate::spec::CONFIG_SIZE;

/// One function's 4 KiB configuration space as the bus sees it.
///
/// It is a register file, which has no idea of devices and performs no I/O. A write answers with
/// the [`Events`] that others have to act on. The one thing it drives itself is the function's
/// [`Msix`], since Message Control, Bus Master Enable and the resets are its own.
#[derive(Debug)]
pub struct ConfigSpace {
    role: Role,
    header: Header,
    capabilities: Capabilities,
    list: List,
    msix: Msix,
}

impl ConfigSpace {
    /// Returns a physical function with an SR-IOV capability, or an ordinary endpoint without.
    ///
    /// # Errors
    /// Names what is wrong with the specs.
    pub fn physical(spec: &FunctionSpec, sriov: Option<&SriovSpec>) -> Result<Self, Error> {
        Self::new(spec, Role::Physical, sriov)
    }

    /// Returns a virtual function: IDs FFFFh, BARs zero, no Memory Space Enable, no SR-IOV
    /// capability (PCIe Base 6.0, sections 9.3.4 to 9.3.7).
    ///
    /// # Errors
    /// Names what is wrong with the spec.
    pub fn virtual_function(spec: &FunctionSpec) -> Result<Self, Error> {
        Self::new(spec, Role::Virtual, None)
    }

    fn new(spec: &FunctionSpec, role: Role, sriov: Option<&SriovSpec>) -> Result<Self, Error> {
        check_msix(spec)?;
        list::check_vendor(spec)?;
        let capabilities = Capabilities::new(spec, role, sriov)?;
        let list = List::new(&capabilities)?;
        let header = Header::new(spec, role, list.first())?;
        let msix = Msix::new(spec.msix.vectors)?;
        msix.set_bus_master(false);
        Ok(Self { role, header, capabilities, list, msix })
    }

    /// Reads `data.len()` bytes at any alignment. Bytes beyond the space read as ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        read_dwords(offset, data, |dword| self.read_dword(dword));
    }

    /// Writes at any alignment, lowest dword first. Bytes beyond the space are dropped.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Events {
        let mut events = Events::default();
        for (dword, write) in writes(offset, data) {
            self.write_dword(dword, write, &mut events);
        }
        events
    }

    /// Resets all registers and the MSI-X table, and returns what that changed. The reset itself is
    /// no event to whoever called for it.
    pub fn reset(&mut self, kind: Reset) -> Events {
        let mut events = Events::default();
        self.reset_except(kind, None, &mut events);
        events
    }

    /// Returns whether the function may send memory requests, MSI-X included: Bus Master Enable is
    /// set and it is in D0.
    pub fn bus_master(&self) -> bool {
        self.header.command(spec::header::COMMAND_BUS_MASTER) && self.on()
    }

    /// Returns whether the function answers memory requests to its own BARs: Memory Space Enable is
    /// set and it is in D0. This is always false for a VF, whose memory [`SriovView::vf_memory`]
    /// governs.
    pub fn memory_enable(&self) -> bool {
        self.header.command(spec::header::COMMAND_MEMORY) && self.on()
    }

    /// Returns the BAR of this index as programmed, if there is one. A VF has none: its addresses
    /// come from the PF's VF BARs.
    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.header.bar(index)
    }

    /// Returns the power state. A VF has no register for it and is in D0.
    pub fn power_state(&self) -> PowerState {
        self.capabilities.power.as_ref().map_or(PowerState::D0, |power| power.state())
    }

    /// Returns the function's MSI-X vectors. Message Control, Bus Master Enable and resets of this
    /// space act on them by themselves.
    pub fn msix(&self) -> &Msix {
        &self.msix
    }

    /// Returns MSI-X Enable.
    pub fn msix_enabled(&self) -> bool {
        self.capabilities.msix.enabled()
    }

    /// Returns MSI-X Function Mask.
    pub fn msix_masked(&self) -> bool {
        self.capabilities.msix.masked()
    }

    /// Returns the offset of the vendor-specific capability of this index (into
    /// [`FunctionSpec::vendor`]).
    pub fn vendor_capability_offset(&self, index: usize) -> Option<u16> {
        self.list.offset(Kind::Vendor(index))
    }

    /// Returns the vendor-specific capability that a byte of the space belongs to, and the byte's
    /// offset counted from the capability's ID.
    pub fn vendor_capability_at(&self, offset: u16) -> Option<(usize, u8)> {
        let placed = self.list.at(offset)?;
        match placed.kind {
            Kind::Vendor(index) => Some((index, u8::try_from(offset - placed.offset).ok()?)),
            _ => None,
        }
    }

    /// Returns the SR-IOV capability as programmed; none for a VF or an ordinary endpoint.
    pub fn sriov(&self) -> Option<SriovView> {
        self.capabilities.sriov.as_ref().map(|sriov| sriov.view(self.on()))
    }

    /// Returns the whole space as it reads now.
    pub fn to_bytes(&self) -> Box<[u8; CONFIG_SIZE]> {
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        self.read(0, bytes.as_mut_slice());
        bytes
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Returns the BARs; for a VF, what its BARs would be if they were in its header.
    pub(crate) fn bars(&self) -> &Bars {
        self.header.bars()
    }

    pub(crate) fn list(&self) -> &List {
        &self.list
    }

    fn on(&self) -> bool {
        self.power_state() == PowerState::D0
    }

    pub(crate) fn read_dword(&self, offset: u16) -> u32 {
        if offset < spec::header::SIZE {
            return self.header.read(offset);
        }
        let Some(placed) = self.list.at(offset) else { return 0 };
        let own = self
            .capabilities
            .get(placed.kind)
            .map_or(0, |capability| capability.read(offset - placed.offset));
        if offset == placed.offset {
            let next = self.list.next(placed, |_| true);
            own & !placed.list_bits() | placed.list_header(next)
        } else {
            own
        }
    }

    pub(crate) fn write_dword(&mut self, offset: u16, write: Write, events: &mut Events) {
        if write.is_empty() {
            return;
        }
        let before = self.state();
        let mut request = Request::Nothing;
        if offset < spec::header::SIZE {
            self.header.write(offset, write);
        } else if let Some(&placed) = self.list.at(offset) {
            let at = offset - placed.offset;
            if let Some(capability) = self.capabilities.get_mut(placed.kind) {
                request = capability.write(at, write);
            }
            if let Kind::Vendor(capability) = placed.kind {
                let (first, len) = write.span();
                // Vendor-specific capabilities are within the first 256 bytes.
                events.push(Event::VendorWrite { capability, offset: (at + first) as u8, len });
            }
        }
        self.settle(&before, events);
        if request == Request::FunctionLevelReset {
            self.reset_except(Reset::Flr, None, events);
            events.push(Event::Flr);
        }
    }

    /// Resets all registers but those of one capability.
    pub(crate) fn reset_except(&mut self, kind: Reset, except: Option<Kind>, events: &mut Events) {
        let before = self.state();
        self.header.reset(kind);
        self.capabilities.reset(kind, except);
        self.settle(&before, events);
        self.msix.reset();
    }

    fn state(&self) -> State {
        State {
            power: self.power_state(),
            bus_master: self.bus_master(),
            memory_enable: self.memory_enable(),
            bars: std::array::from_fn(|index| Some(self.bar(index)?.address)),
            msix_enabled: self.msix_enabled(),
            msix_masked: self.msix_masked(),
            sriov: self.sriov(),
        }
    }

    /// Tells the vectors and the caller what changed since `before`.
    fn settle(&self, before: &State, events: &mut Events) {
        let now = self.state();
        if (before.msix_enabled, before.msix_masked) != (now.msix_enabled, now.msix_masked) {
            self.msix.set_control(now.msix_enabled, now.msix_masked);
        }
        if before.bus_master != now.bus_master {
            self.msix.set_bus_master(now.bus_master);
        }
        before.events(&now, events);
    }
}

/// Checks that table and pending bit array are inside BARs and apart from each other.
fn check_msix(spec: &FunctionSpec) -> Result<(), Error> {
    let MsixSpec { table_bar, table_offset, pba_bar, pba_offset, .. } = spec.msix;
    let placed = |structure, bar: u8, offset: u32, size: u32| {
        let inside = spec.bars.get(usize::from(bar)).copied().flatten().is_some_and(|bar| {
            u64::from(offset).checked_add(u64::from(size)).is_some_and(|end| end <= bar.size)
        });
        if inside && offset.is_multiple_of(8) {
            Ok(u64::from(offset)..u64::from(offset) + u64::from(size))
        } else {
            Err(Error::MsixPlacement { structure, bar, offset })
        }
    };
    let table = placed("table", table_bar, table_offset, spec.msix.table_size())?;
    let pba = placed("pending bit array", pba_bar, pba_offset, spec.msix.pba_size())?;
    if table_bar == pba_bar && table.start < pba.end && pba.start < table.end {
        return Err(Error::MsixPlacement {
            structure: "pending bit array",
            bar: pba_bar,
            offset: pba_offset,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
