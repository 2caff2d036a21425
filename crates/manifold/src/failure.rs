//! This module reports failed commands on standard error, with what to do next.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Error;

/// Exit code of a process that a signal cut short: 128 and SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error with advice about what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Advised {
    message: String,
    hint: String,
}

/// Returns an error with advice.
pub(crate) fn advise(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(Advised { message: message.into(), hint: hint.into() })
}

/// Prints `error` with its causes and advice. A reader that went away is no failure to report.
pub(crate) fn report(error: &Error) -> ExitCode {
    if !is_broken_pipe(error) {
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "error: {}", text(error));
    }
    ExitCode::FAILURE
}

/// Returns what went wrong, why, and on a line of its own what to do about it.
pub(crate) fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        // An error whose own text has its cause need not repeat it.
        let cause = cause.to_string();
        if !shown.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        shown = cause;
    }
    if let Some(hint) = hint(error) {
        text.push_str("\n  hint: ");
        text.push_str(hint);
    }
    text
}

fn hint(error: &Error) -> Option<&str> {
    error.chain().find_map(|cause| {
        if let Some(advised) = cause.downcast_ref::<Advised>() {
            return Some(advised.hint.as_str());
        }
        if let Some(problem) = cause.downcast_ref::<manifold_api::Problem>() {
            return problem.hint.as_deref();
        }
        match cause.downcast_ref::<manifold_api::Error>() {
            Some(manifold_api::Error::Refused(problem)) => problem.hint.as_deref(),
            _ => None,
        }
    })
}

fn is_broken_pipe(error: &Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
