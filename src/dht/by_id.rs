//! Entries by node id, found by their distance to a key: the closest first, without looking at the rest.

use std::collections::BTreeMap;

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
    // Those that share `floor` bits with `target`, closest first: at each bit from the last one that
    // anybody shares, those on the other side of it are as close as their own closest to a target there.
    fn collect(&mut self, target: Key, floor: u32) {
        let here = NodeId::new(*target.as_bytes());
        let shared = |id: &NodeId| target.shared_prefix_bits(id.key());
        let below = self.nodes.range(..here).next_back().map(|(id, _)| shared(id));
        let above = self.nodes.range(here..).next().map(|(id, _)| shared(id));
        let Some(deepest) = below.max(above).filter(|bits| *bits >= floor) else { return };
        if deepest == BITS
            && let Some(entry) = self.nodes.get(&here).filter(|entry| (self.usable)(entry))
        {
            self.found.push((here, entry));
        }
        for bit in (floor..deepest.saturating_add(1).min(BITS)).rev() {
            if self.found.len() >= self.count {
                return;
            }
            self.collect(flipped(target, bit), bit + 1);
        }
    }
}

/// `key` with one bit changed, counted from the first.
pub(super) fn flipped(key: Key, bit: u32) -> Key {
    let mut bytes = *key.as_bytes();
    if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
        *byte ^= 0x80 >> (bit % 8);
    }
    Key::new(bytes)
}

const BITS: u32 = 160;
