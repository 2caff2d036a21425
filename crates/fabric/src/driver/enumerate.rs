//! This module takes a device from reset to a PF that works and whose VFs can be enabled, as
//! firmware, an operating system's PCI core and a PF driver's first lines do.

use manifold_pci::registers::{high, low};
use manifold_pci::spec::{ari, express, header, sriov};
use manifold_pci::{Identity, RoutingId};

use super::bars::{self, Bar};
use super::clock::Clock;
use super::function::Function;
use super::info::{BarInfo, PfInfo};
use super::layout::Layout;
use super::place::{self, Need};
use crate::error::Error;
use crate::root_complex::RootComplex;
use crate::spec::sriov::{DISABLE_TIME, PAGE_SIZE_4K};
use crate::spec::{bridge, port};

type Bars = [Option<Bar>; bars::COUNT];

/// Number of the bus behind the root port.
const SECONDARY: u8 = 1;

/// Enumerates the fabric. Returns what was found, and the offset of the PF's SR-IOV capability.
pub(super) fn enumerate(root: &RootComplex, clock: &dyn Clock) -> Result<(PfInfo, u16), Error> {
    let port = find_root_port(root)?;
    place::disable(port);
    // All buses are behind the port for now, so that requests pass. The PF says how many it needs.
    port.write_u8(bridge::PRIMARY_BUS, port.id.bus());
    port.write_u8(bridge::SECONDARY_BUS, SECONDARY);
    port.write_u8(bridge::SUBORDINATE_BUS, u8::MAX);

    let pf = find_pf(root)?;
    // The Type 0 write also tells the device its bus number (section 2.2.6.2).
    place::disable(pf);
    let capability = pf
        .find_extended(sriov::ID)?
        .ok_or(Error::NoCapability { routing_id: pf.id, name: "SR-IOV" })?;
    let control = pf.read_u16(capability + sriov::CONTROL);
    if control & sriov::CONTROL_VF_ENABLE != 0 {
        let off = control & !(sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE);
        pf.write_u16(capability + sriov::CONTROL, off);
        clock.sleep(DISABLE_TIME);
    }
    let ari = set_up_ari(port, pf, capability)?;
    set_page_size(pf, capability)?;

    let total_vfs = pf.read_u16(capability + sriov::TOTAL_VFS);
    let subordinate_bus = buses_for_vfs(pf, capability, total_vfs)?;
    port.write_u8(bridge::SUBORDINATE_BUS, subordinate_bus);

    let own = bars::size(pf, header::BAR0)?;
    let vf = bars::size(pf, capability + sriov::VF_BAR0)?;
    let needs: Vec<Need> = own
        .iter()
        .map(|bar| need(*bar, 1))
        .chain(vf.iter().map(|bar| need(*bar, total_vfs)))
        .flatten()
        .collect();
    let placement = place::place(&needs, &root.memory_ranges())?;
    let mut addresses = placement.addresses.iter().copied();
    let bars = program(pf, header::BAR0, own, &mut addresses);
    let vf_bars = program(pf, capability + sriov::VF_BAR0, vf, &mut addresses);
    place::open_windows(port, &placement);
    place::enable(port);
    place::enable(pf);

    let info = PfInfo {
        routing_id: pf.id,
        identity: identity(pf),
        bars,
        vf_bars,
        total_vfs,
        vf_device_id: pf.read_u16(capability + sriov::VF_DEVICE_ID),
        ari,
        subordinate_bus,
    };
    tracing::debug!(?info, "PF enumerated");
    Ok((info, capability))
}

/// Returns the first bridge on bus 0.
fn find_root_port(root: &RootComplex) -> Result<Function<'_>, Error> {
    (0..32)
        .filter_map(|device| RoutingId::new(0, device, 0))
        .map(|id| Function::new(root, id))
        .find(|function| function.exists() && function.header_type() == bridge::HEADER_TYPE)
        .ok_or(Error::NoRootPort)
}

/// Returns function 0 of the device on the link.
fn find_pf(root: &RootComplex) -> Result<Function<'_>, Error> {
    let pf = Function::new(root, RoutingId::from_raw(u16::from_be_bytes([SECONDARY, 0])));
    if !pf.exists() {
        return Err(Error::NoDevice(pf.id));
    }
    let express = pf.capability(express::ID, "PCI Express")?;
    let port_type = pf.read_u16(express + express::CAPABILITIES) & port::CAPABILITIES_TYPE;
    let header_type = pf.header_type();
    if header_type != 0 || port_type != port::TYPE_ENDPOINT {
        return Err(Error::NotAnEndpoint { routing_id: pf.id, header_type, port_type });
    }
    Ok(pf)
}

/// Turns ARI forwarding on if both ends know ARI, and tells the PF, whose First VF Offset and VF
/// Stride may follow from it (section 9.3.3.3.5). Returns whether it is on.
fn set_up_ari(port: Function<'_>, pf: Function<'_>, capability: u16) -> Result<bool, Error> {
    let express = port.capability(express::ID, "PCI Express")?;
    let supported = port.read_u32(express + express::DEVICE_CAPABILITIES_2);
    let ari =
        supported & port::ARI_FORWARDING_SUPPORTED != 0 && pf.find_extended(ari::ID)?.is_some();
    let set = |function: Function<'_>, register, bit: u16, name| {
        let value = function.read_u16(register) & !bit;
        function.write_u16_checked(register, if ari { value | bit } else { value }, name)
    };
    let forwarding = port::ARI_FORWARDING_ENABLE;
    set(port, express + express::DEVICE_CONTROL_2, forwarding, "Device Control 2")?;
    set(pf, capability + sriov::CONTROL, sriov::CONTROL_ARI, "SR-IOV Control")?;
    Ok(ari)
}

/// Sets pages of 4 KiB; VF BARs are no smaller (section 9.3.3.13).
fn set_page_size(pf: Function<'_>, capability: u16) -> Result<(), Error> {
    let supported = pf.read_u32(capability + sriov::SUPPORTED_PAGE_SIZES);
    if supported & PAGE_SIZE_4K == 0 {
        return Err(Error::PageSize { routing_id: pf.id, supported });
    }
    pf.write_u32_checked(capability + sriov::SYSTEM_PAGE_SIZE, PAGE_SIZE_4K, "System Page Size")
}

/// Returns the last bus that any number of VFs up to `total_vfs` reaches: First VF Offset and VF
/// Stride may change with NumVFs (sections 9.3.3.9 and 9.3.3.10).
fn buses_for_vfs(pf: Function<'_>, capability: u16, total_vfs: u16) -> Result<u8, Error> {
    let mut last = pf.id.bus();
    for count in 1..=total_vfs {
        pf.write_u16(capability + sriov::NUM_VFS, count);
        let layout = Layout::read(pf, capability);
        let vf = layout.routing_id(pf.id, count, count - 1)?;
        last = last.max(vf.bus());
    }
    pf.write_u16(capability + sriov::NUM_VFS, 0);
    Ok(last)
}

/// Returns what a BAR needs, or the aperture of `count` VFs' BARs: one after the other, aligned to
/// one.
fn need(bar: Option<Bar>, count: u16) -> Option<Need> {
    let Bar { size, width64, prefetchable } = bar?;
    // A length that does not fit 64 bits does not fit any range.
    let len = size.saturating_mul(count.into());
    Some(Need { len, align: size, high: width64 && prefetchable })
}

/// Writes the next of `addresses` into each BAR that exists.
fn program(
    pf: Function<'_>,
    first: u16,
    bars: Bars,
    addresses: &mut impl Iterator<Item = u64>,
) -> [Option<BarInfo>; bars::COUNT] {
    let mut placed = [None; bars::COUNT];
    for (index, (place, bar)) in placed.iter_mut().zip(bars).enumerate() {
        let Some(bar) = bar else { continue };
        let Some(address) = addresses.next() else { continue };
        bars::program(pf, first, index, bar, address);
        let Bar { size, width64, prefetchable } = bar;
        *place = Some(BarInfo { address, size, width64, prefetchable });
    }
    placed
}

fn identity(pf: Function<'_>) -> Identity {
    let revision_and_class = pf.read_u32(header::CLASS_REVISION);
    let subsystem = pf.read_u32(header::SUBSYSTEM);
    Identity {
        vendor_id: pf.read_u16(header::VENDOR_ID),
        device_id: pf.read_u16(header::DEVICE_ID),
        revision: revision_and_class as u8,
        class_code: revision_and_class >> 8,
        subsystem_vendor_id: low(subsystem),
        subsystem_id: high(subsystem),
    }
}
