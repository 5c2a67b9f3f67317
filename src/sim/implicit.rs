//! A network of 10^5 to 10^6 nodes that are not there: ids, round trips and deaths are hashes of the
//! address, so that all state is one sorted array, and every routing table is computed when it is
//! asked for. One or a few real nodes live in it; see [`measure`].
//!
//! For a target that shares `c` bits with its own id a node knows eight nodes of its bucket `c`, always
//! the same, or all there are; so a lookup needs as many steps as in the real network. The unobserved
//! nodes never ask, never move and never die: what it measures is the cost of a lookup, not of churn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::base::addr::{is_private, is_sendable, network};
use crate::base::{InfoHash, Instant, Key, NodeId, Rng};
use crate::dht::make_id;

pub mod announcing;
mod answer;
pub mod measure;

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: u32,
    /// Half of the nodes answer sooner than this.
    pub rtt_median: Duration,
    /// The sigma of the lognormal distribution of round trips.
    pub rtt_sigma: f64,
    /// Every answer is late by up to this share of its round trip.
    pub jitter: f64,
    /// The share of nodes that are in tables and never answer.
    pub dead: f64,
    /// The share of round trips in which a datagram is lost.
    pub loss: f64,
    /// The share of nodes that lie about who is near the target.
    pub liars: f64,
    /// What they say.
    pub lie: Lie,
    /// Nodes have public addresses, of which BEP 42 ids follow and of which honest nodes keep one per
    /// /24 in a bucket; otherwise loopback ones, which are exempt from both.
    pub public: bool,
    /// The share of public nodes whose ids keep BEP 42.
    pub valid_ids: f64,
}

/// What a liar names as the nodes nearest to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Neighbours of the target at addresses that nobody has.
    MadeUp,
    /// The nearest dead nodes.
    Dead,
    /// The nearest other liars.
    Allied,
}

impl Options {
    /// A hundred thousand nodes, 90 ms away, three in ten dead.
    pub fn usual() -> Self {
        Self {
            seed: 1,
            nodes: 100_000,
            rtt_median: Duration::from_millis(90),
            rtt_sigma: 0.6,
            jitter: 0.1,
            dead: 0.3,
            loss: 0.0,
            liars: 0.0,
            lie: Lie::MadeUp,
            public: false,
            valid_ids: 0.6,
        }
    }

    /// A million nodes, farther away, half of them dead, and datagrams get lost.
    pub fn harsh() -> Self {
        Self {
            seed: 7,
            nodes: 1_000_000,
            rtt_median: Duration::from_millis(120),
            rtt_sigma: 0.8,
            dead: 0.5,
            loss: 0.02,
            ..Self::usual()
        }
    }
}

/// Nodes that one attacker has put next to a key.
#[derive(Debug, Clone, Copy)]
pub struct Sybils {
    /// How many.
    pub count: u8,
    /// Leading bits that they share with the key, at least.
    pub bits: u32,
    /// All in one /24, or each in a /16 of its own.
    pub networks: Networks,
    /// What they answer.
    pub says: Says,
}

/// Where the addresses of an attacker are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Networks {
    /// All in one /24.
    One,
    /// Each in a /16 of its own.
    Many,
}

/// What a Sybil answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// No nodes and no peers.
    Nothing,
    /// The other Sybils, and no peers.
    Allies,
    /// The other Sybils, and peers that do not exist.
    Forged,
    /// The nearest nodes that do not answer, and no peers.
    Dead,
}

/// What was asked of the network about one key since it was first watched.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Queries other than announces.
    pub queries: usize,
    /// Of them those to nodes that do not answer.
    pub dead: usize,
    /// Who was asked.
    pub asked: BTreeSet<Ipv4Addr>,
    /// Who took an announce, and when the first one was sent.
    pub announced: BTreeMap<Ipv4Addr, Instant>,
    /// And the last one.
    pub renewed: BTreeMap<Ipv4Addr, Instant>,
}

/// The nodes that are not there.
#[derive(Debug)]
pub struct Network {
    options: Options,
    salt: u64,
    // Sorted by key.
    nodes: Vec<Entry>,
    sybils: BTreeMap<Ipv4Addr, (NodeId, Says)>,
    stored: BTreeMap<(Ipv4Addr, InfoHash), BTreeSet<SocketAddr>>,
    watches: BTreeMap<Key, Watch>,
    rng: Rng,
}

// The first 64 bits of the id, and where it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: u64,
    ip: Ipv4Addr,
}

impl Network {
    /// A network from its options.
    pub fn new(options: Options) -> Self {
        let mut net = Self {
            salt: mix(options.seed),
            rng: Rng::from_seed(crate::sim::scenario::seed(options.seed)),
            nodes: Vec::new(),
            sybils: BTreeMap::new(),
            stored: BTreeMap::new(),
            watches: BTreeMap::new(),
            options,
        };
        let ips = (0..net.options.nodes).map(|n| net.ip(n)).filter(|ip| net.exists(*ip));
        let mut nodes: Vec<Entry> =
            ips.map(|ip| Entry { key: head(net.id(ip).key()), ip }).collect();
        nodes.sort_unstable();
        net.nodes = nodes;
        net
    }

    /// How many nodes there are, dead ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An address for a real node, at which none of these lives.
    pub fn free_addr(&self, n: u8) -> SocketAddr {
        let ip = if self.options.public { [9, 9, 9, n] } else { [127, 0, 10, n] };
        SocketAddr::from((ip, PORT))
    }

    /// Nodes to start from: alive, honest, and not slower than most.
    pub fn bootstrap_nodes(&self, count: usize) -> Vec<SocketAddr> {
        let step = (self.nodes.len() / (count + 1)).max(1);
        let good = |e: &&Entry| {
            let is_quick = self.rtt(e.ip) <= self.options.rtt_median;
            self.is_alive(e.ip) && !self.is_liar(e.ip) && is_quick
        };
        let parts = self.nodes.chunks(step);
        parts.filter_map(|part| part.iter().find(good)).take(count).map(|e| at(e.ip)).collect()
    }

    /// Puts `peer` where an announce before all else would have put it.
    pub fn store(&mut self, info_hash: InfoHash, peer: SocketAddr) {
        for ip in self.closest_alive(info_hash.key(), K) {
            self.stored.entry((ip, info_hash)).or_default().insert(peer);
        }
    }

    /// The nodes nearest to `key` that answer, nearest first; Sybils are not among them.
    pub fn closest_alive(&self, key: Key, count: usize) -> Vec<Ipv4Addr> {
        let good = |ip| self.is_alive(ip) && !self.sybils.contains_key(&ip);
        self.closest(head(key), count, good).into_iter().map(|e| e.ip).collect()
    }

    /// Lets an attacker put nodes next to `key`.
    pub fn add_sybils(&mut self, key: Key, sybils: Sybils) {
        for n in 0..sybils.count {
            let ip = match sybils.networks {
                Networks::One => Ipv4Addr::new(66, 66, 66, n),
                Networks::Many => Ipv4Addr::new(60 + n / 16, 16 * (n % 16) + 7, 7, 7),
            };
            let mut id: [u8; 20] = self.rng.array();
            let mask = u64::MAX.checked_shl(64 - sybils.bits).unwrap_or(0);
            let near = (head(key) & mask) | (head(Key::new(id)) & !mask);
            id[..8].copy_from_slice(&near.to_be_bytes());
            self.sybils.insert(ip, (NodeId::new(id), sybils.says));
            let entry = Entry { key: near, ip };
            let place = self.nodes.partition_point(|e| *e < entry);
            self.nodes.insert(place, entry);
        }
    }

    /// The attacker leaves.
    pub fn remove_sybils(&mut self) {
        let sybils = std::mem::take(&mut self.sybils);
        if !sybils.is_empty() {
            self.nodes.retain(|e| !sybils.contains_key(&e.ip));
        }
    }

    /// What was asked about `key` so far.
    pub fn watch(&self, key: Key) -> Watch {
        self.watches.get(&key).cloned().unwrap_or_default()
    }

    /// Tells of each node whether an announce about `key` was sent to it within the last `time`.
    pub fn holders(&self, key: Key, now: Instant, time: Duration) -> impl Fn(&Ipv4Addr) -> bool {
        let watch = self.watches.get(&key);
        move |ip| watch.and_then(|w| w.renewed.get(ip)).is_some_and(|at| now.since(*at) <= time)
    }

    /// Is somebody there who answers, when nothing is lost?
    pub fn is_alive(&self, ip: Ipv4Addr) -> bool {
        self.sybils.contains_key(&ip)
            || (self.exists(ip) && self.unit(ip, Salt::Dead) >= self.options.dead)
    }

    /// Is a node with this id at `addr`, and does it answer?
    pub fn answers_as(&self, id: NodeId, addr: SocketAddr) -> bool {
        let IpAddr::V4(ip) = addr.ip() else { return false };
        addr == at(ip) && self.is_alive(ip) && self.id(ip) == id
    }

    /// Does this node name others than it should?
    pub fn is_liar(&self, ip: Ipv4Addr) -> bool {
        self.unit(ip, Salt::Liar) < self.options.liars
    }

    // A bijection of 2^24 or 2^32 addresses that spreads neighbours over the networks.
    fn ip(&self, n: u32) -> Ipv4Addr {
        let spread = n.wrapping_mul(SPREAD);
        let bits = if self.options.public { spread } else { (127 << 24) | (spread & 0xff_ffff) };
        Ipv4Addr::from_bits(bits)
    }

    fn exists(&self, ip: Ipv4Addr) -> bool {
        let n = ip.to_bits().wrapping_mul(SPREAD_INVERSE);
        let [first, second, ..] = ip.octets();
        if self.options.public {
            return n < self.options.nodes && !is_private(IpAddr::V4(ip)) && is_sendable(&at(ip));
        }
        // 127.0.*.* is left to real nodes.
        first == 127 && second != 0 && (n & 0xff_ffff) < self.options.nodes
    }

    fn id(&self, ip: Ipv4Addr) -> NodeId {
        if let Some((id, _)) = self.sybils.get(&ip) {
            return *id;
        }
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.hash(ip, Salt::Id).to_le_bytes());
        let mut rng = Rng::from_seed(seed);
        if self.unit(ip, Salt::ValidId) < self.options.valid_ids {
            make_id(IpAddr::V4(ip), &mut rng)
        } else {
            NodeId::new(rng.array())
        }
    }

    fn hash(&self, ip: Ipv4Addr, salt: Salt) -> u64 {
        mix(self.salt ^ (u64::from(salt as u8) << 40) ^ u64::from(ip.to_bits()))
    }

    fn unit(&self, ip: Ipv4Addr, salt: Salt) -> f64 {
        (self.hash(ip, salt) >> 11) as f64 / (1u64 << 53) as f64
    }

    // Lognormal, by Box-Muller.
    fn rtt(&self, ip: Ipv4Addr) -> Duration {
        let (u, v) = (self.unit(ip, Salt::RttRadius).max(1e-12), self.unit(ip, Salt::RttAngle));
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        self.options.rtt_median.mul_f64((self.options.rtt_sigma * normal).exp())
    }

    // The nodes whose ids start with the first `bits` bits of `key`.
    fn range(&self, key: u64, bits: u32) -> &[Entry] {
        let below = u64::MAX.checked_shr(bits).unwrap_or(0);
        let from = self.nodes.partition_point(|e| e.key < key & !below);
        let to = self.nodes.partition_point(|e| e.key <= key | below);
        &self.nodes[from..to]
    }

    fn closest(&self, key: u64, count: usize, good: impl Fn(Ipv4Addr) -> bool) -> Vec<Entry> {
        for bits in (0..=63).rev() {
            let all = self.range(key, bits).iter().copied();
            let mut found: Vec<Entry> = all.filter(|e| good(e.ip)).collect();
            if found.len() >= count || bits == 0 {
                found.sort_unstable_by_key(|e| e.key ^ key);
                found.truncate(count);
                return found;
            }
        }
        Vec::new()
    }

    // Up to eight of the nodes that share exactly `bits` bits with `own`.
    fn bucket(&self, own: u64, bits: u32, out: &mut Vec<Entry>) {
        let all = self.range(own ^ (1 << (63 - bits)), bits + 1);
        if all.len() <= K && !self.options.public {
            return out.extend_from_slice(all);
        }
        let start = out.len();
        let mut state = mix(own) ^ u64::from(bits) ^ self.salt;
        let draw = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let drawn = (u128::from(mix(state)) * all.len() as u128) >> 64;
            usize::try_from(drawn).expect("below the length of a slice")
        };
        let drawn = std::iter::repeat_with(draw).take(BUCKET_DRAWS);
        // Where most are of one network, chance may miss the others.
        for new in drawn.chain(0..BUCKET_DRAWS).map_while(|at| all.get(at)) {
            let rival = |e: &Entry| e.ip == new.ip || self.share_network(e.ip, new.ip);
            if out.len() < start + K && !out[start..].iter().any(rival) {
                out.push(*new);
            }
        }
    }

    fn share_network(&self, a: Ipv4Addr, b: Ipv4Addr) -> bool {
        self.options.public && network(IpAddr::V4(a)) == network(IpAddr::V4(b))
    }

    // What the node `own` knows nearest to `key`.
    fn closest_known(&self, own: u64, key: u64) -> Vec<Entry> {
        let home = (own ^ key).leading_zeros().min(62);
        let mut known = Vec::with_capacity(4 * K);
        self.bucket(own, home, &mut known);
        if known.len() < K {
            for bits in home + 1..63 {
                if self.range(own, bits).len() <= 1 {
                    break;
                }
                self.bucket(own, bits, &mut known);
            }
            for bits in (0..home).rev() {
                if known.len() >= K {
                    break;
                }
                self.bucket(own, bits, &mut known);
            }
        }
        known.sort_unstable_by_key(|e| e.key ^ key);
        known.truncate(K);
        known
    }
}

// What a hash of an address stands for.
#[derive(Debug, Clone, Copy)]
enum Salt {
    Id,
    Dead,
    RttRadius,
    RttAngle,
    Token,
    Liar,
    MadeUp,
    ValidId,
}

fn head(key: Key) -> u64 {
    let (head, _) = key.as_bytes().split_first_chunk().expect("a key has 20 bytes");
    u64::from_be_bytes(*head)
}

fn at(ip: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(ip), PORT)
}

// The finaliser of splitmix64: cheap, and well mixed.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Nodes in a bucket, in an answer, and holding an announce (BEP 5).
const K: usize = 8;
const PORT: u16 = 6881;
// Draws for one bucket: eight different ones out of nine are found in twenty.
const BUCKET_DRAWS: usize = 64;
// Odd, so that multiplying by it loses nothing.
const SPREAD: u32 = 0x9e37_79b1;
const SPREAD_INVERSE: u32 = inverse(SPREAD);

// Modulo 2^32, by Newton: each step doubles the bits that are right.
const fn inverse(odd: u32) -> u32 {
    let mut x = 1u32;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

#[cfg(test)]
mod tests;
