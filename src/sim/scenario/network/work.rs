//! What hosts do for their users: some announce hashes and do so again and again, others look them
//! up; and what came of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::run::{Plan, Run};
use crate::base::{InfoHash, Instant, Rng};
use crate::dht::{LookupId, LookupReport};
use crate::sim::HostId;

/// All announces and lookups.
#[derive(Debug)]
pub(super) struct Work {
    hashes: Vec<InfoHash>,
    slots: Vec<Slot>,
    searches: BTreeMap<(HostId, LookupId), Search>,
}

// One announcer of one hash. When it goes somebody else takes its place.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: usize,
    host: Option<HostId>,
    // How often somebody was appointed.
    turn: u32,
    lookup: Option<LookupId>,
    // It has been announced: from now on it should be found.
    is_announced: bool,
}

// A lookup under way.
#[derive(Debug)]
struct Search {
    began: Instant,
    is_cold: bool,
    // Whom it could find: address, announce, host.
    wanted: Vec<Wanted>,
    first: Option<Duration>,
}

#[derive(Debug)]
struct Wanted {
    ip: IpAddr,
    slot: usize,
    host: HostId,
    is_found: bool,
}

impl Work {
    /// Hashes, each with its announcers to be.
    pub fn new(hashes: u32, rng: &mut Rng) -> Self {
        let mut work = Self { hashes: Vec::new(), slots: Vec::new(), searches: BTreeMap::new() };
        for hash in 0..hashes as usize {
            work.hashes.push(InfoHash::new(rng.array()));
            for _ in 0..=rng.below(ANNOUNCERS_MAX) {
                let (host, lookup) = (None, None);
                work.slots.push(Slot { hash, host, turn: 0, lookup, is_announced: false });
            }
        }
        work
    }

    /// One of the hashes.
    pub fn hash(&self, number: usize) -> InfoHash {
        self.hashes[number]
    }

    // Announcers of a hash that a lookup by `asker` should find.
    fn wanted(&self, hash: usize, asker: HostId) -> impl Iterator<Item = (usize, HostId)> + '_ {
        let slots = self.slots.iter().enumerate();
        let good = slots.filter(move |(_, slot)| slot.hash == hash && slot.is_announced);
        good.filter_map(move |(at, slot)| Some((at, slot.host.filter(|host| *host != asker)?)))
    }
}

impl Run {
    /// Every announce gets somebody who makes it.
    pub(super) fn appoint_all(&mut self) {
        (0..self.work.slots.len()).for_each(|slot| self.appoint(slot));
    }

    /// Somebody else makes the announce from now on.
    pub(super) fn appoint(&mut self, slot: usize) {
        let hash = self.work.slots[slot].hash;
        let taken: Vec<HostId> = {
            let same = self.work.slots.iter().filter(|s| s.hash == hash);
            same.filter_map(|s| s.host).collect()
        };
        let host = (0..DRAWS_MAX).find_map(|_| self.somebody().filter(|h| !taken.contains(h)));
        let turn = self.work.slots[slot].turn + 1;
        self.work.slots[slot] = Slot { hash, host, turn, lookup: None, is_announced: false };
        if let Some(host) = host {
            self.person(host).slots.push(slot);
        }
        let soon = APPOINTED_WITHIN.mul_f64(self.rng.unit());
        self.plans.plan(self.world.now() + soon, Plan::Announce { slot, turn });
    }

    pub(super) fn announce(&mut self, slot: usize, turn: u32) {
        let Slot { hash, host, turn: current, .. } = self.work.slots[slot];
        if turn != current {
            return;
        }
        let Some(host) = host else { return self.appoint(slot) };
        let hash = self.work.hashes[hash];
        let port = Some(self.world.addr(host).port());
        let lookup =
            self.world.command(host, |citizen, now| citizen.node_mut().announce(now, hash, port));
        self.work.slots[slot].lookup = lookup;
        let pause = ANNOUNCE_AGAIN + ANNOUNCE_JITTER.mul_f64(self.rng.unit());
        self.plans.plan(self.world.now() + pause, Plan::Announce { slot, turn });
    }

    /// Somebody looks some hash up.
    pub(super) fn look_up(&mut self) {
        if let Some(host) = self.somebody() {
            self.search(host, false);
        }
    }

    /// A newcomer does.
    pub(super) fn look_up_cold(&mut self, host: HostId) {
        if self.world.core(host).is_some_and(super::citizen::Citizen::is_honest) {
            self.search(host, true);
        }
    }

    fn search(&mut self, host: HostId, is_cold: bool) {
        for _ in 0..DRAWS_MAX {
            let hash = self.rng.below(self.work.hashes.len());
            let wanted: Vec<_> = self.work.wanted(hash, host).collect();
            if wanted.is_empty() {
                continue;
            }
            let wanted = wanted.into_iter().map(|(slot, host)| Wanted {
                ip: self.world.addr(host).ip(),
                slot,
                host,
                is_found: false,
            });
            let search =
                Search { began: self.world.now(), is_cold, wanted: wanted.collect(), first: None };
            let hash = self.work.hashes[hash];
            let lookup =
                self.world.command(host, |citizen, now| citizen.node_mut().get_peers(now, hash));
            if let Some(lookup) = lookup {
                self.work.searches.insert((host, lookup), search);
            }
            return;
        }
    }

    pub(super) fn on_peers(
        &mut self,
        at: Instant,
        host: HostId,
        lookup: LookupId,
        peers: &[SocketAddr],
    ) {
        let Some(search) = self.work.searches.get_mut(&(host, lookup)) else { return };
        for wanted in &mut search.wanted {
            if peers.iter().any(|peer| peer.ip() == wanted.ip) {
                wanted.is_found = true;
                search.first.get_or_insert(at.since(search.began));
            }
        }
    }

    pub(super) fn on_done(&mut self, host: HostId, lookup: LookupId, report: &LookupReport) {
        if let Some(search) = self.work.searches.remove(&(host, lookup)) {
            return self.count(&search, report);
        }
        let slots = &self.people[host.0 as usize].slots;
        let slot = slots.iter().find(|slot| self.work.slots[**slot].lookup == Some(lookup));
        if let Some(slot) = slot.copied() {
            self.row.announces += 1;
            self.row.takers += report.announced;
            self.work.slots[slot].lookup = None;
            self.work.slots[slot].is_announced |= report.announced > 0;
        }
    }

    /// What a host was looking for when it was switched off is nobody's loss.
    pub(super) fn forget_searches(&mut self, host: HostId) {
        let of_host = (host, LookupId(0))..=(host, LookupId(u64::MAX));
        let gone: Vec<_> = self.work.searches.range(of_host).map(|(key, _)| *key).collect();
        for key in gone {
            self.work.searches.remove(&key);
        }
    }

    fn count(&mut self, search: &Search, report: &LookupReport) {
        // Who went meanwhile need not be found.
        let still = |w: &&Wanted| self.work.slots[w.slot].host == Some(w.host);
        let wanted = search.wanted.iter().filter(still).count();
        if wanted == 0 {
            return;
        }
        let row = &mut self.row;
        if search.is_cold {
            row.cold += 1;
            row.cold_found += usize::from(search.first.is_some());
            search.first.into_iter().for_each(|first| row.cold_first.push(first));
            return;
        }
        row.lookups += 1;
        row.found += usize::from(search.first.is_some());
        row.wanted += wanted;
        row.recalled += search.wanted.iter().filter(still).filter(|w| w.is_found).count();
        search.first.into_iter().for_each(|first| row.first.push(first));
        row.end.push(report.took);
        row.queries += report.queries;
        row.asked += report.asked;
        row.dead += report.dead;
    }
}

/// Hosts that announce the same hash: one to so many, evenly distributed.
pub(super) const ANNOUNCERS_MAX: usize = 8;
/// As clients do.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(15 * 60);
const ANNOUNCE_JITTER: Duration = Duration::from_secs(30);
/// Somebody who begins to share does so within this time.
const APPOINTED_WITHIN: Duration = Duration::from_secs(60);
const DRAWS_MAX: usize = 100;
