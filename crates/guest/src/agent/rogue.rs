//! This module makes one attempt to reach memory that is not the guest's own.

use crate::Result;
use crate::net::Stack;
use crate::protocol::{Direction, Event};
use crate::virtio::{NetOptions, status};
use std::time::{Duration, Instant};

/// Length of the rogue DMA in bytes.
const LEN: u32 = 2048;
/// Time that the device gets to notice.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tries the rogue DMA, reports what the device said, and brings the device up again.
pub(super) fn attempt(
    stack: &mut Stack,
    options: &NetOptions,
    iova: u64,
    direction: Direction,
) -> Result<Event> {
    match direction {
        Direction::Read => stack.net().rogue_read(iova, LEN)?,
        Direction::Write => {
            // The one receive buffer the device gets is the rogue one; any frame will be written
            // there.
            stack.net().restart(&NetOptions { fill_rx: false, ..*options })?;
            stack.net().rogue_write(iova, LEN)?;
            stack.provoke_answers()?;
        }
    }
    let begin = Instant::now();
    let mut said = stack.net().device().status()?;
    while said & status::DEVICE_NEEDS_RESET == 0 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
        said = stack.net().device().status()?;
    }
    stack.net().restart(options)?;
    let healthy = stack.net().device().status()?;
    Ok(Event::RogueDma {
        iova,
        direction,
        status: said,
        needs_reset: said & status::DEVICE_NEEDS_RESET != 0,
        recovered: healthy & status::DRIVER_OK != 0 && healthy & status::DEVICE_NEEDS_RESET == 0,
    })
}
