//! This target sends any bytes to a vfio-user server, as single messages and as all that a client
//! sends on a connection.
#![no_main]

#[path = "../src/vfio_user.rs"]
mod vfio_user;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    if first & 1 == 0 {
        vfio_user::codec(rest);
    } else {
        vfio_user::session(rest);
    }
});
