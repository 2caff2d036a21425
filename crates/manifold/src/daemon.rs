//! This module talks to a daemon that runs.

use anyhow::Context as _;
use manifold_api::Client;

use crate::run_dir::{API_SOCKET, RunDirArg};

/// Runs `conversation` with a client of the daemon in the run directory that `arg` names.
pub(crate) fn call<T>(
    arg: RunDirArg,
    conversation: impl AsyncFnOnce(Client) -> Result<T, manifold_api::Error>,
) -> anyhow::Result<T> {
    let socket = arg.path()?.join(API_SOCKET);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(conversation(Client::new(socket)))?)
}
