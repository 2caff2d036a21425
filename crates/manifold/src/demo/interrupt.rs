//! The first signal ends the demo in order, a second one at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::INTERRUPTED;

/// The demo was told to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Tells whether a signal came.
#[derive(Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Looks out for SIGINT, SIGTERM and SIGHUP from now on.
    pub(super) fn register() -> io::Result<Self> {
        let come = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The order matters: the second signal finds the flag set and ends the process. The
            // guests end with it, and the next demo removes the sockets.
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&come))?;
            flag::register(signal, Arc::clone(&come))?;
        }
        Ok(Self(come))
    }

    /// Checks whether a signal came.
    ///
    /// # Errors
    /// Fails if a signal came.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}
