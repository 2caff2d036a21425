//! These tests use the command line as a user does: real processes, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail so")]

mod attach;
mod demo;
mod function;
mod process;
mod serve;
mod vf;
