//! This module raises the limits of the process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Allows as many open files as the system lets this process have.
///
/// A function takes about a dozen descriptors (its sockets, its eventfds, the memory of its
/// machine), so 256 VFs outgrow the customary soft limit of 1024.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, ?before, "cannot raise the limit of open files");
    }
}
