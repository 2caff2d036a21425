//! `manifold vf` enables, disables and shows VFs.

use std::fmt::Write as _;
use std::process::ExitCode;

use manifold_api::types::{Direction, DriverState, Function, Link, Vfs, VfsDisabled};

use crate::cli::{VfArgs, VfCommand};
use crate::output::{Align, Table, print, print_json, rough_size};
use crate::{daemon, listing};

/// Runs the command.
pub(crate) fn run(args: VfArgs) -> anyhow::Result<ExitCode> {
    let json = args.json.json;
    match args.command {
        VfCommand::Enable { count } => {
            let vfs = daemon::call(args.run_dir, async |d| d.enable_vfs(count).await)?;
            if json { print_json(&vfs)? } else { print(&enabled(&vfs))? }
        }
        VfCommand::Disable => {
            let gone = daemon::call(args.run_dir, async |d| d.disable_vfs().await)?;
            if json { print_json(&gone)? } else { print(&disabled(&gone))? }
        }
        VfCommand::List => {
            let vfs = daemon::call(args.run_dir, async |d| d.vfs().await)?;
            if json { print_json(&vfs)? } else { print(&list(&vfs))? }
        }
        VfCommand::Show { vf } => {
            let vf = daemon::call(args.run_dir, async |d| d.function(vf).await)?;
            if json { print_json(&vf)? } else { print(&show(&vf))? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn enabled(vfs: &Vfs) -> String {
    let (Some(first), Some(last)) = (vfs.vfs.first(), vfs.vfs.last()) else {
        return "no VFs\n".to_owned();
    };
    let folder = first.socket.parent().unwrap_or(&first.socket).display();
    if vfs.num_vfs == 1 {
        format!("1 VF enabled: vf0 at {}, to attach to at {}\n", first.bdf, first.socket.display())
    } else {
        format!(
            "{} VFs enabled: {} at {} to {} at {}, to attach to at {folder}/vfN.sock\n",
            vfs.num_vfs, first.id, first.bdf, last.id, last.bdf
        )
    }
}

fn disabled(gone: &VfsDisabled) -> String {
    let mut text = match gone.disabled {
        0 => "no VFs were enabled\n".to_owned(),
        1 => "1 VF disabled\n".to_owned(),
        n => format!("{n} VFs disabled\n"),
    };
    if !gone.detached.is_empty() {
        let names: Vec<String> = gone.detached.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "taken from the machines that used them: {}", names.join(" "));
    }
    text
}

fn list(vfs: &Vfs) -> String {
    if vfs.vfs.is_empty() {
        return format!(
            "no VFs are enabled; `manifold vf enable N` enables up to {}\n",
            vfs.total_vfs
        );
    }
    let mut table = Table::new(&[
        ("VF", Align::Left),
        ("BDF", Align::Left),
        ("MAC", Align::Left),
        ("LINK", Align::Left),
        ("ATTACHED", Align::Left),
        ("DRIVER", Align::Left),
        ("RX FRAMES", Align::Right),
        ("TX FRAMES", Align::Right),
        ("DROPS", Align::Right),
        ("DMA FAULTS", Align::Right),
    ]);
    for vf in &vfs.vfs {
        table.row([
            vf.id.to_string(),
            vf.bdf.to_string(),
            vf.mac.to_string(),
            link(vf.link).to_owned(),
            attached(vf),
            driver(vf.driver.state).to_owned(),
            vf.counters.rx_frames.to_string(),
            vf.counters.tx_frames.to_string(),
            vf.counters.drops.iter().map(|drops| drops.frames).sum::<u64>().to_string(),
            vf.dma.faults.to_string(),
        ]);
    }
    table.render(0)
}

/// Returns all about one function, for people.
fn show(vf: &Function) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("function", vf.id.to_string()),
        ("routing ID", vf.bdf.to_string()),
        ("device", listing::title(vf.identity)),
    ];
    for &bar in &vf.bars {
        lines.push(("", format!("Region {}: {}", bar.index, listing::bar(bar))));
    }
    let counters = &vf.counters;
    lines.extend([
        ("MAC address", vf.mac.to_string()),
        ("MTU", format!("{} bytes", vf.mtu)),
        ("link", link(vf.link).to_owned()),
        ("socket", vf.socket.display().to_string()),
        ("attached", attached(vf)),
        (
            "driver",
            format!("{} (device status {:#04x})", driver(vf.driver.state), vf.driver.device_status),
        ),
    ]);
    if !vf.driver.features.is_empty() {
        lines.push(("features", vf.driver.features.join(" ")));
    }
    if let Some(failure) = &vf.driver.failure {
        lines.push(("failure", failure.clone()));
    }
    lines.extend([
        ("received", traffic(counters.rx_frames, counters.rx_bytes, counters.rx_gso_frames)),
        ("sent", traffic(counters.tx_frames, counters.tx_bytes, counters.tx_gso_frames)),
    ]);
    for drops in &counters.drops {
        lines.push(("dropped", format!("{} frames: {}", drops.frames, drops.reason)));
    }
    let mapped = rough_size(vf.dma.bytes);
    lines.push(("DMA domain", format!("{} mappings, {mapped}", vf.dma.mappings)));
    lines.push(("DMA faults", vf.dma.faults.to_string()));
    for fault in &vf.dma.recent_faults {
        let direction = match fault.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        let what = format!(
            "{direction} of {} bytes at IOVA {:#x}: {}",
            fault.len, fault.iova, fault.reason
        );
        lines.push(("", what));
    }
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13}{value}");
    }
    text
}

fn traffic(frames: u64, bytes: u64, unsegmented: u64) -> String {
    format!("{frames} frames ({unsegmented} unsegmented), {}", rough_size(bytes))
}

fn link(link: Link) -> &'static str {
    match link {
        Link::Up => "up",
        Link::Down => "down",
    }
}

/// Returns who is attached to a function, for people.
pub(crate) fn attached(function: &Function) -> String {
    match &function.attached {
        None => "-".to_owned(),
        Some(peer) => match peer.pid {
            Some(pid) => format!("{} (process {pid})", peer.protocol),
            None => peer.protocol.to_string(),
        },
    }
}

fn driver(state: DriverState) -> &'static str {
    match state {
        DriverState::Reset => "-",
        DriverState::Starting => "starting",
        DriverState::Running => "running",
        DriverState::NeedsReset => "needs reset",
        DriverState::Failed => "failed",
    }
}
