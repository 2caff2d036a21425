//! This module is a virtio device on PCI: its structures behind the BARs, status, features, queues,
//! doorbells (virtio 1.3, sections 3.1 and 4.1).

use super::queue::{Layout, Queue};
use super::spec::{cap, cfg_type, common, feature, net_config, status};
use crate::vfio::{Doorbell, Function, pci};
use crate::{Error, Result};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that a device may take to reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

/// A structure in a BAR.
#[derive(Debug, Clone, Copy)]
struct Window {
    bar: u8,
    offset: u64,
    len: u64,
}

/// The way in which a queue's doorbell is rung.
#[derive(Debug, Clone)]
enum Bell {
    /// The doorbell is an eventfd that the server handed out, without any message.
    Event(Arc<OwnedFd>),
    /// The doorbell is a write to the notify structure, without waiting for an answer.
    Write { bar: u8, offset: u64 },
}

/// A modern virtio device.
#[derive(Debug)]
pub struct VirtioPci {
    function: Function,
    common: Window,
    notify: Window,
    multiplier: u32,
    isr: Window,
    device: Option<Window>,
    doorbells: Vec<Doorbell>,
    bells: Vec<Option<Bell>>,
    kicks: u64,
}

impl VirtioPci {
    /// Checks that the function is a virtio network device and finds its structures. Nothing is
    /// written but the BARs' sizing.
    pub fn probe(mut function: Function) -> Result<Self> {
        let id = function.id()?;
        if id != (0x1af4, 0x1041) {
            return Err(Error::Device(format!(
                "{:04x}:{:04x} is not a modern virtio-net device, 1af4:1041",
                id.0, id.1
            )));
        }
        let bars = function.bars()?;
        let mut found = [None; 5];
        let mut multiplier = 0;
        for (_, at) in function.capabilities()?.into_iter().filter(|(id, _)| *id == pci::CAP_VENDOR)
        {
            let kind = function.config_u8(at + cap::CFG_TYPE)?;
            let Some(slot) = found.get_mut(usize::from(kind)) else { continue };
            let window = Window {
                bar: function.config_u8(at + cap::BAR)?,
                offset: function.config_u32(at + cap::OFFSET)?.into(),
                len: function.config_u32(at + cap::LENGTH)?.into(),
            };
            let fits = bars
                .iter()
                .find(|bar| bar.index == window.bar)
                .is_some_and(|bar| window.offset + window.len <= bar.size);
            if !fits {
                return Err(Error::Device(format!(
                    "capability {at:#04x} of type {kind} points outside its BAR: {window:?}"
                )));
            }
            // The driver uses the first structure of a type that it can use (4.1.4).
            if slot.is_none() {
                *slot = Some(window);
                if kind == cfg_type::NOTIFY {
                    if function.config_u8(at + cap::LEN)? < 20 {
                        return Err(Error::Device("the notify capability is too short".into()));
                    }
                    multiplier = function.config_u32(at + cap::NOTIFY_MULTIPLIER)?;
                }
            }
        }
        let missing = |what: &str| Error::Device(format!("no {what} structure"));
        let common = found[usize::from(cfg_type::COMMON)].ok_or_else(|| missing("common"))?;
        if common.len < common::SIZE {
            return Err(Error::Device(format!("a common structure of {} bytes", common.len)));
        }
        let notify = found[usize::from(cfg_type::NOTIFY)].ok_or_else(|| missing("notify"))?;
        let doorbells = function.doorbells(notify.bar)?;
        Ok(Self {
            function,
            common,
            notify,
            multiplier,
            isr: found[usize::from(cfg_type::ISR)].ok_or_else(|| missing("ISR"))?,
            device: found[usize::from(cfg_type::DEVICE)],
            doorbells,
            bells: Vec::new(),
            kicks: 0,
        })
    }

    /// Returns the function below.
    pub fn function(&mut self) -> &mut Function {
        &mut self.function
    }

    /// Returns the function below, for reading.
    pub fn function_ref(&self) -> &Function {
        &self.function
    }

    /// Gives the function back.
    pub fn into_function(self) -> Function {
        self.function
    }

    fn read(&mut self, window: Window, offset: u64, data: &mut [u8]) -> Result<()> {
        if offset + data.len() as u64 > window.len {
            return Err(Error::Device(format!(
                "register {offset:#x} is outside its structure of {:#x} bytes",
                window.len
            )));
        }
        self.function.transport().region_read(window.bar.into(), window.offset + offset, data)
    }

    /// Reads 8 bits of the common structure.
    pub fn read_u8(&mut self, offset: u64) -> Result<u8> {
        let mut data = [0; 1];
        self.read(self.common, offset, &mut data)?;
        Ok(data[0])
    }

    /// Reads 16 bits of the common structure.
    pub fn read_u16(&mut self, offset: u64) -> Result<u16> {
        let mut data = [0; 2];
        self.read(self.common, offset, &mut data)?;
        Ok(u16::from_le_bytes(data))
    }

    /// Reads 32 bits of the common structure.
    pub fn read_u32(&mut self, offset: u64) -> Result<u32> {
        let mut data = [0; 4];
        self.read(self.common, offset, &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    /// Writes a register of the common structure.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let (bar, at) = (self.common.bar.into(), self.common.offset + offset);
        self.function.transport().region_write(bar, at, data)
    }

    fn write_u64(&mut self, offset: u64, value: u64) -> Result<()> {
        // The value is written in two halves: a driver must not rely on 64-bit accesses (4.1.3.1).
        self.write(offset, &(value as u32).to_le_bytes())?;
        self.write(offset + 4, &((value >> 32) as u32).to_le_bytes())
    }

    /// Reads the device status (2.1).
    pub fn status(&mut self) -> Result<u8> {
        self.read_u8(common::DEVICE_STATUS)
    }

    /// Writes the device status; 0 resets.
    pub fn set_status(&mut self, value: u8) -> Result<()> {
        self.write(common::DEVICE_STATUS, &[value])
    }

    /// Sets further bits of the device status.
    pub fn add_status(&mut self, bits: u8) -> Result<()> {
        let status = self.status()?;
        self.set_status(status | bits)
    }

    /// Resets the device and waits until it says so (4.1.4.3.1).
    pub fn reset(&mut self) -> Result<()> {
        self.set_status(0)?;
        let begin = Instant::now();
        while self.status()? != 0 {
            if begin.elapsed() > RESET_TIMEOUT {
                return Err(Error::Timeout { command: "virtio reset", after: RESET_TIMEOUT });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.bells.clear();
        Ok(())
    }

    /// Reads the features that the device offers.
    pub fn device_features(&mut self) -> Result<u64> {
        let mut features = 0;
        for word in 0..2u32 {
            self.write(common::DEVICE_FEATURE_SELECT, &word.to_le_bytes())?;
            features |= u64::from(self.read_u32(common::DEVICE_FEATURE)?) << (32 * word);
        }
        Ok(features)
    }

    /// Goes through reset, ACKNOWLEDGE, DRIVER, features and FEATURES_OK (3.1.1, steps 1 to 6).
    /// Returns the features that are both offered and `wanted`. VERSION_1 is a must.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64> {
        self.reset()?;
        self.add_status(status::ACKNOWLEDGE)?;
        self.add_status(status::DRIVER)?;
        let offered = self.device_features()?;
        let features = offered & wanted;
        if features & feature::VERSION_1 == 0 {
            return Err(Error::Features { features, offered });
        }
        for word in 0..2u32 {
            self.write(common::DRIVER_FEATURE_SELECT, &word.to_le_bytes())?;
            let half = (features >> (32 * word)) as u32;
            self.write(common::DRIVER_FEATURE, &half.to_le_bytes())?;
        }
        self.add_status(status::FEATURES_OK)?;
        if self.status()? & status::FEATURES_OK == 0 {
            self.add_status(status::FAILED)?;
            return Err(Error::Features { features, offered });
        }
        Ok(features)
    }

    /// Reads how many queues there are.
    pub fn num_queues(&mut self) -> Result<u16> {
        self.read_u16(common::NUM_QUEUES)
    }

    /// Reads the device's own configuration, consistently (2.5.3).
    pub fn read_device(&mut self, offset: u64, data: &mut [u8]) -> Result<()> {
        let window =
            self.device.ok_or_else(|| Error::Device("no device configuration structure".into()))?;
        for _ in 0..100 {
            let before = self.read_u8(common::CONFIG_GENERATION)?;
            self.read(window, offset, data)?;
            if self.read_u8(common::CONFIG_GENERATION)? == before {
                return Ok(());
            }
        }
        Err(Error::Device("the configuration does not hold still".into()))
    }

    /// Reads 16 bits of the device configuration.
    pub fn read_device_u16(&mut self, offset: u64) -> Result<u16> {
        let mut data = [0; 2];
        self.read_device(offset, &mut data)?;
        Ok(u16::from_le_bytes(data))
    }

    /// Returns how many queue pairs the device has with these features agreed on (5.1.4). The
    /// control queue comes after them (5.1.2).
    pub fn max_queue_pairs(&mut self, features: u64) -> Result<u16> {
        if features & (feature::MQ | feature::RSS) == 0 {
            return Ok(1);
        }
        match self.read_device_u16(net_config::MAX_VIRTQUEUE_PAIRS)? {
            pairs @ 1..=0x4000 => Ok(pairs),
            pairs => Err(Error::Device(format!("{pairs} queue pairs"))),
        }
    }

    /// Returns true while the device says that its link is up, which it does only with
    /// [`feature::STATUS`].
    pub fn link_up(&mut self) -> Result<bool> {
        Ok(self.read_device_u16(net_config::STATUS)? & net_config::STATUS_LINK_UP != 0)
    }

    /// Reads and so clears the ISR status (4.1.4.5).
    pub fn isr(&mut self) -> Result<u8> {
        let mut isr = [0; 1];
        self.read(self.isr, 0, &mut isr)?;
        Ok(isr[0])
    }

    /// Has configuration changes raise this MSI-X vector.
    pub fn set_config_vector(&mut self, vector: u16) -> Result<()> {
        self.write(common::CONFIG_MSIX_VECTOR, &vector.to_le_bytes())?;
        let got = self.read_u16(common::CONFIG_MSIX_VECTOR)?;
        if got == vector { Ok(()) } else { Err(no_vector(vector)) }
    }

    /// Selects a queue and returns how large it may be, or 0 if it does not exist.
    pub fn select_queue(&mut self, index: u16) -> Result<u16> {
        self.write(common::QUEUE_SELECT, &index.to_le_bytes())?;
        self.read_u16(common::QUEUE_SIZE)
    }

    /// Sets up and enables a queue of at most `size` entries (4.1.5.1.3), of the kind that the
    /// features agreed on call for.
    pub fn setup_queue(
        &mut self,
        index: u16,
        size: u16,
        vector: u16,
        features: u64,
    ) -> Result<Queue> {
        let largest = self.select_queue(index)?;
        if largest == 0 {
            return Err(Error::Device(format!("queue {index} does not exist")));
        }
        let arena = self.function.arena().clone();
        let layout = match features & feature::RING_PACKED {
            0 => Layout::alloc(&arena, size.min(largest))?,
            _ => Layout::alloc_packed(&arena, size.min(largest))?,
        };
        self.enable_queue(index, layout, vector)?;
        Ok(Queue::new(arena, layout, features))
    }

    /// Enables a queue with a given layout.
    pub fn enable_queue(&mut self, index: u16, layout: Layout, vector: u16) -> Result<()> {
        let arena = self.function.arena().clone();
        self.write(common::QUEUE_SELECT, &index.to_le_bytes())?;
        self.write(common::QUEUE_SIZE, &layout.size.to_le_bytes())?;
        self.write(common::QUEUE_MSIX_VECTOR, &vector.to_le_bytes())?;
        if self.read_u16(common::QUEUE_MSIX_VECTOR)? != vector {
            return Err(no_vector(vector));
        }
        self.write_u64(common::QUEUE_DESC, arena.iova_of(layout.desc))?;
        self.write_u64(common::QUEUE_DRIVER, arena.iova_of(layout.avail))?;
        self.write_u64(common::QUEUE_DEVICE, arena.iova_of(layout.used))?;
        self.find_bell(index)?;
        self.write(common::QUEUE_ENABLE, &1u16.to_le_bytes())
    }

    /// Sets the selected queue's addresses to anything, right or wrong.
    pub fn set_queue_addresses(&mut self, addresses: [u64; 3]) -> Result<()> {
        self.write_u64(common::QUEUE_DESC, addresses[0])?;
        self.write_u64(common::QUEUE_DRIVER, addresses[1])?;
        self.write_u64(common::QUEUE_DEVICE, addresses[2])
    }

    /// Finds out how the selected queue's doorbell is rung (4.1.4.4).
    pub fn find_bell(&mut self, index: u16) -> Result<()> {
        let off = self.read_u16(common::QUEUE_NOTIFY_OFF)?;
        let in_notify = u64::from(off) * u64::from(self.multiplier);
        if in_notify + 2 > self.notify.len {
            return Err(Error::Device(format!(
                "the doorbell of queue {index} is outside the notify structure"
            )));
        }
        let offset = self.notify.offset + in_notify;
        let eventfd = self.doorbells.iter().find(|bell| {
            bell.offset == offset
                && matches!(bell.size, 0 | 2)
                && bell.value.is_none_or(|value| value == u64::from(index))
        });
        let bell = match eventfd {
            Some(bell) => Bell::Event(bell.fd.clone()),
            None => Bell::Write { bar: self.notify.bar, offset },
        };
        let slot = usize::from(index);
        if self.bells.len() <= slot {
            self.bells.resize(slot + 1, None);
        }
        if let Some(place) = self.bells.get_mut(slot) {
            *place = Some(bell);
        }
        Ok(())
    }

    /// Rings a queue's doorbell and does not wait.
    pub fn kick(&mut self, index: u16) -> Result<()> {
        self.kicks += 1;
        match self.bells.get(usize::from(index)).and_then(Option::as_ref) {
            Some(Bell::Event(fd)) => match rustix::io::write(fd, &1u64.to_ne_bytes()) {
                // The device has been notified if the counter is full.
                Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
                Err(e) => Err(Error::io("ringing a doorbell", e)),
            },
            Some(&Bell::Write { bar, offset }) => {
                self.function.transport().region_post(bar.into(), offset, &index.to_le_bytes())
            }
            None => Err(Error::Command(format!("queue {index} was not set up"))),
        }
    }

    /// Returns how many doorbells were rung.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Returns the notify structure's BAR, offset and bytes.
    pub fn notify_window(&self) -> (u8, u64, u64) {
        (self.notify.bar, self.notify.offset, self.notify.len)
    }
}

fn no_vector(vector: u16) -> Error {
    Error::Device(format!("MSI-X vector {vector} was refused"))
}
