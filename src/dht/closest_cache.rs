//! Who answered lookups lately, by id: neighbouring targets share their closest nodes, and a target that
//! comes again starts where it ended. Feeds lookups; nothing of it is handed out to others, and
//! whoever is in it has to answer again before it counts.

use std::net::SocketAddr;
use std::time::Duration;

use super::by_id;
use crate::base::addr::PackedAddr;
use crate::base::recent::{Dated, RecentMap};
use crate::base::{Instant, Key, NodeId};

/// Nodes that answered.
#[derive(Debug)]
pub(super) struct ClosestCache(RecentMap<NodeId, Answered>);

/// A node that answered, when it did and how quickly.
#[derive(Debug, Clone, Copy)]
struct Answered {
    addr: PackedAddr,
    rtt_micros: u32,
    when: Instant,
}

impl Dated for Answered {
    fn when(&self) -> Instant {
        self.when
    }
}

impl ClosestCache {
    pub fn new() -> Self {
        Self(RecentMap::new(NODES_MAX, AGE_MAX))
    }

    /// `id` at `addr` answered after `rtt`.
    pub fn on_answer(&mut self, now: Instant, id: NodeId, addr: SocketAddr, rtt: Duration) {
        let rtt_micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.0.insert(now, id, Answered { addr: addr.into(), rtt_micros, when: now });
    }

    /// `id` at `addr` did not answer.
    pub fn on_silent(&mut self, id: NodeId, addr: &SocketAddr) {
        if self.0.get(&id).is_some_and(|known| known.addr.get() == *addr) {
            self.0.remove(&id);
        }
    }

    /// The `count` closest to `target`, closest first, of those that answered lately, with what it took.
    pub fn closest(
        &self,
        now: Instant,
        target: Key,
        count: usize,
    ) -> Vec<(NodeId, SocketAddr, Duration)> {
        let is_recent = |node: &Answered| now.since(node.when) < AGE_MAX;
        let found = by_id::closest(self.0.entries(), target, count, is_recent);
        let rtt = |node: &Answered| Duration::from_micros(node.rtt_micros.into());
        found.into_iter().map(|(id, node)| (id, node.addr.get(), rtt(node))).collect()
    }

    /// Is it there?
    pub fn has(&self, id: NodeId) -> bool {
        self.0.get(&id).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Ten closest nodes of 10,000 torrents, at some 80 bytes: 8 MB at most, and nothing like it in a node
/// that only a person asks. The longest unheard leave first.
const NODES_MAX: usize = 100_000;
/// Longer than any pause between two announces of one torrent. In that time a fifth of them may have
/// left, and a search that starts from eight of them still starts close.
const AGE_MAX: Duration = Duration::from_secs(45 * 60);

#[cfg(test)]
mod tests {
    use super::super::by_id::flipped;
    use super::*;
    use crate::base::Rng;

    const RTT: Duration = Duration::from_millis(50);

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn addr(n: usize) -> SocketAddr {
        let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
        SocketAddr::from(([20 + a, b, c, 1], 6881))
    }

    #[test]
    fn closest_are_those_that_a_full_search_finds() {
        for seed in 0..10u8 {
            let mut rng = Rng::from_seed([seed; 32]);
            let mut cache = ClosestCache::new();
            let mut all: Vec<NodeId> = (0..400).map(|_| NodeId::new(rng.array())).collect();
            // Some of them crowd around one point.
            for bit in 8..160 {
                all.push(NodeId::new(*flipped(all[0].key(), bit).as_bytes()));
            }
            all.iter().enumerate().for_each(|(n, id)| cache.on_answer(at(1), *id, addr(n), RTT));
            for round in 0..60 {
                let target = match round % 3 {
                    0 => Key::new(rng.array()),
                    1 => all[rng.below(all.len())].key(),
                    _ => flipped(all[0].key(), 8 + round),
                };
                let count = 1 + rng.below(20);
                let mut expected = all.clone();
                expected.sort_by_key(|id| target.distance(id.key()));
                let found: Vec<NodeId> =
                    cache.closest(at(2), target, count).into_iter().map(|(id, ..)| id).collect();
                assert_eq!(found, expected[..count], "seed {seed}, round {round}");
            }
            assert_eq!(cache.closest(at(2), Key::new([0; 20]), 9_999).len(), all.len());
        }
    }

    #[test]
    fn silent_and_long_unheard_nodes_are_gone() {
        let mut cache = ClosestCache::new();
        let id = |n: u8| NodeId::new([n; 20]);
        let all = |cache: &ClosestCache, now| cache.closest(now, Key::new([0; 20]), 9).len();
        assert_eq!(all(&cache, at(0)), 0);
        cache.on_answer(at(0), id(1), addr(1), RTT);
        cache.on_answer(at(100), id(2), addr(2), RTT);
        cache.on_silent(id(1), &addr(9));
        assert_eq!(all(&cache, at(100)), 2, "somebody else was silent");
        cache.on_answer(at(200), id(1), addr(3), RTT);
        assert_eq!(cache.closest(at(200), id(1).key(), 1), [(id(1), addr(3), RTT)]);
        cache.on_silent(id(1), &addr(3));
        assert_eq!((all(&cache, at(200)), cache.len()), (1, 1));
        let late = at(100) + AGE_MAX;
        assert_eq!(all(&cache, late), 0);
        cache.on_answer(late, id(7), addr(7), RTT);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn full_cache_forgets_the_longest_unheard() {
        let mut cache = ClosestCache::new();
        let mut rng = Rng::from_seed([3; 32]);
        let first = NodeId::new(rng.array());
        cache.on_answer(at(1), first, addr(0), RTT);
        for n in 1..NODES_MAX + 100 {
            cache.on_answer(at(2), NodeId::new(rng.array()), addr(n % 60_000), RTT);
        }
        assert!((NODES_MAX * 7 / 8..=NODES_MAX).contains(&cache.len()), "{}", cache.len());
        assert!(!cache.has(first));
    }
}
