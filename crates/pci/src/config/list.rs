//! This module places the function's capabilities and links them.

use crate::capability::*;
use crate::error::Error;
use crate::function::{FunctionSpec, SriovSpec};
use crate::registers::Reset;
use crate::spec::list::*;
use crate::spec::{header, vendor};

/// The kind of a function's capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Power,
    Msix,
    Express,
    Vendor(usize),
    AdvancedErrorReporting,
    SerialNumber,
    AlternativeRoutingId,
    AccessControl,
    Sriov,
}

/// The capabilities a function has.
#[derive(Debug)]
pub(super) struct Capabilities {
    /// The power management capability. A VF has none, because its power state follows the PF's.
    pub(super) power: Option<PowerManagement>,
    pub(super) msix: MsixControl,
    pub(super) express: Express,
    pub(super) vendor: Vec<Structure>,
    pub(super) aer: Structure,
    /// The Device Serial Number. A VF has none, because it is the adapter's.
    pub(super) serial: Option<Structure>,
    pub(super) ari: Structure,
    pub(super) acs: Structure,
    pub(super) sriov: Option<Sriov>,
}

impl Capabilities {
    /// Returns the capabilities of a spec whose MSI-X and vendor parts were found valid.
    pub(super) fn new(
        spec: &FunctionSpec,
        role: Role,
        sriov: Option<&SriovSpec>,
    ) -> Result<Self, Error> {
        let physical = role == Role::Physical;
        Ok(Self {
            power: physical.then(PowerManagement::new),
            msix: MsixControl::new(&spec.msix),
            express: Express::new(role),
            vendor: spec.vendor.iter().map(vendor_specific).collect(),
            aer: advanced_error_reporting(role),
            serial: physical.then(|| serial_number(spec.serial)),
            ari: alternative_routing_id(),
            acs: access_control(),
            sriov: sriov.map(Sriov::new).transpose()?,
        })
    }

    pub(super) fn get(&self, kind: Kind) -> Option<&dyn Capability> {
        Some(match kind {
            Kind::Power => self.power.as_ref()?,
            Kind::Msix => &self.msix,
            Kind::Express => &self.express,
            Kind::Vendor(index) => self.vendor.get(index)?,
            Kind::AdvancedErrorReporting => &self.aer,
            Kind::SerialNumber => self.serial.as_ref()?,
            Kind::AlternativeRoutingId => &self.ari,
            Kind::AccessControl => &self.acs,
            Kind::Sriov => self.sriov.as_ref()?,
        })
    }

    pub(super) fn get_mut(&mut self, kind: Kind) -> Option<&mut dyn Capability> {
        Some(match kind {
            Kind::Power => self.power.as_mut()?,
            Kind::Msix => &mut self.msix,
            Kind::Express => &mut self.express,
            Kind::Vendor(index) => self.vendor.get_mut(index)?,
            Kind::AdvancedErrorReporting => &mut self.aer,
            Kind::SerialNumber => self.serial.as_mut()?,
            Kind::AlternativeRoutingId => &mut self.ari,
            Kind::AccessControl => &mut self.acs,
            Kind::Sriov => self.sriov.as_mut()?,
        })
    }

    /// Returns all capabilities there could be, in the order of the lists. Every function has AER,
    /// so the extended list starts at 100h as it must.
    fn order(&self) -> impl Iterator<Item = Kind> {
        [Kind::Power, Kind::Msix, Kind::Express]
            .into_iter()
            .chain((0..self.vendor.len()).map(Kind::Vendor))
            .chain([
                Kind::AdvancedErrorReporting,
                Kind::SerialNumber,
                Kind::AlternativeRoutingId,
                Kind::AccessControl,
                Kind::Sriov,
            ])
    }

    pub(super) fn reset(&mut self, kind: Reset, except: Option<Kind>) {
        let kinds: Vec<Kind> = self.order().filter(|&each| Some(each) != except).collect();
        for each in kinds {
            if let Some(capability) = self.get_mut(each) {
                capability.reset(kind);
            }
        }
    }
}

/// The place of a capability in configuration space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) kind: Kind,
    pub(crate) offset: u16,
    size: u16,
    id: CapabilityId,
}

impl Placed {
    pub(crate) fn contains(&self, offset: u16) -> bool {
        (self.offset..self.offset + self.size).contains(&offset)
    }

    /// Returns the bits of the first dword that belong to the list: ID, version, next pointer. The
    /// other bits are the capability's.
    pub(crate) fn list_bits(&self) -> u32 {
        match self.id {
            CapabilityId::Standard(_) => 0xffff,
            CapabilityId::Extended { .. } => u32::MAX,
        }
    }

    /// Returns the value of the list's bits, with `next` (0 for none) the place of the next
    /// capability.
    pub(crate) fn list_header(&self, next: u16) -> u32 {
        match self.id {
            CapabilityId::Standard(id) => u32::from(id) | u32::from(next) << (8 * NEXT),
            CapabilityId::Extended { id, version } => {
                u32::from(id)
                    | u32::from(version) << EXTENDED_VERSION_SHIFT
                    | u32::from(next) << EXTENDED_NEXT_SHIFT
            }
        }
    }

    fn extended(&self) -> bool {
        matches!(self.id, CapabilityId::Extended { .. })
    }
}

/// Both lists of a function, by ascending offset.
#[derive(Debug)]
pub(crate) struct List(Vec<Placed>);

impl List {
    /// Places the capabilities: one directly after the other behind the header, on 16-byte
    /// boundaries in extended space.
    pub(super) fn new(capabilities: &Capabilities) -> Result<Self, Error> {
        let (mut standard, mut extended) = (header::SIZE, EXTENDED);
        let mut placed = Vec::new();
        for kind in capabilities.order() {
            let Some(capability) = capabilities.get(kind) else { continue };
            let (id, size) = (capability.structure().id(), capability.structure().size());
            let next = match id {
                CapabilityId::Standard(_) => &mut standard,
                CapabilityId::Extended { .. } => &mut extended,
            };
            placed.push(Placed { kind, offset: *next, size, id });
            *next = match id {
                CapabilityId::Standard(_) => next.saturating_add(size),
                CapabilityId::Extended { .. } => next.saturating_add(size).next_multiple_of(16),
            };
        }
        if standard > EXTENDED {
            return Err(Error::CapabilitySpace(usize::from(standard - header::SIZE)));
        }
        Ok(Self(placed))
    }

    /// Returns the capability that a byte belongs to.
    pub(crate) fn at(&self, offset: u16) -> Option<&Placed> {
        let after = self.0.partition_point(|placed| placed.offset <= offset);
        self.0.get(after.checked_sub(1)?).filter(|placed| placed.contains(offset))
    }

    /// Returns where this capability is.
    pub(crate) fn offset(&self, kind: Kind) -> Option<u16> {
        self.0.iter().find(|placed| placed.kind == kind).map(|placed| placed.offset)
    }

    /// Returns the value of the Capabilities Pointer.
    pub(crate) fn first(&self) -> u8 {
        // Standard capabilities are below 100h.
        self.0.first().map_or(0, |placed| placed.offset as u8)
    }

    /// Returns the value of a capability's next pointer, if only those that `shown` accepts are in
    /// the list.
    pub(crate) fn next(&self, of: &Placed, shown: impl Fn(Kind) -> bool) -> u16 {
        self.0
            .iter()
            .skip_while(|placed| placed.offset <= of.offset)
            .find(|placed| shown(placed.kind))
            .filter(|placed| placed.extended() == of.extended())
            .map_or(0, |placed| placed.offset)
    }
}

/// Checks that each vendor-specific capability has a right length byte and a mask as long as its
/// body.
pub(super) fn check_vendor(spec: &FunctionSpec) -> Result<(), Error> {
    for (index, capability) in spec.vendor.iter().enumerate() {
        let length = capability.body.len() + usize::from(vendor::LENGTH);
        let says = capability.body.first().map(|&length| usize::from(length));
        if says != Some(length) || capability.writable.len() != capability.body.len() {
            return Err(Error::VendorCapability(index));
        }
    }
    Ok(())
}
