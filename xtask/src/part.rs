//! This module has the parts of the tests.

use clap::ValueEnum;

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Formatting, clippy, documentation, licences.
    Lint,
    /// Tests beside the code, property tests, the command line, the demo.
    Unit,
    /// Models of the lock-free protocols, through every order of their steps.
    Models,
    /// Virtual machines with stock kernels.
    Vm,
    /// Fuzz targets, each for a while.
    Fuzz,
}

impl Part {
    pub(crate) const ALL: [Self; 5] = [Self::Lint, Self::Unit, Self::Models, Self::Vm, Self::Fuzz];
}
