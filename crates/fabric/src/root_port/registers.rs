//! This module declares the root port's registers: what they hold out of reset, and which bits take
//! writes.

use manifold_pci::registers::{Bank, Register, halves, in_high, in_low};
use manifold_pci::spec::{express, header, list, power};

use crate::spec::{bridge, port};

/// Offset of the PCI Express capability.
pub(super) const EXPRESS: u16 = 0x40;
/// Offset of the power management capability.
pub(super) const POWER: u16 = 0x80;

/// Number of bytes that hold registers. The space beyond, up to 4 KiB, reads zero: there is no
/// extended capability.
const SIZE: u16 = 256;

/// Vendor ID of the port, which is what QEMU calls a generic root port and every `pci.ids` knows.
const VENDOR_ID: u16 = 0x1b36;
const DEVICE_ID: u16 = 0x000c;

const COMMAND: u16 = header::COMMAND_MEMORY
    | header::COMMAND_BUS_MASTER
    | header::COMMAND_PARITY
    | header::COMMAND_SERR
    | header::COMMAND_INTX_DISABLE;
const DEVICE_CONTROL: u16 = express::DEVICE_CONTROL_CORRECTABLE
    | express::DEVICE_CONTROL_NON_FATAL
    | express::DEVICE_CONTROL_FATAL
    | express::DEVICE_CONTROL_UNSUPPORTED_REQUEST
    | express::DEVICE_CONTROL_PAYLOAD;
const LINK: u16 = express::LINK_SPEED_5_0 | express::LINK_WIDTH_X16;
/// Mask of Common Clock Configuration and Extended Synch in Link Control.
const LINK_CONTROL: u16 = 1 << 6 | 1 << 7;
/// Mask of Target Link Speed in Link Control 2.
const LINK_CONTROL_2: u16 = 0xf;

/// Returns the registers out of reset.
pub(super) fn registers(ari_forwarding: bool) -> Bank {
    let window = halves(bridge::WINDOW_ADDRESS, bridge::WINDOW_ADDRESS);
    let prefetchable = halves(bridge::PREFETCHABLE_64, bridge::PREFETCHABLE_64);
    let control = bridge::CONTROL_ERRORS | bridge::CONTROL_RESET;
    let bank = Bank::new(SIZE)
        .with(header::VENDOR_ID, Register::pair(VENDOR_ID, DEVICE_ID))
        .with(
            header::COMMAND,
            Register::pair(0, header::STATUS_CAPABILITIES)
                .writable(in_low(COMMAND))
                .clearable(in_high(header::STATUS_CLEARABLE)),
        )
        .with(header::CLASS_REVISION, Register::new(bridge::CLASS_CODE << 8))
        .with(header::CACHE_LINE_SIZE, Register::pair(0, bridge::HEADER_TYPE.into()).writable(0xff))
        .with(bridge::PRIMARY_BUS, Register::new(0).writable(0xff_ffff))
        .with(bridge::IO_WINDOW, Register::new(0).clearable(in_high(header::STATUS_CLEARABLE)))
        .with(bridge::MEMORY_BASE, Register::new(0).writable(window))
        .with(bridge::PREFETCHABLE_BASE, Register::new(prefetchable).writable(window))
        .with(bridge::PREFETCHABLE_BASE_UPPER, Register::new(0).writable(u32::MAX))
        .with(bridge::PREFETCHABLE_LIMIT_UPPER, Register::new(0).writable(u32::MAX))
        .with(header::CAPABILITIES, Register::new(EXPRESS.into()))
        .with(header::INTERRUPT_LINE, Register::new(0).writable(0xff | in_high(control)))
        .with(
            EXPRESS,
            Register::pair(
                u16::from(express::ID) | POWER << (8 * list::NEXT),
                express::CAPABILITIES_VERSION | port::TYPE_ROOT_PORT,
            ),
        )
        .with(
            EXPRESS + express::DEVICE_CAPABILITIES,
            Register::new(
                express::DEVICE_CAPABILITIES_PAYLOAD_256
                    | express::DEVICE_CAPABILITIES_ROLE_BASED_ERRORS,
            ),
        )
        .with(
            EXPRESS + express::DEVICE_CONTROL,
            Register::new(0)
                .writable(in_low(DEVICE_CONTROL))
                .clearable(in_high(express::DEVICE_STATUS_CLEARABLE)),
        )
        .with(
            EXPRESS + express::LINK_CAPABILITIES,
            Register::new(u32::from(LINK) | express::LINK_CAPABILITIES_ASPM_OPTIONALITY),
        )
        .with(
            EXPRESS + express::LINK_CONTROL,
            Register::pair(0, LINK).writable(in_low(LINK_CONTROL)),
        )
        .with(
            EXPRESS + port::ROOT_CONTROL,
            Register::new(0).writable(in_low(port::ROOT_CONTROL_WRITABLE)),
        )
        .with(
            EXPRESS + express::LINK_CAPABILITIES_2,
            Register::new(express::LINK_CAPABILITIES_2_SPEEDS),
        )
        .with(
            EXPRESS + express::LINK_CONTROL_2,
            Register::pair(express::LINK_SPEED_5_0, 0).writable(in_low(LINK_CONTROL_2)),
        )
        .with(POWER, Register::pair(power::ID.into(), power::PMC_VERSION))
        .with(
            POWER + power::PMCSR,
            Register::pair(power::PMCSR_NO_SOFT_RESET, 0).writable(in_low(power::PMCSR_STATE)),
        );
    if !ari_forwarding {
        return bank;
    }
    bank.with(
        EXPRESS + express::DEVICE_CAPABILITIES_2,
        Register::new(port::ARI_FORWARDING_SUPPORTED),
    )
    .with(
        EXPRESS + express::DEVICE_CONTROL_2,
        Register::new(0).writable(in_low(port::ARI_FORWARDING_ENABLE)),
    )
}
