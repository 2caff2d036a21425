mod bars;
mod enumerate;
mod function;
mod place;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_pci::{Identity, RoutingId};

use crate::spec::{express, sriov};
use crate::{Error, RootComplex};
use function::Function;

/// Between two looks at a VF that does not answer yet.
const RETRY: Duration = Duration::from_millis(10);

/// A BAR as the driver placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarInfo {
    /// Address of the function's first byte.
    pub address: u64,
    /// Bytes of one function's BAR.
    pub size: u64,
    /// It takes two registers.
    pub width64: bool,
    /// Reads have no side effects.
    pub prefetchable: bool,
}

/// What the driver found and set up in the PF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfInfo {
    /// The PF's routing ID.
    pub routing_id: RoutingId,
    /// The PF's identification registers.
    pub identity: Identity,
    /// The PF's BARs.
    pub bars: [Option<BarInfo>; 6],
    /// VF BARs: the address is that of the whole aperture, VF 0's BAR; the size is one VF's share.
    pub vf_bars: [Option<BarInfo>; 6],
    /// TotalVFs.
    pub total_vfs: u16,
    /// VF Device ID.
    pub vf_device_id: u16,
    /// ARI forwarding is on and ARI Capable Hierarchy set.
    pub ari: bool,
    /// Last bus number behind the root port.
    pub subordinate_bus: u8,
}

/// One enabled VF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfInfo {
    /// The VF's index, from 0.
    pub index: u16,
    /// The VF's routing ID.
    pub routing_id: RoutingId,
    /// Its shares of the VF BARs.
    pub bars: [Option<BarInfo>; 6],
}

/// Time as the driver sees it; tests bring their own.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Instant;
    /// Returns once so much time has passed.
    fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Host software: PCI core and PF driver in one, working through the root complex only.
pub struct PfDriver {
    root: Arc<RootComplex>,
    clock: Box<dyn Clock>,
    info: PfInfo,
    /// Where the SR-IOV capability is.
    sriov: u16,
    vfs: Vec<VfInfo>,
    /// The SR-IOV capability must be left alone until then.
    settled: Option<Instant>,
}

impl PfDriver {
    /// Enumerates the fabric: bus numbers, ARI, BARs of the PF and its VFs, memory and bus master
    /// enable. No VF is enabled afterwards; VFs that were take a second to go.
    pub fn probe(root: Arc<RootComplex>) -> Result<Self, Error> {
        Self::probe_with_clock(root, Box::new(SystemClock))
    }

    /// As [`PfDriver::probe`], by another clock.
    pub fn probe_with_clock(root: Arc<RootComplex>, clock: Box<dyn Clock>) -> Result<Self, Error> {
        let (info, sriov) = enumerate::enumerate(&root, clock.as_ref())?;
        Ok(Self { root, clock, info, sriov, vfs: Vec::new(), settled: None })
    }

    /// What the driver found and set up.
    pub fn info(&self) -> &PfInfo {
        &self.info
    }

    /// The root complex the driver works through.
    pub fn root(&self) -> &Arc<RootComplex> {
        &self.root
    }

    /// The VFs that are enabled, ascending by index.
    pub fn vfs(&self) -> &[VfInfo] {
        &self.vfs
    }

    /// Enables `count` VFs and returns them. Takes at least 100 ms, and up to 1.1 s soon after
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
        if let Some(settled) = self.settled.take() {
            self.sleep_until(settled);
        }
        let pf = self.pf();
        pf.write_u16_checked(self.sriov + sriov::NUM_VFS, count, "NumVFs")?;
        // They may depend on NumVFs and on ARI Capable Hierarchy (sections 9.3.3.9, 9.3.3.10).
        let layout = Layout::read(pf, self.sriov);
        let routing_ids = (0..count)
            .map(|index| layout.routing_id(pf.id, count, index))
            .collect::<Result<Vec<_>, _>>()?;

        let control = pf.read_u16(self.sriov + sriov::CONTROL);
        let enable = control | sriov::CONTROL_VF_ENABLE | sriov::CONTROL_VF_MSE;
        pf.write_u16(self.sriov + sriov::CONTROL, enable);
        let enabled = self.clock.now();
        tracing::debug!(num_vfs = count, %layout, "VF Enable set");
        self.sleep_until(enabled + sriov::ENABLE_TIME);

        let found = self.find_vfs(&routing_ids, enabled + sriov::BROKEN_TIME);
        match found {
            Ok(vfs) => self.vfs = vfs,
            Err(error) => {
                self.clear_vf_enable();
                return Err(error);
            }
        }
        Ok(&self.vfs)
    }

    /// Disables all VFs, at once: the wait that follows is for the next [`PfDriver::enable`].
    /// Nothing to do where there are none.
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
        self.settled = Some(self.clock.now() + sriov::DISABLE_TIME);
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
            // Every VF has this one (section 9.3.6).
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

/// How the VFs' routing IDs follow from the PF's (section 9.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    offset: u16,
    stride: u16,
}

impl Layout {
    fn read(pf: Function<'_>, capability: u16) -> Self {
        Self {
            offset: pf.read_u16(capability + sriov::FIRST_VF_OFFSET),
            stride: pf.read_u16(capability + sriov::VF_STRIDE),
        }
    }

    /// The routing ID of a VF, one of `count`.
    fn routing_id(self, pf: RoutingId, count: u16, index: u16) -> Result<RoutingId, Error> {
        let Self { offset, stride } = self;
        if offset == 0 || stride == 0 && count > 1 {
            return Err(Error::InvalidLayout { pf, count, offset, stride });
        }
        let distance = stride.checked_mul(index).and_then(|all| all.checked_add(offset));
        distance.and_then(|distance| pf.checked_add(distance)).ok_or(Error::OutOfBuses {
            pf,
            count,
            offset,
            stride,
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}, stride {}", self.offset, self.stride)
    }
}
