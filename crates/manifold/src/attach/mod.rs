//! `manifold attach` prints the arguments that give a function to a virtual machine.
//!
//! | VMM              | vfio-user: the function                 | vhost-user: its queues       |
//! |------------------|-----------------------------------------|------------------------------|
//! | QEMU             | from 10.1, `-device vfio-user-pci`      | `-netdev vhost-user`         |
//! | Cloud Hypervisor | `--user-device`                         | `--net vhost_user=true`      |
//! | libvirt          | QEMU's, through `<qemu:commandline>`    | `<interface type=vhostuser>` |
//! | crosvm           | not                                     | `--vhost-user net`           |

mod recipe;
mod sriov;
mod vfio_user;
mod vhost_user;

use std::process::ExitCode;

use anyhow::Context as _;
use manifold_api::types::Function;

use self::recipe::{Recipe, Subject, utf8};
use crate::cli::{AttachArgs, Protocol, Vmm};
use crate::daemon;
use crate::output::{print, print_json};

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
}
