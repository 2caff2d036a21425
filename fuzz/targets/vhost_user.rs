//! This target sends any bytes to a vhost-user backend, as all that a client sends on a connection.
#![no_main]

#[path = "../src/vhost_user.rs"]
mod vhost_user;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_user::session(data));
