//! This module routes configuration and memory requests to the root port and to the endpoint behind
//! it.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use manifold_pci::spec::PAGE_SIZE;
use manifold_pci::{CONFIG_SIZE, RoutingId};

use crate::endpoint::{ConfigType, Endpoint};
use crate::root_port::{LinkEvent, RootPort};
use crate::spec::UNCLAIMED;

/// Routing ID of the root port.
const ROOT_PORT: RoutingId = RoutingId::from_raw(1 << 3);

/// Size in bytes of a dword, within which a configuration request stays (PCIe Base 6.0, section
/// 2.2.7.1).
const DWORD: u64 = 4;

/// The memory addresses the host bridge forwards to bus 0, as firmware tells software (ACPI
/// `_CRS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRanges {
    /// Addresses below 4 GiB, for 32-bit and non-prefetchable BARs.
    pub below_4g: Range<u64>,
    /// Addresses above 4 GiB, for 64-bit prefetchable BARs.
    pub above_4g: Range<u64>,
}

impl MemoryRanges {
    fn contain(&self, address: u64) -> bool {
        self.below_4g.contains(&address) || self.above_4g.contains(&address)
    }
}

/// A root complex: bus 0, the root port on it at 00:01.0, and the endpoint behind.
///
/// Requests are routed by the registers of the root port as they are at that moment, and cut to
/// what one request on the link may be.
pub struct RootComplex {
    port: Mutex<RootPort>,
    ranges: MemoryRanges,
    endpoint: Arc<dyn Endpoint>,
}

impl RootComplex {
    /// Returns a root complex out of reset, without bus numbers and windows. If its root port does
    /// not support `ari_forwarding`, device numbers above 0 on the secondary bus are out of reach.
    pub fn new(endpoint: Arc<dyn Endpoint>, ari_forwarding: bool) -> Self {
        let ranges = MemoryRanges {
            below_4g: 0xc000_0000..0xf000_0000,
            above_4g: 0x80_0000_0000..0x100_0000_0000,
        };
        Self { port: Mutex::new(RootPort::new(ari_forwarding)), ranges, endpoint }
    }

    /// Returns the memory addresses that reach bus 0.
    pub fn memory_ranges(&self) -> MemoryRanges {
        self.ranges.clone()
    }

    /// Reads a configuration space at any offset and length; bytes that nobody answers read all
    /// ones.
    pub fn config_read(&self, target: RoutingId, offset: u16, data: &mut [u8]) {
        for (offset, piece) in pieces(offset.into(), data.len(), DWORD) {
            let Some(piece) = data.get_mut(piece) else { continue };
            let answered = match self.route_config(target, offset) {
                Some(ConfigRoute::Port(offset)) => {
                    self.port().read(offset, piece);
                    true
                }
                Some(ConfigRoute::Downstream(kind, offset)) => {
                    self.completed(self.endpoint.config_read(kind, target, offset, piece))
                }
                None => false,
            };
            if !answered {
                piece.fill(UNCLAIMED);
            }
        }
    }

    /// Writes a configuration space at any offset and length; bytes that nobody claims are dropped.
    pub fn config_write(&self, target: RoutingId, offset: u16, data: &[u8]) {
        for (offset, piece) in pieces(offset.into(), data.len(), DWORD) {
            let Some(piece) = data.get(piece) else { continue };
            match self.route_config(target, offset) {
                Some(ConfigRoute::Port(offset)) => {
                    let event = self.port().write(offset, piece);
                    if event == LinkEvent::HotReset {
                        self.endpoint.hot_reset();
                    }
                }
                Some(ConfigRoute::Downstream(kind, offset)) => {
                    self.completed(self.endpoint.config_write(kind, target, offset, piece));
                }
                None => (),
            }
        }
    }

    /// Reads memory at any address and length; bytes that nobody answers read all ones.
    pub fn mem_read(&self, address: u64, data: &mut [u8]) {
        // Nobody answers beyond the last address.
        data.fill(UNCLAIMED);
        for (address, piece) in pieces(address, data.len(), PAGE_SIZE) {
            let Some(piece) = data.get_mut(piece) else { continue };
            if self.routes_memory(address)
                && !self.completed(self.endpoint.mem_read(address, piece))
            {
                piece.fill(UNCLAIMED);
            }
        }
    }

    /// Writes memory at any address and length; bytes that nobody claims are dropped.
    pub fn mem_write(&self, address: u64, data: &[u8]) {
        for (address, piece) in pieces(address, data.len(), PAGE_SIZE) {
            let Some(piece) = data.get(piece) else { continue };
            if self.routes_memory(address) {
                // Nobody learns whether a posted request was claimed.
                let _ = self.endpoint.mem_write(address, piece);
            }
        }
    }

    fn route_config(&self, target: RoutingId, offset: u64) -> Option<ConfigRoute> {
        let offset =
            u16::try_from(offset).ok().filter(|offset| usize::from(*offset) < CONFIG_SIZE)?;
        if target == ROOT_PORT {
            Some(ConfigRoute::Port(offset))
        } else if target.bus() == ROOT_PORT.bus() {
            None
        } else {
            Some(ConfigRoute::Downstream(self.port().route_config(target)?, offset))
        }
    }

    /// Returns whether a memory request goes downstream. The windows end on MiB boundaries, so what
    /// holds for a piece's first byte holds for all of it.
    fn routes_memory(&self, address: u64) -> bool {
        self.ranges.contain(address) && self.port().routes_memory(address)
    }

    /// Notes how a non-posted request ended.
    fn completed(&self, claimed: bool) -> bool {
        if !claimed {
            self.port().master_abort();
        }
        claimed
    }

    /// Locks the port. Its registers are whole after every access, so a panic elsewhere does not
    /// matter.
    fn port(&self) -> MutexGuard<'_, RootPort> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RootComplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootComplex").field("ranges", &self.ranges).finish_non_exhaustive()
    }
}

/// The receiver of a configuration request on bus 0, and the register's offset.
enum ConfigRoute {
    Port(u16),
    Downstream(ConfigType, u16),
}

/// Cuts `len` bytes at `start` at the multiples of `unit`. Yields the address of each piece, and
/// its place among the bytes. It ends at the end of the address space.
fn pieces(start: u64, len: usize, unit: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let address = start.checked_add(done as u64)?;
        let to_boundary = unit - address % unit;
        let piece = (len - done).min(usize::try_from(to_boundary).unwrap_or(usize::MAX));
        let from = done;
        done += piece;
        (piece > 0).then_some((address, from..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_access_and_cross_no_boundary(start: u64, len in 0..20_000_usize) {
            let (low, end) = (start & 0xffff, u64::MAX - start % 9000);
            for (start, unit) in
                [(start, DWORD), (start, PAGE_SIZE), (end, PAGE_SIZE), (low, DWORD)]
            {
                let mut next = 0;
                for (address, piece) in pieces(start, len, unit) {
                    prop_assert_eq!(piece.start, next);
                    prop_assert!(!piece.is_empty());
                    prop_assert_eq!(address, start + next as u64);
                    let last = address.checked_add(piece.len() as u64 - 1).unwrap();
                    prop_assert_eq!(address / unit, last / unit);
                    next = piece.end;
                }
                prop_assert!(next == len || start.checked_add(next as u64).is_none());
            }
        }
    }
}
