//! Frames of one transmit queue that receivers of other workers have not yet copied.

use std::collections::VecDeque;

use manifold_virtio::ring::Chain;

/// Chains that are not given back yet, in the order they were taken: they are given back in that order, as in-order rings
/// want it and others like it.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// Sequence number of the first.
    first: u32,
    /// Each with how many tickets are out for it.
    chains: VecDeque<(Chain, u16)>,
}

impl Flight {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// The number of the chain that is added next.
    #[inline]
    pub(crate) fn next(&self) -> u32 {
        self.first.wrapping_add(self.chains.len() as u32)
    }

    /// Adds a chain for which so many tickets were given out.
    pub(crate) fn add(&mut self, chain: Chain, tickets: u16) {
        self.chains.push_back((chain, tickets));
    }

    /// A ticket came back.
    pub(crate) fn landed(&mut self, sequence: u32) {
        let index = sequence.wrapping_sub(self.first) as usize;
        if let Some((_, tickets)) = self.chains.get_mut(index) {
            *tickets = tickets.saturating_sub(1);
        }
    }

    /// No ticket will come back any more.
    pub(crate) fn give_up(&mut self) {
        self.chains.iter_mut().for_each(|(_, tickets)| *tickets = 0);
    }

    /// The next chain to give back, if its tickets are all back.
    pub(crate) fn pop(&mut self) -> Option<Chain> {
        let (chain, _) = *self.chains.front().filter(|(_, tickets)| *tickets == 0)?;
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
    fn chains_come_out_in_order_whatever_lands_first() {
        let mut flight = Flight { first: u32::MAX, ..Flight::default() };
        let numbers: Vec<_> = [2, 0, 1]
            .into_iter()
            .zip(0..)
            .map(|(tickets, head)| {
                let number = flight.next();
                flight.add(chain(head), tickets);
                number
            })
            .collect();
        assert_eq!(flight.pop(), None);
        flight.landed(numbers[2]);
        flight.landed(numbers[0]);
        assert_eq!(flight.pop(), None, "one ticket of two");
        flight.landed(numbers[0]);
        let heads: Vec<_> = std::iter::from_fn(|| flight.pop()).map(|chain| chain.head).collect();
        assert_eq!(heads, [0, 1, 2]);
        flight.landed(numbers[1]);
        assert!(flight.is_empty(), "a ticket of a chain long gone changes nothing");
    }
}
