//! This module makes the system calls that Rust's libraries do not wrap: everything unsafe about
//! TAP interfaces.
//!
//! Linux: Documentation/networking/tuntap.rst and netdevice(7).

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libc::{c_int, c_short, c_uint, ifreq};

/// The name of a network interface, as the kernel's requests take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name([u8; libc::IFNAMSIZ]);

impl Name {
    /// Returns `None` where no interface can have this name (the kernel's `dev_valid_name`), or
    /// where the kernel would take it for a pattern.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let legal = |b: u8| !b.is_ascii_whitespace() && b != 0x0b && !b"/:%\0".contains(&b);
        if matches!(name, "" | "." | "..") || !name.bytes().all(legal) {
            return None;
        }
        let mut bytes = [0; libc::IFNAMSIZ];
        // The last byte stays the terminator.
        bytes
            .get_mut(..libc::IFNAMSIZ - 1)?
            .get_mut(..name.len())?
            .copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    fn request(self) -> ifreq {
        // SAFETY: ifreq is a C structure of integers, arrays and pointers: all zero is a value.
        let mut request: ifreq = unsafe { mem::zeroed() };
        request.ifr_name = self.0.map(|b| b as libc::c_char);
        request
    }

    fn of(request: &ifreq) -> Self {
        Self(request.ifr_name.map(|c| c as u8))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = CStr::from_bytes_until_nul(&self.0).unwrap_or_default();
        f.write_str(&name.to_string_lossy())
    }
}

/// Creates the TAP interface, or attaches to it where it exists (TUNSETIFF).
pub(crate) fn set_iff(fd: impl AsFd, name: Name, flags: c_short) -> io::Result<()> {
    let mut request = name.request();
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

/// Returns the interface behind a TAP's file, by its present name (TUNGETIFF).
pub(crate) fn get_iff(fd: impl AsFd) -> io::Result<Name> {
    let mut request = Name([0; libc::IFNAMSIZ]).request();
    // SAFETY: TUNGETIFF writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    Ok(Name::of(&request))
}

/// Sets the length of the virtio-net header before each frame (TUNSETVNETHDRSZ).
pub(crate) fn set_vnet_hdr_len(fd: impl AsFd, len: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETVNETHDRSZ, &len) })
}

/// Makes the header's fields little-endian, as virtio 1.0 has them (TUNSETVNETLE).
pub(crate) fn set_vnet_little_endian(fd: impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: TUNSETVNETLE reads one int through the pointer.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETVNETLE, &on) })
}

/// Says which unfinished frames the reader takes (TUNSETOFFLOAD, `TUN_F_*`).
pub(crate) fn set_offload(fd: impl AsFd, flags: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory.
    check(unsafe {
        libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags))
    })
}

/// Returns a socket whose only use is to name the network namespace it was made in.
pub(crate) fn control_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Returns the MTU of an interface (SIOCGIFMTU).
pub(crate) fn mtu(control: impl AsFd, name: Name) -> io::Result<c_int> {
    let mut request = name.request();
    // SAFETY: SIOCGIFMTU reads and writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), libc::SIOCGIFMTU, &mut request) })?;
    // SAFETY: the kernel answered SIOCGIFMTU in this member; any bits are an int.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Sets the MTU of an interface (SIOCSIFMTU).
pub(crate) fn set_mtu(control: impl AsFd, name: Name, mtu: c_int) -> io::Result<()> {
    let mut request = name.request();
    request.ifr_ifru.ifru_mtu = mtu;
    // SAFETY: SIOCSIFMTU reads one ifreq, which `request` is.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), libc::SIOCSIFMTU, &request) })
}

/// Returns the interface's `IFF_*` flags (SIOCGIFFLAGS).
pub(crate) fn flags(control: impl AsFd, name: Name) -> io::Result<c_int> {
    let mut request = name.request();
    // SAFETY: SIOCGIFFLAGS reads and writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) })?;
    // SAFETY: the kernel answered SIOCGIFFLAGS in this member; any bits are a short.
    Ok(c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Sets the interface's `IFF_*` flags (SIOCSIFFLAGS).
pub(crate) fn set_flags(control: impl AsFd, name: Name, flags: c_int) -> io::Result<()> {
    let mut request = name.request();
    // The upper half of the flags belongs to the kernel and is not part of the request.
    request.ifr_ifru.ifru_flags = flags as c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &request) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["t", "tap0", "fifteen-letters", "up.link_1", "ä"] {
            assert_eq!(Name::new(good).unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", "sixteen-letters!", "a/b", "a b", "tap%d", "a:1", "a\tb", "a\0"]
        {
            assert_eq!(Name::new(bad), None, "{bad:?}");
        }
    }
}
