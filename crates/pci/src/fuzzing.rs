//! The fuzz target's body, and property tests': any accesses to a function, and what must hold
//! whatever they are.

use crate::spec::{header, sriov};
use crate::{
    BarSpec, CONFIG_SIZE, ConfigSpace, Event, Events, FunctionSpec, Identity, MsixSpec,
    Passthrough, PowerState, Reset, SriovSpec, UncorrectableError, VendorCapability,
};

/// Takes the bytes for a function and a sequence of accesses to it.
///
/// Each access is made to two functions alike, as it is to the one and byte by byte to the other.
/// They must end up the same, on the bus and through the VMM's view; what can only be read must not
/// move; both lists must stay whole; and whoever follows the events must know what the registers
/// say.
pub fn config_space(data: &[u8]) {
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

/// The part of configuration space that holds registers: all capabilities are within.
const REGISTERS: usize = 0x200;
type Registers = [u8; REGISTERS];

/// A function and the VMM's view of it.
struct Pair {
    space: ConfigSpace,
    view: Passthrough,
    follower: Follower,
}

enum Operation<'a> {
    Write { through_view: bool, offset: u16, data: &'a [u8] },
    Read { through_view: bool, offset: u16, len: usize },
    Reset(Reset),
    ResetThroughView,
    Error(UncorrectableError, [u32; 4]),
}

impl Pair {
    fn new(kind: u8) -> Self {
        let spec = function_spec();
        let space = match kind % 3 {
            0 => ConfigSpace::physical(&spec, Some(&sriov_spec())),
            1 => ConfigSpace::physical(&spec, None),
            _ => ConfigSpace::virtual_function(&spec),
        };
        let Ok(space) = space else { unreachable!("the specs are valid") };
        let view = Passthrough::new(&space, &spec);
        Self { space, view, follower: Follower::default() }
    }

    fn apply(&mut self, operation: &Operation<'_>, bytewise: bool) {
        let events = match *operation {
            Operation::Write { through_view, offset, data } => {
                let size = if bytewise { 1 } else { data.len().max(1) };
                let mut events = Events::default();
                for (at, data) in (0..).step_by(size).zip(data.chunks(size)) {
                    let Some(offset) = offset.checked_add(at) else { break };
                    events.append(if through_view {
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
                Events::default()
            }
            Operation::Reset(kind) => self.space.reset(kind),
            Operation::ResetThroughView => self.view.reset(&mut self.space),
            Operation::Error(error, tlp_header) => {
                let _ = self.space.record_error(error, tlp_header);
                Events::default()
            }
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

    fn check(&self) {
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
struct Follower {
    bus_master: bool,
    memory_enable: bool,
    power: PowerState,
    msix: (bool, bool),
    vfs: Option<u16>,
    vf_memory: bool,
}

impl Follower {
    fn follow(&mut self, events: Events) {
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
        // The ID, version and next pointer of the first extended capability.
        0x100..0x104,
        // Behind all capabilities.
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
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn operation(&mut self) -> Option<Operation<'a>> {
        let kind = self.byte()?;
        let through_view = kind & 0x80 != 0;
        Some(match kind & 0x0f {
            0 => Operation::Reset(Reset::Flr),
            1 => Operation::Reset(Reset::Conventional),
            2 => Operation::ResetThroughView,
            3 => {
                use UncorrectableError::*;
                let errors = [
                    PoisonedTlp,
                    CompletionTimeout,
                    CompleterAbort,
                    UnexpectedCompletion,
                    UnsupportedRequest,
                    Internal,
                ];
                let error = errors.get(usize::from(self.byte()?) % errors.len())?;
                Operation::Error(*error, [u32::from(self.byte()?) << 24, 1, 2, 3])
            }
            4..8 => Operation::Read {
                through_view,
                offset: self.offset()?,
                len: usize::from(self.byte()?),
            },
            _ => {
                let offset = self.offset()?;
                // Mostly the sizes that occur, now and then any.
                let len = match kind >> 4 & 0b111 {
                    size @ 0..4 => 1 << size,
                    _ => usize::from(self.byte()? % 16),
                };
                Operation::Write { through_view, offset, data: self.take(len)? }
            }
        })
    }

    /// Mostly within the part of the space that holds registers.
    fn offset(&mut self) -> Option<u16> {
        let [low, high] = *self.take(2)? else { return None };
        let offset = u16::from_le_bytes([low, high]);
        Some(if offset & 0x8000 == 0 { offset % REGISTERS as u16 } else { offset & 0x7fff })
    }
}

/// A network function with 64-bit BARs, vendor-specific capabilities and a few vectors.
pub fn function_spec() -> FunctionSpec {
    let bar = Some(BarSpec { size: 0x4000, width64: true, prefetchable: true });
    FunctionSpec {
        identity: Identity {
            vendor_id: 0x1af4,
            device_id: 0x1041,
            revision: 1,
            class_code: 0x02_0000,
            subsystem_vendor_id: 0x1af4,
            subsystem_id: 0x1100,
        },
        bars: [bar, None, bar, None, None, None],
        msix: MsixSpec {
            vectors: 5,
            table_bar: 2,
            table_offset: 0,
            pba_bar: 2,
            pba_offset: 0x2000,
        },
        vendor: (1..6)
            .map(|kind: u8| {
                let body = vec![20, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let writable = if kind == 5 { 0xff } else { 0 };
                VendorCapability { writable: [vec![0; 2], vec![writable; 16]].concat(), body }
            })
            .collect(),
        serial: 0x5254_00ff_fe12_3456,
    }
}

/// 256 VFs with BARs like the PF's.
pub fn sriov_spec() -> SriovSpec {
    SriovSpec {
        total_vfs: 256,
        vf_device_id: 0x1041,
        vf_bars: function_spec().bars,
        supported_page_sizes: sriov::REQUIRED_PAGE_SIZES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kind;
    use crate::spec::{express, msix, power};
    use proptest::prelude::*;

    /// Writes that random bytes alone would hardly ever hit: the registers with side effects, and
    /// values that have them.
    fn significant_write() -> impl Strategy<Value = Vec<u8>> {
        let space = ConfigSpace::physical(&function_spec(), Some(&sriov_spec())).unwrap();
        let at = |kind, register| space.list().offset(kind).unwrap() + register;
        let registers = vec![
            header::COMMAND,
            header::BAR0,
            at(Kind::Power, power::PMCSR),
            at(Kind::Msix, msix::CONTROL),
            at(Kind::Express, express::DEVICE_CONTROL + 1),
            at(Kind::Vendor(4), 16),
            at(Kind::AdvancedErrorReporting, 4),
            at(Kind::Sriov, sriov::CONTROL),
            at(Kind::Sriov, sriov::NUM_VFS),
            at(Kind::Sriov, sriov::SYSTEM_PAGE_SIZE),
            at(Kind::Sriov, sriov::VF_BAR0),
            // Again, since these must come together to have an effect.
            at(Kind::Sriov, sriov::CONTROL),
            at(Kind::Sriov, sriov::NUM_VFS),
        ];
        let value = prop_oneof![
            Just(0_u32),
            Just(1),
            Just(3),
            Just(9),
            Just(0x10),
            Just(0x19),
            Just(0x100),
            Just(0x8000),
            Just(u32::MAX),
            any::<u32>()
        ];
        let view = prop_oneof![3 => Just(0_u8), 1 => Just(0x80)];
        (prop::sample::select(registers), value, 0_u8..3, view).prop_map(
            |(offset, value, size, view)| {
                let mut bytes = vec![8 | size << 4 | view];
                bytes.extend(offset.to_le_bytes());
                bytes.extend(&value.to_le_bytes()[..1 << size]);
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..400)) {
            config_space(&data);
        }

        #[test]
        fn any_accesses(
            kind in prop_oneof![2 => Just(0_u8), 1 => 1..3_u8],
            writes in prop::collection::vec(
                prop_oneof![
                    8 => significant_write(),
                    1 => prop::collection::vec(any::<u8>(), 1..20),
                ],
                0..60,
            ),
        ) {
            config_space(&[vec![kind], writes.concat()].concat());
        }
    }

    /// The strategy above would be worthless if it never brought VFs up.
    #[test]
    fn vfs_come_and_go_under_the_operations() {
        let mut pair = Pair::new(0);
        let at = pair.space.list().offset(Kind::Sriov).unwrap();
        let [low, high] = (at + sriov::NUM_VFS).to_le_bytes();
        let mut input = vec![0x18, low, high, 4, 0];
        let [low, high] = (at + sriov::CONTROL).to_le_bytes();
        input.extend([0x18, low, high, 9, 0]);
        let mut input = Input(&input);
        while let Some(operation) = input.operation() {
            pair.apply(&operation, false);
            pair.check();
        }
        assert_eq!((pair.follower.vfs, pair.follower.vf_memory), (Some(4), true));
    }
}
