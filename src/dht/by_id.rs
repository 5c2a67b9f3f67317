//! Entries by node id, found by their distance to a key: the closest first, without looking at the rest.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::base::{Key, NodeId};

/// The `count` entries closest to `target`, closest first, of those that are `usable`.
pub(super) fn closest<V>(
    nodes: &BTreeMap<NodeId, V>,
    target: Key,
    count: usize,
    usable: impl Fn(&V) -> bool,
) -> Vec<(NodeId, &V)> {
    let mut search = Search { nodes, usable, count, found: Vec::with_capacity(count.min(64)) };
    search.collect(target, 0);
    search.found
}

struct Search<'a, V, F> {
    nodes: &'a BTreeMap<NodeId, V>,
    usable: F,
    count: usize,
    found: Vec<(NodeId, &'a V)>,
}

impl<V, F: Fn(&V) -> bool> Search<'_, V, F> {
    // Those that share `floor` bits with `target`, closest first: whoever shares the most of all that are
    // left is on the other side of one bit, with all that are as close, and they are as close as their own
    // closest to a target there. Bits at which nobody branches off cost nothing: an attacker's ids share
    // as many as he likes.
    fn collect(&mut self, target: Key, floor: u32) {
        let here = NodeId::new(*target.as_bytes());
        if let Some(entry) = self.nodes.get(&here).filter(|entry| (self.usable)(entry)) {
            self.found.push((here, entry));
        }
        let (mut first, mut last) = (here, here);
        while self.found.len() < self.count {
            let shared = |id: &NodeId| target.shared_prefix_bits(id.key());
            let below = self.nodes.range(..first).next_back().map(|(id, _)| shared(id));
            let above = self.nodes.range((Excluded(last), Unbounded)).next();
            let nearest = below.max(above.map(|(id, _)| shared(id)));
            let Some(bit) = nearest.filter(|bit| *bit >= floor) else { return };
            self.collect(flipped(target, bit), bit + 1);
            (first, last) = part(target, bit);
        }
    }
}

// The first and the last id that share `bits` bits with `key`.
fn part(key: Key, bits: u32) -> (NodeId, NodeId) {
    let (mut first, mut last) = (*key.as_bytes(), *key.as_bytes());
    for (at, (low, high)) in (0u32..).zip(first.iter_mut().zip(&mut last)) {
        let rest = 0xff_u8.checked_shr(bits.saturating_sub(8 * at)).unwrap_or(0);
        (*low, *high) = (*low & !rest, *high | rest);
    }
    (NodeId::new(first), NodeId::new(last))
}

/// `key` with one bit changed, counted from the first.
pub(super) fn flipped(key: Key, bit: u32) -> Key {
    let mut bytes = *key.as_bytes();
    if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
        *byte ^= 0x80 >> (bit % 8);
    }
    Key::new(bytes)
}
