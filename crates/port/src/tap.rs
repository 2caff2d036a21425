//! This module is the uplink to a TAP interface of the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use arrayvec::ArrayVec;
use manifold_dma::Slice;

use crate::error::Error;
use crate::ioctl::{self, Name};

/// Length in bytes of the header before each frame, in both directions: `struct virtio_net_hdr`
/// with `num_buffers`, little-endian (virtio 1.3 section 5.1.6; `num_buffers` means nothing to a
/// TAP).
pub const VNET_HDR_LEN: usize = 12;

/// Number of parts that a send gathers without a heap allocation.
const FEW_PARTS: usize = 64;

/// Largest number of parts that the kernel takes in one writev (UIO_MAXIOV).
const MAX_PARTS: usize = 1024;

/// The offloads that the holder of a TAP completes for the host. The default takes nothing: the
/// host's kernel computes checksums and segments itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The host may hand over frames whose checksum is still to be computed. The other offloads
    /// need this one.
    pub checksum: bool,
    /// The host may hand over TCP over IPv4 frames still to be segmented, up to 64 KiB.
    pub tso4: bool,
    /// The host may hand over TCP over IPv6 frames still to be segmented.
    pub tso6: bool,
    /// The host may hand over frames still to be segmented with the ECN bit CWR.
    pub ecn: bool,
    /// The host may hand over UDP frames still to be segmented (Linux 6.2).
    pub uso: bool,
}

impl Offloads {
    fn flags(self) -> libc::c_uint {
        [
            (self.checksum, libc::TUN_F_CSUM),
            (self.tso4, libc::TUN_F_TSO4),
            (self.tso6, libc::TUN_F_TSO6),
            (self.ecn, libc::TUN_F_TSO_ECN),
            (self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

/// The result of [`Tap::send`] for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// The host has taken the frame.
    Done,
    /// The host takes no more frames at the moment: wait until the TAP is writable, or drop the
    /// frame.
    Full,
    /// The interface is down (`ip link set NAME up`); the frame is lost.
    Down,
    /// The host does not take this frame: it finds fault with it or its header, it lacks memory,
    /// or there are more than 1024 parts; the frame is lost.
    Refused,
}

/// A TAP interface of the host, with this process as its cable.
///
/// It never blocks: poll it through [`AsFd`]. The interface disappears with the last holder unless
/// it was made persistent (`ip tuntap add`).
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// Socket in the interface's network namespace, whichever thread asks later.
    control: OwnedFd,
}

impl Tap {
    /// Creates the interface `name`, or attaches to it where it exists and nobody else does, in
    /// the calling thread's network namespace.
    ///
    /// A new interface is down, with an MTU of 1500; see [`Tap::set_up`] and [`Tap::set_mtu`].
    pub fn open(name: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidName(name.to_owned());
        let request = Name::new(name).ok_or_else(invalid)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => Error::NoDriver,
                Some(libc::EACCES | libc::EPERM) => Error::Permission(name.to_owned()),
                _ => Error::Open(error),
            })?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        // The flags' values fit the request's 16 bits: 5002h.
        ioctl::set_iff(&file, request, flags as libc::c_short).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Error::Permission(name.to_owned()),
                Some(libc::EBUSY) => Error::Busy(name.to_owned()),
                Some(libc::EINVAL | libc::EEXIST) => Error::NotATap(name.to_owned()),
                _ => Error::Setup { name: name.to_owned(), action: "create or attach", source },
            }
        })?;
        let setup = |action| move |source| Error::Setup { name: name.to_owned(), action, source };
        ioctl::set_vnet_hdr_len(&file, VNET_HDR_LEN as libc::c_int)
            .map_err(setup("set the header's length"))?;
        ioctl::set_vnet_little_endian(&file).map_err(setup("set the header's byte order"))?;
        // The previous holder may have left offloads on.
        ioctl::set_offload(&file, 0).map_err(setup("turn offloads off"))?;
        let control = ioctl::control_socket().map_err(setup("open a control socket"))?;
        Ok(Self { file, control })
    }

    /// Returns the interface's name, which the host's administrator may have changed meanwhile.
    pub fn name(&self) -> io::Result<String> {
        Ok(ioctl::get_iff(self)?.to_string())
    }

    /// Returns the interface's MTU: bytes of a frame behind its 14-byte header.
    pub fn mtu(&self) -> io::Result<u32> {
        let mtu = ioctl::mtu(&self.control, ioctl::get_iff(self)?)?;
        u32::try_from(mtu).map_err(io::Error::other)
    }

    /// Sets the interface's MTU: 68 to 65521 bytes; needs CAP_NET_ADMIN.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        let set = || {
            let mtu = libc::c_int::try_from(mtu).map_err(io::Error::other)?;
            ioctl::set_mtu(&self.control, ioctl::get_iff(self)?, mtu)
        };
        set().map_err(|source| self.setup_error("set the MTU", source))
    }

    /// Returns whether the interface is administratively up.
    pub fn is_up(&self) -> io::Result<bool> {
        let flags = ioctl::flags(&self.control, ioctl::get_iff(self)?)?;
        Ok(flags & libc::IFF_UP != 0)
    }

    /// Takes the interface up, or down; needs CAP_NET_ADMIN.
    pub fn set_up(&self, up: bool) -> Result<(), Error> {
        let set = || {
            let name = ioctl::get_iff(self)?;
            let flags = ioctl::flags(&self.control, name)?;
            let wanted = if up { flags | libc::IFF_UP } else { flags & !libc::IFF_UP };
            if wanted == flags {
                return Ok(());
            }
            ioctl::set_flags(&self.control, name, wanted)
        };
        let action = if up { "take it up" } else { "take it down" };
        set().map_err(|source| self.setup_error(action, source))
    }

    /// Says which frames [`Tap::recv`] may return unfinished. [`Tap::send`] takes them always.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<(), Error> {
        ioctl::set_offload(self, offloads.flags())
            .map_err(|source| self.setup_error("set offloads", source))
    }

    /// Receives a frame: header and frame into `buffer`, and how many bytes both are. `None`:
    /// there is none at the moment.
    ///
    /// A frame that does not fit is cut off without a sign: `buffer` must hold [`VNET_HDR_LEN`],
    /// the Ethernet header with its VLAN tag (18) and the MTU; 65,565 bytes hold anything.
    ///
    /// # Errors
    ///
    /// The interface is gone.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match (&self.file).read(buffer) {
                Ok(len) => Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Sends a frame: `parts`, one after the other, are the header and the frame.
    ///
    /// # Errors
    ///
    /// The interface is gone.
    pub fn send(&self, parts: &[Slice<'_>]) -> io::Result<Sent> {
        let iovec =
            |part: &Slice<'_>| libc::iovec { iov_base: part.as_ptr().cast(), iov_len: part.len() };
        if parts.len() <= FEW_PARTS {
            let iovecs: ArrayVec<_, FEW_PARTS> = parts.iter().map(iovec).collect();
            // SAFETY: each iovec is a Slice borrowed by this call: mapped, readable memory.
            unsafe { self.writev(&iovecs) }
        } else if parts.len() <= MAX_PARTS {
            let iovecs: Vec<_> = parts.iter().map(iovec).collect();
            // SAFETY: as above.
            unsafe { self.writev(&iovecs) }
        } else {
            Ok(Sent::Refused)
        }
    }

    /// Writes one frame.
    ///
    /// # Safety
    ///
    /// Each of `iovecs`, at most [`MAX_PARTS`], must name mapped, readable memory.
    unsafe fn writev(&self, iovecs: &[libc::iovec]) -> io::Result<Sent> {
        loop {
            // SAFETY: the caller vouches for the memory; the kernel copies from it and holds on to
            // nothing. MAX_PARTS fits an int.
            let written = unsafe {
                libc::writev(self.file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as libc::c_int)
            };
            if written >= 0 {
                // The file takes a frame whole, and is not asked to take no bytes.
                return Ok(if written == 0 { Sent::Refused } else { Sent::Done });
            }
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN) => Ok(Sent::Full),
                Some(libc::EIO) => Ok(Sent::Down),
                Some(
                    libc::EINVAL | libc::EFAULT | libc::EMSGSIZE | libc::ENOMEM | libc::ENOBUFS,
                ) => Ok(Sent::Refused),
                _ => Err(error),
            };
        }
    }

    fn setup_error(&self, action: &'static str, source: io::Error) -> Error {
        let name = self.name().unwrap_or_else(|_| "(gone)".to_owned());
        if source.raw_os_error() == Some(libc::EPERM) {
            return Error::Permission(name);
        }
        Error::Setup { name, action, source }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
