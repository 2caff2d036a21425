//! A device that does nothing, on a socket: to see what a VMM asks of a function.
//!
//! ```text
//! cargo run -p manifold-vfio-user --example dummy -- /tmp/dummy.sock
//! qemu-system-x86_64 -machine q35,memory-backend=m \
//!   -object memory-backend-memfd,id=m,size=256M,share=on \
//!   -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/dummy.sock"}}'
//! ```
//!
//! With a second argument `probe` it reads and writes the first mapping it gets without a
//! descriptor (leave `share=on` away) and prints what came of it.

#![allow(clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::thread;
use std::time::Duration;

use manifold_vfio_user::{Config, Server};
use support::dummy::{Dummy, Event, Options};

/// Address that is read and written.
const PROBED: u64 = 0x10_0000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("usage: dummy SOCKET [mappable] [probe]");
    let rest: Vec<String> = arguments.collect();
    let mappable = rest.iter().any(|word| word == "mappable");
    let probe = rest.iter().any(|word| word == "probe");

    let server = Server::start(Config::default()).expect("server");
    let dummy = Dummy::new(Options { mappable, ..Options::default() });
    let endpoint = server.serve(&path, "dummy", dummy.clone()).expect("socket");
    println!("listening on {}", endpoint.path().display());
    let mut seen = 0;
    let mut probed = false;
    loop {
        thread::sleep(Duration::from_millis(20));
        let events: Vec<Event> = dummy.state().events.iter().skip(seen).cloned().collect();
        seen += events.len();
        for event in events {
            println!("{event:x?}");
        }
        if let (true, false, Some(remote)) = (probe, probed, dummy.remote(PROBED)) {
            probed = true;
            thread::sleep(Duration::from_secs(6));
            let mut data = [0; 16];
            println!("read:  {:?} {data:02x?}", remote.read(PROBED, &mut data));
            println!("       {data:02x?}");
            println!(
                "write: {:?}",
                remote.write(PROBED + 32, &[0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6])
            );
            println!("read:  {:?}", remote.read(PROBED + 28, &mut data));
            println!("       {data:02x?}");
        }
    }
}
