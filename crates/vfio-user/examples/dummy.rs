//! This program serves a device that does nothing on a socket, to see what a VMM asks of a
//! function.
//!
//! ```text
//! cargo run -p manifold-vfio-user --example dummy -- /tmp/dummy.sock
//! qemu-system-x86_64 -machine q35,memory-backend=m \
//!   -object memory-backend-memfd,id=m,size=256M,share=on \
//!   -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/dummy.sock"}}'
//! ```
//!
//! With a second argument `mappable` a part of BAR 0 can be mapped.

#![allow(clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::thread;
use std::time::Duration;

use manifold_vfio_user::{Config, Server, VfioUser};
use support::dummy::{Dummy, Event, Options};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("usage: dummy SOCKET [mappable]");
    let mappable = arguments.any(|word| word == "mappable");

    let server = Server::start(Config::default(), VfioUser::default()).expect("server");
    let dummy = Dummy::new(Options { mappable, ..Options::default() });
    let endpoint = server.serve(&path, "dummy", dummy.clone()).expect("socket");
    println!("listening on {}", endpoint.path().display());
    let mut seen = 0;
    loop {
        thread::sleep(Duration::from_millis(20));
        let events: Vec<Event> = dummy.state().events.iter().skip(seen).cloned().collect();
        seen += events.len();
        for event in events {
            println!("{event:x?}");
        }
    }
}
