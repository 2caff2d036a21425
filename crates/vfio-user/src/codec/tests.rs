//! These tests turn every message to bytes and back.

use proptest::prelude::*;

use super::*;
use crate::device::MmapArea;
use crate::spec;

fn version() -> impl Strategy<Value = Version> {
    let numbers = [(); 4].map(|()| any::<Option<u64>>());
    (any::<u16>(), any::<u16>(), numbers, any::<Option<bool>>()).prop_map(
        |(major, minor, [fds, xfer, maps, pages], write_multiple)| Version {
            major,
            minor,
            capabilities: Capabilities {
                max_msg_fds: fds,
                max_data_xfer_size: xfer,
                max_dma_maps: maps,
                pgsizes: pages,
                write_multiple,
            },
        },
    )
}

fn access(count: impl Strategy<Value = u32>) -> impl Strategy<Value = RegionAccess> {
    (any::<u64>(), any::<u32>(), count).prop_map(|(offset, region, count)| RegionAccess {
        offset,
        region,
        count,
    })
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..100)
}

/// Checks one request of the command.
fn same_request(request: &Request<'_>) {
    let mut payload = Vec::new();
    request.encode(&mut payload);
    assert_eq!(Request::decode(request.command(), &payload).as_ref(), Ok(request));
}

/// Checks one reply to the command.
fn same_reply(command: Command, reply: &Reply<'_>) {
    let mut payload = Vec::new();
    reply.encode(&mut payload);
    assert_eq!(Reply::decode(command, &payload).as_ref(), Ok(reply));
}

proptest! {
    #[test]
    fn requests_survive(
        version in version(),
        words in any::<[u32; 5]>(),
        longs in any::<[u64; 3]>(),
        data in data(),
        read in access(any::<u32>()),
        multi in prop::collection::vec((access(0..=8_u32), any::<[u8; 8]>()), 0..20),
    ) {
        let [argsz, flags, index, start, count] = words;
        let [offset, address, size] = longs;
        let length = data.len() as u32;
        let info = InfoRequest { argsz, index };
        let multi = multi.into_iter().map(|(access, data)| SmallWrite { access, data }).collect();
        for request in [
            Request::Version(version),
            Request::DmaMap(DmaMapRequest { argsz, flags, offset, address, size }),
            Request::DmaUnmap(DmaUnmapRequest { argsz, flags, address, size }),
            Request::DeviceGetInfo(info),
            Request::DeviceGetRegionInfo(info),
            Request::DeviceGetIrqInfo(info),
            Request::DeviceGetRegionIoFds(RegionIoFdsRequest { argsz, flags, index, count }),
            Request::DeviceSetIrqs(IrqSet { argsz, flags, index, start, count, data: &data }),
            Request::RegionRead(read),
            Request::RegionWrite { access: RegionAccess { count: length, ..read }, data: &data },
            Request::DeviceReset,
            Request::RegionWriteMulti(multi),
            Request::NotServed(Command::DeviceFeature),
        ] {
            same_request(&request);
        }
    }

    #[test]
    fn replies_survive(
        version in version(),
        words in any::<[u32; 4]>(),
        longs in any::<[u64; 2]>(),
        data in data(),
        read in access(any::<u32>()),
        areas in prop::collection::vec(any::<(u64, u64)>(), 0..5),
        entries in prop::collection::vec((any::<[u64; 3]>(), any::<[u32; 3]>()), 0..5),
    ) {
        let [argsz, flags, index, count] = words;
        let [address, size] = longs;
        let length = data.len() as u32;
        let area = |(offset, size)| MmapArea { offset, size };
        let entry = |([offset, size, datamatch], [fd_index, kind, flags]): ([u64; 3], [u32; 3])| {
            IoFdEntry { offset, size, fd_index, kind, flags, datamatch }
        };
        for (command, reply) in [
            (Command::Version, Reply::Version(version)),
            (
                Command::DmaUnmap,
                Reply::DmaUnmap(DmaUnmapRequest { argsz, flags, address, size }),
            ),
            (
                Command::DeviceGetInfo,
                Reply::DeviceInfo { flags, num_regions: index, num_irqs: count },
            ),
            (
                Command::DeviceGetRegionInfo,
                Reply::RegionInfo(RegionInfoReply {
                    argsz,
                    flags: flags & !spec::REGION_FLAG_CAPS,
                    index,
                    size,
                    offset: address,
                    areas: areas.into_iter().map(area).collect(),
                }),
            ),
            (
                Command::DeviceGetRegionIoFds,
                Reply::RegionIoFds(RegionIoFdsReply {
                    argsz,
                    index,
                    count,
                    entries: entries.into_iter().map(entry).collect(),
                }),
            ),
            (Command::DeviceGetIrqInfo, Reply::IrqInfo { flags, index, count }),
            (
                Command::RegionRead,
                Reply::RegionRead {
                    access: RegionAccess { count: length, ..read },
                    data: &data,
                },
            ),
            (Command::RegionWrite, Reply::RegionWrite(read)),
            (Command::RegionWriteMulti, Reply::RegionWriteMulti { count: size }),
            (Command::DmaMap, Reply::Empty(Command::DmaMap)),
            (Command::DeviceReset, Reply::Empty(Command::DeviceReset)),
        ] {
            same_reply(command, &reply);
        }
    }
}

/// QEMU and libvfio-user declare these layouts as C structures.
#[test]
fn layouts_are_the_specification_s() {
    let mut payload = Vec::new();
    Request::DmaMap(DmaMapRequest { argsz: 32, flags: 3, offset: 4, address: 5, size: 6 })
        .encode(&mut payload);
    let words: Vec<u64> = payload
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    assert_eq!(words, [3 << 32 | 32, 4, 5, 6]);

    for (request, size) in [
        (Request::DeviceGetInfo(InfoRequest { argsz: 0, index: 0 }), 16),
        (Request::DeviceGetRegionInfo(InfoRequest { argsz: 0, index: 0 }), 32),
        (Request::DeviceGetIrqInfo(InfoRequest { argsz: 0, index: 0 }), 16),
        (Request::DmaUnmap(DmaUnmapRequest { argsz: 0, flags: 0, address: 0, size: 0 }), 24),
        (Request::RegionWriteMulti(Vec::new()), 8),
    ] {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        assert_eq!(payload.len(), size, "{request:?}");
    }
}

#[test]
fn a_region_s_capability_is_where_the_reply_says() {
    let reply = Reply::RegionInfo(RegionInfoReply {
        argsz: RegionInfoReply::complete_size(1),
        flags: spec::REGION_FLAG_READ,
        index: 0,
        size: 0x4000,
        offset: 0,
        areas: vec![MmapArea { offset: 0x1000, size: 0x2000 }],
    });
    let mut payload = Vec::new();
    reply.encode(&mut payload);
    assert_eq!(payload.len(), 64);
    assert_eq!(payload.len(), RegionInfoReply::complete_size(1) as usize);
    assert_eq!(payload[4], (spec::REGION_FLAG_READ | spec::REGION_FLAG_CAPS) as u8);
    assert_eq!(payload[12], 32, "cap_offset");
    assert_eq!(payload[32..36], [1, 0, 1, 0], "id and version");
    assert_eq!(payload[40], 1, "nr_areas");
    assert_eq!(payload[49], 0x10, "offset of the area");
    assert_eq!(payload[57], 0x20, "size of the area");
}

#[test]
fn counts_must_agree_with_lengths() {
    let access = RegionAccess { offset: 0, region: 0, count: 4 };
    for data in [&[0; 3][..], &[0; 5]] {
        let mut payload = Vec::new();
        Request::RegionWrite { access, data }.encode(&mut payload);
        assert!(matches!(
            Request::decode(Command::RegionWrite, &payload),
            Err(Malformed::Length { .. })
        ));
    }
    // This count overflows when multiplied.
    let mut payload = (u64::MAX / 24 + 2).to_ne_bytes().to_vec();
    payload.extend([0; 24]);
    assert!(Request::decode(Command::RegionWriteMulti, &payload).is_err());
    // This write states more bytes than there are.
    let mut payload = 1_u64.to_ne_bytes().to_vec();
    payload.extend([0; 12]);
    payload.extend(9_u32.to_ne_bytes());
    payload.extend([0; 8]);
    assert!(Request::decode(Command::RegionWriteMulti, &payload).is_err());
}
