//! This module prints what commands have to say: text, JSON, tables and the log.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::cli::Command;

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing standard output")
}

/// Writes `value` to standard output as JSON for people and programs.
pub(crate) fn print_json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    print(&format!("{text}\n"))
}

/// Starts the log, on standard error.
pub(crate) fn log(command: &Command) {
    let default = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = EnvFilter::builder()
        .with_env_var("MANIFOLD_LOG")
        .try_from_env()
        .unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        .init();
}

/// Side of a column on which its cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table of text whose columns are as wide as their widest cell and two spaces apart.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these columns and no rows yet.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|&(name, align)| (name.to_owned(), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    /// Returns the table as text, each line after `indent` spaces.
    pub(crate) fn render(&self, indent: usize) -> String {
        let header = self.columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let width = |column: usize| {
            lines().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> =
            (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in lines() {
            let mut line = " ".repeat(indent);
            for ((cell, &width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                // Writing to a String cannot fail.
                let _ = match align {
                    Align::Left => write!(line, "{cell:<width$}  "),
                    Align::Right => write!(line, "{cell:>width$}  "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Returns a number of bytes with the largest unit that leaves it whole, as `lspci` writes sizes:
/// 16K, 2M.
pub(crate) fn exact_size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes, "");
    for larger in ["K", "M", "G", "T"] {
        if value == 0 || value % 1024 != 0 {
            break;
        }
        (value, unit) = (value / 1024, larger);
    }
    format!("{value}{unit}")
}

/// Returns a number of bytes for people: 64.0 MiB.
pub(crate) fn rough_size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rough size is what is wanted")]
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("X", Align::Left)]);
        table.row(["vf0".into(), "12345".into(), String::new()]);
        table.row(["a longer one".into(), "1".into(), "µs".into()]);
        assert_eq!(
            table.render(2),
            "  NAME              N  X\n  vf0           12345\n  a longer one      1  µs\n"
        );
    }

    #[test]
    fn sizes_keep_their_value() {
        for (bytes, text) in
            [(0, "0"), (1, "1"), (1024, "1K"), (16384, "16K"), (1025, "1025"), (1 << 21, "2M")]
        {
            assert_eq!(exact_size(bytes), text);
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(rough_size(bytes), text);
        }
    }
}
