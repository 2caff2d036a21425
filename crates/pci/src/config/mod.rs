//! A function's configuration space.

use crate::{CONFIG_SIZE, Error, Events, FunctionSpec, Msix, PowerState, RoutingId, SriovSpec};

/// A reset that reaches the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Function-level reset (PCIe Base 5.0, section 6.6.2): sticky bits and what belongs to the
    /// link survive.
    Flr,
    /// Conventional hot reset (section 6.6.1): sticky bits survive.
    Conventional,
}

/// A BAR as it is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The address in the register; 0 until software places it.
    pub address: u64,
    /// Bytes decoded.
    pub size: u64,
}

/// A VF BAR as it is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfBar {
    /// Address of the aperture: VF 0's BAR.
    pub base: u64,
    /// Bytes each VF gets: the BAR's size, or System Page Size where that is larger. VF n's BAR is
    /// at `base + n * size`.
    pub size: u64,
}

/// The SR-IOV capability as it is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SriovView {
    /// TotalVFs.
    pub total_vfs: u16,
    /// NumVFs. With `vf_enable` set, in 1..=`total_vfs`.
    pub num_vfs: u16,
    /// VF Enable: the VFs exist.
    pub vf_enable: bool,
    /// VF MSE, the register's bit.
    pub vf_mse: bool,
    /// VFs answer memory requests: VF Enable and VF MSE are set, and the PF is in D0.
    pub vf_memory: bool,
    /// ARI Capable Hierarchy.
    pub ari: bool,
    /// First VF Offset.
    pub first_vf_offset: u16,
    /// VF Stride.
    pub vf_stride: u16,
    /// System Page Size, in bytes.
    pub system_page_size: u64,
    vf_bars: [Option<VfBar>; 6],
}

impl SriovView {
    /// The VF BAR of this index, if there is one.
    pub fn vf_bar(&self, index: usize) -> Option<VfBar> {
        self.vf_bars.get(index).copied().flatten()
    }

    /// The routing ID of a VF that exists, given the PF's.
    pub fn vf_routing_id(&self, pf: RoutingId, vf: u16) -> Option<RoutingId> {
        if !self.vf_enable || vf >= self.num_vfs {
            return None;
        }
        pf.checked_add(self.first_vf_offset)?.checked_add(self.vf_stride.checked_mul(vf)?)
    }

    /// The VF that exists at a routing ID, given the PF's.
    pub fn vf_at(&self, pf: RoutingId, rid: RoutingId) -> Option<u16> {
        let distance = rid.raw().checked_sub(pf.checked_add(self.first_vf_offset)?.raw())?;
        let vf = distance.checked_div(self.vf_stride)?;
        (self.vf_routing_id(pf, vf) == Some(rid)).then_some(vf)
    }
}

/// An uncorrectable error a function can detect (PCIe Base 5.0, section 7.8.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UncorrectableError {
    /// Poisoned TLP Received.
    PoisonedTlp,
    /// Completion Timeout.
    CompletionTimeout,
    /// Completer Abort.
    CompleterAbort,
    /// Unexpected Completion.
    UnexpectedCompletion,
    /// Malformed TLP.
    MalformedTlp,
    /// Unsupported Request.
    UnsupportedRequest,
    /// Uncorrectable Internal Error.
    Internal,
}

/// The error message a function sends to the root complex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMessage {
    /// ERR_COR.
    Correctable,
    /// ERR_NONFATAL.
    NonFatal,
    /// ERR_FATAL.
    Fatal,
}

/// One function's 4 KiB configuration space as the bus sees it.
#[derive(Debug)]
pub struct ConfigSpace {
    msix: Msix,
}

impl ConfigSpace {
    /// A physical function, with an SR-IOV capability or (an ordinary endpoint) without.
    pub fn physical(spec: &FunctionSpec, sriov: Option<&SriovSpec>) -> Result<Self, Error> {
        let _ = sriov;
        Self::virtual_function(spec)
    }

    /// A virtual function: IDs FFFFh, BARs zero, no Memory Space Enable.
    pub fn virtual_function(spec: &FunctionSpec) -> Result<Self, Error> {
        Ok(Self { msix: Msix::new(spec.msix.vectors)? })
    }

    /// Reads `data.len()` bytes at any alignment. Bytes beyond the space read as ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let _ = offset;
        data.fill(0xff);
    }

    /// Writes at any alignment, lowest dword first. Bytes beyond the space are dropped.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Events {
        let _ = (offset, data);
        Events::default()
    }

    /// Resets the registers, and the MSI-X table with them.
    pub fn reset(&mut self, kind: Reset) -> Events {
        let _ = kind;
        Events::default()
    }

    /// The function may send memory requests, MSI-X among them: Bus Master Enable is set and it is
    /// in D0.
    pub fn bus_master(&self) -> bool {
        false
    }

    /// The function answers memory requests to its own BARs. Always false for a VF, which the PF's
    /// VF MSE governs ([`SriovView::vf_memory`]).
    pub fn memory_enable(&self) -> bool {
        false
    }

    /// The BAR of this index as programmed, if there is one. None for a VF: its addresses come from
    /// the PF's VF BARs.
    pub fn bar(&self, index: usize) -> Option<Bar> {
        let _ = index;
        None
    }

    /// The address in the BAR of this index, if there is one.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        self.bar(index).map(|bar| bar.address)
    }

    /// The power state.
    pub fn power_state(&self) -> PowerState {
        PowerState::D0
    }

    /// The function's MSI-X vectors. Enable, Function Mask and Bus Master Enable of this space act
    /// on them by themselves.
    pub fn msix(&self) -> &Msix {
        &self.msix
    }

    /// MSI-X Enable.
    pub fn msix_enabled(&self) -> bool {
        false
    }

    /// MSI-X Function Mask.
    pub fn msix_masked(&self) -> bool {
        false
    }

    /// Where the vendor-specific capability of this index is.
    pub fn vendor_capability_offset(&self, index: usize) -> Option<u16> {
        let _ = index;
        None
    }

    /// The vendor-specific capability a byte of the space belongs to, and the byte's offset counted
    /// from its ID.
    pub fn vendor_capability_at(&self, offset: u16) -> Option<(usize, u8)> {
        let _ = offset;
        None
    }

    /// The SR-IOV capability as programmed; none for a VF or an ordinary endpoint.
    pub fn sriov(&self) -> Option<SriovView> {
        None
    }

    /// Records an error the function detected while handling a request, with the header of the
    /// offending TLP, in AER and Device Status. Returns the message it sends to the root complex.
    pub fn record_error(
        &mut self,
        error: UncorrectableError,
        tlp_header: [u32; 4],
    ) -> Option<ErrorMessage> {
        let _ = (error, tlp_header);
        None
    }

    /// The whole space as it reads now.
    pub fn to_bytes(&self) -> Box<[u8; CONFIG_SIZE]> {
        let mut bytes = Box::new([0; CONFIG_SIZE]);
        self.read(0, bytes.as_mut_slice());
        bytes
    }
}
