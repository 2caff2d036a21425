//! The data path for VMMs without vfio-user: glue to the `vhost` crate.

#![forbid(unsafe_code)]
