//! This module sets aside 2 MiB pages for DPDK and for guest memory: as many as are needed, given
//! back afterwards.

use std::fs;

use anyhow::{Context, Result, bail};

const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Pages that were set aside. Dropping it restores what was.
#[derive(Debug)]
pub(crate) struct HugePages {
    /// Number of pages there were, if that was changed.
    before: Option<u64>,
}

impl HugePages {
    /// Makes sure that `wanted` pages are free.
    pub(crate) fn reserve(wanted: u64) -> Result<Self> {
        let (count, free) = (read(COUNT)?, read(FREE)?);
        let Some(more) = wanted.checked_sub(free).filter(|more| *more > 0) else {
            return Ok(Self { before: None });
        };
        let target = count + more;
        fs::write(COUNT, target.to_string()).with_context(|| {
            format!(
                "cannot set aside 2 MiB pages: run as root, or have root write {target} to {COUNT}"
            )
        })?;
        let pages = Self { before: Some(count) };
        let free = read(FREE)?;
        if free < wanted {
            bail!(
                "only {free} of {wanted} pages of 2 MiB can be had: free memory, or set them aside \
                 right after boot"
            );
        }
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(error) = fs::write(COUNT, before.to_string())
        {
            eprintln!("xtask: cannot write {before} back to {COUNT}: {error}");
        }
    }
}

fn read(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {path}: the kernel needs hugetlbfs"))?;
    text.trim().parse().with_context(|| format!("{path} says \"{}\"", text.trim()))
}
