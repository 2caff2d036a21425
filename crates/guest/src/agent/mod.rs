//! The guest process: commands in, events out, a network stack between them.

pub mod process;
mod protocol;

pub use crate::vfio::{ClientKind, DmaMode};
pub use crate::virtio::Counters;
pub use protocol::{Command, Config, Direction, Event, Incoming, Neighbour, Outgoing, Rtt};

use crate::{Error, Result};
use std::io::Write;
use std::os::fd::AsFd;

/// Brings the function up, reports [`Event::Ready`], and carries out commands until [`Command::Stop`], the
/// end of `input`, or a failure that leaves nothing to do.
///
/// `input` is polled and read without being set to non-blocking. An error is also reported as
/// [`Event::Fatal`].
pub fn run(config: &Config, input: impl AsFd, output: impl Write) -> Result<()> {
    let _ = (config, input, output);
    Err(Error::Unsupported("agent"))
}

/// [`run`] on standard input and output.
pub fn run_stdio(config: &Config) -> Result<()> {
    run(config, std::io::stdin(), std::io::stdout())
}
