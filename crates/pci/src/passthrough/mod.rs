//! This module presents a function to a VMM as Linux's vfio-pci does.

use crate::bars::Bars;
use crate::capability::Role;
use crate::config::ConfigSpace;
use crate::config::{Kind, Placed, bar_index};
use crate::event::{Event, Events};
use crate::function::FunctionSpec;
use crate::registers::{Reset, Write, halves, in_high, in_low, read_dwords, writes};
use crate::spec::CONFIG_SIZE;
use crate::spec::{aer, express, header, msix, power};

/// A function as Linux's vfio-pci presents it to a VMM.
///
/// Some registers are virtual: they belong to this view and never reach the function. Of the others
/// a few can be written; the rest is read-only. As in `drivers/vfio/pci/vfio_pci_config.c`:
///
/// - Vendor ID and Device ID are those the host knows the function by, also of a VF.
/// - BARs are virtual, with sizing. The host placed the real ones.
/// - A VF's Memory Space Enable is virtual, and set to begin with; a PF's is the function's.
/// - Interrupt Disable, Interrupt Line, Max_Payload_Size and Max_Read_Request_Size are virtual.
/// - Bus Master Enable, the power state, AER's registers and vendor-specific capabilities are the
///   function's.
/// - Initiate FLR, and [`reset`](Self::reset) for VFIO_DEVICE_RESET, reset the function and then
///   restore what Linux restores; virtual registers stay as they are.
///
/// Three things differ from Linux. The SR-IOV and ARI capabilities are not in the list and read
/// zero, where Linux leaves it to QEMU to hide them: VFs are the adapter's, whoever has the PF. For
/// the same reason a reset through this view leaves SR-IOV alone. And MSI-X Message Control can be
/// written: Linux drops such writes because it programs the same bits itself on
/// VFIO_DEVICE_SET_IRQS.
#[derive(Debug)]
pub struct Passthrough {
    ids: u32,
    bars: Bars,
    /// Virtual bits of the Command register.
    command: u32,
    interrupt_line: u32,
    /// Virtual bits of Device Control.
    device_control: u32,
    is_vf: bool,
    /// Values of registers when the VMM opened the device.
    found: Saved,
}

/// The registers that the host restores after a reset: offset of the dword, bits of it, and their
/// value.
type Saved = Vec<(u16, u32, u32)>;

/// Command bits that are virtual whatever the function is.
const COMMAND_VIRTUAL: u16 = header::COMMAND_INTX_DISABLE;
const DEVICE_CONTROL_VIRTUAL: u16 =
    express::DEVICE_CONTROL_PAYLOAD | express::DEVICE_CONTROL_READ_REQUEST;

impl Passthrough {
    /// Returns the view of a function whose device model has this spec, as a VMM finds it on
    /// opening the device.
    pub fn new(space: &ConfigSpace, spec: &FunctionSpec) -> Self {
        let is_vf = space.role() == Role::Virtual;
        let device_control = space
            .list()
            .offset(Kind::Express)
            .map_or(0, |offset| space.read_dword(offset + express::DEVICE_CONTROL));
        let mut bars = space.bars().clone();
        bars.reset();
        Self {
            ids: halves(spec.identity.vendor_id, spec.identity.device_id),
            bars,
            command: if is_vf { in_low(header::COMMAND_MEMORY) } else { 0 },
            interrupt_line: 0,
            device_control: device_control & in_low(DEVICE_CONTROL_VIRTUAL),
            is_vf,
            found: saved(space),
        }
    }

    /// Reads `data.len()` bytes at any alignment. Bytes beyond the space read as ones.
    pub fn read(&self, space: &ConfigSpace, offset: u16, data: &mut [u8]) {
        read_dwords(offset, data, |dword| self.read_dword(space, dword));
    }

    /// Writes at any alignment, lowest dword first. Bytes beyond the space are dropped.
    pub fn write(&mut self, space: &mut ConfigSpace, offset: u16, data: &[u8]) -> Events {
        let mut events = Events::default();
        for (dword, write) in writes(offset, data) {
            self.write_dword(space, dword, write, &mut events);
        }
        events
    }

    /// Resets the function as VFIO_DEVICE_RESET does. The registers that Linux saves and restores
    /// around a reset keep their values; [`Event::Flr`] is among the events.
    pub fn reset(&mut self, space: &mut ConfigSpace) -> Events {
        let now = saved(space);
        reset_to(space, &now)
    }

    /// Resets the function after the VMM has closed the device, and gives it back to the host with
    /// its registers as [`new`](Self::new) found them. The next VMM gets a view of its own.
    pub fn close(&self, space: &mut ConfigSpace) -> Events {
        reset_to(space, &self.found)
    }

    /// Returns the whole space as it reads now.
    pub fn to_bytes(&self, space: &ConfigSpace) -> Box<[u8; CONFIG_SIZE]> {
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        self.read(space, 0, bytes.as_mut_slice());
        bytes
    }

    fn read_dword(&self, space: &ConfigSpace, offset: u16) -> u32 {
        if let Some(index) = bar_index(offset) {
            return self.bars.read(index, 1);
        }
        let real = || space.read_dword(offset);
        match offset {
            header::VENDOR_ID => self.ids,
            header::COMMAND => merge(real(), self.command, self.command_virtual()),
            header::INTERRUPT_LINE => merge(real(), self.interrupt_line, INTERRUPT_VIRTUAL),
            _ => match space.list().at(offset) {
                Some(placed) if !shown(placed.kind) => 0,
                Some(placed) => self.read_capability(placed, offset - placed.offset, space, real()),
                None => real(),
            },
        }
    }

    fn read_capability(&self, placed: &Placed, at: u16, space: &ConfigSpace, real: u32) -> u32 {
        match (placed.kind, at) {
            (_, 0) => {
                let next = space.list().next(placed, shown);
                merge(real, placed.list_header(next), placed.list_bits())
            }
            (Kind::Express, express::DEVICE_CONTROL) => {
                merge(real, self.device_control, in_low(DEVICE_CONTROL_VIRTUAL))
            }
            _ => real,
        }
    }

    fn write_dword(
        &mut self,
        space: &mut ConfigSpace,
        offset: u16,
        write: Write,
        events: &mut Events,
    ) {
        if let Some(index) = bar_index(offset) {
            self.bars.write(index, write);
            return;
        }
        let reaches = match offset {
            header::COMMAND => {
                let mask = self.command_virtual();
                self.command = write.only(mask).over(self.command);
                in_low(!0) & !mask
            }
            header::CACHE_LINE_SIZE => 0xff,
            header::INTERRUPT_LINE => {
                self.interrupt_line =
                    write.only(INTERRUPT_VIRTUAL & 0xff).over(self.interrupt_line);
                0
            }
            _ => {
                match space.list().at(offset).map(|placed| (placed.kind, offset - placed.offset)) {
                    Some((Kind::Express, express::DEVICE_CONTROL)) => {
                        let mask = in_low(DEVICE_CONTROL_VIRTUAL);
                        self.device_control = write.only(mask).over(self.device_control);
                        if write.ones() & in_low(express::DEVICE_CONTROL_FLR) != 0 {
                            let flr = in_low(express::DEVICE_CONTROL_FLR);
                            space.write_dword(offset, write.only(!mask & !flr), events);
                            events.append(self.reset(space));
                            return;
                        }
                        !mask
                    }
                    Some((kind, at)) => writable(kind, at),
                    None => 0,
                }
            }
        };
        space.write_dword(offset, write.only(reaches), events);
    }

    fn command_virtual(&self) -> u32 {
        in_low(if self.is_vf { COMMAND_VIRTUAL | header::COMMAND_MEMORY } else { COMMAND_VIRTUAL })
    }
}

/// Mask of Interrupt Line, which the VMM may use as it likes, and Interrupt Pin, which is zero.
const INTERRUPT_VIRTUAL: u32 = 0xffff;

/// Returns `real` with the bits in `mask` taken from `virtual_bits`.
fn merge(real: u32, virtual_bits: u32, mask: u32) -> u32 {
    real & !mask | virtual_bits & mask
}

/// Returns whether the VMM sees the capability at all.
fn shown(kind: Kind) -> bool {
    !matches!(kind, Kind::Sriov | Kind::AlternativeRoutingId)
}

/// Returns the bits of a capability's dword through which a write reaches the function.
fn writable(kind: Kind, at: u16) -> u32 {
    match (kind, at) {
        (Kind::Power, power::PMCSR) => !0,
        (Kind::Msix, 0) => in_high(msix::CONTROL_ENABLE | msix::CONTROL_MASK),
        (Kind::Express, express::DEVICE_CONTROL_2) => in_low(!0),
        (Kind::Vendor(_), _) => !0,
        (
            Kind::AdvancedErrorReporting,
            aer::UNCORRECTABLE_STATUS
            | aer::UNCORRECTABLE_MASK
            | aer::UNCORRECTABLE_SEVERITY
            | aer::CORRECTABLE_STATUS
            | aer::CORRECTABLE_MASK,
        ) => !0,
        _ => 0,
    }
}

/// Resets the function but for its SR-IOV capability, then writes registers back.
fn reset_to(space: &mut ConfigSpace, saved: &Saved) -> Events {
    let mut events = Events::default();
    space.reset_except(Reset::Flr, Some(Kind::Sriov), &mut events);
    events.push(Event::Flr);
    for &(offset, mask, value) in saved {
        let write = Write::dword(value).only(mask);
        space.write_dword(offset, write, &mut events);
    }
    events
}

/// Returns the registers that Linux saves before a reset and restores after it (`pci_save_state`),
/// in the order of restoring: addresses before the Command register lets the function use them.
fn saved(space: &ConfigSpace) -> Saved {
    let capability = |kind, at| Some(space.list().offset(kind)? + at);
    let all = in_low(!0);
    let registers = [
        (capability(Kind::Express, express::DEVICE_CONTROL), all),
        (capability(Kind::Express, express::LINK_CONTROL), all),
        (capability(Kind::Express, express::DEVICE_CONTROL_2), all),
        (capability(Kind::Express, express::LINK_CONTROL_2), all),
        (capability(Kind::AdvancedErrorReporting, aer::UNCORRECTABLE_MASK), !0),
        (capability(Kind::AdvancedErrorReporting, aer::UNCORRECTABLE_SEVERITY), !0),
        (capability(Kind::AdvancedErrorReporting, aer::CORRECTABLE_MASK), !0),
    ];
    registers
        .into_iter()
        .chain((header::BAR0..=header::BAR5).step_by(4).map(|bar| (Some(bar), !0)))
        .chain([
            (Some(header::CACHE_LINE_SIZE), 0xff),
            (Some(header::INTERRUPT_LINE), 0xff),
            (Some(header::COMMAND), all),
            (capability(Kind::Msix, 0), in_high(!0)),
        ])
        .filter_map(|(offset, mask)| Some((offset?, mask, space.read_dword(offset?))))
        .collect()
}

#[cfg(test)]
mod tests;
