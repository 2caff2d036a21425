//! This module plans who pings whom, who sends how much to whom, and under which addresses.

use std::net::Ipv4Addr;

/// Largest number of machines of which every one exchanges data with every other.
const ALL_SEND: u16 = 4;
/// Largest number of machines of which every one pings every other.
const ALL_PING: u16 = 16;
/// Number of machines that each machine pings if there are more.
const PING_TARGETS: u16 = 16;

/// Number of bytes that one pair moves where every machine exchanges data with every other.
const PER_PAIR: u64 = 64 << 20;
/// Number of bytes that the ring moves in all.
const RING_TOTAL: u64 = 1 << 30;

/// The first TCP port to listen on; the sender's index is added.
const FIRST_PORT: u16 = 5000;

/// A machine and its peer, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair {
    pub(super) from: u16,
    pub(super) to: u16,
}

/// A TCP transfer of random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) pair: Pair,
    pub(super) bytes: u64,
}

impl Transfer {
    /// Returns the receiver's port: one for each sender.
    pub(super) fn port(self) -> u16 {
        FIRST_PORT + self.pair.from
    }
}

/// Number of network bits of every machine's address.
pub(super) const PREFIX: u8 = 16;

/// Returns a machine's IPv4 address: 10.0.0.1 and up.
pub(super) fn address(vm: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + u32::from(vm))
}

/// Returns the machine that has `address`, of `vms`.
pub(super) fn machine_at(address: Ipv4Addr, vms: u16) -> Option<u16> {
    (0..vms).find(|&vm| self::address(vm) == address)
}

/// Returns where a machine's memory begins: 4 GiB further for each, so that none is at an address
/// where another's is, and reaching for somebody else's memory cannot hit one's own.
pub(super) fn iova(vm: u16) -> u64 {
    (u64::from(vm) + 1) << 32
}

/// Returns who pings whom: every machine every other, or beyond 16 machines 16 others spread
/// evenly.
pub(super) fn pings(vms: u16) -> Vec<Pair> {
    let others = vms.saturating_sub(1);
    let targets = if vms <= ALL_PING { others } else { PING_TARGETS };
    // The distances are from 1 to `others`, all different because there are at least as many as
    // targets.
    let distance =
        |n: u16| 1 + (u32::from(n) * u32::from(others) / u32::from(targets.max(1))) as u16;
    each(vms, targets, distance)
}

/// Returns who sends how much to whom: every machine 64 MiB to every other, or beyond 4 machines to
/// its neighbour on a ring, 1 GiB in all.
pub(super) fn transfers(vms: u16) -> Vec<Transfer> {
    let others = vms.saturating_sub(1);
    let (peers, bytes) =
        if vms <= ALL_SEND { (others, PER_PAIR) } else { (1, RING_TOTAL.div_ceil(u64::from(vms))) };
    let pairs = each(vms, peers, |n| n + 1);
    pairs.into_iter().map(|pair| Transfer { pair, bytes }).collect()
}

/// Returns, for each machine, `peers` pairs with the machine `distance(n)` further round.
fn each(vms: u16, peers: u16, distance: impl Fn(u16) -> u16) -> Vec<Pair> {
    let pair = |from, n| Pair { from, to: (from + distance(n)) % vms };
    (0..vms).flat_map(|from| (0..peers).map(move |n| (from, n))).map(|(f, n)| pair(f, n)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn nobody_is_their_own_peer_and_no_pair_comes_twice() {
        for vms in 1..=256 {
            let pings = pings(vms);
            let sends: Vec<Pair> = transfers(vms).iter().map(|transfer| transfer.pair).collect();
            for pairs in [&pings, &sends] {
                assert!(pairs.iter().all(|pair| pair.from != pair.to && pair.to < vms), "{vms}");
                assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), pairs.len(), "{vms}");
            }
        }
    }

    #[test]
    fn few_machines_all_meet() {
        assert!(pings(1).is_empty() && transfers(1).is_empty());
        for vms in 2..=16_u16 {
            assert_eq!(pings(vms).len(), usize::from(vms * (vms - 1)));
        }
        for vms in 2..=4_u16 {
            let transfers = transfers(vms);
            assert_eq!(transfers.len(), usize::from(vms * (vms - 1)));
            assert!(transfers.iter().all(|transfer| transfer.bytes == 64 << 20));
        }
    }

    #[test]
    fn many_machines_each_ping_sixteen_and_send_round_a_ring() {
        for vms in [17, 64, 255, 256] {
            let mut pinged = BTreeMap::<u16, usize>::new();
            for pair in pings(vms) {
                *pinged.entry(pair.from).or_default() += 1;
            }
            assert_eq!(pinged.len(), usize::from(vms));
            assert!(pinged.values().all(|&targets| targets == 16));
        }
        for vms in 5..=256_u16 {
            let transfers = transfers(vms);
            assert_eq!(transfers.len(), usize::from(vms));
            assert!(transfers.iter().all(|t| t.pair.to == (t.pair.from + 1) % vms));
            let total: u64 = transfers.iter().map(|transfer| transfer.bytes).sum();
            assert!((RING_TOTAL..RING_TOTAL + 256).contains(&total), "{vms}: {total}");
        }
    }

    #[test]
    fn addresses_are_told_apart() {
        for vm in 0..256 {
            assert_eq!(machine_at(address(vm), 256), Some(vm));
        }
        assert_eq!(machine_at(address(4), 4), None);
        assert_eq!(address(255), Ipv4Addr::new(10, 0, 1, 0));
        assert_eq!(iova(0), 1 << 32);
    }
}
