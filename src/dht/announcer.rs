//! Keeps torrents announced, by the thousand: each is announced anew before the nodes that hold its
//! announce forget it, one after the other in the order of their hashes, so that neighbours share what
//! is known of the nodes around them.
//!
//! The renewals are spread evenly over the interval, and wait behind everything that somebody waits
//! for. Where the budget of new flows is too small for the usual interval, the interval grows, up to what
//! the most impatient stores keep; where even that is not enough, as many as can be are renewed, the
//! oldest first, and [`Announcing::is_behind`] says so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::event::{Announcement, Announcing, Event, LookupCost, LookupId, LookupKind};
use super::flows::Priority;
use super::lookup::Lookup;
use super::node::Node;
use crate::base::{InfoHash, Instant};

/// The torrents that are kept announced.
#[derive(Debug)]
pub(super) struct Announcer {
    kept: BTreeMap<InfoHash, Kept>,
    // Those that no lookup is under way for, by when the last one was over.
    idle: BTreeSet<(Instant, InfoHash)>,
    // Nobody took them the last time.
    failed: BTreeSet<(Instant, InfoHash)>,
    // Lookups that announce one of them, and how many of these are renewals.
    lookups: BTreeMap<LookupId, (InfoHash, Why)>,
    renewing: usize,
    // Where the round through the hashes has come to, and when its next step is due.
    at: Option<InfoHash>,
    next: Instant,
    rate: Option<u32>,
    // What one renewal takes, as a mean over the last ones.
    flows: f64,
    queries: f64,
    totals: Totals,
}

#[derive(Debug)]
struct Kept {
    how: Announcement,
    // When nodes last took it.
    announced: Option<Instant>,
    // Its place in `idle` and, if it failed, in `failed`; none while a lookup is under way.
    tried: Option<Instant>,
    // How many are.
    busy: u32,
}

// Who wanted a lookup that announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Ordered,
    Renewal,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    renewals: u64,
    failures: u64,
    queries: u64,
    flows: u64,
}

impl Announcer {
    /// For a node that may open so many new flows a second.
    pub fn new(rate: Option<u32>) -> Self {
        Self {
            kept: BTreeMap::new(),
            idle: BTreeSet::new(),
            failed: BTreeSet::new(),
            lookups: BTreeMap::new(),
            renewing: 0,
            at: None,
            next: Instant::ZERO,
            rate,
            flows: FLOWS_AT_FIRST,
            queries: QUERIES_AT_FIRST,
            totals: Totals::default(),
        }
    }

    /// A lookup is about to announce a torrent that is to be kept announced. False if too many are.
    fn keep(&mut self, now: Instant, hash: InfoHash, how: Announcement, lookup: LookupId) -> bool {
        if self.kept.len() >= KEPT_MAX && !self.kept.contains_key(&hash) {
            return false;
        }
        let (announced, busy) = self.kept.get(&hash).map_or((None, 0), |k| (k.announced, k.busy));
        self.rest(hash, None);
        self.kept.insert(hash, Kept { how, announced, tried: None, busy: busy + 1 });
        self.lookups.insert(lookup, (hash, Why::Ordered));
        if self.kept.len() == 1 {
            self.next = now + self.interval();
        }
        self.next = self.next.min(now + self.step());
        true
    }

    // When the last lookup for it was over; `None` while one is under way.
    fn rest(&mut self, hash: InfoHash, since: Option<Instant>) {
        let Some(kept) = self.kept.get_mut(&hash) else { return };
        if let Some(before) = std::mem::replace(&mut kept.tried, since) {
            self.idle.remove(&(before, hash));
            self.failed.remove(&(before, hash));
        }
        if let Some(since) = since {
            self.idle.insert((since, hash));
        }
    }

    /// Is it kept announced?
    pub fn has(&self, hash: InfoHash) -> bool {
        self.kept.contains_key(&hash)
    }

    fn forget(&mut self, hash: InfoHash) -> bool {
        self.rest(hash, None);
        self.kept.remove(&hash).is_some()
    }

    // A lookup that announces is over: nodes took it, or nobody did. True if it was a renewal.
    fn on_over(
        &mut self,
        now: Instant,
        lookup: LookupId,
        hash: InfoHash,
        taken: usize,
        cost: LookupCost,
    ) -> bool {
        let why = self.lookups.remove(&lookup).map(|(_, why)| why);
        let is_renewal = why == Some(Why::Renewal);
        self.renewing -= usize::from(is_renewal);
        if is_renewal {
            self.note_cost(taken, cost);
        }
        let Some(kept) = self.kept.get_mut(&hash) else { return is_renewal };
        kept.busy = kept.busy.saturating_sub(u32::from(why.is_some()));
        if taken > 0 {
            kept.announced = Some(now);
        }
        if kept.busy == 0 && (taken > 0 || why.is_some()) {
            self.rest(hash, Some(now));
            if taken == 0 {
                self.failed.insert((now, hash));
            }
        }
        is_renewal
    }

    fn note_cost(&mut self, taken: usize, cost: LookupCost) {
        let (queries, flows) = (cost.queries, cost.flows);
        self.totals.renewals += 1;
        self.totals.failures += u64::from(taken == 0);
        self.totals.queries += queries as u64;
        self.totals.flows += flows as u64;
        if taken > 0 {
            self.queries += (queries as f64 - self.queries) / MEAN_OVER;
            self.flows += (flows as f64 - self.flows) / MEAN_OVER;
        }
    }

    // The time in which all are renewed once: the usual one, if the greater part of the budget is enough
    // for that.
    fn interval(&self) -> Duration {
        let Some(rate) = self.rate else { return INTERVAL_MIN };
        let needed = self.kept.len() as f64 * self.flows / (f64::from(rate) * BUDGET_SHARE);
        Duration::from_secs_f64(needed).clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    fn step(&self) -> Duration {
        let count = u32::try_from(self.kept.len().max(1)).unwrap_or(u32::MAX);
        self.interval() / count
    }

    // One that has to go at once: the oldest failure whose pause is over, or one that is too old.
    fn overdue(&self, now: Instant) -> Option<InfoHash> {
        let due = |set: &BTreeSet<(Instant, InfoHash)>, age: Duration| {
            set.first().filter(|(since, _)| now.since(*since) >= age).map(|(_, hash)| *hash)
        };
        due(&self.failed, RETRY).or_else(|| due(&self.idle, INTERVAL_MAX))
    }

    // Whose turn it is, if anybody's. A step of the round that comes to one that is fresh, or under way,
    // is lost.
    fn next_due(&mut self, now: Instant) -> Option<InfoHash> {
        if let Some(hash) = self.overdue(now) {
            return Some(hash);
        }
        while self.next <= now && !self.kept.is_empty() {
            let step = self.step();
            self.next = (self.next + step).max(Instant::from_micros(
                now.as_micros().saturating_sub(LAG_MAX.as_micros() as u64),
            ));
            let after = self.at.map(|at| self.kept.range((Excluded(at), Unbounded)).next());
            let (hash, kept) = after.flatten().or_else(|| self.kept.first_key_value())?;
            let hash = *hash;
            self.at = Some(hash);
            if let Some(tried) = kept.tried
                && !self.is_fresh(now.since(tried))
            {
                return Some(hash);
            }
        }
        None
    }

    // May it wait for the next round?
    fn is_fresh(&self, age: Duration) -> bool {
        let interval = self.interval();
        age < FRESH || (age < interval / 2 && age + interval <= INTERVAL_MAX)
    }

    // When there may be something to do, if nothing else happens.
    fn poll_timeout(&self) -> Option<Instant> {
        if self.kept.is_empty() || self.renewing >= RENEWALS_MAX {
            return None;
        }
        let failed = self.failed.first().map_or(Instant::FAR_FUTURE, |(since, _)| *since + RETRY);
        let old = self.idle.first().map_or(Instant::FAR_FUTURE, |(at, _)| *at + INTERVAL_MAX);
        Some(self.next.min(failed).min(old))
    }

    fn status(&self, now: Instant) -> Announcing {
        let ages = self.kept.values().filter_map(|kept| kept.announced).map(|at| now.since(at));
        let interval = self.interval();
        let oldest = ages.clone().max();
        let needed = self.kept.len() as f64 / INTERVAL_MAX.as_secs_f64() * self.flows;
        let per_second = self.kept.len() as f64 / interval.as_secs_f64();
        Announcing {
            torrents: self.kept.len(),
            held: ages.filter(|age| *age <= STORED_FOR).count(),
            interval,
            oldest,
            is_behind: oldest.is_some_and(|age| age > STORED_FOR)
                || self.rate.is_some_and(|rate| needed > f64::from(rate)),
            queries_each: self.queries,
            flows_each: self.flows,
            queries_per_second: per_second * self.queries,
            flows_per_second: per_second * self.flows,
            renewals: self.totals.renewals,
            failures: self.totals.failures,
            queries: self.totals.queries,
            flows: self.totals.flows,
        }
    }
}

impl Node {
    /// Keeps a torrent announced no longer; see [`Announcement::keep`]. The nodes that hold the announce
    /// forget it in their own time. False if it was not kept.
    pub fn stop_announcing(&mut self, info_hash: InfoHash) -> bool {
        self.announcer.forget(info_hash)
    }

    /// From its next announce on, a torrent that is kept announced is one that we have all of (BEP 33).
    pub fn announce_as_seed(&mut self, info_hash: InfoHash) {
        if let Some(kept) = self.announcer.kept.get_mut(&info_hash) {
            kept.how.seed = true;
        }
    }

    /// Is this torrent kept announced?
    pub fn is_announcing(&self, info_hash: InfoHash) -> bool {
        self.announcer.has(info_hash)
    }

    /// How it is with the torrents that are kept announced, and what that costs.
    pub fn announcing(&self, now: Instant) -> Announcing {
        self.announcer.status(now)
    }

    /// A lookup was ordered that announces.
    pub(super) fn on_announce_ordered(
        &mut self,
        now: Instant,
        id: LookupId,
        info_hash: InfoHash,
        how: Announcement,
    ) {
        if how.keep {
            self.announcer.keep(now, info_hash, how, id);
        }
    }

    /// A lookup is over, or not wanted any more: if it was to announce, its torrent is at rest. True if
    /// it was a renewal.
    pub(super) fn on_announce_over(
        &mut self,
        now: Instant,
        id: LookupId,
        kind: LookupKind,
        taken: usize,
        cost: LookupCost,
    ) -> bool {
        let LookupKind::Announce(info_hash) = kind else { return false };
        self.announcer.on_over(now, id, info_hash, taken, cost)
    }

    /// The same, for one that was cancelled.
    pub(super) fn on_announce_cancelled(&mut self, id: LookupId) {
        let Some((hash, why)) = self.announcer.lookups.remove(&id) else { return };
        self.announcer.renewing -= usize::from(why == Why::Renewal);
        let Some(kept) = self.announcer.kept.get_mut(&hash) else { return };
        kept.busy = kept.busy.saturating_sub(1);
        if kept.busy == 0 {
            // It counts as tried when time began: the next turn is its own.
            self.announcer.rest(hash, Some(Instant::ZERO));
        }
    }

    /// A renewal is over: the host hears of it, and of the peers that it met.
    pub(super) fn tell_renewed(&mut self, now: Instant, info_hash: InfoHash, lookup: &Lookup) {
        if self.announcer.has(info_hash) {
            let peers = lookup.peers().collect();
            self.emit(Event::Renewed { info_hash, peers, report: Box::new(lookup.report(now)) });
        }
    }

    /// Starts the renewals that are due, as many as there is room for.
    pub(super) fn renew_announces(&mut self, now: Instant) {
        while self.may_renew()
            && let Some(hash) = self.announcer.next_due(now)
        {
            let Some(kept) = self.announcer.kept.get_mut(&hash) else { return };
            kept.busy += 1;
            let Announcement { port, seed, .. } = kept.how;
            self.store_own(now, hash, port.unwrap_or_else(|| self.own_port()), seed);
            let id = LookupId(self.name());
            let mut lookup = Lookup::new(now, LookupKind::Announce(hash), hash.key(), true);
            (lookup.port, lookup.seed) = (port, seed);
            lookup.priority = Priority::Background;
            self.announcer.rest(hash, None);
            self.announcer.lookups.insert(id, (hash, Why::Renewal));
            self.announcer.renewing += 1;
            self.begin_lookup(now, id, lookup);
        }
    }

    // Whoever waits for the budget is to get it before another wants it too.
    fn may_renew(&self) -> bool {
        self.announcer.renewing < RENEWALS_MAX && !self.line.is_held_up(Priority::Background)
    }

    /// When to renew an announce next, if time alone decides that.
    pub(super) fn renewal_at(&self) -> Option<Instant> {
        self.announcer.poll_timeout().filter(|_| self.may_renew())
    }
}

/// Torrents kept announced: as many as an engine may have, at some 200 bytes.
const KEPT_MAX: usize = crate::base::limits::TORRENTS_MAX;
/// Renewals under way at once: seven a second, which the usual budget allows, take four seconds each if
/// somebody is silent.
const RENEWALS_MAX: usize = 32;
/// Nodes keep an announce for 15 minutes or more (BEP 5); a minute early allows for a slow lookup.
const INTERVAL_MIN: Duration = Duration::from_secs(14 * 60);
/// Those that are in use keep it for 30 minutes (libtorrent and those that follow it) to 45.
const STORED_FOR: Duration = Duration::from_secs(30 * 60);
/// The longest interval: two minutes before that, for those that have to wait for their turn.
const INTERVAL_MAX: Duration = Duration::from_secs(28 * 60);
/// No step of the round announces again what was announced just now.
const FRESH: Duration = Duration::from_secs(120);
/// Nobody took it: the network may be away.
const RETRY: Duration = Duration::from_secs(120);
/// After a pause the round makes up for so much time at once, and what is then too old goes first.
const LAG_MAX: Duration = Duration::from_secs(60);
/// Of the budget: the rest is for lookups that somebody waits for.
const BUDGET_SHARE: f64 = 0.8;
/// Until it is known what a renewal takes.
const FLOWS_AT_FIRST: f64 = 12.0;
const QUERIES_AT_FIRST: f64 = 24.0;
const MEAN_OVER: f64 = 64.0;

const _: () = assert!(INTERVAL_MAX.as_secs() < STORED_FOR.as_secs());
const _: () = assert!(INTERVAL_MIN.as_secs() * 2 <= INTERVAL_MAX.as_secs());

#[cfg(test)]
mod tests;
