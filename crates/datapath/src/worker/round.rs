//! A worker makes one round over everything that is busy.

use super::queues::Queues;

impl Queues {
    /// Polls everything that is busy once; returns true if anything moved. A transmit queue that
    /// has been empty for `window` ticks is armed and left alone. `now` is roughly the time.
    pub(crate) fn poll(&mut self, now: u64, window: u64) -> bool {
        let mut moved = self.poll_transmit(now, window);
        if self.uplink_active {
            moved |= self.poll_uplink();
        }
        if self.inboxes.workers() > 1 {
            moved |= self.exchange();
        }
        moved
    }

    fn poll_transmit(&mut self, now: u64, window: u64) -> bool {
        let Queues { switch, egress, transmit, active, frames, .. } = self;
        let mut moved = false;
        let mut at = 0;
        while let Some(slot) = active.get(at).copied() {
            // The next queue is fetched into the cache while this one is worked on.
            let next = active.get(at + 1).or(active.first());
            if let Some(Some(next)) = next.and_then(|slot| transmit.get(*slot)) {
                next.queue.prefetch();
            }
            let Some(Some(place)) = transmit.get_mut(slot) else {
                active.swap_remove(at);
                continue;
            };
            let stays = if place.queue.poll(switch, egress, frames) > 0 {
                moved = true;
                place.empty_since = None;
                true
            } else {
                let since = *place.empty_since.get_or_insert(now);
                let more = now.saturating_sub(since) < window || place.queue.arm(switch);
                if more && now.saturating_sub(since) >= window {
                    place.empty_since = None;
                }
                more
            };
            if stays && !place.queue.failed {
                at += 1;
            } else {
                place.active = false;
                active.swap_remove(at);
            }
        }
        moved
    }

    fn poll_uplink(&mut self) -> bool {
        let Some(uplink) = &mut self.uplink else { return false };
        self.egress.timer.begin_burst();
        let (received, more) = uplink.poll(&self.switch, &mut self.egress);
        self.egress.timer.end_burst(received);
        // The epoll is edge-triggered, so the uplink is polled until it is empty.
        self.uplink_active = more;
        received > 0
    }
}
