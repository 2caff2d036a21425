//! What can be written into packed rings.

use super::lab::{Answer, Lab, PATIENCE, QUEUE_SIZE, Rig};
use crate::Result;
use crate::virtio::spec::packed::{DESC, EVENT_FLAGS, F_AVAIL, F_USED};
use crate::virtio::spec::ring::{F_INDIRECT, F_NEXT, F_WRITE};
use crate::virtio::{feature, status};
use rand::{Rng, RngExt};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PACKED: u64 = feature::RING_PACKED | feature::INDIRECT_DESC;

/// Address, bytes, buffer ID, flags.
type Entry = (u64, u32, u16, u16);

/// Writes TX ring entries from the first on, the first one last, rings the bell and waits for what comes of it.
fn send(rig: &mut Rig, entries: &[Entry]) -> Result<Answer> {
    let ring = rig.tx.layout().desc;
    for (index, (iova, len, id, flags)) in entries.iter().enumerate().rev() {
        let at = ring + DESC * index;
        rig.arena.store_u64(at, *iova)?;
        let word = u64::from(*len) | u64::from(*id) << 32 | u64::from(*flags) << 48;
        rig.arena.store_u64(at + 8, word)?;
    }
    rig.device.kick(1)?;
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if rig.device.status()? & status::DEVICE_NEEDS_RESET != 0 {
            return Ok(Answer::NeedsReset);
        }
        let flags = rig.arena.load_u16(ring + 14, Ordering::Acquire)?;
        if flags & (F_AVAIL | F_USED) == F_AVAIL | F_USED {
            return Ok(Answer::Used(1));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(Answer::Silence)
}

/// Tries entries, each made available.
fn attempt(lab: &mut Lab, what: &str, entries: impl FnOnce(&Rig) -> Vec<Entry>) -> Result<()> {
    lab.attempt_with(PACKED, what, |_, rig| {
        let mut entries = entries(rig);
        entries.iter_mut().for_each(|entry| entry.3 |= F_AVAIL);
        send(rig, &entries)
    })
}

pub(super) fn packed_chains(lab: &mut Lab) -> Result<()> {
    attempt(lab, "a frame as it should be", |r| vec![(r.at(0), 72, 0, 0)])?;
    attempt(lab, "a ring that is one chain without an end", |r| {
        (0..QUEUE_SIZE).map(|_| (r.at(0), 72, 0, F_NEXT)).collect()
    })?;
    attempt(lab, "a chain that was not continued", |r| vec![(r.at(0), 12, 0, F_NEXT)])?;
    attempt(lab, "a device-writable frame", |r| vec![(r.at(0), 72, 0, F_WRITE)])?;
    attempt(lab, "readable after writable", |r| {
        vec![(r.at(0), 72, 0, F_WRITE | F_NEXT), (r.at(0), 72, 0, 0)]
    })?;
    attempt(lab, "no bytes", |r| vec![(r.at(0), 0, 0, 0)])?;
    attempt(lab, "4 GiB", |r| vec![(r.at(0), u32::MAX, 0, 0)])?;
    attempt(lab, "an address that wraps", |_| vec![(u64::MAX - 8, 72, 0, 0)])?;
    attempt(lab, "memory that is not there", |_| vec![(0xdead_0000, 72, 0, 0)])
}

pub(super) fn packed_identities(lab: &mut Lab) -> Result<()> {
    for id in [QUEUE_SIZE, 0x7fff, 0xffff] {
        attempt(lab, &format!("buffer {id}"), |r| vec![(r.at(0), 72, id, 0)])?;
    }
    attempt(lab, "one buffer in the whole ring", |r| {
        (0..QUEUE_SIZE).map(|_| (r.at(0), 72, 7, 0)).collect()
    })?;
    attempt(lab, "a chain of many identities", |r| {
        vec![(r.at(0), 12, 1, F_NEXT), (r.at(12), 30, 2, F_NEXT), (r.at(42), 30, 3, 0)]
    })
}

pub(super) fn packed_indirect(lab: &mut Lab) -> Result<()> {
    for len in [0, 8, 15, 17, 16 * 1024 * 1024, 0xffff_fff0] {
        attempt(lab, &format!("a table of {len} bytes"), |r| {
            vec![(r.at(4096), len, 0, F_INDIRECT)]
        })?;
    }
    attempt(lab, "a table with a next", |r| {
        vec![(r.at(4096), 32, 0, F_INDIRECT | F_NEXT), (r.at(0), 72, 0, 0)]
    })?;
    lab.attempt_with(PACKED, "a table in a table", |_, rig| {
        let at = rig.data.offset + 4096;
        rig.arena.store_u64(at, rig.at(4096))?;
        rig.arena.store_u64(at + 8, 16 | u64::from(F_INDIRECT) << 48)?;
        send(rig, &[(rig.at(4096), 16, 0, F_INDIRECT | F_AVAIL)])
    })
}

pub(super) fn packed_wraps(lab: &mut Lab) -> Result<()> {
    // None of these is available; a device that serves them anyway must still live.
    for (what, flags) in [("both flags", F_AVAIL | F_USED), ("the other wrap", F_USED), ("none", 0)]
    {
        lab.attempt_with(PACKED, what, |_, rig| send(rig, &[(rig.at(0), 72, 0, flags)]))?;
    }
    lab.attempt_with(PACKED, "event suppression of every kind", |lab, rig| {
        let (driver, good) = (rig.tx.layout().avail, (rig.at(0), 72, 0, F_AVAIL));
        for flags in [2, 3, 0xffff] {
            rig.arena.store_u16(driver, lab.rng.random(), Ordering::Relaxed)?;
            rig.arena.store_u16(driver + EVENT_FLAGS, flags, Ordering::Relaxed)?;
        }
        send(rig, &[good])
    })?;
    lab.attempt_with(PACKED, "random bytes all over the ring", |lab, rig| {
        let mut bytes = vec![0; DESC * usize::from(QUEUE_SIZE)];
        let ring = rig.tx.layout().desc;
        let mut answer = Answer::Silence;
        for _ in 0..20 {
            lab.rng.fill_bytes(&mut bytes);
            rig.arena.write(ring, &bytes)?;
            rig.device.kick(1)?;
            answer = send(rig, &[(rig.at(0), 72, 0, F_AVAIL)])?;
            if answer == Answer::NeedsReset {
                break;
            }
        }
        Ok(answer)
    })
}
