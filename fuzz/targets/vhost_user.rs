//! vhost-user: any bytes as all that a client sends on a connection.
#![no_main]

#[path = "../src/vhost_user.rs"]
mod vhost_user;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_user::session(data));
