//! These attacks write what is wrong into packed rings.

use crate::attack::{Answer, Attack, PATIENCE, QUEUE_SIZE, Target};
use manifold_guest::Result;
use manifold_guest::virtio::spec::packed::{DESC, EVENT_FLAGS, F_AVAIL, F_USED};
use manifold_guest::virtio::spec::ring::{F_INDIRECT, F_NEXT, F_WRITE};
use manifold_guest::virtio::{feature, status};
use rand::{Rng, RngExt};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PACKED: u64 = feature::RING_PACKED | feature::INDIRECT_DESC;

/// A packed descriptor, which is address, length in bytes, buffer ID and flags.
type Entry = (u64, u32, u16, u16);

/// Writes TX ring entries from the first on, the first one last, rings the bell and waits for what
/// comes of it.
fn send(target: &mut Target, entries: &[Entry]) -> Result<Answer> {
    let ring = target.tx.layout().desc;
    for (index, (iova, len, id, flags)) in entries.iter().enumerate().rev() {
        let at = ring + DESC * index;
        target.arena.store_u64(at, *iova)?;
        let word = u64::from(*len) | u64::from(*id) << 32 | u64::from(*flags) << 48;
        target.arena.store_u64(at + 8, word)?;
    }
    target.device.kick(1)?;
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if target.device.status()? & status::DEVICE_NEEDS_RESET != 0 {
            return Ok(Answer::NeedsReset);
        }
        let flags = target.arena.load_u16(ring + 14, Ordering::Acquire)?;
        if flags & (F_AVAIL | F_USED) == F_AVAIL | F_USED {
            return Ok(Answer::Used(1));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(Answer::Silence)
}

/// Tries ring entries on a fresh device, with the flags that make each of them available.
fn attempt(
    attack: &mut Attack,
    what: &str,
    entries: impl FnOnce(&Target) -> Vec<Entry>,
) -> Result<()> {
    attack.attempt_with(PACKED, what, |_, target| {
        let mut entries = entries(target);
        entries.iter_mut().for_each(|entry| entry.3 |= F_AVAIL);
        send(target, &entries)
    })
}

pub(crate) fn packed_chains(attack: &mut Attack) -> Result<()> {
    attempt(attack, "a frame as it should be", |r| vec![(r.at(0), 72, 0, 0)])?;
    attempt(attack, "a ring that is one chain without an end", |r| {
        (0..QUEUE_SIZE).map(|_| (r.at(0), 72, 0, F_NEXT)).collect()
    })?;
    attempt(attack, "a chain that was not continued", |r| vec![(r.at(0), 12, 0, F_NEXT)])?;
    attempt(attack, "a device-writable frame", |r| vec![(r.at(0), 72, 0, F_WRITE)])?;
    attempt(attack, "readable after writable", |r| {
        vec![(r.at(0), 72, 0, F_WRITE | F_NEXT), (r.at(0), 72, 0, 0)]
    })?;
    attempt(attack, "no bytes", |r| vec![(r.at(0), 0, 0, 0)])?;
    attempt(attack, "4 GiB", |r| vec![(r.at(0), u32::MAX, 0, 0)])?;
    attempt(attack, "an address that wraps", |_| vec![(u64::MAX - 8, 72, 0, 0)])?;
    attempt(attack, "memory that is not there", |_| vec![(0xdead_0000, 72, 0, 0)])
}

pub(crate) fn packed_identities(attack: &mut Attack) -> Result<()> {
    for id in [QUEUE_SIZE, 0x7fff, 0xffff] {
        attempt(attack, &format!("buffer {id}"), |r| vec![(r.at(0), 72, id, 0)])?;
    }
    attempt(attack, "one buffer in the whole ring", |r| {
        (0..QUEUE_SIZE).map(|_| (r.at(0), 72, 7, 0)).collect()
    })?;
    attempt(attack, "a chain of many identities", |r| {
        vec![(r.at(0), 12, 1, F_NEXT), (r.at(12), 30, 2, F_NEXT), (r.at(42), 30, 3, 0)]
    })
}

pub(crate) fn packed_indirect(attack: &mut Attack) -> Result<()> {
    for len in [0, 8, 15, 17, 16 * 1024 * 1024, 0xffff_fff0] {
        attempt(attack, &format!("a table of {len} bytes"), |r| {
            vec![(r.at(4096), len, 0, F_INDIRECT)]
        })?;
    }
    attempt(attack, "a table with a next", |r| {
        vec![(r.at(4096), 32, 0, F_INDIRECT | F_NEXT), (r.at(0), 72, 0, 0)]
    })?;
    attack.attempt_with(PACKED, "a table in a table", |_, target| {
        let at = target.data.offset + 4096;
        target.arena.store_u64(at, target.at(4096))?;
        target.arena.store_u64(at + 8, 16 | u64::from(F_INDIRECT) << 48)?;
        send(target, &[(target.at(4096), 16, 0, F_INDIRECT | F_AVAIL)])
    })
}

pub(crate) fn packed_wraps(attack: &mut Attack) -> Result<()> {
    // None of these descriptors is available; a device that serves them anyway must still live.
    for (what, flags) in [("both flags", F_AVAIL | F_USED), ("the other wrap", F_USED), ("none", 0)]
    {
        attack.attempt_with(PACKED, what, |_, target| {
            send(target, &[(target.at(0), 72, 0, flags)])
        })?;
    }
    attack.attempt_with(PACKED, "event suppression of every kind", |attack, target| {
        let (driver, good) = (target.tx.layout().avail, (target.at(0), 72, 0, F_AVAIL));
        for flags in [2, 3, 0xffff] {
            target.arena.store_u16(driver, attack.rng.random(), Ordering::Relaxed)?;
            target.arena.store_u16(driver + EVENT_FLAGS, flags, Ordering::Relaxed)?;
        }
        send(target, &[good])
    })?;
    attack.attempt_with(PACKED, "random bytes all over the ring", |attack, target| {
        let mut bytes = vec![0; DESC * usize::from(QUEUE_SIZE)];
        let ring = target.tx.layout().desc;
        let mut answer = Answer::Silence;
        for _ in 0..20 {
            attack.rng.fill_bytes(&mut bytes);
            target.arena.write(ring, &bytes)?;
            target.device.kick(1)?;
            answer = send(target, &[(target.at(0), 72, 0, F_AVAIL)])?;
            if answer == Answer::NeedsReset {
                break;
            }
        }
        Ok(answer)
    })
}
