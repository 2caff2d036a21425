//! These attacks misuse the control queue.

use crate::attack::{Answer, Attack, Target};
use manifold_guest::Result;
use manifold_guest::virtio::Descriptor;
use manifold_guest::virtio::spec::ring::{F_NEXT, F_WRITE};
use rand::{Rng, RngExt};

/// Offset of commands in the data.
pub(crate) const COMMAND: usize = 4096;
/// Offset of answers in the data.
pub(crate) const ANSWER: usize = 8192;

impl Target {
    /// Writes control descriptors (address, bytes, flags), each linked to the one after it, from
    /// index 0 on.
    pub(crate) fn control_chain(&mut self, descriptors: &[(u64, u32, u16)]) -> Result<()> {
        (0..).zip(descriptors).try_for_each(|(i, &(iova, len, flags))| {
            self.control.set_descriptor(i, Descriptor { iova, len, flags, next: i + 1 })
        })
    }

    /// Makes the control chain that begins with descriptor 0 available and rings the bell.
    pub(crate) fn send_control(&mut self) -> Result<Answer> {
        self.control.force_offer(0)?;
        self.control.publish()?;
        self.device.kick(self.control_index)?;
        self.wait_for_used(self.control.layout())
    }
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
            target.control_chain(&shape)?;
            target.send_control()
        })?;
    }
    attack.attempt("MAC tables that claim 2^32 entries", |_, target| {
        target
            .arena
            .write(target.data.offset + COMMAND, &[1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])?;
        let shape = [(target.at(COMMAND), 2048, F_NEXT), (target.at(ANSWER), 1, F_WRITE)];
        target.control_chain(&shape)?;
        target.send_control()
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
            target.control_chain(&shape)?;
            answer = target.send_control()?;
            if answer == Answer::NeedsReset {
                break;
            }
        }
        Ok(answer)
    })?;
    attack.attempt("a loop on the control queue", |_, target| {
        let (iova, flags) = (target.at(COMMAND), F_NEXT);
        target.control.set_descriptor(0, Descriptor { iova, len: 3, flags, next: 0 })?;
        target.send_control()
    })
}
