//! The control queue, misused.

use crate::attack::{Answer, Attack, Target};
use manifold_guest::Result;
use manifold_guest::virtio::spec::ring::{F_NEXT, F_WRITE};
use manifold_guest::virtio::{Queue, status};
use rand::{Rng, RngExt};

/// Where commands are written.
pub(crate) const COMMAND: usize = 4096;
/// Where the answer goes.
pub(crate) const ANSWER: usize = 8192;

pub(crate) fn kick(target: &mut Target, heads: &[u16]) -> Result<Answer> {
    for head in heads {
        target.control.force_offer(*head)?;
    }
    target.control.publish()?;
    target.device.kick(target.control_index)?;
    for _ in 0..60 {
        if target.device.status()? & status::DEVICE_NEEDS_RESET != 0 {
            return Ok(Answer::NeedsReset);
        }
        let at = target.control.layout().used + 2;
        let used = target.arena.load_u16(at, std::sync::atomic::Ordering::Acquire)?;
        if used != 0 {
            return Ok(Answer::Used(used));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(Answer::Silence)
}

pub(crate) fn chain(queue: &mut Queue, descriptors: &[(u64, u32, u16)]) -> Result<()> {
    for (i, (iova, len, flags)) in (0..).zip(descriptors) {
        queue.set_descriptor(i, *iova, *len, *flags, i + 1)?;
    }
    Ok(())
}

pub(crate) fn control_garbage(attack: &mut Attack) -> Result<()> {
    type Shape = (&'static str, fn(&Target) -> Vec<(u64, u32, u16)>);
    let shapes: &[Shape] = &[
        ("no answer buffer", |r| vec![(r.at(COMMAND), 3, 0)]),
        ("only an answer buffer", |r| vec![(r.at(ANSWER), 1, F_WRITE)]),
        ("an answer buffer of 0 bytes", |r| {
            vec![(r.at(COMMAND), 3, F_NEXT), (r.at(ANSWER), 0, F_WRITE)]
        }),
        ("half a header", |r| vec![(r.at(COMMAND), 1, F_NEXT), (r.at(ANSWER), 1, F_WRITE)]),
        ("an empty command", |r| vec![(r.at(COMMAND), 0, F_NEXT), (r.at(ANSWER), 1, F_WRITE)]),
        ("a header in two parts", |r| {
            vec![
                (r.at(COMMAND), 1, F_NEXT),
                (r.at(COMMAND + 1), 1, F_NEXT),
                (r.at(COMMAND + 2), 1, F_NEXT),
                (r.at(ANSWER), 1, F_WRITE),
            ]
        }),
        ("the answer first", |r| vec![(r.at(ANSWER), 1, F_WRITE | F_NEXT), (r.at(COMMAND), 3, 0)]),
        ("data of 256 KiB", |r| {
            vec![(r.at(COMMAND), 256 << 10, F_NEXT), (r.at(ANSWER), 1, F_WRITE)]
        }),
        ("data of 4 GiB", |r| vec![(r.at(COMMAND), u32::MAX, F_NEXT), (r.at(ANSWER), 1, F_WRITE)]),
        ("a command nowhere", |r| vec![(0xdead_0000, 3, F_NEXT), (r.at(ANSWER), 1, F_WRITE)]),
        ("an answer nowhere", |r| vec![(r.at(COMMAND), 3, F_NEXT), (0xdead_0000, 1, F_WRITE)]),
    ];
    for (what, shape) in shapes {
        attack.attempt(what, |_, target| {
            let shape = shape(target);
            chain(&mut target.control, &shape)?;
            kick(target, &[0])
        })?;
    }
    attack.attempt("MAC tables that claim 2^32 entries", |_, target| {
        target
            .arena
            .write(target.data.offset + COMMAND, &[1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])?;
        let shape = [(target.at(COMMAND), 2048, F_NEXT), (target.at(ANSWER), 1, F_WRITE)];
        chain(&mut target.control, &shape)?;
        kick(target, &[0])
    })?;
    attack.attempt("1000 random commands", |attack, target| {
        let mut answer = Answer::Silence;
        for _ in 0..1000 {
            let mut bytes = vec![0; attack.rng.random_range(2..600)];
            attack.rng.fill_bytes(&mut bytes);
            bytes[0] %= 9;
            bytes[1] %= 4;
            target.arena.write(target.data.offset + COMMAND, &bytes)?;
            let len = bytes.len() as u32;
            let shape = [
                (target.at(COMMAND), 2, F_NEXT),
                (target.at(COMMAND + 2), len - 2, F_NEXT),
                (target.at(ANSWER), 1, F_WRITE),
            ];
            chain(&mut target.control, &shape)?;
            answer = kick(target, &[0])?;
            if answer == Answer::NeedsReset {
                break;
            }
        }
        Ok(answer)
    })?;
    attack.attempt("a loop on the control queue", |_, target| {
        target.control.set_descriptor(0, target.at(COMMAND), 3, F_NEXT, 0)?;
        kick(target, &[0])
    })
}
