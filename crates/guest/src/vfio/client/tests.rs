//! These tests run the client against a server that is told what to say.

use super::*;
use crate::vfio::Transport;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

/// Starts a server that runs `script` on its one connection.
fn server(
    script: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> (tempfile::TempDir, std::path::PathBuf, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || script(&mut listener.accept().unwrap().0));
    (dir, path, thread)
}

/// Reads a message.
fn read(socket: &mut UnixStream) -> (Header, Vec<u8>) {
    let mut header = [0; 16];
    socket.read_exact(&mut header).unwrap();
    let header = Header::decode(&header);
    let mut payload = vec![0; header.size as usize - 16];
    socket.read_exact(&mut payload).unwrap();
    (header, payload)
}

fn reply(to: &Header) -> Message {
    Message::new(to.id, to.command, flags::TYPE_REPLY)
}

/// Runs a script against one region read of 4 bytes.
fn region_read(script: impl FnOnce(&mut UnixStream, Header) + Send + 'static) -> Result<[u8; 4]> {
    let (_dir, path, thread) = server(|socket| {
        let (header, _) = read(socket);
        script(socket, header);
    });
    let mut client = Client::connect_only(&path, Duration::from_millis(200)).unwrap();
    let mut data = [0; 4];
    let result = client.region_read(7, 0x10, &mut data);
    drop(client);
    thread.join().unwrap();
    result.map(|()| data)
}

fn good(header: &Header) -> Vec<u8> {
    reply(header).u64(0x10).u32(7).u32(4).bytes(&[1, 2, 3, 4]).finish()
}

#[test]
fn a_proper_reply_is_taken_even_in_pieces() {
    let result = region_read(|socket, header| {
        for byte in good(&header) {
            socket.write_all(&[byte]).unwrap();
        }
    });
    assert_eq!(result.unwrap(), [1, 2, 3, 4]);
}

#[test]
fn an_error_is_an_error_and_not_a_wait_for_more() {
    let result = region_read(|socket, header| {
        let flags = flags::TYPE_REPLY | flags::ERROR;
        let error = Header { size: 16, flags, errno: 5, ..header };
        socket.write_all(&error.encode()).unwrap();
    });
    assert!(matches!(result, Err(Error::Refused { command: "VFIO_USER_REGION_READ", errno: 5 })));
}

#[test]
fn silence_and_the_end_are_told_apart() {
    let result = region_read(|socket, _| {
        // The server waits until the client gives up.
        let _ = socket.read(&mut [0]);
    });
    assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    let result = region_read(|socket, header| {
        socket.write_all(&good(&header)[..20]).unwrap();
    });
    assert!(matches!(result, Err(Error::Disconnected { .. })), "{result:?}");
}

#[test]
fn replies_to_something_else_are_violations() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("another ID", |m| m[0] ^= 1),
        ("another command", |m| m[2] ^= 1),
        ("another offset", |m| m[16] ^= 1),
        ("another count", |m| m[28] ^= 1),
        ("neither command nor reply", |m| m[8] = 2),
        ("less data", |m| {
            m.pop();
            m[4] -= 1;
        }),
    ];
    for (what, change) in changes {
        let result = region_read(move |socket, header| {
            let mut message = good(&header);
            change(&mut message);
            socket.write_all(&message).unwrap();
        });
        assert!(matches!(result, Err(Error::Protocol { .. })), "{what}: {result:?}");
    }
    for size in [0u32, 15, 1 << 30] {
        let result = region_read(move |socket, header| {
            socket.write_all(&Header { size, flags: 1, ..header }.encode()).unwrap();
        });
        assert!(matches!(result, Err(Error::Protocol { .. })), "{size}: {result:?}");
    }
}

#[test]
fn limits_of_the_server_are_kept() {
    let (_dir, path, thread) = server(|socket| {
        let (header, payload) = read(socket);
        assert_eq!(payload[..4], [0, 0, 1, 0]);
        assert_eq!(payload.last(), Some(&0));
        let json = b"{\"capabilities\":{\"max_msg_fds\":2,\"max_data_xfer_size\":8}}\0";
        socket.write_all(&reply(&header).u32(0x1_0000).bytes(json).finish()).unwrap();
        // An access of 20 bytes is split into 8, 8 and 4.
        for (offset, count) in [(0u64, 8u32), (8, 8), (16, 4)] {
            let (header, payload) = read(socket);
            assert_eq!(payload[..8], offset.to_le_bytes());
            assert_eq!(payload[12..16], count.to_le_bytes());
            let data = vec![count as u8; count as usize];
            let message = reply(&header).u64(offset).u32(0).u32(count).bytes(&data);
            socket.write_all(&message.finish()).unwrap();
        }
        // Three eventfds are sent as 2 and 1.
        for (start, count) in [(0u32, 2u32), (2, 1)] {
            let (header, payload) = read(socket);
            assert_eq!(payload[12..16], start.to_le_bytes());
            assert_eq!(payload[16..20], count.to_le_bytes());
            socket.write_all(&reply(&header).finish()).unwrap();
        }
    });
    let mut client = Client::connect_only(&path, Duration::from_secs(5)).unwrap();
    client.negotiate().unwrap();
    let mut data = [0; 20];
    client.region_read(0, 0, &mut data).unwrap();
    assert_eq!((data[0], data[15], data[19]), (8, 8, 4));
    let null = std::fs::File::open("/dev/null").unwrap();
    client.set_irq_eventfds(2, 0, &[null.as_fd(); 3]).unwrap();
    thread.join().unwrap();
}

#[test]
fn versions_that_were_not_proposed_are_refused() {
    for (version, json) in [(0x1_0001u32, "{}"), (0x2_0000, "{}"), (0x1_0000, "{")] {
        let (_dir, path, thread) = server(move |socket| {
            let (header, _) = read(socket);
            let message = reply(&header).u32(version).bytes(json.as_bytes()).bytes(&[0]);
            socket.write_all(&message.finish()).unwrap();
        });
        let mut client = Client::connect_only(&path, Duration::from_secs(5)).unwrap();
        let result = client.negotiate();
        assert!(matches!(result, Err(Error::Protocol { .. })), "{version:#x} {json}: {result:?}");
        thread.join().unwrap();
    }
}

#[test]
fn doorbells_are_read_and_rubbish_is_not() {
    let entry = |m: Message, fd: u32, kind: u32, flags: u32| {
        m.u64(0x3004).u64(2).u32(fd).u32(kind).u32(flags).u32(0).u64(1)
    };
    let ask = move |fd: u32, kind: u32, io_flags: u32, count: u32| {
        let (_dir, path, thread) = server(move |socket| {
            let (header, _) = read(socket);
            let message = reply(&header).u32(16 + 40).u32(0).u32(0).u32(count);
            let bytes = entry(message, fd, kind, io_flags).finish();
            let null = std::fs::File::open("/dev/null").unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [null.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let iov = [IoSlice::new(&bytes)];
            rustix::net::sendmsg(&*socket, &iov, &mut control, SendFlags::empty()).unwrap();
        });
        let mut client = Client::connect_only(&path, Duration::from_secs(5)).unwrap();
        let result = client.doorbells(0);
        thread.join().unwrap();
        result
    };
    let found = ask(0, 0, 1, 1).unwrap();
    let seen = found.first().map(|bell| (bell.offset, bell.size, bell.value));
    assert_eq!(seen, Some((0x3004, 2, Some(1))));
    assert_eq!(ask(0, 0, 0, 1).unwrap()[0].value, None, "no datamatch");
    assert!(ask(0, 1, 0, 1).unwrap().is_empty(), "an ioregionfd is not for us");
    assert!(ask(1, 0, 0, 1).is_err(), "a descriptor that was not sent");
    assert!(ask(0, 0, 0, 9).is_err(), "entries that are not there");
}
