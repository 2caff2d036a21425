//! The root port's registers: which exist, what they hold out of reset, which bits take writes.

use crate::spec::{CONFIG_SIZE, NOBODY, bridge, express, header, power};

/// Where the capabilities are.
pub(super) const EXPRESS: u16 = 0x40;
pub(super) const POWER: u16 = 0x80;

/// Bytes of registers; what lies beyond, up to 4 KiB, reads zero: no extended capability.
const SIZE: usize = 256;

/// The port's identity: what QEMU calls a generic root port, which every `pci.ids` knows.
const VENDOR_ID: u16 = 0x1b36;
const DEVICE_ID: u16 = 0x000c;

/// One register's initial value and the bits that software can write, or clear by writing one.
#[derive(Clone, Copy)]
struct Register {
    offset: u16,
    bytes: u8,
    value: u32,
    writable: u32,
    clearable: u32,
}

const fn fixed(offset: u16, bytes: u8, value: u32) -> Register {
    Register { offset, bytes, value, writable: 0, clearable: 0 }
}

const fn writable(offset: u16, bytes: u8, writable: u32) -> Register {
    Register { offset, bytes, value: 0, writable, clearable: 0 }
}

const fn clearable(offset: u16, value: u16, bits: u16) -> Register {
    Register { offset, bytes: 2, value: value as u32, writable: 0, clearable: bits as u32 }
}

/// Everything that is not zero and read-only.
const REGISTERS: &[Register] = &[
    fixed(header::VENDOR_ID, 2, VENDOR_ID as u32),
    fixed(header::DEVICE_ID, 2, DEVICE_ID as u32),
    writable(
        header::COMMAND,
        2,
        (header::COMMAND_MEMORY | header::COMMAND_BUS_MASTER | header::COMMAND_OTHER) as u32,
    ),
    clearable(header::STATUS, header::STATUS_CAPABILITIES, header::STATUS_CLEARABLE),
    fixed(header::CLASS, 2, header::CLASS_BRIDGE as u32),
    writable(header::CACHE_LINE_SIZE, 1, 0xff),
    fixed(header::HEADER_TYPE, 1, header::HEADER_TYPE_1 as u32),
    writable(bridge::PRIMARY_BUS, 1, 0xff),
    writable(bridge::SECONDARY_BUS, 1, 0xff),
    writable(bridge::SUBORDINATE_BUS, 1, 0xff),
    clearable(bridge::SECONDARY_STATUS, 0, header::STATUS_CLEARABLE),
    writable(bridge::MEMORY_BASE, 2, bridge::WINDOW_ADDRESS as u32),
    writable(bridge::MEMORY_LIMIT, 2, bridge::WINDOW_ADDRESS as u32),
    prefetchable(bridge::PREFETCHABLE_BASE),
    prefetchable(bridge::PREFETCHABLE_LIMIT),
    writable(bridge::PREFETCHABLE_BASE_UPPER, 4, u32::MAX),
    writable(bridge::PREFETCHABLE_LIMIT_UPPER, 4, u32::MAX),
    fixed(header::CAPABILITIES, 1, EXPRESS as u32),
    writable(header::INTERRUPT_LINE, 1, 0xff),
    writable(bridge::CONTROL, 2, (bridge::CONTROL_OTHER | bridge::CONTROL_RESET) as u32),
    fixed(EXPRESS, 1, express::ID as u32),
    fixed(EXPRESS + 1, 1, POWER as u32),
    fixed(
        EXPRESS + express::CAPABILITIES,
        2,
        (express::CAPABILITIES_VERSION | express::TYPE_ROOT_PORT) as u32,
    ),
    fixed(EXPRESS + express::DEVICE_CAPABILITIES, 4, express::DEVICE_CAPABILITIES_VALUE),
    writable(EXPRESS + express::DEVICE_CONTROL, 2, express::DEVICE_CONTROL_WRITABLE as u32),
    clearable(EXPRESS + express::DEVICE_STATUS, 0, express::DEVICE_STATUS_CLEARABLE),
    fixed(
        EXPRESS + express::LINK_CAPABILITIES,
        4,
        express::LINK_SPEED_AND_WIDTH as u32 | express::LINK_ASPM_OPTIONALITY,
    ),
    writable(EXPRESS + express::LINK_CONTROL, 2, express::LINK_CONTROL_WRITABLE as u32),
    fixed(EXPRESS + express::LINK_STATUS, 2, express::LINK_SPEED_AND_WIDTH as u32),
    writable(EXPRESS + express::ROOT_CONTROL, 2, express::ROOT_CONTROL_WRITABLE as u32),
    fixed(EXPRESS + express::LINK_CAPABILITIES_2, 4, express::LINK_SPEEDS),
    Register {
        offset: EXPRESS + express::LINK_CONTROL_2,
        bytes: 2,
        value: 2,
        writable: express::LINK_CONTROL_2_TARGET as u32,
        clearable: 0,
    },
    fixed(POWER, 1, power::ID as u32),
    fixed(POWER + power::CAPABILITIES, 2, power::CAPABILITIES_VERSION as u32),
    Register {
        offset: POWER + power::CONTROL,
        bytes: 2,
        value: power::CONTROL_NO_SOFT_RESET as u32,
        writable: power::CONTROL_STATE as u32,
        clearable: 0,
    },
];

const fn prefetchable(offset: u16) -> Register {
    Register {
        offset,
        bytes: 2,
        value: bridge::PREFETCHABLE_64 as u32,
        writable: bridge::WINDOW_ADDRESS as u32,
        clearable: 0,
    }
}

/// 4 KiB of registers: values, and what a write does to each bit.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    value: [u8; SIZE],
    writable: [u8; SIZE],
    clearable: [u8; SIZE],
}

impl Registers {
    /// The registers out of reset.
    pub(super) fn new(ari_forwarding: bool) -> Self {
        let zero = [0; SIZE];
        let mut registers = Self { value: zero, writable: zero, clearable: zero };
        for register in REGISTERS {
            registers.define(register);
        }
        if ari_forwarding {
            registers.define(&fixed(
                EXPRESS + express::DEVICE_CAPABILITIES_2,
                4,
                express::ARI_FORWARDING_SUPPORTED,
            ));
            registers.define(&writable(
                EXPRESS + express::DEVICE_CONTROL_2,
                2,
                express::ARI_FORWARDING_ENABLE.into(),
            ));
        }
        registers
    }

    fn define(&mut self, register: &Register) {
        let bytes =
            register.value.to_le_bytes().into_iter().zip(
                register.writable.to_le_bytes().into_iter().zip(register.clearable.to_le_bytes()),
            );
        let places = usize::from(register.offset)..;
        for (at, (value, (writable, clearable))) in places.zip(bytes).take(register.bytes.into()) {
            set(&mut self.value, at, value);
            set(&mut self.writable, at, writable);
            set(&mut self.clearable, at, clearable);
        }
    }

    /// Reads at any offset and length. Bytes without a register read zero, bytes beyond the space
    /// all ones.
    pub(super) fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            let beyond = if at < CONFIG_SIZE.into() { 0 } else { NOBODY };
            *byte = self.value.get(at).copied().unwrap_or(beyond);
        }
    }

    /// Writes at any offset and length, as each bit allows.
    pub(super) fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            if let (Some(value), Some(writable), Some(clearable)) =
                (self.value.get_mut(at), self.writable.get(at), self.clearable.get(at))
            {
                *value = (*value & !writable | byte & writable) & !(byte & clearable);
            }
        }
    }

    /// Sets a register of the hardware's own will.
    pub(super) fn set_u16(&mut self, offset: u16, value: u16) {
        for (at, byte) in (usize::from(offset)..).zip(value.to_le_bytes()) {
            set(&mut self.value, at, byte);
        }
    }

    pub(super) fn u8(&self, offset: u16) -> u8 {
        u8::from_le_bytes(self.bytes(offset))
    }

    pub(super) fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    pub(super) fn u32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn bytes<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }
}

fn set(bytes: &mut [u8; SIZE], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}
