//! This module is a session, the protocol as a state machine without I/O: a message comes in, an
//! answer goes out.
//!
//! ```text
//!   Message ─► Session::receive ─► Answer { bytes, descriptors, whether that was the last }
//!                 │
//!            Device calls
//! ```

mod dispatch;
mod info;
mod irqs;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use manifold_socket::{Answer, Broken, Disconnect, Message, Peer};
use rustix::io::Errno;

use crate::codec::{Capabilities, Command, Header, Kind, Reply, Request, Version};
use crate::device::{Device, DeviceInfo, IrqInfo};
use crate::spec;

/// Number of descriptors in one message that a client is told it may send. QEMU takes no number
/// above 16. More are accepted, up to what the kernel passes: Cloud Hypervisor sends all eventfds
/// at once, whatever it is told.
const ADVERTISED_MSG_FDS: u64 = 16;

/// The connection of one client.
pub struct Session {
    device: Arc<dyn Device>,
    peer: Peer,
    max_data_xfer_size: u32,
    state: State,
}

enum State {
    New,
    Attached(Attached),
    Ended,
}

/// The limits that were agreed on, and what does not change while the client is attached.
struct Attached {
    info: DeviceInfo,
    regions: Vec<Region>,
    irqs: Vec<IrqInfo>,
    /// Number of descriptors the client takes in one message.
    client_max_fds: usize,
    write_multiple: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    size: u64,
    readable: bool,
    writable: bool,
}

/// Writes the header of a reply whose payload is complete, or empties it if no reply is wanted.
fn finish(answer: &mut Answer, request: &Header) {
    if request.is_no_reply() {
        answer.fds.clear();
        answer.bytes.clear();
        return;
    }
    let payload = answer.bytes.len().saturating_sub(spec::HEADER_SIZE);
    if let Some(head) = answer.bytes.first_chunk_mut() {
        *head = request.reply(payload).encode();
    }
}

/// Makes the answer an error reply, or nothing if no reply is wanted.
fn refuse(answer: &mut Answer, request: &Header, errno: Errno) {
    answer.fds.clear();
    answer.bytes.clear();
    if !request.is_no_reply() {
        answer.bytes.extend(error_reply(request, errno));
    }
}

/// Returns the message that tells a client that its request failed.
pub(crate) fn error_reply(request: &Header, errno: Errno) -> [u8; spec::HEADER_SIZE] {
    request.error_reply(errno.raw_os_error().unsigned_abs()).encode()
}

/// The errno of an error reply, with whether the connection ends with it.
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

impl manifold_socket::Session for Session {
    type Header = Header;

    fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached(_))
    }

    fn receive(&mut self, message: Message<'_, Header>, answer: &mut Answer) {
        answer.clear();
        let Message { header, payload, fds } = message;
        match header.kind() {
            Some(Kind::Request) => {}
            Some(Kind::Reply) => return self.reply(&header, answer),
            None => {
                refuse(answer, &header, Errno::INVAL);
                answer.end = Some(Disconnect::Protocol("neither a request nor a reply"));
                return;
            }
        }
        // The payload is appended after room for the header.
        answer.bytes.resize(spec::HEADER_SIZE, 0);
        match self.request(&header, payload, fds, answer) {
            Ok(()) => finish(answer, &header),
            Err(Refusal { errno, end }) => {
                tracing::debug!(command = header.command, %errno, "request refused");
                refuse(answer, &header, errno);
                answer.end = end;
            }
        }
    }

    fn broken(&mut self, broken: Broken<Header>, answer: &mut Answer) {
        answer.clear();
        let (header, errno, what) = match broken {
            Broken::Undersized(header) => (Some(header), Errno::INVAL, "a size below the header's"),
            Broken::Oversized(header) => (Some(header), Errno::MSGSIZE, "a message too large"),
            Broken::TooManyFds => (None, Errno::INVAL, "too many descriptors in a message"),
        };
        // A reply is never answered.
        if let Some(header) = header.filter(|header| header.kind() == Some(Kind::Request)) {
            refuse(answer, &header, errno);
        }
        answer.end = Some(Disconnect::Protocol(what));
    }

    fn end(&mut self, how: &Disconnect) {
        if let State::Attached(_) = std::mem::replace(&mut self.state, State::Ended) {
            self.device.detached(how);
        }
    }
}

impl Session {
    /// Largest payload of a first message; capabilities are a few hundred bytes.
    pub(crate) const MAX_VERSION_PAYLOAD: usize = 16 << 10;

    /// Returns the largest payload of any message where transfers are of at most
    /// `max_data_xfer_size` bytes.
    pub(crate) fn max_payload(max_data_xfer_size: u32) -> usize {
        // A transfer has 16 bytes before its data. Vectors of booleans and multiple writes fit into
        // the lower bound.
        (max_data_xfer_size as usize).max(Self::MAX_VERSION_PAYLOAD).saturating_add(16)
    }

    pub(crate) fn new(device: Arc<dyn Device>, peer: Peer, max_data_xfer_size: u32) -> Self {
        Self { device, peer, max_data_xfer_size, state: State::New }
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

        let attached = Attached::new(self.device.as_ref(), &theirs.capabilities);
        let reply = self.capabilities(&attached, &theirs.capabilities);
        self.device.attached(&self.peer).map_err(|errno| Refusal {
            errno,
            end: Some(Disconnect::Unavailable(errno.to_string())),
        })?;
        self.state = State::Attached(attached);

        let (major, minor) = (spec::MAJOR, theirs.minor.min(spec::MINOR));
        Reply::Version(Version { major, minor, capabilities: reply }).encode(&mut answer.bytes);
        Ok(())
    }

    /// Returns this side's limits, and what it grants of what the client proposed.
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
            client_max_fds: usize::try_from(fds)
                .unwrap_or(usize::MAX)
                .min(manifold_socket::SCM_MAX_FDS),
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
