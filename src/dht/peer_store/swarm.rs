//! The peers of one torrent, packed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{PEER_AGE_MAX, Peer};
use crate::base::{Instant, Rng};

/// One stored peer: 8 bytes for IPv4 (`N` = 4), 20 for IPv6 (`N` = 16).
#[derive(Debug, Clone, Copy)]
pub struct Entry<const N: usize> {
    ip: [u8; N],
    port: u16,
    // When it last announced itself, in ticks; the highest bit says that it is a seed.
    mark: u16,
}

impl<const N: usize> Entry<N> {
    pub fn new(ip: [u8; N], port: u16, seed: bool, now: Instant) -> Self {
        let seed = if seed { SEED } else { 0 };
        Self { ip, port, mark: tick(now) | seed }
    }

    pub fn peer(&self) -> Peer {
        Peer { addr: SocketAddr::new(self.ip(), self.port), seed: self.mark & SEED != 0 }
    }

    pub fn ip(&self) -> IpAddr {
        match self.ip.as_slice().try_into() {
            Ok::<[u8; 4], _>(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
            Err(_) => {
                let v6: [u8; 16] = self.ip.as_slice().try_into().expect("4 bytes or 16");
                IpAddr::V6(Ipv6Addr::from(v6))
            }
        }
    }

    /// Who speaks: the address, or the /64 that one IPv6 host has.
    pub fn host(&self) -> u64 {
        let mut lead = [0; 8];
        let len = N.min(8);
        lead[..len].copy_from_slice(&self.ip[..len]);
        u64::from_be_bytes(lead)
    }

    /// Its network, which one operator fills at no cost: /24 or /48.
    pub fn network(&self) -> u64 {
        self.host() >> if N == 4 { 64 - 24 } else { 64 - 48 }
    }

    /// Its wide network: /16 or /32.
    pub fn wide_network(&self) -> u64 {
        self.host() >> if N == 4 { 64 - 16 } else { 64 - 32 }
    }

    fn is_endpoint_of(&self, other: &Self) -> bool {
        self.port == other.port && self.ip == other.ip
    }

    fn age(&self, now: u16) -> u16 {
        age(self.mark & !SEED, now)
    }
}

/// The peers of one torrent, in random order.
#[derive(Debug)]
pub(super) struct Swarm<const N: usize> {
    entries: Vec<Entry<N>>,
    // No entry is older than this.
    oldest: u16,
    /// Where the torrent stands in the list of its level.
    pub place: usize,
}

/// What a swarm already has of a newcomer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Census {
    /// The newcomer itself.
    pub at: Option<usize>,
    pub same_host: usize,
    pub same_network: usize,
}

impl<const N: usize> Swarm<N> {
    pub fn new(now: Instant, place: usize) -> Self {
        Self { entries: Vec::new(), oldest: tick(now), place }
    }

    pub fn entries(&self) -> &[Entry<N>] {
        &self.entries
    }

    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<N>>()
    }

    pub fn census(&self, newcomer: &Entry<N>) -> Census {
        let (host, network) = (newcomer.host(), newcomer.network());
        let mut census = Census::default();
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.network() == network {
                census.same_network += 1;
                census.same_host += usize::from(entry.host() == host);
                if entry.is_endpoint_of(newcomer) {
                    census.at = Some(at);
                }
            }
        }
        census
    }

    /// The peer at `at` announced itself again.
    pub fn refresh(&mut self, at: usize, again: Entry<N>) {
        self.entries[at].mark = again.mark;
    }

    pub fn insert(&mut self, rng: &mut Rng, entry: Entry<N>) {
        self.entries.push(entry);
        let len = self.entries.len();
        self.entries.swap(len - 1, rng.below(len));
    }

    pub fn remove(&mut self, at: usize) -> Entry<N> {
        self.entries.swap_remove(at)
    }

    /// Drops who has been silent for too long, after telling `gone`.
    pub fn expire(&mut self, now: Instant, mut gone: impl FnMut(&Entry<N>)) {
        let now = tick(now);
        if age(self.oldest, now) < AGE_MAX {
            return;
        }
        let mut age_max = 0;
        self.entries.retain(|entry| {
            let age = entry.age(now);
            if age >= AGE_MAX {
                gone(entry);
                return false;
            }
            age_max = age_max.max(age);
            true
        });
        self.oldest = now.wrapping_sub(age_max) & !SEED;
        // A crowd that has gone gives its memory back.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// The peers from a random one on, round to the one before it: of any few of them each is as
    /// likely as any other.
    pub fn starting_anywhere(&self, rng: &mut Rng) -> impl Iterator<Item = Peer> {
        let (before, after) = self.entries.split_at(rng.below(self.entries.len()));
        after.iter().chain(before).map(Entry::peer)
    }

    /// Who has to leave for `newcomer`: the one silent for longest of the most crowded wide network;
    /// of the newcomer's own if that is as crowded as any. So a flood displaces itself and not the
    /// others. Nobody if there is no crowd: then those stay who are here.
    pub fn victim(&self, now: Instant, rng: &mut Rng, newcomer: &Entry<N>) -> Option<usize> {
        let mut wide: Vec<u64> = self.entries.iter().map(Entry::wide_network).collect();
        wide.sort_unstable();
        let own = newcomer.wide_network();
        let (mut crowd, mut most, mut equals) = (None, 1, 0);
        for run in wide.chunk_by(|a, b| a == b) {
            let at_home = crowd == Some(own);
            if run.len() > most || (run.len() == most && run.first() == Some(&own)) {
                (crowd, most, equals) = (run.first().copied(), run.len(), 1);
            } else if run.len() == most && most > 1 && !at_home {
                equals += 1;
                if rng.below(equals) == 0 {
                    crowd = run.first().copied();
                }
            }
        }
        let (crowd, now) = (crowd?, tick(now));
        let of_crowd = |(_, entry): &(usize, &Entry<N>)| entry.wide_network() == crowd;
        let all = self.entries.iter().enumerate().filter(of_crowd);
        all.max_by_key(|(_, entry)| entry.age(now)).map(|(at, _)| at)
    }
}

fn tick(now: Instant) -> u16 {
    let ticks = now.as_micros() / (TICK_SECS * 1_000_000);
    u16::try_from(ticks & u64::from(!SEED)).expect("15 bits")
}

fn age(then: u16, now: u16) -> u16 {
    now.wrapping_sub(then) & !SEED
}

const SEED: u16 = 1 << 15;
// 15 bits of four seconds count 36 hours: far longer than a peer is kept.
const TICK_SECS: u64 = 4;
const AGE_MAX: u16 = (PEER_AGE_MAX.as_secs() / TICK_SECS) as u16;
/// After this long the ticks of what was stored may have come round.
pub(super) const TICKS_GOOD_FOR: Duration = Duration::from_secs((1 << 14) * TICK_SECS);

const _: () = assert!(PEER_AGE_MAX.as_secs() < TICKS_GOOD_FOR.as_secs());
const _: () = assert!(size_of::<Entry<4>>() == 8 && size_of::<Entry<16>>() == 20);
