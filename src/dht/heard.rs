//! Nodes that others named and we have not asked: one for each small part of the key space, so that
//! near any target there is somebody, a step nearer than our contacts.
//!
//! Nothing of it is believed or handed out: it saves lookups the step of being told. Whoever is asked
//! leaves. Who is there already stays while the news is fresh: an answer full of names displaces nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::by_id;
use crate::base::{Instant, Key, NodeId};

/// Nodes known by name only.
#[derive(Debug)]
pub(super) struct Heard {
    nodes: BTreeMap<NodeId, Named>,
    // The leading bits by which parts of the key space are told apart; `None` to remember nobody.
    bits: Option<u32>,
}

#[derive(Debug)]
struct Named {
    addr: SocketAddr,
    when: Instant,
}

impl Heard {
    /// Remembers at most `nodes_max`, rounded down to a power of two.
    pub fn new(nodes_max: u32) -> Self {
        Self { nodes: BTreeMap::new(), bits: nodes_max.checked_ilog2() }
    }

    /// Somebody says that `id` is at `addr`.
    pub fn on_named(&mut self, now: Instant, id: NodeId, addr: SocketAddr) {
        if self.is_gap(now, id.key()) {
            if let Some((old, _)) = self.of_part(id.key()) {
                self.nodes.remove(&old);
            }
            self.nodes.insert(id, Named { addr, when: now });
        }
    }

    /// `id` was asked: from now on it is known what to think of it.
    pub fn on_asked(&mut self, id: NodeId) {
        self.nodes.remove(&id);
    }

    /// The `count` closest to `target` that were named lately, closest first.
    pub fn closest(&self, now: Instant, target: Key, count: usize) -> Vec<(NodeId, SocketAddr)> {
        let is_recent = |named: &Named| now.since(named.when) < AGE_MAX;
        let found = by_id::closest(&self.nodes, target, count, is_recent);
        found.into_iter().map(|(id, named)| (id, named.addr)).collect()
    }

    /// Would it help to hear of somebody near `key`?
    pub fn is_gap(&self, now: Instant, key: Key) -> bool {
        let is_stale = |(_, named): (NodeId, &Named)| now.since(named.when) >= FRESH;
        self.bits.is_some() && self.of_part(key).is_none_or(is_stale)
    }

    /// Is somebody known in three of four parts? Chance fills the rest.
    pub fn is_full(&self) -> bool {
        self.bits.is_none_or(|bits| self.nodes.len() * 4 >= 3 << bits)
    }

    // Who is known in the part of `key`.
    fn of_part(&self, key: Key) -> Option<(NodeId, &Named)> {
        let bits = self.bits?;
        let nearest = by_id::closest(&self.nodes, key, 1, |_| true).pop();
        nearest.filter(|(id, _)| key.shared_prefix_bits(id.key()) >= bits)
    }
}

// Longer than it takes to ask all contacts whether they are there, which is when most names come.
const FRESH: Duration = Duration::from_secs(15 * 60);
// Half of all nodes have left after some three hours, so of those named an hour ago a sixth has.
const AGE_MAX: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([1, 2, 3, 4], n))
    }

    #[test]
    fn closest_are_given_until_they_are_asked_or_old() {
        let (mut heard, mut rng) = (Heard::new(1 << 20), Rng::from_seed([1; 32]));
        let target = Key::new(rng.array());
        let mut all: Vec<_> = (0..100).map(|n| (NodeId::new(rng.array()), addr(n))).collect();
        all.iter().for_each(|(id, addr)| heard.on_named(at(0), *id, *addr));
        all.sort_unstable_by_key(|(id, _)| target.distance(id.key()));
        assert_eq!(heard.closest(at(1), target, 5), all[..5]);
        heard.on_asked(all[0].0);
        assert_eq!(heard.closest(at(1), target, 2), all[1..3]);
        assert_eq!(heard.closest(at(0) + AGE_MAX, target, 2), []);
    }

    #[test]
    fn who_is_there_stays_while_the_news_is_fresh() {
        let mut heard = Heard::new(16);
        let id = |n: u8| NodeId::new([n; 20]);
        heard.on_named(at(0), id(0x11), addr(1));
        assert!(!heard.is_gap(at(1), id(0x12).key()) && heard.is_gap(at(1), id(0x21).key()));
        heard.on_named(at(1), id(0x12), addr(2));
        let all = |heard: &Heard, now| heard.closest(now, Key::new([0; 20]), 9);
        assert_eq!(all(&heard, at(1)), [(id(0x11), addr(1))]);
        let late = at(0) + FRESH;
        heard.on_named(late, id(0x12), addr(2));
        assert_eq!(all(&heard, late), [(id(0x12), addr(2))]);
    }

    #[test]
    fn memory_is_bounded_whatever_is_named() {
        let mut rng = Rng::from_seed([2; 32]);
        for max in [0, 1, 5, 64] {
            let mut heard = Heard::new(max);
            for n in 0..1_000 {
                heard.on_named(at(n), NodeId::new(rng.array()), addr(7));
            }
            let expected = if max == 5 { 4 } else { max as usize };
            assert_eq!(heard.nodes.len(), expected, "{max}");
            assert!(heard.is_full());
        }
    }
}
