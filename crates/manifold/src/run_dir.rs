//! The run directory is the folder that holds one adapter's sockets, and belongs to one daemon at a
//! time.
//!
//! Ownership is an advisory lock (`flock`) on a file in the folder. The kernel drops it with the
//! process, however that ends, so nothing that a killed daemon leaves behind is mistaken for a
//! running one: whoever holds the lock may remove every socket it finds.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Deserialize;

use crate::failure::advise;

/// Name of the management interface's socket.
pub(crate) const API_SOCKET: &str = "api.sock";

/// Name of the lock file, which holds its owner's process ID.
const LOCK: &str = "manifold.lock";

/// The longest name of a socket in the folder.
const LONGEST_NAME: &str = "vf255.vhost.sock";

/// The longest path a Unix socket can have: `sun_path` is 108 bytes with the final NUL (unix(7)).
const LONGEST_PATH: usize = 107;

/// Flag that names the run directory; every command that talks to the daemon takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(transparent)]
pub(crate) struct RunDirArg {
    /// Folder of the daemon's sockets: api.sock, pf.sock, vf0.sock, vf1.sock ...
    ///
    /// The default is $XDG_RUNTIME_DIR/manifold, or /run/manifold for root.
    #[arg(long, value_name = "DIR", env = "MANIFOLD_RUN_DIR", global = true)]
    run_dir: Option<PathBuf>,
}

impl RunDirArg {
    /// Returns this folder, or `other` if none is named here.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { run_dir: self.run_dir.or(other.run_dir) }
    }

    /// Returns the folder that is named, or else the default.
    ///
    /// # Errors
    /// Fails if no folder is named and there is no default.
    pub(crate) fn path(self) -> anyhow::Result<PathBuf> {
        self.run_dir.map_or_else(default_path, Ok)
    }
}

/// Returns `$XDG_RUNTIME_DIR/manifold`, or `/run/manifold` for root.
fn default_path() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/run/manifold".into());
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        // The XDG specification says that a path that is not absolute is to be ignored.
        Some(dir) if Path::new(&dir).is_absolute() => Ok(Path::new(&dir).join("manifold")),
        _ => Err(advise(
            "there is no default for the folder of the sockets: XDG_RUNTIME_DIR is not set",
            "name one with `--run-dir DIR`, to every command",
        )),
    }
}

/// A run directory that is ours until dropped, which removes the sockets and the lock.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    // The file is locked while it is open.
    _lock: File,
}

impl RunDir {
    /// Makes the folder where it is missing, takes it, and removes sockets that nobody serves.
    ///
    /// # Errors
    /// Fails if another process has the folder, or if it cannot be made or used.
    pub(crate) fn acquire(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path)
            .with_context(|| format!("cannot use the folder {}", path.display()))?;
        let longest = path.join(LONGEST_NAME).as_os_str().len();
        if longest > LONGEST_PATH {
            return Err(advise(
                format!(
                    "{} is too long for Unix sockets: with the longest name in it {longest} bytes, \
                     and {LONGEST_PATH} is the limit",
                    path.display()
                ),
                "choose a shorter `--run-dir`",
            ));
        }
        // Anyone who may enter the folder may reconfigure the adapter, so it is made for its owner
        // alone.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))
            .map_err(|error| match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied) => advise(
                    format!("no permission to make the folder {}", path.display()),
                    "choose another `--run-dir`",
                ),
                _ => error,
            })?;
        let lock = take(&path).with_context(|| format!("cannot lock {}", path.display()))?;
        let lock = lock.ok_or_else(|| taken(&path))?;
        sweep(&path).with_context(|| format!("cannot remove old sockets in {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the management interface's socket.
    pub(crate) fn api_socket(&self) -> PathBuf {
        self.path.join(API_SOCKET)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The lock goes last, while it is still held: see `take`.
        let removed = sweep(&self.path).and_then(|()| fs::remove_file(self.path.join(LOCK)));
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the sockets");
        }
    }
}

/// Returns whether no process has the folder.
pub(crate) fn is_free(path: &Path) -> bool {
    match File::open(path.join(LOCK)) {
        Ok(file) => flock(file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Takes the folder's lock, or returns `None` where somebody has it.
fn take(path: &Path) -> io::Result<Option<File>> {
    let path = path.join(LOCK);
    loop {
        let mut file = File::options().create(true).append(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // The last owner may have removed the file since it was opened, and another may have made
        // a new one: then this lock is worth nothing.
        let (ours, current) = (file.metadata()?, fs::metadata(&path));
        if current.is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            return Ok(Some(file));
        }
    }
}

fn taken(path: &Path) -> anyhow::Error {
    let owner = fs::read_to_string(path.join(LOCK)).unwrap_or_default();
    let who = match owner.trim().parse::<u32>() {
        Ok(pid) => format!(" (process {pid})"),
        Err(_) => String::new(),
    };
    advise(
        format!("another manifold{who} uses {}", path.display()),
        "stop it first, or give this one a folder of its own with `--run-dir DIR`",
    )
}

/// Removes the sockets of a daemon that is gone, and nothing else.
fn sweep(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(is_ours) && entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Returns whether a socket of this name would be the daemon's.
fn is_ours(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".sock") else { return false };
    let function = stem.strip_suffix(".vhost").unwrap_or(stem);
    stem == "api" || function.parse::<manifold_pci::FunctionId>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_daemons_own_sockets_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| drop(UnixListener::bind(dir.path().join(name)).unwrap());
        let ours = ["api.sock", "pf.sock", "vf0.sock", "vf255.sock", "vf0.vhost.sock"];
        let others = ["other.sock", "vf256.sock", "api.vhost.sock", "vf0", "vf0.sock.old"];
        ours.iter().chain(&others).for_each(|name| make(name));
        // A regular file with the name of a socket stays.
        fs::write(dir.path().join("vf1.sock"), "x").unwrap();

        drop(RunDir::acquire(dir.path()).unwrap());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = [&others[..], &["vf1.sock"]].concat();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = RunDir::acquire(&path).unwrap();
        assert!(!is_free(&path));
        let _listener = UnixListener::bind(first.api_socket()).unwrap();
        let error = RunDir::acquire(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        // The second attempt took nothing away from the first.
        assert!(first.api_socket().exists());
        drop(first);
        assert!(is_free(&path));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is left behind");
        RunDir::acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_file_without_its_owner_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "1\n").unwrap();
        assert!(is_free(dir.path()));
        let _taken = RunDir::acquire(dir.path()).unwrap();
        let owner = fs::read_to_string(dir.path().join(LOCK)).unwrap();
        assert_eq!(owner.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = RunDir::acquire(&dir.path().join("x".repeat(100))).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn a_file_is_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        RunDir::acquire(&path).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
