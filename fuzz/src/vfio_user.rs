//! The fuzz target and the property tests of vfio-user check this: each function takes any bytes
//! and panics if a promise is broken.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_socket::{Answer, Assembler, Protocol as _, SCM_MAX_FDS, Session as _};
use manifold_vfio_user::codec::{Capabilities, Command, Header, Kind, Reply, Request, Version};
use manifold_vfio_user::spec::{self, HEADER_SIZE};
use manifold_vfio_user::{
    Device, DeviceInfo, Disconnect, DmaMap, Errno, IoFd, IrqData, IrqInfo, MmapArea, Peer,
    RegionInfo, RegionMapping, Session, SetIrqs, VfioUser,
};

/// Decodes `data` as a message of every command, in both directions. Whatever can be decoded is the
/// same after it was encoded and decoded again.
pub(crate) fn codec(data: &[u8]) {
    let Some((head, payload)) = data.split_first_chunk::<HEADER_SIZE>() else { return };
    assert_eq!(Header::decode(head).encode(), *head);
    for command in Command::ALL {
        if let Ok(request) = Request::decode(command, payload) {
            assert_eq!(request.command(), command);
            let mut encoded = Vec::new();
            request.encode(&mut encoded);
            assert_eq!(Request::decode(command, &encoded).as_ref(), Ok(&request));
        }
        if let Ok(reply) = Reply::decode(command, payload) {
            let mut encoded = Vec::new();
            reply.encode(&mut encoded);
            assert_eq!(Reply::decode(command, &encoded).as_ref(), Ok(&reply));
        }
    }
}

/// Plays `data` as what a client sends. The first byte says how: in pieces of what size, and
/// whether a proper version comes before; each piece brings some descriptors.
///
/// Every answer is a proper reply to the message before it; the device sees only what is in range,
/// and nothing before a client is attached or after it is detached.
pub(crate) fn session(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let Ok(null) = File::open("/dev/null") else { return };
    let null = Arc::new(OwnedFd::from(null));
    let device = Arc::new(Inert { fd: Arc::clone(&null), attached: AtomicUsize::new(0) });
    let peer = Peer { pid: 1, uid: 0, gid: 0 };
    let protocol = VfioUser { max_data_xfer_size: 4096 };
    let mut session = protocol.open(device.clone(), peer);
    let mut assembler = Assembler::new(protocol.max_payload());

    let mut stream = if first & 0x80 != 0 { version_message() } else { Vec::new() };
    stream.extend_from_slice(data);
    let piece = usize::from(first & 0x1f) + 1;
    let end = play(&mut session, &mut assembler, &stream, piece, &null);
    session.end(&end);
    assert_eq!(device.attached.load(Ordering::Relaxed), 0);
}

fn play(
    session: &mut Session,
    assembler: &mut Assembler<Header>,
    stream: &[u8],
    piece: usize,
    null: &OwnedFd,
) -> Disconnect {
    let mut answer = Answer::default();
    let mut rest = stream;
    while let Some(&next) = rest.first() {
        let space = assembler.space();
        let n = piece.min(space.len()).min(rest.len());
        for (to, from) in space.iter_mut().zip(rest) {
            *to = *from;
        }
        rest = rest.get(n..).unwrap_or_default();
        // Few pieces bring descriptors, or few requests would be served.
        let count = if next & 0xf0 == 0xf0 { usize::from(next & 3) } else { 0 };
        let fds = (0..count).filter_map(|_| null.try_clone().ok());
        match assembler.advance(n, fds) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(broken) => {
                session.broken(broken, &mut answer);
                assert!(answer.end.is_some());
                check(None, &answer);
            }
        }
        if let Some(message) = assembler.take() {
            let header = message.header;
            session.receive(message, &mut answer);
            check(Some(&header), &answer);
        }
        if let Some(end) = answer.end.take() {
            return end;
        }
    }
    if assembler.is_inside_message() { Disconnect::MidMessage } else { Disconnect::Closed }
}

fn check(request: Option<&Header>, answer: &Answer) {
    let Some((head, payload)) = answer.bytes.split_first_chunk::<HEADER_SIZE>() else {
        assert!(answer.bytes.is_empty() && answer.fds.is_empty());
        return;
    };
    let reply = Header::decode(head);
    assert_eq!(reply.kind(), Some(Kind::Reply));
    assert_eq!(reply.payload_size(), Some(payload.len()));
    assert!(answer.fds.len() <= SCM_MAX_FDS);
    if let Some(request) = request {
        assert_eq!((reply.id, reply.command), (request.id, request.command));
        assert!(!request.is_no_reply() && request.kind() != Some(Kind::Reply));
    }
    if reply.is_error() {
        assert!(payload.is_empty() && answer.fds.is_empty() && reply.error != 0);
    } else {
        let command = Command::from_raw(reply.command);
        assert!(command.is_some_and(|command| Reply::decode(command, payload).is_ok()));
    }
}

fn version_message() -> Vec<u8> {
    let capabilities = Capabilities {
        max_msg_fds: Some(2),
        write_multiple: Some(true),
        ..Capabilities::default()
    };
    let mut payload = Vec::new();
    Version { major: 0, minor: 1, capabilities }.encode(&mut payload);
    let mut bytes = Header::request(0, Command::Version, payload.len()).encode().to_vec();
    bytes.extend(payload);
    bytes
}

/// A device that does nothing, and checks what it is asked to do.
struct Inert {
    fd: Arc<OwnedFd>,
    attached: AtomicUsize,
}

const REGION_SIZE: u64 = 0x3000;
const VECTORS: u32 = 9;

impl Inert {
    fn check_attached(&self) {
        assert_eq!(self.attached.load(Ordering::Relaxed), 1);
    }

    fn check_access(&self, region: u32, offset: u64, length: usize) {
        self.check_attached();
        assert!(region == 0 && length > 0 && length <= 4096);
        assert!(offset.checked_add(length as u64).is_some_and(|end| end <= REGION_SIZE));
    }
}

impl Device for Inert {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::pci()
    }

    fn region_info(&self, index: u32) -> Option<RegionInfo> {
        let areas = vec![MmapArea { offset: 0x1000, size: 0x1000 }];
        let mapping = RegionMapping { fd: Arc::clone(&self.fd), offset: 0, areas };
        match index {
            0 => Some(RegionInfo { mapping: Some(mapping), ..RegionInfo::messages(REGION_SIZE) }),
            1 => Some(RegionInfo {
                readable: false,
                writable: false,
                ..RegionInfo::messages(REGION_SIZE)
            }),
            _ => None,
        }
    }

    fn irq_info(&self, index: u32) -> Option<IrqInfo> {
        (index == spec::PCI_MSIX_IRQ).then(|| IrqInfo::eventfds(VECTORS))
    }

    fn region_read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.check_access(region, offset, data.len());
        if offset == 1 { Err(Errno::IO) } else { Ok(()) }
    }

    fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.check_access(region, offset, data.len());
        if offset == 1 { Err(Errno::IO) } else { Ok(()) }
    }

    fn region_io_fds(&self, _: u32) -> Result<Vec<IoFd>, Errno> {
        let io_fd = |offset| IoFd { offset, size: 2, datamatch: None, fd: Arc::clone(&self.fd) };
        Ok((0..3).map(io_fd).collect())
    }

    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno> {
        self.check_attached();
        assert!(request.is_disable_all() || request.start + request.count <= VECTORS);
        let count = match &request.data {
            IrqData::None => request.count as usize,
            IrqData::Bools(bools) => bools.len(),
            IrqData::EventFds(fds) => fds.len(),
        };
        assert_eq!(count, request.count as usize);
        Ok(())
    }

    fn dma_map(&self, map: DmaMap) -> Result<(), Errno> {
        self.check_attached();
        assert!(map.size > 0 && map.iova.checked_add(map.size - 1).is_some());
        assert!(map.readable || map.writable);
        Ok(())
    }

    fn dma_unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        self.check_attached();
        assert!(size > 0 && iova.checked_add(size - 1).is_some());
        Ok(())
    }

    fn dma_unmap_all(&self) -> Result<(), Errno> {
        self.check_attached();
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        self.check_attached();
        Ok(())
    }

    fn attached(&self, _: &Peer) -> Result<(), Errno> {
        assert_eq!(self.attached.fetch_add(1, Ordering::Relaxed), 0);
        Ok(())
    }

    fn detached(&self, _: &Disconnect) {
        assert_eq!(self.attached.fetch_sub(1, Ordering::Relaxed), 1);
    }
}
