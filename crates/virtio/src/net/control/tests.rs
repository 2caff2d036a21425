//! These tests send commands to the settings as a whole.

use proptest::prelude::*;

use super::*;
use crate::net::{
    Coalescing, Filters, NetConfig, QueueStatistics, Role, Steering, features::SUPPORTED,
};
use crate::transport::{QueueError, QueueSetup, QueueState};

/// A host that is asked for nothing but statistics.
struct Statistics;

impl QueueHost for Statistics {
    fn start(&self, _: Role, _: QueueSetup) -> Result<(), QueueError> {
        Err(QueueError::Unserved(String::new()))
    }
    fn stop(&self, _: u16) -> QueueState {
        QueueState::default()
    }
    fn notify(&self, _: u16) {}
    fn filters_changed(&self, _: &Filters) {}
    fn steering_changed(&self, _: &Steering) {}
    fn offloads_changed(&self, _: u64) {}
    fn coalescing_changed(&self, _: u16, _: Coalescing) {}
    fn statistics(&self, index: u16) -> QueueStatistics {
        QueueStatistics { packets: index.into(), ..QueueStatistics::default() }
    }
}

/// Returns commands that are right, or nearly so, for a device of four queue pairs.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let any_data = prop::collection::vec(prop_oneof![3 => 0u8..5, 1 => any::<u8>()], 0..48);
    let random = (0u8..10, 0u8..8, any_data)
        .prop_map(|(class, command, data)| [vec![class, command], data].concat());
    let table = prop::sample::select(vec![1usize, 2, 3, 4, 128, 256]);
    let rss = (0u32..0x400, table, 0u16..5, 0u16..6, 0usize..42, any::<u8>()).prop_map(
        |(types, entries, queue, pairs, key, fill)| {
            let mut bytes = vec![ctrl::MQ, ctrl::MQ_RSS_CONFIG];
            bytes.extend(types.to_le_bytes());
            bytes.extend((entries as u16 - 1).to_le_bytes());
            bytes.extend(queue.to_le_bytes());
            bytes.extend((0..entries).flat_map(|_| queue.to_le_bytes()));
            bytes.extend(pairs.to_le_bytes());
            bytes.push(key as u8);
            bytes.extend(vec![fill; key]);
            bytes
        },
    );
    let statistics =
        prop::collection::vec((0u16..10, 0u64..16, 0u32..40), 0..6).prop_map(|requests| {
            let mut bytes = vec![ctrl::STATS, ctrl::STATS_GET];
            for (queue, types, shift) in requests {
                bytes.extend(queue.to_le_bytes());
                bytes.extend([0; 6]);
                bytes.extend((types << shift).to_le_bytes());
            }
            bytes
        });
    let whole = prop_oneof![2 => random, 2 => rss, 1 => statistics];
    // The command is cut short, or one byte of it is changed.
    (whole, any::<prop::sample::Index>(), 0u8..4, any::<u8>()).prop_map(
        |(mut bytes, at, how, byte)| {
            let at = at.index(bytes.len());
            match how {
                0 => bytes.truncate(at),
                1 => bytes.iter_mut().skip(at).take(1).for_each(|at| *at = byte),
                _ => {}
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A refused command changes nothing at all; one that is done says what it changed, and keeps
    /// the promises made to the data path.
    #[test]
    fn refused_is_unchanged_and_done_is_consistent(
        features in any::<u64>(),
        everything: bool,
        started in any::<u8>(),
        commands in prop::collection::vec(command(), 1..24),
    ) {
        let config = NetConfig::new("vf0", [2; 6]);
        let mut settings = Settings::new(config.mac, 4);
        settings.activate(if everything { SUPPORTED } else { features & SUPPORTED });
        let mut queues = Queues::default();
        (0..8).filter(|n| started >> n & 1 != 0).for_each(|n| queues.insert(Queues::one(n)));
        for command in commands {
            let before = settings.clone();
            let context = CommandContext {
                host: &Statistics,
                started: queues,
                commands: CommandCounts::default(),
            };
            let mut result = Vec::new();
            let outcome = settings.execute(&command, &context, &mut result);
            let Ok(changes) = outcome else {
                prop_assert_eq!(&settings, &before, "{:02x?}", command);
                continue;
            };
            prop_assert!(changes.filters || settings.filters == before.filters);
            prop_assert!(changes.steering || settings.steering == before.steering);
            prop_assert!(changes.offloads || settings.offloads == before.offloads);
            for queue in (0..8).filter(|queue| !changes.coalescing.contains(*queue)) {
                prop_assert_eq!(settings.coalescing.get(queue), before.coalescing.get(queue));
            }
            prop_assert!(result.len() <= RESULT_MAX);
            prop_assert_eq!(settings.offloads & !settings.features, 0);
            let Steering { pairs, hash, table } = &settings.steering;
            prop_assert!((1..=4).contains(pairs));
            prop_assert!(hash.as_ref().is_none_or(|hash| hash.types != 0 && hash.types < 0x200));
            if let Some(table) = table {
                prop_assert!(table.entries.len().is_power_of_two());
                prop_assert!(table.entries.len() <= 128);
                prop_assert!(table.entries.iter().all(|pair| *pair < 4));
                prop_assert!(table.unclassified < 4);
            }
        }
    }
}
