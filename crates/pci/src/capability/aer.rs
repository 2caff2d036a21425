//! Advanced Error Reporting (PCIe Base 6.0, section 7.8.4).

use super::{Capability, CapabilityId, Role};
use crate::registers::{Bank, Register};
use crate::spec::aer::*;

/// Status, masks, severity and the header of the first error. All sticky: what went wrong can still
/// be read after the reset that it led to.
///
/// A VF logs errors of its own requests; masks and severity are reserved in it, as the PF's govern
/// them (section 9.3.7).
#[derive(Debug)]
pub(crate) struct AdvancedErrorReporting {
    bank: Bank,
}

impl AdvancedErrorReporting {
    pub(crate) fn new(role: Role) -> Self {
        let status = |errors| Register::new(0).clearable(errors).sticky(errors);
        let setting = |initial, errors| Register::new(initial).writable(errors).sticky(errors);
        let mut bank = Bank::new(SIZE)
            .with(CONTROL, Register::new(0).sticky(CONTROL_FIRST_ERROR))
            .with(HEADER_LOG, LOG)
            .with(HEADER_LOG + 4, LOG)
            .with(HEADER_LOG + 8, LOG)
            .with(HEADER_LOG + 12, LOG);
        bank = match role {
            Role::Physical => bank
                .with(UNCORRECTABLE_STATUS, status(UNCORRECTABLE))
                .with(UNCORRECTABLE_MASK, setting(MASK_DEFAULT, UNCORRECTABLE))
                .with(UNCORRECTABLE_SEVERITY, setting(SEVERITY_DEFAULT, UNCORRECTABLE))
                .with(CORRECTABLE_STATUS, status(CORRECTABLE))
                .with(CORRECTABLE_MASK, setting(ADVISORY_NON_FATAL, CORRECTABLE)),
            Role::Virtual => bank
                .with(UNCORRECTABLE_STATUS, status(FUNCTION_SPECIFIC))
                .with(CORRECTABLE_STATUS, status(ADVISORY_NON_FATAL)),
        };
        Self { bank }
    }

    /// Whether software wants this uncorrectable error (one bit) treated as fatal.
    pub(crate) fn fatal(&self, error: u32) -> bool {
        self.bank.get(UNCORRECTABLE_SEVERITY) & error != 0
    }

    /// Whether advisory non-fatal errors are masked.
    pub(crate) fn advisory_masked(&self) -> bool {
        self.bank.get(CORRECTABLE_MASK) & ADVISORY_NON_FATAL != 0
    }

    /// Sets Advisory Non-Fatal Error Status.
    pub(crate) fn record_advisory(&mut self) {
        self.bank.set(CORRECTABLE_STATUS, ADVISORY_NON_FATAL, ADVISORY_NON_FATAL);
    }

    /// Sets an uncorrectable error's status (one bit). Unless it is masked, or the log still holds
    /// an earlier error that software has not cleared, the header is logged and First Error Pointer
    /// names it (section 6.2.4.2). Returns whether the error is unmasked.
    pub(crate) fn record(&mut self, error: u32, header: [u32; 4]) -> bool {
        let earlier = self.bank.get(UNCORRECTABLE_STATUS);
        self.bank.set(UNCORRECTABLE_STATUS, error, error);
        if self.bank.get(UNCORRECTABLE_MASK) & error != 0 {
            return false;
        }
        let first = self.bank.get(CONTROL) & CONTROL_FIRST_ERROR;
        if earlier & 1 << first == 0 {
            self.bank.set(CONTROL, CONTROL_FIRST_ERROR, error.trailing_zeros());
            for (offset, dword) in (HEADER_LOG..).step_by(4).zip(header) {
                self.bank.set(offset, u32::MAX, dword);
            }
        }
        true
    }
}

const LOG: Register = Register::new(0).sticky(u32::MAX);

impl Capability for AdvancedErrorReporting {
    fn id(&self) -> CapabilityId {
        CapabilityId::Extended { id: ID, version: VERSION }
    }

    super::bank!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reset;
    use crate::registers::Write;

    #[test]
    fn the_log_holds_the_first_error_until_it_is_cleared() {
        let mut aer = AdvancedErrorReporting::new(Role::Physical);
        assert!(aer.record(COMPLETER_ABORT, [1; 4]));
        assert!(aer.record(UNSUPPORTED_REQUEST, [2; 4]));
        assert_eq!(aer.read(UNCORRECTABLE_STATUS), COMPLETER_ABORT | UNSUPPORTED_REQUEST);
        assert_eq!((aer.read(CONTROL), aer.read(HEADER_LOG + 12)), (15, 1));

        let clear = Write::bytes(0, &COMPLETER_ABORT.to_le_bytes());
        aer.write(UNCORRECTABLE_STATUS, clear);
        assert_eq!(aer.read(UNCORRECTABLE_STATUS), UNSUPPORTED_REQUEST);
        assert!(aer.record(COMPLETER_ABORT, [3; 4]));
        assert_eq!((aer.read(CONTROL), aer.read(HEADER_LOG)), (15, 3));
    }

    #[test]
    fn a_masked_error_has_status_and_no_log() {
        let mut aer = AdvancedErrorReporting::new(Role::Physical);
        assert!(!aer.record(UNCORRECTABLE_INTERNAL, [1; 4]));
        assert_eq!(aer.read(UNCORRECTABLE_STATUS), UNCORRECTABLE_INTERNAL);
        assert_eq!((aer.read(CONTROL), aer.read(HEADER_LOG)), (0, 0));
    }

    #[test]
    fn everything_survives_reset() {
        let mut aer = AdvancedErrorReporting::new(Role::Physical);
        aer.record(UNSUPPORTED_REQUEST, [7, 8, 9, 10]);
        aer.write(UNCORRECTABLE_MASK, Write::bytes(0, &[0xff; 4]));
        aer.write(CORRECTABLE_MASK, Write::bytes(0, &[0; 4]));
        let registers = |aer: &AdvancedErrorReporting| -> Vec<u32> {
            (0..SIZE).step_by(4).map(|offset| aer.read(offset)).collect()
        };
        let before = registers(&aer);
        aer.reset(Reset::Flr);
        aer.reset(Reset::Conventional);
        assert_eq!(registers(&aer), before);
    }

    #[test]
    fn only_implemented_errors_have_bits() {
        for role in [Role::Physical, Role::Virtual] {
            let mut aer = AdvancedErrorReporting::new(role);
            for offset in (4..SIZE).step_by(4) {
                aer.write(offset, Write::bytes(0, &[0xff; 4]));
            }
            let settings = if role == Role::Virtual { 0 } else { UNCORRECTABLE };
            assert_eq!(aer.read(UNCORRECTABLE_MASK), settings);
            assert_eq!(aer.read(UNCORRECTABLE_SEVERITY), settings);
            assert_eq!(aer.read(UNCORRECTABLE_STATUS), 0);
            assert_eq!(aer.read(HEADER_LOG), 0, "the log is for the device to write");
        }
    }
}
