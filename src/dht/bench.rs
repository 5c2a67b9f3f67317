//! The routing table alone, for `benches/node`: no part of what the library promises.

use std::net::SocketAddr;
use std::time::Duration;

use super::table::{Admission, Near, Table};
use crate::base::{Instant, Key, NodeId};

/// A routing table that is told who answered.
#[derive(Debug)]
pub struct BareTable {
    table: Table,
    near: Vec<Near>,
}

impl BareTable {
    /// An empty one.
    pub fn new(own: NodeId) -> Self {
        Self { table: Table::new(own, false), near: Vec::new() }
    }

    /// How many contacts are in it.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `id` at `addr` has answered: true if it got a place that it had not before.
    pub fn on_reply(&mut self, now: Instant, id: NodeId, addr: SocketAddr) -> bool {
        let (admission, _) = self.table.on_reply(now, id, addr, Duration::from_millis(50));
        admission == Admission::Added
    }

    /// How many of the eight contacts closest to `target` there are.
    pub fn closest(&mut self, target: Key) -> usize {
        self.table.closest(target, 8, |_| true, &mut self.near);
        self.near.len()
    }
}
