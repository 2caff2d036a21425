//! This step of the demo shows who reaches whom: pings between machines.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, bail};
use manifold_guest::protocol::{Command, Event};

use super::plan::{self, Pair};
use super::report::{Ping, median};
use super::stage::{PATIENCE, Stage};

/// Number of echo requests of each pair, one after the other.
const ROUNDS: u32 = 3;

/// Milliseconds that a machine waits for an answer.
const TIMEOUT: u64 = 5000;

/// Results of the pings of each pair.
pub(super) type Tallies = BTreeMap<Pair, Tally>;

/// Results of the pings of one pair.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u32,
    pub(super) received: u32,
    /// Round-trip times in microseconds.
    rtts: Vec<f64>,
}

impl Tally {
    /// Returns whether there was a request and every one was answered.
    pub(super) fn is_complete(&self) -> bool {
        self.sent > 0 && self.received >= self.sent
    }
}

impl Stage<'_> {
    /// Performs step 4: everybody pings.
    pub(super) fn ping(&mut self) -> anyhow::Result<()> {
        let pairs = plan::pings(self.vms);
        if pairs.is_empty() {
            return self.narrator.step("Ping: a single machine has nobody to reach.");
        }
        self.narrator.step(&format!(
            "Ping: {} pairs of machines, {ROUNDS} echo requests each.",
            pairs.len()
        ))?;
        let tallies = self.ping_pairs(&pairs, ROUNDS)?;
        let sent: u32 = tallies.values().map(|tally| tally.sent).sum();
        let received: u32 = tallies.values().map(|tally| tally.received).sum();
        let report = |(Pair { from, to }, tally): (Pair, Tally)| {
            let Tally { sent, received, rtts } = tally;
            Ping { from, to, sent, received, rtt_us: median(rtts.into_iter()) }
        };
        self.report.pings = tallies.into_iter().map(report).collect();
        self.narrator.done(&format!("{received} of {sent} answered"))
    }

    /// Lets machines ping each other, all at once, `rounds` times.
    pub(super) fn ping_pairs(&mut self, pairs: &[Pair], rounds: u32) -> anyhow::Result<Tallies> {
        let mut tallies = Tallies::new();
        for round in 1..=rounds {
            self.begin_pings(pairs)?;
            let deadline = Instant::now() + PATIENCE;
            let mut done = 0;
            while done < pairs.len() {
                let (from, event) = self.machines.next(deadline, "answers to pings")?;
                done += usize::from(self.note_ping(from, event, &mut tallies)?.is_some());
                let all = pairs.len();
                self.narrator
                    .progress(|| format!("round {round} of {rounds}, {done} of {all} pairs"))?;
            }
        }
        Ok(tallies)
    }

    /// Tells machines to ping each other once.
    pub(super) fn begin_pings(&mut self, pairs: &[Pair]) -> anyhow::Result<()> {
        for vm in 0..self.vms {
            let mine = pairs.iter().filter(|pair| pair.from == vm);
            let targets: Vec<_> = mine.map(|pair| plan::address(pair.to)).collect();
            if !targets.is_empty() {
                let ping = Command::Ping {
                    targets,
                    count: 1,
                    interval_ms: 0,
                    timeout_ms: TIMEOUT,
                    payload: 56,
                };
                self.machines.tell(vm, &ping)?;
            }
        }
        Ok(())
    }

    /// Notes what machine `from` found out about another, if it is about a ping; then says which
    /// pair it was.
    pub(super) fn note_ping(
        &self,
        from: u16,
        event: Event,
        tallies: &mut Tallies,
    ) -> anyhow::Result<Option<Pair>> {
        match event {
            Event::Pinged { to, sent, received, rtt_us } => {
                let to = plan::machine_at(to, self.vms)
                    .with_context(|| format!("VM {from} pinged {to}, which is nobody"))?;
                let pair = Pair { from, to };
                let tally = tallies.entry(pair).or_default();
                // A request that found no MAC address to send to has not been answered either.
                tally.sent += sent.max(1);
                tally.received += received;
                tally.rtts.extend(rtt_us.map(|rtt| rtt.median));
                Ok(Some(pair))
            }
            Event::Failed { message, .. } => bail!("VM {from} failed: {message}"),
            _ => Ok(None),
        }
    }
}
