//! This module has routing IDs, the 16-bit names that functions have on the fabric.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The identity of a requester or completer (PCIe Base 6.0, section 2.2.4.2).
///
/// Bits 15:8 are the bus number. The lower eight bits are a device number (7:3) and a function
/// number (2:0), or, for a function of an ARI device, one function number of eight bits; the two
/// readings name the same function. It is displayed and parsed as `bus:device.function` in
/// hexadecimal, as `lspci` writes it.
///
/// ```
/// use manifold_pci::RoutingId;
/// let pf: RoutingId = "01:00.0".parse()?;
/// assert_eq!(pf.checked_add(1).map(|vf| vf.to_string()).as_deref(), Some("01:00.1"));
/// # Ok::<(), manifold_pci::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingId(u16);

impl RoutingId {
    /// Returns the routing ID of a bus, a device (0 to 31) and a function (0 to 7); `None` if a
    /// number is out of range.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self::from_raw(u16::from_be_bytes([bus, device << 3 | function])))
    }

    /// Returns the routing ID as it travels in a TLP: bus in bits 15:8, device and function in 7:0.
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// Returns the 16 bits as they travel in a TLP.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Returns the bus number.
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Returns the device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.ari_function() >> 3
    }

    /// Returns the function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.ari_function() & 7
    }

    /// Returns the function number as an ARI device counts, 0 to 255 (PCIe Base 6.0, section 6.13).
    pub const fn ari_function(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// Returns the routing ID `offset` places further, carrying into the bus number as First VF
    /// Offset and VF Stride do; `None` beyond bus 255.
    pub const fn checked_add(self, offset: u16) -> Option<Self> {
        match self.0.checked_add(offset) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Display for RoutingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for RoutingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoutingId({self})")
    }
}

impl FromStr for RoutingId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::InvalidRoutingId(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<RoutingId> {
    let (bus, rest) = text.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    RoutingId::new(hex(bus)?, hex(device)?, hex(function)?)
}

/// Parses hexadecimal digits. `from_str_radix` alone would take a sign.
fn hex(digits: &str) -> Option<u8> {
    if digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_follow_the_specification() {
        let rid = RoutingId::new(0x02, 0x1f, 7).unwrap();
        assert_eq!(rid.raw(), 0x02ff);
        assert_eq!((rid.bus(), rid.device(), rid.function()), (2, 31, 7));
        assert_eq!(rid.ari_function(), 255);
        assert_eq!(RoutingId::new(0, 32, 0), None);
        assert_eq!(RoutingId::new(0, 0, 8), None);
    }

    #[test]
    fn adding_carries_into_the_bus_number() {
        let pf = RoutingId::new(1, 0, 0).unwrap();
        assert_eq!(pf.checked_add(255).unwrap().to_string(), "01:1f.7");
        assert_eq!(pf.checked_add(256).unwrap().to_string(), "02:00.0");
        assert_eq!(RoutingId::from_raw(0xffff).checked_add(1), None);
    }

    #[test]
    fn nonsense_is_not_a_routing_id() {
        for text in ["", "01", "01:00", "01:20.0", "01:00.8", "+1:00.0", "001:00.0.0", "1ff:0.0"] {
            assert_eq!(text.parse::<RoutingId>(), Err(Error::InvalidRoutingId(text.into())));
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(raw: u16) {
            let rid = RoutingId::from_raw(raw);
            prop_assert_eq!(rid.to_string().parse::<RoutingId>(), Ok(rid));
        }
    }
}
