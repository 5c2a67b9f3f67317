//! The torrents of one family, and who may have how much of the room for them.
//!
//! Announces belong to the nodes closest to a torrent, so honest ones come for torrents all around
//! us, ever fewer the closer: half as many for each more bit shared with our id. Who invents
//! torrents to crowd others out makes one such *level* fuller than it would be, and brings more of
//! them than others do. Therefore, when room is short, it is the fullest level that has to give, and
//! in it the torrent whose announcers have tried to store most. Where nobody is greedier than the
//! newcomer, those stay who are here.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::swarm::{Entry, Swarm, TICKS_GOOD_FOR};
use super::tally::{Tally, Whose};
use super::{HASHES_STORED_MAX, PEERS_PER_HASH_MAX, Peer, StoreError};
use crate::base::addr::is_private;
use crate::base::{Distance, InfoHash, Instant, Key, NodeId, Rng};

/// The peers of many torrents, with addresses of `N` bytes.
#[derive(Debug)]
pub struct Store<const N: usize> {
    own: Key,
    swarms: BTreeMap<Distance, Swarm<N>>,
    // The torrents that share so many leading bits with `own`.
    levels: Vec<Vec<Distance>>,
    // What each host and network has stored.
    tally: Tally,
    peers: usize,
    // Since the store is full: torrents that each network tried to bring, now and before.
    tried: [Tally; 2],
    tried_since: Instant,
    swept: Option<Distance>,
    used: Instant,
}

impl<const N: usize> Store<N> {
    pub(super) fn new(own: NodeId, now: Instant, rng: &mut Rng) -> Self {
        Self {
            own: own.key(),
            swarms: BTreeMap::new(),
            levels: Vec::new(),
            tally: Tally::new(rng),
            tried: [Tally::new(rng), Tally::new(rng)],
            tried_since: now,
            peers: 0,
            swept: None,
            used: now,
        }
    }

    pub(super) fn len(&self) -> (usize, usize) {
        (self.swarms.len(), self.peers)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let levels = self.levels.iter().map(|level| level.capacity() * size_of::<Distance>());
        // A node of the map is two thirds full.
        let map = self.swarms.len() * (size_of::<Distance>() + size_of::<Swarm<N>>()) * 3 / 2;
        let swarms = self.swarms.values().map(Swarm::heap_bytes);
        let tallies = self.tried.iter().map(Tally::heap_bytes).sum::<usize>();
        let tallies = tallies + self.tally.heap_bytes();
        map + swarms.sum::<usize>() + levels.sum::<usize>() + tallies
    }

    pub(super) fn set_own(&mut self, own: NodeId) {
        let old = std::mem::replace(&mut self.own, own.key());
        self.levels.clear();
        self.swept = None;
        for (distance, mut swarm) in std::mem::take(&mut self.swarms) {
            let distance = self.own.distance(as_key(old.distance(as_key(distance))));
            swarm.place = self.enlist(distance);
            self.swarms.insert(distance, swarm);
        }
    }

    pub(super) fn announce(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        info_hash: InfoHash,
        entry: Entry<N>,
    ) -> Result<(), StoreError> {
        let distance = self.own.distance(info_hash.key());
        self.expire(now, distance);
        let swarm = self.swarms.get_mut(&distance);
        let census = swarm.as_ref().map(|swarm| swarm.census(&entry)).unwrap_or_default();
        if let (Some(swarm), Some(at)) = (swarm, census.at) {
            swarm.refresh(at, entry);
            return Ok(());
        }
        let shares = Shares::of(&entry);
        if self.tally.count(Whose::Host(entry.host())) >= shares.host
            || self.tally.count(Whose::Network(entry.network())) >= shares.network
        {
            return Err(StoreError::AddressShare);
        }
        if census.same_host >= shares.swarm_host || census.same_network >= shares.swarm_network {
            return Err(StoreError::SwarmShare);
        }
        match self.swarms.get(&distance) {
            Some(swarm) if swarm.entries().len() >= PEERS_PER_HASH_MAX => {
                let victim = swarm.victim(now, rng, &entry).ok_or(StoreError::Full)?;
                self.remove_peer(distance, victim);
            }
            Some(_) => {}
            None => {
                if self.swarms.len() >= HASHES_STORED_MAX {
                    self.note_try(now, &entry);
                    let victim = self.victim(rng, distance, &entry).ok_or(StoreError::Full)?;
                    self.remove_torrent(victim);
                }
                let place = self.enlist(distance);
                self.swarms.insert(distance, Swarm::new(now, place));
            }
        }
        let swarm = self.swarms.get_mut(&distance).expect("it is there now");
        swarm.insert(rng, entry);
        self.count(&entry);
        Ok(())
    }

    /// The peers of a torrent, none of them expired; `None` if there are none.
    pub(super) fn peers(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
    ) -> Option<impl Iterator<Item = Peer>> {
        let distance = self.own.distance(info_hash.key());
        self.expire(now, distance);
        Some(self.swarms.get(&distance)?.entries().iter().map(Entry::peer))
    }

    /// The same in random order.
    pub(super) fn shuffled(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        info_hash: InfoHash,
    ) -> impl Iterator<Item = Peer> {
        let distance = self.own.distance(info_hash.key());
        self.expire(now, distance);
        self.swarms.get(&distance).map(|swarm| swarm.starting_anywhere(rng)).into_iter().flatten()
    }

    pub(super) fn sample_hashes(&self, rng: &mut Rng, count: usize) -> Vec<InfoHash> {
        let mut chosen = Vec::with_capacity(count.min(self.swarms.len()));
        for (seen, distance) in self.swarms.keys().enumerate() {
            let torrent = InfoHash::new(*self.own.distance(as_key(*distance)).as_bytes());
            if chosen.len() < count {
                chosen.push(torrent);
            } else if let Some(place) = chosen.get_mut(rng.below(seen + 1)) {
                *place = torrent;
            }
        }
        chosen
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let mut some = self.swarms.range((from, Bound::Unbounded)).map(|(distance, _)| *distance);
        let next: [Option<Distance>; SWEEP_HASHES] = std::array::from_fn(|_| some.next());
        self.swept = next[SWEEP_HASHES - 1];
        for distance in next.into_iter().flatten() {
            self.expire(now, distance);
        }
    }

    fn expire(&mut self, now: Instant, distance: Distance) {
        if now.since(std::mem::replace(&mut self.used, now)) >= TICKS_GOOD_FOR {
            self.clear();
        }
        let Some(swarm) = self.swarms.get_mut(&distance) else { return };
        let (tally, peers) = (&mut self.tally, &mut self.peers);
        swarm.expire(now, |entry| {
            whose(entry).for_each(|whose| tally.remove(whose));
            *peers -= 1;
        });
        if swarm.entries().is_empty() {
            self.remove_torrent(distance);
        }
    }

    // The machine slept for a day: nobody of then is still there.
    fn clear(&mut self) {
        self.swarms.clear();
        self.levels.clear();
        self.tally.reset(0);
        self.tried.iter_mut().for_each(|tally| tally.reset(0));
        self.peers = 0;
        self.swept = None;
    }

    // Which torrent has to leave for one at `distance` that `newcomer` announces.
    fn victim(&self, rng: &mut Rng, distance: Distance, newcomer: &Entry<N>) -> Option<Distance> {
        let size = |level: usize| self.levels.get(level).map_or(0, Vec::len);
        let own = level(distance);
        // Of the fullest the farthest, unless the newcomer's is as full as any.
        let fullest = (0..self.levels.len()).rev().max_by_key(|level| size(*level))?;
        let chosen = if size(own) >= size(fullest) { own } else { fullest };
        let level = &self.levels[chosen];
        let drawn = (0..CANDIDATES).filter_map(|_| level.get(rng.below(level.len())));
        let judged = drawn.map(|distance| (self.greed_for(distance), *distance));
        let (most, victim) = judged.max_by_key(|(greed, _)| *greed)?;
        // A level that is far from full takes from the fullest whoever it is; else it is greed that
        // counts, and a flood displaces itself.
        let is_thin = 2 * size(own) < size(chosen);
        (is_thin || most > self.greed(newcomer)).then_some(victim)
    }

    // That of the most modest of a torrent's announcers: one honest one protects it.
    fn greed_for(&self, distance: &Distance) -> usize {
        let entries = self.swarms.get(distance).map(Swarm::entries).unwrap_or_default();
        let some = entries.iter().take(ENTRIES_JUDGED);
        some.map(|entry| self.greed(entry)).min().unwrap_or(usize::MAX)
    }

    // What the network of this peer has stored, and tried to.
    fn greed(&self, entry: &Entry<N>) -> usize {
        let network = Whose::Network(entry.network());
        let tried: usize = self.tried.iter().map(|tally| tally.count(network)).sum();
        self.tally.count(network) + tried
    }

    fn note_try(&mut self, now: Instant, entry: &Entry<N>) {
        if now.since(self.tried_since) >= TRIES_KEPT_FOR || self.tried[0].is_empty() {
            self.tried_since = now;
            self.tried.swap(0, 1);
            self.tried[0].reset(TRIES_COUNTED);
        }
        self.tried[0].add(Whose::Network(entry.network()));
    }

    fn remove_peer(&mut self, distance: Distance, at: usize) {
        let Some(swarm) = self.swarms.get_mut(&distance) else { return };
        let entry = swarm.remove(at);
        whose(&entry).for_each(|whose| self.tally.remove(whose));
        self.peers -= 1;
    }

    fn remove_torrent(&mut self, distance: Distance) {
        let Some(swarm) = self.swarms.remove(&distance) else { return };
        for entry in swarm.entries() {
            whose(entry).for_each(|whose| self.tally.remove(whose));
            self.peers -= 1;
        }
        let level = &mut self.levels[level(distance)];
        let gone = level.swap_remove(swarm.place);
        assert_eq!(gone, distance, "a torrent stands where it says");
        if let Some(moved) = level.get(swarm.place) {
            self.swarms.get_mut(moved).expect("it is listed").place = swarm.place;
        }
    }

    // Puts a torrent into the list of its level, and tells where.
    fn enlist(&mut self, distance: Distance) -> usize {
        let level = level(distance);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        self.levels[level].push(distance);
        self.levels[level].len() - 1
    }

    fn count(&mut self, entry: &Entry<N>) {
        self.peers += 1;
        if !self.tally.is_small() {
            return whose(entry).for_each(|whose| self.tally.add(whose));
        }
        self.tally.reset(4 * self.peers);
        for entry in self.swarms.values().flat_map(|swarm| swarm.entries()) {
            whose(entry).for_each(|whose| self.tally.add(whose));
        }
    }
}

fn whose<const N: usize>(entry: &Entry<N>) -> impl Iterator<Item = Whose> {
    [Whose::Host(entry.host()), Whose::Network(entry.network())].into_iter()
}

fn level(distance: Distance) -> usize {
    usize::try_from(distance.leading_zeros()).expect("at most 160")
}

// XOR undoes itself: the distance from an id, seen as a key, leads back to the torrent.
fn as_key(distance: Distance) -> Key {
    Key::new(*distance.as_bytes())
}

// How much one host (an address, or a /64) and one network (a /24, or a /48) may take.
struct Shares {
    host: usize,
    network: usize,
    swarm_host: usize,
    swarm_network: usize,
}

impl Shares {
    // On a private network many peers share one address, and strangers cannot speak from it.
    fn of<const N: usize>(entry: &Entry<N>) -> Shares {
        if is_private(entry.ip()) {
            Shares { host: 4_000, network: 40_000, swarm_host: 200, swarm_network: 400 }
        } else {
            Shares { host: 500, network: 2_000, swarm_host: 3, swarm_network: 16 }
        }
    }
}

// With a sweep every few seconds the whole store is seen in some minutes.
const SWEEP_HASHES: usize = 32;
// Torrents looked at to find a greedy one, and announcers looked at of each.
const CANDIDATES: usize = 8;
const ENTRIES_JUDGED: usize = 4;
// What was tried counts for half an hour to an hour: longer than it pays to wait.
const TRIES_KEPT_FOR: Duration = Duration::from_secs(30 * 60);
// Twice 128 KiB, once the store is full.
const TRIES_COUNTED: usize = 1 << 17;
