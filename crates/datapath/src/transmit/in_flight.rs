//! This module keeps the chains of a transmit queue that other workers have not yet copied.

use std::collections::VecDeque;

use manifold_virtio::ring::Chain;

/// Chains that are not given back yet, in the order in which they were taken. They are given back
/// in that order, as in-order rings require.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Sequence number of the first chain.
    first: u32,
    /// The chains, each with the number of completions that are outstanding.
    chains: VecDeque<(Chain, u16)>,
}

impl InFlight {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Returns the sequence number of the chain that is added next.
    #[inline]
    pub(crate) fn next(&self) -> u32 {
        self.first.wrapping_add(self.chains.len() as u32)
    }

    /// Adds a chain for which `completions` completions are outstanding.
    pub(crate) fn add(&mut self, chain: Chain, completions: u16) {
        self.chains.push_back((chain, completions));
    }

    /// Counts a completion.
    pub(crate) fn completed(&mut self, sequence: u32) {
        let index = sequence.wrapping_sub(self.first) as usize;
        if let Some((_, completions)) = self.chains.get_mut(index) {
            *completions = completions.saturating_sub(1);
        }
    }

    /// Gives up waiting for completions.
    pub(crate) fn give_up(&mut self) {
        self.chains.iter_mut().for_each(|(_, completions)| *completions = 0);
    }

    /// Takes the next chain to give back, if it has no completion outstanding.
    pub(crate) fn pop(&mut self) -> Option<Chain> {
        let (chain, _) = *self.chains.front().filter(|(_, completions)| *completions == 0)?;
        self.chains.pop_front();
        self.first = self.first.wrapping_add(1);
        Some(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(head: u16) -> Chain {
        Chain { head, ..Chain::default() }
    }

    #[test]
    fn chains_come_out_in_order_whichever_completes_first() {
        let mut in_flight = InFlight { first: u32::MAX, ..InFlight::default() };
        let numbers: Vec<_> = [2, 0, 1]
            .into_iter()
            .zip(0..)
            .map(|(completions, head)| {
                let number = in_flight.next();
                in_flight.add(chain(head), completions);
                number
            })
            .collect();
        assert_eq!(in_flight.pop(), None);
        in_flight.completed(numbers[2]);
        in_flight.completed(numbers[0]);
        assert_eq!(in_flight.pop(), None, "one completion of two");
        in_flight.completed(numbers[0]);
        let heads: Vec<_> =
            std::iter::from_fn(|| in_flight.pop()).map(|chain| chain.head).collect();
        assert_eq!(heads, [0, 1, 2]);
        in_flight.completed(numbers[1]);
        assert!(in_flight.is_empty(), "a completion of a chain long gone changes nothing");
    }
}
