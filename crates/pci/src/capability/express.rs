//! This module makes the PCI Express capability of an endpoint (PCIe Base 6.0, section 7.5.3).

use super::structure::{Capability, Request, Role, Structure, structure};
use crate::registers::{Register, Write, halves, in_high, in_low, low};
use crate::spec::express::*;

/// The PCI Express capability of an endpoint behind a 5.0 GT/s x16 link, with function-level reset.
///
/// In a VF, Device Control is reserved but for Initiate FLR, since the PF's governs it
/// (section 9.3.5). The standard reserves a VF's Link Status and Link Control 2 as well; here they
/// show the PF's link, read-only, so that tools print a speed where they would otherwise print
/// "unknown".
#[derive(Debug)]
pub(crate) struct Express {
    structure: Structure,
}

impl Express {
    pub(crate) fn new(role: Role) -> Self {
        let link = LINK_SPEED_5_0 | LINK_WIDTH_X16;
        let device = Register::pair(Self::initial_device_control(role), 0)
            .clearable(in_high(DEVICE_STATUS_CLEARABLE));
        let device_2 = Register::new(0);
        let link_control = Register::pair(0, link | LINK_STATUS_SLOT_CLOCK);
        let link_control_2 = Register::pair(LINK_SPEED_5_0, 0);
        let (device, device_2, link_control, link_control_2) = match role {
            Role::Physical => (
                device
                    .writable(in_low(DEVICE_CONTROL_WRITABLE))
                    .flr_exempt(in_low(DEVICE_CONTROL_PAYLOAD)),
                device_2.writable(in_low(DEVICE_CONTROL_2_COMPLETION_TIMEOUT)),
                link_control
                    .writable(in_low(LINK_CONTROL_WRITABLE))
                    .flr_exempt(in_low(LINK_CONTROL_WRITABLE)),
                link_control_2
                    .writable(in_low(LINK_CONTROL_2_WRITABLE))
                    .sticky(in_low(LINK_CONTROL_2_WRITABLE)),
            ),
            Role::Virtual => (device, device_2, link_control, link_control_2),
        };
        let structure = Structure::standard(ID, SIZE)
            .with(CAPABILITIES, Register::new(in_high(CAPABILITIES_VERSION)))
            .with(
                DEVICE_CAPABILITIES,
                Register::new(
                    DEVICE_CAPABILITIES_PAYLOAD_256
                        | DEVICE_CAPABILITIES_EXTENDED_TAG
                        | DEVICE_CAPABILITIES_ROLE_BASED_ERRORS
                        | DEVICE_CAPABILITIES_FLR,
                ),
            )
            .with(DEVICE_CONTROL, device)
            .with(
                LINK_CAPABILITIES,
                Register::new(halves(link, 0) | LINK_CAPABILITIES_ASPM_OPTIONALITY),
            )
            .with(LINK_CONTROL, link_control)
            .with(DEVICE_CAPABILITIES_2, Register::new(DEVICE_CAPABILITIES_2_COMPLETION_TIMEOUT))
            .with(DEVICE_CONTROL_2, device_2)
            .with(LINK_CAPABILITIES_2, Register::new(LINK_CAPABILITIES_2_SPEEDS))
            .with(LINK_CONTROL_2, link_control_2);
        Self { structure }
    }

    fn initial_device_control(role: Role) -> u16 {
        match role {
            Role::Physical => {
                DEVICE_CONTROL_RELAXED_ORDERING
                    | DEVICE_CONTROL_EXTENDED_TAG
                    | DEVICE_CONTROL_NO_SNOOP
                    | DEVICE_CONTROL_READ_REQUEST_512
            }
            Role::Virtual => 0,
        }
    }
}

/// Bits that software can write in a PF's Device Control, Initiate FLR aside.
const DEVICE_CONTROL_WRITABLE: u16 = DEVICE_CONTROL_CORRECTABLE
    | DEVICE_CONTROL_NON_FATAL
    | DEVICE_CONTROL_FATAL
    | DEVICE_CONTROL_UNSUPPORTED_REQUEST
    | DEVICE_CONTROL_RELAXED_ORDERING
    | DEVICE_CONTROL_PAYLOAD
    | DEVICE_CONTROL_EXTENDED_TAG
    | DEVICE_CONTROL_NO_SNOOP
    | DEVICE_CONTROL_READ_REQUEST;

impl Capability for Express {
    structure!();

    fn write(&mut self, offset: u16, write: Write) -> Request {
        self.structure.write(offset, write);
        if offset == DEVICE_CONTROL && low(write.ones()) & DEVICE_CONTROL_FLR != 0 {
            Request::FunctionLevelReset
        } else {
            Request::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reset;
    use crate::registers::high;

    #[test]
    fn flr_keeps_the_payload_size_and_the_link() {
        let mut express = Express::new(Role::Physical);
        express.write(DEVICE_CONTROL, Write::bytes(0, &[0x2f, 0x00]));
        express.write(LINK_CONTROL, Write::bytes(0, &[0x40]));
        assert_eq!(
            express.write(DEVICE_CONTROL, Write::bytes(1, &[0x80])),
            Request::FunctionLevelReset
        );
        assert_eq!(low(express.read(DEVICE_CONTROL)), 0x002f, "Initiate FLR reads as zero");
        express.reset(Reset::Flr);
        let initial = Express::initial_device_control(Role::Physical);
        assert_eq!(low(express.read(DEVICE_CONTROL)), initial | 0x20);
        assert_eq!(low(express.read(LINK_CONTROL)), 0x40);
        express.reset(Reset::Conventional);
        assert_eq!(low(express.read(DEVICE_CONTROL)), initial);
        assert_eq!(low(express.read(LINK_CONTROL)), 0);
    }

    #[test]
    fn device_status_is_cleared_by_ones_and_by_resets() {
        let bits = in_high(DEVICE_STATUS_CLEARABLE);
        for role in [Role::Physical, Role::Virtual] {
            let mut express = Express::new(role);
            let before = express.read(DEVICE_CONTROL);
            express.structure.bank.set(DEVICE_CONTROL, bits, u32::MAX);
            express.write(DEVICE_CONTROL, Write::bytes(2, &[0, 0]));
            assert_eq!(high(express.read(DEVICE_CONTROL)), DEVICE_STATUS_CLEARABLE);
            express.write(DEVICE_CONTROL, Write::bytes(2, &[1, 0]));
            assert_eq!(high(express.read(DEVICE_CONTROL)), DEVICE_STATUS_CLEARABLE & !1);
            for reset in [Reset::Flr, Reset::Conventional] {
                express.structure.bank.set(DEVICE_CONTROL, bits, u32::MAX);
                express.reset(reset);
                assert_eq!(express.read(DEVICE_CONTROL), before, "no bit is sticky");
            }
        }
    }

    #[test]
    fn a_vf_has_flr_and_nothing_else_to_write() {
        let mut express = Express::new(Role::Virtual);
        let before: Vec<u32> = (0..SIZE).step_by(4).map(|at| express.read(at)).collect();
        for offset in (0..SIZE).step_by(4) {
            let request = express.write(offset, Write::bytes(0, &[0xff, 0xff, 0x00, 0x00]));
            assert_eq!(request == Request::FunctionLevelReset, offset == DEVICE_CONTROL);
        }
        let after: Vec<u32> = (0..SIZE).step_by(4).map(|at| express.read(at)).collect();
        assert_eq!(before, after);
    }
}
