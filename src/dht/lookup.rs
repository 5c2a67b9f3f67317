//! One iterative lookup (BEP 5): ask the closest known nodes for closer ones until the eight closest
//! that are alive have answered. Pure: says whom to ask and takes what came; sends nothing.
//!
//! It opens with a few of the closest contacts that answer quickest, and some that others named. Then up
//! to five queries are under way, counted from the closest outwards, so a newly heard closer
//! node is asked at once. A stalled query gives up its place, yet its answer still counts. Datagrams
//! get lost: who is close and silent is asked once more before it counts as dead. The end is definite:
//! it waits for nobody who is overdue, unless that is how long answers take here, and everything in it is
//! bounded.

mod announcing;
mod candidates;
mod crowd;
mod errand;
mod spending;
mod walk;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::announcing::Announce;
pub(super) use self::candidates::{CANDIDATES_MAX, CONTACTS_READ_MAX};
use self::candidates::{Candidate, Informant, SEEDS_MAX, Seed, State};
use self::crowd::CROWD_ANNOUNCES_MAX;
pub(super) use self::errand::{Census, Errand, ItemPut, ItemSearch};
use self::spending::Spending;
use self::walk::ALPHA;
use super::bucket::K;
use super::density::Density;
use super::event::{LookupKind, LookupReport};
use super::flows::Priority;
use crate::base::{Distance, Instant, Key, NodeId};
use crate::wire::krpc::Method;

/// What the lookup wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this node.
    Ask { to: SocketAddr, expect: Option<NodeId> },
    /// Announce to this node.
    Announce { to: SocketAddr, id: NodeId, token: Token },
    /// Nobody is left to ask and too few have answered: give it more to start from.
    Starved,
    /// Nothing before something comes.
    Wait,
    /// It is over.
    Done,
}

/// A write token as it came, of a bounded length.
pub(super) type Token = Box<[u8]>;

/// One lookup under way.
#[derive(Debug)]
pub(super) struct Lookup {
    pub kind: LookupKind,
    pub target: Key,
    /// How urgent its queries are.
    pub priority: Priority,
    /// For the table's sake; the host hears nothing of it.
    pub own_account: bool,
    /// What it is after besides nodes.
    pub errand: Errand,
    /// What to announce; `None` for the port our datagrams come from.
    pub port: Option<u16>,
    /// We have the whole torrent that is announced.
    pub seed: bool,
    /// Our table shows that ids follow from addresses in this network (BEP 42).
    pub ids_follow: bool,
    /// How many nodes there should be around the target.
    pub density: Density,
    /// Half of all answers take longer.
    pub usual_rtt: Duration,
    started: Instant,
    // Sorted, closest first; no two with the same id or endpoint.
    candidates: Vec<Candidate>,
    // Nodes of which only the address is known: bootstrap nodes and hints.
    seeds: Vec<Seed>,
    informants: Vec<Informant>,
    // Named, but no candidates, for one in their network is.
    shunned: Vec<(Distance, IpAddr)>,
    // The candidates up to this share of the key space stand too close together.
    suspects_to: Option<f64>,
    peers: BTreeSet<SocketAddr>,
    // Nodes that were asked, and the queries that it took.
    asked: usize,
    queries: usize,
    answered: usize,
    // Answers that came when nobody waited for them any more.
    late: usize,
    in_flight: usize,
    starts: usize,
    announces: Option<Vec<Announce>>,
    announced: usize,
    hurried: bool,
    spending: Spending,
}

impl Lookup {
    pub fn new(now: Instant, kind: LookupKind, target: Key, own_account: bool) -> Self {
        Self {
            kind,
            target,
            priority: if own_account { Priority::Background } else { Priority::Interactive },
            own_account,
            errand: Errand::default(),
            port: None,
            seed: false,
            ids_follow: false,
            density: Density::default(),
            usual_rtt: Duration::from_millis(100),
            started: now,
            candidates: Vec::new(),
            seeds: Vec::new(),
            informants: Vec::new(),
            shunned: Vec::new(),
            suspects_to: None,
            peers: BTreeSet::new(),
            asked: 0,
            queries: 0,
            answered: 0,
            late: 0,
            in_flight: 0,
            starts: 0,
            announces: None,
            announced: 0,
            hurried: false,
            spending: Spending::default(),
        }
    }

    /// The query that it asks.
    pub fn method(&self) -> Method<'static> {
        match self.kind {
            LookupKind::FindNode => Method::FindNode { target: self.target },
            LookupKind::GetPeers(info_hash) => Method::get_peers(info_hash),
            // BEP 33: seeds have nothing for each other.
            LookupKind::Announce(info_hash) => {
                Method::GetPeers { info_hash, noseed: self.seed, scrape: false }
            }
            LookupKind::Scrape(info_hash) => {
                Method::GetPeers { info_hash, noseed: false, scrape: true }
            }
            LookupKind::GetItem | LookupKind::PutItem => {
                Method::Get { target: self.target, seq: self.newer_than() }
            }
            LookupKind::Sample => Method::SampleInfohashes { target: self.target },
        }
    }

    /// Does it keep an announce alive?
    pub fn is_renewal(&self) -> bool {
        self.own_account && matches!(self.kind, LookupKind::Announce(_))
    }

    /// Asked, answered and peers so far.
    pub fn progress(&self) -> (usize, usize, usize) {
        (self.asked, self.answered, self.peers.len())
    }

    /// When it ends whatever happens; later if it is held back meanwhile.
    pub fn expires_at(&self) -> Instant {
        let waits = self.asked == 0;
        let time = if waits { START_WAIT_MAX } else { LOOKUP_TIME_MAX };
        self.started + time + self.spending.held
    }

    /// True if it had to start again: those we know best do not answer.
    pub fn has_failed(&self) -> bool {
        self.starts > 0
    }

    /// True while it could use more nodes to start from.
    pub fn is_hungry(&self) -> bool {
        self.announces.is_none() && self.answered < K
    }

    /// What to do now.
    pub fn next(&mut self) -> Next {
        if self.announces.is_some() {
            return self.next_announce();
        }
        if self.hurried {
            return self.search_ended();
        }
        if self.candidates.is_empty() && self.seeds.is_empty() {
            return Next::Wait;
        }
        let may_ask = self.queries < QUERIES_PER_LOOKUP_MAX
            && self.in_flight < IN_FLIGHT_MIN + IN_FLIGHT_PER_ANSWER * self.answered;
        if may_ask && let Some(seed) = self.seeds.iter_mut().find(|s| s.state == State::Untried) {
            seed.state = State::Asked;
            seed.tries += 1;
            let (to, is_first) = (seed.addr, seed.tries == 1);
            self.on_ask(is_first);
            return Next::Ask { to, expect: None };
        }
        // At first those whose informant is not known to name dead nodes; the others only if
        // nothing else is left.
        for trusting in [false, true] {
            let walk = self.opening().unwrap_or_else(|| self.walk(trusting));
            if let Some(at) = walk.ask {
                if !may_ask {
                    let over = self.queries >= QUERIES_PER_LOOKUP_MAX && !walk.blocked;
                    return if over { self.search_ended() } else { Next::Wait };
                }
                let candidate = &mut self.candidates[at];
                candidate.state = State::Asked;
                candidate.tries += 1;
                let (to, expect) = (candidate.addr, Some(candidate.id));
                let is_first = candidate.tries == 1;
                self.on_ask(is_first);
                return Next::Ask { to, expect };
            }
            if walk.blocked {
                return Next::Wait;
            }
            if walk.enough && self.grows_suspicious() {
                return self.next();
            }
            if walk.enough {
                return self.search_ended();
            }
        }
        if self.seeds.iter().any(|s| matches!(s.state, State::Asked | State::Stalled)) {
            return Next::Wait;
        }
        self.next_without_anybody()
    }

    // Nobody is left to ask, nor waited for.
    fn next_without_anybody(&mut self) -> Next {
        let starts_max = if self.answered == 0 { STARTS_MAX } else { REFILLS_MAX };
        if self.answered < K && self.starts < starts_max {
            self.starts += 1;
            return Next::Starved;
        }
        // Where answers take longer than they are waited for, the first ones are still on their way.
        let come_late = 2 * self.late >= self.answered;
        if come_late && self.in_flight > 0 && !self.own_account {
            return Next::Wait;
        }
        self.search_ended()
    }

    fn on_ask(&mut self, is_first: bool) {
        self.asked += usize::from(is_first);
        self.queries += 1;
        self.in_flight += 1;
    }

    /// The query could not be sent now: it will be asked again.
    pub fn on_refused(&mut self, to: &SocketAddr, for_ever: bool) {
        let candidates = self.candidates.iter_mut().map(|c| (c.addr, &mut c.state, &mut c.tries));
        let seeds = self.seeds.iter_mut().map(|s| (s.addr, &mut s.state, &mut s.tries));
        let asked = candidates.chain(seeds).find(|(a, s, _)| a == to && **s == State::Asked);
        let Some((_, state, tries)) = asked else { return };
        *tries -= 1;
        *state = match (for_ever, *tries) {
            (true, _) => State::Dead,
            (false, 0) => State::Untried,
            (false, _) => State::Overdue,
        };
        self.asked -= usize::from(*tries == 0);
        self.queries -= 1;
        self.in_flight -= 1;
    }

    /// `from`, known as `expect`, answered as `id`. Contacts are offered by `on_contacts`.
    pub fn on_reply(
        &mut self,
        from: &SocketAddr,
        id: NodeId,
        token: Option<&[u8]>,
    ) -> Option<usize> {
        self.in_flight = self.in_flight.saturating_sub(1);
        // Who was asked twice may answer twice.
        let again = |c: &Candidate| c.addr == *from && c.state == State::Answered;
        self.answered += usize::from(!self.candidates.iter().any(again));
        let token = token.filter(|t| t.len() <= TOKEN_LEN_MAX).map(Box::from);
        self.seeds.retain(|s| s.addr != *from);
        let mut at = self.candidates.iter().position(|c| c.addr == *from);
        if let Some(known) = at
            && self.candidates[known].id != id
        {
            // Whoever named it lied, or it changed: it counts as what it says it is.
            self.note_named(known, false);
            self.candidates.remove(known);
            at = None;
        }
        let at = at.or_else(|| self.add(id, *from, None));
        self.informants.push(Informant::default());
        let informant = self.informants.len() - 1;
        if let Some(at) = at {
            if self.candidates[at].state != State::Answered {
                self.note_named(at, true);
            }
            self.candidates[at].state = State::Answered;
            self.candidates[at].token = token;
            self.announce_late(at);
        }
        Some(informant).filter(|_| self.informants.len() <= 2 * QUERIES_PER_LOOKUP_MAX)
    }

    /// The answer that is about to be told came when nobody waited for it any more.
    pub fn note_late(&mut self) {
        self.late += 1;
    }

    /// The peers that it was told.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.peers.iter().copied()
    }

    /// The peers among `peers` that are new.
    pub fn on_peers(&mut self, peers: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let room = PEERS_PER_LOOKUP_MAX - self.peers.len();
        peers.filter(|peer| self.peers.insert(*peer)).take(room).collect()
    }

    /// The query to `to` has stalled: another may take its place.
    pub fn on_stalled(&mut self, to: &SocketAddr) {
        self.pass(to, State::Asked, State::Stalled);
    }

    /// Nobody waits for `to` any more.
    pub fn on_overdue(&mut self, to: &SocketAddr) {
        self.pass(to, State::Stalled, State::Overdue);
        let at = self.candidates.iter().position(|c| c.addr == *to && c.state == State::Overdue);
        if let Some(at) = at {
            self.note_named(at, false);
        }
    }

    /// `to` has been silent before: it is not asked once more.
    pub fn give_up(&mut self, to: &SocketAddr) {
        self.pass(to, State::Overdue, State::Dead);
    }

    /// A query to `to` is over without an answer. Another to it may be under way.
    pub fn on_expired(&mut self, to: &SocketAddr) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.pass(to, State::Overdue, State::Dead);
    }

    /// `to` answered with an error, or cannot answer any more.
    pub fn on_dead(&mut self, to: &SocketAddr) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for state in [State::Asked, State::Stalled, State::Overdue] {
            self.pass(to, state, State::Dead);
        }
    }

    /// It is starved and was given what there is. If nobody answered at all, whoever we started from
    /// may be asked once more.
    pub fn start_again(&mut self) {
        if self.answered > 0 {
            return;
        }
        let own = self.candidates.iter_mut().filter(|c| c.informant.is_none());
        let states = own.map(|c| &mut c.state).chain(self.seeds.iter_mut().map(|s| &mut s.state));
        for state in states.filter(|s| matches!(**s, State::Overdue | State::Dead)) {
            *state = State::Untried;
        }
    }

    /// Its time is over. False if there is nothing left to do; else it announces to those that
    /// answered, and a little more time is needed.
    pub fn hurry(&mut self) -> bool {
        let announces = self.stores() && self.answered > 0;
        announces && !std::mem::replace(&mut self.hurried, true)
    }

    fn search_ended(&mut self) -> Next {
        if !self.stores() {
            return Next::Done;
        }
        let demand_valid = self.demands_valid_ids();
        let mut counted = Vec::with_capacity(K);
        let mut chosen = self.chosen_of_crowd();
        for (at, candidate) in self.candidates.iter().enumerate().skip(self.crowd()) {
            if counted.len() == K || chosen.len() == ANNOUNCES_MAX {
                break;
            }
            if candidate.state != State::Answered {
                continue;
            }
            if self.counts(candidate, demand_valid) {
                counted.push(candidate.addr);
            }
            if candidate.token.is_some() {
                chosen.push(at);
            }
        }
        if !self.is_to_be_stored(&counted) {
            return Next::Done;
        }
        let mut announces = Vec::with_capacity(chosen.len());
        for at in chosen {
            let candidate = &mut self.candidates[at];
            if let Some(token) = candidate.token.take() {
                announces.push(Announce::new(candidate.id, candidate.addr, token));
            }
        }
        self.announces = Some(announces);
        self.next_announce()
    }

    /// What it did.
    pub fn report(&self, now: Instant) -> LookupReport {
        let answered = || self.candidates.iter().filter(|c| c.state == State::Answered);
        let (copies, refused, scrape) = self.errand_report();
        LookupReport {
            kind: self.kind,
            asked: self.asked,
            queries: self.queries,
            answered: self.answered,
            dead: self.asked.saturating_sub(self.answered),
            closest: answered().next().map(|c| c.distance),
            nodes: answered().take(K).map(|c| (c.id, c.addr)).collect(),
            crowd: self.crowd_answered(),
            peers: self.peers.len(),
            announced: self.announced,
            refused,
            copies,
            scrape,
            cost: self.spending.cost,
            took: now.since(self.started),
        }
    }
}

/// Queries of one lookup. One in five contacts alive needs 150.
pub(super) const QUERIES_PER_LOOKUP_MAX: usize = 200;
/// Peers named by one lookup: more than any client dials.
pub(super) const PEERS_PER_LOOKUP_MAX: usize = 2_000;
// While nobody answers, no more than this many are under way: the link may be dead. Of 24 nodes
// one answers even if four in five are gone.
const IN_FLIGHT_MIN: usize = 24;
// And for each answer so many more: the link is not dead, but it may lose most of what it carries. With
// three of them, a lookup in a network with three in ten dead and seven in ten datagrams lost stands
// still for seconds, until those that were lost count as dead.
const IN_FLIGHT_PER_ANSWER: usize = 8;
// Beyond the eight that count, those between them whose ids break BEP 42.
const ANNOUNCES_MAX: usize = 16;
// BEP 5 allows any length; real tokens have 4 to 20 bytes, and we do not echo kilobytes.
const TOKEN_LEN_MAX: usize = 64;
// If nobody answers at all, those we started from are asked again this often.
const STARTS_MAX: usize = 3;
// If too few answered, it is given more of the table once.
const REFILLS_MAX: usize = 1;
// Without anybody to ask: as long as names take to resolve.
const START_WAIT_MAX: Duration = Duration::from_secs(30);
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(60);

const _: () =
    assert!(CROWD_ANNOUNCES_MAX + K <= ANNOUNCES_MAX, "a crowd leaves room for the others");
const _: () = assert!(IN_FLIGHT_MIN > ALPHA + SEEDS_MAX, "seeds leave room for contacts");

#[cfg(test)]
mod tests;
