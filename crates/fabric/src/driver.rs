//! This module is host software that enables and disables VFs, through the root complex alone.

mod bars;
mod clock;
mod enumerate;
mod function;
mod info;
mod layout;
mod place;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_pci::RoutingId;
use manifold_pci::spec::{express, sriov};

use crate::error::Error;
use crate::root_complex::RootComplex;
use crate::spec::sriov::{BROKEN_TIME, DISABLE_TIME, ENABLE_TIME};
pub use clock::{Clock, SystemClock};
use function::Function;
pub use info::{BarInfo, PfInfo, VfInfo};
use layout::Layout;

/// Time between two looks at a VF that does not answer yet.
const RETRY: Duration = Duration::from_millis(10);

/// The host software, PCI core and PF driver in one, which works through the root complex only.
pub struct PfDriver {
    root: Arc<RootComplex>,
    clock: Box<dyn Clock>,
    info: PfInfo,
    /// Offset of the SR-IOV capability.
    sriov: u16,
    vfs: Vec<VfInfo>,
    /// Time until which the SR-IOV capability must be left alone.
    ready_at: Option<Instant>,
}

impl PfDriver {
    /// Enumerates the fabric: bus numbers, ARI, BARs of the PF and its VFs, memory and bus master
    /// enable. No VF is enabled afterwards. VFs that were enabled take a second to go.
    ///
    /// # Errors
    /// What the driver found that it cannot work with.
    pub fn probe(root: Arc<RootComplex>, clock: Box<dyn Clock>) -> Result<Self, Error> {
        let (info, sriov) = enumerate::enumerate(&root, clock.as_ref())?;
        Ok(Self { root, clock, info, sriov, vfs: Vec::new(), ready_at: None })
    }

    /// Returns what the driver found and set up.
    pub fn info(&self) -> &PfInfo {
        &self.info
    }

    /// Returns the root complex the driver works through.
    pub fn root(&self) -> &Arc<RootComplex> {
        &self.root
    }

    /// Returns the enabled VFs, ascending by index.
    pub fn vfs(&self) -> &[VfInfo] {
        &self.vfs
    }

    /// Enables `count` VFs and returns them. This takes at least 100 ms, and up to 1.1 s soon after
    /// [`PfDriver::disable`]. After an error no VF is enabled that was not before.
    pub fn enable(&mut self, count: u16) -> Result<&[VfInfo], Error> {
        let total_vfs = self.info.total_vfs;
        if !self.vfs.is_empty() {
            return Err(Error::AlreadyEnabled { enabled: self.vfs.len() });
        }
        if count == 0 {
            return Err(Error::ZeroVfs { total_vfs });
        }
        if count > total_vfs {
            return Err(Error::TooManyVfs { asked: count, total_vfs });
        }
        if let Some(ready_at) = self.ready_at.take() {
            self.sleep_until(ready_at);
        }
        let pf = self.pf();
        pf.write_u16_checked(self.sriov + sriov::NUM_VFS, count, "NumVFs")?;
        // Offset and stride may depend on NumVFs and ARI Capable Hierarchy (sections 9.3.3.9,
        // 9.3.3.10).
        let layout = Layout::read(pf, self.sriov);
        let routing_ids = (0..count)
            .map(|index| layout.routing_id(pf.id, count, index))
            .collect::<Result<Vec<_>, _>>()?;

        let control = pf.read_u16(self.sriov + sriov::CONTROL);
        let enable = control | sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE;
        pf.write_u16(self.sriov + sriov::CONTROL, enable);
        let enabled = self.clock.now();
        tracing::debug!(num_vfs = count, %layout, "VF Enable set");
        self.sleep_until(enabled + ENABLE_TIME);

        let found = self.find_vfs(&routing_ids, enabled + BROKEN_TIME);
        match found {
            Ok(vfs) => self.vfs = vfs,
            Err(error) => {
                self.clear_vf_enable();
                return Err(error);
            }
        }
        Ok(&self.vfs)
    }

    /// Disables all VFs at once. The wait that must follow is left to the next
    /// [`PfDriver::enable`].
    pub fn disable(&mut self) {
        if !self.vfs.is_empty() {
            self.clear_vf_enable();
        }
    }

    fn clear_vf_enable(&mut self) {
        let pf = self.pf();
        let control = pf.read_u16(self.sriov + sriov::CONTROL);
        let disabled = control & !(sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE);
        pf.write_u16(self.sriov + sriov::CONTROL, disabled);
        self.ready_at = Some(self.clock.now() + DISABLE_TIME);
        self.vfs.clear();
        tracing::debug!("VF Enable cleared");
    }

    /// Finds each VF at its routing ID. One that does not answer has until `broken`.
    fn find_vfs(&self, routing_ids: &[RoutingId], broken: Instant) -> Result<Vec<VfInfo>, Error> {
        let mut vfs = Vec::with_capacity(routing_ids.len());
        for (index, routing_id) in (0..).zip(routing_ids) {
            let vf = Function::new(&self.root, *routing_id);
            while !vf.answers() {
                if self.clock.now() >= broken {
                    return Err(Error::VfAbsent { index, routing_id: *routing_id });
                }
                self.clock.sleep(RETRY);
            }
            // Every VF has a PCI Express capability (section 9.3.6).
            vf.capability(express::ID, "PCI Express")?;
            vfs.push(self.vf_info(index, *routing_id));
        }
        Ok(vfs)
    }

    fn vf_info(&self, index: u16, routing_id: RoutingId) -> VfInfo {
        let share = |aperture: BarInfo| BarInfo {
            address: aperture.address + u64::from(index) * aperture.size,
            ..aperture
        };
        VfInfo { index, routing_id, bars: self.info.vf_bars.map(|bar| bar.map(share)) }
    }

    fn pf(&self) -> Function<'_> {
        Function::new(&self.root, self.info.routing_id)
    }

    fn sleep_until(&self, instant: Instant) {
        let now = self.clock.now();
        if now < instant {
            self.clock.sleep(instant - now);
        }
    }
}

impl fmt::Debug for PfDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PfDriver")
            .field("info", &self.info)
            .field("vfs", &self.vfs.len())
            .finish_non_exhaustive()
    }
}
