//! This module decodes routing IDs and addresses that arrive on the link, as the endpoint does, and
//! tells which function a request is for.

use manifold_pci::{ConfigSpace, FunctionId, RoutingId, SriovView};

use crate::endpoint::ConfigType;

/// The place that a memory request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTarget {
    /// Function whose BAR it is.
    pub function: FunctionId,
    /// Index of the BAR, 0 to 5.
    pub bar: u8,
    /// Byte offset into that function's BAR.
    pub offset: u64,
}

/// A snapshot of what the PF's registers make the device decode. It must be built again after an
/// event that changes them (BARs, memory enables, SR-IOV control, the captured bus number).
#[derive(Clone, Debug)]
pub struct Decoder {
    pf: RoutingId,
    sriov: Option<SriovView>,
    ranges: Vec<Range>,
}

/// A BAR of the PF, or an aperture of a VF BAR.
#[derive(Clone, Copy, Debug)]
struct Range {
    base: u64,
    /// Size of the whole range in bytes.
    len: u64,
    /// Size of one VF's share in bytes; `None` for the PF's own BAR.
    per_vf: Option<u64>,
    bar: u8,
}

impl Decoder {
    /// Takes the snapshot: `pf` is the PF's routing ID as captured, `space` its configuration
    /// space.
    pub fn new(pf: RoutingId, space: &ConfigSpace) -> Self {
        let sriov = space.sriov();
        let mut ranges = Vec::new();
        for (index, bar) in (0..6_usize).zip(0_u8..) {
            if space.memory_enable()
                && let Some(own) = space.bar(index)
            {
                ranges.push(Range { base: own.address, len: own.size, per_vf: None, bar });
            }
            if let Some(sriov) = sriov.filter(|sriov| sriov.vf_memory)
                && let Some(vf) = sriov.vf_bar(index)
                && let Some(len) = vf.size.checked_mul(u64::from(sriov.num_vfs))
            {
                ranges.push(Range { base: vf.base, len, per_vf: Some(vf.size), bar });
            }
        }
        Self { pf, sriov, ranges }
    }

    /// Returns the PF's routing ID.
    pub fn pf(&self) -> RoutingId {
        self.pf
    }

    /// Returns the function that a configuration request is for; `None` for an Unsupported Request.
    ///
    /// A Type 0 request is for this device whatever its bus number, which the device may be about
    /// to capture; a Type 1 request names the bus.
    pub fn function_at(&self, kind: ConfigType, target: RoutingId) -> Option<FunctionId> {
        let target = match kind {
            ConfigType::Type0 => {
                let [bus, _] = self.pf.raw().to_be_bytes();
                RoutingId::from_raw(u16::from_be_bytes([bus, target.ari_function()]))
            }
            ConfigType::Type1 if target.bus() == self.pf.bus() => return None,
            ConfigType::Type1 => target,
        };
        if target == self.pf {
            return Some(FunctionId::Pf);
        }
        self.sriov?.vf_at(self.pf, target).map(FunctionId::Vf)
    }

    /// Returns the routing ID of a function; `None` for a VF that is not enabled.
    pub fn routing_id(&self, function: FunctionId) -> Option<RoutingId> {
        match function {
            FunctionId::Pf => Some(self.pf),
            FunctionId::Vf(index) => self.sriov?.vf_routing_id(self.pf, index),
        }
    }

    /// Returns the function, BAR and offset that `len` bytes at `address` belong to; `None` if no
    /// one BAR that decodes holds them all.
    pub fn memory_at(&self, address: u64, len: usize) -> Option<MemoryTarget> {
        let len = u64::try_from(len).ok()?;
        self.ranges.iter().find_map(|range| {
            let offset = address.checked_sub(range.base)?;
            if offset >= range.len {
                return None;
            }
            let (function, offset, size) = match range.per_vf {
                None => (FunctionId::Pf, offset, range.len),
                Some(size) => {
                    let vf = u16::try_from(offset.checked_div(size)?).ok()?;
                    (FunctionId::Vf(vf), offset % size, size)
                }
            };
            let fits = offset.checked_add(len).is_some_and(|end| end <= size);
            fits.then_some(MemoryTarget { function, bar: range.bar, offset })
        })
    }
}
