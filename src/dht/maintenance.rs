//! What a node does on its own account: gets into the network, keeps its contacts fresh, and
//! comes back by itself after the network was away.
//!
//! While the local link looks dead nothing is expired: silence then says nothing about others. A
//! probe now and then notices the first answer, and everything is checked again at once.

use std::net::SocketAddr;
use std::time::Duration;

use super::bucket::K;
use super::event::{Event, LookupId, LookupKind, SavedContact};
use super::flows::Priority;
use super::node::{Node, Sent};
use super::queries::Purpose;
use crate::base::addr::{canonical, is_private};
use crate::base::bounded::TokenBucket;
use crate::base::{Instant, Key, NodeId};
use crate::wire::krpc::Method;

/// The plans of one node.
#[derive(Debug)]
pub(super) struct Maintenance {
    tick: Instant,
    routers: Vec<SocketAddr>,
    // Contacts of the last run that have not answered in this one.
    hints: Vec<Hint>,
    own_lookup: Option<LookupId>,
    self_lookup: Backoff,
    next_refresh: Instant,
    need: Backoff,
    checks: TokenBucket,
    // Strangers that asked us something and wait to be pinged.
    queriers: Vec<(NodeId, SocketAddr)>,
    link: Link,
    told: usize,
}

#[derive(Debug)]
struct Hint {
    contact: SavedContact,
    tried: bool,
}

// A thing to do again and again, ever more rarely.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    next: Instant,
    pause: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    fn new(next: Instant, first: Duration, longest: Duration) -> Self {
        Self { next, pause: first, first, longest }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    fn done(&mut self, now: Instant) {
        self.done_within(now, self.longest);
    }

    // The same, where something may be gained by trying more often.
    fn done_within(&mut self, now: Instant, longest: Duration) {
        self.pause = self.pause.min(longest);
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(longest);
    }

    fn again_from(&mut self, next: Instant) {
        self.next = next;
        self.pause = self.first;
    }
}

// Is anything of ours answered at all?
#[derive(Debug)]
struct Link {
    last_answer: Instant,
    silent: u32,
    dead_since: Option<Instant>,
}

impl Maintenance {
    pub fn new(now: Instant) -> Self {
        Self {
            tick: now,
            routers: Vec::new(),
            hints: Vec::new(),
            own_lookup: None,
            self_lookup: Backoff::new(now, REJOIN_FIRST, REJOIN_LONGEST),
            next_refresh: now,
            need: Backoff::new(now, NEED_FIRST, NEED_LONGEST),
            checks: TokenBucket::full(CHECKS_BURST, now),
            queriers: Vec::new(),
            link: Link { last_answer: now, silent: 0, dead_since: None },
            told: 0,
        }
    }

    pub fn poll_timeout(&self) -> Instant {
        self.tick
    }

    pub fn routers(&self) -> &[SocketAddr] {
        &self.routers
    }

    /// Contacts of the last run that have not answered yet.
    pub fn hints(&self) -> impl Iterator<Item = &SavedContact> {
        self.hints.iter().map(|hint| &hint.contact)
    }

    /// What the contact of the last run at this endpoint took to answer then.
    pub fn hinted_rtt(&self, addr: &SocketAddr) -> Option<Duration> {
        let contact = self.hints().find(|hint| hint.addr == *addr)?;
        contact.rtt_micros.map(|micros| Duration::from_micros(micros.into()))
    }

    /// Those of them that are closest to `target`.
    pub fn closest_hints(&self, target: Key) -> Vec<SavedContact> {
        let mut all: Vec<&SavedContact> = self.hints().collect();
        all.sort_by_key(|hint| target.distance(hint.id.key()));
        all.into_iter().take(HINTS_PER_LOOKUP).cloned().collect()
    }

    /// Our id changed: our neighbours are others now.
    pub fn on_id_changed(&mut self, now: Instant) {
        self.self_lookup.again_from(now);
        self.tick = now;
    }
}

impl Node {
    /// Our neighbours are to hear of us now.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.maintenance.self_lookup.again_from(now);
    }

    /// Is nothing of ours answered at all?
    pub(super) fn is_link_dead(&self) -> bool {
        self.maintenance.link.dead_since.is_some()
    }

    /// Bootstrap nodes: asked at once, by the lookups under way too, and again whenever nobody else
    /// answers.
    pub fn bootstrap(&mut self, now: Instant, routers: &[SocketAddr]) {
        let mut all: Vec<SocketAddr> = Vec::new();
        let known = std::mem::take(&mut self.maintenance.routers);
        for addr in routers.iter().copied().map(canonical).chain(known) {
            if self.may_send(&addr) && !all.contains(&addr) && all.len() < ROUTERS_MAX {
                all.push(addr);
            }
        }
        self.maintenance.routers = all;
        self.start_joining(now);
        // Names have addresses again: perhaps the network is back, and one answer tells.
        if self.maintenance.link.dead_since.is_some() {
            self.probe_routers(now);
        }
    }

    /// Contacts of the last run. They are asked at once, and believed when they answer.
    pub fn restore(&mut self, now: Instant, saved: &[SavedContact]) {
        for contact in saved {
            let known = self.maintenance.hints().any(|h| h.addr == contact.addr);
            let usable = self.may_send(&contact.addr) && contact.id != self.id;
            if usable && !known && self.maintenance.hints.len() < HINTS_MAX {
                self.maintenance.hints.push(Hint { contact: contact.clone(), tried: false });
            }
        }
        self.start_joining(now);
    }

    /// Somebody says that a node is at `addr`: it is pinged, and asked by lookups that know too few.
    pub fn add_contact(&mut self, now: Instant, addr: SocketAddr) {
        let addr = canonical(addr);
        if !self.may_send(&addr) || self.queries.is_asking(&addr) {
            return;
        }
        if self.table.len() < K {
            self.offer_seed(now, addr);
        }
        self.check(now, addr, None);
    }

    fn start_joining(&mut self, now: Instant) {
        let plans = &mut self.maintenance;
        plans.need.again_from(now + NEED_FIRST);
        if self.table.len() >= K {
            return;
        }
        plans.self_lookup.again_from(now);
        plans.tick = now;
        self.feed_all(now);
        self.maintain(now);
    }

    /// A ping for the table's sake, within the budget for such pings.
    fn check(&mut self, now: Instant, addr: SocketAddr, id: Option<NodeId>) {
        if self.queries.is_asking(&addr) || self.unreachable.has(now, &addr) {
            return;
        }
        if self.maintenance.checks.admit(now, CHECKS_RATE, CHECKS_BURST) {
            self.ask(now, Priority::Upkeep, addr, id, Purpose::Check, &Method::Ping);
        }
    }

    /// A contact that was `id` is somebody else: an attack on that part of the table, perhaps.
    pub(super) fn doubt_neighbours(&mut self, now: Instant, id: NodeId) {
        for (id, addr) in self.table.unheard_beside(now, id) {
            self.check(now, addr, Some(id));
        }
    }

    /// `id` at `from` asked us something. If it would be of use it is pinged: a source address can
    /// be forged, an answer to four random bytes cannot. Not at once: one datagram in, one out.
    pub(super) fn consider_querier(&mut self, now: Instant, id: NodeId, from: SocketAddr) {
        let waiting = &self.maintenance.queriers;
        if waiting.len() < QUERIERS_MAX
            && !waiting.iter().any(|(_, addr)| *addr == from)
            && self.table.wants(now, id, &from)
            && !self.is_public_router(&from)
        {
            self.maintenance.queriers.push((id, from));
            self.maintenance.tick = self.maintenance.tick.min(now + CHECK_DELAY);
        }
    }

    fn check_queriers(&mut self, now: Instant) {
        for (id, addr) in std::mem::take(&mut self.maintenance.queriers) {
            if self.table.wants(now, id, &addr) {
                // It opened the way itself.
                self.flows.note(now, addr);
                self.check(now, addr, Some(id));
            }
        }
    }

    /// Everybody asks the bootstrap nodes; they need not be in everybody's table as well.
    pub(super) fn is_public_router(&self, addr: &SocketAddr) -> bool {
        !is_private(addr.ip()) && self.maintenance.routers.contains(addr)
    }

    /// A contact is new in the table.
    pub(super) fn on_contact_added(&mut self, now: Instant, id: NodeId, addr: SocketAddr) {
        let hints = &mut self.maintenance.hints;
        if let Some(at) = hints.iter().position(|h| h.contact.addr == addr) {
            let hint = hints.swap_remove(at);
            if hint.contact.id == id {
                self.table.remember(&addr, &hint.contact);
            }
        }
        let contacts = self.table.len();
        if contacts <= K {
            self.feed_all(now);
        }
        let level = TELL_AT.iter().filter(|level| **level <= contacts).count();
        if level > self.maintenance.told {
            self.maintenance.told = level;
            self.maintenance.tick = self.maintenance.tick.min(now);
            self.emit(Event::TableGrew { contacts });
        }
    }

    pub(super) fn on_own_lookup_done(&mut self, now: Instant, id: LookupId) {
        let plans = &mut self.maintenance;
        if plans.own_lookup == Some(id) {
            plans.own_lookup = None;
            plans.next_refresh = now + REFRESH_PAUSE;
            plans.tick = plans.tick.min(now + REFRESH_PAUSE);
        }
    }

    /// A query of ours was answered. Queries of others prove nothing: they come in as well where
    /// nothing of ours gets out.
    pub(super) fn on_answer(&mut self, now: Instant) {
        let link = &mut self.maintenance.link;
        let silence = now.since(link.last_answer);
        link.last_answer = now;
        link.silent = 0;
        // After a short silence it was a false alarm: a few dead contacts in a quiet hour.
        if let Some(since) = link.dead_since.take()
            && silence >= OUTAGE_MIN
        {
            self.on_network_back(now, now.since(since));
        }
    }

    /// Has anybody answered since then?
    pub(super) fn was_heard_since(&self, then: Instant) -> bool {
        self.maintenance.link.last_answer > then
    }

    /// A query of that time was never answered: is it our own link that is dead?
    pub(super) fn is_link_dead_after(&mut self, now: Instant, sent: Instant) -> bool {
        let link = &mut self.maintenance.link;
        if link.last_answer > sent {
            return false;
        }
        link.silent = link.silent.saturating_add(1);
        if link.silent >= SILENT_QUERIES_MAX && link.dead_since.is_none() {
            link.dead_since = Some(now);
            self.stats.link_losses += 1;
            self.maintenance.need.again_from(now);
            self.maintenance.tick = now;
        }
        self.maintenance.link.dead_since.is_some()
    }

    // The table is what it was; the closest of it are asked first whether they are still there.
    fn on_network_back(&mut self, now: Instant, away: Duration) {
        self.unreachable.clear();
        if away >= MOVED_MIN {
            self.doubt_reachability(now);
        }
        let mut near = std::mem::take(&mut self.near);
        self.table.closest(self.id.key(), RECHECKED, |_| true, &mut near);
        for contact in near.drain(..) {
            if !self.queries.is_asking(&contact.addr) {
                self.recheck(now, contact.id, contact.addr);
            }
        }
        self.near = near;
        self.maintenance.self_lookup.again_from(now);
        self.maintenance.tick = now;
        let contacts = self.table.len();
        if contacts > 0 {
            self.emit(Event::TableGrew { contacts });
        }
        self.feed_all(now);
    }

    /// If nobody called for long the machine slept, and what was under way says nothing.
    pub(super) fn notice_sleep(&mut self, now: Instant) {
        let asleep = now.since(self.maintenance.tick);
        if asleep < SLEEP_MIN {
            return;
        }
        for pending in self.queries.clear() {
            match pending.purpose {
                Purpose::Lookup(lookup) => self.on_lookup_dead(now, lookup, &pending.to),
                Purpose::Announce(lookup) => self.on_announce_lost(now, lookup, &pending.to),
                Purpose::Ping(ping) => self.emit(Event::PingDone { ping, id: None, rtt: None }),
                Purpose::Check => {}
            }
        }
        self.on_network_back(now, asleep);
    }

    /// Does what is due.
    pub(super) fn maintain(&mut self, now: Instant) {
        if now < self.maintenance.tick {
            return;
        }
        if self.maintenance.link.dead_since.is_some() {
            // Whoever has just asked us is likely to hear us.
            self.check_queriers(now);
            self.probe(now);
        } else {
            self.try_hints(now);
            self.check_queriers(now);
            self.keep_contacts(now);
            self.keep_looking(now);
            self.survey(now);
        }
        self.call_for_help(now);
        self.judge_reachability(now);
        self.server.peers.sweep(now);
        self.server.items.sweep(now);
        self.maintenance.tick = self.next_tick(now);
    }

    fn next_tick(&self, now: Instant) -> Instant {
        let plans = &self.maintenance;
        if let Some(since) = plans.link.dead_since {
            let fresh = now.since(since) < PROBE_OFTEN;
            return now + if fresh { TICK_BUSY } else { TICK };
        }
        let joining = self.table.len() < K || plans.hints.iter().any(|h| !h.tried);
        let filling = plans.own_lookup.is_none() && plans.next_refresh > now;
        let busy = if filling { plans.next_refresh } else { now + TICK_BUSY };
        if joining || filling { busy.min(now + TICK_BUSY) } else { now + TICK }
    }

    // A few packets a second, to whoever is likely to answer, until one does.
    fn probe(&mut self, now: Instant) {
        let at = self.rng.below(self.table.len());
        let any = self.table.contacts().nth(at);
        let latest = self.table.contacts().max_by_key(|c| c.replied);
        let contacts: Vec<_> = any.into_iter().chain(latest).map(|c| (c.id, c.addr())).collect();
        for (id, addr) in contacts {
            self.recheck(now, id, addr);
        }
        let router = self.rng.pick(&self.maintenance.routers).copied();
        let at = self.rng.below(self.maintenance.hints.len());
        let hint = self.maintenance.hints.get(at).map(|h| h.contact.addr);
        for addr in router.into_iter().chain(hint) {
            self.ask(now, Priority::Upkeep, addr, None, Purpose::Check, &Method::Ping);
        }
    }

    fn probe_routers(&mut self, now: Instant) {
        let routers = std::mem::take(&mut self.maintenance.routers);
        for addr in &routers {
            if !self.queries.is_asking(addr) {
                self.ask(now, Priority::Upkeep, *addr, None, Purpose::Check, &Method::Ping);
            }
        }
        self.maintenance.routers = routers;
    }

    fn try_hints(&mut self, now: Instant) {
        let untried: Vec<(usize, NodeId, SocketAddr)> = self
            .maintenance
            .hints
            .iter()
            .enumerate()
            .filter(|(_, hint)| !hint.tried)
            .take(HINTS_PER_TICK)
            .map(|(at, hint)| (at, hint.contact.id, hint.contact.addr))
            .collect();
        for (at, id, addr) in untried {
            if !self.queries.is_asking(&addr)
                && matches!(self.recheck(now, id, addr), Sent::NoBudget | Sent::Full)
            {
                return;
            }
            self.maintenance.hints[at].tried = true;
        }
    }

    fn keep_contacts(&mut self, now: Instant) {
        for _ in 0..PINGS_PER_TICK {
            let asking = |addr: &SocketAddr| self.queries.is_asking(addr);
            let Some((id, addr)) = self.table.overdue(now, asking) else { return };
            if !matches!(self.recheck(now, id, addr), Sent::Yes { .. }) {
                return;
            }
        }
    }

    // One lookup at a time: for ourselves first, then for each part of the key space that is stale.
    fn keep_looking(&mut self, now: Instant) {
        if self.maintenance.own_lookup.is_some() {
            return;
        }
        let nobody = self.table.len() == 0
            && self.maintenance.routers.is_empty()
            && self.maintenance.hints.is_empty();
        if nobody {
            return;
        }
        let target = if self.maintenance.self_lookup.is_due(now) {
            self.maintenance.self_lookup.done(now);
            if self.table.len() >= K {
                self.maintenance.self_lookup.again_from(now + SELF_LOOKUP);
            }
            self.id.key()
        } else if now >= self.maintenance.next_refresh
            && self.table.len() >= K
            && let Some(key) = self.table.stale_bucket(now, &mut self.rng)
        {
            key
        } else {
            return;
        };
        // Named before it starts: it may be over before `start_lookup` returns.
        self.maintenance.own_lookup = Some(LookupId(self.next_name + 1));
        let id = self.start_lookup(now, LookupKind::FindNode, target, true);
        debug_assert!(self.maintenance.own_lookup.is_none_or(|own| own == id));
    }

    fn call_for_help(&mut self, now: Instant) {
        let knows_nobody = self.table.len() == 0;
        let alone = knows_nobody || self.maintenance.link.dead_since.is_some();
        let longest = match knows_nobody {
            // Not even an address to ask: the names were never resolved. We started before the
            // network, and only asking again tells when it is there.
            true if self.maintenance.routers.is_empty() => NEED_NAMES_LONGEST,
            true => NEED_ALONE_LONGEST,
            false => NEED_LONGEST,
        };
        let need = &mut self.maintenance.need;
        if !alone {
            need.again_from(now + NEED_FIRST);
        } else if need.is_due(now) {
            need.done_within(now, longest);
            self.maintenance.told = 0;
            self.emit(Event::NeedBootstrap);
        }
    }
}

// The table is worth telling of when it has anybody, enough for a lookup, and enough for a good one.
const TELL_AT: [usize; 4] = [1, K, 32, 128];
/// Bootstrap nodes remembered: eight names with a few addresses each.
const ROUTERS_MAX: usize = 32;
/// Contacts of the last run: a full table and some.
const HINTS_MAX: usize = 512;
const HINTS_PER_LOOKUP: usize = 16;
// With a tick a second: new flows that a home router bears, and 300 contacts checked in 10 s.
const HINTS_PER_TICK: usize = 32;
// With a tick in five seconds: 300 contacts in 12 minutes.
const PINGS_PER_TICK: usize = 3;
const TICK: Duration = Duration::from_secs(5);
const TICK_BUSY: Duration = Duration::from_secs(1);
// Between lookups for stale parts of the key space.
const REFRESH_PAUSE: Duration = Duration::from_millis(500);
const SELF_LOOKUP: Duration = Duration::from_secs(30 * 60);
const REJOIN_FIRST: Duration = Duration::from_secs(2);
const REJOIN_LONGEST: Duration = Duration::from_secs(30);
const NEED_FIRST: Duration = Duration::from_secs(3);
// With contacts, probes notice the network first.
const NEED_LONGEST: Duration = Duration::from_secs(300);
// Bootstrap nodes that never answered may have moved, or what named them was a hotel's portal.
const NEED_ALONE_LONGEST: Duration = Duration::from_secs(60);
const NEED_NAMES_LONGEST: Duration = Duration::from_secs(15);
// Pings to strangers who asked us something. Each costs the (perhaps forged) source one datagram.
const CHECKS_RATE: u32 = 32;
const CHECKS_BURST: u32 = 128;
const CHECK_DELAY: Duration = Duration::from_millis(250);
/// Strangers that wait for such a ping; the rest may ask again.
const QUERIERS_MAX: usize = 128;
// So many queries without an answer from anybody: it is not them.
const SILENT_QUERIES_MAX: u32 = 8;
const OUTAGE_MIN: Duration = Duration::from_secs(30);
// After so long it may be another network, and what a NAT knew of us is gone.
const MOVED_MIN: Duration = Duration::from_secs(5 * 60);
const PROBE_OFTEN: Duration = Duration::from_secs(120);
const RECHECKED: usize = 16;
// Later than this after a planned wake-up is not a busy machine but a sleeping one.
const SLEEP_MIN: Duration = Duration::from_secs(30);
