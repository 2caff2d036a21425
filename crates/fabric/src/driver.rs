use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_pci::{Identity, RoutingId};

use crate::{Error, RootComplex};

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
pub trait Clock: Send {
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
    vfs: Vec<VfInfo>,
}

impl PfDriver {
    /// Enumerates the fabric: bus numbers, ARI, BARs of the PF and its VFs, memory and bus master
    /// enable. No VF is enabled afterwards.
    pub fn probe(root: Arc<RootComplex>) -> Result<Self, Error> {
        Self::probe_with_clock(root, Box::new(SystemClock))
    }

    /// As [`PfDriver::probe`], by another clock.
    pub fn probe_with_clock(root: Arc<RootComplex>, clock: Box<dyn Clock>) -> Result<Self, Error> {
        let _ = (root, clock);
        Err(Error::NoRootPort)
    }

    /// What the driver found and set up.
    pub fn info(&self) -> &PfInfo {
        &self.info
    }

    /// The root complex the driver works through.
    pub fn root(&self) -> &Arc<RootComplex> {
        &self.root
    }

    /// Enables `count` VFs and returns them. Takes at least 100 ms, and up to 1.1 s soon after
    /// [`PfDriver::disable`].
    pub fn enable(&mut self, count: u16) -> Result<&[VfInfo], Error> {
        let _ = (count, self.clock.now());
        Ok(&self.vfs)
    }

    /// Disables all VFs. Nothing to do where there are none.
    pub fn disable(&mut self) {
        self.vfs.clear();
    }

    /// The VFs that are enabled, ascending by index.
    pub fn vfs(&self) -> &[VfInfo] {
        &self.vfs
    }
}
