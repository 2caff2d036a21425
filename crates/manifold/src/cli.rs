//! This module declares the command line: arguments and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use manifold_pci::{FunctionId, MAX_VFS};

use crate::config::Settings;
use crate::run_dir::RunDirArg;

/// A software SR-IOV network adapter.
///
/// One physical function (PF) owns one network port and partitions itself into up to 256 virtual
/// functions (VFs). Each VF is a PCIe function of its own that a VMM attaches to a virtual machine
/// like a passed-through device; the machine's stock virtio-net driver does the rest.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_long_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Try it out, without root and without any virtual machine:
  manifold demo

Run an adapter and give a virtual machine one of its VFs:
  manifold serve &
  manifold vf enable 4
  manifold attach vf0 --vmm qemu      # prints the arguments for QEMU 10.1 or newer

Environment:
  MANIFOLD_RUN_DIR   default of --run-dir
  MANIFOLD_LOG       what is logged to standard error: error, warn, info, debug, trace, or
                     per part, as in warn,manifold_vfio_user=debug";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Serve(ServeArgs),
    Vf(VfArgs),
    Function(FunctionArgs),
    Worker(WorkerArgs),
    Attach(AttachArgs),
    Guest(GuestArgs),
}

/// Show one adapter become several Ethernet connections carrying real traffic.
///
/// Starts an adapter, enables VFs through its PF, starts a guest process for each (no virtual
/// machine, no root and no network of the host is needed), lets all of them ping and exchange
/// random bytes over TCP, and lets one reach for memory that is not its own. Everything is gone
/// afterwards.
///
/// Exits with 0 only if every ping was answered, every byte arrived intact, and the rogue was
/// stopped without anybody else noticing.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Number of machines, each with a VF of its own: 1 to 256.
    #[arg(long, value_name = "N", default_value_t = 4, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_VFS)))]
    pub(crate) vms: u16,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

/// Flag that chooses how a command prints.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct JsonArg {
    /// Print JSON instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Run an adapter until SIGINT or SIGTERM.
///
/// The adapter begins as an ordinary NIC: a PF without VFs, which a VMM can attach to at pf.sock.
/// `manifold vf enable N` (or --num-vfs) then enables VFs through the PF's SR-IOV capability, and
/// each gets a socket of its own.
///
/// Once everything is reachable, one line that begins with `ready` is printed. Settings come from
/// flags, then from the configuration file, then from the defaults.
#[derive(Debug, Args)]
#[command(after_long_help = SERVE_AFTER)]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML). Its keys are named like the flags.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: Settings,
}

const SERVE_AFTER: &str = "\
A configuration file:
  run-dir = \"/run/manifold\"
  total-vfs = 64
  num-vfs = 4
  uplink = \"tap:tap0\"
  mtu = 9000
  queue-pairs = 2
  queue-size = 1024
  cores = \"2-3\"
  base-mac = \"02:00:00:00:00:00\"";

/// Enable, disable and look at virtual functions.
#[derive(Debug, Args)]
pub(crate) struct VfArgs {
    #[command(flatten)]
    pub(crate) run_dir: RunDirArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(subcommand)]
    pub(crate) command: VfCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VfCommand {
    /// Enable N VFs.
    ///
    /// Sets NumVFs and VF Enable in the PF's SR-IOV capability, as a PF driver does. The number
    /// cannot change while VFs are enabled: run `manifold vf disable` first.
    Enable {
        /// Number of VFs (NumVFs), 1 to TotalVFs.
        #[arg(value_name = "N", allow_negative_numbers = true)]
        count: u32,
    },
    /// Disable all VFs.
    ///
    /// Clears VF Enable. A machine that uses a VF loses it, as when a card is pulled out.
    Disable,
    /// List the VFs and who is attached to them.
    List,
    /// Show one VF: addresses, driver, counters, DMA domain and its faults.
    Show {
        /// Name of the VF: vf0, vf1 ... or just its number.
        #[arg(value_name = "VF", value_parser = parse_vf)]
        vf: FunctionId,
    },
}

/// List the adapter's PCIe functions and dump their configuration space.
#[derive(Debug, Args)]
pub(crate) struct FunctionArgs {
    #[command(flatten)]
    pub(crate) run_dir: RunDirArg,
    #[command(subcommand)]
    pub(crate) command: FunctionCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// List the functions, PF first, with IDs and BARs.
    List {
        #[command(flatten)]
        json: JsonArg,
    },
    /// Dump a function's configuration space.
    ///
    /// The lspci format is what `lspci -xxxx` prints and `lspci -F FILE` reads:
    ///   manifold function dump pf > pf.txt && lspci -F pf.txt -vvv
    #[command(verbatim_doc_comment)]
    Dump {
        /// Name of the function: pf, vf0, vf1 ...
        #[arg(value_name = "FUNCTION")]
        function: FunctionId,
        /// Format of the dump.
        #[arg(long, value_enum, default_value_t)]
        format: DumpFormat,
        /// Dump what reads on the bus return, not what Linux shows: a VF's IDs are FFFFh, its BARs
        /// 0.
        #[arg(long)]
        raw: bool,
    },
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum DumpFormat {
    /// Text that `lspci -F` reads.
    #[default]
    Lspci,
    /// A JSON object with the bytes in hexadecimal.
    Json,
}

/// Look at the threads that move frames.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) run_dir: RunDirArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(subcommand)]
    pub(crate) command: WorkerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the workers: what they serve, and how many cycles a frame takes at each stage.
    List,
}

/// Print the arguments that attach a function to a virtual machine.
///
/// Standard output carries nothing but the arguments, quoted for a shell where it is a command
/// line; remarks go to standard error. Guest memory must be shared with the adapter, so the
/// arguments for that are part of them.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) run_dir: RunDirArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// Name of the function: pf, vf0, vf1 ...
    #[arg(value_name = "FUNCTION", required_unless_present = "sriov")]
    pub(crate) function: Option<FunctionId>,
    /// The VMM that runs the machine.
    #[arg(long, value_enum)]
    pub(crate) vmm: Vmm,
    /// Protocol by which it attaches [default: vfio-user; crosvm: vhost-user]
    ///
    /// With vfio-user the machine has the PCIe function itself, with its own registers, reset and
    /// control queue. With vhost-user the VMM has a virtio-net device of its own, and the adapter
    /// moves the frames of its queues.
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<Protocol>,
    /// The whole adapter for one machine: a PF and N VFs that the machine's own kernel enables.
    ///
    /// The arguments make an SR-IOV device of QEMU's own virtio-net functions, each with the queues
    /// of one of the adapter's functions. N VFs must be enabled here before the machine starts; in
    /// the machine `echo N > /sys/bus/pci/devices/.../sriov_numvfs` makes N network interfaces.
    #[arg(long, value_name = "N", conflicts_with_all = ["function", "protocol"],
        allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=255))]
    pub(crate) sriov: Option<u16>,
    /// The machine's memory, as the VMM writes sizes.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    pub(crate) memory: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    /// QEMU: 10.1 or newer for vfio-user, any for vhost-user.
    Qemu,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// libvirt, with QEMU.
    Libvirt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// The whole PCIe function.
    VfioUser,
    /// Only the function's queues.
    VhostUser,
}

/// Stand for a virtual machine.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct GuestArgs {
    #[command(subcommand)]
    pub(crate) command: GuestCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GuestCommand {
    /// Drive a function and a TCP/IP stack as commands on standard input say.
    Agent {
        /// The guest's configuration: a JSON object with at least `socket`.
        config: String,
    },
}

fn parse_vf(text: &str) -> Result<FunctionId, String> {
    let number = text.strip_prefix("vf").unwrap_or(text);
    match format!("vf{number}").parse() {
        Ok(vf) => Ok(vf),
        Err(_) => Err(format!("write vf0 to vf{}", MAX_VFS - 1)),
    }
}

/// Reads a number and K, M or G: what QEMU, Cloud Hypervisor and libvirt all take.
fn parse_size(text: &str) -> Result<String, String> {
    let digits = text.strip_suffix(['K', 'M', 'G']).unwrap_or_default();
    match digits.parse::<u32>() {
        Ok(1..) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(text.to_owned()),
        _ => Err("write a number followed by K, M or G, such as 512M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn vfs_go_by_name_or_number() {
        assert_eq!(parse_vf("vf7"), Ok(FunctionId::Vf(7)));
        assert_eq!(parse_vf("255"), Ok(FunctionId::Vf(255)));
        for text in ["", "vf", "pf", "256", "vf256", "-1", "+1", "vfvf1", "1 "] {
            assert!(parse_vf(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        for text in ["512M", "2G", "1K"] {
            assert_eq!(parse_size(text), Ok(text.to_owned()));
        }
        for text in ["", "G", "0G", "2", "2T", "-2G", "+2G", "2.5G", "2G,share=off", "2 G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
