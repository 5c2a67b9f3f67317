//! Claims about what strangers can do to the stored peers of others, and what not.

use super::*;
use crate::base::Key;

fn hash(n: usize) -> InfoHash {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    InfoHash::new(id)
}

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn v4(ip: u32, port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from(ip), port))
}

// Public addresses, each in a /16 of its own while `n` is small.
fn peer(n: usize) -> SocketAddr {
    let n = u32::try_from(n).unwrap();
    v4(0x0101_0101 + (n % 20_000) * 0x1_0000 % 0x3000_0000 + n / 20_000, 6881)
}

// A store and its chance.
struct Rig {
    store: PeerStore,
    rng: Rng,
}

impl Rig {
    fn new() -> Rig {
        Rig::of(Family::V4, NodeId::new([0; 20]))
    }

    fn of(family: Family, own: NodeId) -> Rig {
        let mut rng = Rng::from_seed([1; 32]);
        Rig { store: PeerStore::new(family, own, at(0), &mut rng), rng }
    }

    fn announce(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        addr: SocketAddr,
    ) -> Result<(), StoreError> {
        self.store.announce(now, &mut self.rng, info_hash, addr, false)
    }

    fn sample(&mut self, now: Instant, info_hash: InfoHash, count: usize) -> Vec<SocketAddr> {
        let mut out = Vec::new();
        self.store.sample(now, &mut self.rng, info_hash, count, |_| true, &mut out);
        out
    }
}

#[test]
fn peers_expire_after_45_minutes_unless_announced_again() {
    let mut rig = Rig::new();
    rig.announce(at(0), hash(1), peer(1)).unwrap();
    rig.announce(at(0), hash(1), peer(2)).unwrap();
    rig.announce(at(1500), hash(1), peer(2)).unwrap();
    assert_eq!(rig.sample(at(2699), hash(1), 10).len(), 2);
    assert_eq!(rig.sample(at(2700), hash(1), 10), [peer(2)]);
    assert_eq!(rig.sample(at(4196), hash(1), 10), [peer(2)]);
    rig.store.sweep(at(4200));
    assert_eq!(rig.store.len(), (0, 0));
}

#[test]
fn nobody_comes_back_after_days_of_sleep() {
    for hours in [10, 36, 37, 72, 73, 10_000] {
        let mut rig = Rig::new();
        rig.announce(at(0), hash(1), peer(1)).unwrap();
        assert!(rig.sample(at(hours * 3600), hash(1), 10).is_empty(), "{hours}");
        rig.announce(at(hours * 3600), hash(2), peer(1)).unwrap();
        assert_eq!(rig.sample(at(hours * 3600), hash(2), 10), [peer(1)]);
    }
}

#[test]
fn sample_is_random_bounded_and_distinct() {
    let mut rig = Rig::new();
    (0..100).for_each(|n| rig.announce(at(0), hash(1), peer(n)).unwrap());
    let mut first = rig.sample(at(0), hash(1), 20);
    let second = rig.sample(at(0), hash(1), 20);
    assert_ne!(first, second);
    first.sort();
    first.dedup();
    assert_eq!(first.len(), 20);
    assert_eq!(rig.sample(at(0), hash(1), 1000).len(), 100);
    assert!(rig.sample(at(0), hash(2), 20).is_empty());
    // Whoever came early is told as often as whoever came late.
    let mut told = [0u32; 100];
    for _ in 0..2_000 {
        for addr in rig.sample(at(0), hash(1), 5) {
            told[(0..100).find(|n| peer(*n) == addr).unwrap()] += 1;
        }
    }
    assert!(told.iter().all(|times| (50..=160).contains(times)), "{told:?}");
}

#[test]
fn one_address_gets_three_places_with_all_of_its_ports() {
    let mut rig = Rig::new();
    for port in 1..=u16::MAX {
        let result = rig.announce(at(0), hash(1), SocketAddr::from(([9, 9, 9, 9], port)));
        assert_eq!(result.is_ok(), port <= 3);
    }
    assert_eq!(rig.store.len(), (1, 3));
    for host in 0..100 {
        let _ = rig.announce(at(0), hash(1), SocketAddr::from(([9, 9, 9, host], 1)));
    }
    assert_eq!(rig.store.len(), (1, 16));
}

#[test]
fn a_48_of_ipv6_is_one_network_and_a_64_one_host() {
    let mut rig = Rig::of(Family::V6, NodeId::new([0; 20]));
    let at_host = |net: u16, host: u16| SocketAddr::from(([0x2a01, 7, 7, net, host, 1, 1, 1], 1));
    for n in 0..100 {
        assert_eq!(rig.announce(at(0), hash(1), at_host(0, n)).is_ok(), n < 3);
    }
    for n in 1..100 {
        assert_eq!(rig.announce(at(0), hash(1), at_host(n, 0)).is_ok(), n <= 13);
    }
    let mut all = rig.sample(at(0), hash(1), 100);
    all.sort();
    let mut want: Vec<_> = (0..3).map(|n| at_host(0, n)).collect();
    want.extend((1..=13).map(|n| at_host(n, 0)));
    want.sort();
    assert_eq!(all, want);
    assert_eq!(rig.announce(at(0), hash(1), peer(1)), Err(StoreError::Family));
}

#[test]
fn one_address_cannot_fill_the_store_with_hashes_nor_one_network() {
    let mut rig = Rig::new();
    for n in 0..100_000 {
        let _ = rig.announce(at(0), hash(n), "9.9.9.9:1".parse().unwrap());
    }
    assert_eq!(rig.store.len(), (500, 500));
    let more = rig.announce(at(0), hash(100_000), "9.9.9.9:1".parse().unwrap());
    assert_eq!(more, Err(StoreError::AddressShare));
    rig.announce(at(0), hash(100_000), peer(1)).unwrap();
    // A /24 of 256 such hosts, each for the torrents of the first.
    for n in 0..100_000 {
        let [.., host] = u32::try_from(n).unwrap().to_be_bytes();
        let _ = rig.announce(at(0), hash(n % 500), SocketAddr::from(([9, 9, 9, host], 1)));
    }
    let (_, peers) = rig.store.len();
    assert!((1_900..=2_001).contains(&peers), "{peers}");
}

#[test]
fn full_store_gives_up_what_is_far_for_what_is_close() {
    let mut rig = Rig::new();
    let mut rng = Rng::from_seed([2; 32]);
    // As they would come to a node that has the network for itself.
    let all: Vec<InfoHash> = (0..20_000).map(|_| InfoHash::new(rng.array())).collect();
    for (n, info_hash) in all.iter().enumerate() {
        let _ = rig.announce(at(0), *info_hash, peer(n));
    }
    let (hashes, peers) = rig.store.len();
    assert_eq!((hashes, peers), (HASHES_STORED_MAX, HASHES_STORED_MAX));
    let bits = |info_hash: &InfoHash| info_hash.key().shared_prefix_bits(Key::new([0; 20]));
    let kept = all.iter().filter(|h| bits(h) >= 7 && !rig.sample(at(0), **h, 1).is_empty());
    let (kept, close) = (kept.count(), all.iter().filter(|h| bits(h) >= 7).count());
    assert!(close > 100 && kept == close, "{kept} of {close}");
}

#[test]
fn flood_from_one_network_does_not_displace_the_others() {
    let mut rig = Rig::new();
    for n in 0..200 {
        rig.announce(at(0), hash(1), peer(n)).unwrap();
    }
    // One /16: 256 networks of /24 with 16 places each.
    for n in 0..4_000usize {
        let [.., c, d] = u32::try_from(n * 4).unwrap().to_be_bytes();
        let _ = rig.announce(at(1), hash(1), SocketAddr::from(([200, 1, c, d], 1)));
    }
    assert_eq!(rig.store.len(), (1, PEERS_PER_HASH_MAX));
    let all = rig.sample(at(2), hash(1), PEERS_PER_HASH_MAX);
    assert!((0..200).all(|n| all.contains(&peer(n))));
}

// A million, where the code is not slow on purpose.
const FLOOD: u32 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

// What honest clients brought here: torrents that share many bits with our id, because we are among
// the closest nodes to them, each with a few peers in networks of their own.
fn honest(own: NodeId, rng: &mut Rng) -> Vec<(InfoHash, Vec<SocketAddr>)> {
    let torrent = |n: usize| {
        let mut id: [u8; 20] = rng.array();
        let bits = 16 + n % 8;
        id[..2].copy_from_slice(&own.as_bytes()[..2]);
        id[2] = own.as_bytes()[2] ^ (0x80 >> (bits - 16));
        (InfoHash::new(id), (0..3).map(|p| peer(3 * n + p)).collect())
    };
    (0..200).map(torrent).collect()
}

// Announces with good tokens from a botnet: 4096 addresses of 64 wide networks.
fn flood(aim: impl Fn(u32, &mut Rng) -> InfoHash) -> (Rig, usize, usize) {
    let own = NodeId::new([0x5a; 20]);
    let mut rig = Rig::of(Family::V4, own);
    let mut rng = Rng::from_seed([3; 32]);
    let honest = honest(own, &mut rng);
    for (info_hash, peers) in &honest {
        peers.iter().for_each(|peer| rig.announce(at(0), *info_hash, *peer).unwrap());
    }
    for n in 0..FLOOD {
        let bot = n.wrapping_mul(0x9e37_79b1) >> 20;
        let addr = v4(0xc800_0000 + ((bot / 64) << 8) + ((bot % 64) << 16), 1);
        let now = at(1 + u64::from(n) * 1_000 / u64::from(FLOOD));
        let _ = rig.announce(now, aim(n, &mut rng), addr);
        // Honest peers repeat themselves every quarter of an hour.
        if n == FLOOD / 10 * 9 {
            for (info_hash, peers) in &honest {
                let again = |peer: &SocketAddr| rig.announce(now, *info_hash, *peer).is_ok();
                assert!(peers.iter().map(again).filter(|ok| *ok).count() > 0);
            }
        }
    }
    // Who comes new, in the middle of it, is stored as well.
    let late = at(1_001);
    let newcomers: Vec<_> = (0..20)
        .map(|n| {
            let mut id = *own.as_bytes();
            id[2] ^= 1 << (n % 8);
            id[4..].copy_from_slice(&rng.array::<16>());
            (InfoHash::new(id), peer(1_000 + n))
        })
        .collect();
    let new = newcomers
        .iter()
        .filter(|(info_hash, addr)| {
            let _ = rig.announce(late, *info_hash, *addr);
            rig.sample(late, *info_hash, 500).contains(addr)
        })
        .count();
    let mut kept = 0;
    for (info_hash, peers) in &honest {
        let found = rig.sample(late, *info_hash, 500);
        kept += peers.iter().filter(|peer| found.contains(peer)).count();
    }
    (rig, kept, new)
}

#[test]
fn honest_announces_survive_a_flood_for_random_torrents() {
    let (rig, kept, new) = flood(|_, rng| InfoHash::new(rng.array()));
    assert_eq!((kept, new), (600, 20));
    assert!(rig.store.len().0 <= HASHES_STORED_MAX);
}

#[test]
fn honest_announces_survive_a_flood_for_torrents_made_up_next_to_us() {
    let (rig, kept, new) = flood(|_, rng| {
        let mut id = [0x5a; 20];
        id[8..].copy_from_slice(&rng.array::<12>());
        InfoHash::new(id)
    });
    assert_eq!((kept, new), (600, 20));
    assert!(rig.store.len().0 <= HASHES_STORED_MAX);
}

#[test]
fn honest_announces_survive_a_flood_at_their_own_distance() {
    let (rig, kept, new) = flood(|n, rng| {
        let mut id: [u8; 20] = rng.array();
        id[..2].copy_from_slice(&[0x5a; 2]);
        id[2] = 0x5a ^ (0x80 >> (n % 8));
        InfoHash::new(id)
    });
    assert_eq!((kept, new), (600, 20));
    assert!(rig.store.len().0 <= HASHES_STORED_MAX);
}

#[test]
fn honest_announces_survive_a_flood_of_their_torrents() {
    let own = NodeId::new([0x5a; 20]);
    let honest: Vec<InfoHash> =
        honest(own, &mut Rng::from_seed([3; 32])).into_iter().map(|(hash, _)| hash).collect();
    let (rig, kept, new) = flood(|n, _| honest[n as usize % honest.len()]);
    assert_eq!((kept, new), (600, 20));
    let (_, peers) = rig.store.len();
    assert!(peers <= 220 * PEERS_PER_HASH_MAX, "{peers}");
}

#[test]
fn stored_peer_takes_a_dozen_bytes() {
    for (family, limit) in [(Family::V4, 13), (Family::V6, 25)] {
        let mut rig = Rig::of(family, NodeId::new([0; 20]));
        let addr = |n: u32| match family {
            Family::V4 => v4(0x1000_0000 + (n % 500) * 0x2_0000 + n / 500, 1),
            Family::V6 => {
                let [a, b, c, d] = n.to_be_bytes();
                let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                SocketAddr::from(([0x2a00 + low % 512, high, low, 0, 0, 0, 0, 1], 1))
            }
        };
        for n in 0..50_000u32 {
            rig.announce(at(0), hash(n as usize / 500), addr(n)).unwrap();
        }
        assert_eq!(rig.store.len(), (100, 50_000));
        let each = rig.store.heap_bytes() as f64 / 50_000.0;
        assert!(each <= f64::from(limit), "{family:?}: {each}");
        // What has expired gives its memory back.
        for n in 0..100 {
            assert!(rig.sample(at(2_700), hash(n), 1).is_empty());
        }
        assert_eq!(rig.store.len(), (0, 0));
    }
}

#[test]
fn new_id_moves_every_torrent() {
    let mut rig = Rig::new();
    (0..50).for_each(|n| rig.announce(at(0), hash(n), peer(n)).unwrap());
    rig.store.set_own(NodeId::new([0xa5; 20]));
    (0..50).for_each(|n| assert_eq!(rig.sample(at(1), hash(n), 5), [peer(n)]));
    (0..50).for_each(|n| assert!(rig.sample(at(2_700), hash(n), 5).is_empty()));
    assert_eq!(rig.store.len(), (0, 0));
}

#[test]
fn seeds_are_told_from_peers_until_they_announce_otherwise() {
    let Rig { mut store, mut rng } = Rig::new();
    (0..6).for_each(|n| store.announce(at(0), &mut rng, hash(1), peer(n), n < 2).unwrap());
    store.announce(at(1), &mut rng, hash(1), peer(5), true).unwrap();
    let (seeds, others) = store.filters(at(1), hash(1), |_| true).unwrap();
    let who = |filter: &Filter| (0..6).filter(|n| filter.contains(peer(*n).ip())).collect();
    let (seeds, others): (Vec<_>, Vec<_>) = (who(&seeds), who(&others));
    assert_eq!((seeds, others), (vec![0, 1, 5], vec![2, 3, 4]));
    let mut out = Vec::new();
    store.sample(at(1), &mut rng, hash(1), 10, |peer| !peer.seed, &mut out);
    out.sort();
    assert_eq!(out, [peer(2), peer(3), peer(4)]);
    assert_eq!(store.filters(at(1), hash(2), |_| true), None);
    assert_eq!(store.filters(at(2704), hash(1), |_| true), None);
}

#[test]
fn sample_of_the_torrents_is_distinct_bounded_and_of_all() {
    let mut rig = Rig::new();
    let mut rng = Rng::from_seed([2; 32]);
    assert!(rig.store.sample_hashes(&mut rng, 20).is_empty());
    (0..100).for_each(|n| rig.announce(at(0), hash(n), peer(n)).unwrap());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let mut sample = rig.store.sample_hashes(&mut rng, 20);
        sample.sort();
        sample.dedup();
        assert_eq!(sample.len(), 20);
        seen.extend(sample);
    }
    assert_eq!(seen.len(), 100);
    assert!((0..100).all(|n| seen.contains(&hash(n))));
    assert_eq!(rig.store.sample_hashes(&mut rng, 1_000).len(), 100);
}
