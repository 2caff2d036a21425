//! This module is a client that sends whatever a test wants.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use manifold_vfio_user::codec::{Capabilities, Command, Header, Reply, Request, Version};
use manifold_vfio_user::{Errno, spec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

pub struct Raw {
    pub stream: UnixStream,
    next_id: u16,
}

/// A message as it came.
#[derive(Debug)]
pub struct Received {
    pub header: Header,
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Received {
    /// Returns the errno of an error reply; 0 if it is none.
    pub fn errno(&self) -> i32 {
        if self.header.is_error() {
            assert!(self.payload.is_empty() && self.fds.is_empty());
            self.header.error as i32
        } else {
            0
        }
    }

    pub fn reply(&self) -> Reply<'_> {
        assert_eq!(self.errno(), 0);
        Reply::decode(Command::from_raw(self.header.command).unwrap(), &self.payload).unwrap()
    }
}

impl Raw {
    pub fn connect(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    pub fn new(stream: UnixStream) -> Self {
        // No test waits that long for something that happens.
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { stream, next_id: 100 }
    }

    /// Connects and agrees on a version, with the capabilities of QEMU.
    pub fn attach(path: &Path) -> Self {
        let mut raw = Self::connect(path);
        let reply = raw.version(Capabilities {
            max_msg_fds: Some(16),
            max_data_xfer_size: Some(1 << 20),
            max_dma_maps: Some(65_535),
            pgsizes: Some(4096),
            write_multiple: Some(true),
        });
        assert_eq!(reply.errno(), 0);
        raw
    }

    pub fn version(&mut self, capabilities: Capabilities) -> Received {
        self.call(&Request::Version(Version { major: 0, minor: 0, capabilities }), &[])
    }

    /// Sends a request and receives its reply.
    pub fn call(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Received {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        self.call_raw(request.command().raw(), &payload, fds)
    }

    pub fn call_raw(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Received {
        let header = self.header(command, payload.len());
        self.send(&header, payload, fds);
        let received = self.receive();
        assert_eq!((received.header.id, received.header.command), (header.id, header.command));
        assert_eq!(received.header.flags & spec::TYPE_MASK, spec::TYPE_REPLY);
        received
    }

    /// Sends a request that asks for no reply.
    pub fn post(&mut self, request: &Request<'_>) {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        let mut header = self.header(request.command().raw(), payload.len());
        header.flags |= spec::FLAG_NO_REPLY;
        self.send(&header, &payload, &[]);
    }

    pub fn header(&mut self, command: u16, payload: usize) -> Header {
        self.next_id = self.next_id.wrapping_add(1);
        Header { command, ..Header::request(self.next_id, Command::Version, payload) }
    }

    pub fn send(&mut self, header: &Header, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(payload);
        self.send_bytes(&bytes, fds);
    }

    /// The first byte takes the descriptors along.
    pub fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let parts = [IoSlice::new(bytes)];
        let sent =
            sendmsg(&self.stream, &parts, &mut ancillary, SendFlags::NOSIGNAL).expect("send");
        self.stream.write_all(&bytes[sent..]).expect("send the rest");
    }

    pub fn receive(&mut self) -> Received {
        let mut head = [0; spec::HEADER_SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut head)];
        let got = recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .expect("receive a header");
        let fds = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        self.stream.read_exact(&mut head[got.bytes..]).expect("receive the rest of a header");
        let header = Header::decode(&head);
        let mut payload = vec![0; header.payload_size().expect("size")];
        self.stream.read_exact(&mut payload).expect("receive a payload");
        Received { header, payload, fds }
    }

    /// Checks that the server has closed the connection and sent nothing more.
    pub fn expect_end(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            // The server closed with something of ours unread.
            Err(error) if error.raw_os_error() == Some(Errno::CONNRESET.raw_os_error()) => {}
            other => panic!("the connection goes on: {other:?}"),
        }
    }

    /// Checks that the connection is in order.
    pub fn expect_alive(&mut self) {
        let access = manifold_vfio_user::codec::RegionAccess { offset: 0, region: 7, count: 4 };
        let reply = self.call(&Request::RegionRead(access), &[]);
        assert_eq!(reply.payload[16..], [0x34, 0x12, 0x78, 0x56]);
    }
}

impl Raw {
    /// Does something with the stream, then checks that the connection is in order.
    pub fn expect_alive_after(&mut self, f: impl FnOnce(&mut Self)) {
        f(self);
        self.expect_alive();
    }

    /// Checks that the connection ends after whatever was sent before.
    pub fn expect_end_eventually(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }
}

/// A watch that tells whether all copies of a descriptor that was sent have been closed.
pub struct Watch {
    reader: std::io::PipeReader,
    writer: std::io::PipeWriter,
}

impl Watch {
    pub fn new() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        Self { reader, writer }
    }

    /// Returns the descriptor to send.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Checks that nobody else has the descriptor any more.
    pub fn expect_closed(mut self) {
        drop(self.writer);
        // The read would block if somebody had the descriptor: give them a moment, then fail.
        let mut fds = [rustix::event::PollFd::new(&self.reader, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1), "still open");
        assert_eq!(self.reader.read(&mut [0]).unwrap(), 0);
    }
}
