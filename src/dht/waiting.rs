//! What becomes of a query that may not leave yet: whoever wanted it stands in `line`, and is asked
//! again what it wants when its turn comes. Nothing is lost by waiting, and nobody counts as dead for it.

use super::event::{Event, LookupId};
use super::flows::Priority;
use super::lookup::Lookup;
use super::node::{Node, Sent};
use super::queries::Purpose;
use crate::base::Instant;
use crate::base::time::soonest;
use crate::wire::krpc::Method;

impl Node {
    /// A lookup wanted a query sent. True if it has to wait now.
    pub(super) fn waits_after(
        &mut self,
        now: Instant,
        id: LookupId,
        lookup: &mut Lookup,
        sent: Sent,
    ) -> bool {
        match sent {
            Sent::Yes { bytes, opens_flow } => lookup.on_sent(now, bytes, opens_flow),
            Sent::Never => {}
            Sent::Full => self.line.starve(id),
            Sent::NoBudget => {
                if self.line.wait(lookup.priority, id) {
                    self.stats.flows.deferred += 1;
                }
                lookup.on_held_back(now);
            }
            Sent::TooSoon(until) => {
                if self.line.delay(until, id) {
                    self.stats.flows.paced += 1;
                }
                lookup.on_held_back(now);
            }
        }
        !matches!(sent, Sent::Yes { .. } | Sent::Never)
    }

    /// Whoever can go on now goes on.
    pub(super) fn feed_waiting(&mut self, now: Instant) {
        for id in self.line.take_hungry() {
            self.pump(now, id);
        }
        while let Some(id) = self.line.pop_delayed(now) {
            self.pump(now, id);
        }
        self.send_waiting_pings(now);
        // Each turn spends some of the budget or is the lookup's last in this round.
        while let Some(next) = self.line.next()
            && self.flows.has_room(now, next.0)
        {
            self.line.pop(next);
            self.pump(now, next.1);
        }
    }

    fn send_waiting_pings(&mut self, now: Instant) {
        while let Some((ping, to)) = self.line.next_ping() {
            match self.ask(now, Priority::Interactive, to, None, Purpose::Ping(ping), &Method::Ping)
            {
                Sent::Yes { .. } => {}
                Sent::Never => self.emit(Event::PingDone { ping, id: None, rtt: None }),
                Sent::Full | Sent::NoBudget | Sent::TooSoon(_) => return,
            }
            self.line.pop_ping();
        }
    }

    /// When somebody who waits can go on, if time alone decides that.
    pub(super) fn waiting_until(&self) -> Option<Instant> {
        // Where an endpoint has enough of our queries, their end decides, not time.
        let ping = self.line.next_ping().filter(|(_, to)| self.queries.has_room(to));
        let ping = ping.map(|_| Priority::Interactive);
        let lookup = self.line.next().map(|(priority, _)| priority);
        // The more urgent comes first in both orders.
        let budget = ping.or(lookup).map(|priority| self.flows.ready_at(priority));
        soonest(self.line.delayed_until(), budget)
    }
}
