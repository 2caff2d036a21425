//! Where scenarios are carried out: connections, devices fresh out of reset, and what they answer.

use super::{Options, Outcome, Scenario};
use crate::memory::{Arena, Span};
use crate::vfio::{Client, ClientKind, DmaMode, Function};
use crate::virtio::spec::{NO_VECTOR, net_config, ring};
use crate::virtio::{NetOptions, Queue, VirtioNet, VirtioPci, feature, status};
use crate::{Error, Result};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Guest memory.
const MEMORY: usize = 1 << 20;
/// Where the device sees it.
pub(super) const IOVA: u64 = 0x1_0000_0000;
/// Entries per queue.
pub(super) const QUEUE_SIZE: u16 = 16;
/// Bytes of guest memory for frames and tables.
pub(super) const DATA: usize = 320 << 10;
/// How long the device gets to answer what it may not answer at all.
pub(super) const PATIENCE: Duration = Duration::from_millis(60);
/// How long the server gets to notice that the previous connection is gone.
const RECONNECT: Duration = Duration::from_secs(5);
/// How long it may take for anything that must be answered.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a device answered to a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    NeedsReset,
    /// It returned this many chains.
    Used(u16),
    Silence,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsReset => f.write_str("DEVICE_NEEDS_RESET"),
            Self::Used(n) => write!(f, "{n} used"),
            Self::Silence => f.write_str("nothing"),
        }
    }
}

/// One scenario's run.
pub(super) struct Lab {
    socket: PathBuf,
    pub(super) rogue_iova: u64,
    pub(super) rng: Xoshiro256PlusPlus,
    function: Option<Function>,
    accomplice: Option<VirtioNet>,
    steps: Vec<String>,
    needs_reset: bool,
    disconnected: bool,
}

/// A device right after DRIVER_OK, without a buffer in any queue.
pub(super) struct Rig {
    pub(super) device: VirtioPci,
    pub(super) rx: Queue,
    pub(super) tx: Queue,
    pub(super) control: Queue,
    pub(super) control_index: u16,
    pub(super) arena: Arc<Arena>,
    /// Memory for frames and tables; begins with a virtio-net header of zeros and a broadcast frame.
    pub(super) data: Span,
}

impl Lab {
    pub(super) fn new(socket: &Path, options: &Options) -> Result<Self> {
        let accomplice = match &options.accomplice {
            Some(path) => {
                let options =
                    NetOptions { queue_size: 64, rx_buffer: 2048, ..NetOptions::default() };
                let arena = Arc::new(Arena::new(options.memory(u16::MAX), IOVA)?);
                let function = Function::open(path, ClientKind::Own, DmaMode::Shared, arena)?;
                Some(VirtioNet::start(function, &options)?)
            }
            None => None,
        };
        Ok(Self {
            socket: socket.to_owned(),
            rogue_iova: options.rogue_iova,
            rng: Xoshiro256PlusPlus::seed_from_u64(options.seed),
            function: None,
            accomplice,
            steps: Vec::new(),
            needs_reset: false,
            disconnected: false,
        })
    }

    /// Notes a line.
    pub(super) fn note(&mut self, line: impl Into<String>) {
        let line = line.into();
        tracing::debug!("{line}");
        self.steps.push(line);
    }

    /// The function, connected anew if need be. The connection comes back with [`Self::put_back`].
    pub(super) fn function(&mut self) -> Result<Function> {
        if let Some(function) = self.function.take() {
            return Ok(function);
        }
        // A page more than anything here uses: what follows the arena must stay unmapped.
        let arena = Arc::new(Arena::new(MEMORY, IOVA)?);
        patiently(|| Function::open(&self.socket, ClientKind::Own, DmaMode::Shared, arena.clone()))
    }

    /// Keeps the function for the next try.
    pub(super) fn put_back(&mut self, function: Function) {
        self.function = Some(function);
    }

    /// The socket under attack.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Closes the connection, if there is one.
    pub(super) fn hang_up(&mut self) {
        self.function = None;
    }

    /// A connection that has said nothing yet.
    pub(super) fn raw(&mut self) -> Result<Client> {
        self.hang_up();
        patiently(|| Client::connect_only(&self.socket, TIMEOUT))
    }

    /// A connection after the version negotiation.
    pub(super) fn negotiated(&mut self) -> Result<Client> {
        self.hang_up();
        patiently(|| {
            let mut client = Client::connect_only(&self.socket, TIMEOUT)?;
            client.negotiate()?;
            Ok(client)
        })
    }

    /// A fresh device. Features beyond the plain ones are negotiated only where they are in `extra`.
    pub(super) fn rig(&mut self, extra: u64) -> Result<Rig> {
        let function = self.function()?;
        Rig::new(function, extra)
    }

    /// Tries something on a fresh device and notes what came of it; `misuse` returns what the device
    /// answered, for which [`Rig::observe`] is there. Refusals and the end of the connection are answers
    /// too. Anything else, above all no answer, is an error.
    pub(super) fn attempt(
        &mut self,
        what: &str,
        misuse: impl FnOnce(&mut Self, &mut Rig) -> Result<Answer>,
    ) -> Result<()> {
        self.attempt_with(0, what, misuse)
    }

    /// As [`Self::attempt`], with INDIRECT_DESC.
    pub(super) fn attempt_indirect(
        &mut self,
        what: &str,
        misuse: impl FnOnce(&mut Self, &mut Rig) -> Result<Answer>,
    ) -> Result<()> {
        self.attempt_with(feature::INDIRECT_DESC, what, misuse)
    }

    /// As [`Self::attempt`], with further features.
    pub(super) fn attempt_with(
        &mut self,
        extra: u64,
        what: &str,
        misuse: impl FnOnce(&mut Self, &mut Rig) -> Result<Answer>,
    ) -> Result<()> {
        let mut rig = self.rig(extra)?;
        let answer = misuse(self, &mut rig);
        if self.judge(what, answer)? {
            self.put_back(rig.device.into_function());
        }
        Ok(())
    }

    /// Notes an answer. True where the connection still stands.
    pub(super) fn judge(&mut self, what: &str, answer: Result<Answer>) -> Result<bool> {
        match answer {
            Ok(answer) => {
                self.needs_reset |= answer == Answer::NeedsReset;
                self.note(format!("{what}: {answer}"));
                Ok(true)
            }
            Err(e) if e.is_disconnect() => {
                self.disconnected = true;
                self.note(format!("{what}: disconnected"));
                self.hang_up();
                Ok(false)
            }
            Err(e @ (Error::Refused { .. } | Error::NeedsReset | Error::Device(_))) => {
                self.needs_reset |= matches!(e, Error::NeedsReset);
                self.note(format!("{what}: {e}"));
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    /// Sends `count` broadcast frames from the accomplice, so that something arrives.
    pub(super) fn frames_in(&mut self, count: usize) -> Result<()> {
        let Some(net) = &mut self.accomplice else { return Ok(()) };
        let frame = broadcast(net.info().mac);
        let (device, rx, tx) = net.parts();
        for queue in rx {
            queue.discard(usize::from(u16::MAX))?;
            queue.flush(device)?;
        }
        if let Some(tx) = tx.first_mut() {
            for _ in 0..count {
                let begin = Instant::now();
                while !tx.send(&frame)? && begin.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(1));
                }
                tx.flush(device)?;
            }
        }
        Ok(())
    }

    /// Sees whether a well-behaved driver can use the function, on a new connection, and sums up.
    pub(super) fn finish(mut self, scenario: Scenario) -> Result<Outcome> {
        self.hang_up();
        let recovered = match self.behave() {
            Ok(()) => true,
            Err(e) => {
                self.note(format!("afterwards: {e}"));
                false
            }
        };
        Ok(Outcome {
            scenario,
            steps: self.steps,
            needs_reset: self.needs_reset,
            disconnected: self.disconnected,
            recovered,
        })
    }

    fn behave(&mut self) -> Result<()> {
        let options = NetOptions::default();
        let arena = Arc::new(Arena::new(options.memory(u16::MAX), IOVA)?);
        let function = patiently(|| {
            Function::open(&self.socket, ClientKind::Own, DmaMode::Shared, arena.clone())
        })?;
        let mut net = VirtioNet::start(function, &options)?;
        net.set_promiscuous(true)?;
        net.set_promiscuous(false)?;
        let frame = broadcast(net.info().mac);
        {
            let (device, _, tx) = net.parts();
            let tx = tx.first_mut().ok_or_else(|| Error::Device("no TX queue".into()))?;
            let all = tx.reclaim()?;
            tx.send(&frame)?;
            tx.flush(device)?;
            let begin = Instant::now();
            while tx.reclaim()? != all {
                if begin.elapsed() > TIMEOUT {
                    return Err(Error::Timeout { command: "sending a frame", after: TIMEOUT });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.accomplice.is_some() {
            let mut room = vec![0; 1 << 16];
            let begin = Instant::now();
            loop {
                self.frames_in(1)?;
                std::thread::sleep(Duration::from_millis(1));
                let (_, rx, _) = net.parts();
                if rx.first_mut().is_some_and(|rx| matches!(rx.receive(&mut room), Ok(Some(_)))) {
                    break;
                }
                if begin.elapsed() > TIMEOUT {
                    return Err(Error::Timeout { command: "receiving a frame", after: TIMEOUT });
                }
            }
        }
        net.check()
    }
}

/// Repeats what fails because the previous connection is not quite gone yet.
fn patiently<T>(mut connect: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match connect() {
            Err(Error::Refused { .. } | Error::Disconnected { .. } | Error::Io { .. })
                if begin.elapsed() < RECONNECT =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// A broadcast frame of the least length, of a protocol that nobody speaks.
pub(super) fn broadcast(from: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[0..6].fill(0xff);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

impl Rig {
    fn new(function: Function, extra: u64) -> Result<Self> {
        let mut device = VirtioPci::probe(function)?;
        let arena = device.function().arena().clone();
        arena.rewind();
        device.function().enable()?;
        let wanted = extra
            | feature::VERSION_1
            | feature::ACCESS_PLATFORM
            | feature::ORDER_PLATFORM
            | feature::EVENT_IDX
            | feature::MAC
            | feature::MTU
            | feature::MRG_RXBUF
            | feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_VLAN
            | feature::CTRL_MAC_ADDR
            | feature::MQ;
        let features = device.negotiate(wanted)?;
        let mut pairs = 1;
        if features & (feature::MQ | feature::RSS) != 0 {
            pairs = device.read_device_u16(net_config::MAX_VIRTQUEUE_PAIRS)?;
        }
        let control_index = pairs.wrapping_mul(2);
        let mut queue = |index| device.setup_queue(index, QUEUE_SIZE, NO_VECTOR, features);
        let (rx, tx, control) = (queue(0)?, queue(1)?, queue(control_index)?);
        let mut mac = [0; 6];
        device.read_device(net_config::MAC, &mut mac)?;
        device.add_status(status::DRIVER_OK)?;
        let data = arena.alloc(DATA, 4096)?;
        arena.clear(data)?;
        arena.write(data.offset + 12, &broadcast(mac))?;
        Ok(Self { device, rx, tx, control, control_index, arena, data })
    }

    /// Where the device sees the byte at `offset` of the data.
    pub(super) fn at(&self, offset: usize) -> u64 {
        self.arena.iova_of(self.data.offset + offset)
    }

    /// Writes TX descriptors (address, bytes, flags, next) from index 0 on.
    pub(super) fn tx_chain(&mut self, descriptors: &[(u64, u32, u16, u16)]) -> Result<()> {
        write_chain(&mut self.tx, descriptors)
    }

    /// Likewise for RX.
    pub(super) fn rx_chain(&mut self, descriptors: &[(u64, u32, u16, u16)]) -> Result<()> {
        write_chain(&mut self.rx, descriptors)
    }

    /// Makes TX heads available and rings the bell.
    pub(super) fn send(&mut self, heads: &[u16]) -> Result<Answer> {
        for head in heads {
            self.tx.force_offer(*head)?;
        }
        self.tx.publish()?;
        self.device.kick(1)?;
        self.observe(1)
    }

    /// Makes RX heads available, rings the bell, and has frames sent here.
    pub(super) fn receive(&mut self, lab: &mut Lab, heads: &[u16]) -> Result<Answer> {
        for head in heads {
            self.rx.force_offer(*head)?;
        }
        self.rx.publish()?;
        self.device.kick(0)?;
        lab.frames_in(4)?;
        self.observe(0)
    }

    /// The TX frame that is right: header and 60 bytes.
    pub(super) fn good(&self) -> (u64, u32, u16, u16) {
        (self.at(0), 12 + 60, 0, 0)
    }

    /// Sends a frame that is right, to see whether the device still works.
    pub(super) fn send_good(&mut self) -> Result<Answer> {
        self.tx_chain(&[self.good()])?;
        self.send(&[0])
    }

    /// Waits for the device to give up or to return chains of queue 0 (RX) or 1 (TX).
    pub(super) fn observe(&mut self, queue: u16) -> Result<Answer> {
        let begin = Instant::now();
        loop {
            if self.device.status()? & status::DEVICE_NEEDS_RESET != 0 {
                return Ok(Answer::NeedsReset);
            }
            let layout = if queue == 0 { self.rx.layout() } else { self.tx.layout() };
            let at = layout.used + ring::USED_IDX;
            let used = self.arena.load_u16(at, std::sync::atomic::Ordering::Acquire)?;
            if used != 0 {
                return Ok(Answer::Used(used));
            }
            if begin.elapsed() > PATIENCE {
                return Ok(Answer::Silence);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// As [`Self::observe`], where guest memory must not be looked at: only the status counts.
    pub(super) fn observe_status(&mut self) -> Result<Answer> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if self.device.status()? & status::DEVICE_NEEDS_RESET != 0 {
                return Ok(Answer::NeedsReset);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(Answer::Silence)
    }
}

fn write_chain(queue: &mut Queue, descriptors: &[(u64, u32, u16, u16)]) -> Result<()> {
    for (i, (iova, len, flags, next)) in (0..).zip(descriptors) {
        queue.set_descriptor(i, *iova, *len, *flags, *next)?;
    }
    Ok(())
}
