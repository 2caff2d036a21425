//! This module writes the result as Markdown into its place in docs/benchmarks.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::report::Report;
use super::row::Row;
use super::stats::Samples;

const BEGIN: &str = "<!-- begin: written by `cargo xtask bench`, do not edit -->";
const END: &str = "<!-- end -->";

/// Replaces what is between the markers of `file` by the tables of `report`.
pub(crate) fn write_into(file: &Path, report: &Report) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = replace(&text, &tables(report))
        .with_context(|| format!("cannot write the table into {}", file.display()))?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn replace(text: &str, tables: &str) -> Result<String> {
    let (Some((before, rest)), 1) = (text.split_once(BEGIN), text.matches(BEGIN).count()) else {
        bail!("it must contain the line \"{BEGIN}\" once");
    };
    let Some((_, after)) = rest.split_once(END) else {
        bail!("the line \"{END}\" must follow \"{BEGIN}\"");
    };
    Ok(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

/// Returns where and when, the rows with a bound, the other rows, and what failed.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = heading(report);
    let bound: Vec<&Row> = report.rows.iter().filter(|row| row.reach.is_some()).collect();
    let rest: Vec<&Row> = report.rows.iter().filter(|row| row.reach.is_none()).collect();
    if !bound.is_empty() {
        text.push_str("\n| Case | Unit | Ours | Peer | Theirs | Ratio | Shall be | |\n");
        text.push_str("|---|---|---:|---|---:|---:|---|---|\n");
        for row in bound {
            let ok = match row.ok {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let reach = row.reach.as_deref().unwrap_or_default();
            let _ = writeln!(text, "{} {reach} | {ok} |", cells(row));
        }
    }
    if !rest.is_empty() {
        text.push_str("\n| Case | Unit | Ours | Peer | Theirs | Ratio |\n");
        text.push_str("|---|---|---:|---|---:|---:|\n");
        for row in rest {
            let _ = writeln!(text, "{}", cells(row));
        }
    }
    let mut notes: Vec<&str> = Vec::new();
    for note in report.rows.iter().filter_map(|row| row.note.as_deref()) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    for failure in &report.failed {
        let reason = failure.reason.lines().next().unwrap_or_default();
        let _ = writeln!(text, "\nNot measured: {}: {reason}", failure.group);
    }
    text
}

fn heading(report: &Report) -> String {
    let (machine, versions) = (&report.machine, &report.versions);
    let mut text = format!(
        "{}, {} run of {:.0} s. {}, {} cores (worker on {}, generator on {}), {} MiB, Linux {}, \
         TSC {:.0} MHz; before it: load average {:.2}, {:.0} ns from core to core and back, \
         {:.1} % of the worker's core lost to others. Manifold {}",
        report.started,
        report.mode,
        report.seconds,
        machine.cpu,
        machine.cores,
        machine.worker_core,
        machine.generator_core,
        machine.memory_mib,
        machine.kernel,
        machine.tsc_mhz,
        machine.load_average,
        machine.quiet.core_to_core_ns,
        machine.quiet.lost_percent,
        versions.manifold,
    );
    let others = [
        ("DPDK", &versions.dpdk),
        ("Open vSwitch", &versions.ovs),
        ("QEMU", &versions.qemu),
        ("guests' Linux", &versions.guest_kernel),
    ];
    for (name, version) in others {
        if let Some(version) = version {
            let _ = write!(text, ", {name} {version}");
        }
    }
    text.push_str(".\n");
    text
}

/// Returns the cells that both tables have, with the bar at the front and the back.
fn cells(row: &Row) -> String {
    let escape = |text: &str| text.replace('|', "\\|");
    let theirs = match (row.theirs, &row.their_samples) {
        (Some(median), Some(samples)) => with_spread(median, samples),
        _ => String::new(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        escape(&row.case),
        row.unit,
        with_spread(row.ours, &row.our_samples),
        escape(row.peer.as_deref().unwrap_or_default()),
        theirs,
        row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
    )
}

/// Returns a median, and how far its samples are apart where that is worth a word.
fn with_spread(median: f64, samples: &Samples) -> String {
    match (100.0 * samples.spread()).round() {
        percent if percent >= 1.0 => format!("{} ±{percent:.0} %", figure(median)),
        _ => figure(median),
    }
}

/// Returns a value with three digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Failure, tests::sample};
    use super::*;

    #[test]
    fn rows_with_and_without_a_bound_have_tables_of_their_own() {
        let text = tables(&sample());
        assert!(
            text.contains(
                "| 64 B \\| raw | Mframes/s | 19.0 ±5 % | testpmd io | 9.50 ±5 % | 2.00 | >= 1.5 | \
                 yes |"
            ),
            "{text}"
        );
        assert!(text.contains("| 128 B | Mframes/s | 17.5 |  |  |  |\n"), "{text}");
        assert!(text.contains("quick run of 2 s. A CPU, 2 cores (worker on 1, generator on 0)"));
        assert!(text.contains("DPDK 24.11.4.\n"), "what was not used is not named: {text}");
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let mut lines = table.lines().map(columns);
            let first = lines.next().unwrap();
            assert!(lines.all(|count| count == first), "{table}");
        }
    }

    #[test]
    fn failures_and_missed_bounds_are_seen_and_notes_said_once() {
        let mut report = sample();
        report.rows[0].ok = Some(false);
        report.rows[0].note = Some("a note".to_owned());
        report.rows[1].note = Some("a note".to_owned());
        report.failed.push(Failure { group: "tso", reason: "no\nmore".to_owned() });
        let text = tables(&report);
        assert!(text.contains("| **no** |") && text.contains("Not measured: tso: no\n"), "{text}");
        assert_eq!(text.matches("- a note").count(), 1);
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let before = format!("# Title\n{BEGIN}\nold\n{END}\nmore\n");
        let once = replace(&before, "new\n").unwrap();
        assert_eq!(once, format!("# Title\n{BEGIN}\n\nnew\n\n{END}\nmore\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once, "written twice, changed once");
    }

    #[test]
    fn a_page_without_markers_is_left_alone() {
        for page in ["", BEGIN, END, &format!("{END}{BEGIN}"), &format!("{BEGIN}{BEGIN}{END}")] {
            assert!(replace(page, "new").is_err(), "{page}");
        }
        let missing = write_into(Path::new("/nowhere/benchmarks.md"), &sample()).unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/benchmarks.md"));
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [1234.5, 123.4, 12.34, 1.234, 0.1234, 0.0].map(figure);
        assert_eq!(figures, ["1234", "123", "12.3", "1.23", "0.123", "0"]);
    }
}
