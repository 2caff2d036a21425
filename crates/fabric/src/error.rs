//! This module lists faults of hardware that the PF driver found, and requests that it refuses.

use manifold_pci::RoutingId;

/// A fault of the hardware that the PF driver drives, or a request that the driver refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host has no bridge on bus 0.
    #[error("no root port on bus 0")]
    NoRootPort,
    /// Nothing answers behind the root port.
    #[error("no device answers at {0}")]
    NoDevice(RoutingId),
    /// The function lacks a capability that the driver needs.
    #[error("{routing_id} has no {name} capability")]
    NoCapability {
        /// Routing ID of the function.
        routing_id: RoutingId,
        /// Name of the capability.
        name: &'static str,
    },
    /// The device behind the root port is none that this driver drives.
    #[error(
        "{routing_id} is no PCI Express endpoint (header type {header_type}, port type \
         {port_type:#x})"
    )]
    NotAnEndpoint {
        /// Routing ID of the function.
        routing_id: RoutingId,
        /// Layout of its header.
        header_type: u8,
        /// Value of Device/Port Type.
        port_type: u16,
    },
    /// The capability list does not end.
    #[error("{0}: the capability list loops")]
    CapabilityLoop(RoutingId),
    /// The device cannot work with pages of 4 KiB.
    #[error("{routing_id} supports page sizes {supported:#x} (bit n: 4 KiB << n), not 4 KiB")]
    PageSize {
        /// Routing ID of the PF.
        routing_id: RoutingId,
        /// Value of Supported Page Sizes.
        supported: u32,
    },
    /// The BAR has a size mask that makes no sense.
    #[error("{routing_id}: BAR at {offset:#x} has no valid size (reads back {mask:#x})")]
    InvalidBar {
        /// Routing ID of the function.
        routing_id: RoutingId,
        /// Offset of the register.
        offset: u16,
        /// Value that was read after all ones were written.
        mask: u64,
    },
    /// The host's memory ranges are too small for the BARs.
    #[error(
        "{needed:#x} bytes of BARs do not fit the {available:#x} bytes of {range} memory space"
    )]
    OutOfAddresses {
        /// Name of the range: `32-bit` or `64-bit`.
        range: &'static str,
        /// Number of bytes to place.
        needed: u64,
        /// Number of bytes that the range has.
        available: u64,
    },
    /// The VFs' routing IDs go beyond the last bus number.
    #[error("{count} VFs from {pf} on, offset {offset}, stride {stride}, do not fit 256 buses")]
    OutOfBuses {
        /// Routing ID of the PF.
        pf: RoutingId,
        /// Number of VFs to name.
        count: u16,
        /// Value of First VF Offset.
        offset: u16,
        /// Value of VF Stride.
        stride: u16,
    },
    /// First VF Offset and VF Stride name functions twice.
    #[error("{pf}: offset {offset}, stride {stride} give {count} VFs no routing IDs of their own")]
    InvalidLayout {
        /// Routing ID of the PF.
        pf: RoutingId,
        /// Number of VFs to name.
        count: u16,
        /// Value of First VF Offset.
        offset: u16,
        /// Value of VF Stride.
        stride: u16,
    },
    /// The caller wants to enable VFs while others are enabled.
    #[error("{enabled} VFs are enabled already: disable them first (manifold vf disable)")]
    AlreadyEnabled {
        /// Number of VFs that are enabled.
        enabled: usize,
    },
    /// The caller wants to enable no VF.
    #[error(
        "0 VFs asked for: name a number from 1 to {total_vfs}, or disable them (manifold vf \
         disable)"
    )]
    ZeroVfs {
        /// Value of TotalVFs.
        total_vfs: u16,
    },
    /// The caller wants to enable more VFs than the PF has.
    #[error(
        "{asked} VFs asked for, but the PF has {total_vfs}: name a number from 1 to {total_vfs} \
         (TotalVFs is set when the adapter starts: manifold serve --total-vfs)"
    )]
    TooManyVfs {
        /// Number of VFs asked for.
        asked: u16,
        /// Value of TotalVFs.
        total_vfs: u16,
    },
    /// A register does not hold what was written.
    #[error("{routing_id}: {register} reads {read:#x} after {written:#x} was written")]
    NotTaken {
        /// Routing ID of the function.
        routing_id: RoutingId,
        /// Name of the register.
        register: &'static str,
        /// Value that was written.
        written: u32,
        /// Value that the register reads.
        read: u32,
    },
    /// VF Enable is set, but a VF does not answer.
    #[error("VF {index} does not answer at {routing_id}, one second after VF Enable was set")]
    VfAbsent {
        /// The VF's index.
        index: u16,
        /// Routing ID at which it should answer.
        routing_id: RoutingId,
    },
}
