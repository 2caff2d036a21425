//! In the demo's last step a machine reaches for memory that is not its own.

use std::time::{Duration, Instant};

use manifold_api::types::{self, DriverState, Function};
use manifold_guest::protocol::{Command, Direction, Event};

use super::ping::{Tallies, Tally};
use super::plan::{self, Pair};
use super::stage::Stage;

/// Index of the machine that misbehaves.
const ROGUE: u16 = 0;
/// Index of the machine whose memory it aims at.
const VICTIM: u16 = 1;

/// Largest number of other machines that watch by exchanging pings all the while.
const WITNESSES: u16 = 16;
/// Echo requests that each witness sends at least; they go on until the attempts are over.
const WATCH_PINGS: u32 = 24;

/// Largest number of disturbed machines that are named.
const MOST_NAMED: usize = 8;

const PATIENCE: Duration = Duration::from_secs(30);

/// Lets VM 0 aim its VF's DMA at VM 1's memory, for reading and for writing, while others exchange
/// pings, and looks what came of it.
pub(super) fn check(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let target = plan::iova(VICTIM);
    let alone = stage.vms == 1;
    let whose = if alone { "it has no memory" } else { "VM 1 keeps its memory" };
    stage.narrator.step(&format!(
        "VM {ROGUE} turns rogue: it points its VF's DMA at {target:#x}, where {whose}."
    ))?;
    let before = stage.functions()?;
    // Without another machine nobody sends the frame that the rogue would have written there.
    let directions =
        if alone { &[Direction::Read][..] } else { &[Direction::Read, Direction::Write] };

    let mut watch = Watch::begin(stage)?;
    let mut recovered = true;
    for &direction in directions {
        recovered &= attempt(stage, target, direction, &mut watch)?;
    }
    let watched = watch.end(stage)?;
    let after = stage.functions()?;

    let mut machines = before.iter().zip(&after);
    if let Some((before, after)) = machines.next() {
        let recorded = |&direction| is_recorded(before, after, target, direction);
        stage.report.isolation.fault_recorded = directions.iter().all(recorded);
        for fault in &after.dma.recent_faults {
            stage.narrator.say(&format!("recorded on vf{ROGUE}: {}", describe(fault)))?;
        }
    }
    let mut harm: Vec<String> = machines.filter_map(|(b, a)| harm(b, a)).collect();
    harm.extend(watched.iter().filter(|(_, tally)| !tally.is_complete()).map(|(pair, tally)| {
        let (Pair { from, to }, received, sent) = (pair, tally.received, tally.sent);
        format!("DISTURBED: VM {from} had {received} of {sent} answers from VM {to}")
    }));
    stage.report.isolation.others_disturbed = !harm.is_empty();
    for harm in harm.iter().take(MOST_NAMED) {
        stage.narrator.say(harm)?;
    }
    tell_witnesses(stage, &watched)?;
    if !recovered {
        stage.report.fail("the rogue's device did not work again after a reset");
    }
    back_to_normal(stage)
}

/// Lets the rogue try once; whether its device worked again after a reset.
fn attempt(
    stage: &mut Stage<'_>,
    target: u64,
    direction: Direction,
    watch: &mut Watch,
) -> anyhow::Result<bool> {
    stage.machines.tell(ROGUE, &Command::RogueDma { iova: target, direction })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match stage.machines.next(deadline, "the rogue")? {
            (_, Event::RogueDma { recovered, .. }) => return Ok(recovered),
            (vm, event) => watch.note(stage, vm, event, true)?,
        }
    }
}

/// Other machines that exchange pings, again and again.
struct Watch {
    tallies: Tallies,
    /// Number of pairs that exchange pings.
    active: usize,
}

impl Watch {
    fn begin(stage: &mut Stage<'_>) -> anyhow::Result<Self> {
        let pairs = witnesses(stage.vms);
        stage.begin_pings(&pairs)?;
        Ok(Self { tallies: Tallies::new(), active: pairs.len() })
    }

    /// Takes in an answer, and lets the pair go on.
    fn note(
        &mut self,
        stage: &mut Stage<'_>,
        vm: u16,
        event: Event,
        go_on: bool,
    ) -> anyhow::Result<()> {
        let Some(pair) = stage.note_ping(vm, event, &mut self.tallies)? else { return Ok(()) };
        let sent = self.tallies.get(&pair).map_or(0, |tally| tally.sent);
        if go_on || sent < WATCH_PINGS {
            stage.begin_pings(&[pair])
        } else {
            self.active = self.active.saturating_sub(1);
            Ok(())
        }
    }

    /// Waits for the answers that are still to come.
    fn end(mut self, stage: &mut Stage<'_>) -> anyhow::Result<Tallies> {
        let deadline = Instant::now() + PATIENCE;
        while self.active > 0 {
            let (vm, event) = stage.machines.next(deadline, "the machines that watch")?;
            self.note(stage, vm, event, false)?;
        }
        Ok(self.tallies)
    }
}

/// Returns who pings whom meanwhile: a ring of machines, without the rogue.
fn witnesses(vms: u16) -> Vec<Pair> {
    let others: Vec<u16> = (0..vms).filter(|&vm| vm != ROGUE).take(WITNESSES.into()).collect();
    if others.len() < 2 {
        return Vec::new();
    }
    let next = others.iter().cycle().skip(1);
    others.iter().zip(next).map(|(&from, &to)| Pair { from, to }).collect()
}

/// Returns whether the rogue's domain has a new fault for the attempt.
fn is_recorded(before: &Function, after: &Function, target: u64, direction: Direction) -> bool {
    let direction = match direction {
        Direction::Read => types::Direction::Read,
        Direction::Write => types::Direction::Write,
    };
    // The latest faults are at the end; earlier ones are not of this attempt.
    let fresh = after.dma.faults.saturating_sub(before.dma.faults);
    let fresh = after.dma.recent_faults.iter().rev().take(usize::try_from(fresh).unwrap_or(0));
    fresh.into_iter().any(|fault| fault.iova == target && fault.direction == direction)
}

/// Returns what happened to a function that should have noticed nothing.
fn harm(before: &Function, after: &Function) -> Option<String> {
    let what = if after.dma.faults != before.dma.faults {
        "has a DMA fault of its own"
    } else if after.attached != before.attached {
        "lost its machine"
    } else if after.driver != before.driver || after.driver.state != DriverState::Running {
        "lost its driver"
    } else {
        return None;
    };
    Some(format!("DISTURBED: {} {what}", after.id))
}

fn describe(fault: &types::DmaFault) -> String {
    let direction = match fault.direction {
        types::Direction::Read => "read",
        types::Direction::Write => "write",
    };
    format!("{direction} of {} bytes at {:#x} refused: {}", fault.len, fault.iova, fault.reason)
}

fn tell_witnesses(stage: &mut Stage<'_>, watched: &Tallies) -> anyhow::Result<()> {
    let sent: u32 = watched.values().map(|tally| tally.sent).sum();
    let received: u32 = watched.values().map(|tally| tally.received).sum();
    if stage.report.isolation.others_disturbed {
        return Ok(());
    }
    let others = stage.vms - 1;
    stage.narrator.say(&match (others, sent) {
        (0, _) => "there was nobody else to disturb".to_owned(),
        (_, 0) => format!("{others} other machine undisturbed"),
        _ => format!(
            "{others} other machines undisturbed; meanwhile {received} of {sent} of their pings \
             were answered"
        ),
    })
}

/// Checks that the rogue, its device reset, is an ordinary machine again.
fn back_to_normal(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    if stage.vms == 1 {
        return stage.narrator.done("and its device works again after a reset");
    }
    let both = [Pair { from: ROGUE, to: VICTIM }, Pair { from: VICTIM, to: ROGUE }];
    let pings = stage.ping_pairs(&both, 1)?;
    if !pings.values().all(Tally::is_complete) {
        stage.report.fail("the rogue is not reachable after its device was reset");
    }
    stage.narrator.done("and the rogue, its device reset, is reachable again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rogue_is_no_witness() {
        assert!(witnesses(1).is_empty());
        assert!(witnesses(2).is_empty());
        assert_eq!(witnesses(4), [(1, 2), (2, 3), (3, 1)].map(|(from, to)| Pair { from, to }));
        let many = witnesses(256);
        assert_eq!(many.len(), 16);
        assert!(many.iter().all(|pair| pair.from != ROGUE && pair.to != ROGUE));
    }
}
