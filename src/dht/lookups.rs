//! Runs the lookups of a node: starts them, sends what they ask for, feeds them what comes, and
//! tells the host what they found.
//!
//! A lookup never waits for the bootstrap: it starts from the table, from the contacts of the last
//! run and from the bootstrap nodes, whatever there is, and from what is learnt while it waits.

use std::net::SocketAddr;

use super::bucket::K;
use super::event::{Announcement, Event, LookupId, LookupKind};
use super::flows::Priority;
use super::lookup::{CANDIDATES_MAX, Lookup, Next};
use super::node::{LookupProgress, Node, Sent};
use super::queries::{Pending, Purpose};
use super::security::is_valid_id;
use crate::base::addr::is_believable;
use crate::base::{InfoHash, Instant, Key, NodeId};
use crate::wire::krpc::Reply;

impl Node {
    /// Finds the nodes closest to `target`.
    pub fn find_node(&mut self, now: Instant, target: NodeId) -> LookupId {
        self.start_lookup(now, LookupKind::FindNode, target.key(), false)
    }

    /// Finds the peers of a torrent; [`Event::PeersFound`] tells as they come.
    pub fn get_peers(&mut self, now: Instant, info_hash: InfoHash) -> LookupId {
        self.start_lookup(now, LookupKind::GetPeers(info_hash), info_hash.key(), false)
    }

    /// The same, with a priority: one of many is looked up a few at a time.
    pub fn get_peers_at(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        priority: Priority,
    ) -> LookupId {
        let how = Announcement { priority, ..Announcement::default() };
        self.start_lookup_as(now, LookupKind::GetPeers(info_hash), info_hash.key(), how)
    }

    /// Finds the peers of a torrent and announces us to the closest nodes: at `port`, or at the
    /// port from which our datagrams come.
    pub fn announce(&mut self, now: Instant, info_hash: InfoHash, port: Option<u16>) -> LookupId {
        self.announce_as(now, info_hash, Announcement { port, ..Announcement::default() })
    }

    /// The same, with all that can be said about it.
    pub fn announce_as(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        mut how: Announcement,
    ) -> LookupId {
        how.port = how.port.filter(|port| *port != 0);
        self.store_own(now, info_hash, how.port.unwrap_or_else(|| self.own_port()), how.seed);
        let id = LookupId(self.name());
        self.on_announce_ordered(now, id, info_hash, how);
        self.start_named(now, id, LookupKind::Announce(info_hash), info_hash.key(), how);
        id
    }

    /// Ends a lookup without a word.
    pub fn cancel(&mut self, lookup: LookupId) {
        self.bulk.forget(lookup);
        self.traces.end(lookup);
        self.on_announce_cancelled(lookup);
        if let Some(ended) = self.lookups.remove(&lookup) {
            self.line.forget(ended.priority, lookup);
        }
    }

    /// How a lookup is doing; `None` if it is over.
    pub fn lookup_progress(&self, lookup: LookupId) -> Option<LookupProgress> {
        if self.bulk.is_waiting(lookup) {
            // Where nobody is known there is nothing to wait for.
            let held = self.table.len() > 0;
            return Some(LookupProgress { held, ..LookupProgress::default() });
        }
        let lookup = self.lookups.get(&lookup)?;
        let (asked, answered, peers) = lookup.progress();
        Some(LookupProgress { asked, answered, peers, held: lookup.is_held_back() })
    }

    pub(super) fn start_lookup(
        &mut self,
        now: Instant,
        kind: LookupKind,
        target: Key,
        own_account: bool,
    ) -> LookupId {
        let id = LookupId(self.name());
        let mut lookup = Lookup::new(now, kind, target, own_account);
        if own_account && target == self.id.key() {
            lookup.priority = Priority::Upkeep;
        }
        self.begin_lookup(now, id, lookup);
        id
    }

    /// A lookup starts, from whatever we know.
    pub(super) fn begin_lookup(&mut self, now: Instant, id: LookupId, mut lookup: Lookup) {
        let (kind, target) = (lookup.kind, lookup.target);
        lookup.ids_follow = self.config.enforce_node_ids || self.table.ids_follow();
        lookup.density = self.size.density();
        lookup.usual_rtt = self.queries.rtts.percentile(0.5);
        self.table.on_lookup(now, target);
        self.feed(now, &mut lookup);
        if let LookupKind::GetPeers(info_hash)
        | LookupKind::Announce(info_hash)
        | LookupKind::Scrape(info_hash) = kind
        {
            self.find_stored(now, id, &mut lookup, info_hash);
        }
        self.lookup_ends.insert((lookup.expires_at(), id));
        self.lookups.insert(id, Box::new(lookup));
        self.pump(now, id);
    }

    // Ourselves, at the port that we listen on or announce.
    fn is_own_peer(&self, peer: &SocketAddr, announced: Option<u16>) -> bool {
        let at_port = announced == Some(peer.port()) && self.own_ips().any(|ip| ip == peer.ip());
        at_port || self.is_self(peer)
    }

    // What was announced to ourselves is the first answer: in a network of two, the only one.
    fn find_stored(
        &mut self,
        now: Instant,
        id: LookupId,
        lookup: &mut Lookup,
        info_hash: InfoHash,
    ) {
        let stored = self.stored_peers(now, info_hash);
        let port = lookup.port;
        let others = stored.into_iter().filter(|peer| !self.is_own_peer(peer, port));
        let peers = lookup.on_peers(others);
        if !peers.is_empty() {
            self.emit(Event::PeersFound { lookup: id, peers });
        }
    }

    // Do our settings let us ask this node?
    pub(super) fn is_acceptable(&self, id: NodeId, addr: &SocketAddr) -> bool {
        !self.config.enforce_node_ids || is_valid_id(id, addr.ip())
    }

    // A renewal leaves out whoever was silent once: it comes again, and its eight may be others.
    fn is_passed_over(&self, now: Instant, is_renewal: bool, addr: &SocketAddr) -> bool {
        self.unreachable.has(now, addr)
            || (is_renewal && self.unreachable.has_been_silent(now, addr))
    }

    // Whom to start from: the closest contacts, the closest that answered other lookups, and the closest
    // that were named; with few of them, also those of the last run and the bootstrap nodes. If that was
    // not enough, whoever is in the table, silent or not. A renewal knows who answered the last one.
    fn feed(&mut self, now: Instant, lookup: &mut Lookup) {
        if lookup.own_account && self.table.is_gap(lookup.target) {
            // Nodes that came together may know each other alone. They are asked first, near or not.
            self.maintenance.routers().iter().for_each(|router| lookup.add_seed(*router));
        }
        let mut near = std::mem::take(&mut self.near);
        let failed = lookup.has_failed();
        let count = if failed { CANDIDATES_MAX } else { STARTING_CONTACTS };
        let usable = |c: &super::bucket::Contact| failed || !self.unreachable.has(now, &c.addr());
        self.table.closest(lookup.target, count, usable, &mut near);
        for contact in near.drain(..) {
            let rtt = self.table.rtt(&contact.addr);
            lookup.add_known(contact.id, contact.addr, rtt);
        }
        // A lookup that failed asked for many; idle nodes do not keep the room for them.
        near.shrink_to(STARTING_CONTACTS);
        self.near = near;
        let is_renewal = lookup.is_renewal();
        for (id, addr, rtt) in self.closest.closest(now, lookup.target, STARTING_ANSWERERS) {
            if self.is_acceptable(id, &addr) && !self.is_passed_over(now, is_renewal, &addr) {
                lookup.add_known(id, addr, Some(rtt));
            }
        }
        let names = if is_renewal { 0 } else { STARTING_NAMES };
        for (id, addr) in self.heard.closest(now, lookup.target, names) {
            if self.is_acceptable(id, &addr) && !self.unreachable.has(now, &addr) {
                lookup.add_contact(id, addr);
            }
        }
        if self.table.len() < K || failed {
            for hint in self.maintenance.closest_hints(lookup.target) {
                if self.is_acceptable(hint.id, &hint.addr) {
                    lookup.add_contact(hint.id, hint.addr);
                }
            }
            for router in self.maintenance.routers() {
                lookup.add_seed(*router);
            }
        }
    }

    /// New places to start from have come: whoever has too few uses them at once.
    pub(super) fn feed_all(&mut self, now: Instant) {
        let ids: Vec<LookupId> =
            self.lookups.iter().filter(|(_, l)| l.is_hungry()).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(mut lookup) = self.lookups.remove(&id) {
                self.feed(now, &mut lookup);
                self.lookups.insert(id, lookup);
                self.pump(now, id);
            }
        }
    }

    /// Somebody to ask whose id is unknown: for lookups that have too few.
    pub(super) fn offer_seed(&mut self, now: Instant, addr: SocketAddr) {
        let hungry = self.lookups.iter_mut().filter(|(_, l)| l.is_hungry());
        let ids: Vec<LookupId> = hungry
            .map(|(id, lookup)| {
                lookup.add_seed(addr);
                *id
            })
            .collect();
        ids.into_iter().for_each(|id| self.pump(now, id));
    }

    // Sends whatever the lookup wants sent, and ends it when it says so.
    pub(super) fn pump(&mut self, now: Instant, id: LookupId) {
        let Some(mut lookup) = self.lookups.remove(&id) else { return };
        loop {
            let next = lookup.next();
            match next {
                Next::Ask { to, expect } => {
                    let method = lookup.method();
                    let (priority, purpose) = (lookup.priority, Purpose::Lookup(id));
                    let sent = self.ask(now, priority, to, expect, purpose, &method);
                    if !matches!(sent, Sent::Yes { .. }) {
                        lookup.on_refused(&to, sent == Sent::Never);
                    }
                    if self.waits_after(now, id, &mut lookup, sent) {
                        break;
                    }
                }
                Next::Announce { to, id: node, token } => {
                    let sent = self.send_announce(now, id, &lookup, to, node, &token);
                    if !matches!(sent, Sent::Yes { .. }) {
                        lookup.on_announce_refused(&to, sent == Sent::Never);
                    }
                    if self.waits_after(now, id, &mut lookup, sent) {
                        break;
                    }
                }
                Next::Starved => {
                    self.feed(now, &mut lookup);
                    lookup.start_again();
                }
                Next::Wait => break,
                Next::Done => return self.finish(now, id, &lookup),
            }
        }
        self.lookups.insert(id, lookup);
    }

    fn send_announce(
        &mut self,
        now: Instant,
        id: LookupId,
        lookup: &Lookup,
        to: SocketAddr,
        node: NodeId,
        token: &[u8],
    ) -> Sent {
        if !self.is_acceptable(node, &to) {
            return Sent::Never;
        }
        let Some(method) = self.store_method(lookup, &to, token) else { return Sent::Never };
        self.ask(now, lookup.priority, to, Some(node), Purpose::Announce(id), &method)
    }

    fn finish(&mut self, now: Instant, id: LookupId, lookup: &Lookup) {
        self.traces.end(id);
        self.line.forget(lookup.priority, id);
        self.bulk.forget(id);
        let report = lookup.report(now);
        self.size.on_lookup(&lookup.spread(), report.asked, report.answered);
        self.stats.crowded_lookups += u64::from(report.crowd > 0);
        let is_renewal = self.on_announce_over(now, id, lookup.kind, report.announced, report.cost);
        if let (true, LookupKind::Announce(info_hash)) = (is_renewal, lookup.kind) {
            self.tell_renewed(now, info_hash, lookup);
        } else if lookup.own_account {
            self.on_own_lookup_done(now, id);
            self.on_kept(now, id, lookup);
        } else {
            self.emit(Event::LookupDone { lookup: id, report });
        }
    }

    pub(super) fn end_expired_lookups(&mut self, now: Instant) {
        while let Some((when, id)) = self.lookup_ends.first().copied()
            && when <= now
        {
            self.lookup_ends.pop_first();
            let Some(lookup) = self.lookups.get_mut(&id) else { continue };
            lookup.settle_held(now);
            if lookup.expires_at() > now {
                self.lookup_ends.insert((lookup.expires_at(), id));
            } else if lookup.hurry() {
                self.lookup_ends.insert((now + super::queries::HARD_TIMEOUT, id));
                self.pump(now, id);
            } else if let Some(lookup) = self.lookups.remove(&id) {
                self.finish(now, id, &lookup);
            }
        }
    }

    pub(super) fn on_lookup_reply(
        &mut self,
        now: Instant,
        id: LookupId,
        asked: &Pending,
        reply: &Reply<'_>,
    ) {
        let Some(mut lookup) = self.lookups.remove(&id) else { return };
        let (from, rtt) = (&asked.to, now.since(asked.sent));
        if asked.is_overdue() {
            lookup.note_late();
        }
        if !lookup.own_account || lookup.is_renewal() {
            self.closest.on_answer(now, reply.id, *from, rtt);
        }
        let informant = lookup.on_reply(from, reply.id, reply.token);
        let is_renewal = lookup.is_renewal();
        let mut contacts = self.named_in(now, from, reply);
        self.note_named(now, &contacts);
        contacts.retain(|(_, addr)| !self.is_passed_over(now, is_renewal, addr));
        lookup.on_contacts(informant, contacts.into_iter());
        let port = lookup.port;
        let believable = |peer: &SocketAddr| is_believable(peer, from.ip());
        let peers = reply.peers().filter(|p| believable(p) && !self.is_own_peer(p, port));
        let peers = lookup.on_peers(peers);
        if !peers.is_empty() && !lookup.own_account {
            self.emit(Event::PeersFound { lookup: id, peers });
        }
        self.on_errand_reply(now, id, &mut lookup, *from, reply);
        self.on_contacts_beside(from, reply);
        self.lookups.insert(id, lookup);
        self.pump(now, id);
    }

    pub(super) fn on_lookup_stalled(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        self.with_lookup(now, id, |lookup| lookup.on_stalled(to));
    }

    pub(super) fn on_lookup_overdue(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        // Two lookups that ask the same node have asked it twice.
        let in_vain = self.queries.asking(to) > 1
            || self.unreachable.has(now, to)
            || !self.queries.second_tries.pay()
            || !self.unreachable.may_retry(now, to);
        self.with_lookup(now, id, |lookup| {
            lookup.on_overdue(to);
            if in_vain {
                lookup.give_up(to);
            }
        });
    }

    pub(super) fn on_lookup_expired(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        self.with_lookup(now, id, |lookup| lookup.on_expired(to));
    }

    pub(super) fn on_lookup_dead(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        self.with_lookup(now, id, |lookup| lookup.on_dead(to));
    }

    pub(super) fn on_announced(
        &mut self,
        now: Instant,
        id: LookupId,
        from: &SocketAddr,
        answer: Result<(), i64>,
    ) {
        self.with_lookup(now, id, |lookup| lookup.on_announce_answered(from, answer));
    }

    pub(super) fn on_announce_lost(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        self.with_lookup(now, id, |lookup| lookup.on_announce_refused(to, true));
    }

    pub(super) fn on_announce_stalled(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        self.with_lookup(now, id, |lookup| lookup.on_announce_stalled(to));
    }

    pub(super) fn on_announce_overdue(&mut self, now: Instant, id: LookupId, to: &SocketAddr) {
        self.with_lookup(now, id, |lookup| lookup.on_announce_overdue(to));
    }

    fn with_lookup(&mut self, now: Instant, id: LookupId, change: impl FnOnce(&mut Lookup)) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            change(lookup);
            self.pump(now, id);
        }
    }
}

// 24 = eight results of a warm table, and as many again twice over for those that are gone.
const STARTING_CONTACTS: usize = 24;
// Where the same target was looked up before: as many as it ended with.
const STARTING_ANSWERERS: usize = K;
// Of those that we have only heard of; with few of them asked it does no harm that many are gone.
const STARTING_NAMES: usize = 12;
