//! This device model has nothing of virtio: a network interface whose driver leaves a message in
//! memory, rings, and finds the message echoed beside it.
//!
//! ```text
//!   BAR0, 32-bit, 4 KiB
//!   000h  "MBOX"          010h  address of a message of 16 bytes, 64 bits
//!   004h  driver ready    018h  ring: echo the message, interrupt by vector 0
//!   008h  link up         400h  MSI-X table, pending bits at 600h
//! ```

use std::error::Error;
use std::sync::Arc;

use manifold_adapter::{Model, ModelFactory, Resources};
use manifold_dma::Domain;
use manifold_pci::{
    BarSpec, DeviceModel, DriverReport, FunctionId, FunctionSpec, Identity, MsixSpec, Nic, Vector,
};

pub(crate) const READY: u64 = 0x04;
pub(crate) const LINK: u64 = 0x08;
pub(crate) const ADDRESS: u64 = 0x10;
pub(crate) const RING: u64 = 0x18;
/// Length of a message in bytes. Its echo, which is its complement, follows it in memory.
pub(crate) const MESSAGE: usize = 16;

/// Makes mailbox devices. Over the fabric a VF has another device ID than the PF.
pub(crate) struct Mailboxes;

impl ModelFactory for Mailboxes {
    fn spec(&self, id: FunctionId, _mac: [u8; 6]) -> FunctionSpec {
        FunctionSpec {
            identity: Identity {
                vendor_id: 0x1234,
                device_id: if id == FunctionId::Pf { 0x0001 } else { 0x0002 },
                revision: 7,
                class_code: 0x02_0000,
                subsystem_vendor_id: 0x1234,
                subsystem_id: 0x0100,
            },
            bars: [
                Some(BarSpec { size: 0x1000, width64: false, prefetchable: false }),
                None,
                None,
                None,
                None,
                None,
            ],
            msix: MsixSpec {
                vectors: 1,
                table_bar: 0,
                table_offset: 0x400,
                pba_bar: 0,
                pba_offset: 0x600,
            },
            vendor: Vec::new(),
            serial: 0,
        }
    }

    fn build(&self, resources: &Resources) -> Result<Model, Box<dyn Error + Send + Sync>> {
        let (mac, domain) = (resources.mac, Arc::clone(&resources.domain));
        let interrupt = resources.msix.vector(0).ok_or("no vector")?;
        Ok(Model::new(Box::new(Mailbox {
            mac,
            domain,
            interrupt,
            registers: Registers::default(),
        })))
    }
}

struct Mailbox {
    mac: [u8; 6],
    domain: Arc<Domain>,
    interrupt: Vector,
    registers: Registers,
}

/// Registers that a reset clears.
#[derive(Default)]
struct Registers {
    ready: bool,
    address: u64,
    failure: Option<String>,
}

impl Mailbox {
    fn echo(&mut self) {
        let reader = self.domain.reader();
        let pinned = reader.pin();
        let mut message = [0; MESSAGE];
        let address = self.registers.address;
        let echoed = pinned.read(address, &mut message).and_then(|()| {
            pinned.write(address.wrapping_add(MESSAGE as u64), &message.map(|byte| !byte))
        });
        match echoed {
            Ok(()) => self.interrupt.raise(),
            Err(fault) => self.registers.failure = Some(format!("no message: {fault}")),
        }
    }
}

impl DeviceModel for Mailbox {
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        let mut page = [0; 0x20];
        page[..4].copy_from_slice(b"MBOX");
        page[READY as usize] = self.registers.ready.into();
        page[LINK as usize] = 1;
        page[ADDRESS as usize..RING as usize]
            .copy_from_slice(&self.registers.address.to_le_bytes());
        let registers = page.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX));
        assert_eq!(bar, 0);
        data.fill(0);
        for (byte, register) in data.iter_mut().zip(registers) {
            *byte = *register;
        }
    }

    fn write(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        match (offset, data) {
            (READY, [value, ..]) => self.registers.ready = value & 1 != 0,
            (ADDRESS, data) => {
                if let Ok(data) = data.try_into() {
                    self.registers.address = u64::from_le_bytes(data);
                }
            }
            (RING, _) => self.echo(),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.registers = Registers::default();
    }
}

impl Nic for Mailbox {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1400
    }

    fn link_up(&self) -> bool {
        true
    }

    fn driver(&self) -> DriverReport {
        let Registers { ready, failure, .. } = &self.registers;
        let status = if *ready { 1 | 2 | 4 } else { 0 };
        let needs_reset = if failure.is_some() { 0x40 } else { 0 };
        let features = if *ready { vec!["ECHO"] } else { Vec::new() };
        DriverReport { status: status | needs_reset, features, failure: failure.clone() }
    }
}
