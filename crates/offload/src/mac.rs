//! This module has the type of MAC addresses.

use std::fmt;
use std::str::FromStr;

use crate::spec::ethernet;

/// A 48-bit MAC address, octets in the order of transmission. Its text is six pairs of hexadecimal
/// digits joined by `:`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The broadcast address, FF:FF:FF:FF:FF:FF.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Returns the address's octets.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Returns whether this is the broadcast address.
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Returns whether the group bit is set (multicast, and broadcast too).
    pub const fn is_group(self) -> bool {
        self.0[0] & ethernet::GROUP_BIT != 0
    }

    /// Returns whether a station can own this address: it is neither a group address nor all zero.
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Returns the address as the number that a little-endian load gives: octet 0 lowest, top 16
    /// bits zero.
    pub const fn key(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl From<MacAddr> for [u8; 6] {
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error for a text that is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no MAC address: write six pairs of hexadecimal digits, as in 02:00:00:00:00:01"
)]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_what_is_no_address() {
        for text in [
            "",
            "02",
            "02:00:00:00:00:1",
            "02:00:00:00:00:001",
            "02-00-00-00-00-01",
            "02:00:00:00:00:01 ",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
            "zz:00:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds() {
        assert!(MacAddr::BROADCAST.is_group());
        assert!(!MacAddr([0; 6]).is_station());
        assert!(!MacAddr([1, 0, 0x5e, 0, 0, 1]).is_station());
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_station());
    }

    proptest! {
        #[test]
        fn text_round_trip(octets: [u8; 6]) {
            prop_assert_eq!(MacAddr(octets).to_string().parse::<MacAddr>(), Ok(MacAddr(octets)));
        }
    }
}
