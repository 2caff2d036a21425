//! This module reports what the demo found: a JSON object, and a table for people.

use std::fmt::Write as _;

use manifold_pci::RoutingId;
use serde::Serialize;

use crate::output::{Align, Table, rough_size};

/// The object that `--json` prints.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// True if everything was as it should be.
    pub(super) ok: bool,
    pub(super) pf: Pf,
    pub(super) vfs: Vec<Vf>,
    pub(super) pings: Vec<Ping>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) isolation: Isolation,
    /// Failures, for people.
    #[serde(skip)]
    pub(super) failures: Vec<String>,
}

/// The physical function.
#[derive(Debug, Default, Serialize)]
pub(super) struct Pf {
    pub(super) bdf: String,
}

/// A virtual function, and so a machine.
#[derive(Debug, Serialize)]
pub(super) struct Vf {
    pub(super) index: u16,
    pub(super) bdf: String,
    pub(super) mac: String,
}

/// Pings from one machine to another.
#[derive(Debug, Serialize)]
pub(super) struct Ping {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) sent: u32,
    pub(super) received: u32,
    /// The median round-trip time; none without an answer.
    pub(super) rtt_us: Option<f64>,
}

/// A transfer of random bytes from one machine to another.
#[derive(Debug, Serialize)]
pub(super) struct Transfer {
    pub(super) from: u16,
    pub(super) to: u16,
    /// Bytes that arrived.
    pub(super) bytes: u64,
    pub(super) gbit_per_s: f64,
    /// True if all bytes arrived and both ends computed the same checksum.
    pub(super) intact: bool,
}

/// Result of a machine reaching for another's memory.
#[derive(Debug, Default, Serialize)]
pub(super) struct Isolation {
    pub(super) fault_recorded: bool,
    pub(super) others_disturbed: bool,
}

/// Largest number of machines that are listed; more are summed up.
const LISTED: usize = 16;

impl Report {
    /// Records what fell short.
    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Decides whether everything was as it should be.
    pub(super) fn judge(&mut self) {
        // A demo that broke off did not come to the last step.
        let complete = self.failures.is_empty();
        let answered = |ping: &&Ping| ping.sent > 0 && ping.received >= ping.sent;
        let unanswered = self.pings.len() - self.pings.iter().filter(answered).count();
        if unanswered > 0 {
            self.fail(format!("{unanswered} pairs of machines lost pings"));
        }
        let broken = self.transfers.iter().filter(|transfer| !transfer.intact).count();
        if broken > 0 {
            self.fail(format!("{broken} transfers did not arrive intact"));
        }
        if complete && !self.isolation.fault_recorded {
            self.fail("no DMA fault was recorded for the attempt to reach foreign memory");
        }
        if self.isolation.others_disturbed {
            self.fail("other machines were disturbed by that attempt");
        }
        self.ok = self.failures.is_empty();
    }

    /// Returns the table and what it shows. `seconds` is how long the transfers took together.
    pub(super) fn text(&self, seconds: f64) -> String {
        let mut text = if self.vfs.is_empty() { String::new() } else { self.table() };
        let (sent, received) = self
            .pings
            .iter()
            .fold((0, 0), |(sent, received), ping| (sent + ping.sent, received + ping.received));
        let moved: u64 = self.transfers.iter().map(|transfer| transfer.bytes).sum();
        let intact = self.transfers.iter().filter(|transfer| transfer.intact).count();
        let mut lines = Vec::new();
        if let (Some(first), Some(last)) = (self.vfs.first(), self.vfs.last()) {
            lines.push(match self.vfs.len() {
                1 => {
                    format!("One network port, one virtual function for a machine: {}.", first.bdf)
                }
                n => format!(
                    "One network port became {n} separate PCIe functions, {} to {}.",
                    first.bdf, last.bdf
                ),
            });
        }
        if sent > 0 {
            lines.push(format!("{received} of {sent} pings between the machines were answered."));
        }
        if !self.transfers.is_empty() {
            lines.push(format!(
                "{} moved in {} TCP transfers at once, {intact} of them intact, {:.1} Gbit/s in \
                 all.",
                rough_size(moved),
                self.transfers.len(),
                gbit_per_s(moved, seconds)
            ));
        }
        if self.isolation.fault_recorded {
            lines.push(format!(
                "VM 0 reached for memory that is not its own: refused and recorded as a DMA fault, \
                 {}.",
                if self.isolation.others_disturbed {
                    "but others noticed"
                } else {
                    "and nobody else noticed"
                }
            ));
        }
        text.push('\n');
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
        if self.failures.is_empty() {
            text.push_str("OK: everything was as it should be.\n");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        text
    }

    /// Returns a row for each machine, or one for each quantity where there are many.
    fn table(&self) -> String {
        if self.vfs.len() > LISTED {
            return self.summary();
        }
        let mut table = Table::new(&[
            ("MACHINE", Align::Left),
            ("FUNCTION", Align::Left),
            ("MAC ADDRESS", Align::Left),
            ("PINGS ANSWERED", Align::Right),
            ("ROUND TRIP", Align::Right),
            ("SENT", Align::Right),
            ("RECEIVED", Align::Right),
            ("SPEED", Align::Right),
            ("DATA", Align::Left),
        ]);
        for vf in &self.vfs {
            let pings = || self.pings.iter().filter(|ping| ping.from == vf.index);
            let out = || self.transfers.iter().filter(|transfer| transfer.from == vf.index);
            let into = || self.transfers.iter().filter(|transfer| transfer.to == vf.index);
            let received: u32 = pings().map(|ping| ping.received).sum();
            let sent: u32 = pings().map(|ping| ping.sent).sum();
            let nothing = || "-".to_owned();
            let speed: f64 = into().map(|transfer| transfer.gbit_per_s).sum();
            let (speed, data) = match (into().count(), into().all(|transfer| transfer.intact)) {
                (0, _) => (nothing(), "-"),
                (_, intact) => {
                    (format!("{speed:.1} Gbit/s"), if intact { "intact" } else { "DAMAGED" })
                }
            };
            table.row([
                format!("VM {}", vf.index),
                format!("vf{} {}", vf.index, vf.bdf),
                vf.mac.clone(),
                format!("{received} of {sent}"),
                median(pings().filter_map(|ping| ping.rtt_us))
                    .map_or_else(nothing, |rtt| format!("{rtt:.0} µs")),
                rough_size(out().map(|transfer| transfer.bytes).sum()),
                rough_size(into().map(|transfer| transfer.bytes).sum()),
                speed,
                data.to_owned(),
            ]);
        }
        table.render(2)
    }

    fn summary(&self) -> String {
        let mut table = Table::new(&[
            ("OVER ALL MACHINES", Align::Left),
            ("LEAST", Align::Right),
            ("MEDIAN", Align::Right),
            ("MOST", Align::Right),
        ]);
        let mut row = |name: &str, mut values: Vec<f64>, unit: &str| {
            values.sort_by(f64::total_cmp);
            let show = |value: Option<f64>| {
                value.map_or("-".to_owned(), |value| format!("{value:.0} {unit}"))
            };
            let cells =
                [values.first().copied(), median(values.iter().copied()), values.last().copied()];
            let [least, middle, most] = cells.map(show);
            table.row([name.to_owned(), least, middle, most]);
        };
        let rtts = self.pings.iter().filter_map(|ping| ping.rtt_us).collect();
        let speeds = self.transfers.iter().map(|transfer| transfer.gbit_per_s * 1e3).collect();
        row("ping round trip", rtts, "µs");
        row("TCP speed of a pair", speeds, "Mbit/s");
        table.render(2)
    }
}

/// Returns the middle of `values`.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Returns the rate in billions of bits per second.
pub(super) fn gbit_per_s(bytes: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
    let bits = bytes as f64 * 8.0;
    if seconds > 0.0 { bits / seconds / 1e9 } else { 0.0 }
}

impl From<RoutingId> for Pf {
    fn from(bdf: RoutingId) -> Self {
        Self { bdf: bdf.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            pf: Pf { bdf: "01:00.0".into() },
            vfs: vec![Vf { index: 0, bdf: "01:00.1".into(), mac: "02:00:00:00:00:01".into() }],
            pings: vec![Ping { from: 0, to: 1, sent: 3, received: 3, rtt_us: Some(40.0) }],
            transfers: vec![Transfer { from: 0, to: 1, bytes: 1, gbit_per_s: 1.0, intact: true }],
            isolation: Isolation { fault_recorded: true, others_disturbed: false },
            ..Report::default()
        }
    }

    #[test]
    fn whatever_falls_short_is_not_ok() {
        let mut report = good();
        report.judge();
        assert!(report.ok, "{:?}", report.failures);
        let spoil: [fn(&mut Report); 5] = [
            |report| report.pings[0].received = 2,
            |report| report.transfers[0].intact = false,
            |report| report.isolation.fault_recorded = false,
            |report| report.isolation.others_disturbed = true,
            |report| report.fail("a machine died"),
        ];
        for spoil in spoil {
            let mut report = good();
            spoil(&mut report);
            report.judge();
            assert!(!report.ok);
            assert!(report.text(1.0).contains("FAILED"), "{}", report.text(1.0));
        }
    }

    #[test]
    fn the_object_has_the_promised_fields_and_no_others() {
        let mut report = good();
        report.judge();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "ok": true,
                "pf": {"bdf": "01:00.0"},
                "vfs": [{"index": 0, "bdf": "01:00.1", "mac": "02:00:00:00:00:01"}],
                "pings": [{"from": 0, "to": 1, "sent": 3, "received": 3, "rtt_us": 40.0}],
                "transfers": [
                    {"from": 0, "to": 1, "bytes": 1, "gbit_per_s": 1.0, "intact": true}
                ],
                "isolation": {"fault_recorded": true, "others_disturbed": false},
            })
        );
    }

    #[test]
    fn rates_and_medians() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert!((gbit_per_s(125_000_000, 1.0) - 1.0).abs() < 1e-9);
        assert!(gbit_per_s(1, 0.0).abs() < 1e-9);
    }
}
