//! The protocol as a state machine: a message in, an answer out. No I/O of its own.
//!
//! ```text
//!   Message ─► Session::receive ─► Answer { bytes, descriptors, whether that was the last }
//!                 │
//!            Device calls
//! ```

mod dispatch;
mod info;
mod irqs;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::assemble::{Broken, Message};
use crate::codec::{Capabilities, Command, Header, Kind, Reply, Request, Version};
use crate::device::{Device, DeviceInfo, IrqInfo, Peer};
use crate::{Errno, spec};

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// The client closed it between two messages.
    Closed,
    /// The client closed it, or died, in the middle of a message.
    MidMessage,
    /// The client broke the protocol in a way that leaves the byte stream meaningless.
    Protocol(&'static str),
    /// The device refused the client. A device never sees this one.
    Refused(Errno),
    /// The socket failed.
    Socket(Errno),
    /// This side ended it.
    Server,
    /// A method of the device panicked.
    DevicePanicked,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client closed the connection"),
            Self::MidMessage => f.write_str("the client went away in the middle of a message"),
            Self::Protocol(what) => write!(f, "protocol error: {what}"),
            Self::Refused(errno) => write!(f, "the device refused the client: {errno}"),
            Self::Socket(errno) => write!(f, "the socket failed: {errno}"),
            Self::Server => f.write_str("this side closed the connection"),
            Self::DevicePanicked => f.write_str("the device panicked"),
        }
    }
}

/// Descriptors in one message that a client is told it may send. QEMU takes no number above 16.
/// More are accepted, up to what the kernel passes: Cloud Hypervisor sends all eventfds at once,
/// whatever it is told.
const ADVERTISED_MSG_FDS: u64 = 16;

/// One client's connection.
pub(crate) struct Session {
    device: Arc<dyn Device>,
    /// Credentials of the client; the version is filled in when it is agreed on.
    peer: Peer,
    max_data_xfer_size: u32,
    state: State,
}

enum State {
    New,
    Attached(Attached),
    Ended,
}

/// What was agreed on, and what does not change while the client is attached.
struct Attached {
    info: DeviceInfo,
    regions: Vec<Region>,
    irqs: Vec<IrqInfo>,
    /// Descriptors the client takes in one message.
    client_max_fds: usize,
    write_multiple: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    size: u64,
    readable: bool,
    writable: bool,
}

/// What to send back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// A message, or nothing.
    pub(crate) bytes: Vec<u8>,
    /// Descriptors that go with it.
    pub(crate) fds: Vec<Arc<OwnedFd>>,
    /// Set if the connection ends after this.
    pub(crate) end: Option<Disconnect>,
}

impl Answer {
    fn clear(&mut self) {
        // What one large transfer has grown is not kept for ever.
        self.bytes.clear();
        self.bytes.shrink_to(64 << 10);
        self.fds.clear();
        self.end = None;
    }

    /// Makes room for the header; the payload is appended.
    fn begin(&mut self) {
        self.bytes.resize(spec::HEADER_SIZE, 0);
    }

    /// Writes the header, or drops it all if no reply is wanted.
    fn finish(&mut self, request: &Header) {
        if request.is_no_reply() {
            self.fds.clear();
            self.bytes.clear();
            return;
        }
        let payload = self.bytes.len().saturating_sub(spec::HEADER_SIZE);
        if let Some(head) = self.bytes.first_chunk_mut() {
            *head = request.reply(payload).encode();
        }
    }

    /// Makes it an error reply, or nothing if no reply is wanted.
    fn refuse(&mut self, request: &Header, errno: Errno) {
        self.fds.clear();
        self.bytes.clear();
        if !request.is_no_reply() {
            self.bytes.extend(error_reply(request, errno));
        }
    }

    /// Appends a payload.
    fn put(&mut self, reply: &Reply<'_>) {
        reply.encode(&mut self.bytes);
    }
}

/// The message that tells a client its request failed.
pub(crate) fn error_reply(request: &Header, errno: Errno) -> [u8; spec::HEADER_SIZE] {
    request.error_reply(errno.raw_os_error().unsigned_abs()).encode()
}

/// An error reply, and whether the connection ends with it.
struct Refusal {
    errno: Errno,
    end: Option<Disconnect>,
}

impl Refusal {
    fn fatal(errno: Errno, what: &'static str) -> Self {
        Self { errno, end: Some(Disconnect::Protocol(what)) }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, end: None }
    }
}

impl Session {
    /// Largest payload of a first message; capabilities are a few hundred bytes.
    pub(crate) const MAX_VERSION_PAYLOAD: usize = 16 << 10;

    /// Largest payload of any message where transfers are of at most `max_data_xfer_size` bytes.
    pub(crate) fn max_payload(max_data_xfer_size: u32) -> usize {
        // A transfer has 16 bytes before its data. Vectors of booleans and multiple writes fit into
        // the lower bound.
        (max_data_xfer_size as usize).max(Self::MAX_VERSION_PAYLOAD).saturating_add(16)
    }

    pub(crate) fn new(device: Arc<dyn Device>, peer: Peer, max_data_xfer_size: u32) -> Self {
        Self { device, peer, max_data_xfer_size, state: State::New }
    }

    /// The client, once it is attached.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        matches!(self.state, State::Attached(_)).then_some(&self.peer)
    }

    /// Handles a message.
    pub(crate) fn receive(&mut self, message: Message<'_>, answer: &mut Answer) {
        answer.clear();
        let Message { header, payload, fds } = message;
        match header.kind() {
            Some(Kind::Request) => {}
            Some(Kind::Reply) => return self.reply(&header, answer),
            None => {
                answer.refuse(&header, Errno::INVAL);
                answer.end = Some(Disconnect::Protocol("neither a request nor a reply"));
                return;
            }
        }
        answer.begin();
        match self.request(&header, payload, fds, answer) {
            Ok(()) => answer.finish(&header),
            Err(Refusal { errno, end }) => {
                tracing::debug!(command = header.command, %errno, "request refused");
                answer.refuse(&header, errno);
                answer.end = end;
            }
        }
    }

    /// Answers a header after which the stream cannot be read any further.
    pub(crate) fn broken(&mut self, broken: Broken, answer: &mut Answer) {
        answer.clear();
        let (header, errno, what) = match broken {
            Broken::Undersized(header) => (Some(header), Errno::INVAL, "a size below the header's"),
            Broken::Oversized(header) => (Some(header), Errno::MSGSIZE, "a message too large"),
            Broken::TooManyFds => (None, Errno::INVAL, "too many descriptors in a message"),
        };
        // A reply is never answered.
        if let Some(header) = header.filter(|header| header.kind() == Some(Kind::Request)) {
            answer.refuse(&header, errno);
        }
        answer.end = Some(Disconnect::Protocol(what));
    }

    /// The connection is over. Tells the device, if it knew of the client.
    pub(crate) fn end(&mut self, how: &Disconnect) {
        if let State::Attached(_) = std::mem::replace(&mut self.state, State::Ended) {
            self.device.detached(how);
        }
    }

    fn reply(&self, header: &Header, answer: &mut Answer) {
        if matches!(self.state, State::New) {
            answer.end = Some(Disconnect::Protocol("a reply before the version"));
        } else {
            // The server asks for nothing; a reply is not worth the connection.
            tracing::debug!(id = header.id, command = header.command, "reply nobody waits for");
        }
    }

    fn request(
        &mut self,
        header: &Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        let command = Command::from_raw(header.command);
        if let State::New = self.state {
            if command != Some(Command::Version) {
                return Err(Refusal::fatal(Errno::INVAL, "the first message is not the version"));
            }
            return self.version(payload, &fds, answer);
        }
        let command = command.ok_or(Errno::OPNOTSUPP)?;
        let request = Request::decode(command, payload).map_err(|malformed| {
            tracing::debug!(?command, %malformed, "malformed request");
            Errno::INVAL
        })?;
        let State::Attached(attached) = &self.state else {
            return Err(Refusal::fatal(Errno::NOTCONN, "a request after the end"));
        };
        self.dispatch(attached, request, fds, answer).map_err(Refusal::from)
    }

    /// Agrees on a version (vfio-user, "VFIO_USER_VERSION") and attaches the client.
    fn version(
        &mut self,
        payload: &[u8],
        fds: &[OwnedFd],
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        let invalid = |what| Refusal::fatal(Errno::INVAL, what);
        let theirs = Version::decode(payload).map_err(|malformed| {
            tracing::debug!(%malformed, "malformed version");
            invalid("a malformed version")
        })?;
        if theirs.major != spec::MAJOR {
            return Err(invalid("an unknown major version"));
        }
        if !fds.is_empty() {
            return Err(invalid("descriptors with the version"));
        }

        self.peer.version = (spec::MAJOR, theirs.minor.min(spec::MINOR));
        let attached = Attached::new(self.device.as_ref(), &theirs.capabilities);
        let reply = self.capabilities(&attached, &theirs.capabilities);
        self.device
            .attached(&self.peer)
            .map_err(|errno| Refusal { errno, end: Some(Disconnect::Refused(errno)) })?;
        self.state = State::Attached(attached);

        let (major, minor) = self.peer.version;
        answer.put(&Reply::Version(Version { major, minor, capabilities: reply }));
        Ok(())
    }

    /// This side's limits, and what it grants of what the client proposed.
    fn capabilities(&self, attached: &Attached, theirs: &Capabilities) -> Capabilities {
        let ours = self.device.dma_limits();
        let proposed = theirs.max_dma_maps.unwrap_or(spec::DEFAULT_MAX_DMA_MAPS);
        let max_dma_maps = proposed.min(ours.max_maps);
        let differs = |is_default: bool, value| (!is_default).then_some(value);
        Capabilities {
            max_msg_fds: Some(ADVERTISED_MSG_FDS),
            max_data_xfer_size: Some(u64::from(self.max_data_xfer_size)),
            max_dma_maps: theirs
                .max_dma_maps
                .map(|_| max_dma_maps)
                .or(differs(max_dma_maps == spec::DEFAULT_MAX_DMA_MAPS, max_dma_maps)),
            pgsizes: theirs
                .pgsizes
                .map(|_| ours.page_sizes)
                .or(differs(ours.page_sizes == spec::DEFAULT_PAGE_SIZES, ours.page_sizes)),
            write_multiple: attached.write_multiple.then_some(true),
        }
    }
}

impl Attached {
    fn new(device: &dyn Device, theirs: &Capabilities) -> Self {
        let mut info = device.info();
        info.regions = info.regions.min(DeviceInfo::MAX_REGIONS);
        info.irqs = info.irqs.min(DeviceInfo::MAX_IRQS);
        let regions = (0..info.regions)
            .map(|index| device.region_info(index).unwrap_or_default())
            .map(|region| Region {
                size: region.size,
                readable: region.readable,
                writable: region.writable,
            })
            .collect();
        let irqs = (0..info.irqs).map(|index| device.irq_info(index).unwrap_or_default()).collect();
        let fds = theirs.max_msg_fds.unwrap_or(u64::from(spec::DEFAULT_MAX_MSG_FDS));
        Self {
            info,
            regions,
            irqs,
            client_max_fds: usize::try_from(fds).unwrap_or(usize::MAX).min(spec::SCM_MAX_FDS),
            write_multiple: theirs.write_multiple == Some(true),
        }
    }

    fn region(&self, index: u32) -> Result<&Region, Errno> {
        self.regions.get(index as usize).ok_or(Errno::INVAL)
    }

    fn irq(&self, index: u32) -> Result<&IrqInfo, Errno> {
        self.irqs.get(index as usize).ok_or(Errno::INVAL)
    }
}
