use thiserror::Error;

/// The reason why a frame is not as its sender's virtio_net_hdr says. Such a frame is dropped, and
/// counted as having a bad header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The sender asks for what it did not negotiate.
    #[error("the frame needs {needs:?}, of which its sender negotiated {allowed:?}")]
    NotNegotiated {
        /// The offloads that the frame needs.
        needs: crate::net_header::Offloads,
        /// The offloads that the sender may use.
        allowed: crate::net_header::Offloads,
    },
    /// The `gso_type` is not known.
    #[error("gso_type {0:#04x} is not known")]
    GsoType(u8),
    /// The sender asks for segments without a checksum to finish, which virtio 1.3 section
    /// 5.1.6.2.1 forbids.
    #[error("gso_type {0:#04x} without VIRTIO_NET_HDR_F_NEEDS_CSUM")]
    GsoWithoutChecksum(u8),
    /// The segments are without payload, or longer than an IP packet can be.
    #[error("gso_size {0} makes no segments")]
    GsoSize(u16),
    /// The checksum would be outside of the frame, or in a header that is not the transport's.
    #[error(
        "a checksum from {start} on, to be put {offset} bytes further, in a frame of {len} bytes"
    )]
    Checksum {
        /// Value of `csum_start`.
        start: u16,
        /// Value of `csum_offset`.
        offset: u16,
        /// Length of the frame in bytes.
        len: usize,
    },
    /// The frame's headers are not those of its `gso_type`.
    #[error("gso_type {0:#04x} of a frame with other headers")]
    Mismatch(u8),
    /// The frame, or the part of it that was given, ends before its headers do.
    #[error("the headers do not end within {0} bytes")]
    Truncated(usize),
}
