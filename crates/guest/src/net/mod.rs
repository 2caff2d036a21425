//! This module is a TCP/IP host on a virtio-net device: ARP, ICMP echo, and bulk transfers over
//! TCP.
//!
//! Nothing here waits. [`Stack::poll`] does what can be done. Its caller decides whether to poll
//! again at once or to sleep until an interrupt or [`Stack::next_deadline`].
//!
//! ```text
//!   Pinger      Transfer (TCP: send random bytes / receive and hash)
//!        └──┬───────┘
//!       smoltcp sockets, Interface
//!           │  frames
//!       PhyDevice ── VirtioNet
//! ```

mod arp;
mod device;
mod ping;
mod resolver;
mod transfer;

pub use ping::PingOptions;

use crate::protocol::{Event, Incoming, Neighbour, Outgoing};
use crate::virtio::VirtioNet;
use crate::{Error, Result};
use device::PhyDevice;
use ping::Pinger;
use resolver::Resolver;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use transfer::Transfer;

/// Time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A host on the network.
pub struct Stack {
    phy: PhyDevice,
    iface: Interface,
    sockets: SocketSet<'static>,
    address: Option<Ipv4Addr>,
    pingers: Vec<Pinger>,
    transfers: Vec<Transfer>,
    resolver: Resolver,
    events: Vec<Event>,
    /// Bytes received and sent by finished transfers.
    finished: (u64, u64),
    next_progress: Instant,
    next_port: u16,
    epoch: Instant,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Stack {
    /// Makes a host without an address. `seed` makes sequence numbers and ports differ between
    /// guests.
    pub fn new(net: VirtioNet, seed: u64) -> Self {
        let epoch = Instant::now();
        let mut phy = PhyDevice::new(net);
        let mac = EthernetAddress(phy.net.info().mac);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = seed;
        let iface = Interface::new(config, &mut phy, smoltcp::time::Instant::ZERO);
        Self {
            phy,
            iface,
            sockets: SocketSet::new(Vec::new()),
            address: None,
            pingers: Vec::new(),
            transfers: Vec::new(),
            resolver: Resolver::default(),
            events: Vec::new(),
            finished: (0, 0),
            next_progress: epoch,
            next_port: 49152 + (seed % 16384) as u16,
            epoch,
        }
    }

    /// Returns the driver below.
    pub fn net(&mut self) -> &mut VirtioNet {
        &mut self.phy.net
    }

    /// Returns the driver below, for reading.
    pub fn net_ref(&self) -> &VirtioNet {
        &self.phy.net
    }

    /// Sets the host's one address and the neighbours that need not be asked for.
    pub fn configure(
        &mut self,
        address: Ipv4Addr,
        prefix: u8,
        neighbours: &[Neighbour],
    ) -> Result<()> {
        if prefix > 32 {
            return Err(Error::Command(format!("a prefix of {prefix} bits; IPv4 has 32")));
        }
        self.iface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is always room for one address.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix)));
        });
        self.address = Some(address);
        self.phy.own = Some(address);
        for neighbour in neighbours {
            self.phy.inject_neighbour(neighbour.address, neighbour.mac, address);
        }
        self.events.push(Event::Configured { address });
        Ok(())
    }

    /// Pings all targets at once; the results come as events.
    pub fn ping(&mut self, targets: &[Ipv4Addr], options: &PingOptions) -> Result<()> {
        self.own_address()?;
        self.resolve(targets.iter().copied());
        let ident = self.unused_port();
        let pinger = Pinger::new(&mut self.sockets, ident, targets, options)?;
        self.pingers.push(pinger);
        Ok(())
    }

    /// Listens for transfers; their ends come as events.
    pub fn receive(&mut self, transfers: &[Incoming]) -> Result<()> {
        self.own_address()?;
        let segment = usize::from(self.phy.net.info().mtu).saturating_sub(40);
        let (_, rx, _) = self.phy.net.parts();
        let capacity = rx.iter().map(|queue| queue.room_for(segment + 54) * segment).sum();
        let window = transfer::window(capacity, transfers.len());
        for incoming in transfers {
            let transfer = Transfer::listen(&mut self.sockets, incoming, window)?;
            self.transfers.push(transfer);
        }
        self.events.push(Event::Listening { transfers: transfers.len() });
        Ok(())
    }

    /// Sends transfers; their ends come as events.
    pub fn send(&mut self, transfers: &[Outgoing]) -> Result<()> {
        self.own_address()?;
        self.resolve(transfers.iter().map(|transfer| transfer.to));
        for outgoing in transfers {
            let port = self.unused_port();
            let buffer = transfer::send_buffer(transfers.len());
            self.transfers.push(Transfer::send(&mut self.sockets, outgoing, port, buffer));
        }
        Ok(())
    }

    /// Asks every address for its MAC address, if it is not known.
    pub fn resolve(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) {
        addresses.for_each(|address| self.resolver.want(address));
    }

    /// Asks all known neighbours for their addresses again, so that frames come back.
    pub(crate) fn provoke_answers(&mut self) -> Result<()> {
        let Some(own) = self.address else { return Ok(()) };
        let mac = self.phy.net.info().mac;
        let targets: Vec<_> = self.phy.neighbours.keys().copied().collect();
        for target in targets {
            self.phy.send(&arp::request(mac, own, target))?;
        }
        self.phy.net.flush()
    }

    fn own_address(&self) -> Result<Ipv4Addr> {
        self.address
            .ok_or_else(|| Error::Command("the guest has no address yet; configure it".into()))
    }

    fn unused_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == u16::MAX { 49152 } else { port + 1 };
        port
    }

    /// Does what can be done: frames in, sockets, frames out. Returns true if anything happened.
    pub fn poll(&mut self) -> Result<bool> {
        let now = Instant::now();
        let before = self.phy.net.counters();
        self.phy.begin()?;
        self.ask_neighbours(now)?;
        let timestamp = self.timestamp(now);
        self.iface.poll(timestamp, &mut self.phy, &mut self.sockets);
        let busy = self.serve_sockets();
        if busy {
            // Data given to the sockets goes out in this round, not in the next.
            while self.iface.poll_egress(timestamp, &mut self.phy, &mut self.sockets)
                != smoltcp::iface::PollResult::None
            {}
        }
        self.phy.end()?;
        let after = self.phy.net.counters();
        Ok(busy || after.rx_frames != before.rx_frames || after.tx_frames != before.tx_frames)
    }

    fn timestamp(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn ask_neighbours(&mut self, now: Instant) -> Result<()> {
        let Some(own) = self.address else { return Ok(()) };
        if self.resolver.is_idle() {
            return Ok(());
        }
        let known = &self.phy.neighbours;
        let mac = self.phy.net.info().mac;
        for target in self.resolver.ask(now, |address| known.contains_key(address)) {
            self.phy.send(&arp::request(mac, own, target))?;
        }
        Ok(())
    }

    /// Lets pings and transfers use their sockets. Returns true if anything happened.
    fn serve_sockets(&mut self) -> bool {
        let now = Instant::now();
        let mut busy = false;
        for pinger in &mut self.pingers {
            busy |= pinger.poll(&mut self.sockets, &self.phy.neighbours, now, &mut self.events);
        }
        let sockets = &mut self.sockets;
        self.pingers.retain(|pinger| !pinger.is_done() || !pinger.close(sockets));
        for transfer in &mut self.transfers {
            busy |= transfer.poll(
                &mut self.sockets,
                self.iface.context(),
                &self.phy.neighbours,
                now,
                &mut self.events,
            );
        }
        let (sockets, finished) = (&mut self.sockets, &mut self.finished);
        self.transfers.retain(|transfer| {
            if !transfer.is_gone(sockets, now) {
                return true;
            }
            let (received, sent) = transfer.progress();
            *finished = (finished.0 + received, finished.1 + sent);
            transfer.close(sockets);
            false
        });
        if now >= self.next_progress && self.transfers.iter().any(Transfer::is_running) {
            self.next_progress = now + PROGRESS_INTERVAL;
            let (received, sent) = self.progress();
            self.events.push(Event::Progress { received, sent });
        }
        busy
    }

    /// Returns the bytes received and sent so far by all transfers together.
    fn progress(&self) -> (u64, u64) {
        self.transfers
            .iter()
            .map(Transfer::progress)
            .fold(self.finished, |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Returns how long nothing will happen by itself, or `None` if that is until something
    /// arrives.
    pub fn next_deadline(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let timestamp = self.timestamp(now);
        let smoltcp = self.iface.poll_delay(timestamp, &self.sockets).map(Duration::from);
        let resolver = self.resolver.next_deadline(now);
        let pings = self.pingers.iter().filter_map(|pinger| pinger.next_deadline(now));
        let transfers = self.transfers.iter().filter_map(|transfer| transfer.next_deadline(now));
        pings.chain(transfers).chain(smoltcp).chain(resolver).min()
    }

    /// Asks for interrupts before sleeping. Returns true if there is something to do already.
    pub fn arm(&mut self) -> Result<bool> {
        self.phy.arm()
    }

    /// Asks for no more interrupts, because the caller polls again.
    pub fn disarm(&mut self) -> Result<()> {
        self.phy.disarm()
    }

    /// Returns the events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
