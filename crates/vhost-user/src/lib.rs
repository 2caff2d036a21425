//! This crate is a backend for the vhost-user protocol: it serves the queues of a virtio network
//! device on a Unix socket.
//!
//! With vhost-user a VMM (the client, "front-end") keeps a virtio device's registers to itself and
//! hands over its queues: descriptors of the guest's memory, where in it the rings are, an eventfd
//! per queue to be kicked with and one to interrupt through. QEMU of any age, Cloud Hypervisor,
//! crosvm and DPDK's virtio-user are clients.
//!
//! This crate is the protocol and its sockets. It is not a device: what serves the rings is up to
//! the [`Device`] behind the socket, and so is where the memory is mapped. It knows nothing of
//! SR-IOV or of the other crates of this workspace but `manifold-socket`. Migration (dirty logging)
//! and IOTLBs are not offered.
//!
//! ```text
//!      VMM                                   this process
//!  +--------+        +-----------+ Message +---------+ map, start ring,... +--------+
//!  |        | bytes, | Assembler |-------->|         |-------------------->|        |
//!  | client |<======>|           |         | Session |                     | Device |
//!  |        |  fds   |  Socket   |<--------|         |<--------------------|        |
//!  +--------+        +-----------+ Answer  +---------+ ring positions      +--------+
//!       ^                                   Memory, Ring × n                    |
//!       +---------------- call and err eventfds: RingFds <----------------------+
//! ```
//!
//! - [`spec`]: the numbers of the protocol, with their sources.
//! - `codec`: the layouts of messages, without I/O.
//! - `session`: a table of the requests and what each does; a state machine without I/O. `memory`
//!   and `ring` are a client's memory table and its rings.
//! - `server`: the protocol on the sockets and threads of `manifold-socket`.
//!   [`Server::serve`](manifold_socket::Server::serve) is the way in.
//!
//! Clients are not trusted. Every size, index, address and descriptor is checked; a request that
//! cannot be carried out is refused where the protocol lets it be (REPLY_ACK) and ends the
//! connection where it does not. A device has one client at a time.

#![forbid(unsafe_code)]

mod codec;
mod device;
mod inflight;
mod memory;
mod refusal;
mod ring;
mod ring_fds;
mod server;
mod session;
pub mod spec;
mod status;

pub use codec::Header;
pub use device::{Capabilities, Device, Failure, Inflight, Region, RingSetup};
pub use manifold_socket::{Config, Disconnect, Error, EventFd, Peer};
pub use manifold_virtio::ring::QueueState;
pub use ring_fds::RingFds;
pub use server::{Endpoint, Server, VhostUser};
pub use session::Session;
pub use status::DeviceStatus;
