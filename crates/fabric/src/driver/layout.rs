//! This module reads First VF Offset and VF Stride, from which the routing IDs of VFs follow.

use std::fmt;

use manifold_pci::RoutingId;
use manifold_pci::spec::sriov;

use super::function::Function;
use crate::error::Error;

/// The rule by which the VFs' routing IDs follow from the PF's (section 9.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    offset: u16,
    stride: u16,
}

impl Layout {
    pub(super) fn read(pf: Function<'_>, capability: u16) -> Self {
        Self {
            offset: pf.read_u16(capability + sriov::FIRST_VF_OFFSET),
            stride: pf.read_u16(capability + sriov::VF_STRIDE),
        }
    }

    /// Returns the routing ID of a VF, one of `count`.
    pub(super) fn routing_id(
        self,
        pf: RoutingId,
        count: u16,
        index: u16,
    ) -> Result<RoutingId, Error> {
        let Self { offset, stride } = self;
        if offset == 0 || stride == 0 && count > 1 {
            return Err(Error::InvalidLayout { pf, count, offset, stride });
        }
        let distance = stride.checked_mul(index).and_then(|all| all.checked_add(offset));
        distance.and_then(|distance| pf.checked_add(distance)).ok_or(Error::OutOfBuses {
            pf,
            count,
            offset,
            stride,
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}, stride {}", self.offset, self.stride)
    }
}
