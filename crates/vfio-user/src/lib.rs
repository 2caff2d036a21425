//! This crate is a server for the vfio-user protocol: it puts a PCIe function on a Unix socket, for
//! VMMs to attach to.
//!
//! vfio-user carries the VFIO interface over a socket: a VMM (the client) finds regions (BARs,
//! configuration space) and interrupts, reads and writes registers by message, hands over
//! descriptors of the guest's memory for DMA and eventfds for interrupts. To the guest the function
//! looks like a passed-through PCI device. QEMU 10.1 and newer and Cloud Hypervisor are clients.
//!
//! This crate is the protocol and the sockets. It is not a device: what registers do is up to the
//! [`Device`] behind the socket, and so are DMA domains (what is mapped where) and the meaning of
//! interrupts. It knows nothing of SR-IOV, virtio or the other crates of this workspace. Live
//! migration and dirty page logging are refused as not supported. The server sends no requests:
//! memory that the client maps without a descriptor cannot be reached.
//!
//! ```text
//!      VMM                                  this process
//!  +---------+        +-----------+ Message +---------+  calls   +--------+
//!  |         | bytes, | Assembler |-------->|         |--------->|        |
//!  | client  |<======>|           |         | Session |          | Device |
//!  |         |  fds   |  Socket   |<--------|         |<---------|        |
//!  +---------+        +-----------+ Answer  +---------+ results  +--------+
//! ```
//!
//! - [`spec`]: the numbers of the protocol, with their sources.
//! - [`codec`]: messages to bytes and back, without I/O.
//! - `session`: messages to answers; a state machine without I/O.
//! - `server`: a device on a socket, with what `manifold-socket` has of sockets and threads.
//!   [`Server::serve`](manifold_socket::Server::serve) is the way in.
//!
//! Clients are not trusted. Every size, count and index is checked against what was agreed on and
//! what the device has; a malformed request gets an error reply and its descriptors are closed; a
//! stream that makes no sense any more is ended. A function has one client at a time: a second one
//! is refused with `EBUSY`.

#![forbid(unsafe_code)]

pub mod codec;
mod device;
mod server;
mod session;
pub mod spec;

pub use device::{
    Device, DeviceInfo, DmaLimits, DmaMap, DmaMemory, IoFd, IrqAction, IrqData, IrqInfo, MmapArea,
    RegionInfo, RegionMapping, SetIrqs,
};
pub use manifold_socket::{Config, Disconnect, Error, Peer};
pub use rustix::io::Errno;
pub use server::{Endpoint, Server, VfioUser};
pub use session::Session;
