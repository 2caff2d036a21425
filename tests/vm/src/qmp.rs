//! This module speaks QEMU's machine protocol, as far as tests need it: one command, one answer,
//! events passed over.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to `socket`, runs `command` and returns what it returned.
pub(crate) fn execute(socket: &Path, command: &str, arguments: &Value) -> Result<Value> {
    let stream = UnixStream::connect(socket).context("cannot connect to QEMU's monitor")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut greeting = String::new();
    reader.read_line(&mut greeting)?;
    call(&stream, &mut reader, "qmp_capabilities", &json!({}))?;
    call(&stream, &mut reader, command, arguments)
}

fn call(
    mut stream: &UnixStream,
    reader: &mut impl BufRead,
    command: &str,
    arguments: &Value,
) -> Result<Value> {
    let request = json!({ "execute": command, "arguments": arguments });
    stream.write_all(format!("{request}\n").as_bytes())?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).with_context(|| format!("no answer to {command}"))? == 0 {
            bail!("QEMU ended during {command}");
        }
        let answer: Value =
            serde_json::from_str(&line).context("QEMU's monitor printed no JSON")?;
        if let Some(result) = answer.get("return") {
            return Ok(result.clone());
        }
        if let Some(error) = answer.get("error") {
            bail!("{command}: {error}");
        }
    }
}
