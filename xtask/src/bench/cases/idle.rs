//! An adapter with 256 attached guests that do nothing shall do nothing.

use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use manifold_generator::config::Protocol;
use manifold_guest::agent::process::GuestProcess;
use manifold_guest::protocol::{Config, Event};

use super::case::Case;
use crate::bench::bed::Bed;
use crate::bench::interrupt;
use crate::bench::peers::Switch;
use crate::bench::peers::manifold::Manifold;
use crate::bench::row::{Reach, Row};

const VFS: usize = 256;
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time before counting starts, in which work that attaching has started comes to rest.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn run(bed: &Bed) -> Result<Vec<Row>> {
    let time = Duration::from_secs(if bed.pace.quick { 10 } else { 60 });
    let ours = Manifold::start(bed, VFS, Protocol::VfioUser)?;
    let guests = attach(bed, &ours)?;
    interrupt::sleep(SETTLE)?;
    let before = ours.cpu_ticks()?;
    interrupt::sleep(time)?;
    let used = ours.cpu_ticks()?.saturating_sub(before);
    ensure!(guests.len() == VFS, "guests got lost");
    let case = format!("idle, 256 VFs attached: processor time in {} s", time.as_secs());
    let row = Row::new(Case::Idle.name(), case, "ticks", std::iter::once(used as f64).collect());
    Ok(vec![row.reach(Reach::OursAtMost(0.0))])
}

/// Attaches a guest process, with a driver and a network stack, to every VF.
fn attach(bed: &Bed, ours: &Manifold) -> Result<Vec<GuestProcess>> {
    let (sender, events) = mpsc::channel();
    let mut guests = Vec::new();
    for (tag, port) in ours.ports().iter().enumerate() {
        let mut command = Command::new(&bed.binary);
        let config = Config::new(port.socket.clone());
        command.args(["guest", "agent"]).arg(serde_json::to_string(&config)?);
        guests.push(GuestProcess::spawn(command, tag, sender.clone())?);
    }
    let end = Instant::now() + READY_TIMEOUT;
    let mut ready = 0;
    while ready < guests.len() {
        interrupt::check()?;
        let left = end.saturating_duration_since(Instant::now());
        let (tag, event) = events
            .recv_timeout(left)
            .with_context(|| format!("only {ready} of {} guests are up", guests.len()))?;
        match event {
            Some(Event::Ready { .. }) => ready += 1,
            Some(Event::Fatal { message }) => bail!("the guest on vf{tag}: {message}"),
            None => bail!("the guest on vf{tag} has ended"),
            Some(_) => {}
        }
    }
    Ok(guests)
}
