//! crates/manifold
fn main() {}
