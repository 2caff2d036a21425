//! This module writes the whole result as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::{Machine, Versions};
use super::row::Row;

/// The whole result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Mode of the run, "quick" or "full".
    pub(crate) mode: &'static str,
    /// Time at which the run started, in UTC and ISO 8601.
    pub(crate) started: String,
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    pub(crate) rows: Vec<Row>,
    /// Groups that could not be measured, with the reason.
    pub(crate) failed: Vec<Failure>,
}

/// A group that could not be measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Failure {
    pub(crate) group: &'static str,
    pub(crate) reason: String,
}

impl Report {
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns whether everything that was asked for reaches its bound.
    pub(crate) fn all_ok(&self) -> bool {
        self.failed.is_empty() && self.rows.iter().all(|row| row.ok != Some(false))
    }
}

#[cfg(test)]
pub(crate) mod tests;
