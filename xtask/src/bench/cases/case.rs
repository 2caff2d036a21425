//! This module names the cases.

use clap::ValueEnum;

/// A group of rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// 64-byte frames, our generator: against testpmd io and OVS-DPDK; cycles by stage.
    Raw64,
    /// 64-byte frames, testpmd as generator: frames per second and cycles per frame.
    Testpmd64,
    /// 1518-byte frames, our generator, against testpmd io.
    Raw1518,
    /// 64 KiB TSO frames against memcpy.
    Tso,
    /// vfio-user against vhost-user attach.
    Attach,
    /// 256 active VFs against 2.
    Vfs,
    /// Processor time of an idle adapter with 256 attached VFs.
    Idle,
    /// Round trips of one frame, polled and to a sleeping receiver.
    Latency,
    /// Two QEMU guests, iperf3 and ping, against virtio-net with TAP and bridge.
    Guests,
    /// Two QEMU guests against QEMU's own SR-IOV devices, igb and virtio-net. Not in a quick run.
    Sriov,
    /// Frame sizes, IMIX, ring kinds, numbers of VFs.
    Sweep,
}

impl Case {
    /// Returns what a run without `--only` measures.
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|case| !quick || *case != Self::Sriov).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw64 => "raw64",
            Self::Testpmd64 => "testpmd64",
            Self::Raw1518 => "raw1518",
            Self::Tso => "tso",
            Self::Attach => "attach",
            Self::Vfs => "vfs",
            Self::Idle => "idle",
            Self::Latency => "latency",
            Self::Guests => "guests",
            Self::Sriov => "sriov",
            Self::Sweep => "sweep",
        }
    }

    /// Returns whether the case needs DPDK or Open vSwitch.
    pub(crate) fn needs_peers(self) -> bool {
        matches!(self, Self::Raw64 | Self::Testpmd64 | Self::Raw1518 | Self::Latency | Self::Sweep)
    }

    /// Returns whether the case needs QEMU and a kernel.
    pub(crate) fn needs_guests(self) -> bool {
        matches!(self, Self::Guests | Self::Sriov)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::Case;

    #[test]
    fn names_are_what_the_command_line_takes() {
        for case in Case::value_variants() {
            assert_eq!(Case::from_str(case.name(), false), Ok(*case));
        }
    }
}
