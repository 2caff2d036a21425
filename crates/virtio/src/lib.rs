//! This crate models virtio devices as PCIe functions: virtqueues, virtio-pci registers, and the
//! network device's configuration and control queue (virtio 1.3, and the device statistics of 1.4).
//!
//! ```text
//!            BAR0, configuration space                      guest memory
//!                      |                                     |        |
//!   pci::DeviceModel   v                                     |        |
//!            transport::VirtioPci   registers, device life   |        |
//!                      |                                     |        |
//!       VirtioDevice   v                control commands     |        |
//!            net::Net ------------------------------------- ring      | frames
//!                      |                                              |
//!          QueueHost   v  start, stop, notify, filters, steering,     |
//!                      |  offloads, coalescing                        |
//!            (the data path) ---------------------------------------- ring
//!                      |
//!        QueueEvents   `--> interrupt, fail: back to the driver
//! ```
//!
//! - [`spec`]: registers and constants of the standard, without behaviour.
//! - [`ring`]: the device side of virtqueues in guest memory.
//! - [`transport`]: virtio over PCI, for any [`transport::VirtioDevice`].
//! - [`net`]: the network device. [`net::NetDevice`] is what a function of the adapter holds.
//!
//! What a driver negotiates and commands is checked here as a whole before anything changes, and is
//! in force in the data path before the driver is told that it is done. [`net::NetConfig::offer`]
//! says which features a driver sees: [`net::SUPPORTED`] names those that this crate does its part
//! of, and what the data path has to do for each.
//!
//! This crate moves no frames and starts no threads: the data path does, through
//! [`net::QueueHost`]. It is not a driver, and it has no legacy (pre-1.0) interface.

#![deny(unsafe_code)]

mod error;
pub mod net;
#[allow(unsafe_code, reason = "shared rings are raw memory")]
pub mod ring;
pub mod spec;
pub mod transport;

pub use error::Error;
