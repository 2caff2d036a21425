//! Frames on their way: a private copy of the head, the body where the sender put it.

use arrayvec::ArrayVec;
use manifold_dma::Slice;
use manifold_virtio::ring::Chain;

/// Bytes of virtio_net_hdr with `num_buffers` (virtio 1.3, 5.1.6).
pub(crate) const NET_HEADER: usize = 12;
/// Offset of `num_buffers` in it.
const NUM_BUFFERS: usize = 10;
/// How many bytes of a frame are copied out to be judged, and delivered from the copy: a minimal frame whole, or
/// Ethernet with VLAN tags, IPv6 and part of TCP.
pub(crate) const JUDGED: usize = 64;
/// Frames per burst.
pub(crate) const BURST: usize = 32;
/// Pieces of guest memory per burst: at least the longest chain.
pub(crate) const PIECES: usize = 1024;

/// The pieces of a burst's frames, in order.
pub(crate) type Pieces<'p> = ArrayVec<Slice<'p>, PIECES>;

/// A frame: its head copied out of the sender's memory, and where the rest of it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// virtio_net_hdr as it will be delivered, then the first bytes of the frame.
    head: [u8; NET_HEADER + JUDGED],
    /// How much of `head` after the virtio_net_hdr is valid.
    judged: usize,
    /// The rest: pieces `first..first + count`, of which `skip` bytes of the first are already in `head`.
    first: usize,
    count: usize,
    skip: usize,
    /// Length of the whole frame from the destination address on, without FCS.
    len: usize,
    /// What to give back to the ring it came from.
    pub(crate) chain: Chain,
}

/// Why a chain does not hold a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadHeader;

impl Frame {
    /// Reads the head of the frame in `pieces[first..]`, which begins with the driver's virtio_net_hdr.
    ///
    /// No offload is negotiated, so `flags` and `gso_type` must be zero (virtio 1.3, 5.1.6.2.1).
    #[inline]
    pub(crate) fn read(
        pieces: &Pieces<'_>,
        first: usize,
        chain: Chain,
    ) -> Result<Frame, BadHeader> {
        let Some(len) = (chain.readable as usize).checked_sub(NET_HEADER) else {
            return Err(BadHeader);
        };
        let mut frame = Frame {
            head: [0; NET_HEADER + JUDGED],
            judged: len.min(JUDGED),
            first,
            count: 0,
            skip: 0,
            len,
            chain,
        };
        let wanted = NET_HEADER + frame.judged;
        let mut have = 0;
        let mut at = first;
        // The rule is one piece; a driver may put virtio_net_hdr in one of its own, or scatter it at will.
        while have < wanted {
            let Some(piece) = pieces.get(at) else { return Err(BadHeader) };
            let Some(room) = frame.head.get_mut(have..wanted) else { return Err(BadHeader) };
            let read = piece.read(room);
            have += read;
            if read < piece.len() {
                frame.skip = read;
                break;
            }
            at += 1;
        }
        frame.first = at;
        frame.count = pieces.len() - at;
        let [flags, gso_type, ..] = frame.head;
        if flags != 0 || gso_type != 0 {
            return Err(BadHeader);
        }
        // What is delivered says: no checksum to finish, no segmentation, one buffer (until told otherwise).
        frame.head[..NET_HEADER].fill(0);
        Ok(frame)
    }

    /// A frame that lies whole in `pieces[first]`, without a virtio_net_hdr.
    pub(crate) fn from_wire(pieces: &Pieces<'_>, first: usize) -> Option<Frame> {
        let piece = pieces.get(first)?;
        let len = piece.len();
        let judged = len.min(JUDGED);
        let mut head = [0; NET_HEADER + JUDGED];
        piece.read(head.get_mut(NET_HEADER..NET_HEADER + judged)?);
        Some(Frame { head, judged, first, count: 1, skip: judged, len, chain: Chain::default() })
    }

    /// Length in bytes from the destination address on, without FCS.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes that are judged and delivered.
    #[inline]
    pub(crate) fn header(&self) -> &[u8] {
        self.head.get(NET_HEADER..NET_HEADER + self.judged).unwrap_or_default()
    }

    /// virtio_net_hdr and header in one, as a receiver gets it in `buffers` buffers.
    #[inline]
    pub(crate) fn delivered_head(&mut self, buffers: u16) -> &[u8] {
        if let Some(field) = self.head.get_mut(NUM_BUFFERS..NET_HEADER) {
            field.copy_from_slice(&buffers.to_le_bytes());
        }
        self.head.get(..NET_HEADER + self.judged).unwrap_or_default()
    }

    /// virtio_net_hdr and header in one, as they go to the uplink.
    pub(crate) fn head_mut(&mut self) -> &mut [u8] {
        self.head.get_mut(..NET_HEADER + self.judged).unwrap_or_default()
    }

    /// What follows the head, in order.
    #[inline]
    pub(crate) fn rest<'a, 'p>(
        &self,
        pieces: &'a Pieces<'p>,
    ) -> impl Iterator<Item = Slice<'p>> + use<'a, 'p> {
        let all = pieces.get(self.first..self.first + self.count).unwrap_or_default();
        let mut skip = self.skip;
        all.iter().map(move |piece| piece.skip(std::mem::take(&mut skip)))
    }
}
