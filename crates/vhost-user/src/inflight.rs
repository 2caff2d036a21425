//! This module keeps the file in which chains in flight are tracked, shared with the client so that
//! it outlives this process ("Inflight I/O tracking"). Whoever serves a ring decides what its part
//! contains.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use crate::codec::InflightDescription;
use crate::device::Inflight;

/// Alignment of the rings' parts in bytes.
const ALIGNMENT: u64 = 64;

/// The reason why chains in flight cannot be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrackingError {
    /// The device does not track.
    #[error("chains in flight of rings of {0} entries are not tracked")]
    Unserved(u16),
    /// The file does not have the rings' parts.
    #[error("a file of {size:#x} bytes at {offset:#x} for {queues} rings")]
    Description {
        /// The size that the client gave, in bytes.
        size: u64,
        /// Offset in the file.
        offset: u64,
        /// Number of rings.
        queues: u16,
    },
    /// There is no memory for the file.
    #[error("no memory to track chains in flight: {0}")]
    Memory(#[from] Errno),
}

/// The file in which chains in flight are tracked, and the layout of its parts.
#[derive(Debug)]
pub(crate) struct Tracking {
    file: Arc<OwnedFd>,
    description: InflightDescription,
    /// Size of one ring's part in bytes.
    part: u64,
}

impl Tracking {
    /// Makes a new file for what the client asks for. `part` says what a ring of a size takes.
    pub(crate) fn new(
        asked: &InflightDescription,
        part: impl Fn(u16) -> Option<u64>,
    ) -> Result<Self, TrackingError> {
        let part = aligned(asked.queue_size, part)?;
        let description =
            InflightDescription { size: part * u64::from(asked.queues), offset: 0, ..*asked };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("vhost-user-inflight", flags)?;
        ftruncate(&file, description.size)?;
        // A client that cuts the file short would crash whoever has it mapped.
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self { file: Arc::new(file), description, part })
    }

    /// Takes the file that the client has kept.
    pub(crate) fn of_client(
        description: &InflightDescription,
        file: OwnedFd,
        part: impl Fn(u16) -> Option<u64>,
    ) -> Result<Self, TrackingError> {
        let part = aligned(description.queue_size, part)?;
        let InflightDescription { size, offset, queues, .. } = *description;
        let needed = part * u64::from(queues);
        if size < needed || offset.checked_add(size).is_none() {
            return Err(TrackingError::Description { size, offset, queues });
        }
        Ok(Self { file: Arc::new(file), description: *description, part })
    }

    pub(crate) fn description(&self) -> &InflightDescription {
        &self.description
    }

    pub(crate) fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.file)
    }

    /// Returns a ring's part, if it has one.
    pub(crate) fn part(&self, ring: u16) -> Option<Inflight> {
        (ring < self.description.queues).then(|| Inflight {
            file: Arc::clone(&self.file),
            offset: self.description.offset + self.part * u64::from(ring),
            size: self.part,
        })
    }
}

fn aligned(size: u16, part: impl Fn(u16) -> Option<u64>) -> Result<u64, TrackingError> {
    let part = part(size).ok_or(TrackingError::Unserved(size))?;
    Ok(part.next_multiple_of(ALIGNMENT))
}
