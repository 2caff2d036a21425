//! An uplink is where frames leave the adapter for the host's network, and come in from it.
//!
//! What it is: [`Tap`], a TAP interface held by the adapter. The host sees an Ethernet interface
//! to give an address to or to put into a bridge; the adapter sees a file that it reads frames
//! from and writes frames to, each with the 12-byte [`VNET_HDR_LEN`] header of virtio-net in
//! front, so that checksum and segmentation offloads travel along.
//!
//! What it is not: it does not decide where frames go, and it keeps none: a frame is copied by the
//! kernel straight out of guest memory ([`Tap::send`]) or into the caller's buffer
//! ([`Tap::recv`]).
//!
//! ```text
//!   guest memory: Slice, Slice, ...                      caller's buffer
//!      | Tap::send (writev, one copy by the kernel)          ^ Tap::recv (read)
//!      v                                                     |
//!   [virtio_net_hdr 12][Ethernet frame ...]   /dev/net/tun, non-blocking, poll with AsFd
//!      |                                                     ^
//!      v                                                     |
//!   TAP interface: host's IP stack, bridge, tcpdump ...
//! ```

mod error;
mod ioctl;
mod tap;

pub use error::Error;
pub use tap::{Offloads, Sent, Tap, VNET_HDR_LEN};
