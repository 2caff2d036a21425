//! This module applies the switch's policies: each function's filters, limited by what the PF
//! allows it, become the workers' forwarding table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manifold_datapath::Datapath;
use manifold_eswitch::{Filters, MacAddr, Policy, Table, TableBuilder};
use manifold_pci::FunctionId;
use parking_lot::Mutex;

/// Length in bytes of an Ethernet header, which comes on top of the MTU. The switch allows for a
/// VLAN tag by itself.
const FRAME_OVERHEAD: u32 = 14;

/// The policies of all functions. A change builds a new table and hands it to the workers before it
/// returns.
pub(crate) struct Switch {
    datapath: Arc<Datapath>,
    max_frame_len: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    policies: BTreeMap<FunctionId, Policy>,
    uplink: bool,
    /// Functions whose claim to another's address has been logged. There is one warning for each,
    /// as a driver can make as many claims as it likes.
    warned: BTreeSet<FunctionId>,
}

impl Switch {
    pub(crate) fn new(datapath: Arc<Datapath>, mtu: u16, uplink: bool) -> Self {
        Switch {
            datapath,
            max_frame_len: u32::from(mtu) + FRAME_OVERHEAD,
            state: Mutex::new(State { uplink, ..State::default() }),
        }
    }

    /// Adds functions, each with the address the PF assigns to it.
    pub(crate) fn add(&self, functions: impl IntoIterator<Item = (FunctionId, [u8; 6])>) {
        let mut state = self.state.lock();
        for (id, mac) in functions {
            state.policies.insert(id, Policy::new(MacAddr(mac)));
        }
        self.publish(&mut state);
    }

    /// Removes the functions that are gone.
    pub(crate) fn remove(&self, gone: impl Fn(FunctionId) -> bool) {
        let mut state = self.state.lock();
        state.policies.retain(|id, _| !gone(*id));
        state.warned.retain(|id| !gone(*id));
        self.publish(&mut state);
    }

    /// Replaces the filters that a function's driver asks for.
    pub(crate) fn set_filters(&self, id: FunctionId, filters: &Filters) {
        let mut state = self.state.lock();
        let Some(policy) = state.policies.get_mut(&id) else { return };
        let filters = limit(filters.clone(), id);
        if policy.filters != filters {
            policy.filters = filters;
            self.publish(&mut state);
        }
    }

    fn publish(&self, state: &mut State) {
        let table = build(state, self.max_frame_len);
        for conflict in table.conflicts() {
            if state.warned.insert(conflict.refused) {
                tracing::warn!(
                    mac = %conflict.mac, owner = %conflict.owner, refused = %conflict.refused,
                    "two functions claim one MAC address"
                );
            }
        }
        if let Err(error) = self.datapath.set_table(&Arc::new(table)) {
            tracing::error!(%error, "the forwarding table cannot be replaced");
        }
    }
}

fn build(state: &State, max_frame_len: u32) -> Table {
    let mut builder = TableBuilder::new();
    builder.uplink(state.uplink).max_frame_len(max_frame_len);
    for (id, policy) in &state.policies {
        builder.function(*id, policy);
    }
    builder.build()
}

/// Returns the table of an adapter without functions.
pub(crate) fn empty_table() -> Arc<Table> {
    Arc::new(TableBuilder::new().build())
}

/// Limits the filters a driver asked for to those that the PF lets its function have. A VF is not
/// trusted (as other adapters say): it gets no unicast frames but its own, so promiscuous mode
/// shows it every multicast frame and every VLAN, and no more.
fn limit(asked: Filters, id: FunctionId) -> Filters {
    if id == FunctionId::Pf {
        return asked;
    }
    let filters = Filters { all_unicast: false, ..asked };
    if !filters.promiscuous {
        return filters;
    }
    Filters {
        promiscuous: false,
        all_multicast: true,
        no_multicast: false,
        no_unicast: false,
        no_broadcast: false,
        vlan_filtering: false,
        ..filters
    }
}

#[cfg(test)]
mod tests {
    use manifold_pci::FunctionId::Vf;

    use super::*;

    #[test]
    fn a_claim_to_anothers_address_is_logged_once() {
        let datapath = Arc::new(Datapath::start(&empty_table(), &[None]).unwrap());
        let switch = Switch::new(datapath, 1500, false);
        let mac = |last| [2, 0, 0, 0, 0, last];
        switch.add([(Vf(0), mac(0)), (Vf(1), mac(1))]);
        let warned = || switch.state.lock().warned.iter().copied().collect::<Vec<_>>();
        assert_eq!(warned(), []);
        for own in [false, true, false] {
            switch.set_filters(Vf(1), &Filters::new(mac(u8::from(own))));
            assert_eq!(warned(), [Vf(1)]);
        }
        switch.remove(|id| id == Vf(1));
        assert_eq!(warned(), []);
    }
}

#[cfg(test)]
mod trust_tests {
    use manifold_eswitch::{Decision, Source};

    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 3];

    /// Returns who gets a frame from `SENDER` when `id` asks for everything.
    fn receivers(id: FunctionId, destination: [u8; 6]) -> Vec<FunctionId> {
        let (other, sender) = (FunctionId::Vf(8), FunctionId::Vf(9));
        let mut greedy = Filters::new(OWN);
        greedy.promiscuous = true;
        greedy.all_unicast = true;
        greedy.vlan_filtering = true;
        let mut state = State::default();
        for (function, mac) in [(id, OWN), (other, OTHER), (sender, SENDER)] {
            state.policies.insert(function, Policy::new(MacAddr(mac)));
        }
        if let Some(policy) = state.policies.get_mut(&id) {
            policy.filters = limit(greedy, id);
        }
        let frame = [&destination[..], &SENDER, &[0x81, 0, 0, 7, 8, 0]].concat();
        match build(&state, 1514).classify(Source::Function(sender), &frame, 60) {
            Decision::Function(function) => vec![function],
            Decision::Multi(to) => to.functions().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_vf_cannot_listen_to_others() {
        let vf = FunctionId::Vf(0);
        assert_eq!(receivers(vf, OTHER), [FunctionId::Vf(8)]);
        assert_eq!(receivers(vf, OWN), [vf]);
        // The function receives multicast of any VLAN that it may have.
        assert!(receivers(vf, [1, 0, 0x5e, 0, 0, 5]).contains(&vf));
        // The adapter's owner has the PF, so no policy limits it.
        assert!(receivers(FunctionId::Pf, OTHER).contains(&FunctionId::Pf));
    }
}
