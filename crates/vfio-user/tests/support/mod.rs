//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod dummy;
