//! This module has what the tests of this crate share: a device that only remembers, and a client
//! that says whatever it likes.

#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use manifold_vhost_user::spec::{F_PROTOCOL_FEATURES, protocol_feature, request};
use manifold_vhost_user::{
    Capabilities, Config, Device, DeviceStatus, Disconnect, Endpoint, Failure, Peer, QueueState,
    Region, RingFds, RingSetup, Server, VhostUser,
};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub const VERSION_1: u64 = 1 << 32;
pub const RINGS: u16 = 4;
pub const NEED_REPLY: u32 = 1 | 8;

/// An event that a device was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Attached,
    Detached(Disconnect),
    Map(Region),
    Unmap(Region),
    Start { ring: u16, at: [u64; 3], size: u16, position: QueueState, kick: bool, tracked: bool },
    Stop(u16),
    Pairs(u16),
    Announce([u8; 6]),
    Mtu(u16),
}

#[derive(Default)]
pub struct Dummy {
    pub calls: Mutex<Vec<Call>>,
    pub fds: Mutex<Vec<Arc<RingFds>>>,
    pub status: Mutex<Option<Arc<DeviceStatus>>>,
    pub position: Mutex<QueueState>,
    pub refuses: AtomicBool,
    pub panics: AtomicBool,
}

impl Dummy {
    fn told(&self, call: Call) {
        self.calls.lock().push(call);
    }

    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock())
    }

    /// Waits for the client to be detached, and returns the reason.
    pub fn end(&self) -> Disconnect {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let end = self.calls.lock().iter().find_map(|call| match call {
                Call::Detached(how) => Some(how.clone()),
                _ => None,
            });
            if let Some(how) = end {
                return how;
            }
            assert!(Instant::now() < deadline, "the client is not detached");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Device for Dummy {
    fn capabilities(&self) -> Capabilities {
        Capabilities { features: VERSION_1 | 1 << 34, rings: RINGS, max_ring_size: 1024 }
    }

    fn attached(&self, _: &Peer, status: Arc<DeviceStatus>) -> Result<(), Failure> {
        assert!(!self.panics.load(Ordering::Relaxed), "as was asked for");
        if self.refuses.load(Ordering::Relaxed) {
            return Err("somebody else has it".into());
        }
        *self.status.lock() = Some(status);
        self.told(Call::Attached);
        Ok(())
    }

    fn detached(&self, how: &Disconnect) {
        self.told(Call::Detached(how.clone()));
    }

    fn map(&self, region: &Region, _: OwnedFd) -> Result<(), Failure> {
        if region.guest_address == BAD_REGION {
            return Err("cannot be mapped".into());
        }
        self.told(Call::Map(*region));
        Ok(())
    }

    fn unmap(&self, region: &Region) {
        self.told(Call::Unmap(*region));
    }

    fn start_ring(&self, ring: u16, setup: RingSetup) -> Result<(), Failure> {
        assert!(!self.panics.load(Ordering::Relaxed), "as was asked for");
        let at = [setup.descriptors, setup.driver, setup.device];
        let (kick, tracked) = (setup.kick.is_some(), setup.inflight.is_some());
        let RingSetup { size, position, .. } = setup;
        self.told(Call::Start { ring, at, size, position, kick, tracked });
        self.fds.lock().push(setup.fds);
        Ok(())
    }

    fn stop_ring(&self, ring: u16) -> QueueState {
        self.told(Call::Stop(ring));
        *self.position.lock()
    }

    fn use_pairs(&self, pairs: u16) {
        self.told(Call::Pairs(pairs));
    }

    fn announce(&self, mac: [u8; 6]) {
        self.told(Call::Announce(mac));
    }

    fn set_mtu(&self, mtu: u16) -> Result<(), Failure> {
        if mtu > 1500 {
            return Err("too large".into());
        }
        self.told(Call::Mtu(mtu));
        Ok(())
    }

    fn inflight_size(&self, size: u16, _: bool) -> Option<u64> {
        Some(u64::from(size) * 16 + 16)
    }
}

/// Guest address of a region that cannot be mapped.
pub const BAD_REGION: u64 = 0xbad_0000;

/// A server with one dummy, in a directory of its own.
pub struct Fixture {
    // The fields are dropped in this order.
    pub endpoint: Endpoint,
    pub server: Server,
    pub dummy: Arc<Dummy>,
    pub directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { handshake_timeout: Duration::from_millis(500), ..Config::default() };
        let server = Server::start(config, VhostUser).unwrap();
        let dummy = Arc::new(Dummy::default());
        let path = directory.path().join("vf0.vhost.sock");
        let endpoint = server.serve(path, "vf0", Arc::clone(&dummy) as _).unwrap();
        Self { endpoint, server, dummy, directory }
    }

    pub fn path(&self) -> &Path {
        self.endpoint.path()
    }

    pub fn client(&self) -> Raw {
        Raw::connect(self.path())
    }

    /// Returns a client that has negotiated everything.
    pub fn negotiated(&self) -> Raw {
        let mut client = self.client();
        let all = client.ask(request::GET_PROTOCOL_FEATURES);
        client.tell(request::SET_PROTOCOL_FEATURES, &all.to_ne_bytes());
        let features = VERSION_1 | F_PROTOCOL_FEATURES;
        assert_eq!(client.acknowledged(request::SET_FEATURES, &features.to_ne_bytes(), &[]), 0);
        assert_ne!(all & protocol_feature::REPLY_ACK, 0);
        client
    }
}

/// A client that says whatever it likes.
pub struct Raw(pub UnixStream);

impl Raw {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, flags).unwrap_or(0);
        // A client whose connection was ended sends no more.
        assert!(sent == bytes.len() || sent == 0);
    }

    pub fn tell(&mut self, code: u32, payload: &[u8]) {
        self.send(&message(code, 1, payload), &[]);
    }

    /// Sends a request and returns its own reply, a number.
    pub fn ask(&mut self, code: u32) -> u64 {
        self.tell(code, &[]);
        self.number(code)
    }

    /// Sends a request and returns how it ended: 0 means well.
    pub fn acknowledged(&mut self, code: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        self.send(&message(code, NEED_REPLY, payload), fds);
        self.number(code)
    }

    pub fn number(&mut self, code: u32) -> u64 {
        u64::from_ne_bytes(self.reply(code).try_into().unwrap())
    }

    pub fn reply(&mut self, code: u32) -> Vec<u8> {
        let mut header = [0; 12];
        self.0.read_exact(&mut header).unwrap();
        let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((field(0), field(4)), (code, 1 | 4));
        let mut payload = vec![0; field(8) as usize];
        self.0.read_exact(&mut payload).unwrap();
        payload
    }

    /// Returns whether the server has ended the connection, which it does soon or not at all.
    pub fn is_ended(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }

    /// Shares a region of 16 pages.
    pub fn share(&mut self, guest: u64, user: u64) -> u64 {
        let payload = [&1_u64.to_ne_bytes()[..], &region(guest, 0x10000, user)].concat();
        self.acknowledged(request::SET_MEM_TABLE, &payload, &[memory().as_fd()])
    }

    /// Sends everything it takes to start a ring at offsets 0, 1000h and 2000h of a region.
    pub fn set_up_ring(&mut self, ring: u32, user: u64) {
        let ack = |code, payload: &[u8], client: &mut Self| {
            assert_eq!(client.acknowledged(code, payload, &[]), 0);
        };
        ack(request::SET_VRING_NUM, &pair(ring, 256), self);
        ack(request::SET_VRING_BASE, &pair(ring, 7), self);
        ack(request::SET_VRING_ADDR, &addresses(ring, [user, user + 0x2000, user + 0x1000]), self);
    }

    pub fn kick(&mut self, ring: u32) -> u64 {
        let payload = u64::from(ring).to_ne_bytes();
        self.acknowledged(request::SET_VRING_KICK, &payload, &[event().as_fd()])
    }

    pub fn enable(&mut self, ring: u32, enable: u32) -> u64 {
        self.acknowledged(request::SET_VRING_ENABLE, &pair(ring, enable), &[])
    }
}

pub fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = [code, flags, payload.len() as u32].map(u32::to_ne_bytes).concat();
    [&header, payload].concat()
}

pub fn pair(index: u32, number: u32) -> Vec<u8> {
    [index, number].map(u32::to_ne_bytes).concat()
}

pub fn region(guest: u64, size: u64, user: u64) -> Vec<u8> {
    [guest, size, user, 0].map(u64::to_ne_bytes).concat()
}

/// Returns the payload with the addresses of descriptors, used and available ring.
pub fn addresses(ring: u32, at: [u64; 3]) -> Vec<u8> {
    [pair(ring, 0), at.map(u64::to_ne_bytes).concat(), vec![0; 8]].concat()
}

pub fn memory() -> OwnedFd {
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, 0x10000).unwrap();
    fd
}

pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}
