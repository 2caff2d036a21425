//! These attacks misuse the connection itself.

use crate::attack::{Answer, Attack};
use manifold_guest::vfio::spec::{self, command, flags};
use manifold_guest::vfio::wire::{Header, Message};
use manifold_guest::vfio::{Client, DmaMap, Transport};
use manifold_guest::{Error, Result};
use rand::{Rng, RngExt};
use rustix::event::EventfdFlags;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

/// Time that the server gets to react to what it was sent.
const PAUSE: Duration = Duration::from_millis(20);

fn header(command: u16, size: u32, flags: u32) -> Vec<u8> {
    Header { id: 1, command, size, flags, errno: 0 }.encode().to_vec()
}

pub(crate) fn half_message(attack: &mut Attack) -> Result<()> {
    let read = Message::new(1, command::REGION_READ, 0).u64(0).u32(7).u32(4).finish();
    let write = Message::new(1, command::REGION_WRITE, 0).u64(0).u32(7).u32(64).bytes(&[0; 64]);
    let write = write.finish();
    for negotiated in [false, true] {
        for (what, bytes) in [
            ("nothing", &[][..]),
            ("one byte", &read[..1]),
            ("half a header", &read[..8]),
            ("a header", &read[..16]),
            ("a header and a half", &read[..24]),
            ("all but one byte", &write[..write.len() - 1]),
        ] {
            let client = if negotiated { attack.negotiated()? } else { attack.raw()? };
            // The server may hang up before it has received all bytes.
            let sent = client.send(0, bytes, &[]);
            std::thread::sleep(PAUSE);
            drop(client);
            let when = if negotiated { "after" } else { "before" };
            attack.note(format!("{what} {when} the negotiation, then the end: {sent:?}"));
        }
    }
    let client = attack.negotiated()?;
    client.send(0, &read[..10], &[])?;
    client
        .socket()
        .shutdown(Shutdown::Write)
        .map_err(|e| Error::io("shutting a socket down", e))?;
    let answer = client.receive(command::REGION_READ).map(|_| Answer::Silence);
    attack.judge("half a header, then a half-closed connection", answer)?;
    Ok(())
}

/// Sends bytes on a new connection and notes what comes back.
fn throw(attack: &mut Attack, negotiated: bool, what: &str, bytes: &[u8]) -> Result<()> {
    let client = if negotiated { attack.negotiated()? } else { attack.raw()? };
    let answer = client.send(0, bytes, &[]).and_then(|()| answer(&client));
    attack.judge(what, answer)?;
    Ok(())
}

/// Waits a moment for a message. Errors in it are answers.
fn answer(client: &Client) -> Result<Answer> {
    client
        .socket()
        .set_read_timeout(Some(Duration::from_millis(100)))
        .map_err(|e| Error::io("setting a socket timeout", e))?;
    match client.receive(0) {
        Ok(reply) if reply.header.is_error() => Err(Error::Refused {
            command: command::name(reply.header.command),
            errno: reply.header.errno.cast_signed(),
        }),
        // After a timeout the server has ignored the bytes. The end of the scenario shows if it
        // still works.
        Ok(_) | Err(Error::Timeout { .. }) => Ok(Answer::Silence),
        Err(e) => Err(e),
    }
}

pub(crate) fn message_garbage(attack: &mut Attack) -> Result<()> {
    for size in [0, 1, 15, 0x7fff_ffff, u32::MAX] {
        for negotiated in [false, true] {
            let bytes = header(command::REGION_READ, size, 0);
            throw(attack, negotiated, &format!("a message that claims {size} bytes"), &bytes)?;
        }
    }
    for number in [0, 11, 12, 14, 15, 16, 17, 18, 19, 0xff, 0xffff] {
        throw(
            attack,
            true,
            &format!("command {number} without a payload"),
            &header(number, 16, 0),
        )?;
        let bytes = Message::new(1, number, 0).bytes(&[0xff; 64]).finish();
        throw(attack, true, &format!("command {number} with a payload of ones"), &bytes)?;
    }
    for number in 1..=13 {
        let bytes = header(number, 16, 0);
        throw(attack, false, &format!("command {number} before the negotiation"), &bytes)?;
        throw(attack, true, &format!("command {number}, empty"), &header(number, 16, 0))?;
        let bytes = Message::new(1, number, 0).bytes(&[0xff; 256]).finish();
        throw(attack, true, &format!("command {number}, all ones"), &bytes)?;
    }
    for (what, message_flags) in [
        ("a reply that nobody asked for", flags::TYPE_REPLY),
        ("an error that nobody asked for", flags::TYPE_REPLY | flags::ERROR),
        ("a type that does not exist", 7),
        ("all flags", u32::MAX),
    ] {
        throw(attack, true, what, &header(command::REGION_READ, 16, message_flags))?;
    }
    let huge = Message::new(1, command::REGION_READ, 0).u64(0).u32(7).u32(u32::MAX).finish();
    throw(attack, true, "a read of 4 GiB", &huge)?;
    let liar = Message::new(1, command::REGION_WRITE, 0).u64(0).u32(7).u32(4096).bytes(&[0]);
    throw(attack, true, "a write that claims more data than it has", &liar.finish())?;
    for json in ["", "{", "[]", "{\"capabilities\":7}", "{\"capabilities\":{\"max_msg_fds\":-1}}"] {
        let version = Message::new(1, command::VERSION, 0).u32(0x0001_0000);
        let bytes = version.bytes(json.as_bytes()).bytes(&[0]).finish();
        throw(attack, false, &format!("a version with {json:?}"), &bytes)?;
    }
    for version in [1, 0xffff_ffff, 0x0000_0063] {
        let bytes = Message::new(1, command::VERSION, 0).u32(version).bytes(b"{}\0").finish();
        throw(attack, false, &format!("version {version:#x}"), &bytes)?;
    }
    let version = Message::new(1, command::VERSION, 0).u32(0x0001_0000).bytes(b"{}\0").finish();
    throw(attack, true, "a second negotiation", &version)?;
    too_many_descriptors(attack)?;
    for round in 0..20 {
        let mut bytes = vec![0; attack.rng.random_range(1..4096)];
        attack.rng.fill_bytes(&mut bytes);
        throw(attack, round % 2 == 0, &format!("{} random bytes", bytes.len()), &bytes)?;
    }
    unread_replies(attack)
}

/// Sends descriptors where none belong, and as many as the kernel passes.
fn too_many_descriptors(attack: &mut Attack) -> Result<()> {
    let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
        .map_err(|e| Error::io("making an eventfd", e))?;
    for count in [1, 17, 200] {
        let fds = vec![eventfd.as_fd(); count];
        let client = attack.negotiated()?;
        let read = Message::new(1, command::REGION_READ, 0).u64(0).u32(7).u32(4).finish();
        let sent = client.send(0, &read, &fds).and_then(|()| answer(&client));
        attack.judge(&format!("a read with {count} descriptors"), sent)?;
    }
    Ok(())
}

/// Sends requests without end and never reads the answers.
fn unread_replies(attack: &mut Attack) -> Result<()> {
    let client = attack.negotiated()?;
    client
        .socket()
        .set_write_timeout(Some(Duration::from_millis(200)))
        .map_err(|e| Error::io("setting a socket timeout", e))?;
    let read = Message::new(1, command::REGION_READ, 0).u64(0).u32(7).u32(4096).finish();
    let mut sent = 0;
    let end = loop {
        match client.send(0, &read, &[]) {
            Ok(()) if sent < 20_000 => sent += 1,
            Ok(()) => break "all taken".to_owned(),
            Err(e) => break e.to_string(),
        }
    };
    attack.note(format!("{sent} reads whose answers nobody reads: {end}"));
    Ok(())
}

pub(crate) fn disconnect_midway(attack: &mut Attack) -> Result<()> {
    for _ in 0..10 {
        // The connection ends in the middle of traffic, with the device running.
        let mut target = attack.target(0)?;
        target.send_good()?;
        target.device.kick(1)?;
        drop(target);
        attack.hang_up();
        // Nobody waits for the answer to this mapping.
        let mut client = attack.negotiated()?;
        let arena = manifold_guest::memory::Arena::new(1 << 20, 0)?;
        let map = Message::new(client.take_id(), command::DMA_MAP, 0)
            .u32(32)
            .u32(spec::DMA_READABLE | spec::DMA_WRITEABLE)
            .u64(0)
            .u64(0x5_0000_0000)
            .u64(1 << 20)
            .finish();
        client.send(command::DMA_MAP, &map, &[arena.fd()])?;
        drop(client);
        // This mapping has no descriptor: the server might want to ask for what is in it.
        let mut client = attack.negotiated()?;
        let map = DmaMap {
            iova: 0x5_0000_0000,
            size: 1 << 20,
            offset: 0,
            readable: true,
            writable: true,
        };
        client.dma_map(&map, None)?;
        drop(client);
    }
    attack.note("10 times: under traffic, within DMA_MAP, with memory by messages");
    Ok(())
}

pub(crate) fn second_client(attack: &mut Attack) -> Result<()> {
    let mut target = attack.target(0)?;
    for attempt in 0..3 {
        let answer =
            Client::connect(attack.socket(), Duration::from_secs(2)).map(|_| Answer::Silence);
        if answer.is_ok() {
            return Err(Error::Device("a second client was served".into()));
        }
        // A refusal and a hang-up are both proper. The first client must not notice.
        attack.note(format!("second client, try {attempt}: {answer:?}"));
    }
    let answer = target.send_good();
    if attack.judge("the first client's frame", answer)? {
        attack.put_back(target.device.into_function());
    }
    Ok(())
}
