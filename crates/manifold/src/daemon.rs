//! Talking to a daemon that runs.

use anyhow::Context as _;
use manifold_api::Client;

use crate::cli::RunDirArg;
use crate::run_dir::{self, API_SOCKET};

/// Runs `conversation` with a client of the daemon in the run directory that `arg` names.
pub(crate) fn call<T>(
    arg: RunDirArg,
    conversation: impl AsyncFnOnce(Client) -> Result<T, manifold_api::Error>,
) -> anyhow::Result<T> {
    let socket = run_dir::path_or_default(arg.run_dir)?.join(API_SOCKET);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(conversation(Client::new(socket)))?)
}
