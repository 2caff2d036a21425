//! This module has the error of an uplink.

use std::io;

/// The reason why an uplink cannot be used. The texts say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No interface can have this name.
    #[error("{0:?} is no interface name: 1 to 15 characters, without '/', ':', '%' or white space")]
    InvalidName(String),
    /// There is no TUN/TAP driver.
    #[error(
        "/dev/net/tun does not exist: load the driver (modprobe tun), or, in a container, pass the \
         device on (--device /dev/net/tun)"
    )]
    NoDriver,
    /// The TUN/TAP driver cannot be opened.
    #[error("cannot open /dev/net/tun: {0}")]
    Open(#[source] io::Error),
    /// The process lacks the permission to create the interface or to attach to it.
    #[error(
        "no permission to open TAP {0}: it needs CAP_NET_ADMIN. Run as root, or let root create \
         the interface for this user first (ip tuntap add dev {0} mode tap user $USER)"
    )]
    Permission(String),
    /// Another process holds the interface.
    #[error("TAP {0} is in use by another process: stop that, or name another interface")]
    Busy(String),
    /// There is an interface of this name that is not a TAP of the right kind.
    #[error(
        "{0} exists but is not a single-queue TAP interface: name another interface, or remove it \
         first (ip link delete {0})"
    )]
    NotATap(String),
    /// The interface refuses a setting.
    #[error("TAP {name}: cannot {action}: {source}")]
    Setup {
        /// Name of the interface.
        name: String,
        /// Action that was tried.
        action: &'static str,
        /// Error of the kernel.
        source: io::Error,
    },
}
