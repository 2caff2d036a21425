//! Memory of the client that is reached by message.

use std::io;

/// One DMA mapping without a descriptor: memory the client reads and writes on request (`VFIO_USER_DMA_READ`,
/// `VFIO_USER_DMA_WRITE`).
///
/// Usable from any thread but the connection's own, that is, not from inside a [`Device`](crate::Device) method of the
/// same connection: that thread receives the answers, so such a call fails with [`io::ErrorKind::Deadlock`]. For the same
/// reason a `Device` method must not wait for another thread that may be inside a call; the call would end by its
/// time-out only.
#[derive(Clone, Debug)]
pub struct RemoteDma {}

impl RemoteDma {
    /// Reads `data.len()` bytes at `iova`, in as many messages as the client's transfer size asks for.
    ///
    /// # Errors
    /// `InvalidInput` outside the mapping, `PermissionDenied` for a mapping that is write-only, `Deadlock` from the
    /// connection's own thread, `TimedOut` when the client does not answer, `NotConnected` when it is gone, or what the
    /// client answered.
    pub fn read(&self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        let _ = (iova, data);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes `data` at `iova`; otherwise as [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read), with `PermissionDenied` for a mapping that is read-only.
    pub fn write(&self, iova: u64, data: &[u8]) -> io::Result<()> {
        let _ = (iova, data);
        Err(io::ErrorKind::Unsupported.into())
    }
}
