//! This module chooses KVM or emulation.

/// The ways to run a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor runs them, by way of Linux's KVM.
    Kvm,
    /// QEMU's translator runs them.
    Tcg,
}

impl Acceleration {
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Linux copies by `rep movsb` where the processor says that it is fast, and QEMU's
            // translator does one byte after the other; without these two promises guests copy
            // eight bytes at a time and TCP is three times as fast.
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm"],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Kvm, Self::Tcg].into_iter().find(|kind| kind.name() == name)
    }
}
