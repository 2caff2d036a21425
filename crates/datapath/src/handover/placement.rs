//! This module assigns queue pairs to workers.

use std::collections::BTreeMap;

use manifold_pci::FunctionId;

/// A queue pair of a function.
pub(crate) type Pair = (FunctionId, u16);

/// Queue pairs spread evenly over workers, by number.
#[derive(Debug)]
pub(crate) struct Placement {
    /// Number of pairs that each worker has.
    loads: Vec<usize>,
    pairs: BTreeMap<Pair, usize>,
}

impl Placement {
    /// Makes a placement without pairs on `workers` workers, at least one.
    pub(crate) fn new(workers: usize) -> Self {
        Placement { loads: vec![0; workers.max(1)], pairs: BTreeMap::new() }
    }

    /// Returns the worker of a pair, if it has been placed.
    pub(crate) fn find(&self, pair: Pair) -> Option<usize> {
        self.pairs.get(&pair).copied()
    }

    /// Returns the worker of a pair. A pair that was not placed goes to the worker with the fewest.
    pub(crate) fn place(&mut self, pair: Pair) -> usize {
        if let Some(worker) = self.find(pair) {
            return worker;
        }
        let worker = self.extreme(|load| load);
        self.pairs.insert(pair, worker);
        if let Some(load) = self.loads.get_mut(worker) {
            *load += 1;
        }
        worker
    }

    /// Returns a function's pairs, each with its worker.
    pub(crate) fn pairs_of(&self, function: FunctionId) -> Vec<(u16, usize)> {
        let all = self.pairs.range((function, 0)..=(function, u16::MAX));
        all.map(|((_, pair), worker)| (*pair, *worker)).collect()
    }

    /// Returns how many pairs each worker has.
    pub(crate) fn loads(&self) -> &[usize] {
        &self.loads
    }

    /// Returns true if no worker has more than one pair more than another.
    pub(crate) fn is_even(&self) -> bool {
        let (least, most) = (self.loads.iter().min(), self.loads.iter().max());
        most.copied().unwrap_or(0) <= least.copied().unwrap_or(0) + 1
    }

    /// Removes a pair.
    pub(crate) fn forget_pair(&mut self, pair: Pair) {
        if let Some(worker) = self.pairs.remove(&pair)
            && let Some(load) = self.loads.get_mut(worker)
        {
            *load -= 1;
        }
    }

    /// Removes a function's pairs.
    pub(crate) fn forget(&mut self, function: FunctionId) {
        let loads = &mut self.loads;
        self.pairs.retain(|(id, _), worker| {
            let stays = *id != function;
            if !stays && let Some(load) = loads.get_mut(*worker) {
                *load -= 1;
            }
            stays
        });
    }

    /// Evens the load out, so that no worker has more than one pair more than another. Returns the
    /// pairs that move, as few as possible, each with its new worker.
    pub(crate) fn balance(&mut self) -> Vec<(Pair, usize)> {
        let mut moves = BTreeMap::new();
        loop {
            let (most, least) = (self.extreme(|load| usize::MAX - load), self.extreme(|load| load));
            let load = |worker: usize| self.loads.get(worker).copied().unwrap_or(0);
            if load(most) <= load(least) + 1 {
                return moves.into_iter().collect();
            }
            let Some((pair, worker)) = self.pairs.iter_mut().rev().find(|(_, w)| **w == most)
            else {
                return moves.into_iter().collect();
            };
            *worker = least;
            moves.insert(*pair, least);
            if let Some(load) = self.loads.get_mut(most) {
                *load -= 1;
            }
            if let Some(load) = self.loads.get_mut(least) {
                *load += 1;
            }
        }
    }

    /// Returns the first worker whose load has the smallest key.
    fn extreme(&self, key: impl Fn(usize) -> usize) -> usize {
        let all = self.loads.iter().enumerate();
        all.min_by_key(|(_, load)| key(**load)).map_or(0, |(worker, _)| worker)
    }
}

#[cfg(test)]
mod tests {
    use FunctionId::Vf;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_go_to_whoever_has_the_fewest_and_stay() {
        let mut placement = Placement::new(2);
        let placed: Vec<_> = (0..4).map(|n| placement.place((Vf(n), 0))).collect();
        assert_eq!(placed, [0, 1, 0, 1]);
        assert_eq!(placement.place((Vf(1), 0)), 1);
        assert_eq!(placement.find((Vf(9), 0)), None);
        placement.forget(Vf(0));
        placement.forget(Vf(2));
        assert_eq!(placement.balance(), [((Vf(3), 0), 0)]);
        assert_eq!(placement.balance(), []);
    }

    proptest! {
        #[test]
        fn it_is_even_after_every_balance(
            workers in 1usize..5,
            steps in prop::collection::vec((0u16..12, 0u16..3, any::<bool>()), 0..60),
        ) {
            let mut placement = Placement::new(workers);
            for (vf, pair, comes) in steps {
                if comes {
                    placement.place((Vf(vf), pair));
                } else {
                    placement.forget(Vf(vf));
                }
                let before = placement.pairs.clone();
                let moves = placement.balance();
                for (pair, to) in &moves {
                    prop_assert_ne!(before[pair], *to);
                    prop_assert_eq!(placement.find(*pair), Some(*to));
                }
                let mut counted = vec![0; workers];
                placement.pairs.values().for_each(|worker| counted[*worker] += 1);
                prop_assert_eq!(&counted, &placement.loads);
                let (low, high) = (counted.iter().min(), counted.iter().max());
                prop_assert!(high.unwrap() - low.unwrap() <= 1);
            }
        }
    }
}
