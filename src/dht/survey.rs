//! Who is there in the parts of the key space where no lookup of ours has been? A contact that has to be
//! asked whether it is still there is asked for nodes near a key about which nobody was asked: it costs no
//! query more, and eight names come with the answer. They make the next lookup shorter; see `heard`.
//!
//! A node that has just started knows no names, so it asks some contacts before it is time.

use std::net::SocketAddr;

use super::flows::Priority;
use super::lookup::CONTACTS_READ_MAX;
use super::node::{Node, Sent};
use super::queries::Purpose;
use crate::base::addr::is_believable;
use crate::base::{Instant, Key, NodeId};
use crate::wire::krpc::{Method, Reply};

/// What is left to ask before it is time.
#[derive(Debug)]
pub(super) struct Survey {
    queries_left: u32,
}

impl Default for Survey {
    fn default() -> Self {
        Self { queries_left: QUERIES_MAX }
    }
}

impl Node {
    /// The nodes that an answer names and that may be asked.
    pub(super) fn named_in(
        &self,
        now: Instant,
        from: &SocketAddr,
        reply: &Reply<'_>,
    ) -> Vec<(NodeId, SocketAddr)> {
        let contacts = reply.contacts(self.config.family).filter(|(id, addr)| {
            *id != self.id
                && is_believable(addr, from.ip())
                && self.may_send(addr)
                && self.is_acceptable(*id, addr)
                && !self.unreachable.has(now, addr)
        });
        contacts.take(CONTACTS_READ_MAX).collect()
    }

    /// Remembers some of them for later lookups.
    pub(super) fn note_named(&mut self, now: Instant, named: &[(NodeId, SocketAddr)]) {
        for (id, addr) in named.iter().take(NAMES_OF_ANSWER_MAX) {
            if !self.table.has(*id, addr) && !self.closest.has(*id) {
                self.heard.on_named(now, *id, *addr);
            }
        }
    }

    /// Is a node that we know still there, and whom does it know?
    pub(super) fn recheck(&mut self, now: Instant, id: NodeId, addr: SocketAddr) -> Sent {
        let method = match self.unknown_key(now) {
            Some(target) => Method::FindNode { target },
            None => Method::Ping,
        };
        self.ask(now, Priority::Upkeep, addr, Some(id), Purpose::Check, &method)
    }

    /// Soon after a start nearly everything is unknown: some contacts are asked before it is time.
    pub(super) fn survey(&mut self, now: Instant) {
        for _ in 0..QUERIES_PER_TICK {
            let enough = self.survey.queries_left == 0 || self.heard.is_full();
            if enough || self.table.len() < CONTACTS_MIN {
                return;
            }
            let at = self.rng.below(self.table.len());
            let Some((id, addr)) = self.contacts().nth(at) else { return };
            if self.queries.is_asking(&addr) {
                continue;
            }
            if !matches!(self.recheck(now, id, addr), Sent::Yes { .. }) {
                return;
            }
            self.survey.queries_left -= 1;
        }
    }

    // A key about which it is worth asking; `None` if a few tries find none.
    fn unknown_key(&mut self, now: Instant) -> Option<Key> {
        let mut keys = std::iter::repeat_with(|| Key::new(self.rng.array())).take(KEYS_TRIED);
        keys.find(|key| self.heard.is_gap(now, *key))
    }
}

/// Queries before their time, after a start: with eight names an answer they fill half of what can be
/// remembered.
const QUERIES_MAX: u32 = 320;
// With a tick in half a second to five: no more than the flow budget leaves.
const QUERIES_PER_TICK: usize = 16;
// Fewer are a small network, where every contact is a neighbour of everybody.
const CONTACTS_MIN: usize = 32;
// Eight are usual; whoever names more is not to fill our memory with them.
const NAMES_OF_ANSWER_MAX: usize = 16;
const KEYS_TRIED: usize = 4;
