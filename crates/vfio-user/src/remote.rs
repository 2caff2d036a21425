//! Memory of the client that is reached by message.
//!
//! ```text
//!   worker thread                         connection's thread
//!   RemoteDma::read ─► Requests ─► Sender ════════════════════► client
//!        ▲  waits         │                                       │
//!        └────────────────┴──◄── complete(reply) ◄── Session ◄════╛
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::Errno;
use crate::codec::{Command, Header, Reply, Request};

/// One DMA mapping without a descriptor: memory the client reads and writes on request
/// (`VFIO_USER_DMA_READ`, `VFIO_USER_DMA_WRITE`).
///
/// Usable from any thread but the connection's own, that is, not from inside a
/// [`Device`](crate::Device) method of the same connection: that thread receives the answers, so
/// such a call fails with [`io::ErrorKind::Deadlock`]. For the same reason a `Device` method should
/// not wait for a thread that may be inside a call. Where it has to (`dma_unmap`, `dma_unmap_all`
/// and `reset` wait for workers) the server helps: it fails calls that are under way, and new ones,
/// with `ECANCELED` until the method returns. Elsewhere the call ends by its time-out.
///
/// QEMU, for its part, answers no request while one of its virtual processors waits for a reply
/// from the device.
#[derive(Clone)]
pub struct RemoteDma {
    requests: Arc<Requests>,
    mapping: Mapping,
}

/// The addresses a [`RemoteDma`] is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) iova: u64,
    pub(crate) size: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Mapping {
    fn contains(&self, iova: u64, length: usize) -> bool {
        iova.checked_sub(self.iova)
            .and_then(|offset| self.size.checked_sub(offset))
            .is_some_and(|room| length as u64 <= room)
    }
}

impl std::fmt::Debug for RemoteDma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.mapping.fmt(f)
    }
}

impl RemoteDma {
    pub(crate) fn new(requests: Arc<Requests>, mapping: Mapping) -> Self {
        Self { requests, mapping }
    }

    /// Reads `data.len()` bytes at `iova`, in as many messages as the client's transfer size asks
    /// for.
    ///
    /// # Errors
    /// `InvalidInput` outside the mapping, `PermissionDenied` for a mapping that is write-only,
    /// `Deadlock` from the connection's own thread, `TimedOut` when the client does not answer,
    /// `ECANCELED` while the mapping is being removed, `NotConnected` when the client is gone, or
    /// what the client answered. After a time-out, calls fail at once until the client answers
    /// again.
    pub fn read(&self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        self.check(iova, data.len(), self.mapping.readable)?;
        let mut address = iova;
        for chunk in data.chunks_mut(self.requests.chunk()?) {
            self.requests.read(address, chunk)?;
            address = address.wrapping_add(chunk.len() as u64);
        }
        Ok(())
    }

    /// Writes `data` at `iova`; otherwise as [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read), with `PermissionDenied` for a mapping that is read-only.
    pub fn write(&self, iova: u64, data: &[u8]) -> io::Result<()> {
        self.check(iova, data.len(), self.mapping.writable)?;
        let mut address = iova;
        for chunk in data.chunks(self.requests.chunk()?) {
            self.requests.write(address, chunk)?;
            address = address.wrapping_add(chunk.len() as u64);
        }
        Ok(())
    }

    fn check(&self, iova: u64, length: usize, permitted: bool) -> io::Result<()> {
        if !self.mapping.contains(iova, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !permitted {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

/// Sends a message to the client, whole or not at all.
pub(crate) trait Sender: Send + Sync {
    /// Sends `bytes`, or fails with `TimedOut` after `deadline`.
    fn send(&self, bytes: &[u8], deadline: Instant) -> io::Result<()>;
}

/// Requests to the client that wait for their replies.
pub(crate) struct Requests {
    sender: Box<dyn Sender>,
    timeout: Duration,
    table: Mutex<Table>,
    answered: Condvar,
}

struct Table {
    /// The thread that receives, once there is one.
    receiver: Option<ThreadId>,
    /// Bytes of a transfer, once agreed on; 0 if the client takes none.
    chunk: usize,
    open: bool,
    /// A request timed out and nothing has been answered since.
    stalled: bool,
    /// The device removes this range at the moment.
    blocked: Option<Range>,
    next_id: u16,
    pending: HashMap<u16, Pending>,
}

struct Pending {
    command: Command,
    range: Range,
    outcome: Option<Result<Vec<u8>, Errno>>,
}

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    first: u64,
    last: u64,
}

impl Range {
    pub(crate) const ALL: Self = Self { first: 0, last: u64::MAX };

    pub(crate) fn new(first: u64, size: u64) -> Self {
        Self { first, last: first.saturating_add(size.saturating_sub(1)) }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Lifts the block of [`Requests::block`] when dropped.
pub(crate) struct Blocked<'a>(&'a Requests);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.table.lock().blocked = None;
    }
}

impl Requests {
    pub(crate) fn new(sender: Box<dyn Sender>, timeout: Duration) -> Self {
        let table = Table {
            receiver: None,
            chunk: 0,
            open: false,
            stalled: false,
            blocked: None,
            next_id: 0,
            pending: HashMap::new(),
        };
        Self { sender, timeout, table: Mutex::new(table), answered: Condvar::new() }
    }

    /// The client can be asked from now on, for `chunk` bytes at a time; the calling thread is the
    /// one that receives.
    pub(crate) fn open(&self, chunk: usize) {
        let mut table = self.table.lock();
        table.receiver = Some(thread::current().id());
        table.chunk = chunk;
        table.open = true;
    }

    /// The client is gone: fails what waits and whatever comes.
    pub(crate) fn close(&self) {
        let mut table = self.table.lock();
        table.open = false;
        for pending in table.pending.values_mut() {
            pending.outcome.get_or_insert(Err(Errno::NOTCONN));
        }
        self.answered.notify_all();
    }

    /// Fails requests for this range, now and until the guard is dropped.
    pub(crate) fn block(&self, range: Range) -> Blocked<'_> {
        let mut table = self.table.lock();
        table.blocked = Some(range);
        for pending in table.pending.values_mut().filter(|p| p.range.overlaps(&range)) {
            pending.outcome.get_or_insert(Err(Errno::CANCELED));
        }
        self.answered.notify_all();
        Blocked(self)
    }

    /// A reply arrived. Says whether somebody waits for it.
    pub(crate) fn complete(&self, header: &Header, payload: &[u8]) -> bool {
        let mut table = self.table.lock();
        // Late or not, the client answers.
        table.stalled = false;
        let Some(pending) = table.pending.get_mut(&header.id) else {
            return false;
        };
        if pending.outcome.is_some() || pending.command.raw() != header.command {
            return false;
        }
        pending.outcome = Some(if header.is_error() {
            Err(errno_from_wire(header.error))
        } else {
            Ok(payload.to_vec())
        });
        self.answered.notify_all();
        true
    }

    fn chunk(&self) -> io::Result<usize> {
        match self.table.lock().chunk {
            0 => Err(io::ErrorKind::Unsupported.into()),
            chunk => Ok(chunk),
        }
    }

    fn read(&self, address: u64, data: &mut [u8]) -> io::Result<()> {
        let count = data.len() as u64;
        let payload =
            self.call(&Request::DmaRead { address, count }, Range::new(address, count))?;
        match Reply::decode(Command::DmaRead, &payload) {
            Ok(Reply::DmaRead { address: at, data: read })
                if at == address && read.len() == data.len() =>
            {
                data.copy_from_slice(read);
                Ok(())
            }
            _ => {
                // The first QEMUs with vfio-user (10.1) laid these messages out differently: a
                // write would land four bytes off. Such a client is not asked again.
                tracing::warn!("the client's answers make no sense, its memory is not used");
                self.table.lock().chunk = 0;
                Err(wrong_answer())
            }
        }
    }

    fn write(&self, address: u64, data: &[u8]) -> io::Result<()> {
        let range = Range::new(address, data.len() as u64);
        self.call(&Request::DmaWrite { address, data }, range).map(drop)
    }

    /// Sends a request and waits for the payload of its reply.
    fn call(&self, request: &Request<'_>, range: Range) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let command = request.command();
        let id = self.begin(command, range)?;

        let mut bytes = vec![0; crate::spec::HEADER_SIZE];
        request.encode(&mut bytes);
        let payload = bytes.len() - crate::spec::HEADER_SIZE;
        if let Some(head) = bytes.first_chunk_mut() {
            *head = Header::request(id, command, payload).encode();
        }
        if let Err(error) = self.sender.send(&bytes, deadline) {
            let mut table = self.table.lock();
            table.pending.remove(&id);
            table.stalled |= error.kind() == io::ErrorKind::TimedOut;
            return Err(error);
        }

        let mut table = self.table.lock();
        loop {
            let timed_out = match table.pending.get_mut(&id).map(|pending| pending.outcome.take()) {
                Some(Some(outcome)) => {
                    table.pending.remove(&id);
                    return outcome.map_err(io::Error::from);
                }
                Some(None) => self.answered.wait_until(&mut table, deadline).timed_out(),
                None => return Err(wrong_answer()),
            };
            let unanswered = table.pending.get(&id).is_some_and(|p| p.outcome.is_none());
            if timed_out && unanswered {
                table.pending.remove(&id);
                table.stalled = true;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Takes an ID that no request under way has.
    fn begin(&self, command: Command, range: Range) -> io::Result<u16> {
        let mut table = self.table.lock();
        if table.receiver == Some(thread::current().id()) {
            return Err(io::ErrorKind::Deadlock.into());
        }
        if !table.open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if table.blocked.is_some_and(|blocked| blocked.overlaps(&range)) {
            return Err(Errno::CANCELED.into());
        }
        if table.stalled {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if table.pending.len() >= MAX_PENDING {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let mut id = table.next_id;
        while table.pending.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        table.next_id = id.wrapping_add(1);
        table.pending.insert(id, Pending { command, range, outcome: None });
        Ok(id)
    }
}

/// Requests under way at one time. Each has a thread that waits for it.
const MAX_PENDING: usize = 1024;

fn wrong_answer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the client's answer does not match the request")
}

/// An errno from a peer that may send anything.
fn errno_from_wire(raw: u32) -> Errno {
    match i32::try_from(raw) {
        Ok(raw @ 1..=4095) => Errno::from_raw_os_error(raw),
        _ => Errno::IO,
    }
}
