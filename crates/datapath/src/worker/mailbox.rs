//! The mailbox of a worker holds commands and kicks from other threads.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use manifold_virtio::ring::QueueState;
use parking_lot::Mutex;

use crate::error::Error;
use crate::wake::waker::WorkerWaker;

/// The answer to a command: the place that a queue had reached, if the command stopped one.
pub(crate) type Reply = Result<Option<QueueState>, Error>;

/// Sends the answer to a command.
pub(crate) type ReplySender = SyncSender<Reply>;

/// Commands that wait for a worker.
struct Pending<C> {
    /// False once the worker has ended, so that nobody would answer.
    open: bool,
    commands: VecDeque<(C, ReplySender)>,
}

/// The commands and kicks that other threads have for a worker. `C` is its commands.
pub(crate) struct Mailbox<C> {
    pending: Mutex<Pending<C>>,
    /// Slots of the transmit queues that were kicked.
    kicked: Mutex<Vec<usize>>,
    /// True if there may be commands or kicks. The worker looks at it once per round, instead of
    /// taking the locks.
    filled: AtomicBool,
    pub(crate) waker: Arc<WorkerWaker>,
}

impl<C> Mailbox<C> {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Mailbox {
            pending: Mutex::new(Pending { open: true, commands: VecDeque::new() }),
            kicked: Mutex::default(),
            filled: AtomicBool::new(false),
            waker: Arc::new(WorkerWaker::new()?),
        }))
    }

    /// Adds a command. The answer comes through the result.
    pub(crate) fn send(&self, command: C) -> Result<Receiver<Reply>, Error> {
        let (reply, wait) = sync_channel(1);
        let mut pending = self.pending.lock();
        if !pending.open {
            return Err(Error::WorkerGone);
        }
        pending.commands.push_back((command, reply));
        drop(pending);
        self.announce();
        Ok(wait)
    }

    /// Says that the transmit queue in `slot` was kicked.
    pub(crate) fn kick(&self, slot: usize) {
        self.kicked.lock().push(slot);
        self.announce();
    }

    fn announce(&self) {
        self.filled.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns true if there may be commands or kicks.
    pub(crate) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Returns true, once, if there may be commands or kicks. Mostly there are none, and a load
    /// costs nothing.
    #[inline]
    pub(crate) fn take_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed) && self.filled.swap(false, Ordering::Acquire)
    }

    /// Takes the next command.
    pub(crate) fn next(&self) -> Option<(C, ReplySender)> {
        self.pending.lock().commands.pop_front()
    }

    /// Exchanges the kicks for an empty vector.
    pub(crate) fn swap_kicked(&self, kicked: &mut Vec<usize>) {
        std::mem::swap(kicked, &mut *self.kicked.lock());
    }
}

/// Closes a worker's mailbox when its thread ends, however that comes. Nobody is then left waiting
/// for an answer, nor for frames in flight: the other workers are woken and find the links
/// abandoned.
pub(crate) struct CloseOnExit<C> {
    pub(crate) mailbox: Arc<Mailbox<C>>,
    pub(crate) wakers: Vec<Arc<WorkerWaker>>,
}

impl<C> Drop for CloseOnExit<C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "a worker panicked: its queues are served no more; please report this as a bug"
            );
        }
        let mut pending = self.mailbox.pending.lock();
        pending.open = false;
        pending.commands.clear();
        drop(pending);
        self.wakers.iter().for_each(|waker| waker.signal());
    }
}
