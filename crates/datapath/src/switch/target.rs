//! A target says where a frame goes, as a number that is quickly compared.

/// The target of one frame: a receive queue, the uplink, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(u32);

/// The meaning of a [`Target`].
pub(crate) enum TargetKind {
    /// The frame is dropped, or it has several receivers and is sent to each by itself.
    None,
    /// The frame leaves by the uplink.
    Uplink,
    /// The frame goes to the receive queue of this function, by
    /// [`FunctionId::index`](manifold_pci::FunctionId::index), and of this queue pair.
    Queue(usize, u16),
}

impl Target {
    /// Target of no queue: the frame is dropped, or it has several receivers.
    pub(crate) const NONE: Target = Target(u32::MAX);
    /// Target that is the uplink.
    pub(crate) const UPLINK: Target = Target(u32::MAX - 1);

    /// Makes the target of a receive queue. `function` is below 257 and so never meets the others.
    #[inline]
    pub(crate) fn queue(function: usize, pair: u16) -> Target {
        Target((function as u32) << 16 | u32::from(pair))
    }

    #[inline]
    pub(crate) fn kind(self) -> TargetKind {
        match self {
            Target::NONE => TargetKind::None,
            Target::UPLINK => TargetKind::Uplink,
            Target(queue) => TargetKind::Queue((queue >> 16) as usize, queue as u16),
        }
    }
}
