//! This module decides which neighbours are asked for their MAC addresses, and when.
//!
//! Every request is a broadcast that every guest has to look at. A hundred guests that each ask for
//! all the others at once would fill each other's rings, so only a few requests of a guest are open
//! at a time.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Number of requests that are open at a time.
const OPEN: usize = 4;
/// Time that an answer may take before the request is repeated.
const INTERVAL: Duration = Duration::from_millis(200);
/// Number of times that a request is sent before the neighbour is given up.
const TRIES: u32 = 25;

/// Addresses that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    waiting: VecDeque<Ipv4Addr>,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    address: Ipv4Addr,
    due: Instant,
    tries: u32,
}

impl Resolver {
    /// Has an address asked for.
    pub(super) fn want(&mut self, address: Ipv4Addr) {
        if !self.waiting.contains(&address) && !self.open.iter().any(|o| o.address == address) {
            self.waiting.push_back(address);
        }
    }

    /// Returns the addresses to send a request for now.
    pub(super) fn ask(&mut self, now: Instant, known: impl Fn(&Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
        self.open.retain(|open| !known(&open.address) && open.tries < TRIES);
        let mut ask = Vec::new();
        for open in self.open.iter_mut().filter(|open| now >= open.due) {
            open.tries += 1;
            open.due = now + INTERVAL;
            ask.push(open.address);
        }
        while self.open.len() < OPEN {
            let Some(address) = self.waiting.pop_front() else { break };
            if !known(&address) {
                self.open.push(Open { address, due: now + INTERVAL, tries: 1 });
                ask.push(address);
            }
        }
        ask
    }

    /// Returns true if nothing is to be asked.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }

    /// Returns the time until [`Self::ask`] has something to repeat.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Duration> {
        self.open.iter().map(|open| open.due.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, n)
    }

    #[test]
    fn a_few_at_a_time_each_until_it_answers() {
        let mut resolver = Resolver::default();
        for n in (0..10).chain(0..10) {
            resolver.want(address(n));
        }
        let now = Instant::now();
        let nobody = |_: &Ipv4Addr| false;
        assert_eq!(resolver.ask(now, nobody), (0..4).map(address).collect::<Vec<_>>());
        assert!(resolver.ask(now, nobody).is_empty());
        assert_eq!(resolver.next_deadline(now), Some(INTERVAL));
        // After two answers, two more neighbours are asked.
        let two = |a: &Ipv4Addr| *a <= address(1);
        assert_eq!(resolver.ask(now, two), [address(4), address(5)]);
        // The other neighbours are asked again.
        let later = now + INTERVAL;
        assert_eq!(resolver.ask(later, two), (2..6).map(address).collect::<Vec<_>>());
        // All neighbours answer, also those that were not asked yet.
        assert!(resolver.ask(later, |_| true).is_empty());
        assert!(resolver.is_idle());
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let mut resolver = Resolver::default();
        resolver.want(address(1));
        let mut now = Instant::now();
        let mut asked = 0;
        while !resolver.is_idle() {
            asked += resolver.ask(now, |_| false).len();
            now += INTERVAL;
        }
        assert_eq!(asked, 25);
        assert_eq!(resolver.next_deadline(now), None);
    }
}
