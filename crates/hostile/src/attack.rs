//! This module carries out scenarios: makes connections and devices fresh out of reset, and notes
//! what they answer.

use manifold_guest::memory::{Arena, Span};
use manifold_guest::vfio::{Client, ClientKind, DmaMode, Function};
use manifold_guest::virtio::spec::{NO_VECTOR, net_config, ring};
use manifold_guest::virtio::{
    Descriptor, Layout, NetOptions, Queue, VirtioNet, VirtioPci, feature, status,
};
use manifold_guest::{Error, Result};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Size of guest memory in bytes.
const MEMORY: usize = 1 << 20;
/// IOVA of guest memory.
pub(crate) const IOVA: u64 = 0x1_0000_0000;
/// Number of entries per queue.
pub(crate) const QUEUE_SIZE: u16 = 16;
/// Size of guest memory for frames and tables, in bytes.
pub(crate) const DATA: usize = 320 << 10;
/// Time that the device gets to answer what it may not answer at all.
pub(crate) const PATIENCE: Duration = Duration::from_millis(60);
/// Time that the server gets to notice that the previous connection has ended.
const RECONNECT: Duration = Duration::from_secs(5);
/// Time that anything that must be answered may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a scenario.
#[derive(Debug, Clone)]
pub struct Options {
    /// An address for rogue DMA that the guest does not map, for example one where another guest
    /// keeps its memory.
    pub rogue_iova: u64,
    /// Seed of the random numbers.
    pub seed: u64,
    /// The socket of a second function, on which an accomplice sends broadcast frames so that
    /// something arrives at the first. Scenarios about receiving do little without.
    pub accomplice: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rogue_iova: 0xdead_beef_0000, seed: 1, accomplice: None }
    }
}

/// The answers of the device to a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// Texts of what was tried and how the device answered, one line each.
    pub steps: Vec<String>,
    /// True if DEVICE_NEEDS_RESET was seen.
    pub needs_reset: bool,
    /// True if the server ended a connection.
    pub disconnected: bool,
    /// True if a well-behaved driver could use the function afterwards.
    pub recovered: bool,
}

/// The answer of a device to one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    NeedsReset,
    /// The device returned this many chains.
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

/// A scenario that is being run.
pub(crate) struct Attack {
    socket: PathBuf,
    pub(crate) rogue_iova: u64,
    pub(crate) rng: Xoshiro256PlusPlus,
    function: Option<Function>,
    accomplice: Option<VirtioNet>,
    steps: Vec<String>,
    needs_reset: bool,
    disconnected: bool,
}

/// A device right after DRIVER_OK, without a buffer in any queue.
pub(crate) struct Target {
    pub(crate) device: VirtioPci,
    pub(crate) rx: Queue,
    pub(crate) tx: Queue,
    pub(crate) control: Queue,
    pub(crate) control_index: u16,
    pub(crate) arena: Arc<Arena>,
    /// Memory for frames and tables, which begins with a virtio-net header of zeros and a broadcast
    /// frame.
    pub(crate) data: Span,
}

impl Attack {
    pub(crate) fn new(socket: &Path, options: &Options) -> Result<Self> {
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
    pub(crate) fn note(&mut self, line: impl Into<String>) {
        let line = line.into();
        tracing::debug!("{line}");
        self.steps.push(line);
    }

    /// Returns the function, connected again if need be. The connection comes back with
    /// [`Self::put_back`].
    pub(crate) fn function(&mut self) -> Result<Function> {
        if let Some(function) = self.function.take() {
            return Ok(function);
        }
        // The pages behind the arena must stay unmapped.
        let arena = Arc::new(Arena::new(MEMORY, IOVA)?);
        patiently(|| Function::open(&self.socket, ClientKind::Own, DmaMode::Shared, arena.clone()))
    }

    /// Keeps the function for the next try.
    pub(crate) fn put_back(&mut self, function: Function) {
        self.function = Some(function);
    }

    /// Returns the socket under attack.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Closes the connection, if there is one.
    pub(crate) fn hang_up(&mut self) {
        self.function = None;
    }

    /// Makes a connection on which nothing was sent yet.
    pub(crate) fn raw(&mut self) -> Result<Client> {
        self.hang_up();
        patiently(|| Client::connect_only(&self.socket, TIMEOUT))
    }

    /// Makes a connection and negotiates the version.
    pub(crate) fn negotiated(&mut self) -> Result<Client> {
        self.hang_up();
        patiently(|| {
            let mut client = Client::connect_only(&self.socket, TIMEOUT)?;
            client.negotiate()?;
            Ok(client)
        })
    }

    /// Makes a fresh device. Features beyond the plain ones are negotiated only if they are in
    /// `extra`.
    pub(crate) fn target(&mut self, extra: u64) -> Result<Target> {
        let function = self.function()?;
        Target::new(function, extra)
    }

    /// Tries something on a fresh device and notes what came of it; `misuse` returns what the
    /// device answered, for which [`Target::observe`] is there. Refusals and the end of the
    /// connection are answers too. Anything else, above all no answer, is an error.
    pub(crate) fn attempt(
        &mut self,
        what: &str,
        misuse: impl FnOnce(&mut Self, &mut Target) -> Result<Answer>,
    ) -> Result<()> {
        self.attempt_with(0, what, misuse)
    }

    /// Tries something on a fresh device with INDIRECT_DESC, like [`Self::attempt`].
    pub(crate) fn attempt_indirect(
        &mut self,
        what: &str,
        misuse: impl FnOnce(&mut Self, &mut Target) -> Result<Answer>,
    ) -> Result<()> {
        self.attempt_with(feature::INDIRECT_DESC, what, misuse)
    }

    /// Tries something on a fresh device with further features, like [`Self::attempt`].
    pub(crate) fn attempt_with(
        &mut self,
        extra: u64,
        what: &str,
        misuse: impl FnOnce(&mut Self, &mut Target) -> Result<Answer>,
    ) -> Result<()> {
        let mut target = self.target(extra)?;
        let answer = misuse(self, &mut target);
        if self.judge(what, answer)? {
            self.put_back(target.device.into_function());
        }
        Ok(())
    }

    /// Notes an answer. Returns true if the connection still stands.
    pub(crate) fn judge(&mut self, what: &str, answer: Result<Answer>) -> Result<bool> {
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
    pub(crate) fn frames_in(&mut self, count: usize) -> Result<()> {
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
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        self.hang_up();
        let recovered = match self.behave() {
            Ok(()) => true,
            Err(e) => {
                self.note(format!("afterwards: {e}"));
                false
            }
        };
        Ok(Outcome {
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

/// Makes a broadcast frame of the least length, of a protocol that nobody speaks.
pub(crate) fn broadcast(from: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[0..6].fill(0xff);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

impl Target {
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

    /// Returns the IOVA of the byte at `offset` of the data.
    pub(crate) fn at(&self, offset: usize) -> u64 {
        self.arena.iova_of(self.data.offset + offset)
    }

    /// Writes TX descriptors (address, bytes, flags, next) from index 0 on.
    pub(crate) fn tx_chain(&mut self, descriptors: &[(u64, u32, u16, u16)]) -> Result<()> {
        write_chain(&mut self.tx, descriptors)
    }

    /// Writes RX descriptors (address, bytes, flags, next) from index 0 on.
    pub(crate) fn rx_chain(&mut self, descriptors: &[(u64, u32, u16, u16)]) -> Result<()> {
        write_chain(&mut self.rx, descriptors)
    }

    /// Makes TX heads available and rings the bell.
    pub(crate) fn send(&mut self, heads: &[u16]) -> Result<Answer> {
        for head in heads {
            self.tx.force_offer(*head)?;
        }
        self.tx.publish()?;
        self.device.kick(1)?;
        self.observe(1)
    }

    /// Makes RX heads available, rings the bell, and has frames sent here.
    pub(crate) fn receive(&mut self, attack: &mut Attack, heads: &[u16]) -> Result<Answer> {
        for head in heads {
            self.rx.force_offer(*head)?;
        }
        self.rx.publish()?;
        self.device.kick(0)?;
        attack.frames_in(4)?;
        self.observe(0)
    }

    /// Returns the descriptor of a TX frame that is right: header and 60 bytes.
    pub(crate) fn good(&self) -> (u64, u32, u16, u16) {
        (self.at(0), 12 + 60, 0, 0)
    }

    /// Sends a frame that is right, to see whether the device still works.
    pub(crate) fn send_good(&mut self) -> Result<Answer> {
        self.tx_chain(&[self.good()])?;
        self.send(&[0])
    }

    /// Waits for the device to give up or to return chains of queue 0 (RX) or 1 (TX).
    pub(crate) fn observe(&mut self, queue: u16) -> Result<Answer> {
        self.wait_for_used(if queue == 0 { self.rx.layout() } else { self.tx.layout() })
    }

    /// Waits for the device to give up or to return chains of the split queue at `layout`.
    pub(crate) fn wait_for_used(&mut self, layout: Layout) -> Result<Answer> {
        let begin = Instant::now();
        loop {
            if self.device.status()? & status::DEVICE_NEEDS_RESET != 0 {
                return Ok(Answer::NeedsReset);
            }
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

    /// Waits for the device to give up, without looking at guest memory.
    pub(crate) fn observe_status(&mut self) -> Result<Answer> {
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
    (0..).zip(descriptors).try_for_each(|(i, entry)| queue.set_descriptor(i, descriptor(entry)))
}

/// Makes a descriptor of address, bytes, flags and next.
pub(crate) fn descriptor(&(iova, len, flags, next): &(u64, u32, u16, u16)) -> Descriptor {
    Descriptor { iova, len, flags, next }
}
