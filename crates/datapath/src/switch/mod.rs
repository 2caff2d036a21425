//! Forwarding leads from the eswitch's decision about a frame to the queue, port or worker it goes
//! to.

pub(crate) mod egress;
pub(crate) mod forward;
pub(crate) mod function;
pub(crate) mod route;
pub(crate) mod steering;
pub(crate) mod tap_port;
pub(crate) mod target;
