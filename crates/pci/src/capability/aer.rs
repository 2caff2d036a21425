//! This module makes the Advanced Error Reporting capability (PCIe Base 6.0, section 7.8.4).

use super::structure::{Role, Structure};
use crate::registers::Register;
use crate::spec::aer::*;

/// Returns the AER capability: status, masks, severity and the header of the first error.
///
/// All of it is sticky, so that what went wrong can still be read after the reset that it led to.
/// A function of memory and eventfds has no TLPs that could be malformed, so no status bit is ever
/// set. Masks and severity are reserved in a VF, because the PF's govern it (section 9.3.7).
pub(crate) fn advanced_error_reporting(role: Role) -> Structure {
    let status = |errors| Register::new(0).clearable(errors).sticky(errors);
    let setting = |initial, errors| Register::new(initial).writable(errors).sticky(errors);
    let structure = Structure::extended(ID, VERSION, SIZE);
    match role {
        Role::Physical => structure
            .with(UNCORRECTABLE_STATUS, status(UNCORRECTABLE))
            .with(UNCORRECTABLE_MASK, setting(MASK_DEFAULT, UNCORRECTABLE))
            .with(UNCORRECTABLE_SEVERITY, setting(SEVERITY_DEFAULT, UNCORRECTABLE))
            .with(CORRECTABLE_STATUS, status(CORRECTABLE))
            .with(CORRECTABLE_MASK, setting(ADVISORY_NON_FATAL, CORRECTABLE)),
        Role::Virtual => structure
            .with(UNCORRECTABLE_STATUS, status(FUNCTION_SPECIFIC))
            .with(CORRECTABLE_STATUS, status(ADVISORY_NON_FATAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reset;
    use crate::capability::structure::Capability;
    use crate::registers::Write;

    #[test]
    fn settings_survive_reset() {
        let mut aer = advanced_error_reporting(Role::Physical);
        aer.write(UNCORRECTABLE_MASK, Write::dword(u32::MAX));
        aer.write(CORRECTABLE_MASK, Write::dword(0));
        let registers = |aer: &Structure| -> Vec<u32> {
            (0..SIZE).step_by(4).map(|offset| aer.read(offset)).collect()
        };
        let before = registers(&aer);
        aer.reset(Reset::Flr);
        aer.reset(Reset::Conventional);
        assert_eq!(registers(&aer), before);
    }

    #[test]
    fn status_bits_survive_resets_until_software_writes_ones() {
        let roles = [
            (Role::Physical, UNCORRECTABLE, CORRECTABLE),
            (Role::Virtual, FUNCTION_SPECIFIC, ADVISORY_NON_FATAL),
        ];
        for (role, uncorrectable, correctable) in roles {
            for (offset, errors) in
                [(UNCORRECTABLE_STATUS, uncorrectable), (CORRECTABLE_STATUS, correctable)]
            {
                let mut aer = advanced_error_reporting(role);
                aer.bank.set(offset, errors, u32::MAX);
                aer.reset(Reset::Flr);
                aer.reset(Reset::Conventional);
                aer.write(offset, Write::dword(0));
                assert_eq!(aer.read(offset), errors, "zeros clear nothing");
                let first = errors & errors.wrapping_neg();
                aer.write(offset, Write::dword(first));
                assert_eq!(aer.read(offset), errors & !first, "a one clears its bit alone");
                aer.write(offset, Write::dword(u32::MAX));
                assert_eq!(aer.read(offset), 0);
            }
        }
    }

    #[test]
    fn only_implemented_errors_have_bits() {
        for role in [Role::Physical, Role::Virtual] {
            let mut aer = advanced_error_reporting(role);
            for offset in [UNCORRECTABLE_MASK, UNCORRECTABLE_SEVERITY] {
                aer.write(offset, Write::dword(u32::MAX));
            }
            let settings = if role == Role::Virtual { 0 } else { UNCORRECTABLE };
            assert_eq!(aer.read(UNCORRECTABLE_MASK), settings);
            assert_eq!(aer.read(UNCORRECTABLE_SEVERITY), settings);
        }
    }
}
