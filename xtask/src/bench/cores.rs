//! This module chooses the two processors of a measurement, and reads what Linux tells about
//! processors.

use std::fs;

use anyhow::{Context, Result, bail};

/// The processors that measurements use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Number of the worker's processor: ours, testpmd's or the PMD of Open vSwitch.
    pub(crate) worker: usize,
    /// Number of the generator's processor.
    pub(crate) generator: usize,
}

impl Cores {
    /// Returns the last two processors that this process may use; the first takes most of a
    /// machine's interrupts.
    pub(crate) fn choose() -> Result<Self> {
        let status = read("/proc/self/status")?;
        let list = field(&status, "Cpus_allowed_list").context("no Cpus_allowed_list")?;
        match parse_list(list).as_deref() {
            Some([.., generator, worker]) => Ok(Self { worker: *worker, generator: *generator }),
            _ => bail!("the benchmark needs two processors and may use {list} only"),
        }
    }
}

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Returns the value of the first line `NAME : VALUE`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Reads a list of processors: "0-2,5" is 0, 1, 2, 5.
pub(crate) fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        found.extend(first..=last);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::parse_list;

    #[test]
    fn processor_lists() {
        assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("3"), Some(vec![3]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("0-"), None);
        assert_eq!(parse_list("a"), None);
    }
}
