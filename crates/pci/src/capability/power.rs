//! This module makes the power management capability (PCIe Base 6.0, section 7.5.2).

use super::structure::{Capability, Request, Structure, structure};
use crate::power::PowerState;
use crate::registers::{Register, Write, in_high, in_low};
use crate::spec::power;

/// The power management capability of a function with D0 and D3hot and without PME. No_Soft_Reset
/// is set, so the way back from D3hot keeps all registers.
#[derive(Debug)]
pub(crate) struct PowerManagement {
    structure: Structure,
}

impl PowerManagement {
    pub(crate) fn new() -> Self {
        let structure = Structure::standard(power::ID, power::SIZE)
            .with(power::PMC, Register::new(in_high(power::PMC_VERSION)))
            .with(
                power::PMCSR,
                Register::new(in_low(power::PMCSR_NO_SOFT_RESET))
                    .writable(in_low(power::PMCSR_STATE)),
            );
        Self { structure }
    }

    pub(crate) fn state(&self) -> PowerState {
        match self.structure.read(power::PMCSR) & in_low(power::PMCSR_STATE) {
            0 => PowerState::D0,
            _ => PowerState::D3Hot,
        }
    }
}

impl Capability for PowerManagement {
    structure!();

    fn write(&mut self, offset: u16, write: Write) -> Request {
        // A write of a state that is not supported is completed and discarded (section 7.5.2.2).
        let state = in_low(power::PMCSR_STATE);
        let asked = write.over(self.structure.read(offset)) & state;
        let supported = asked == 0 || asked == in_low(power::PMCSR_D3HOT);
        self.structure.write(offset, if supported { write } else { write.only(!state) });
        Request::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_supported_states_are_entered() {
        let mut power = PowerManagement::new();
        for (written, state) in [
            (1, PowerState::D0),
            (3, PowerState::D3Hot),
            (2, PowerState::D3Hot),
            (0, PowerState::D0),
        ] {
            power.write(power::PMCSR, Write::bytes(0, &[written]));
            assert_eq!(power.state(), state, "after writing {written}");
        }
    }
}
