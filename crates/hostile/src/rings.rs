//! These attacks write what is wrong into descriptors and rings.

use crate::attack::{Answer, Attack, DATA, QUEUE_SIZE, Target, descriptor};
use manifold_guest::Result;
use manifold_guest::virtio::spec::ring::{F_INDIRECT, F_NEXT, F_WRITE};
use rand::{Rng, RngExt};

/// Writes an indirect table into the data at `offset`.
fn table(target: &Target, offset: usize, entries: &[(u64, u32, u16, u16)]) -> Result<()> {
    (0..).zip(entries).try_for_each(|(i, entry)| {
        descriptor(entry).write(&target.arena, target.data.offset + offset, i)
    })
}

/// Offset of indirect tables in the data, behind the frame.
const TABLE: usize = 4096;

pub(crate) fn descriptor_loop(attack: &mut Attack) -> Result<()> {
    attack.attempt("a descriptor that is its own next", |_, target| {
        target.tx_chain(&[(target.at(0), 72, F_NEXT, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt("two descriptors in a circle", |_, target| {
        target.tx_chain(&[(target.at(0), 12, F_NEXT, 1), (target.at(12), 60, F_NEXT, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt("a circle of empty descriptors", |_, target| {
        target.tx_chain(&[(target.at(0), 0, F_NEXT, 1), (target.at(0), 0, F_NEXT, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn descriptor_loop_long(attack: &mut Attack) -> Result<()> {
    attack.attempt("a circle as long as the ring", |_, target| {
        let chain: Vec<_> =
            (0..QUEUE_SIZE).map(|i| (target.at(0), 64, F_NEXT, (i + 1) % QUEUE_SIZE)).collect();
        target.tx_chain(&chain)?;
        target.send(&[0])
    })
}

pub(crate) fn descriptor_loop_rx(attack: &mut Attack) -> Result<()> {
    attack.attempt("an RX buffer that is its own next", |attack, target| {
        target.rx_chain(&[(target.at(0), 2048, F_NEXT | F_WRITE, 0)])?;
        target.receive(attack, &[0])
    })?;
    attack.attempt("RX buffers of one byte in a circle", |attack, target| {
        let flags = F_NEXT | F_WRITE;
        target.rx_chain(&[(target.at(0), 1, flags, 1), (target.at(1), 1, flags, 0)])?;
        target.receive(attack, &[0])
    })
}

pub(crate) fn next_out_of_range(attack: &mut Attack) -> Result<()> {
    for next in [QUEUE_SIZE, QUEUE_SIZE + 1, 0x7fff, 0xffff] {
        attack.attempt(&format!("next {next}"), |_, target| {
            target.tx_chain(&[(target.at(0), 72, F_NEXT, next)])?;
            target.send(&[0])
        })?;
    }
    Ok(())
}

pub(crate) fn head_out_of_range(attack: &mut Attack) -> Result<()> {
    for head in [QUEUE_SIZE, 0x8000, 0xffff] {
        attack.attempt(&format!("TX head {head}"), |_, target| target.send(&[head]))?;
        attack.attempt(&format!("RX head {head}"), |attack, target| {
            target.receive(attack, &[head])
        })?;
    }
    Ok(())
}

pub(crate) fn head_twice(attack: &mut Attack) -> Result<()> {
    attack.attempt("one TX head in the whole ring", |_, target| {
        target.tx_chain(&[target.good()])?;
        target.send(&[0; QUEUE_SIZE as usize])
    })?;
    attack.attempt("one RX head in the whole ring", |attack, target| {
        target.rx_chain(&[(target.at(0), 2048, F_WRITE, 0)])?;
        target.receive(attack, &[0; QUEUE_SIZE as usize])
    })
}

pub(crate) fn avail_jump(attack: &mut Attack) -> Result<()> {
    for by in [QUEUE_SIZE + 1, 0x7fff, 0x8000, 0xffff] {
        attack.attempt(&format!("TX available index {by}"), |_, target| {
            target.tx_chain(&[target.good()])?;
            target.tx.force_avail_idx(by)?;
            target.device.kick(1)?;
            target.observe(1)
        })?;
        attack.attempt(&format!("RX available index {by}"), |attack, target| {
            target.rx_chain(&[(target.at(0), 2048, F_WRITE, 0)])?;
            target.rx.force_avail_idx(by)?;
            target.device.kick(0)?;
            attack.frames_in(4)?;
            target.observe(0)
        })?;
    }
    Ok(())
}

pub(crate) fn avail_backwards(attack: &mut Attack) -> Result<()> {
    attack.attempt("TX available index back by one", |_, target| {
        target.tx_chain(&[target.good()])?;
        target.send(&[0, 0])?;
        target.tx.force_avail_idx(1)?;
        target.device.kick(1)?;
        target.observe_status()
    })?;
    attack.attempt("TX available index to and fro", |_, target| {
        target.tx_chain(&[target.good()])?;
        target.send(&[0])?;
        for index in (0..200).map(|i: u16| if i.is_multiple_of(2) { 1 } else { 5 }) {
            target.tx.force_avail_idx(index)?;
            target.device.kick(1)?;
        }
        target.observe_status()
    })
}

pub(crate) fn indirect_in_indirect(attack: &mut Attack) -> Result<()> {
    attack.attempt_indirect("an indirect table in an indirect table", |_, target| {
        table(target, TABLE, &[(target.at(2 * TABLE), 16, F_INDIRECT, 0)])?;
        table(target, 2 * TABLE, &[target.good()])?;
        target.tx_chain(&[(target.at(TABLE), 16, F_INDIRECT, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt_indirect("an indirect table that is its own table", |_, target| {
        table(target, TABLE, &[(target.at(TABLE), 16, F_INDIRECT, 0)])?;
        target.tx_chain(&[(target.at(TABLE), 16, F_INDIRECT, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn indirect_sizes(attack: &mut Attack) -> Result<()> {
    for len in [0, 8, 17, 0xffff_fff0] {
        attack.attempt_indirect(&format!("an indirect table of {len} bytes"), |_, target| {
            table(target, TABLE, &[target.good()])?;
            target.tx_chain(&[(target.at(TABLE), len, F_INDIRECT, 0)])?;
            target.send(&[0])
        })?;
    }
    attack.attempt_indirect("a chain of 4096 in an indirect table", |_, target| {
        let entries: Vec<_> = (0..4096u16)
            .map(|i| (target.at(0), 1, if i == 4095 { 0 } else { F_NEXT }, i + 1))
            .collect();
        table(target, TABLE, &entries)?;
        target.tx_chain(&[(target.at(TABLE), 4096 * 16, F_INDIRECT, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn indirect_loop(attack: &mut Attack) -> Result<()> {
    attack.attempt_indirect("a circle in an indirect table", |_, target| {
        table(target, TABLE, &[(target.at(0), 12, F_NEXT, 1), (target.at(12), 60, F_NEXT, 0)])?;
        target.tx_chain(&[(target.at(TABLE), 32, F_INDIRECT, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt_indirect("a next outside the indirect table", |_, target| {
        table(target, TABLE, &[(target.at(0), 12, F_NEXT, 2), (0, 0, 0, 0), target.good()])?;
        target.tx_chain(&[(target.at(TABLE), 32, F_INDIRECT, 0)])?;
        target.send(&[0])
    })?;
    let rogue = attack.rogue_iova;
    attack.attempt_indirect("an indirect table nowhere", |_, target| {
        target.tx_chain(&[(rogue, 32, F_INDIRECT, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn indirect_and_next(attack: &mut Attack) -> Result<()> {
    attack.attempt_indirect("INDIRECT and NEXT", |_, target| {
        table(target, TABLE, &[target.good()])?;
        target.tx_chain(&[
            (target.at(TABLE), 16, F_INDIRECT | F_NEXT, 1),
            (target.at(0), 60, 0, 0),
        ])?;
        target.send(&[0])
    })?;
    attack.attempt_indirect("INDIRECT in the middle of a chain", |_, target| {
        table(target, TABLE, &[(target.at(12), 60, 0, 0)])?;
        target.tx_chain(&[(target.at(0), 12, F_NEXT, 1), (target.at(TABLE), 16, F_INDIRECT, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn indirect_unasked(attack: &mut Attack) -> Result<()> {
    attack.attempt("INDIRECT without the feature", |_, target| {
        table(target, TABLE, &[target.good()])?;
        target.tx_chain(&[(target.at(TABLE), 16, F_INDIRECT, 0)])?;
        target.send(&[0])
    })
}

pub(crate) fn length_overflow(attack: &mut Attack) -> Result<()> {
    for (iova, len) in [(u64::MAX, 1), (u64::MAX, 2), (u64::MAX - 4095, 4097), (u64::MAX - 71, 72)]
    {
        attack.attempt(&format!("TX of {len} bytes at {iova:#x}"), |_, target| {
            target.tx_chain(&[(iova, len, 0, 0)])?;
            target.send(&[0])
        })?;
        attack.attempt(&format!("RX of {len} bytes at {iova:#x}"), |attack, target| {
            target.rx_chain(&[(iova, len, F_WRITE, 0)])?;
            target.receive(attack, &[0])
        })?;
    }
    Ok(())
}

pub(crate) fn length_huge(attack: &mut Attack) -> Result<()> {
    attack.attempt("TX of 4 GiB from good memory", |_, target| {
        target.tx_chain(&[(target.at(0), u32::MAX, 0, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt("a TX chain whose lengths add up to more than 2^32", |_, target| {
        let chain: Vec<_> = (0..QUEUE_SIZE)
            .map(|i| (target.at(0), u32::MAX, if i + 1 < QUEUE_SIZE { F_NEXT } else { 0 }, i + 1))
            .collect();
        target.tx_chain(&chain)?;
        target.send(&[0])
    })?;
    attack.attempt("RX buffers of 4 GiB in good memory", |attack, target| {
        target.rx_chain(&[
            (target.at(0), u32::MAX, F_WRITE | F_NEXT, 1),
            (target.at(0), u32::MAX, F_WRITE, 0),
        ])?;
        target.receive(attack, &[0])
    })
}

pub(crate) fn length_zero(attack: &mut Attack) -> Result<()> {
    attack.attempt("TX of nothing", |_, target| {
        target.tx_chain(&[(target.at(0), 0, 0, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt("TX of nothing, often", |_, target| {
        let chain: Vec<_> = (0..QUEUE_SIZE)
            .map(|i| (target.at(0), 0, if i + 1 < QUEUE_SIZE { F_NEXT } else { 0 }, i + 1))
            .collect();
        target.tx_chain(&chain)?;
        target.send(&[0])
    })?;
    attack.attempt("a good frame with nothing between its parts", |_, target| {
        target.tx_chain(&[
            (target.at(0), 12, F_NEXT, 1),
            (target.at(0), 0, F_NEXT, 2),
            (target.at(12), 60, F_NEXT, 3),
            (0, 0, 0, 0),
        ])?;
        target.send(&[0])
    })?;
    attack.attempt("RX buffers of nothing", |attack, target| {
        target.rx_chain(&[(target.at(0), 0, F_WRITE, 0), (target.at(0), 0, F_WRITE, 0)])?;
        target.receive(attack, &[0, 1])
    })
}

pub(crate) fn header_short(attack: &mut Attack) -> Result<()> {
    for len in [1, 10, 11, 12] {
        attack.attempt(&format!("TX of {len} bytes, header included"), |_, target| {
            target.tx_chain(&[(target.at(0), len, 0, 0)])?;
            target.send(&[0])
        })?;
        attack.attempt(&format!("RX buffers of {len} bytes"), |attack, target| {
            target.rx_chain(&[(target.at(0), len, F_WRITE, 0); 8])?;
            target.receive(attack, &[0, 1, 2, 3, 4, 5, 6, 7])
        })?;
    }
    Ok(())
}

pub(crate) fn frame_sizes(attack: &mut Attack) -> Result<()> {
    for len in [1, 13, 14, 59, 1514, 1519, 9014, 65535, 65550, 65551, 262_144] {
        attack.attempt(&format!("a frame of {len} bytes"), |_, target| {
            target.tx_chain(&[(target.at(0), 12 + len, 0, 0)])?;
            target.send(&[0])
        })?;
    }
    Ok(())
}

pub(crate) fn wrong_direction(attack: &mut Attack) -> Result<()> {
    attack.attempt("TX from writable memory", |_, target| {
        target.tx_chain(&[(target.at(0), 72, F_WRITE, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt("TX with a writable part", |_, target| {
        target.tx_chain(&[(target.at(0), 72, F_NEXT, 1), (target.at(TABLE), 64, F_WRITE, 0)])?;
        target.send(&[0])
    })?;
    attack.attempt("TX writable before readable", |_, target| {
        target.tx_chain(&[(target.at(TABLE), 64, F_WRITE | F_NEXT, 1), target.good()])?;
        target.send(&[0])
    })?;
    attack.attempt("RX into readable memory", |attack, target| {
        target.rx_chain(&[(target.at(0), 2048, 0, 0)])?;
        target.receive(attack, &[0])
    })?;
    attack.attempt("RX with a readable part", |attack, target| {
        target
            .rx_chain(&[(target.at(TABLE), 12, F_NEXT, 1), (target.at(TABLE), 2048, F_WRITE, 0)])?;
        target.receive(attack, &[0])
    })
}

pub(crate) fn header_garbage(attack: &mut Attack) -> Result<()> {
    attack.attempt("256 headers and frames of random bytes", |attack, target| {
        let mut answer = Answer::Silence;
        for _ in 0..256 / usize::from(QUEUE_SIZE) {
            let mut bytes = vec![0; 16 << 10];
            attack.rng.fill_bytes(&mut bytes);
            target.arena.write(target.data.offset, &bytes)?;
            for i in 0..QUEUE_SIZE {
                let len = attack.rng.random_range(1..1600);
                let at = attack.rng.random_range(0..DATA - 2000);
                target.tx.set_descriptor(i, descriptor(&(target.at(at), len, 0, 0)))?;
                target.tx.force_offer(i)?;
            }
            target.tx.publish()?;
            target.device.kick(1)?;
            answer = target.observe(1)?;
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
        attack.attempt(field, |_, target| {
            target.arena.write(target.data.offset, &header)?;
            target.send_good()
        })?;
    }
    Ok(())
}
