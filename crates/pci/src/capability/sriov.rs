//! This module makes the Single Root I/O Virtualization capability (PCIe Base 6.0, section 9.3.3).

use super::structure::{Capability, Request, Structure, structure};
use crate::bars::Bars;
use crate::error::Error;
use crate::function::{MAX_VFS, SriovSpec};
use crate::registers::Reset;
use crate::registers::{Register, Write, halves, high, in_high, in_low, low};
use crate::routing_id::RoutingId;
use crate::spec::sriov::*;

/// The SR-IOV capability, through whose registers alone VFs appear, get their addresses and vanish.
///
/// Where the standard calls the outcome of a write undefined, the write is dropped: NumVFs, System
/// Page Size and ARI Capable Hierarchy do not change while VF Enable is set, and VF Enable is not
/// set while NumVFs is 0 or above TotalVFs. VFs do not migrate.
#[derive(Debug)]
pub(crate) struct Sriov {
    structure: Structure,
    vf_bars: Bars,
}

/// A VF BAR as software programmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfBar {
    /// Address of the aperture, which is the address of VF 0's BAR.
    pub base: u64,
    /// Number of bytes each VF gets: the BAR's size, or System Page Size if that is larger. VF n's
    /// BAR is at `base + n * size`.
    pub size: u64,
}

/// The SR-IOV capability as software programmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SriovView {
    /// Value of TotalVFs.
    pub total_vfs: u16,
    /// Value of NumVFs: 1 to `total_vfs` while `vf_enable` is set, otherwise whatever software
    /// wrote.
    pub num_vfs: u16,
    /// Value of VF Enable: true if the VFs exist.
    pub vf_enable: bool,
    /// True if VFs answer memory requests: VF Enable and VF MSE are set, and the PF is in D0.
    pub vf_memory: bool,
    /// Value of ARI Capable Hierarchy.
    pub ari: bool,
    /// Value of First VF Offset.
    pub first_vf_offset: u16,
    /// Value of VF Stride.
    pub vf_stride: u16,
    /// Value of System Page Size in bytes.
    pub system_page_size: u64,
    /// The VF BARs; a 64-bit one leaves the next place `None`.
    pub vf_bars: [Option<VfBar>; 6],
}

impl SriovView {
    /// Returns the VF BAR of this index, if there is one.
    pub fn vf_bar(&self, index: usize) -> Option<VfBar> {
        self.vf_bars.get(index).copied().flatten()
    }

    /// Returns the routing ID of a VF that exists (index from 0), given the PF's (section 9.2.1.2).
    pub fn vf_routing_id(&self, pf: RoutingId, vf: u16) -> Option<RoutingId> {
        if !self.vf_enable || vf >= self.num_vfs {
            return None;
        }
        pf.checked_add(self.first_vf_offset)?.checked_add(self.vf_stride.checked_mul(vf)?)
    }

    /// Returns the index of the VF that exists at a routing ID, given the PF's.
    pub fn vf_at(&self, pf: RoutingId, rid: RoutingId) -> Option<u16> {
        let first = pf.checked_add(self.first_vf_offset)?;
        let vf = rid.raw().checked_sub(first.raw())?.checked_div(self.vf_stride)?;
        (self.vf_routing_id(pf, vf) == Some(rid)).then_some(vf)
    }

    /// Returns where a VF's BAR is, whether or not the VF exists; `None` if there is no such BAR or
    /// the address does not fit 64 bits.
    pub fn vf_bar_address(&self, index: usize, vf: u16) -> Option<u64> {
        let bar = self.vf_bar(index)?;
        bar.base.checked_add(bar.size.checked_mul(u64::from(vf))?)
    }
}

/// Returns First VF Offset and VF Stride. In an ARI hierarchy VFs follow the PF, function by
/// function and on to the next buses. Without ARI a bus below a port holds one device, so VFs start
/// on the bus after the PF's, which the function captures through its bus numbers (section
/// 9.2.1.2).
const fn layout(ari: bool) -> (u16, u16) {
    if ari { (1, 1) } else { (256, 1) }
}

impl Sriov {
    /// Returns the capability of a spec that it checks.
    pub(crate) fn new(spec: &SriovSpec) -> Result<Self, Error> {
        if spec.total_vfs == 0 || spec.total_vfs > MAX_VFS {
            return Err(Error::TotalVfs(spec.total_vfs));
        }
        if spec.supported_page_sizes & REQUIRED_PAGE_SIZES != REQUIRED_PAGE_SIZES {
            return Err(Error::PageSizes(spec.supported_page_sizes));
        }
        let structure = Structure::extended(ID, VERSION, SIZE)
            .with(CAPABILITIES, Register::new(CAPABILITIES_ARI_PRESERVED))
            .with(CONTROL, Register::new(0).writable(in_low(CONTROL_WRITABLE)))
            .with(INITIAL_VFS, Register::pair(spec.total_vfs, spec.total_vfs))
            // Function Dependency Link names the PF itself: it depends on no other.
            .with(NUM_VFS, Register::new(0).writable(in_low(u16::MAX)))
            .with(VF_DEVICE_ID & !3, Register::new(in_high(spec.vf_device_id)))
            .with(SUPPORTED_PAGE_SIZES, Register::new(spec.supported_page_sizes))
            .with(SYSTEM_PAGE_SIZE, Register::new(1).writable(spec.supported_page_sizes));
        Ok(Self { structure, vf_bars: Bars::new(&spec.vf_bars)? })
    }

    /// Returns the state. VFs decode memory only where the PF itself could, that is if it is in D0
    /// (`pf_on`).
    pub(crate) fn view(&self, pf_on: bool) -> SriovView {
        let control = self.control();
        let has = |bit| control & bit != 0;
        let granule = self.system_page_size();
        let (first_vf_offset, vf_stride) = layout(has(CONTROL_ARI));
        SriovView {
            total_vfs: self.total_vfs(),
            num_vfs: self.num_vfs(),
            vf_enable: has(CONTROL_VF_ENABLE),
            vf_memory: has(CONTROL_VF_ENABLE) && has(CONTROL_VF_MSE) && pf_on,
            ari: has(CONTROL_ARI),
            first_vf_offset,
            vf_stride,
            system_page_size: granule,
            vf_bars: std::array::from_fn(|index| {
                Some(VfBar {
                    base: self.vf_bars.address(index, granule)?,
                    size: self.vf_bars.size(index, granule)?,
                })
            }),
        }
    }

    fn control(&self) -> u16 {
        low(self.structure.read(CONTROL))
    }

    fn vf_enable(&self) -> bool {
        self.control() & CONTROL_VF_ENABLE != 0
    }

    fn total_vfs(&self) -> u16 {
        high(self.structure.read(TOTAL_VFS))
    }

    fn num_vfs(&self) -> u16 {
        low(self.structure.read(NUM_VFS))
    }

    /// Returns System Page Size in bytes. The register keeps what software wrote; anything but one
    /// bit means the default.
    fn system_page_size(&self) -> u64 {
        let register = self.structure.read(SYSTEM_PAGE_SIZE);
        let unit = if register.is_power_of_two() { register } else { 1 };
        u64::from(unit) << 12
    }

    fn write_control(&mut self, write: Write) {
        let mut reach = CONTROL_WRITABLE;
        if self.vf_enable() {
            reach &= !CONTROL_ARI;
        } else if !(1..=self.total_vfs()).contains(&self.num_vfs()) {
            reach &= !CONTROL_VF_ENABLE;
        }
        self.structure.write(CONTROL, write.only(in_low(reach)));
    }
}

const CONTROL_WRITABLE: u16 = CONTROL_VF_ENABLE | CONTROL_VF_MSE | CONTROL_ARI;

/// Returns the VF BAR whose register is at `offset`.
fn vf_bar_index(offset: u16) -> Option<usize> {
    (VF_BAR0..=VF_BAR5).contains(&offset).then(|| usize::from((offset - VF_BAR0) / 4))
}

impl Capability for Sriov {
    structure!();

    fn read(&self, offset: u16) -> u32 {
        if let Some(index) = vf_bar_index(offset) {
            return self.vf_bars.read(index, self.system_page_size());
        }
        if offset == FIRST_VF_OFFSET {
            let (first, stride) = layout(self.control() & CONTROL_ARI != 0);
            return halves(first, stride);
        }
        self.structure.read(offset)
    }

    fn write(&mut self, offset: u16, write: Write) -> Request {
        match offset {
            CONTROL => self.write_control(write),
            NUM_VFS | SYSTEM_PAGE_SIZE if self.vf_enable() => {}
            _ => match vf_bar_index(offset) {
                Some(index) => self.vf_bars.write(index, write),
                None => return self.structure.write(offset, write),
            },
        }
        Request::Nothing
    }

    fn reset(&mut self, kind: Reset) {
        self.structure.reset(kind);
        self.vf_bars.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BarSpec;

    fn sriov() -> Sriov {
        let bar = BarSpec { size: 0x4000, width64: true, prefetchable: true };
        let spec = SriovSpec {
            total_vfs: 256,
            vf_device_id: 0x1041,
            vf_bars: [Some(bar), None, Some(bar), None, None, None],
            supported_page_sizes: REQUIRED_PAGE_SIZES,
        };
        Sriov::new(&spec).unwrap()
    }

    fn write16(sriov: &mut Sriov, offset: u16, value: u16) {
        let first = usize::from(offset % 4);
        sriov.write(offset & !3, Write::bytes(first, &value.to_le_bytes()));
    }

    fn write32(sriov: &mut Sriov, offset: u16, value: u32) {
        sriov.write(offset, Write::bytes(0, &value.to_le_bytes()));
    }

    #[test]
    fn vf_enable_needs_a_number_of_vfs_that_exists() {
        let mut sriov = sriov();
        for (num_vfs, accepted) in [(0, false), (1, true), (256, true), (257, false)] {
            write16(&mut sriov, CONTROL, 0);
            write16(&mut sriov, NUM_VFS, num_vfs);
            write16(&mut sriov, CONTROL, CONTROL_VF_ENABLE | CONTROL_VF_MSE);
            let view = sriov.view(true);
            assert_eq!((view.num_vfs, view.vf_enable), (num_vfs, accepted));
            assert_eq!(view.vf_memory, accepted);
            assert_ne!(sriov.read(CONTROL) & in_low(CONTROL_VF_MSE), 0);
        }
    }

    #[test]
    fn vf_enable_locks_what_the_vfs_depend_on() {
        let mut sriov = sriov();
        write16(&mut sriov, NUM_VFS, 4);
        write16(&mut sriov, CONTROL, CONTROL_VF_ENABLE);
        write16(&mut sriov, NUM_VFS, 5);
        write16(&mut sriov, CONTROL, CONTROL_VF_ENABLE | CONTROL_ARI);
        write32(&mut sriov, SYSTEM_PAGE_SIZE, 0x10);
        let view = sriov.view(true);
        assert_eq!((view.num_vfs, view.ari, view.system_page_size), (4, false, 4096));

        // The write that clears VF Enable still leaves ARI Capable Hierarchy alone.
        write16(&mut sriov, CONTROL, CONTROL_ARI);
        assert!(!sriov.view(true).vf_enable && !sriov.view(true).ari);
        write16(&mut sriov, CONTROL, CONTROL_ARI);
        write16(&mut sriov, NUM_VFS, 5);
        assert!(sriov.view(true).ari && sriov.view(true).num_vfs == 5);
    }

    #[test]
    fn the_hierarchy_decides_where_vfs_are() {
        let mut sriov = sriov();
        let pf = RoutingId::new(1, 0, 0).unwrap();
        write16(&mut sriov, NUM_VFS, 256);
        for (ari, first, last) in [(0, "02:00.0", "02:1f.7"), (CONTROL_ARI, "01:00.1", "02:00.0")] {
            write16(&mut sriov, CONTROL, 0);
            write16(&mut sriov, CONTROL, ari);
            assert_eq!(sriov.view(true).vf_routing_id(pf, 0), None, "VF Enable is clear");
            write16(&mut sriov, CONTROL, ari | CONTROL_VF_ENABLE);
            let view = sriov.view(true);
            assert_eq!(sriov.read(FIRST_VF_OFFSET), halves(view.first_vf_offset, view.vf_stride));
            assert_eq!(view.vf_routing_id(pf, 0).unwrap().to_string(), first);
            assert_eq!(view.vf_routing_id(pf, 255).unwrap().to_string(), last);
            assert_eq!(view.vf_routing_id(pf, 256), None);
            for vf in 0..256 {
                assert_eq!(view.vf_at(pf, view.vf_routing_id(pf, vf).unwrap()), Some(vf));
            }
            assert_eq!(view.vf_at(pf, pf), None);
            assert_eq!(
                view.vf_at(pf, last.parse::<RoutingId>().unwrap().checked_add(1).unwrap()),
                None
            );
            // The last buses cannot hold all VFs.
            let pf = RoutingId::new(0xff, 0, 0).unwrap();
            assert_eq!(view.vf_routing_id(pf, 255), None);
        }
    }

    #[test]
    fn system_page_size_bounds_vf_bars_from_below() {
        let mut sriov = sriov();
        for (register, page_size, size) in [
            (0x1, 0x1000, 0x4000),
            (0x10, 0x10000, 0x10000),
            (0x400, 0x40_0000, 0x40_0000),
            // These are no page size at all, and two: the default applies.
            (0, 0x1000, 0x4000),
            (0x11, 0x1000, 0x4000),
        ] {
            write32(&mut sriov, SYSTEM_PAGE_SIZE, register);
            write32(&mut sriov, VF_BAR0, u32::MAX);
            let view = sriov.view(true);
            assert_eq!(view.system_page_size, page_size);
            assert_eq!(view.vf_bar(0).unwrap().size, size);
            assert_eq!(sriov.read(VF_BAR0), !(size as u32 - 1) | 0xc);
        }
        write32(&mut sriov, SYSTEM_PAGE_SIZE, u32::MAX);
        assert_eq!(sriov.read(SYSTEM_PAGE_SIZE), REQUIRED_PAGE_SIZES, "no other bit exists");
    }

    #[test]
    fn the_aperture_holds_one_bar_after_the_other() {
        let mut sriov = sriov();
        write32(&mut sriov, VF_BAR0, 0x8000_0000);
        write32(&mut sriov, VF_BAR0 + 4, 0x1);
        let view = sriov.view(true);
        assert_eq!(view.vf_bar_address(0, 0), Some(0x1_8000_0000));
        assert_eq!(view.vf_bar_address(0, 255), Some(0x1_8000_0000 + 255 * 0x4000));
        assert_eq!(view.vf_bar_address(1, 0), None);
        write32(&mut sriov, VF_BAR0, u32::MAX);
        write32(&mut sriov, VF_BAR0 + 4, u32::MAX);
        assert_eq!(sriov.view(true).vf_bar_address(0, 1), None, "beyond the address space");
    }

    #[test]
    fn every_reset_ends_the_vfs() {
        for kind in [Reset::Flr, Reset::Conventional] {
            let mut sriov = sriov();
            write16(&mut sriov, NUM_VFS, 4);
            write32(&mut sriov, VF_BAR0, 0x8000_0000);
            write32(&mut sriov, SYSTEM_PAGE_SIZE, 0x10);
            write16(&mut sriov, CONTROL, CONTROL_WRITABLE);
            sriov.reset(kind);
            let view = sriov.view(true);
            assert_eq!(sriov.read(CONTROL), 0);
            assert_eq!((view.num_vfs, view.system_page_size), (0, 4096));
            assert_eq!(view.vf_bar(0).unwrap().base, 0);
        }
    }

    #[test]
    fn impossible_capabilities_are_refused() {
        let spec = SriovSpec {
            total_vfs: 1,
            vf_device_id: 0,
            vf_bars: [None; 6],
            supported_page_sizes: REQUIRED_PAGE_SIZES,
        };
        assert!(Sriov::new(&spec).is_ok());
        for total_vfs in [0, 257, u16::MAX] {
            let error = Sriov::new(&SriovSpec { total_vfs, ..spec }).unwrap_err();
            assert_eq!(error, Error::TotalVfs(total_vfs));
        }
        let error = Sriov::new(&SriovSpec { supported_page_sizes: 1, ..spec }).unwrap_err();
        assert_eq!(error, Error::PageSizes(1));
    }
}
