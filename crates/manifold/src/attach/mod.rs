//! `manifold attach` prints the arguments that give a function to a virtual machine.
//!
//! | VMM              | vfio-user: the function                 | vhost-user: its queues       |
//! |------------------|-----------------------------------------|------------------------------|
//! | QEMU             | from 10.1, `-device vfio-user-pci`      | `-netdev vhost-user`         |
//! | Cloud Hypervisor | `--user-device`                         | `--net vhost_user=true`      |
//! | libvirt          | QEMU's, through `<qemu:commandline>`    | `<interface type=vhostuser>` |
//! | crosvm           | not                                     | `--vhost-user net`           |

mod sriov;
mod vfio_user;
mod vhost_user;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use manifold_api::types::{Adapter, Function};
use serde::Serialize;

use crate::cli::{AttachArgs, Protocol, Vmm};
use crate::daemon;
use crate::failure::advise;
use crate::output::{print, print_json};

/// Arguments that attach a function to one kind of VMM.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Recipe {
    /// Arguments of the VMM's command line, options and their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
    /// Elements of the machine's XML description.
    #[serde(skip_serializing_if = "Option::is_none")]
    xml: Option<String>,
    /// Remarks for the user, printed to standard error.
    remarks: Vec<String>,
}

impl Recipe {
    /// Returns a command line of these options and values.
    fn command(arguments: impl IntoIterator<Item = impl Into<String>>, remarks: &[&str]) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            xml: None,
            remarks: remarks.iter().map(|&remark| remark.to_owned()).collect(),
        }
    }

    /// Returns elements of an XML description.
    fn xml(xml: String, remarks: &[&str]) -> Self {
        Self { xml: Some(xml), ..Self::command([""; 0], remarks) }
    }
}

/// Facts that a recipe is made from.
struct Subject {
    adapter: Adapter,
    /// Functions to attach: one, or for a whole adapter the PF and then its VFs.
    functions: Vec<Function>,
}

/// Runs the command.
pub(crate) fn run(args: &AttachArgs) -> anyhow::Result<ExitCode> {
    let subject = daemon::call(args.run_dir.clone(), async |daemon| {
        let functions = match args.function {
            Some(function) => vec![daemon.function(function).await?],
            None => daemon.functions().await?,
        };
        Ok(Subject { adapter: daemon.adapter().await?, functions })
    })?;
    let mut recipe = match args.sriov {
        Some(vfs) => sriov::recipe(&subject, vfs, args.vmm, &args.memory)?,
        None => recipe(&subject, args)?,
    };
    recipe.remarks.extend(subject.functions.iter().filter_map(in_use));
    if args.json.json {
        print_json(&recipe)?;
        return Ok(ExitCode::SUCCESS);
    }
    for remark in &recipe.remarks {
        eprintln!("# {remark}");
    }
    match &recipe.xml {
        Some(xml) => print(xml)?,
        None => print(&command_line(&recipe.arguments))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn recipe(subject: &Subject, args: &AttachArgs) -> anyhow::Result<Recipe> {
    let function = subject.functions.first().context("no function")?;
    let default = if args.vmm == Vmm::Crosvm { Protocol::VhostUser } else { Protocol::VfioUser };
    match args.protocol.unwrap_or(default) {
        Protocol::VfioUser => vfio_user::recipe(utf8(&function.socket)?, args.vmm, &args.memory),
        Protocol::VhostUser => {
            let nic = vhost_user::Nic::new(function, &subject.adapter)?;
            vhost_user::recipe(&nic, args.vmm, &args.memory)
        }
    }
}

/// Says so if somebody has the function.
fn in_use(function: &Function) -> Option<String> {
    let peer = function.attached.as_ref()?;
    let who = peer.pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    Some(format!(
        "{} is in use over {}{who}: a function serves one machine at a time",
        function.id, peer.protocol
    ))
}

fn utf8(socket: &Path) -> anyhow::Result<&str> {
    socket.to_str().with_context(|| {
        format!("the socket's path {} is not UTF-8: use another --run-dir", socket.display())
    })
}

/// Returns a path in a `key=value,...` argument of a VMM that has no way to write a comma or quote
/// as part of it.
fn plain<'a>(vmm: &str, path: &'a str) -> anyhow::Result<&'a str> {
    if path.contains([',', '"', '[', ']']) {
        return Err(advise(
            format!("{vmm}'s command line cannot carry the path {path}"),
            "use a `--run-dir` without comma, quote and bracket",
        ));
    }
    Ok(path)
}

/// Returns QEMU's arguments for memory that the adapter can reach.
fn qemu_memory(memory: &str) -> [String; 6] {
    [
        "-m".to_owned(),
        memory.to_owned(),
        "-object".to_owned(),
        format!("memory-backend-memfd,id=manifold-memory,size={memory},share=on"),
        "-machine".to_owned(),
        "memory-backend=manifold-memory".to_owned(),
    ]
}

/// Remark that says why memory is among the arguments.
const SHARED: &str = "the memory is shared so that the adapter can reach the guest's buffers";

/// Remark about `-machine` among the arguments, for a user who has another one.
const MACHINE: &str =
    "a second `-machine` adds to yours, so keep `-machine q35` or whatever else you have";

/// Elements of libvirt's description for memory that the adapter can reach.
const LIBVIRT_MEMORY: &str = "  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
";

/// Returns options and their values, a pair a line, quoted for a POSIX shell.
fn command_line(arguments: &[String]) -> String {
    let lines: Vec<String> = arguments
        .chunks(2)
        .map(|pair| pair.iter().map(|word| shell_quote(word)).collect::<Vec<_>>().join(" "))
        .collect();
    format!("{}\n", lines.join(" \\\n"))
}

fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Returns text as it stands inside an attribute in single quotes.
fn xml_escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Returns the words that a shell makes of a command line.
    fn shell_words(line: &str) -> Vec<String> {
        let script = format!("for word in {}; do printf '%s\\0' \"$word\"; done", line.trim_end());
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_back_the_arguments() {
        for word in ["/run/manifold/vf0.sock", "it's $HOME `x` \"y\" \\", "ä b", "{\"a\":1}", ""] {
            let arguments = ["-device".to_owned(), word.to_owned()];
            assert_eq!(shell_words(&command_line(&arguments)), arguments);
        }
    }

    #[test]
    fn some_paths_cannot_be_written() {
        assert_eq!(plain("crosvm", "/run/a b").unwrap(), "/run/a b");
        plain("crosvm", "/run/a,b").unwrap_err();
    }
}
