//! This module pings many targets at once with ICMP echo.

use super::device::RX_BUDGET;
use crate::protocol::{Event, Rtt};
use crate::{Error, Result};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Bytes in an ICMP echo header.
const HEADER: usize = 8;

/// The settings of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingOptions {
    /// Number of echo requests per target.
    pub count: u32,
    /// Time between two requests to one target.
    pub interval: Duration,
    /// Time to wait for the last reply, and for the target's MAC address.
    pub timeout: Duration,
    /// Length in bytes of the data after the ICMP header.
    pub payload: u16,
}

/// Pings until every target has been reported.
#[derive(Debug)]
pub(super) struct Pinger {
    handle: SocketHandle,
    ident: u16,
    options: PingOptions,
    payload: Vec<u8>,
    /// Time after which a target without a MAC address is given up.
    resolve_by: Instant,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    to: Ipv4Addr,
    /// Time at which each request was sent; `None` once it was answered.
    sent: Vec<Option<Instant>>,
    /// Round-trip times in microseconds.
    rtts: Vec<f64>,
    /// Time at which to send the next request, or to give up on the last.
    due: Instant,
    reported: bool,
}

impl Pinger {
    pub(super) fn new(
        sockets: &mut SocketSet<'static>,
        ident: u16,
        targets: &[Ipv4Addr],
        options: &PingOptions,
    ) -> Result<Self> {
        if options.count > u32::from(u16::MAX) {
            return Err(Error::Command(format!("{} pings; 65535 at most", options.count)));
        }
        let packet = HEADER + usize::from(options.payload);
        let buffer = |packets: usize| {
            PacketBuffer::new(vec![PacketMetadata::EMPTY; packets], vec![0; packets * packet])
        };
        // All frames that one round receives may be replies to this pinger.
        let mut socket = Socket::new(buffer(RX_BUDGET), buffer(targets.len().clamp(1, RX_BUDGET)));
        socket
            .bind(Endpoint::Ident(ident))
            .map_err(|e| Error::Command(format!("binding an ICMP socket: {e}")))?;
        let now = Instant::now();
        let target = |to: &Ipv4Addr| Target {
            to: *to,
            sent: Vec::new(),
            rtts: Vec::new(),
            due: now,
            reported: false,
        };
        Ok(Self {
            handle: sockets.add(socket),
            ident,
            options: *options,
            payload: (0..options.payload).map(|i| i as u8).collect(),
            resolve_by: now + options.timeout,
            targets: targets.iter().map(target).collect(),
        })
    }

    pub(super) fn poll(
        &mut self,
        sockets: &mut SocketSet<'static>,
        neighbours: &HashMap<Ipv4Addr, [u8; 6]>,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> bool {
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        let mut busy = self.take_replies(socket, now);
        for target in self.targets.iter_mut().filter(|target| !target.reported) {
            let options = &self.options;
            let complete = target.sent.len() == options.count as usize;
            let answered = complete && target.rtts.len() == target.sent.len();
            let overdue = complete && now >= target.due;
            let unreachable = !neighbours.contains_key(&target.to);
            if answered || overdue || (unreachable && now >= self.resolve_by) {
                target.reported = true;
                events.push(target.report());
                continue;
            }
            if complete || unreachable || now < target.due {
                continue;
            }
            let request = Icmpv4Repr::EchoRequest {
                ident: self.ident,
                seq_no: target.sent.len() as u16,
                data: &self.payload,
            };
            // A request for which the queue has no room is tried again in the next round.
            let Ok(bytes) = socket.send(request.buffer_len(), IpAddress::Ipv4(target.to)) else {
                break;
            };
            request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
            target.sent.push(Some(now));
            let last = target.sent.len() == options.count as usize;
            target.due = now + if last { options.timeout } else { options.interval };
            busy = true;
        }
        busy
    }

    fn take_replies(&mut self, socket: &mut Socket<'_>, now: Instant) -> bool {
        let mut busy = false;
        while let Ok((bytes, from)) = socket.recv() {
            busy = true;
            let IpAddress::Ipv4(from) = from else { continue };
            let Ok(packet) = Icmpv4Packet::new_checked(bytes) else { continue };
            let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) =
                Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default())
            else {
                continue;
            };
            if data != self.payload {
                continue;
            }
            let asked = self
                .targets
                .iter_mut()
                .filter(|target| target.to == from && !target.reported)
                .find_map(|target| {
                    let sent = target.sent.get_mut(usize::from(seq_no))?.take()?;
                    Some((target, sent))
                });
            if let Some((target, sent)) = asked {
                target.rtts.push(now.saturating_duration_since(sent).as_secs_f64() * 1e6);
            }
        }
        busy
    }

    pub(super) fn is_done(&self) -> bool {
        self.targets.iter().all(|target| target.reported)
    }

    /// Gives the socket back; always true.
    pub(super) fn close(&self, sockets: &mut SocketSet<'static>) -> bool {
        sockets.remove(self.handle);
        true
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Option<Duration> {
        // A target that still waits for a MAC address is woken by the answer, or by the end of the
        // wait.
        let due = |target: &Target| {
            if target.sent.is_empty() { target.due.max(self.resolve_by) } else { target.due }
        };
        let open = self.targets.iter().filter(|target| !target.reported);
        open.map(due).min().map(|due| due.saturating_duration_since(now))
    }
}

impl Target {
    fn report(&mut self) -> Event {
        self.rtts.sort_by(f64::total_cmp);
        let median = self.rtts.get(self.rtts.len() / 2);
        let rtt_us = match (self.rtts.first(), median, self.rtts.last()) {
            (Some(&min), Some(&median), Some(&max)) => Some(Rtt { min, median, max }),
            _ => None,
        };
        Event::Pinged {
            to: self.to,
            sent: self.sent.len() as u32,
            received: self.rtts.len() as u32,
            rtt_us,
        }
    }
}
