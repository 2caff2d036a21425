//! A backend for the vhost-user protocol: the queues of a virtio network device on a Unix socket.
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
//!       +---------------- call and err eventfds: RingLines <--------------------+
//! ```
//!
//! - [`spec`]: the numbers of the protocol, with their sources.
//! - `codec`: messages to requests and replies to bytes, without I/O.
//! - `memory`, `ring`, `session`: a client's memory table, its rings, and the rules for both; a
//!   state machine without I/O.
//! - `server`: sockets and threads around it. [`Server::serve`] is the way in.
//!
//! Clients are not trusted. Every size, index, address and descriptor is checked; a request that
//! cannot be carried out is refused where the protocol lets it be (REPLY_ACK) and ends the
//! connection where it does not. A device has one client at a time.

#![forbid(unsafe_code)]

mod codec;
mod device;
mod inflight;
mod lines;
mod memory;
mod ring;
mod server;
mod session;
pub mod spec;

pub use codec::Malformed;
pub use device::{Device, Failure, Inflight, Offer, Region, RingSetup};
pub use inflight::TrackingError;
pub use lines::{DeviceStatus, RingLines};
pub use manifold_socket::{Error, EventFd, Peer};
pub use memory::MemoryError;
pub use ring::Position;
pub use server::{Config, Endpoint, Server};
pub use session::{Disconnect, Refusal};
