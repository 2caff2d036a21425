//! A recipe is what a user gives to a VMM; this module has the parts that several VMMs need.

use std::path::Path;

use anyhow::Context as _;
use manifold_api::types::{Adapter, Function};
use serde::Serialize;

use crate::failure::advise;

/// Arguments that attach a function to one kind of VMM.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Recipe {
    /// Arguments of the VMM's command line, options and their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) arguments: Vec<String>,
    /// Elements of the machine's XML description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) xml: Option<String>,
    /// Remarks for the user, printed to standard error.
    pub(super) remarks: Vec<String>,
}

impl Recipe {
    /// Returns a command line of these options and values.
    pub(super) fn command(
        arguments: impl IntoIterator<Item = impl Into<String>>,
        remarks: &[&str],
    ) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            xml: None,
            remarks: remarks.iter().map(|&remark| remark.to_owned()).collect(),
        }
    }

    /// Returns elements of an XML description.
    pub(super) fn xml(xml: String, remarks: &[&str]) -> Self {
        Self { xml: Some(xml), ..Self::command([""; 0], remarks) }
    }
}

/// Facts that a recipe is made from.
pub(super) struct Subject {
    pub(super) adapter: Adapter,
    /// Functions to attach: one, or for a whole adapter the PF and then its VFs.
    pub(super) functions: Vec<Function>,
}

pub(super) fn utf8(socket: &Path) -> anyhow::Result<&str> {
    socket.to_str().with_context(|| {
        format!("the socket's path {} is not UTF-8: use another --run-dir", socket.display())
    })
}

/// Returns a path in a `key=value,...` argument of a VMM that has no way to write a comma or quote
/// as part of it.
pub(super) fn plain<'a>(vmm: &str, path: &'a str) -> anyhow::Result<&'a str> {
    if path.contains([',', '"', '[', ']']) {
        return Err(advise(
            format!("{vmm}'s command line cannot carry the path {path}"),
            "use a `--run-dir` without comma, quote and bracket",
        ));
    }
    Ok(path)
}

/// Returns QEMU's arguments for memory that the adapter can reach.
pub(super) fn qemu_memory(memory: &str) -> [String; 6] {
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
pub(super) const SHARED: &str =
    "the memory is shared so that the adapter can reach the guest's buffers";

/// Remark about `-machine` among the arguments, for a user who has another one.
pub(super) const MACHINE: &str =
    "a second `-machine` adds to yours, so keep `-machine q35` or whatever else you have";

/// Elements of libvirt's description for memory that the adapter can reach.
pub(super) const LIBVIRT_MEMORY: &str = "  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
";

/// Returns text as it stands inside an attribute in single quotes.
pub(super) fn xml_escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn some_paths_cannot_be_written() {
        assert_eq!(plain("crosvm", "/run/a b").unwrap(), "/run/a b");
        plain("crosvm", "/run/a,b").unwrap_err();
    }
}
