//! Whom a lookup may ask: nodes by distance, one from each network, and what became of those that
//! each answer named.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Lookup, Token};
use crate::base::addr::{is_private, network};
use crate::base::{Distance, NodeId};
use crate::dht::bucket::K;
use crate::dht::density::share;
use crate::dht::security::is_valid_id;

/// A node that may be asked, or was.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) distance: Distance,
    /// The share of the key space that is nearer than it.
    pub(super) share: f64,
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) state: State,
    pub(super) tries: usize,
    /// How long it takes to answer, if it is a contact of ours.
    pub(super) rtt: Option<Duration>,
    /// Its id follows from its address (BEP 42), or it is exempt.
    pub(super) valid_id: bool,
    /// Who named it; `None` for our own table.
    pub(super) informant: Option<usize>,
    pub(super) token: Option<Token>,
}

/// An endpoint of which only the address is known.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) addr: SocketAddr,
    pub(super) state: State,
    pub(super) tries: usize,
}

/// How far it is with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Untried,
    Asked,
    Stalled,
    Overdue,
    Answered,
    Dead,
}

/// What became of the nodes that one node named.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Informant {
    pub(super) alive: u32,
    pub(super) dead: u32,
}

impl Lookup {
    /// An address worth asking whose id is unknown.
    pub fn add_seed(&mut self, addr: SocketAddr) {
        let known = self.seeds.iter().any(|s| s.addr == addr)
            || self.candidates.iter().any(|c| c.addr == addr);
        if !known && self.seeds.len() < SEEDS_MAX {
            self.seeds.push(Seed { addr, state: State::Untried, tries: 0 });
        }
    }

    /// A node of our own that is worth asking.
    pub fn add_contact(&mut self, id: NodeId, addr: SocketAddr) {
        self.add(id, addr, None);
    }

    /// The same, and it has answered as quickly as that, if it is known.
    pub fn add_known(&mut self, id: NodeId, addr: SocketAddr, rtt: Option<Duration>) {
        if let Some(at) = self.add(id, addr, None) {
            self.candidates[at].rtt = rtt;
        }
    }

    pub(super) fn add(
        &mut self,
        id: NodeId,
        addr: SocketAddr,
        informant: Option<usize>,
    ) -> Option<usize> {
        if self.seeds.iter().any(|s| s.addr == addr) {
            return None;
        }
        let valid_id = is_valid_id(id, addr.ip());
        let distance = self.target.distance(id.key());
        let rival = self.candidates.iter().position(|c| {
            c.id == id || c.addr == addr || (!is_private(addr.ip()) && same_network(c.addr, addr))
        });
        if let Some(at) = rival {
            // One from each network. Who cannot choose his id has the better claim to the place.
            let rival = &self.candidates[at];
            let (stays, is_other) = (rival.distance, rival.id != id && rival.addr != addr);
            let yields = rival.state == State::Untried && valid_id && !rival.valid_id;
            if is_other {
                self.note_shunned(if yields { stays } else { distance }, network(addr.ip()));
            }
            if !yields {
                return None;
            }
            self.candidates.remove(at);
        }
        let at = self.candidates.partition_point(|c| c.distance < distance);
        if self.candidates.len() >= CANDIDATES_MAX {
            let spare = self.spare()?;
            if spare < at {
                return None;
            }
            self.candidates.remove(spare);
        }
        let candidate = Candidate {
            distance,
            share: share(&distance),
            id,
            addr,
            state: State::Untried,
            tries: 0,
            rtt: None,
            valid_id,
            informant,
            token: None,
        };
        self.candidates.insert(at, candidate);
        Some(at)
    }

    // Who goes when there is no room: the farthest that nobody waits for and that is none of the eight
    // closest that answered. Were those to stay that were asked, a lookup that has asked many on its way
    // could not hear of the nodes that it is looking for.
    fn spare(&self) -> Option<usize> {
        let mut nearer = self.candidates.iter().filter(|c| c.state == State::Answered).count();
        self.candidates.iter().rposition(|c| match c.state {
            State::Untried | State::Dead => true,
            State::Answered => {
                nearer -= 1;
                nearer >= K
            }
            State::Asked | State::Stalled | State::Overdue => false,
        })
    }

    /// The contacts that an answer named.
    pub fn on_contacts(
        &mut self,
        informant: Option<usize>,
        contacts: impl Iterator<Item = (NodeId, SocketAddr)>,
    ) {
        if self.announces.is_some() {
            return;
        }
        let mut named: Vec<_> = contacts
            .take(CONTACTS_READ_MAX)
            .map(|(id, addr)| (self.target.distance(id.key()), id, addr))
            .collect();
        named.sort_unstable();
        for (_, id, addr) in named.into_iter().take(CONTACTS_USED_MAX) {
            self.add(id, addr, informant);
        }
    }

    /// Did whoever named it name many dead nodes?
    pub(super) fn is_distrusted(&self, candidate: &Candidate) -> bool {
        let informant = candidate.informant.and_then(|at| self.informants.get(at));
        informant.is_some_and(|i| i.dead >= DEAD_NAMED_MAX && i.dead > 2 * i.alive)
    }

    pub(super) fn pass(&mut self, addr: &SocketAddr, from: State, to: State) {
        let candidates = self.candidates.iter_mut().map(|c| (c.addr, &mut c.state));
        let seeds = self.seeds.iter_mut().map(|s| (s.addr, &mut s.state));
        for (_, state) in candidates.chain(seeds).filter(|(a, s)| a == addr && **s == from) {
            *state = to;
        }
    }

    pub(super) fn note_named(&mut self, at: usize, alive: bool) {
        let informant = self.candidates[at].informant.and_then(|i| self.informants.get_mut(i));
        if let Some(informant) = informant {
            if alive {
                informant.alive += 1;
            } else {
                informant.dead += 1;
            }
        }
    }
}

fn same_network(a: SocketAddr, b: SocketAddr) -> bool {
    network(a.ip()) == network(b.ip())
}

/// Candidates remembered: a lookup asks a third of them.
pub(in crate::dht) const CANDIDATES_MAX: usize = 100;
/// Contacts of one answer that become candidates: eight are usual, twenty common.
const CONTACTS_USED_MAX: usize = 16;
// An npm node returns its whole table, unsorted; among this many we look for the closest.
pub(in crate::dht) const CONTACTS_READ_MAX: usize = 256;
/// Addresses without an id to start from.
pub(super) const SEEDS_MAX: usize = 16;
// With that many dead nodes named and not half as many live ones, an informant is asked about last.
const DEAD_NAMED_MAX: u32 = 3;
