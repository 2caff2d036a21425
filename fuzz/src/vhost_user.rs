//! The fuzz target and the property test of vhost-user check this: the function takes any bytes and
//! panics if a promise is broken.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use manifold_socket::{Answer, Assembler, Disconnect, Peer, Protocol as _, Session as _};
use manifold_vhost_user::spec::{
    F_PROTOCOL_FEATURES, HEADER_SIZE, flag, protocol_feature, request,
};
use manifold_vhost_user::{
    Capabilities, Device, DeviceStatus, Failure, Header, QueueState, Region, RingSetup, Session,
    VhostUser,
};

const RINGS: u16 = 4;
const MAX_RING_SIZE: u16 = 256;
const MAX_REGIONS: usize = 512;
const MAX_MTU: u16 = 1500;
/// Features VIRTIO_F_VERSION_1 and VIRTIO_F_RING_PACKED.
const FEATURES: u64 = 1 << 32 | 1 << 34;
const ALL_PROTOCOL_FEATURES: u64 = protocol_feature::MQ
    | protocol_feature::RARP
    | protocol_feature::REPLY_ACK
    | protocol_feature::NET_MTU
    | protocol_feature::INFLIGHT_SHMFD
    | protocol_feature::RESET_DEVICE
    | protocol_feature::CONFIGURE_MEM_SLOTS
    | protocol_feature::STATUS;
/// Requests with a reply of their own.
const WITH_REPLY: [u32; 7] = [
    request::GET_FEATURES,
    request::GET_PROTOCOL_FEATURES,
    request::GET_VRING_BASE,
    request::GET_QUEUE_NUM,
    request::GET_INFLIGHT_FD,
    request::GET_MAX_MEM_SLOTS,
    request::GET_STATUS,
];

/// Plays `data` as what a client sends. The first byte says how: in pieces of what size, and
/// whether features are negotiated and memory and a ring set up before. Bytes of each piece say
/// whether descriptors come with it.
///
/// Every message has at most one reply, which answers it; the device is asked only for what is in
/// range and what it has; all that it was given is taken back at the end.
pub(crate) fn session(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let device = Arc::new(Inert::default());
    let mut client = Client {
        session: VhostUser.open(Arc::clone(&device) as _, Peer { pid: 1, uid: 0, gid: 0 }),
        assembler: Assembler::new(VhostUser::MAX_FIRST_PAYLOAD),
        head: Vec::new(),
    };
    if first & 0x80 != 0 {
        for (code, payload, fds) in prologue(first & 0x40 != 0) {
            let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            let header = [code, flag::VERSION | flag::NEED_REPLY, size].map(u32::to_ne_bytes);
            let bytes = [header.concat(), payload].concat();
            assert_eq!(client.play(&bytes, bytes.len(), |_| make(fds)), None, "request {code}");
        }
    }
    let piece = usize::from(first & 0x1f) + 1;
    // Few pieces bring descriptors, or few requests would be served.
    let fds = |next: u8| match next {
        0xf0..=0xf3 => make(Fds { files: usize::from(next & 3), events: 0 }),
        0xf4..=0xf7 | 0x0c..=0x0e => make(Fds { files: 0, events: 1 }),
        0x05 | 0x20 | 0x25 => make(Fds { files: 1, events: 0 }),
        _ => Vec::new(),
    };
    let end = client.play(data, piece, fds);
    client.session.end(&end.unwrap_or(Disconnect::Closed));
    assert!(!client.session.is_attached());
    let state = device.state();
    assert!(!state.is_attached && state.regions.is_empty() && state.rings.is_empty());
}

/// The number of descriptors of each kind that come with a piece.
#[derive(Clone, Copy)]
struct Fds {
    files: usize,
    events: usize,
}

fn make(Fds { files, events }: Fds) -> Vec<OwnedFd> {
    let file = || File::open("/dev/null").ok().map(OwnedFd::from);
    let event = || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok();
    (0..files).filter_map(|_| file()).chain((0..events).filter_map(|_| event())).collect()
}

/// Returns what a proper client says first: features, and with `ring` a region of memory and one
/// ring that is served.
fn prologue(ring: bool) -> Vec<(u32, Vec<u8>, Fds)> {
    let none = Fds { files: 0, events: 0 };
    let longs = |longs: &[u64]| longs.iter().flat_map(|long| long.to_ne_bytes()).collect();
    let pair = |index: u32, value: u32| [index, value].map(u32::to_ne_bytes).concat();
    let mut messages = vec![
        (request::SET_PROTOCOL_FEATURES, longs(&[ALL_PROTOCOL_FEATURES]), none),
        (request::SET_FEATURES, longs(&[FEATURES & 1 << 32 | F_PROTOCOL_FEATURES]), none),
    ];
    if ring {
        let region = longs(&[0, 0x1_0000, 0x1_0000, 0x20_0000, 0]);
        let addresses = longs(&[0, 0x20_0000, 0x20_2000, 0x20_1000, 0]);
        messages.extend([
            (request::ADD_MEM_REG, region, Fds { files: 1, events: 0 }),
            (request::SET_VRING_NUM, pair(1, 16), none),
            (request::SET_VRING_ADDR, [pair(1, 0), addresses[8..].to_vec()].concat(), none),
            (request::SET_VRING_KICK, longs(&[1]), Fds { files: 0, events: 1 }),
            (request::SET_VRING_ENABLE, pair(1, 1), none),
        ]);
    }
    messages
}

/// A client's end of the connection, without a socket.
struct Client {
    session: Session,
    assembler: Assembler<Header>,
    /// Header of the message under way, as far as it was sent.
    head: Vec<u8>,
}

impl Client {
    /// Sends `stream` in pieces of at most `piece` bytes. Returns why the connection ended, if it
    /// did.
    fn play(
        &mut self,
        stream: &[u8],
        piece: usize,
        fds: impl Fn(u8) -> Vec<OwnedFd>,
    ) -> Option<Disconnect> {
        let mut answer = Answer::default();
        let mut rest = stream;
        while let Some(&next) = rest.first() {
            let space = self.assembler.space();
            let n = piece.min(space.len()).min(rest.len());
            let (sent, left) = rest.split_at(n);
            space[..n].copy_from_slice(sent);
            let missing = HEADER_SIZE - self.head.len();
            self.head.extend(sent.iter().take(missing));
            rest = left;
            match self.assembler.advance(n, fds(next)) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(broken) => {
                    self.session.broken(broken, &mut answer);
                    assert!(answer.bytes.is_empty() && answer.end.is_some());
                    return answer.end;
                }
            }
            let message = self.assembler.take().expect("it is complete");
            self.session.receive(message, &mut answer);
            self.check(&answer);
            self.head.clear();
            if answer.end.is_some() {
                return answer.end;
            }
        }
        None
    }

    /// Checks the answer to the message that was sent last.
    fn check(&self, answer: &Answer) {
        let fields = |bytes: &[u8]| {
            let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word));
            words.collect::<Vec<_>>()
        };
        let request = fields(&self.head);
        let (code, flags) = (request[0], request[1]);
        if answer.bytes.is_empty() {
            assert!(answer.fds.is_empty() && answer.refusal.is_none());
            // A request that has a reply gets it, or the connection ends.
            assert!(answer.end.is_some() || !WITH_REPLY.contains(&code));
            return;
        }
        assert!(answer.end.is_none());
        let (head, payload) = answer.bytes.split_at(HEADER_SIZE);
        assert_eq!(fields(head), [code, flag::VERSION | flag::REPLY, payload.len() as u32]);
        assert_eq!(answer.fds.len(), usize::from(code == request::GET_INFLIGHT_FD));
        let is_asked_for = WITH_REPLY.contains(&code) || flags & flag::NEED_REPLY != 0;
        assert!(is_asked_for, "a reply to {code} that was not asked for");
        if WITH_REPLY.contains(&code) {
            assert!(answer.refusal.is_none(), "a refusal in place of the reply to {code}");
        } else {
            assert_eq!(payload, u64::from(answer.refusal.is_some()).to_ne_bytes());
        }
    }
}

/// A device that does nothing, and checks what it is asked to do.
#[derive(Default)]
struct Inert(Mutex<State>);

#[derive(Default)]
struct State {
    is_attached: bool,
    regions: Vec<Region>,
    /// Rings that are served, with their eventfds.
    rings: BTreeMap<u16, RingSetup>,
}

impl Inert {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state, for a method that only a client that has the device can call.
    fn attached(&self) -> std::sync::MutexGuard<'_, State> {
        let state = self.state();
        assert!(state.is_attached);
        state
    }
}

impl Device for Inert {
    fn capabilities(&self) -> Capabilities {
        Capabilities { features: FEATURES, rings: RINGS, max_ring_size: MAX_RING_SIZE }
    }

    fn attached(&self, _: &Peer, _: Arc<DeviceStatus>) -> Result<(), Failure> {
        assert!(!std::mem::replace(&mut self.state().is_attached, true));
        Ok(())
    }

    fn detached(&self, _: &Disconnect) {
        let mut state = self.attached();
        assert!(state.regions.is_empty() && state.rings.is_empty());
        state.is_attached = false;
    }

    fn map(&self, region: &Region, _: OwnedFd) -> Result<(), Failure> {
        let mut state = self.attached();
        let ends = [region.guest_address, region.user_address, region.offset];
        assert!(region.size > 0 && ends.iter().all(|at| at.checked_add(region.size).is_some()));
        for other in &state.regions {
            let apart = |a: u64, b: u64| a + region.size <= b || b + other.size <= a;
            assert!(apart(region.guest_address, other.guest_address));
            assert!(apart(region.user_address, other.user_address));
        }
        state.regions.push(*region);
        assert!(state.regions.len() <= MAX_REGIONS);
        Ok(())
    }

    fn unmap(&self, region: &Region) {
        let mut state = self.attached();
        let at = state.regions.iter().position(|other| other == region).expect("it is mapped");
        state.regions.swap_remove(at);
    }

    fn start_ring(&self, ring: u16, setup: RingSetup) -> Result<(), Failure> {
        let mut state = self.attached();
        assert!(ring < RINGS && (1..=MAX_RING_SIZE).contains(&setup.size));
        assert_eq!(setup.features & !(FEATURES | F_PROTOCOL_FEATURES), 0);
        assert!(setup.kick.is_some() || ring.is_multiple_of(2), "a ring that is to be polled");
        for at in [setup.descriptors, setup.driver, setup.device] {
            let holds = |region: &Region| {
                at.checked_sub(region.guest_address).is_some_and(|within| within < region.size)
            };
            assert!(state.regions.iter().any(holds), "{at:#x} is not the client's memory");
        }
        setup.fds.interrupt();
        assert!(state.rings.insert(ring, setup).is_none(), "it is served already");
        Ok(())
    }

    fn stop_ring(&self, ring: u16) -> QueueState {
        self.attached().rings.remove(&ring).expect("it is served").position
    }

    fn use_pairs(&self, pairs: u16) {
        let _state = self.attached();
        assert!((1..=RINGS / 2).contains(&pairs));
    }

    fn announce(&self, _: [u8; 6]) {
        drop(self.attached());
    }

    fn set_mtu(&self, mtu: u16) -> Result<(), Failure> {
        drop(self.attached());
        if mtu > MAX_MTU { Err("too large".into()) } else { Ok(()) }
    }

    fn inflight_size(&self, size: u16, _: bool) -> Option<u64> {
        (1..=MAX_RING_SIZE).contains(&size).then(|| u64::from(size) * 16 + 16)
    }
}
