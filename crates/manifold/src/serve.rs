//! `manifold serve` runs the daemon.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use manifold_adapter::Adapter;
use manifold_api::{Backend, Software};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;
use crate::output::print;
use crate::run_dir::RunDir;
use crate::{failure, limits};

/// Time that calls under way may still take once the daemon has been told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = args.settings.load(args.config.as_deref())?;
    let path = settings.run_dir.clone().path()?;
    limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // From here on a signal ends the daemon in order, however far it has come.
    let stop = runtime.block_on(async { stop_signals() }).context("cannot handle signals")?;

    // The run directory is dropped last, so that the adapter's sockets are gone from the folder
    // before another daemon may have it.
    let run_dir = RunDir::acquire(&path)?;
    let adapter = Adapter::start(settings.adapter(run_dir.path()));
    let adapter = Arc::new(adapter.context("cannot start the adapter")?);
    let backend = Software::new(Arc::clone(&adapter));
    if let Some(num_vfs @ 1..) = settings.num_vfs {
        backend.enable_vfs(num_vfs.into())?;
    }
    let result = runtime.block_on(serve(backend, &run_dir, stop));
    runtime.shutdown_timeout(GRACE);
    // A call that was cut off may still hold the adapter; then the end of the process takes it
    // down.
    if let Some(adapter) = Arc::into_inner(adapter) {
        adapter.shutdown();
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Serves the management interface until `stop`.
async fn serve(
    backend: Software,
    run_dir: &RunDir,
    stop: impl Future<Output = &'static str> + Send + 'static,
) -> anyhow::Result<()> {
    let socket = run_dir.api_socket();
    let listener = listen(&socket).with_context(|| format!("cannot serve {}", socket.display()))?;
    let adapter = backend.adapter();
    print(&format!(
        "ready: PF {} at {}, {} of {} VFs enabled, management at {}\n",
        adapter.bdf,
        run_dir.path().join("pf.sock").display(),
        adapter.num_vfs,
        adapter.total_vfs,
        socket.display()
    ))?;

    let (stopping, mut should_stop) = tokio::sync::watch::channel(false);
    let until_stopped = async move {
        let signal = stop.await;
        tracing::info!(signal, "stopping");
        stopping.send_replace(true);
    };
    let server = manifold_api::serve(listener, Arc::new(backend), until_stopped);
    let grace_is_over = async {
        // An error would mean that the sender is gone, which it is only after it has said so.
        let _ = should_stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => result.context("the management interface failed"),
        () = grace_is_over => {
            tracing::warn!("calls under way were cut off");
            Ok(())
        }
    }
}

/// Opens the socket for its owner alone: who may connect may reconfigure the adapter.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Completes at the first SIGINT or SIGTERM, which no longer end the process by themselves; a
/// second one does.
fn stop_signals() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // The next daemon removes what is left in the folder.
            std::process::exit(failure::INTERRUPTED.into());
        });
        name
    })
}
