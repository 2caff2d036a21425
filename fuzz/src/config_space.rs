//! This module makes any accesses to a function's configuration space, and checks what must always
//! hold.

use manifold_pci::spec::header;
use manifold_pci::{CONFIG_SIZE, ConfigSpace, Event, Passthrough, PowerState, Reset};

#[path = "../../crates/pci/tests/common/mod.rs"]
pub(crate) mod function;

use function::{function_spec, sriov_spec};

/// Carries out the accesses that the bytes describe, on the kind of function that they name.
///
/// Each access is made to two functions alike, as it is to the one and byte by byte to the other.
/// They must end up the same, on the bus and through the VMM's view; what can only be read must not
/// move; both lists must stay whole; and whoever follows the events must know what the registers
/// say.
pub(crate) fn config_space(data: &[u8]) {
    let mut input = Input(data);
    let Some(kind) = input.byte() else { return };
    let (mut whole, mut bytewise) = (Pair::new(kind), Pair::new(kind));
    let start = whole.snapshot();
    while let Some(operation) = input.operation() {
        whole.apply(&operation, false);
        bytewise.apply(&operation, true);
        whole.check();
    }
    let end = whole.snapshot();
    assert!(end == bytewise.snapshot(), "access by bytes differs");
    for (start, end) in start.iter().zip(&end) {
        check_constants(start, end);
        check_lists(end);
    }
}

/// Length of the part of configuration space that holds registers and all capabilities, in bytes.
const REGISTERS: usize = 0x200;
type Registers = [u8; REGISTERS];

/// A function and the VMM's view of it.
pub(crate) struct Pair {
    pub(crate) space: ConfigSpace,
    view: Passthrough,
    pub(crate) follower: Follower,
}

pub(crate) enum Operation<'a> {
    Write { through_view: bool, offset: u16, data: &'a [u8] },
    Read { through_view: bool, offset: u16, len: usize },
    Reset(Reset),
    ResetThroughView,
}

impl Pair {
    pub(crate) fn new(kind: u8) -> Self {
        let spec = function_spec();
        let space = match kind % 3 {
            0 => ConfigSpace::physical(&spec, Some(&sriov_spec())),
            1 => ConfigSpace::physical(&spec, None),
            _ => ConfigSpace::virtual_function(&spec),
        };
        let space = space.unwrap();
        let view = Passthrough::new(&space, &spec);
        Self { space, view, follower: Follower::default() }
    }

    pub(crate) fn apply(&mut self, operation: &Operation<'_>, bytewise: bool) {
        let events = match *operation {
            Operation::Write { through_view, offset, data } => {
                let size = if bytewise { 1 } else { data.len().max(1) };
                let mut events = Vec::new();
                for (at, data) in (0..).step_by(size).zip(data.chunks(size)) {
                    let Some(offset) = offset.checked_add(at) else { break };
                    events.extend(if through_view {
                        self.view.write(&mut self.space, offset, data)
                    } else {
                        self.space.write(offset, data)
                    });
                }
                events
            }
            Operation::Read { through_view, offset, len } => {
                let mut data = vec![0; len];
                self.read(through_view, offset, &mut data);
                for (at, byte) in (u32::from(offset)..).zip(data) {
                    let mut one = [0xff];
                    if let Ok(at) = u16::try_from(at) {
                        self.read(through_view, at, &mut one);
                    }
                    assert_eq!([byte], one);
                    assert!(byte == 0xff || at < CONFIG_SIZE as u32);
                }
                Vec::new()
            }
            Operation::Reset(kind) => self.space.reset(kind).into_iter().collect(),
            Operation::ResetThroughView => self.view.reset(&mut self.space).into_iter().collect(),
        };
        self.follower.follow(events);
    }

    fn read(&self, through_view: bool, offset: u16, data: &mut [u8]) {
        if through_view {
            self.view.read(&self.space, offset, data);
        } else {
            self.space.read(offset, data);
        }
    }

    fn snapshot(&self) -> [Registers; 2] {
        [false, true].map(|through_view| {
            let mut data = [0; REGISTERS];
            self.read(through_view, 0, &mut data);
            data
        })
    }

    pub(crate) fn check(&self) {
        let space = &self.space;
        let follower = &self.follower;
        assert_eq!(follower.bus_master, space.bus_master());
        assert_eq!(follower.memory_enable, space.memory_enable());
        assert_eq!(follower.power, space.power_state());
        assert_eq!(follower.msix, (space.msix_enabled(), space.msix_masked()));
        if let Some(view) = space.sriov() {
            assert_eq!(follower.vfs, view.vf_enable.then_some(view.num_vfs));
            assert_eq!(follower.vf_memory, view.vf_memory);
            assert!(!view.vf_enable || (1..=view.total_vfs).contains(&view.num_vfs));
            assert!(view.system_page_size.is_power_of_two());
            for bar in view.vf_bars.into_iter().flatten() {
                assert!(bar.size >= view.system_page_size && bar.base.is_multiple_of(bar.size));
            }
        }
    }
}

/// Knows the function by its events alone.
#[derive(Default)]
pub(crate) struct Follower {
    bus_master: bool,
    memory_enable: bool,
    power: PowerState,
    msix: (bool, bool),
    pub(crate) vfs: Option<u16>,
    pub(crate) vf_memory: bool,
}

impl Follower {
    fn follow(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::BusMaster(on) => self.bus_master = on,
                Event::MemoryEnable(on) => self.memory_enable = on,
                Event::Power(state) => self.power = state,
                Event::MsixControl { enabled, masked } => self.msix = (enabled, masked),
                Event::VfEnable { enabled, num_vfs } => self.vfs = enabled.then_some(num_vfs),
                Event::VfMemoryEnable(on) => self.vf_memory = on,
                Event::VendorWrite { len, .. } => assert!(len > 0),
                Event::BarMoved(_) | Event::VfBarMoved(_) | Event::Flr => {}
            }
        }
    }
}

/// Registers that no access changes.
fn check_constants(start: &Registers, end: &Registers) {
    for range in [
        header::VENDOR_ID..header::COMMAND,
        header::CLASS_REVISION..header::CACHE_LINE_SIZE,
        header::BAR5 + 4..header::INTERRUPT_LINE,
        // These are the ID, version and next pointer of the first extended capability.
        0x100..0x104,
        // There is nothing behind all capabilities.
        0x1c0..REGISTERS as u16,
    ] {
        let range = usize::from(range.start)..usize::from(range.end);
        assert_eq!(start.get(range.clone()), end.get(range));
    }
}

/// Walks both lists as software does.
fn check_lists(space: &Registers) {
    let dword = |at: u16| {
        let at = usize::from(at);
        let bytes = space.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    let mut seen = Vec::new();
    let mut at = dword(header::CAPABILITIES) as u16;
    while at != 0 {
        assert!((header::SIZE..0x100).contains(&at) && at.is_multiple_of(4) && !seen.contains(&at));
        seen.push(at);
        at = dword(at) as u16 >> 8;
    }
    assert!(seen.len() >= 7, "all standard capabilities are there: {seen:?}");
    let mut at = 0x100;
    let mut extended = 0;
    while at != 0 {
        assert!(
            (0x100..REGISTERS as u16).contains(&at) && at.is_multiple_of(4) && !seen.contains(&at)
        );
        assert_ne!(dword(at) as u16, 0, "no list ends in a null capability");
        seen.push(at);
        extended += 1;
        at = (dword(at) >> 20) as u16;
    }
    assert!(extended >= 2, "{seen:?}");
}

/// Reads operations out of bytes.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn operation(&mut self) -> Option<Operation<'a>> {
        let kind = self.byte()?;
        let through_view = kind & 0x80 != 0;
        Some(match kind & 0x0f {
            0 => Operation::Reset(Reset::Flr),
            1 => Operation::Reset(Reset::Conventional),
            2 => Operation::ResetThroughView,
            3..8 => Operation::Read {
                through_view,
                offset: self.offset()?,
                len: usize::from(self.byte()?),
            },
            _ => {
                let offset = self.offset()?;
                // Most sizes are those that occur; now and then any size is taken.
                let len = match kind >> 4 & 0b111 {
                    size @ 0..4 => 1 << size,
                    _ => usize::from(self.byte()? % 16),
                };
                Operation::Write { through_view, offset, data: self.take(len)? }
            }
        })
    }

    /// Reads an offset, mostly within the part of the space that holds registers.
    fn offset(&mut self) -> Option<u16> {
        let [low, high] = *self.take(2)? else { return None };
        let offset = u16::from_le_bytes([low, high]);
        Some(if offset & 0x8000 == 0 { offset % REGISTERS as u16 } else { offset & 0x7fff })
    }
}
