//! This module keeps prepared things in the build tree's `vm` folder, for every test process and
//! between runs.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder of prepared things, each named after what it was made from.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the cache of this build tree: `$CARGO_TARGET_DIR/vm`, or `target/vm` of the workspace.
    ///
    /// # Errors
    /// Fails if the folder cannot be made.
    pub(crate) fn open() -> Result<Self> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => workspace.join(dir),
            None => workspace.join("target"),
        };
        let dir = target.join("vm");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = fs::canonicalize(&dir)
            .with_context(|| format!("cannot resolve the path of {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Returns the cache's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the folder `name-HASH(key)`, made by `build` (into an empty folder) when it is not
    /// there yet.
    ///
    /// Other processes that want the same entry wait; one that dies half-way leaves nothing behind
    /// that counts.
    ///
    /// # Errors
    /// Fails with `build`'s error, or if a folder cannot be made.
    pub(crate) fn entry(
        &self,
        name: &str,
        key: &impl Hash,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let path = self.dir.join(format!("{name}-{:016x}", hasher.finish()));
        if path.exists() {
            return Ok(path);
        }
        let lock_path = self.dir.join(format!("{name}.lock"));
        let lock = File::create(&lock_path)
            .with_context(|| format!("cannot create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        if path.exists() {
            return Ok(path);
        }
        let unfinished = path.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .with_context(|| format!("cannot remove {}", unfinished.display()))?;
        }
        fs::create_dir(&unfinished)
            .with_context(|| format!("cannot create {}", unfinished.display()))?;
        build(&unfinished).with_context(|| format!("cannot prepare {name}"))?;
        fs::rename(&unfinished, &path)
            .with_context(|| format!("cannot move {name} into place at {}", path.display()))?;
        Ok(path)
    }
}
