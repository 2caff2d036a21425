//! This module says where a virtio function's structures are, and makes the PCI capabilities that
//! point to them.
//!
//! ```text
//!   BAR0 (16 KiB)                          BAR2 (8 KiB)
//!   0000h  common configuration            0000h  MSI-X table
//!   1000h  ISR status                      1000h  MSI-X pending bit array
//!   2000h  device-specific configuration
//!   3000h  notifications: one doorbell of 4 bytes for each queue
//! ```

use manifold_pci::{BarSpec, FunctionSpec, Identity, MsixSpec, VendorCapability};

use super::device::DeviceFacts;
use crate::spec::pci::{self, cap};

/// Number of the BAR of the virtio structures.
pub const BAR: u8 = 0;
/// Size of [`BAR`] in bytes.
pub const BAR_SIZE: u64 = 0x4000;
/// Number of the BAR of the MSI-X table and pending bit array.
pub const MSIX_BAR: u8 = 2;
/// Size of [`MSIX_BAR`] in bytes.
pub const MSIX_BAR_SIZE: u64 = 0x2000;
/// Offset of the pending bit array in [`MSIX_BAR`]. The table starts at 0.
pub const MSIX_PBA: u32 = 0x1000;

/// Offset of the common configuration in [`BAR`].
pub const COMMON: u64 = 0x0000;
/// Offset of the ISR status in [`BAR`].
pub const ISR: u64 = 0x1000;
/// Offset of the device-specific configuration in [`BAR`].
pub const DEVICE: u64 = 0x2000;
/// Offset of the notification area in [`BAR`].
pub const NOTIFY: u64 = 0x3000;
/// Distance in bytes from one queue's doorbell to the next (`notify_off_multiplier`);
/// `queue_notify_off` is the queue's number.
pub const NOTIFY_MULTIPLIER: u32 = 4;
/// Size of the notification area in bytes.
pub const NOTIFY_SIZE: u64 = 0x1000;

/// PCI Subsystem ID of all functions.
const SUBSYSTEM_ID: u16 = 0x1100;
/// Number of vectors that are no queue's: one, for configuration changes.
const CONFIG_VECTORS: u16 = 1;

/// Index of the capability of type [`cap::PCI_CFG`] in [`FunctionSpec::vendor`].
pub(super) const WINDOW_CAPABILITY: usize = 4;

/// Returns the offset in [`BAR`] of a queue's doorbell: a 16-bit write there notifies the device.
pub fn doorbell_offset(queue: u16) -> u64 {
    NOTIFY + u64::from(queue) * u64::from(NOTIFY_MULTIPLIER)
}

/// Returns the queue that a write at this offset of [`BAR`] notifies, if it is in the notification
/// area.
///
/// Whatever the size and value written: the address alone names the queue. Whoever serves the
/// queues may ring them by this and leave the device model, and its lock, out of it; the control
/// queue alone must go through the model.
pub fn doorbell(offset: u64) -> Option<u16> {
    let within = offset.checked_sub(NOTIFY).filter(|at| *at < NOTIFY_SIZE)?;
    u16::try_from(within / u64::from(NOTIFY_MULTIPLIER)).ok()
}

/// Returns the number of MSI-X vectors of a device: one for each queue and one for configuration
/// changes.
pub(super) fn vectors(facts: &DeviceFacts) -> u16 {
    facts.queues.saturating_add(CONFIG_VECTORS).min((MSIX_PBA / 16) as u16)
}

/// Returns what the configuration space of such a device's function is built from; `serial` is its
/// Device Serial Number.
pub fn function_spec(facts: &DeviceFacts, serial: u64) -> FunctionSpec {
    let bar = |size| Some(BarSpec { size, width64: true, prefetchable: true });
    FunctionSpec {
        identity: Identity {
            vendor_id: pci::VENDOR_ID,
            device_id: pci::DEVICE_ID_BASE + facts.device_id,
            revision: pci::REVISION,
            class_code: facts.class_code,
            subsystem_vendor_id: pci::VENDOR_ID,
            subsystem_id: SUBSYSTEM_ID,
        },
        bars: [bar(BAR_SIZE), None, bar(MSIX_BAR_SIZE), None, None, None],
        msix: MsixSpec {
            vectors: vectors(facts),
            table_bar: MSIX_BAR,
            table_offset: 0,
            pba_bar: MSIX_BAR,
            pba_offset: MSIX_PBA,
        },
        vendor: vec![
            structure(cap::COMMON_CFG, COMMON, u64::from(pci::common::SIZE), &[]),
            structure(cap::NOTIFY_CFG, NOTIFY, NOTIFY_SIZE, &NOTIFY_MULTIPLIER.to_le_bytes()),
            structure(cap::ISR_CFG, ISR, 1, &[]),
            structure(cap::DEVICE_CFG, DEVICE, facts.config_size.into(), &[]),
            pci_cfg(),
        ],
        serial,
    }
}

/// Returns a `struct virtio_pci_cap` (4.1.4) without its first two bytes, followed by `more`.
fn structure(cfg_type: u8, offset: u64, length: u64, more: &[u8]) -> VendorCapability {
    let len = cap::SIZE + more.len() as u8;
    let mut body = vec![len, cfg_type, BAR, 0, 0, 0];
    body.extend_from_slice(&(offset as u32).to_le_bytes());
    body.extend_from_slice(&(length as u32).to_le_bytes());
    body.extend_from_slice(more);
    let writable = vec![0; body.len()];
    VendorCapability { body, writable }
}

/// Returns a `struct virtio_pci_cfg_cap` (4.1.4.9), of which the driver writes bar, offset, length
/// and data.
fn pci_cfg() -> VendorCapability {
    let mut capability = structure(cap::PCI_CFG, 0, 0, &[0; 4]);
    for (offset, mask) in (2u8..).zip(&mut capability.writable) {
        if super::pci_cfg::is_writable(offset) {
            *mask = 0xff;
        }
    }
    capability
}
