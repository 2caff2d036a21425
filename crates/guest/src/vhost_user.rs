//! A vhost-user frontend does what a VMM does for a guest whose data path is elsewhere.
//!
//! There are no registers here. The frontend tells the backend the features, the memory and each
//! virtqueue, and gives it two eventfds per queue; whatever else a device has (configuration,
//! control queue) stays with the VMM, which is nobody here. The messages are the rust-vmm project's
//! `vhost` crate's, so traffic through this says something about our backend, and it drives the
//! backends of others: DPDK's `net_vhost`, OVS.
//!
//! ```text
//!   negotiate() ── features, protocol features ─►┐
//!   share()     ── memory, by descriptor ───────►│ backend
//!   start()     ── size, base, addresses, fds ──►│    │
//!   kick(q)     ── eventfd ─────────────────────►│    │ reads and writes the arena
//!   call(q)     ◄─ eventfd ──────────────────────┘    ▼
//! ```

use crate::memory::Arena;
use crate::virtio::{Layout, feature};
use crate::{Error, Result};
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Time that the backend may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Ring base at which a packed ring begins: index 0, wrap counter 1 (virtio 1.3, 2.8.1).
const PACKED_BASE: u16 = 1 << 15;
/// Name in errors of the requests that set up a queue.
const QUEUE: &str = "setting up a queue";

/// A queue's eventfds.
struct Queue {
    kick: EventFd,
    call: EventFd,
}

/// A connection to a vhost-user backend.
pub struct VhostUser {
    frontend: Frontend,
    offered: u64,
    features: u64,
    protocol: Protocol,
    queues: Vec<Queue>,
    kicks: u64,
}

impl fmt::Debug for VhostUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUser")
            .field("features", &format_args!("{:#x}", self.features))
            .field("protocol", &self.protocol)
            .field("queues", &self.queues.len())
            .finish_non_exhaustive()
    }
}

impl VhostUser {
    /// Connects to a backend for `queues` virtqueues and asks what it offers.
    pub fn connect(socket: &Path, queues: u16) -> Result<Self> {
        let at = |source| Error::Connect { path: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).map_err(at)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(at)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(at)?;
        let frontend = Frontend::from_stream(stream, queues.into());
        frontend.set_owner().map_err(failed("SET_OWNER"))?;
        let offered = frontend.get_features().map_err(failed("GET_FEATURES"))?;
        Ok(Self {
            frontend,
            offered,
            features: 0,
            protocol: Protocol::empty(),
            queues: Vec::new(),
            kicks: 0,
        })
    }

    /// Returns the virtio features that the backend offers.
    pub fn offered(&self) -> u64 {
        self.offered & !PROTOCOL_FEATURES
    }

    /// Agrees on the features that are both offered and `wanted`. VERSION_1 is a must.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64> {
        let features = self.offered & (wanted | PROTOCOL_FEATURES);
        if features & feature::VERSION_1 == 0 {
            return Err(Error::Features { features, offered: self.offered });
        }
        if features & PROTOCOL_FEATURES != 0 {
            let offered =
                self.frontend.get_protocol_features().map_err(failed("GET_PROTOCOL_FEATURES"))?;
            self.protocol = offered & (Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIG);
            self.frontend
                .set_protocol_features(self.protocol)
                .map_err(failed("SET_PROTOCOL_FEATURES"))?;
            if self.protocol.contains(Protocol::REPLY_ACK) {
                // From now on the backend reports a refusal; otherwise it would hang up or say
                // nothing.
                self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
        }
        self.frontend.set_features(features).map_err(failed("SET_FEATURES"))?;
        self.features = features & !PROTOCOL_FEATURES;
        Ok(self.features)
    }

    /// Reads the device's configuration if the backend keeps it. Most backends leave it to the VMM.
    pub fn config(&mut self, offset: u32, data: &mut [u8]) -> Option<()> {
        if !self.protocol.contains(Protocol::CONFIG) {
            return None;
        }
        let (flags, size) = (VhostUserConfigFlags::empty(), u32::try_from(data.len()).ok()?);
        let (_, bytes) = self.frontend.get_config(offset, size, flags, data).ok()?;
        data.copy_from_slice(bytes.get(..data.len())?);
        Some(())
    }

    /// Gives the backend all of `arena`. Ring addresses, too, are the device's: the frontend's own
    /// addresses, which the protocol wants for rings, are said to be the same.
    pub fn share(&mut self, arena: &Arena) -> Result<()> {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: arena.iova(),
            memory_size: arena.size() as u64,
            userspace_addr: arena.iova(),
            mmap_offset: 0,
            mmap_handle: arena.fd().as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).map(drop).map_err(failed("SET_MEM_TABLE"))
    }

    /// Sets up all queues, in order, and has the backend start on them.
    pub fn start(&mut self, arena: &Arena, layouts: &[Layout]) -> Result<()> {
        let packed = self.features & feature::RING_PACKED != 0;
        for (index, layout) in layouts.iter().enumerate() {
            let eventfd = || EventFd::new(EFD_NONBLOCK).map_err(|e| Error::io("an eventfd", e));
            let queue = Queue { kick: eventfd()?, call: eventfd()? };
            let addresses = VringConfigData {
                queue_max_size: layout.size,
                queue_size: layout.size,
                flags: 0,
                desc_table_addr: arena.iova_of(layout.desc),
                used_ring_addr: arena.iova_of(layout.used),
                avail_ring_addr: arena.iova_of(layout.avail),
                log_addr: None,
            };
            let base = if packed { PACKED_BASE } else { 0 };
            self.frontend
                .set_vring_num(index, layout.size)
                .and_then(|()| self.frontend.set_vring_base(index, base))
                .and_then(|()| self.frontend.set_vring_addr(index, &addresses))
                .and_then(|()| self.frontend.set_vring_call(index, &queue.call))
                .and_then(|()| self.frontend.set_vring_kick(index, &queue.kick))
                .map_err(failed(QUEUE))?;
            self.queues.push(queue);
        }
        if self.offered & PROTOCOL_FEATURES != 0 {
            // Without protocol features, queues start enabled.
            for index in 0..layouts.len() {
                self.frontend.set_vring_enable(index, true).map_err(failed("SET_VRING_ENABLE"))?;
            }
        }
        Ok(())
    }

    /// Rings a queue's doorbell.
    pub fn kick(&mut self, index: u16) -> Result<()> {
        self.kicks += 1;
        let queue = self.queues.get(usize::from(index));
        let queue = queue.ok_or_else(|| Error::Command(format!("queue {index} was not set up")))?;
        match queue.kick.write(1) {
            // A full counter has rung already.
            Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => {
                Err(Error::io("ringing a doorbell", e))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many doorbells were rung.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Returns the eventfd of a queue's interrupts. It stays open as long as the connection.
    pub fn call(&self, index: u16) -> Option<RawFd> {
        self.queues.get(usize::from(index)).map(|queue| queue.call.as_raw_fd())
    }

    /// Forgets a queue's interrupts so far. Returns true if there were any.
    pub fn clear_call(&self, index: u16) -> bool {
        self.queues.get(usize::from(index)).is_some_and(|queue| queue.call.read().is_ok())
    }
}

fn failed(what: &'static str) -> impl Fn(vhost::Error) -> Error {
    move |source| Error::VhostUser { what, source }
}
