//! This module makes socket files, replaces stale ones and removes them when done.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::error::Error;

/// Number of clients that can wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket and its file. The file goes with it, if it is still this socket's.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Listener {
    /// Listens on `path`. A socket file that nobody answers on is replaced.
    pub(crate) fn bind(path: &Path, mode: u32) -> Result<Self, Error> {
        let length = path.as_os_str().as_bytes().len();
        if length > Error::MAX_PATH {
            return Err(Error::PathTooLong { path: path.into(), length });
        }
        let failed = |errno: Errno| Error::Listen { path: path.into(), source: errno.into() };
        let address = SocketAddrUnix::new(path).map_err(failed)?;

        // Another server may have replaced a stale file before it is removed.
        let _lock = lock_directory(path);
        let fd = socket(SocketFlags::NONBLOCK).map_err(failed)?;
        match bind(&fd, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(&fd, &address).map_err(failed)?;
            }
            result => result.map_err(failed)?,
        }
        let stat = rustix::fs::lstat(path).map_err(failed)?;
        let listener = Self { fd, path: path.into(), file: (stat.st_dev, stat.st_ino) };
        // Nobody can connect before `listen`, so nobody slips in with the permissions of the umask.
        rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(failed)?;
        listen(&listener.fd, BACKLOG).map_err(failed)?;
        Ok(listener)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _lock = lock_directory(&self.path);
        let is_ours =
            rustix::fs::lstat(&self.path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.file);
        if is_ours && let Err(errno) = rustix::fs::unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %errno, "cannot remove the socket");
        }
    }
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
}

/// Removes a socket file that no process listens on.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), Error> {
    let failed = |errno: Errno| Error::Listen { path: path.into(), source: errno.into() };
    let kind = match rustix::fs::lstat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    if kind != FileType::Socket {
        return Err(Error::NotASocket { path: path.into() });
    }
    let probe = socket(SocketFlags::NONBLOCK).map_err(failed)?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "replacing a stale socket");
            rustix::fs::unlink(path).map_err(failed)
        }
        Err(Errno::NOENT) => Ok(()),
        // The connection was made, or the queue of a server that is there is full.
        Ok(()) | Err(Errno::AGAIN) => Err(Error::InUse { path: path.into() }),
        Err(errno) => Err(failed(errno)),
    }
}

/// Keeps other servers that do the same from making and removing sockets in this directory. Without
/// a lock (the file system has none, or somebody keeps it) the work goes on unprotected.
fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    for _ in 0..50 {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(fd),
            Err(Errno::AGAIN | Errno::INTR) => thread::sleep(Duration::from_millis(10)),
            Err(_) => return None,
        }
    }
    None
}

/// Accepts the next client. Returns `None` if there is none, or none any more.
pub(crate) fn accept(listener: &Listener) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener.fd(), SocketFlags::CLOEXEC) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vf0.sock");

        let live = UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path, 0o600), Err(Error::InUse { .. })));
        UnixStream::connect(&path).unwrap();

        // The file stays behind, as after SIGKILL.
        drop(live);
        let listener = Listener::bind(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_server_with_a_full_queue_is_still_live() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vf0.sock");
        let _live = Listener::bind(&path, 0o600).unwrap();
        let address = SocketAddrUnix::new(&path).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = socket(SocketFlags::NONBLOCK).unwrap();
            match connect(&client, &address) {
                Ok(()) => waiting.push(client),
                Err(errno) => break assert_eq!(errno, Errno::AGAIN),
            }
        }
        assert!(matches!(Listener::bind(&path, 0o600), Err(Error::InUse { .. })));
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vf0.sock");
        let first = Listener::bind(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Listener::bind(&path, 0o600).unwrap();
        drop(first);
        assert!(path.exists());
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vf0.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&path, 0o600), Err(Error::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        let long = directory.path().join("x".repeat(120));
        assert!(matches!(Listener::bind(&long, 0o600), Err(Error::PathTooLong { .. })));
        let nowhere = directory.path().join("missing/vf0.sock");
        assert!(matches!(Listener::bind(&nowhere, 0o600), Err(Error::Listen { .. })));
    }
}
