//! This module is the root port: a PCI-to-PCI bridge with a type 1 header, and the routing its
//! registers ask for.

mod registers;

use std::ops::RangeInclusive;

use manifold_pci::RoutingId;
use manifold_pci::registers::{Bank, high, in_high, in_low, low};
use manifold_pci::spec::{express, header, power};

use crate::endpoint::ConfigType;
use crate::spec::{bridge, port};
use registers::{EXPRESS, POWER};

/// The registers of the root port and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct RootPort {
    registers: Bank,
}

/// The event on the link that a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum LinkEvent {
    Nothing,
    /// Secondary Bus Reset was set.
    HotReset,
}

impl RootPort {
    /// Returns a port out of reset, without bus numbers and windows.
    pub(crate) fn new(ari_forwarding: bool) -> Self {
        Self { registers: registers::registers(ari_forwarding) }
    }

    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        self.registers.read(offset, data);
    }

    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) -> LinkEvent {
        let was_in_reset = self.in_reset();
        let power = self.registers.get(POWER + power::PMCSR);
        self.registers.write_bytes(offset, data);
        if !matches!(self.power_state(), power::PMCSR_D0 | power::PMCSR_D3HOT) {
            // A write of a state the port does not have is discarded (section 7.5.2.2).
            self.registers.set(POWER + power::PMCSR, u32::MAX, power);
        }
        if self.in_reset() && !was_in_reset { LinkEvent::HotReset } else { LinkEvent::Nothing }
    }

    /// Notes that a request sent downstream came back as Unsupported Request.
    pub(crate) fn master_abort(&mut self) {
        let abort = in_high(bridge::STATUS_MASTER_ABORT);
        self.registers.set(bridge::SECONDARY_STATUS, abort, abort);
    }

    /// Returns how a configuration request for a bus other than 0 goes downstream (section 7.3.3);
    /// `None` if it does not.
    pub(crate) fn route_config(&self, target: RoutingId) -> Option<ConfigType> {
        let [_, secondary, subordinate, _] = self.registers.get(bridge::PRIMARY_BUS).to_le_bytes();
        if !self.link_up() || !(secondary..=subordinate).contains(&target.bus()) {
            return None;
        }
        if target.bus() > secondary {
            return Some(ConfigType::Type1);
        }
        // The link has one device, number 0, unless the function number may use those bits too
        // (section 6.13).
        (target.device() == 0 || self.ari_forwarding()).then_some(ConfigType::Type0)
    }

    /// Returns whether a memory request at `address` goes downstream.
    pub(crate) fn routes_memory(&self, address: u64) -> bool {
        self.link_up()
            && self.registers.get(header::COMMAND) & in_low(header::COMMAND_MEMORY) != 0
            && (self.memory_window().contains(&address)
                || self.prefetchable_window().contains(&address))
    }

    /// Returns the memory window, which is empty if the base is above the limit.
    fn memory_window(&self) -> RangeInclusive<u64> {
        self.window(bridge::MEMORY_BASE, 0, 0)
    }

    /// Returns the prefetchable memory window, which is empty if the base is above the limit.
    fn prefetchable_window(&self) -> RangeInclusive<u64> {
        let base_upper = self.registers.get(bridge::PREFETCHABLE_BASE_UPPER);
        let limit_upper = self.registers.get(bridge::PREFETCHABLE_LIMIT_UPPER);
        self.window(bridge::PREFETCHABLE_BASE, base_upper, limit_upper)
    }

    /// Returns the window whose base register is at `base`, with the limit register after it.
    fn window(&self, base: u16, base_upper: u32, limit_upper: u32) -> RangeInclusive<u64> {
        let address = |register, upper| {
            let lower = register & bridge::WINDOW_ADDRESS;
            u64::from(upper) << 32 | u64::from(lower) << 16
        };
        let pair = self.registers.get(base);
        let limit = address(high(pair), limit_upper) | (bridge::WINDOW_UNIT - 1);
        address(low(pair), base_upper)..=limit
    }

    fn ari_forwarding(&self) -> bool {
        let control = self.registers.get(EXPRESS + express::DEVICE_CONTROL_2);
        control & in_low(port::ARI_FORWARDING_ENABLE) != 0
    }

    fn in_reset(&self) -> bool {
        self.registers.get(bridge::CONTROL) & in_high(bridge::CONTROL_RESET) != 0
    }

    fn power_state(&self) -> u16 {
        low(self.registers.get(POWER + power::PMCSR)) & power::PMCSR_STATE
    }

    /// Returns whether requests pass: the link is not in reset and the port is in D0. In D3hot a
    /// bridge answers for the far side with Unsupported Request (section 5.3.1.4.1).
    fn link_up(&self) -> bool {
        !self.in_reset() && self.power_state() == power::PMCSR_D0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port() -> RootPort {
        RootPort::new(true)
    }

    fn write(port: &mut RootPort, offset: u16, data: impl AsRef<[u8]>) {
        assert_eq!(port.write(offset, data.as_ref()), LinkEvent::Nothing);
    }

    fn read<const N: usize>(port: &RootPort, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        port.read(offset, &mut data);
        data
    }

    fn rid(text: &str) -> RoutingId {
        text.parse().unwrap()
    }

    #[test]
    fn bus_numbers_decide_the_type_of_a_configuration_request() {
        let mut port = port();
        assert_eq!(port.route_config(rid("01:00.0")), None);
        write(&mut port, bridge::PRIMARY_BUS, [0, 3, 5]);
        assert_eq!(port.route_config(rid("02:00.0")), None);
        assert_eq!(port.route_config(rid("03:00.0")), Some(ConfigType::Type0));
        assert_eq!(port.route_config(rid("03:00.7")), Some(ConfigType::Type0));
        assert_eq!(port.route_config(rid("04:1f.7")), Some(ConfigType::Type1));
        assert_eq!(port.route_config(rid("05:00.0")), Some(ConfigType::Type1));
        assert_eq!(port.route_config(rid("06:00.0")), None);
    }

    #[test]
    fn only_device_0_without_ari_forwarding() {
        let mut port = port();
        write(&mut port, bridge::PRIMARY_BUS, [0, 1, 1]);
        assert_eq!(port.route_config(rid("01:01.0")), None);
        write(&mut port, EXPRESS + express::DEVICE_CONTROL_2, [0x20, 0]);
        assert_eq!(port.route_config(rid("01:01.0")), Some(ConfigType::Type0));

        let mut port = RootPort::new(false);
        write(&mut port, bridge::PRIMARY_BUS, [0, 1, 1]);
        assert_eq!(read(&port, EXPRESS + express::DEVICE_CAPABILITIES_2), [0; 4]);
        write(&mut port, EXPRESS + express::DEVICE_CONTROL_2, [0xff; 2]);
        assert_eq!(read(&port, EXPRESS + express::DEVICE_CONTROL_2), [0; 2]);
        assert_eq!(port.route_config(rid("01:01.0")), None);
    }

    #[test]
    fn windows_decide_what_memory_goes_downstream() {
        let mut port = port();
        write(&mut port, bridge::MEMORY_BASE, [0x05, 0xe0, 0x1f, 0xe0]);
        // The base is above the limit: the window is closed.
        write(&mut port, bridge::PREFETCHABLE_BASE, [0xf0, 0xff, 0, 0]);
        assert!(!port.routes_memory(0xe000_0000), "Memory Space Enable is clear");
        write(&mut port, header::COMMAND, [0x02]);
        assert!(port.routes_memory(0xe000_0000));
        assert!(port.routes_memory(0xe01f_ffff));
        assert!(!port.routes_memory(0xdfff_ffff));
        assert!(!port.routes_memory(0xe020_0000));
        assert!(!port.routes_memory(0x1_e000_0000));

        write(&mut port, bridge::PREFETCHABLE_BASE, [0, 0, 0xf0, 0xff]);
        write(&mut port, bridge::PREFETCHABLE_BASE_UPPER, [0x80, 0, 0, 0, 0x80, 0, 0, 0]);
        assert_eq!(read(&port, bridge::PREFETCHABLE_BASE), [0x01, 0, 0xf1, 0xff]);
        assert!(port.routes_memory(0x80_0000_0000));
        assert!(port.routes_memory(0x80_ffff_ffff));
        assert!(!port.routes_memory(0x7f_ffff_ffff));
        assert!(!port.routes_memory(0x81_0000_0000));
    }

    #[test]
    fn nothing_passes_in_reset_or_in_d3hot() {
        let mut port = port();
        write(&mut port, bridge::PRIMARY_BUS, [0, 1, 1]);
        assert_eq!(port.write(bridge::CONTROL, &[0x40]), LinkEvent::HotReset);
        assert_eq!(port.route_config(rid("01:00.0")), None);
        assert_eq!(port.write(bridge::CONTROL, &[0x40]), LinkEvent::Nothing);
        write(&mut port, bridge::CONTROL, [0]);
        assert!(port.route_config(rid("01:00.0")).is_some());

        write(&mut port, POWER + power::PMCSR, [0x03]);
        assert_eq!(port.route_config(rid("01:00.0")), None);
        // D1 is a state the port does not have: it stays where it is.
        write(&mut port, POWER + power::PMCSR, [0x01]);
        assert_eq!(port.route_config(rid("01:00.0")), None);
        write(&mut port, POWER + power::PMCSR, [0x00]);
        assert!(port.route_config(rid("01:00.0")).is_some());
    }

    #[test]
    fn a_master_abort_is_noted_until_software_clears_it() {
        let mut port = port();
        port.master_abort();
        assert_eq!(read(&port, bridge::SECONDARY_STATUS), [0, 0x20]);
        write(&mut port, bridge::SECONDARY_STATUS, [0xff, 0x00]);
        assert_eq!(read(&port, bridge::SECONDARY_STATUS), [0, 0x20]);
        write(&mut port, bridge::SECONDARY_STATUS, [0, 0x20]);
        assert_eq!(read(&port, bridge::SECONDARY_STATUS), [0, 0]);
    }

    #[test]
    fn capability_list() {
        let port = port();
        assert_eq!(read(&port, header::CAPABILITIES), [EXPRESS as u8]);
        assert_eq!(read(&port, EXPRESS), [express::ID, POWER as u8]);
        assert_eq!(read(&port, POWER), [power::ID, 0]);
        assert_eq!(read(&port, 0x100), [0; 4], "no extended capabilities");
    }

    proptest! {
        /// Any write anywhere leaves what identifies the port, and an access is the sum of its
        /// bytes.
        #[test]
        fn any_access(
            writes in proptest::collection::vec(
                (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..9)), 0..40
            ),
            at: u16,
        ) {
            let (mut whole, mut bytewise) = (port(), port());
            for (offset, data) in writes {
                let _ = whole.write(offset, &data);
                for (at, byte) in (u32::from(offset)..).zip(&data) {
                    if let Ok(at) = u16::try_from(at)
                        // A power state is taken or left as a whole register, unlike other fields.
                        && at & !1 != POWER + power::PMCSR
                    {
                        let _ = bytewise.write(at, &[*byte]);
                    }
                }
                prop_assert_eq!(read(&whole, 0), port_identity());
                prop_assert_eq!(read(&whole, header::CLASS_REVISION + 2), [0x04, 0x06]);
            }
            let mut data = [0; 16];
            whole.read(at, &mut data);
            for (at, byte) in (u32::from(at)..).zip(data) {
                match u16::try_from(at) {
                    Ok(at) if at < 4096 => {
                        if at & !1 != POWER + power::PMCSR {
                            prop_assert_eq!(read(&bytewise, at), [byte], "{:#x}", at);
                        }
                    }
                    _ => prop_assert_eq!(byte, 0xff),
                }
            }
            let _ = (whole.routes_memory(u64::MAX), whole.route_config(rid("ff:1f.7")));
        }
    }

    fn port_identity() -> [u8; 4] {
        [0x36, 0x1b, 0x0c, 0x00]
    }
}
