//! This module has a folder for the demo's sockets that is removed afterwards.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::run_dir::{self, RunDir};

const PREFIX: &str = "manifold-demo-";

/// Age at which a folder that nobody has taken was left behind; a demo takes its folder at once.
const SETTLED: Duration = Duration::from_secs(60);

/// A folder that is removed when dropped.
#[derive(Debug)]
pub(super) struct Folder {
    // The run directory is kept until the end.
    run_dir: Option<RunDir>,
}

impl Folder {
    /// Makes a folder of a name nobody has, and removes those that killed demos have left.
    pub(super) fn new() -> anyhow::Result<Self> {
        let parent = parent();
        let name = format!("{PREFIX}{}", std::process::id());
        for n in 0..100 {
            let path = parent.join(if n == 0 { name.clone() } else { format!("{name}.{n}") });
            // Making the folder fails if it exists, so it is ours, whoever else may write to the
            // parent.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make the folder {}", path.display()));
                }
            }
            let folder = Self { run_dir: Some(RunDir::acquire(&path)?) };
            remove_left_over(&parent);
            return Ok(folder);
        }
        anyhow::bail!("cannot find a free name for a folder in {}", parent.display())
    }

    /// Returns the folder, as a run directory.
    pub(super) fn path(&self) -> &Path {
        self.run_dir.as_ref().map_or(Path::new(""), RunDir::path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path = self.path().to_owned();
        // Removes the sockets and gives up the lock.
        drop(self.run_dir.take());
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove the demo's folder");
        }
    }
}

/// Returns the folder for sockets of running programs, or else the one for temporary files.
fn parent() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_absolute() && Path::new(&dir).is_dir() => dir.into(),
        _ => std::env::temp_dir(),
    }
}

/// Removes folders of demos that were killed. What goes wrong leaves them there.
fn remove_left_over(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if named && is_left_over(&entry.path()) {
            // Another process may remove it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_left_over(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    let settled = age.is_some_and(|age| age > SETTLED);
    metadata.is_dir() && ours && settled && run_dir::is_free(path)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_killed_demos_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let age = |path: &Path, seconds: u64| {
            let then = SystemTime::now() - Duration::from_secs(seconds);
            File::open(path).unwrap().set_modified(then).unwrap();
        };
        let make = |name: &str, seconds: u64| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("x"), "").unwrap();
            age(&path, seconds);
            path
        };
        let left = make("manifold-demo-1", 3600);
        let young = make("manifold-demo-2", 1);
        let other = make("something", 3600);
        let used = make("manifold-demo-3", 3600);
        let _user = RunDir::acquire(&used).unwrap();
        age(&used, 3600);
        remove_left_over(dir.path());
        assert!(!left.exists());
        assert!(young.exists() && other.exists() && used.exists());
    }
}
