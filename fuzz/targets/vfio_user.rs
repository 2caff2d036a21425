//! vfio-user: any bytes as single messages, and as all that a client sends on a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    if first & 1 == 0 {
        manifold_vfio_user::fuzzing::codec(rest);
    } else {
        manifold_vfio_user::fuzzing::session(rest);
    }
});
