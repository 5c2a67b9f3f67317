//! Nodes that others named and we have not asked: one for each small part of the key space, so that
//! near any target there is somebody, a step nearer than our contacts.
//!
//! Nothing of it is believed or handed out: it saves lookups the step of being told. Whoever is asked
//! leaves. Who is there already stays while the news is fresh: an answer full of names displaces nobody.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::PackedAddr;
use crate::base::bounded::push_snugly;
use crate::base::{Instant, Key, NodeId};

/// Nodes known by name only.
#[derive(Debug)]
pub(super) struct Heard {
    // In no order that means anything.
    nodes: Vec<Named>,
    // For each part of the key space, in order: where in `nodes` its node is. Empty until somebody is
    // named.
    parts: Vec<u32>,
    // The leading bits by which the parts are told apart; `None` to remember nobody.
    bits: Option<u32>,
}

#[derive(Debug)]
struct Named {
    id: NodeId,
    addr: PackedAddr,
    when: Instant,
}

impl Heard {
    /// Remembers at most `nodes_max`, rounded down to a power of two.
    pub fn new(nodes_max: u32) -> Self {
        Self { nodes: Vec::new(), parts: Vec::new(), bits: nodes_max.checked_ilog2() }
    }

    /// Somebody says that `id` is at `addr`.
    pub fn on_named(&mut self, now: Instant, id: NodeId, addr: SocketAddr) {
        let Some(bits) = self.bits.filter(|_| self.is_gap(now, id.key())) else { return };
        if self.parts.is_empty() {
            self.parts = vec![NOBODY; 1 << bits];
        }
        let named = Named { id, addr: addr.into(), when: now };
        let place = &mut self.parts[part(id.key(), bits)];
        match self.nodes.get_mut(*place as usize) {
            Some(old) => *old = named,
            None => {
                *place = u32::try_from(self.nodes.len()).expect("no more than there are parts");
                push_snugly(&mut self.nodes, named);
            }
        }
    }

    /// `id` was asked: from now on it is known what to think of it.
    pub fn on_asked(&mut self, id: NodeId) {
        let Some(bits) = self.bits else { return };
        let at = part(id.key(), bits);
        if self.of_part(at).is_none_or(|named| named.id != id) {
            return;
        }
        let place = std::mem::replace(&mut self.parts[at], NOBODY);
        self.nodes.swap_remove(place as usize);
        // The last one has taken its place.
        if let Some(moved) = self.nodes.get(place as usize) {
            self.parts[part(moved.id.key(), bits)] = place;
        }
    }

    /// The `count` closest to `target` that were named lately, closest first.
    pub fn closest(&self, now: Instant, target: Key, count: usize) -> Vec<(NodeId, SocketAddr)> {
        let home = self.bits.map_or(0, |bits| part(target, bits));
        // As far as the numbers of two parts differ, so far are the parts from each other.
        let near = (0..self.parts.len()).filter_map(|away| self.of_part(home ^ away));
        let recent = near.filter(|named| now.since(named.when) < AGE_MAX);
        recent.take(count).map(|named| (named.id, named.addr.get())).collect()
    }

    /// Would it help to hear of somebody near `key`?
    pub fn is_gap(&self, now: Instant, key: Key) -> bool {
        let named = self.bits.map(|bits| self.of_part(part(key, bits)));
        named.is_some_and(|named| named.is_none_or(|named| now.since(named.when) >= FRESH))
    }

    /// Is somebody known in three of four parts? Chance fills the rest.
    pub fn is_full(&self) -> bool {
        self.bits.is_none_or(|bits| self.nodes.len() * 4 >= 3 << bits)
    }

    // Who is known in that part.
    fn of_part(&self, at: usize) -> Option<&Named> {
        self.nodes.get(*self.parts.get(at)? as usize)
    }
}

// The number of the part in which `key` lies.
fn part(key: Key, bits: u32) -> usize {
    let lead = key.leading().checked_shr(u64::BITS - bits).unwrap_or(0);
    usize::try_from(lead).expect("there are at most as many parts as a table has places")
}

// The place of nobody: there are never so many.
const NOBODY: u32 = u32::MAX;
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
