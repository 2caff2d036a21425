//! What can be written into descriptors and rings.

use super::lab::{Answer, DATA, Lab, QUEUE_SIZE, Rig};
use crate::Result;
use crate::virtio::queue::write_descriptor;
use crate::virtio::spec::ring::{F_INDIRECT, F_NEXT, F_WRITE};
use rand::{Rng, RngExt};

/// Writes an indirect table into the data at `offset`.
fn table(rig: &Rig, offset: usize, entries: &[(u64, u32, u16, u16)]) -> Result<()> {
    for (i, (iova, len, flags, next)) in (0..).zip(entries) {
        write_descriptor(&rig.arena, rig.data.offset + offset, i, *iova, *len, *flags, *next)?;
    }
    Ok(())
}

/// Where tables go: behind the frame.
const TABLE: usize = 4096;

pub(super) fn descriptor_loop(lab: &mut Lab) -> Result<()> {
    lab.attempt("a descriptor that is its own next", |_, rig| {
        rig.tx_chain(&[(rig.at(0), 72, F_NEXT, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt("two descriptors in a circle", |_, rig| {
        rig.tx_chain(&[(rig.at(0), 12, F_NEXT, 1), (rig.at(12), 60, F_NEXT, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt("a circle of empty descriptors", |_, rig| {
        rig.tx_chain(&[(rig.at(0), 0, F_NEXT, 1), (rig.at(0), 0, F_NEXT, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn descriptor_loop_long(lab: &mut Lab) -> Result<()> {
    lab.attempt("a circle as long as the ring", |_, rig| {
        let chain: Vec<_> =
            (0..QUEUE_SIZE).map(|i| (rig.at(0), 64, F_NEXT, (i + 1) % QUEUE_SIZE)).collect();
        rig.tx_chain(&chain)?;
        rig.send(&[0])
    })
}

pub(super) fn descriptor_loop_rx(lab: &mut Lab) -> Result<()> {
    lab.attempt("an RX buffer that is its own next", |lab, rig| {
        rig.rx_chain(&[(rig.at(0), 2048, F_NEXT | F_WRITE, 0)])?;
        rig.receive(lab, &[0])
    })?;
    lab.attempt("RX buffers of one byte in a circle", |lab, rig| {
        let flags = F_NEXT | F_WRITE;
        rig.rx_chain(&[(rig.at(0), 1, flags, 1), (rig.at(1), 1, flags, 0)])?;
        rig.receive(lab, &[0])
    })
}

pub(super) fn next_out_of_range(lab: &mut Lab) -> Result<()> {
    for next in [QUEUE_SIZE, QUEUE_SIZE + 1, 0x7fff, 0xffff] {
        lab.attempt(&format!("next {next}"), |_, rig| {
            rig.tx_chain(&[(rig.at(0), 72, F_NEXT, next)])?;
            rig.send(&[0])
        })?;
    }
    Ok(())
}

pub(super) fn head_out_of_range(lab: &mut Lab) -> Result<()> {
    for head in [QUEUE_SIZE, 0x8000, 0xffff] {
        lab.attempt(&format!("TX head {head}"), |_, rig| rig.send(&[head]))?;
        lab.attempt(&format!("RX head {head}"), |lab, rig| rig.receive(lab, &[head]))?;
    }
    Ok(())
}

pub(super) fn head_twice(lab: &mut Lab) -> Result<()> {
    lab.attempt("one TX head in the whole ring", |_, rig| {
        rig.tx_chain(&[rig.good()])?;
        rig.send(&[0; QUEUE_SIZE as usize])
    })?;
    lab.attempt("one RX head in the whole ring", |lab, rig| {
        rig.rx_chain(&[(rig.at(0), 2048, F_WRITE, 0)])?;
        rig.receive(lab, &[0; QUEUE_SIZE as usize])
    })
}

pub(super) fn avail_jump(lab: &mut Lab) -> Result<()> {
    for by in [QUEUE_SIZE + 1, 0x7fff, 0x8000, 0xffff] {
        lab.attempt(&format!("TX available index {by}"), |_, rig| {
            rig.tx_chain(&[rig.good()])?;
            rig.tx.force_avail_idx(by)?;
            rig.device.kick(1)?;
            rig.observe(1)
        })?;
        lab.attempt(&format!("RX available index {by}"), |lab, rig| {
            rig.rx_chain(&[(rig.at(0), 2048, F_WRITE, 0)])?;
            rig.rx.force_avail_idx(by)?;
            rig.device.kick(0)?;
            lab.frames_in(4)?;
            rig.observe(0)
        })?;
    }
    Ok(())
}

pub(super) fn avail_backwards(lab: &mut Lab) -> Result<()> {
    lab.attempt("TX available index back by one", |_, rig| {
        rig.tx_chain(&[rig.good()])?;
        rig.send(&[0, 0])?;
        rig.tx.force_avail_idx(1)?;
        rig.device.kick(1)?;
        rig.observe_status()
    })?;
    lab.attempt("TX available index to and fro", |_, rig| {
        rig.tx_chain(&[rig.good()])?;
        rig.send(&[0])?;
        for index in (0..200).map(|i: u16| if i.is_multiple_of(2) { 1 } else { 5 }) {
            rig.tx.force_avail_idx(index)?;
            rig.device.kick(1)?;
        }
        rig.observe_status()
    })
}

pub(super) fn indirect_in_indirect(lab: &mut Lab) -> Result<()> {
    lab.attempt_indirect("an indirect table in an indirect table", |_, rig| {
        table(rig, TABLE, &[(rig.at(2 * TABLE), 16, F_INDIRECT, 0)])?;
        table(rig, 2 * TABLE, &[rig.good()])?;
        rig.tx_chain(&[(rig.at(TABLE), 16, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt_indirect("an indirect table that is its own table", |_, rig| {
        table(rig, TABLE, &[(rig.at(TABLE), 16, F_INDIRECT, 0)])?;
        rig.tx_chain(&[(rig.at(TABLE), 16, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn indirect_sizes(lab: &mut Lab) -> Result<()> {
    for len in [0, 8, 17, 0xffff_fff0] {
        lab.attempt_indirect(&format!("an indirect table of {len} bytes"), |_, rig| {
            table(rig, TABLE, &[rig.good()])?;
            rig.tx_chain(&[(rig.at(TABLE), len, F_INDIRECT, 0)])?;
            rig.send(&[0])
        })?;
    }
    lab.attempt_indirect("a chain of 4096 in an indirect table", |_, rig| {
        let entries: Vec<_> = (0..4096u16)
            .map(|i| (rig.at(0), 1, if i == 4095 { 0 } else { F_NEXT }, i + 1))
            .collect();
        table(rig, TABLE, &entries)?;
        rig.tx_chain(&[(rig.at(TABLE), 4096 * 16, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn indirect_loop(lab: &mut Lab) -> Result<()> {
    lab.attempt_indirect("a circle in an indirect table", |_, rig| {
        table(rig, TABLE, &[(rig.at(0), 12, F_NEXT, 1), (rig.at(12), 60, F_NEXT, 0)])?;
        rig.tx_chain(&[(rig.at(TABLE), 32, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt_indirect("a next outside the indirect table", |_, rig| {
        table(rig, TABLE, &[(rig.at(0), 12, F_NEXT, 2), (0, 0, 0, 0), rig.good()])?;
        rig.tx_chain(&[(rig.at(TABLE), 32, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })?;
    let rogue = lab.rogue_iova;
    lab.attempt_indirect("an indirect table nowhere", |_, rig| {
        rig.tx_chain(&[(rogue, 32, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn indirect_and_next(lab: &mut Lab) -> Result<()> {
    lab.attempt_indirect("INDIRECT and NEXT", |_, rig| {
        table(rig, TABLE, &[rig.good()])?;
        rig.tx_chain(&[(rig.at(TABLE), 16, F_INDIRECT | F_NEXT, 1), (rig.at(0), 60, 0, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt_indirect("INDIRECT in the middle of a chain", |_, rig| {
        table(rig, TABLE, &[(rig.at(12), 60, 0, 0)])?;
        rig.tx_chain(&[(rig.at(0), 12, F_NEXT, 1), (rig.at(TABLE), 16, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn indirect_unasked(lab: &mut Lab) -> Result<()> {
    lab.attempt("INDIRECT without the feature", |_, rig| {
        table(rig, TABLE, &[rig.good()])?;
        rig.tx_chain(&[(rig.at(TABLE), 16, F_INDIRECT, 0)])?;
        rig.send(&[0])
    })
}

pub(super) fn length_overflow(lab: &mut Lab) -> Result<()> {
    for (iova, len) in [(u64::MAX, 1), (u64::MAX, 2), (u64::MAX - 4095, 4097), (u64::MAX - 71, 72)]
    {
        lab.attempt(&format!("TX of {len} bytes at {iova:#x}"), |_, rig| {
            rig.tx_chain(&[(iova, len, 0, 0)])?;
            rig.send(&[0])
        })?;
        lab.attempt(&format!("RX of {len} bytes at {iova:#x}"), |lab, rig| {
            rig.rx_chain(&[(iova, len, F_WRITE, 0)])?;
            rig.receive(lab, &[0])
        })?;
    }
    Ok(())
}

pub(super) fn length_huge(lab: &mut Lab) -> Result<()> {
    lab.attempt("TX of 4 GiB from good memory", |_, rig| {
        rig.tx_chain(&[(rig.at(0), u32::MAX, 0, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt("a TX chain whose lengths add up to more than 2^32", |_, rig| {
        let chain: Vec<_> = (0..QUEUE_SIZE)
            .map(|i| (rig.at(0), u32::MAX, if i + 1 < QUEUE_SIZE { F_NEXT } else { 0 }, i + 1))
            .collect();
        rig.tx_chain(&chain)?;
        rig.send(&[0])
    })?;
    lab.attempt("RX buffers of 4 GiB in good memory", |lab, rig| {
        rig.rx_chain(&[
            (rig.at(0), u32::MAX, F_WRITE | F_NEXT, 1),
            (rig.at(0), u32::MAX, F_WRITE, 0),
        ])?;
        rig.receive(lab, &[0])
    })
}

pub(super) fn length_zero(lab: &mut Lab) -> Result<()> {
    lab.attempt("TX of nothing", |_, rig| {
        rig.tx_chain(&[(rig.at(0), 0, 0, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt("TX of nothing, often", |_, rig| {
        let chain: Vec<_> = (0..QUEUE_SIZE)
            .map(|i| (rig.at(0), 0, if i + 1 < QUEUE_SIZE { F_NEXT } else { 0 }, i + 1))
            .collect();
        rig.tx_chain(&chain)?;
        rig.send(&[0])
    })?;
    lab.attempt("a good frame with nothing between its parts", |_, rig| {
        rig.tx_chain(&[
            (rig.at(0), 12, F_NEXT, 1),
            (rig.at(0), 0, F_NEXT, 2),
            (rig.at(12), 60, F_NEXT, 3),
            (0, 0, 0, 0),
        ])?;
        rig.send(&[0])
    })?;
    lab.attempt("RX buffers of nothing", |lab, rig| {
        rig.rx_chain(&[(rig.at(0), 0, F_WRITE, 0), (rig.at(0), 0, F_WRITE, 0)])?;
        rig.receive(lab, &[0, 1])
    })
}

pub(super) fn header_short(lab: &mut Lab) -> Result<()> {
    for len in [1, 10, 11, 12] {
        lab.attempt(&format!("TX of {len} bytes, header included"), |_, rig| {
            rig.tx_chain(&[(rig.at(0), len, 0, 0)])?;
            rig.send(&[0])
        })?;
        lab.attempt(&format!("RX buffers of {len} bytes"), |lab, rig| {
            rig.rx_chain(&[(rig.at(0), len, F_WRITE, 0); 8])?;
            rig.receive(lab, &[0, 1, 2, 3, 4, 5, 6, 7])
        })?;
    }
    Ok(())
}

pub(super) fn frame_sizes(lab: &mut Lab) -> Result<()> {
    for len in [1, 13, 14, 59, 1514, 1519, 9014, 65535, 65550, 65551, 262_144] {
        lab.attempt(&format!("a frame of {len} bytes"), |_, rig| {
            rig.tx_chain(&[(rig.at(0), 12 + len, 0, 0)])?;
            rig.send(&[0])
        })?;
    }
    Ok(())
}

pub(super) fn wrong_direction(lab: &mut Lab) -> Result<()> {
    lab.attempt("TX from writable memory", |_, rig| {
        rig.tx_chain(&[(rig.at(0), 72, F_WRITE, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt("TX with a writable part", |_, rig| {
        rig.tx_chain(&[(rig.at(0), 72, F_NEXT, 1), (rig.at(TABLE), 64, F_WRITE, 0)])?;
        rig.send(&[0])
    })?;
    lab.attempt("TX writable before readable", |_, rig| {
        rig.tx_chain(&[(rig.at(TABLE), 64, F_WRITE | F_NEXT, 1), rig.good()])?;
        rig.send(&[0])
    })?;
    lab.attempt("RX into readable memory", |lab, rig| {
        rig.rx_chain(&[(rig.at(0), 2048, 0, 0)])?;
        rig.receive(lab, &[0])
    })?;
    lab.attempt("RX with a readable part", |lab, rig| {
        rig.rx_chain(&[(rig.at(TABLE), 12, F_NEXT, 1), (rig.at(TABLE), 2048, F_WRITE, 0)])?;
        rig.receive(lab, &[0])
    })
}

pub(super) fn header_garbage(lab: &mut Lab) -> Result<()> {
    lab.attempt("256 headers and frames of random bytes", |lab, rig| {
        let mut answer = Answer::Silence;
        for _ in 0..256 / usize::from(QUEUE_SIZE) {
            let mut bytes = vec![0; 16 << 10];
            lab.rng.fill_bytes(&mut bytes);
            rig.arena.write(rig.data.offset, &bytes)?;
            for i in 0..QUEUE_SIZE {
                let len = lab.rng.random_range(1..1600);
                let at = lab.rng.random_range(0..DATA - 2000);
                rig.tx.set_descriptor(i, rig.at(at), len, 0, 0)?;
                rig.tx.force_offer(i)?;
            }
            rig.tx.publish()?;
            rig.device.kick(1)?;
            answer = rig.observe(1)?;
            if answer == Answer::NeedsReset {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(answer)
    })?;
    for (field, header) in [
        ("NEEDS_CSUM without the feature", [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]),
        ("GSO TCPv4 without the feature", [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        ("a GSO type that does not exist", [0, 0x7f, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("all flags", [0xff; 12]),
    ] {
        lab.attempt(field, |_, rig| {
            rig.arena.write(rig.data.offset, &header)?;
            rig.send_good()
        })?;
    }
    Ok(())
}
