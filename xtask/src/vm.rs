//! `cargo xtask vm` runs a guest like those of the tests, by hand.

use std::path::PathBuf;

use anyhow::{Context, Result};
use manifold_vm::Lab;

pub(crate) fn shell(attach: &[PathBuf], viommu: bool, memory: u32) -> Result<()> {
    let lab = Lab::new("shell")?;
    let mut builder = lab.guest("shell").memory(memory);
    if viommu {
        builder = builder.viommu();
    }
    for socket in attach {
        let socket = std::path::absolute(socket)
            .with_context(|| format!("cannot resolve {}", socket.display()))?;
        builder = builder.vfio_user(&socket);
    }
    builder.interactive()
}
