//! This module is an SR-IOV device of configuration spaces and plain memory, which records when
//! software does not keep to the specification's times; and a clock that runs as fast as one waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use manifold_fabric::decode::Decoder;
use manifold_fabric::{Clock, ConfigType, Endpoint, PfDriver, RootComplex};
use manifold_pci::spec::sriov;
use manifold_pci::{
    BarSpec, ConfigSpace, Event, FunctionId, FunctionSpec, MsixSpec, Reset, RoutingId, SriovSpec,
};

use crate::function;

pub(crate) const WIDE: BarSpec = BarSpec { size: 0x4000, width64: true, prefetchable: true };
pub(crate) const MSIX: BarSpec = BarSpec { size: 0x1000, width64: true, prefetchable: false };
pub(crate) const SMALL: BarSpec = BarSpec { size: 0x2000, width64: false, prefetchable: false };

/// BARs of the PF, and of each VF.
pub(crate) const BARS: [Option<BarSpec>; 6] =
    [Some(WIDE), None, Some(MSIX), None, Some(SMALL), None];

pub(crate) fn function_spec() -> FunctionSpec {
    FunctionSpec {
        bars: BARS,
        msix: MsixSpec { vectors: 4, table_bar: 2, table_offset: 0, pba_bar: 2, pba_offset: 0x800 },
        ..function::function_spec()
    }
}

pub(crate) fn rid(text: &str) -> RoutingId {
    text.parse().unwrap()
}

/// A clock whose time passes when someone waits for it.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<Mutex<Instant>>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn pass(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) {
        self.pass(duration);
    }
}

pub(crate) struct State {
    pub(crate) pf: ConfigSpace,
    pub(crate) vfs: Vec<ConfigSpace>,
    pub(crate) pf_id: RoutingId,
    memory: BTreeMap<(FunctionId, u8, u64), u8>,
    enabled: Option<Instant>,
    disabled: Option<Instant>,
    /// Time after VF Enable at which VFs answer.
    pub(crate) vf_delay: Duration,
    /// Index of the VF that never answers.
    pub(crate) broken_vf: Option<u16>,
    pub(crate) hot_resets: usize,
    /// Actions of software that are not allowed.
    pub(crate) violations: Vec<&'static str>,
}

/// The SR-IOV device.
pub(crate) struct Mock {
    pub(crate) state: Mutex<State>,
    clock: TestClock,
    sriov: u16,
}

impl Mock {
    pub(crate) fn new(total_vfs: u16) -> Arc<Self> {
        let sriov = SriovSpec { total_vfs, vf_bars: BARS, ..function::sriov_spec() };
        let pf = ConfigSpace::physical(&function_spec(), Some(&sriov)).unwrap();
        let state = State {
            pf,
            vfs: Vec::new(),
            pf_id: RoutingId::from_raw(0),
            memory: BTreeMap::new(),
            enabled: None,
            disabled: None,
            vf_delay: Duration::ZERO,
            broken_vf: None,
            hot_resets: 0,
            violations: Vec::new(),
        };
        let sriov = function::extended_capability(&state.pf, sriov::ID).unwrap();
        Arc::new(Self { state: Mutex::new(state), clock: TestClock::new(), sriov })
    }

    pub(crate) fn clock(&self) -> TestClock {
        self.clock.clone()
    }

    /// Returns the offset of the SR-IOV capability.
    pub(crate) fn sriov(&self) -> u16 {
        self.sriov
    }

    fn watch_pf(&self, state: &mut State, offset: u16, write: Option<&[u8]>) {
        let inside = (self.sriov..self.sriov + sriov::SIZE).contains(&offset);
        let settling = state.disabled.is_some_and(|at| self.clock.now() < at + DISABLE_TIME);
        let view = state.pf.sriov().unwrap();
        match write {
            None if inside && settling => {
                state.violations.push("SR-IOV capability read within 1 s of clearing VF Enable");
            }
            Some(_) if offset == self.sriov + sriov::NUM_VFS && view.vf_enable => {
                state.violations.push("NumVFs written while VF Enable is set");
            }
            Some([control, ..])
                if offset == self.sriov + sriov::CONTROL && control & 1 != 0 && settling =>
            {
                state.violations.push("VF Enable set within 1 s of clearing it");
            }
            _ => {}
        }
    }

    fn vf_answers(&self, state: &mut State, index: u16) -> bool {
        let now = self.clock.now();
        let Some(enabled) = state.enabled else { return false };
        if now < enabled + ENABLE_TIME {
            state.violations.push("request to a VF within 100 ms of setting VF Enable");
        }
        now >= enabled + state.vf_delay && state.broken_vf != Some(index)
    }

    fn act(&self, state: &mut State, event: Event) {
        if let Event::VfEnable { enabled, num_vfs } = event {
            let vf = || ConfigSpace::virtual_function(&function_spec()).unwrap();
            let now = self.clock.now();
            (state.enabled, state.disabled) =
                if enabled { (Some(now), None) } else { (None, Some(now)) };
            state.vfs = (0..if enabled { num_vfs } else { 0 }).map(|_| vf()).collect();
        }
    }
}

const ENABLE_TIME: Duration = Duration::from_millis(100);
const DISABLE_TIME: Duration = Duration::from_secs(1);

impl Endpoint for Mock {
    fn config_read(
        &self,
        kind: ConfigType,
        target: RoutingId,
        offset: u16,
        data: &mut [u8],
    ) -> bool {
        assert!(!data.is_empty() && usize::from(offset % 4) + data.len() <= 4, "one dword");
        let state = &mut *self.state.lock().unwrap();
        match Decoder::new(state.pf_id, &state.pf).function_at(kind, target) {
            Some(FunctionId::Pf) => {
                self.watch_pf(state, offset, None);
                state.pf.read(offset, data);
                true
            }
            Some(FunctionId::Vf(index)) if self.vf_answers(state, index) => {
                state.vfs[usize::from(index)].read(offset, data);
                true
            }
            _ => false,
        }
    }

    fn config_write(&self, kind: ConfigType, target: RoutingId, offset: u16, data: &[u8]) -> bool {
        assert!(!data.is_empty() && usize::from(offset % 4) + data.len() <= 4, "one dword");
        let state = &mut *self.state.lock().unwrap();
        match Decoder::new(state.pf_id, &state.pf).function_at(kind, target) {
            Some(FunctionId::Pf) => {
                if kind == ConfigType::Type0 {
                    state.pf_id = target;
                }
                self.watch_pf(state, offset, Some(data));
                for event in state.pf.write(offset, data) {
                    self.act(state, event);
                }
                true
            }
            Some(FunctionId::Vf(index)) if self.vf_answers(state, index) => {
                let _ = state.vfs[usize::from(index)].write(offset, data);
                true
            }
            _ => false,
        }
    }

    fn mem_read(&self, address: u64, data: &mut [u8]) -> bool {
        assert!(address % 4096 + data.len() as u64 <= 4096, "one page");
        let state = self.state.lock().unwrap();
        let decoder = Decoder::new(state.pf_id, &state.pf);
        let Some(target) = decoder.memory_at(address, data.len()) else { return false };
        for (offset, byte) in (target.offset..).zip(data) {
            let key = (target.function, target.bar, offset);
            *byte = state.memory.get(&key).copied().unwrap_or(0);
        }
        true
    }

    fn mem_write(&self, address: u64, data: &[u8]) -> bool {
        assert!(address % 4096 + data.len() as u64 <= 4096, "one page");
        let mut state = self.state.lock().unwrap();
        let decoder = Decoder::new(state.pf_id, &state.pf);
        let Some(target) = decoder.memory_at(address, data.len()) else { return false };
        for (offset, byte) in (target.offset..).zip(data) {
            state.memory.insert((target.function, target.bar, offset), *byte);
        }
        true
    }

    fn hot_reset(&self) {
        let state = &mut *self.state.lock().unwrap();
        state.hot_resets += 1;
        for event in state.pf.reset(Reset::Conventional) {
            self.act(state, event);
        }
    }
}

/// A machine with the device in it, enumerated.
pub(crate) struct Machine {
    pub(crate) mock: Arc<Mock>,
    pub(crate) root: Arc<RootComplex>,
    pub(crate) driver: PfDriver,
}

impl Machine {
    pub(crate) fn new(total_vfs: u16, ari: bool) -> Self {
        let mock = Mock::new(total_vfs);
        let endpoint = Arc::clone(&mock) as Arc<dyn Endpoint>;
        let root = Arc::new(RootComplex::new(endpoint, ari));
        let clock = Box::new(mock.clock());
        let driver = PfDriver::probe(Arc::clone(&root), clock).unwrap();
        Self { mock, root, driver }
    }

    pub(crate) fn config<const N: usize>(&self, target: RoutingId, offset: u16) -> [u8; N] {
        let mut data = [0x5a; N];
        self.root.config_read(target, offset, &mut data);
        data
    }

    pub(crate) fn memory<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0x5a; N];
        self.root.mem_read(address, &mut data);
        data
    }

    /// Returns the SR-IOV capability's 16-bit register at `offset`, by the back door.
    pub(crate) fn sriov_register(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.mock.state.lock().unwrap().pf.read(self.mock.sriov() + offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[track_caller]
    pub(crate) fn assert_lawful(&self) {
        assert_eq!(self.mock.state.lock().unwrap().violations, [""; 0]);
    }
}
