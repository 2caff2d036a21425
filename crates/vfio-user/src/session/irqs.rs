//! This module reads `VFIO_USER_DEVICE_SET_IRQS` (vfio-user, same name; vfio.h,
//! `VFIO_DEVICE_SET_IRQS`).

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::Attached;
use crate::codec::IrqSet;
use crate::device::{IrqAction, IrqData, SetIrqs};
use crate::spec;

const DATA_MASK: u32 =
    spec::IRQ_SET_DATA_NONE | spec::IRQ_SET_DATA_BOOL | spec::IRQ_SET_DATA_EVENTFD;

impl Attached {
    /// Checks a request against the interrupt type and converts its data.
    pub(super) fn parse_set_irqs(
        &self,
        set: &IrqSet<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<SetIrqs, Errno> {
        let irq = self.irq(set.index)?;
        if set.argsz < IrqSet::SIZE {
            return Err(Errno::INVAL);
        }
        let action = match set.flags & !DATA_MASK {
            spec::IRQ_SET_ACTION_MASK => IrqAction::Mask,
            spec::IRQ_SET_ACTION_UNMASK => IrqAction::Unmask,
            spec::IRQ_SET_ACTION_TRIGGER => IrqAction::Trigger,
            _ => return Err(Errno::INVAL),
        };
        let data = set.flags & DATA_MASK;
        if set.count == 0 {
            // Only "disable all" has a count of 0. It is granted for a type without interrupts too.
            let disables = data == spec::IRQ_SET_DATA_NONE && action == IrqAction::Trigger;
            if !disables || set.start != 0 || !fds.is_empty() {
                return Err(Errno::INVAL);
            }
        } else if set.start.checked_add(set.count).is_none_or(|end| end > irq.count) {
            return Err(Errno::INVAL);
        }
        // From here on the count is bounded by the device's own.
        let count = set.count as usize;
        let data = match data {
            spec::IRQ_SET_DATA_NONE if fds.is_empty() => IrqData::None,
            spec::IRQ_SET_DATA_BOOL if fds.is_empty() && set.data.len() == count => {
                IrqData::Bools(set.data.iter().map(|&byte| byte != 0).collect())
            }
            spec::IRQ_SET_DATA_EVENTFD if fds.len() == count => {
                IrqData::EventFds(fds.into_iter().map(Some).collect())
            }
            spec::IRQ_SET_DATA_EVENTFD if fds.is_empty() => {
                IrqData::EventFds(std::iter::repeat_with(|| None).take(count).collect())
            }
            _ => return Err(Errno::INVAL),
        };
        Ok(SetIrqs { index: set.index, start: set.start, count: set.count, action, data })
    }
}
