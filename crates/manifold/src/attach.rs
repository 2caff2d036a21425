//! `manifold attach`: the arguments that give a function to a virtual machine.
//!
//! | VMM              | how it attaches                                                        |
//! |------------------|------------------------------------------------------------------------|
//! | QEMU 10.1        | its vfio-user client, `-device vfio-user-pci`                          |
//! | Cloud Hypervisor | its vfio-user client, `--user-device`                                  |
//! | libvirt          | QEMU's, passed through `<qemu:commandline>`: libvirt has no element    |
//! | crosvm           | not: it attaches network devices by vhost-user only                    |

use std::process::ExitCode;

use anyhow::Context as _;
use manifold_api::types::Function;
use serde::Serialize;
use serde_json::json;

use crate::cli::{AttachArgs, Vmm};
use crate::daemon;
use crate::failure::advise;
use crate::output::{print, print_json};

/// How to attach a function.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Recipe {
    /// Arguments of the VMM's command line, options and their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
    /// Elements of the machine's XML description.
    #[serde(skip_serializing_if = "Option::is_none")]
    xml: Option<String>,
    /// What else matters.
    remarks: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &AttachArgs) -> anyhow::Result<ExitCode> {
    if args.vmm == Vmm::Crosvm {
        return Err(advise(
            "crosvm cannot attach to a function: it has no vfio-user client, and its vhost-user \
             devices are not served yet",
            "use `--vmm qemu` or `--vmm cloud-hypervisor`",
        ));
    }
    let function =
        daemon::call(args.run_dir.clone(), async |daemon| daemon.function(args.function).await)?;
    let recipe = recipe(&function, args.vmm, &args.memory)?;
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

fn recipe(function: &Function, vmm: Vmm, memory: &str) -> anyhow::Result<Recipe> {
    let socket = function.socket.to_str().with_context(|| {
        format!(
            "the socket's path {} is not UTF-8: use another --run-dir",
            function.socket.display()
        )
    })?;
    let mut recipe = match vmm {
        Vmm::Qemu => qemu(socket, memory),
        Vmm::CloudHypervisor => cloud_hypervisor(socket, memory)?,
        Vmm::Libvirt => libvirt(socket),
        Vmm::Crosvm => anyhow::bail!("crosvm has no vfio-user client"),
    };
    if let Some(peer) = &function.attached {
        let who = peer.pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
        recipe.remarks.push(format!(
            "{} is in use{who}: a function serves one machine at a time",
            function.id
        ));
    }
    Ok(recipe)
}

/// QEMU's device in the JSON form of `-device`, the only one that takes a socket address.
fn qemu_device(socket: &str) -> String {
    json!({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket}}).to_string()
}

fn qemu(socket: &str, memory: &str) -> Recipe {
    let arguments = [
        "-m".to_owned(),
        memory.to_owned(),
        "-object".to_owned(),
        format!("memory-backend-memfd,id=manifold-memory,size={memory},share=on"),
        "-machine".to_owned(),
        "memory-backend=manifold-memory".to_owned(),
        "-device".to_owned(),
        qemu_device(socket),
    ];
    let remarks = [
        "for QEMU 10.1 or newer; the memory is shared so that the adapter can reach the guest's buffers",
        "a second `-machine` adds to yours, so keep `-machine q35` or whatever else you have",
    ];
    Recipe { arguments: arguments.into(), xml: None, remarks: remarks.map(str::to_owned).into() }
}

fn cloud_hypervisor(socket: &str, memory: &str) -> anyhow::Result<Recipe> {
    // Its parser of `key=value,...` gives these a meaning and has no way to take it back.
    if socket.contains([',', '"', '[', ']']) {
        return Err(advise(
            format!("Cloud Hypervisor's command line cannot carry the path {socket}"),
            "use a `--run-dir` without comma, quote and bracket",
        ));
    }
    let arguments = [
        "--memory".to_owned(),
        format!("size={memory},shared=on"),
        "--user-device".to_owned(),
        format!("socket={socket}"),
    ];
    let remarks = ["the memory is shared so that the adapter can reach the guest's buffers"];
    Ok(Recipe {
        arguments: arguments.into(),
        xml: None,
        remarks: remarks.map(str::to_owned).into(),
    })
}

fn libvirt(socket: &str) -> Recipe {
    let device = xml_escape(&qemu_device(socket));
    let xml = format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='{device}'/>
  </qemu:commandline>
</domain>
"
    );
    let remarks = [
        "merge these elements into the domain with `virsh edit`; keep the namespace on <domain>",
        "for QEMU 10.1 or newer; its user (libvirt-qemu, qemu) must be allowed to use the socket",
    ];
    Recipe { arguments: Vec::new(), xml: Some(xml), remarks: remarks.map(str::to_owned).into() }
}

/// Options and their values, a pair a line, quoted for a POSIX shell.
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

/// Text inside an attribute in single quotes.
fn xml_escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a shell makes of a command line.
    fn shell_words(line: &str) -> Vec<String> {
        let script = format!("for word in {}; do printf '%s\\0' \"$word\"; done", line.trim_end());
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_back_the_arguments() {
        for socket in ["/run/manifold/vf0.sock", "/tmp/it's $HOME `x` \"y\"/\\vf0.sock", "/tmp/ä b"]
        {
            let recipe = qemu(socket, "2G");
            assert_eq!(shell_words(&command_line(&recipe.arguments)), recipe.arguments);
            let device: serde_json::Value =
                serde_json::from_str(recipe.arguments.last().unwrap()).unwrap();
            assert_eq!(device["socket"]["path"], socket);
        }
        assert_eq!(shell_quote(""), "''");
    }

    #[test]
    fn qemu_gets_shared_memory_of_the_machines_size() {
        assert_eq!(
            command_line(&qemu("/run/manifold/vf0.sock", "512M").arguments),
            "-m 512M \\\n\
             -object memory-backend-memfd,id=manifold-memory,size=512M,share=on \\\n\
             -machine memory-backend=manifold-memory \\\n\
             -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"path\":\"/run/manifold/vf0.sock\",\
             \"type\":\"unix\"}}'\n"
        );
    }

    #[test]
    fn cloud_hypervisor_gets_shared_memory() {
        let recipe = cloud_hypervisor("/run/manifold/vf0.sock", "2G").unwrap();
        assert_eq!(
            command_line(&recipe.arguments),
            "--memory size=2G,shared=on \\\n--user-device socket=/run/manifold/vf0.sock\n"
        );
        cloud_hypervisor("/run/a,b/vf0.sock", "2G").unwrap_err();
    }

    #[test]
    fn libvirt_gets_well_formed_xml() {
        let xml = libvirt("/run/it's <&>/vf0.sock").xml.unwrap();
        assert!(xml.contains("/run/it&apos;s &lt;&amp;>/vf0.sock"), "{xml}");
        assert!(xml.contains("<access mode='shared'/>"), "{xml}");
    }
}
