//! This module has the error of the adapter.

use std::path::PathBuf;

use manifold_eswitch::MacAddr;

/// The reason why the adapter could not start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TotalVFs is out of range.
    #[error("total VFs {0} is out of range: choose 1 to 256")]
    TotalVfs(u16),
    /// The base MAC address cannot be a station's, or the VFs' addresses would overflow its last
    /// two bytes.
    #[error(
        "base MAC {0} does not do: choose a unicast address whose last two bytes leave room for \
         every VF, for example 02:00:00:00:00:00"
    )]
    BaseMac(MacAddr),
    /// The text names no uplink.
    #[error("unknown uplink \"{0}\": use `none` or `tap:NAME`")]
    UnknownUplink(String),
    /// Linux does not accept this name for a network interface.
    #[error(
        "\"{0}\" is no interface name: 1 to 15 bytes, without `/`, `:` or white space, and not `.` \
         or `..`"
    )]
    InterfaceName(String),
    /// The PF driver refused or failed.
    #[error(transparent)]
    Fabric(#[from] manifold_fabric::Error),
    /// A function's configuration space cannot be built.
    #[error("a PCIe function cannot be built: {0}")]
    Pci(#[from] manifold_pci::Error),
    /// A device model cannot be built.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
    /// The data path refused or failed.
    #[error(transparent)]
    Datapath(#[from] manifold_datapath::Error),
    /// The uplink cannot be opened.
    #[error("uplink: {0}")]
    Uplink(#[from] manifold_port::Error),
    /// A socket cannot be served.
    #[error("cannot serve {path}: {source}")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// Error of the socket.
        source: manifold_socket::Error,
    },
    /// The system is out of file descriptors or memory.
    #[error("the adapter is out of resources: {0}")]
    Io(#[from] std::io::Error),
}
