//! This crate boots virtual machines with stock Debian kernels and drives them, for tests that must
//! hold against software others wrote.
//!
//! It is not a VM manager: it knows one kind of machine (q35, one processor, an initramfs and
//! nothing else), and what it prepares lives in the build tree.
//!
//! ```text
//!                 packages of Debian (apt, dpkg-deb: downloaded and unpacked, never installed)
//!                        |                         |
//!                      Qemu                      Image: kernel, initramfs with
//!            (10.1+, the machine's own           its modules, busybox, iperf3,
//!                 or this one)                   lspci, ... and guest/agent
//!                        |                         |
//!                        +-------- Setup ----------+      made once, kept under target/vm
//!                                    |
//!    test --- Lab --- Guest: QEMU process (TCG, or KVM where that works)
//!              |        |- first serial port  -> logs/TEST/NAME.console.log
//!              |        |- second serial port <-> agent: scripts in, status and output back
//!              |        |- monitor (QMP): reset, plug, unplug
//!              |        '- PCIe root port - vfio-user-pci --.
//!              |                                            | Unix socket
//!              '------- Adapter: manifold serve ------------'
//! ```
//!
//! `cargo xtask vm shell` boots one such guest with a shell.

#![forbid(unsafe_code)]

mod acceleration;
mod adapter;
mod agent;
mod cache;
mod cpio;
mod debian;
mod guest;
mod image;
mod lab;
mod libvirt;
mod namespace;
mod programs;
mod qemu;
mod qmp;
mod run;
mod scratch;
mod setup;
mod traffic;

pub use acceleration::Acceleration;
pub use adapter::{Adapter, end_process};
pub use agent::Output;
pub use guest::{Builder, Guest, Job};
pub use image::Image;
pub use lab::{Lab, boot_all};
pub use libvirt::Libvirt;
pub use namespace::Namespace;
pub use programs::Programs;
pub use qemu::Qemu;
pub use rustix::process::Signal;
pub use setup::Setup;
pub use traffic::{Flow, RunningFlow};
