//! What a lookup has cost, and for how long it was held back: that time is not its own.

use std::time::Duration;

use super::Lookup;
use crate::base::Instant;
use crate::dht::event::LookupCost;

/// The account of one lookup.
#[derive(Debug, Default)]
pub(super) struct Spending {
    pub cost: LookupCost,
    /// For how long it could not send what it wanted to.
    pub held: Duration,
    held_since: Option<Instant>,
}

impl Lookup {
    /// A query has left.
    pub fn on_sent(&mut self, now: Instant, bytes: usize, opens_flow: bool) {
        self.settle_held(now);
        let spending = &mut self.spending;
        spending.held_since = None;
        spending.cost.queries += 1;
        spending.cost.flows += usize::from(opens_flow);
        spending.cost.bytes += bytes;
    }

    /// A query may not leave yet.
    pub fn on_held_back(&mut self, now: Instant) {
        self.spending.held_since.get_or_insert(now);
    }

    /// Is it being held back?
    pub fn is_held_back(&self) -> bool {
        self.spending.held_since.is_some()
    }

    /// Counts the time that it has been held back until now.
    pub fn settle_held(&mut self, now: Instant) {
        if let Some(since) = &mut self.spending.held_since {
            self.spending.held += now.since(*since);
            *since = now;
        }
    }
}
