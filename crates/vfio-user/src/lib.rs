//! A server for the vfio-user protocol: a PCIe function on a Unix socket, for VMMs to attach to.

#![forbid(unsafe_code)]

mod device;
mod error;
mod remote;
mod server;
mod session;
pub mod spec;

pub use device::{
    Device, DeviceInfo, DmaLimits, DmaMap, DmaMemory, IoFd, IrqAction, IrqData, IrqInfo, MmapArea,
    Peer, RegionInfo, RegionMapping, SetIrqs,
};
pub use error::Error;
pub use remote::RemoteDma;
pub use rustix::io::Errno;
pub use server::{Config, Endpoint, Server};
pub use session::Disconnect;
