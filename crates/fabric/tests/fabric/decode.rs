//! These tests decode routing IDs and addresses as the endpoint does.

use manifold_fabric::ConfigType;
use manifold_fabric::decode::Decoder;
use manifold_pci::spec::{header, sriov};
use manifold_pci::{BarSpec, ConfigSpace, FunctionId, FunctionSpec, MsixSpec, SriovSpec};

use crate::function::{extended_capability, function_spec, sriov_spec};

const BAR: u64 = 0x8_0000_0000;
const APERTURE: u64 = 0x9_0000_0000;
const SIZE: u64 = 0x4000;

/// Returns a decoder of a PF at 03:00.0 with one BAR, and 256 VFs of the same kind, 200 of them
/// enabled.
fn decoder() -> Decoder {
    let bar = BarSpec { size: SIZE, width64: true, prefetchable: true };
    let bars = [Some(bar), None, None, None, None, None];
    let msix =
        MsixSpec { vectors: 1, table_bar: 0, table_offset: 0, pba_bar: 0, pba_offset: 0x800 };
    let spec = FunctionSpec { bars, msix, ..function_spec() };
    let sriov_spec = SriovSpec { vf_bars: bars, ..sriov_spec() };
    let mut space = ConfigSpace::physical(&spec, Some(&sriov_spec)).unwrap();
    let capability = extended_capability(&space, sriov::ID).unwrap();
    let mut write = |offset: u16, data: &[u8]| drop(space.write(offset, data));
    write(header::BAR0, &BAR.to_le_bytes());
    write(header::COMMAND, &[0x02]);
    write(capability + sriov::VF_BAR0, &APERTURE.to_le_bytes());
    write(capability + sriov::CONTROL, &[0x10]);
    write(capability + sriov::NUM_VFS, &[200, 0]);
    write(capability + sriov::CONTROL, &[0x19]);
    Decoder::new("03:00.0".parse().unwrap(), &space)
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
