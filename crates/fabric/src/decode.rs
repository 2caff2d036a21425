//! Which function a request is for: what the endpoint's own decoder does with the routing IDs and
//! addresses that arrive on the link.

use manifold_pci::{ConfigSpace, FunctionId, RoutingId, SriovView};

use crate::ConfigType;

/// Where a memory request lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTarget {
    /// The function whose BAR it is.
    pub function: FunctionId,
    /// The BAR's index, 0 to 5.
    pub bar: u8,
    /// Byte offset into that function's BAR.
    pub offset: u64,
}

/// A snapshot of what the PF's registers make the device decode. Build a new one after an event
/// that changes them (BARs, memory enables, SR-IOV control, the captured bus number).
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
    /// Bytes of the whole range.
    len: u64,
    /// Bytes of one VF's share; `None`: the PF's own BAR.
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

    /// The PF's routing ID.
    pub fn pf(&self) -> RoutingId {
        self.pf
    }

    /// The function a configuration request is for; `None`: nobody's, an Unsupported Request.
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

    /// The routing ID of a function; `None` for a VF that is not enabled.
    pub fn routing_id(&self, function: FunctionId) -> Option<RoutingId> {
        match function {
            FunctionId::Pf => Some(self.pf),
            FunctionId::Vf(index) => self.sriov?.vf_routing_id(self.pf, index),
        }
    }

    /// The function, BAR and offset that `len` bytes at `address` belong to; `None` where no one
    /// BAR that decodes holds them all.
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

#[cfg(test)]
mod tests {
    use super::*;
    use manifold_pci::{BarSpec, FunctionSpec, Identity, MsixSpec, SriovSpec};

    const BAR: u64 = 0x8_0000_0000;
    const APERTURE: u64 = 0x9_0000_0000;
    const SIZE: u64 = 0x4000;

    /// A PF at 03:00.0 with one BAR, and 256 VFs of the same kind, 200 of them enabled.
    fn decoder() -> Decoder {
        let bar = BarSpec { size: SIZE, width64: true, prefetchable: true };
        let bars = [Some(bar), None, None, None, None, None];
        let identity = Identity {
            vendor_id: 0x1af4,
            device_id: 0x1041,
            revision: 1,
            class_code: 0x02_0000,
            subsystem_vendor_id: 0x1af4,
            subsystem_id: 0x1100,
        };
        let msix =
            MsixSpec { vectors: 1, table_bar: 0, table_offset: 0, pba_bar: 0, pba_offset: 0x800 };
        let spec = FunctionSpec { identity, bars, msix, vendor: Vec::new(), serial: 0 };
        let sriov = SriovSpec {
            total_vfs: 256,
            vf_device_id: 0x1041,
            vf_bars: bars,
            supported_page_sizes: 0x553,
        };
        let mut space = ConfigSpace::physical(&spec, Some(&sriov)).unwrap();
        let capability = sriov_offset(&space);
        let mut write = |offset: u16, data: &[u8]| drop(space.write(offset, data));
        write(0x10, &BAR.to_le_bytes());
        write(0x04, &[0x02]);
        write(capability + 0x24, &APERTURE.to_le_bytes());
        write(capability + 0x08, &[0x10]);
        write(capability + 0x10, &[200, 0]);
        write(capability + 0x08, &[0x19]);
        Decoder::new("03:00.0".parse().unwrap(), &space)
    }

    fn sriov_offset(space: &ConfigSpace) -> u16 {
        let dword = |at: u16| {
            let mut data = [0; 4];
            space.read(at, &mut data);
            u32::from_le_bytes(data)
        };
        let mut at = 0x100;
        while dword(at) as u16 != 0x10 {
            at = (dword(at) >> 20) as u16;
        }
        at
    }

    #[test]
    fn type_0_is_for_this_device_and_type_1_names_the_bus() {
        let decoder = decoder();
        let at = |kind, id: &str| decoder.function_at(kind, id.parse().unwrap());
        for bus in ["00", "03", "09"] {
            let id = |function| format!("{bus}:{function}");
            assert_eq!(at(ConfigType::Type0, &id("00.0")), Some(FunctionId::Pf));
            assert_eq!(at(ConfigType::Type0, &id("00.1")), Some(FunctionId::Vf(0)));
            assert_eq!(at(ConfigType::Type0, &id("19.0")), Some(FunctionId::Vf(199)));
            assert_eq!(at(ConfigType::Type0, &id("19.1")), None);
        }
        for id in ["03:00.0", "03:00.1", "04:00.0", "00:00.0"] {
            assert_eq!(at(ConfigType::Type1, id), None);
        }
        assert_eq!(decoder.routing_id(FunctionId::Vf(199)), "03:19.0".parse().ok());
        assert_eq!(decoder.routing_id(FunctionId::Vf(200)), None);
    }

    #[test]
    fn memory_belongs_to_one_bar_of_one_function() {
        let decoder = decoder();
        let at = |address, len| {
            decoder.memory_at(address, len).map(|target| (target.function, target.offset))
        };
        assert_eq!(at(BAR, 4), Some((FunctionId::Pf, 0)));
        assert_eq!(at(BAR + SIZE - 4, 4), Some((FunctionId::Pf, SIZE - 4)));
        assert_eq!(at(BAR + SIZE - 3, 4), None, "beyond the BAR");
        assert_eq!(at(BAR - 1, 4), None);
        for vf in [0, 1, 199] {
            let base = APERTURE + u64::from(vf) * SIZE;
            assert_eq!(at(base, 8), Some((FunctionId::Vf(vf), 0)));
            assert_eq!(at(base + SIZE - 1, 1), Some((FunctionId::Vf(vf), SIZE - 1)));
            assert_eq!(at(base + SIZE - 1, 2), None, "of two VFs, or of none");
        }
        assert_eq!(at(APERTURE + 200 * SIZE, 1), None, "not enabled");
        assert_eq!(at(u64::MAX, 8), None);
        assert_eq!(at(BAR, usize::MAX), None);
    }
}
