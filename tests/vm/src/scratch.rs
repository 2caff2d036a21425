//! This module makes folders for the sockets of a test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Makes a fresh folder, whose path is short because paths of Unix sockets must be.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let short: String = name.chars().take(20).collect();
    let path =
        std::env::temp_dir().join(format!("manifold-{}-{count}-{short}", std::process::id()));
    fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}
