//! This module is the guest's own vfio-user client.

mod operations;

use super::spec::{self, command, flags};
use super::transport::Region;
use super::wire::{Fields, Header, Message};
use crate::{Error, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Number of descriptors that this client takes in one message.
const MAX_MSG_FDS: usize = 64;
/// Bytes of the largest message that this client takes.
const MAX_MESSAGE: usize = spec::HEADER_SIZE + 64 + spec::DEFAULT_MAX_DATA_XFER_SIZE;

/// A connection to a function. Commands are sent one at a time, each waits for its answer.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    timeout: Duration,
    next_id: u16,
    max_msg_fds: usize,
    max_data_xfer_size: usize,
    regions: Vec<Region>,
}

/// A message from the server.
#[derive(Debug)]
pub struct Received {
    /// First 16 bytes of the message.
    pub header: Header,
    /// All bytes after the header.
    pub payload: Vec<u8>,
    /// Descriptors that came with the message.
    pub fds: Vec<OwnedFd>,
}

impl Client {
    /// Connects, negotiates, and asks for the regions. `timeout` bounds the wait for every answer.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        let mut client = Self::connect_only(path, timeout)?;
        client.negotiate()?;
        client.read_regions()?;
        Ok(client)
    }

    /// Connects and says nothing; what follows is up to the caller.
    pub fn connect_only(path: &Path, timeout: Duration) -> Result<Self> {
        let socket = UnixStream::connect(path)
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        socket
            .set_read_timeout(Some(timeout))
            .and_then(|()| socket.set_write_timeout(Some(timeout)))
            .map_err(|e| Error::io("setting a socket timeout", e))?;
        Ok(Self {
            socket,
            timeout,
            next_id: 0,
            max_msg_fds: spec::DEFAULT_MAX_MSG_FDS,
            max_data_xfer_size: spec::DEFAULT_MAX_DATA_XFER_SIZE,
            regions: Vec::new(),
        })
    }

    /// Negotiates the protocol version (`VFIO_USER_VERSION`).
    pub fn negotiate(&mut self) -> Result<()> {
        let capabilities = format!(
            "{{\"capabilities\":{{\"max_msg_fds\":{MAX_MSG_FDS},\"max_data_xfer_size\":{}}}}}\0",
            spec::DEFAULT_MAX_DATA_XFER_SIZE
        );
        let (major, minor) = spec::VERSION;
        let version = u32::from(major) | u32::from(minor) << 16;
        let reply =
            self.request(command::VERSION, |m| m.u32(version).bytes(capabilities.as_bytes()), &[])?;
        let mut fields = Fields(&reply.payload);
        let (their_major, their_minor) = (fields.u16(), fields.u16());
        if their_major != Some(major) || their_minor.is_none_or(|theirs| theirs > minor) {
            return Err(protocol(
                command::VERSION,
                format!(
                    "version {their_major:?}.{their_minor:?} for a proposal of {major}.{minor}"
                ),
            ));
        }
        let json = fields.rest();
        let json = json.strip_suffix(&[0]).unwrap_or(json);
        if !json.is_empty() {
            let value: serde_json::Value = serde_json::from_slice(json)
                .map_err(|e| protocol(command::VERSION, format!("capabilities: {e}")))?;
            let limit = |name: &str, default: usize| {
                value
                    .get("capabilities")
                    .and_then(|c| c.get(name))
                    .and_then(serde_json::Value::as_u64)
                    .map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
            };
            self.max_msg_fds = limit("max_msg_fds", self.max_msg_fds);
            self.max_data_xfer_size = limit("max_data_xfer_size", self.max_data_xfer_size);
        }
        Ok(())
    }

    /// Asks what regions the function has.
    pub fn read_regions(&mut self) -> Result<()> {
        let reply =
            self.request(command::DEVICE_GET_INFO, |m| m.u32(16).u32(0).u32(0).u32(0), &[])?;
        let mut fields = Fields(&reply.payload);
        let (Some(_), Some(device_flags), Some(regions), Some(_irqs)) =
            (fields.u32(), fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(short(command::DEVICE_GET_INFO));
        };
        if device_flags & spec::DEVICE_IS_PCI == 0 {
            return Err(Error::Device("not a PCI device".into()));
        }
        if regions > 64 {
            return Err(protocol(command::DEVICE_GET_INFO, format!("{regions} regions")));
        }
        for index in 0..regions {
            let region = self.region_info(index)?;
            self.regions.push(region);
        }
        Ok(())
    }

    /// Asks for a region (`VFIO_USER_DEVICE_GET_REGION_INFO`). Mappable areas are not asked for:
    /// nothing here maps BARs.
    pub fn region_info(&mut self, index: u32) -> Result<Region> {
        let request = |m: Message| m.u32(32).u32(0).u32(index).u32(0).u64(0).u64(0);
        let reply = self.request(command::DEVICE_GET_REGION_INFO, request, &[])?;
        let mut fields = Fields(&reply.payload);
        match (fields.u32(), fields.u32(), fields.u32(), fields.u32(), fields.u64()) {
            (Some(_), Some(flags), Some(i), Some(_), Some(size)) if i == index => {
                Ok(Region { size, flags })
            }
            _ => Err(short(command::DEVICE_GET_REGION_INFO)),
        }
    }

    /// Sends one command and waits for its reply.
    pub fn request(
        &mut self,
        command: u16,
        payload: impl FnOnce(Message) -> Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Received> {
        let id = self.take_id();
        let message = payload(Message::new(id, command, flags::TYPE_COMMAND)).finish();
        self.send(command, &message, fds)?;
        self.wait_for(id, command)
    }

    /// Waits for the reply to command `id`.
    pub fn wait_for(&mut self, id: u16, command: u16) -> Result<Received> {
        let received = self.receive(command)?;
        if !received.header.is_reply() || received.header.id != id {
            return Err(protocol(
                command,
                format!("a reply to message {id} expected, {:?} came", received.header),
            ));
        }
        if received.header.is_error() {
            return Err(Error::Refused {
                command: command::name(command),
                errno: received.header.errno.cast_signed(),
            });
        }
        if received.header.command != command {
            return Err(protocol(command, format!("{:?} came", received.header)));
        }
        Ok(received)
    }

    /// Returns the next message ID.
    pub fn take_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// Sends bytes, with descriptors beside the first of them.
    pub fn send(&self, command: u16, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut rest = bytes;
        if !fds.is_empty() {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Error::Unsupported("that many descriptors in one message"));
            }
            let sent = rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
            .map_err(|e| self.failed(command, e.into()))?;
            rest = bytes.get(sent..).unwrap_or_default();
        }
        (&self.socket).write_all(rest).map_err(|e| self.failed(command, e))
    }

    /// Receives one message of any kind; `command` is what is being waited for.
    pub fn receive(&self, command: u16) -> Result<Received> {
        let mut fds = Vec::new();
        let mut header = [0; spec::HEADER_SIZE];
        self.fill(command, &mut header, &mut fds)?;
        let header = Header::decode(&header);
        let size = header.size as usize;
        if !(spec::HEADER_SIZE..=MAX_MESSAGE).contains(&size) {
            return Err(protocol(command, format!("a message of {size} bytes")));
        }
        let mut payload = vec![0; size - spec::HEADER_SIZE];
        (&self.socket).read_exact(&mut payload).map_err(|e| self.failed(command, e))?;
        Ok(Received { header, payload, fds })
    }

    /// Reads exactly `bytes`, collecting descriptors.
    fn fill(&self, command: u16, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MSG_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(rest)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
            .map_err(|e| self.failed(command, e.into()))?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if got.flags.contains(ReturnFlags::CTRUNC) {
                return Err(protocol(command, "more descriptors than were agreed on".into()));
            }
            if got.bytes == 0 {
                return Err(Error::Disconnected { command: command::name(command) });
            }
            done += got.bytes;
        }
        Ok(())
    }

    /// Translates a failed read or write of the socket.
    fn failed(&self, command: u16, source: std::io::Error) -> Error {
        use std::io::ErrorKind as Kind;
        let command = command::name(command);
        match source.kind() {
            Kind::WouldBlock | Kind::TimedOut => Error::Timeout { command, after: self.timeout },
            Kind::UnexpectedEof | Kind::BrokenPipe | Kind::ConnectionReset => {
                Error::Disconnected { command }
            }
            _ => Error::Io { what: command, source },
        }
    }

    /// Returns the socket.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

fn protocol(command: u16, reason: String) -> Error {
    Error::Protocol { command: command::name(command), reason }
}

fn short(command: u16) -> Error {
    protocol(command, "the reply is too short or of another kind".into())
}

#[cfg(test)]
mod tests;
