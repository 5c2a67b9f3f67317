//! The peers that others announced to us (BEP 5), for 45 minutes each.
//!
//! Everything in it is grown by strangers, so everything has a limit: torrents, peers of a torrent,
//! and the share that one address or one network may take of either. Torrents are ordered by
//! distance to our id: announces belong to the nodes closest to a torrent, so when room is short the
//! farthest torrent is the one that an honest announcer would not have brought here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;

use crate::base::addr::{is_private, network, wide_network};
use crate::base::{Distance, InfoHash, Instant, Key, NodeId, Rng};
use crate::wire::bloom::Filter;

/// The peers of many torrents.
#[derive(Debug)]
pub struct PeerStore {
    own: Key,
    swarms: BTreeMap<Distance, Vec<Peer>>,
    by_ip: BTreeMap<IpAddr, u32>,
    peers: usize,
    swept: Option<Distance>,
}

/// A peer that announced itself.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Where it is reached.
    pub addr: SocketAddr,
    /// It has the whole torrent (BEP 33).
    pub seed: bool,
    seen: Instant,
}

/// Why an announce was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The address has its share of all entries.
    #[error("too many announces from this address")]
    AddressShare,
    /// The address or its network has its share of this torrent's peers.
    #[error("too many peers of this torrent from this network")]
    SwarmShare,
    /// Full of torrents that are closer to us.
    #[error("no room for this torrent")]
    Full,
}

impl PeerStore {
    /// An empty store of the node `own`.
    pub fn new(own: NodeId) -> Self {
        Self {
            own: own.key(),
            swarms: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            peers: 0,
            swept: None,
        }
    }

    /// Torrents and peers stored.
    pub fn len(&self) -> (usize, usize) {
        (self.swarms.len(), self.peers)
    }

    /// Our id changed, and with it the order.
    pub fn set_own(&mut self, own: NodeId) {
        let old = std::mem::replace(&mut self.own, own.key());
        let swarms = std::mem::take(&mut self.swarms);
        let moved = |d: Distance| self.own.distance(as_key(old.distance(as_key(d))));
        self.swarms = swarms.into_iter().map(|(d, peers)| (moved(d), peers)).collect();
        self.swept = None;
    }

    /// `addr` says that it is a peer of `info_hash`, and whether it is a seed.
    pub fn announce(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        addr: SocketAddr,
        seed: bool,
    ) -> Result<(), StoreError> {
        let distance = self.own.distance(info_hash.key());
        self.expire(now, distance);
        if let Some(peer) = self
            .swarms
            .get_mut(&distance)
            .and_then(|swarm| swarm.iter_mut().find(|p| p.addr == addr))
        {
            (peer.seen, peer.seed) = (now, seed);
            return Ok(());
        }
        let shares = Shares::of(addr.ip());
        if self.by_ip.get(&addr.ip()).is_some_and(|n| *n >= shares.everywhere) {
            return Err(StoreError::AddressShare);
        }
        if let Some(swarm) = self.swarms.get(&distance) {
            let same_ip = swarm.iter().filter(|p| p.addr.ip() == addr.ip()).count();
            let net = network(addr.ip());
            let same_net = swarm.iter().filter(|p| network(p.addr.ip()) == net).count();
            if same_ip >= shares.swarm_ip || same_net >= shares.swarm_network {
                return Err(StoreError::SwarmShare);
            }
            if swarm.len() >= PEERS_PER_HASH_MAX {
                self.make_room(distance, addr.ip());
            }
        } else if self.swarms.len() >= HASHES_STORED_MAX {
            let farthest = *self.swarms.last_key_value().expect("a full store has a last").0;
            if farthest < distance {
                return Err(StoreError::Full);
            }
            self.drop_swarm(farthest);
        }
        self.swarms.entry(distance).or_default().push(Peer { addr, seed, seen: now });
        *self.by_ip.entry(addr.ip()).or_default() += 1;
        self.peers += 1;
        Ok(())
    }

    /// At most `count` peers of `info_hash`, chosen at random, among those that `usable` allows.
    pub fn sample(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        info_hash: InfoHash,
        count: usize,
        usable: impl Fn(&Peer) -> bool,
        out: &mut Vec<SocketAddr>,
    ) {
        out.clear();
        let distance = self.own.distance(info_hash.key());
        self.expire(now, distance);
        let Some(swarm) = self.swarms.get_mut(&distance) else { return };
        // The first steps of a shuffle, stopped when there are enough.
        for at in 0..swarm.len() {
            if out.len() >= count {
                break;
            }
            let other = at + rng.below(swarm.len() - at);
            swarm.swap(at, other);
            if usable(&swarm[at]) {
                out.push(swarm[at].addr);
            }
        }
    }

    /// Who of the peers of `info_hash` that `usable` allows is a seed, and who is none (BEP 33);
    /// `None` if there are no peers at all.
    pub fn filters(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        usable: impl Fn(&Peer) -> bool,
    ) -> Option<(Filter, Filter)> {
        let distance = self.own.distance(info_hash.key());
        self.expire(now, distance);
        let (mut seeds, mut others) = (Filter::new(), Filter::new());
        for peer in self.swarms.get(&distance)?.iter().filter(|peer| usable(peer)) {
            if peer.seed {
                seeds.insert(peer.addr.ip());
            } else {
                others.insert(peer.addr.ip());
            }
        }
        Some((seeds, others))
    }

    /// At most `count` of the torrents, each as likely as any other (BEP 51).
    pub fn sample_hashes(&self, rng: &mut Rng, count: usize) -> Vec<InfoHash> {
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

    /// Expires the peers of the next few torrents. Called regularly, it comes round.
    pub fn sweep(&mut self, now: Instant) {
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<Distance> = self
            .swarms
            .range((from, Bound::Unbounded))
            .take(SWEEP_HASHES)
            .map(|(d, _)| *d)
            .collect();
        self.swept = next.last().copied().filter(|_| next.len() == SWEEP_HASHES);
        for distance in next {
            self.expire(now, distance);
        }
    }

    fn expire(&mut self, now: Instant, distance: Distance) {
        let Some(swarm) = self.swarms.get_mut(&distance) else { return };
        let before = swarm.len();
        let by_ip = &mut self.by_ip;
        swarm.retain(|peer| {
            let fresh = now.since(peer.seen) < PEER_AGE_MAX;
            if !fresh {
                release(by_ip, peer.addr.ip());
            }
            fresh
        });
        self.peers -= before - swarm.len();
        if swarm.is_empty() {
            self.swarms.remove(&distance);
        }
    }

    // A full swarm gives up the oldest peer of its most crowded wide network; if the newcomer's own
    // network is as crowded as any, of that one. So a flood displaces itself and not the others.
    fn make_room(&mut self, distance: Distance, newcomer: IpAddr) {
        let Some(swarm) = self.swarms.get_mut(&distance) else { return };
        let mut crowds: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for peer in swarm.iter() {
            *crowds.entry(wide_network(peer.addr.ip())).or_default() += 1;
        }
        let own = wide_network(newcomer);
        let most = crowds.values().copied().max().unwrap_or_default();
        let crowd = match crowds.get(&own) {
            Some(n) if *n == most => own,
            _ => crowds.into_iter().find(|(_, n)| *n == most).map_or(own, |(net, _)| net),
        };
        let oldest = swarm
            .iter()
            .enumerate()
            .filter(|(_, p)| wide_network(p.addr.ip()) == crowd)
            .min_by_key(|(_, p)| p.seen)
            .map(|(at, _)| at);
        if let Some(at) = oldest {
            let gone = swarm.swap_remove(at);
            release(&mut self.by_ip, gone.addr.ip());
            self.peers -= 1;
        }
    }

    fn drop_swarm(&mut self, distance: Distance) {
        for peer in self.swarms.remove(&distance).into_iter().flatten() {
            release(&mut self.by_ip, peer.addr.ip());
            self.peers -= 1;
        }
    }
}

// XOR undoes itself: the distance from an id, seen as a key, leads back to the torrent.
fn as_key(distance: Distance) -> Key {
    Key::new(*distance.as_bytes())
}

fn release(by_ip: &mut BTreeMap<IpAddr, u32>, ip: IpAddr) {
    if let Some(count) = by_ip.get_mut(&ip) {
        *count -= 1;
        if *count == 0 {
            by_ip.remove(&ip);
        }
    }
}

// How much one address may take.
struct Shares {
    everywhere: u32,
    swarm_ip: usize,
    swarm_network: usize,
}

impl Shares {
    // On a private network many peers share one address, and strangers cannot speak from it.
    fn of(ip: IpAddr) -> Shares {
        if is_private(ip) {
            Shares { everywhere: 4_000, swarm_ip: 200, swarm_network: 400 }
        } else {
            Shares { everywhere: 500, swarm_ip: 3, swarm_network: 16 }
        }
    }
}

/// Torrents stored. A node is among the eight closest of a few hundred; the rest is room.
pub const HASHES_STORED_MAX: usize = 2_000;
/// Peers stored of one torrent: five answers' worth.
pub const PEERS_PER_HASH_MAX: usize = 500;
/// A peer announces every 15 minutes or so; two may get lost.
pub const PEER_AGE_MAX: Duration = Duration::from_secs(45 * 60);
// With a sweep every few seconds the whole store is seen in some minutes.
const SWEEP_HASHES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: usize) -> InfoHash {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        InfoHash::new(id)
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn store() -> PeerStore {
        PeerStore::new(NodeId::new([0; 20]))
    }

    fn sample(store: &mut PeerStore, now: Instant, n: usize, count: usize) -> Vec<SocketAddr> {
        let mut out = Vec::new();
        store.sample(now, &mut Rng::from_seed([1; 32]), hash(n), count, |_| true, &mut out);
        out
    }

    // Public addresses, each in a /16 of its own while `n` is small.
    fn peer(n: usize) -> SocketAddr {
        let n = u32::try_from(n).unwrap();
        let ip = std::net::Ipv4Addr::from(
            0x0101_0101 + (n % 20_000) * 0x1_0000 % 0x3000_0000 + n / 20_000,
        );
        SocketAddr::from((ip, 6881))
    }

    #[test]
    fn peers_expire_after_45_minutes_unless_announced_again() {
        let mut store = store();
        store.announce(at(0), hash(1), peer(1), false).unwrap();
        store.announce(at(0), hash(1), peer(2), false).unwrap();
        store.announce(at(1500), hash(1), peer(2), false).unwrap();
        assert_eq!(sample(&mut store, at(2699), 1, 10).len(), 2);
        assert_eq!(sample(&mut store, at(2700), 1, 10), [peer(2)]);
        store.sweep(at(9000));
        assert_eq!((store.len(), store.by_ip.len()), ((0, 0), 0));
    }

    #[test]
    fn sample_is_random_bounded_and_distinct() {
        let mut store = store();
        (0..100).for_each(|n| store.announce(at(0), hash(1), peer(n), false).unwrap());
        let mut first = sample(&mut store, at(0), 1, 20);
        let second = sample(&mut store, at(0), 1, 20);
        assert_ne!(first, second);
        first.sort();
        first.dedup();
        assert_eq!(first.len(), 20);
        assert_eq!(sample(&mut store, at(0), 1, 1000).len(), 100);
        assert!(sample(&mut store, at(0), 2, 20).is_empty());
    }

    #[test]
    fn one_address_with_ten_thousand_ports_gets_three_places() {
        let mut store = store();
        for port in 1..=10_000 {
            let result =
                store.announce(at(0), hash(1), SocketAddr::from(([9, 9, 9, 9], port)), false);
            assert_eq!(result.is_ok(), port <= 3);
        }
        assert_eq!(store.len(), (1, 3));
        for host in 0..100 {
            let _ = store.announce(at(0), hash(1), SocketAddr::from(([9, 9, 9, host], 1)), false);
        }
        assert_eq!(store.len(), (1, 16));
    }

    #[test]
    fn one_address_cannot_fill_the_store_with_hashes() {
        let mut store = store();
        for n in 0..10_000 {
            let _ = store.announce(at(0), hash(n), "9.9.9.9:1".parse().unwrap(), false);
        }
        assert_eq!(store.len(), (500, 500));
        assert_eq!(
            store.announce(at(0), hash(99_999), "9.9.9.9:1".parse().unwrap(), false),
            Err(StoreError::AddressShare)
        );
        store.announce(at(0), hash(99_999), peer(1), false).unwrap();
    }

    #[test]
    fn full_store_keeps_the_closest_torrents() {
        let mut store = store();
        for n in (1..=5_000).rev() {
            let _ = store.announce(at(0), hash(n), peer(n), false);
        }
        assert_eq!(store.len(), (HASHES_STORED_MAX, HASHES_STORED_MAX));
        assert_eq!(store.announce(at(0), hash(9_000), peer(9_000), false), Err(StoreError::Full));
        assert_eq!(sample(&mut store, at(0), 1, 1).len(), 1);
        assert!(sample(&mut store, at(0), 4_000, 1).is_empty());
        assert_eq!(store.by_ip.len(), HASHES_STORED_MAX);
    }

    #[test]
    fn flood_from_one_network_does_not_displace_the_others() {
        let mut store = store();
        for n in 0..200 {
            store.announce(at(0), hash(1), peer(n), false).unwrap();
        }
        // One /16: 256 networks of /24 with 16 places each.
        for n in 0..4_000usize {
            let [.., c, d] = u32::try_from(n * 4).unwrap().to_be_bytes();
            let _ = store.announce(at(1), hash(1), SocketAddr::from(([200, 1, c, d], 1)), false);
        }
        assert_eq!(store.len(), (1, PEERS_PER_HASH_MAX));
        let all = sample(&mut store, at(2), 1, PEERS_PER_HASH_MAX);
        assert!((0..200).all(|n| all.contains(&peer(n))));
        assert_eq!(store.by_ip.values().sum::<u32>(), 500);
    }

    #[test]
    fn new_id_moves_every_torrent() {
        let mut store = store();
        (0..50).for_each(|n| store.announce(at(0), hash(n), peer(n), false).unwrap());
        store.set_own(NodeId::new([0xa5; 20]));
        (0..50).for_each(|n| assert_eq!(sample(&mut store, at(1), n, 5), [peer(n)]));
    }

    #[test]
    fn seeds_are_told_from_peers_until_they_announce_otherwise() {
        let mut store = store();
        (0..6).for_each(|n| store.announce(at(0), hash(1), peer(n), n < 2).unwrap());
        store.announce(at(1), hash(1), peer(5), true).unwrap();
        let (seeds, others) = store.filters(at(1), hash(1), |_| true).unwrap();
        let who = |filter: &Filter| (0..6).filter(|n| filter.contains(peer(*n).ip())).collect();
        let (seeds, others): (Vec<_>, Vec<_>) = (who(&seeds), who(&others));
        assert_eq!((seeds, others), (vec![0, 1, 5], vec![2, 3, 4]));
        let mut out = Vec::new();
        let mut rng = Rng::from_seed([1; 32]);
        store.sample(at(1), &mut rng, hash(1), 10, |peer| !peer.seed, &mut out);
        out.sort();
        assert_eq!(out, [peer(2), peer(3), peer(4)]);
        assert_eq!(store.filters(at(1), hash(2), |_| true), None);
        assert_eq!(store.filters(at(2701), hash(1), |_| true), None);
    }

    #[test]
    fn sample_of_the_torrents_is_distinct_bounded_and_of_all() {
        let mut store = store();
        let mut rng = Rng::from_seed([2; 32]);
        assert!(store.sample_hashes(&mut rng, 20).is_empty());
        (0..100).for_each(|n| store.announce(at(0), hash(n), peer(n), false).unwrap());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let mut sample = store.sample_hashes(&mut rng, 20);
            sample.sort();
            sample.dedup();
            assert_eq!(sample.len(), 20);
            seen.extend(sample);
        }
        assert_eq!(seen.len(), 100);
        assert!((0..100).all(|n| seen.contains(&hash(n))));
        assert_eq!(store.sample_hashes(&mut rng, 1_000).len(), 100);
    }
}
