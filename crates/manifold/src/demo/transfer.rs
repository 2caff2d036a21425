//! This step of the demo moves bulk data: TCP transfers between machines.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use manifold_guest::protocol::{Command, Event, Incoming, Outgoing};

use super::plan::{self, Pair};
use super::report::{Transfer, gbit_per_s};
use super::stage::Stage;
use crate::output::rough_size;

/// Time without a moved byte after which transfers are given up.
const STALLED: Duration = Duration::from_secs(20);

impl Stage<'_> {
    /// Performs step 5: everybody transfers at once. Returns how long all of it took.
    pub(super) fn transfer(&mut self) -> anyhow::Result<Duration> {
        let mut transfers = Transfers::new(plan::transfers(self.vms), self.vms);
        let (count, total) = (transfers.plan.len(), transfers.total());
        if count == 0 {
            self.narrator.step("TCP: a single machine has nobody to send to.")?;
            return Ok(Duration::ZERO);
        }
        self.narrator.step(&format!(
            "TCP: {count} transfers of random bytes at once, {} in all; both ends compute a \
             checksum.",
            rough_size(total)
        ))?;
        let mut receivers = 0;
        for vm in 0..self.vms {
            let incoming = transfers.incoming(vm);
            if !incoming.is_empty() {
                receivers += 1;
                self.machines.tell(vm, &Command::Receive { transfers: incoming })?;
            }
        }
        self.gather(receivers, "the receivers", |event| matches!(event, Event::Listening { .. }))?;
        let begun = Instant::now();
        for vm in 0..self.vms {
            let outgoing = transfers.outgoing(vm);
            if !outgoing.is_empty() {
                self.machines.tell(vm, &Command::Send { transfers: outgoing })?;
            }
        }
        let result = self.await_transfers(&mut transfers);
        let took = begun.elapsed();
        // Transfers that succeeded are reported even where others failed.
        self.report.transfers = transfers.judge();
        result?;
        let rate = gbit_per_s(total, took.as_secs_f64());
        self.narrator.done(&format!("{} moved, {rate:.1} Gbit/s in all", rough_size(total)))?;
        Ok(took)
    }

    /// Waits until both ends of every transfer are done.
    fn await_transfers(&mut self, transfers: &mut Transfers) -> anyhow::Result<()> {
        let total = transfers.total();
        while !transfers.are_done() {
            let deadline = transfers.moved + STALLED;
            let (vm, event) = self.machines.next(deadline, "transfers that no longer move")?;
            transfers.note(vm, event)?;
            let done: u64 = transfers.received.iter().sum();
            self.narrator.progress(|| {
                let percent = (done * 100).checked_div(total).unwrap_or(100).min(100);
                format!("{percent:3} %  {}", rough_size(done))
            })?;
        }
        Ok(())
    }
}

/// Result at one end of a transfer.
struct End {
    bytes: u64,
    digest: String,
    seconds: f64,
}

/// Transfers under way. A transfer's number is its place in the plan.
struct Transfers {
    plan: Vec<plan::Transfer>,
    /// The sending and the receiving end of each transfer, once they are done.
    ends: Vec<(Option<End>, Option<End>)>,
    /// Bytes received by each machine so far.
    received: Vec<u64>,
    /// Time at which something last moved.
    moved: Instant,
}

impl Transfers {
    fn new(plan: Vec<plan::Transfer>, vms: u16) -> Self {
        let ends = plan.iter().map(|_| (None, None)).collect();
        Self { plan, ends, received: vec![0; vms.into()], moved: Instant::now() }
    }

    /// Returns the number of bytes of all transfers.
    fn total(&self) -> u64 {
        self.plan.iter().map(|transfer| transfer.bytes).sum()
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, plan::Transfer)> {
        (0..).zip(self.plan.iter().copied())
    }

    /// Returns what machine `vm` is to receive.
    fn incoming(&self, vm: u16) -> Vec<Incoming> {
        let mine = self.numbered().filter(|(_, transfer)| transfer.pair.to == vm);
        mine.map(|(id, transfer)| Incoming { id, port: transfer.port() }).collect()
    }

    /// Returns what machine `vm` is to send.
    fn outgoing(&self, vm: u16) -> Vec<Outgoing> {
        let mine = self.numbered().filter(|(_, transfer)| transfer.pair.from == vm);
        mine.map(|(id, transfer)| Outgoing {
            id,
            to: plan::address(transfer.pair.to),
            port: transfer.port(),
            bytes: transfer.bytes,
            // The bytes differ in every transfer and every demo.
            seed: u64::from(std::process::id()) << 32 | u64::from(id),
        })
        .collect()
    }

    fn are_done(&self) -> bool {
        self.ends.iter().all(|(sent, received)| sent.is_some() && received.is_some())
    }

    /// Takes in what machine `vm` reports.
    fn note(&mut self, vm: u16, event: Event) -> anyhow::Result<()> {
        let (id, sending, end) = match event {
            Event::Progress { received, .. } => {
                if let Some(known) = self.received.get_mut(usize::from(vm))
                    && *known < received
                {
                    *known = received;
                    self.moved = Instant::now();
                }
                return Ok(());
            }
            Event::Sent { id, bytes, digest, seconds } => {
                (id, true, End { bytes, digest, seconds })
            }
            Event::Received { id, bytes, digest, seconds } => {
                (id, false, End { bytes, digest, seconds })
            }
            Event::Failed { message, .. } => bail!("a transfer of VM {vm} failed: {message}"),
            _ => return Ok(()),
        };
        self.moved = Instant::now();
        let ends = self.ends.get_mut(id as usize);
        let (sent, received) = ends.with_context(|| format!("VM {vm} reports transfer {id}"))?;
        *(if sending { sent } else { received }) = Some(end);
        Ok(())
    }

    /// Returns what became of each.
    fn judge(&self) -> Vec<Transfer> {
        let judge = |(transfer, ends): (&plan::Transfer, &(Option<End>, Option<End>))| {
            let Pair { from, to } = transfer.pair;
            let (bytes, seconds) = ends.1.as_ref().map_or((0, 0.0), |end| (end.bytes, end.seconds));
            let intact = match ends {
                (Some(sent), Some(received)) => {
                    sent.bytes == transfer.bytes
                        && received.bytes == transfer.bytes
                        && sent.digest == received.digest
                }
                _ => false,
            };
            Transfer { from, to, bytes, gbit_per_s: gbit_per_s(bytes, seconds), intact }
        };
        self.plan.iter().zip(&self.ends).map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sent(id: u32, bytes: u64, digest: &str) -> Event {
        Event::Sent { id, bytes, digest: digest.into(), seconds: 1.0 }
    }

    fn received(id: u32, bytes: u64, digest: &str) -> Event {
        Event::Received { id, bytes, digest: digest.into(), seconds: 1.0 }
    }

    fn two() -> Transfers {
        Transfers::new(plan::transfers(2), 2)
    }

    #[test]
    fn a_transfer_is_intact_when_both_ends_agree_on_all_bytes() {
        const FULL: u64 = 64 << 20;
        for (events, intact) in [
            (vec![sent(0, FULL, "a"), received(0, FULL, "a")], true),
            (vec![sent(0, FULL, "a"), received(0, FULL, "b")], false),
            (vec![sent(0, FULL, "a"), received(0, FULL - 1, "a")], false),
            (vec![sent(0, FULL - 1, "a"), received(0, FULL - 1, "a")], false),
            (vec![sent(0, FULL, "a")], false),
            (vec![received(0, FULL, "a")], false),
            (vec![], false),
        ] {
            let mut transfers = two();
            for event in events {
                transfers.note(0, event).unwrap();
            }
            assert!(!transfers.are_done(), "the other one has not even begun");
            assert_eq!(transfers.judge()[0].intact, intact);
        }
    }

    #[test]
    fn what_machines_report_is_not_trusted_to_exist() {
        let mut transfers = two();
        assert!(transfers.note(0, sent(2, 1, "a")).is_err());
        transfers.note(7, Event::Progress { received: 5, sent: 0 }).unwrap();
        let failed = Event::Failed { id: Some(0), message: "reset".into() };
        assert!(transfers.note(0, failed).is_err());
    }

    #[test]
    fn every_transfer_has_one_sender_and_one_receiver_that_agree_on_the_port() {
        let transfers = Transfers::new(plan::transfers(4), 4);
        let mut ports = BTreeMap::new();
        for vm in 0..4 {
            for incoming in transfers.incoming(vm) {
                assert!(ports.insert(incoming.id, (plan::address(vm), incoming.port)).is_none());
            }
        }
        for vm in 0..4 {
            for outgoing in transfers.outgoing(vm) {
                assert_eq!(ports.remove(&outgoing.id), Some((outgoing.to, outgoing.port)));
            }
        }
        assert!(ports.is_empty());
    }
}
