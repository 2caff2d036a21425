//! These attacks access configuration space, BARs and interrupts as no driver does.

use crate::attack::{Answer, Attack};
use manifold_guest::vfio::{Client, Transport, spec};
use manifold_guest::{Error, Result};
use rand::{Rng, RngExt};
use rustix::event::EventfdFlags;
use std::os::fd::AsFd;

/// Lets refusals pass: they are a proper answer. Everything else ends the scenario.
fn tolerate<T>(result: Result<T>, refused: &mut u32) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(Error::Refused { .. }) => {
            *refused += 1;
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Reads and writes a region all over, with every width, and around its end.
fn all_over(
    attack: &mut Attack,
    client: &mut Client,
    region: u32,
    step: usize,
    skip: impl Fn(u64, usize) -> bool,
) -> Result<(u32, u32)> {
    let size = client.region(region).map_or(0, |r| r.size);
    let (mut tried, mut refused) = (0, 0);
    let end = size.saturating_sub(9)..size + 9;
    let offsets =
        (0..size.min(64 << 10)).step_by(step).chain(end).chain([1 << 32, u64::MAX - 7, u64::MAX]);
    for offset in offsets {
        for width in [1, 2, 3, 4, 5, 7, 8, 16] {
            let mut data = vec![0; width];
            tolerate(client.region_read(region, offset, &mut data), &mut refused)?;
            tried += 1;
            if !skip(offset, width) {
                attack.rng.fill_bytes(&mut data);
                tolerate(client.region_write(region, offset, &data), &mut refused)?;
                tried += 1;
            }
        }
    }
    for len in [0, 4095, 4096, 4097, 65536] {
        let mut data = vec![0; len];
        for offset in [0, 1, size / 2, size] {
            tolerate(client.region_read(region, offset, &mut data), &mut refused)?;
            tried += 1;
        }
    }
    Ok((tried, refused))
}

fn on_region(
    attack: &mut Attack,
    region: u32,
    step: usize,
    skip: impl Fn(u64, usize) -> bool,
) -> Result<()> {
    let mut client = attack.connected()?;
    let result = all_over(attack, &mut client, region, step, skip);
    drop(client);
    let what = format!("region {region}");
    match result {
        Ok((tried, refused)) => {
            attack.note(format!("{what}: {tried} accesses, {refused} refused"));
            Ok(())
        }
        Err(e) => attack.judge(&what, Err(e)).map(drop),
    }
}

impl Attack {
    /// Makes a connection that knows the regions.
    fn connected(&mut self) -> Result<Client> {
        let mut client = self.negotiated()?;
        client.read_regions()?;
        Ok(client)
    }
}

pub(crate) fn config_access(attack: &mut Attack) -> Result<()> {
    on_region(attack, spec::REGION_CONFIG, 3, |_, _| false)
}

pub(crate) fn bar_access(attack: &mut Attack) -> Result<()> {
    for bar in 0..6 {
        on_region(attack, bar, 37, |_, _| false)?;
    }
    Ok(())
}

pub(crate) fn region_nowhere(attack: &mut Attack) -> Result<()> {
    let mut client = attack.connected()?;
    let mut refused = 0;
    let regions = [6, 8, 9, 10, 255, 0x8000_0000, u32::MAX];
    for region in regions {
        let mut data = [0; 4];
        for offset in [0, 4, u64::MAX - 3] {
            tolerate(client.region_read(region, offset, &mut data), &mut refused)?;
            tolerate(client.region_write(region, offset, &data), &mut refused)?;
        }
        tolerate(client.region_info(region), &mut refused)?;
        tolerate(client.doorbells(region), &mut refused)?;
        tolerate(client.irq_count(region), &mut refused)?;
    }
    attack.note(format!("{refused} of {} requests refused", regions.len() * 8));
    Ok(())
}

pub(crate) fn irq_nonsense(attack: &mut Attack) -> Result<()> {
    let mut client = attack.connected()?;
    let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
        .map_err(|e| Error::io("making an eventfd", e))?;
    let null = std::fs::File::open("/dev/null").map_err(|e| Error::io("opening /dev/null", e))?;
    let socket = client.socket().try_clone().map_err(|e| Error::io("cloning a socket", e))?;
    let kinds = [eventfd.as_fd(), null.as_fd(), socket.as_fd()];
    let (mut tried, mut refused) = (0, 0);
    let numbers = [0, 1, 2, 3, 7, 2047, 2048, 0x7fff_ffff, u32::MAX];
    for _ in 0..1500 {
        let mut pick =
            || numbers.get(attack.rng.random_range(0..numbers.len())).copied().unwrap_or(0);
        let (index, start, count) = (pick() % 8, pick(), pick());
        let flags = match attack.rng.random_range(0..4) {
            0 => attack.rng.random(),
            _ => 1 << attack.rng.random_range(0..3) | 1 << attack.rng.random_range(3..6),
        };
        let mut data = vec![0; attack.rng.random_range(0..16)];
        attack.rng.fill_bytes(&mut data);
        let fds: Vec<_> = (0..attack.rng.random_range(0..4))
            .filter_map(|_| kinds.get(attack.rng.random_range(0..kinds.len())).copied())
            .collect();
        tried += 1;
        let result = client.set_irqs([flags, index, start, count], &data, &fds);
        match tolerate(result, &mut refused) {
            Ok(()) => {}
            Err(e) if e.is_disconnect() => {
                attack.judge(&format!("flags {flags:#x}"), Err(e))?;
                return Ok(());
            }
            Err(e) => return Err(e),
        }
    }
    attack.note(format!("{tried} interrupt set-ups, {refused} refused"));
    // The server was given this end of the connection; if it kept it open, it would never see the
    // connection end.
    drop((client, socket));
    attack.attempt("a frame after that", |_, target| match target.send_good()? {
        Answer::Silence => Err(Error::Device("the frame was not sent".into())),
        answer => Ok(answer),
    })
}
