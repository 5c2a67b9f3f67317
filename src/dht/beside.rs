//! Help for the node of the other family that runs beside this one (BEP 32): while it knows nobody, our
//! queries for nodes ask for contacts of both families, and what comes is passed on.
//!
//! Bounded by what was asked for: a host without IPv6 asks again and again, more and more seldom, and
//! between those times nothing is spent on it. Whoever is passed on still has to answer a ping.

use std::net::SocketAddr;

use super::event::{Event, LookupKind};
use super::node::Node;
use crate::base::Instant;
use crate::base::addr::{Family, is_believable};
use crate::wire::krpc::{Method, Reply, Want};

impl Node {
    /// The node beside us knows nobody: contacts of its family are wanted. They come as
    /// [`Event::ContactsBeside`].
    pub fn seek_beside(&mut self, now: Instant) {
        self.wanted_beside = CONTACTS_BESIDE;
        if self.table.len() > 0 {
            let own = self.id.key();
            self.start_lookup(now, LookupKind::FindNode, own, true);
        }
    }

    /// What a query asks for, beyond the contacts of our own family.
    pub(super) fn want_of(&self, method: &Method<'_>) -> Option<Want> {
        let asks = self.wanted_beside > 0 && matches!(method, Method::FindNode { .. });
        asks.then_some(Want::BOTH)
    }

    /// Passes on what an answer says about the other family.
    pub(super) fn on_contacts_beside(&mut self, from: &SocketAddr, reply: &Reply<'_>) {
        if self.wanted_beside == 0 {
            return;
        }
        let other = match self.config.family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let contacts = reply.contacts(other).map(|(_, addr)| addr);
        let contacts: Vec<SocketAddr> = contacts
            .filter(|addr| is_believable(addr, from.ip()))
            .take(CONTACTS_PER_ANSWER.min(self.wanted_beside))
            .collect();
        if !contacts.is_empty() {
            self.wanted_beside -= contacts.len();
            self.emit(Event::ContactsBeside(contacts));
        }
    }
}

/// Contacts that are enough to join from.
const CONTACTS_BESIDE: usize = 32;
/// Of one answer: nobody chooses alone where the other node begins.
const CONTACTS_PER_ANSWER: usize = 4;
