//! This module is a connected socket, through which bytes and descriptors go in and out.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

use crate::message::{Assembler, Broken, Header, SCM_MAX_FDS};

const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(SCM_MAX_FDS));

/// The process at the other end of a connection, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// ID of the process that connected; 0 if it is not visible from this process's PID namespace.
    pub pid: i32,
    /// ID of the process's effective user.
    pub uid: u32,
    /// ID of the process's effective group.
    pub gid: u32,
}

/// The socket of one client. One thread receives; any thread sends, a whole message at a time.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// A lock that is held while a message is sent.
    sending: Mutex<()>,
    /// True if this side has ended the connection.
    is_ended: AtomicBool,
}

/// The outcome of receiving.
#[derive(Debug)]
pub enum Received<H> {
    /// The message is complete.
    Message,
    /// Part of a message has arrived.
    Part,
    /// There is nothing at the moment, which occurs only without waiting.
    Nothing,
    /// The other side closed the connection, or this side shut it down.
    End,
    /// The stream is of no more use.
    Broken(Broken<H>),
}

impl Socket {
    /// Takes over a connected `fd`, which is in blocking mode.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, sending: Mutex::new(()), is_ended: AtomicBool::new(false) }
    }

    /// Returns the process that connected.
    pub fn peer(&self) -> Peer {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        let (pid, uid, gid) = getsockopt(&self.fd, PeerCredentials)
            .map_or((0, u32::MAX, u32::MAX), |peer| (peer.pid(), peer.uid(), peer.gid()));
        Peer { pid, uid, gid }
    }

    /// Receives the next piece of a message.
    ///
    /// # Errors
    /// What the system says; the connection is of no more use then.
    pub fn receive<H: Header>(
        &self,
        into: &mut Assembler<H>,
        wait: bool,
    ) -> Result<Received<H>, Errno> {
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, !wait);
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(into.space())];
        let received = match recvmsg(&self.fd, &mut parts, &mut ancillary, flags) {
            Ok(received) => received,
            Err(Errno::INTR) => return Ok(Received::Part),
            Err(Errno::AGAIN) if !wait => return Ok(Received::Nothing),
            // The other side closed with something of ours unread.
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(errno) => return Err(errno),
        };
        if received.bytes == 0 {
            return Ok(Received::End);
        }
        let fds: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        // The buffer holds all that one message can bring, so this is this process's own limit.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE);
        }
        Ok(match into.advance(received.bytes, fds) {
            Ok(true) => Received::Message,
            Ok(false) => Received::Part,
            Err(broken) => Received::Broken(broken),
        })
    }

    /// Sends a message, waiting for room until `deadline` or for as long as it takes.
    ///
    /// # Errors
    /// `TimedOut` if there was no room in time; nothing was sent then. If only a part could be sent
    /// the connection is shut down, as it is of no more use.
    pub fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        let _sending = match deadline {
            None => self.sending.lock(),
            Some(at) => self.sending.try_lock_until(at).ok_or(io::ErrorKind::TimedOut)?,
        };
        let mut rest = bytes;
        let mut fds = fds;
        while !rest.is_empty() {
            match self.send_some(rest, fds) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    fds = &[];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let Err(error) = self.wait_for_room(deadline) else { continue };
                    if rest.len() < bytes.len() {
                        // The bytes that followed would be taken for the rest of this message.
                        self.shut_down();
                    }
                    return Err(error);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// The errors are those of [`send`](Self::send).
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        self.send(bytes, &[], Some(Instant::now()))
    }

    fn send_some(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOMANYREFS);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut ancillary, flags)
    }

    fn wait_for_room(&self, deadline: Option<Instant>) -> io::Result<()> {
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reports whether the other side has closed its end.
    pub fn is_peer_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let now = timespec(Duration::ZERO);
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| fd.revents().intersects(gone))
    }

    /// Waits until either side has closed the connection, but no longer than `timeout`.
    pub fn wait_for_end(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
            match poll(&mut fds, Some(&timespec(left))) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }

    /// Ends the connection from this side, as [`is_ended`](Self::is_ended) says afterwards.
    pub fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.shut_down();
    }

    /// Reports whether this side has ended the connection.
    pub fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Makes whoever receives or sends stop waiting.
    pub fn shut_down(&self) {
        // The call fails only if there is nothing left to shut down.
        let _ = shutdown(&self.fd, Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Converts a time-out for `poll` or `epoll_wait`.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use crate::message::MAX_HEADER;

    /// A header that gives the length of the message, and nothing else.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Head {
        pub(crate) size: u32,
    }

    impl Head {
        pub(crate) fn bytes(self) -> [u8; Self::SIZE] {
            let [a, b, c, d] = self.size.to_ne_bytes();
            [0, 0, a, b, c, d]
        }
    }

    impl Header for Head {
        const SIZE: usize = 6;

        fn read(bytes: &[u8; MAX_HEADER]) -> Self {
            let [_, _, a, b, c, d, ..] = *bytes;
            Self { size: u32::from_ne_bytes([a, b, c, d]) }
        }

        fn payload_len(&self) -> Option<usize> {
            (self.size as usize).checked_sub(Self::SIZE)
        }
    }

    pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
        let size = (Head::SIZE + payload.len()) as u32;
        [&Head { size }.bytes(), payload].concat()
    }

    fn pair() -> (Socket, Socket) {
        let (a, b) = UnixStream::pair().unwrap();
        (Socket::new(a.into()), Socket::new(b.into()))
    }

    fn long(payload: usize) -> Vec<u8> {
        message(&(0..payload).map(|i| (i * 3) as u8).collect::<Vec<_>>())
    }

    #[test]
    fn a_message_larger_than_the_buffer_arrives_whole_with_its_descriptors_once() {
        let (a, b) = pair();
        let bytes = long(1 << 20);
        let sent = bytes.clone();
        let sender = thread::spawn(move || {
            let fds = [a.as_fd(), a.as_fd()];
            a.send(&sent, &fds, None).unwrap();
        });
        // The sender has time to run into the full buffer.
        thread::sleep(Duration::from_millis(50));
        let mut assembler = Assembler::<Head>::new(1 << 20);
        while !matches!(b.receive(&mut assembler, true).unwrap(), Received::Message) {}
        let message = assembler.take().unwrap();
        assert_eq!(message.payload, &bytes[Head::SIZE..]);
        assert_eq!(message.fds.len(), 2);
        sender.join().unwrap();
    }

    #[test]
    fn a_message_cut_short_ends_the_connection() {
        let (a, b) = pair();
        let soon = || Some(Instant::now() + Duration::from_millis(50));
        let error = a.send(&long(1 << 20), &[], soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = a.send(&message(&[]), &[], soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(b.is_peer_gone());
    }

    #[test]
    fn a_message_with_no_room_at_all_leaves_the_connection_as_it_is() {
        let (a, b) = pair();
        while a.try_send(&message(&[])).is_ok() {}
        let soon = Some(Instant::now() + Duration::from_millis(50));
        assert_eq!(a.send(&message(&[]), &[], soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!b.is_peer_gone());
        let mut assembler = Assembler::<Head>::new(0);
        while !matches!(b.receive(&mut assembler, false).unwrap(), Received::Nothing) {
            assembler.take();
        }
        a.try_send(&message(&[])).unwrap();
    }

    #[test]
    fn ending_wakes_whoever_waits() {
        let (a, _b) = pair();
        thread::scope(|scope| {
            let receiving = scope.spawn(|| a.receive(&mut Assembler::<Head>::new(0), true));
            let sending = scope.spawn(|| {
                loop {
                    if let Err(error) = a.send(&long(1 << 16), &[], None) {
                        return error.kind();
                    }
                }
            });
            thread::sleep(Duration::from_millis(50));
            a.end();
            assert!(matches!(receiving.join().unwrap(), Ok(Received::End)));
            assert_eq!(sending.join().unwrap(), io::ErrorKind::BrokenPipe);
        });
    }
}
