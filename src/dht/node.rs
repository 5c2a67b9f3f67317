//! The switchboard of one node: takes datagrams, timeouts and commands, hands each to the part that
//! knows, and collects what is to be sent and told.
//!
//! Decides nothing itself. Queries from others go to `server`, answers to `queries` and from there to
//! `lookups` and `table`; what the node does on its own account is in `maintenance`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::announcer::Announcer;
use super::bulk::Bulk;
use super::closest_cache::ClosestCache;
use super::config::Config;
use super::density::Size;
use super::event::{Event, LookupId, Output, PingId, SavedContact};
use super::flows::{FlowBudget, Flows, Passage, Priority};
use super::heard::Heard;
use super::keeper::Keeper;
use super::line::Line;
use super::lookup::Lookup;
use super::maintenance::Maintenance;
use super::queries::{Due, Pending, Purpose, Queries};
use super::reachability::Reach;
use super::security;
use super::server::{Inquiry, Server};
use super::stats::Stats;
use super::survey::Survey;
use super::table::{Admission, Near, Table};
use super::trace::Traces;
use super::unreachable::Unreachable;
use super::vote::AddressVote;
use crate::base::addr::{Family, canonical, is_sendable};
use crate::base::datagrams::DatagramQueue;
use crate::base::limits::{DATAGRAM_ITEM_MAX, DATAGRAM_READ_MAX};
use crate::base::{Instant, NodeId, Rng, Seed};
use crate::wire::krpc::{self, Body, ErrorReply, Message, Method, QueryHead, Reply};

/// One Mainline DHT node of one address family.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) id: NodeId,
    pub(super) rng: Rng,
    pub(super) table: Table,
    pub(super) queries: Queries,
    // Boxed: a node that looks for nothing keeps no room for eleven of them.
    pub(super) lookups: BTreeMap<LookupId, Box<Lookup>>,
    pub(super) lookup_ends: BTreeSet<(Instant, LookupId)>,
    pub(super) flows: Flows,
    pub(super) line: Line,
    pub(super) bulk: Bulk,
    pub(super) closest: ClosestCache,
    pub(super) announcer: Announcer,
    pub(super) next_name: u64,
    pub(super) server: Server,
    pub(super) keeper: Keeper,
    // Contacts of the other family that are still wanted.
    pub(super) wanted_beside: usize,
    pub(super) vote: AddressVote,
    pub(super) maintenance: Maintenance,
    pub(super) unreachable: Unreachable,
    pub(super) heard: Heard,
    pub(super) survey: Survey,
    pub(super) size: Size,
    pub(super) reach: Reach,
    pub(super) traces: Traces,
    pub(super) stats: Stats,
    // Reused from lookup to lookup.
    pub(super) near: Vec<Near>,
    self_addrs: Vec<SocketAddr>,
    pub(super) outbox: DatagramQueue,
    events: VecDeque<Event>,
}

/// How a running lookup is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LookupProgress {
    /// Nodes asked so far.
    pub asked: usize,
    /// Nodes that answered so far.
    pub answered: usize,
    /// Peers found so far.
    pub peers: usize,
    /// It has to wait before it may go on: others are first, or the budget of new flows is spent.
    pub held: bool,
}

/// What became of a query that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes {
        bytes: usize,
        opens_flow: bool,
    },
    /// Too many are under way.
    Full,
    /// It would be one new flow too many.
    NoBudget,
    /// That address heard from us just before.
    TooSoon(Instant),
    /// Nothing is ever sent there.
    Never,
}

impl Node {
    /// A node that knows nobody yet. Without `id` it makes one up, and a better one when it has
    /// learnt its address (BEP 42).
    pub fn new(config: Config, id: Option<NodeId>, seed: Seed, now: Instant) -> Node {
        let mut rng = Rng::from_seed(seed);
        let id = id.unwrap_or_else(|| NodeId::new(rng.array()));
        Node {
            id,
            table: Table::new(id, config.enforce_node_ids),
            queries: Queries::new(),
            lookups: BTreeMap::new(),
            lookup_ends: BTreeSet::new(),
            flows: Flows::new(config.flows_per_second),
            line: Line::default(),
            bulk: Bulk::default(),
            closest: ClosestCache::new(),
            announcer: Announcer::new(config.flows_per_second),
            next_name: 0,
            server: Server::new(now, config.family, id, &mut rng),
            keeper: Keeper::default(),
            wanted_beside: 0,
            vote: AddressVote::new(config.family),
            maintenance: Maintenance::new(now),
            unreachable: Unreachable::new(),
            heard: Heard::new(config.names_max),
            survey: Survey::default(),
            size: Size::default(),
            reach: Reach::new(now),
            traces: Traces::default(),
            stats: Stats::default(),
            near: Vec::new(),
            self_addrs: Vec::new(),
            outbox: DatagramQueue::new(DATAGRAMS_WAITING_MAX),
            events: VecDeque::new(),
            config,
            rng,
        }
    }

    /// A datagram came from `from`. Whatever is in it, the node carries on.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.handle_datagram_beside(now, from, datagram, None);
    }

    /// The same, with a node of the other family that runs beside this one: its contacts are told to
    /// whoever wants both (BEP 32).
    pub fn handle_datagram_beside(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        beside: Option<&Node>,
    ) {
        self.stats.received += 1;
        self.stats.received_bytes += datagram.len() as u64;
        let from = canonical(from);
        if !self.may_send(&from) {
            self.stats.dropped.bad_source += 1;
            return;
        }
        if datagram.len() > DATAGRAM_READ_MAX {
            self.stats.dropped.oversize += 1;
            return;
        }
        let Ok(message) = Message::decode(datagram) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        let inquiry = Inquiry { from, message: &message, len: datagram.len(), beside };
        match &message.body {
            Body::Query(query) => {
                self.note_querier(now, from.ip());
                self.on_query(now, &inquiry, Ok(query));
            }
            Body::BadQuery(fault) => self.on_query(now, &inquiry, Err(*fault)),
            Body::Reply(reply) => match self.queries.take(message.tid, &from) {
                Some(pending) => self.on_reply(now, pending, &message, reply),
                None => self.stats.dropped.unmatched += 1,
            },
            Body::Error(error) => match self.queries.take(message.tid, &from) {
                Some(pending) => self.on_error(now, pending, error),
                None => self.stats.dropped.unmatched += 1,
            },
        }
        self.feed_waiting(now);
        self.feed_bulk(now);
        self.renew_announces(now);
    }

    /// The time that `poll_timeout` named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.notice_sleep(now);
        while let Some(due) = self.queries.next_due(now) {
            self.on_due(now, due);
        }
        self.end_expired_lookups(now);
        self.keep_items(now);
        self.maintain(now);
        self.feed_waiting(now);
        self.feed_bulk(now);
        self.renew_announces(now);
    }

    /// The next thing for the host to do. Drained after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        let transmit = self.outbox.pop().map(|(to, datagram)| Output::Transmit { to, datagram });
        transmit.or_else(|| self.poll_event().map(Output::Event))
    }

    /// The datagrams that wait to be sent, for a host that sends them together and then clears the
    /// queue. What it leaves comes out of [`Node::poll_output`].
    pub fn datagrams(&mut self) -> &mut DatagramQueue {
        &mut self.outbox
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let queries = self.queries.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
        let lookups = self.lookup_ends.first().map_or(Instant::FAR_FUTURE, |(when, _)| *when);
        if self.bulk.is_due() {
            return Some(Instant::ZERO);
        }
        let waiting = self.waiting_until().unwrap_or(Instant::FAR_FUTURE);
        let kept = self.keeper.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
        let kept = kept.min(self.renewal_at().unwrap_or(Instant::FAR_FUTURE));
        Some(queries.min(lookups).min(waiting).min(kept).min(self.maintenance.poll_timeout()))
    }

    /// Asks whether a node is at `addr`; [`Event::PingDone`] tells.
    pub fn ping(&mut self, now: Instant, addr: SocketAddr) -> PingId {
        let ping = PingId(self.name());
        let addr = canonical(addr);
        let priority = Priority::Interactive;
        let is_on_its_way =
            match self.ask(now, priority, addr, None, Purpose::Ping(ping), &Method::Ping) {
                Sent::Yes { .. } => true,
                Sent::Never => false,
                Sent::Full | Sent::NoBudget | Sent::TooSoon(_) => {
                    self.line.wait_to_ping(ping, addr)
                }
            };
        if !is_on_its_way {
            self.emit(Event::PingDone { ping, id: None, rtt: None });
        }
        ping
    }

    /// Our own addresses, to which nothing is ever sent. An unspecified IP stands for loopback.
    pub fn set_self_addrs(&mut self, addrs: Vec<SocketAddr>) {
        self.self_addrs = addrs.into_iter().map(canonical).collect();
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        self.config.family
    }

    /// Who we are.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Contacts in the table; each has answered us.
    pub fn contact_count(&self) -> usize {
        self.table.len()
    }

    /// Lookups under way, our own among them.
    pub fn lookups_running(&self) -> usize {
        self.lookups.len()
    }

    /// The contacts in the table, farthest first.
    pub fn contacts(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        self.table.contacts().map(|contact| (contact.id, contact.addr()))
    }

    /// About how many nodes of this family answer in the whole network, from the lookups of late.
    pub fn estimated_nodes(&self) -> Option<u64> {
        self.size.answering().map(|nodes| nodes.round() as u64)
    }

    /// The contact count of each bucket, farthest first.
    pub fn bucket_sizes(&self) -> Vec<usize> {
        self.table.bucket_sizes().collect()
    }

    /// Torrents and peers that others stored here.
    pub fn stored(&self) -> (usize, usize) {
        self.server.peers.len()
    }

    /// Bytes that those peers take on the heap.
    pub fn stored_bytes(&self) -> usize {
        self.server.peers.heap_bytes()
    }

    /// Items that others stored here (BEP 44).
    pub fn stored_items(&self) -> usize {
        self.server.items.len()
    }

    /// What to remember across a restart; see [`Node::restore`].
    pub fn saved(&self) -> Vec<SavedContact> {
        let mut saved = self.table.saved();
        // If nobody has answered yet, what the last run knew is still the best there is.
        let hints = self.maintenance.hints().filter(|h| !self.table.has(h.id, &h.addr));
        let room = SAVED_MAX.saturating_sub(saved.len());
        saved.extend(hints.take(room).cloned());
        saved.truncate(SAVED_MAX);
        saved
    }

    /// The address at which other networks agree to see us.
    pub fn external_addr(&self) -> Option<IpAddr> {
        self.vote.winner().map(|addr| addr.ip())
    }

    /// What is left of the budget of new flows.
    pub fn flow_budget(&self) -> FlowBudget {
        self.flows.budget
    }

    /// Several nodes behind one router share one budget: the host tells each what is left of it.
    pub fn set_flow_budget(&mut self, budget: FlowBudget) {
        self.flows.budget = budget;
    }

    /// New flows that we may open now; `None` if there is no budget.
    pub fn flows_left(&self, now: Instant) -> Option<u64> {
        self.flows.left(now)
    }

    /// Endpoints that we wrote to in the last half minute: entries that a router holds for us.
    pub fn open_flows(&self, now: Instant) -> usize {
        self.flows.open_count(now)
    }

    /// Where others reach us, as far as we know: the bound endpoints, and the one that they see.
    pub fn reached_at(&self) -> Vec<SocketAddr> {
        let port = self.own_port();
        let mut at: Vec<_> = self.own_ips().map(|ip| SocketAddr::new(ip, port)).collect();
        at.extend(self.vote.winner());
        at.sort_unstable();
        at.dedup();
        at
    }

    /// Lookups of priority bulk: those that wait for their start, and those under way.
    pub fn bulk_lookups(&self) -> (usize, usize) {
        self.bulk.len()
    }

    /// Nodes remembered because they answered lookups in the last three quarters of an hour.
    pub fn closest_remembered(&self) -> usize {
        self.closest.len()
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn on_reply(
        &mut self,
        now: Instant,
        pending: Pending,
        message: &Message<'_>,
        reply: &Reply<'_>,
    ) {
        self.stats.replies_in += 1;
        self.stats.replies_late += u64::from(pending.is_late());
        self.on_answer(now);
        let rtt = now.since(pending.sent);
        self.stats.rtt.record(rtt);
        self.unreachable.on_alive(&pending.to);
        self.heard.on_asked(reply.id);
        if let Purpose::Lookup(_) = pending.purpose {
            self.queries.rtts.record(rtt);
        }
        self.admit(now, &pending, reply.id, rtt);
        if let Some(seen_at) = message.seen_at {
            self.on_seen_at(now, pending.to, canonical(seen_at));
        }
        self.trace_reply(now, &pending, reply);
        match pending.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_reply(now, lookup, &pending, reply),
            Purpose::Announce(lookup) => self.on_announced(now, lookup, &pending.to, Ok(())),
            Purpose::Ping(ping) => {
                self.emit(Event::PingDone { ping, id: Some(reply.id), rtt: Some(rtt) });
            }
            Purpose::Check => {
                let named = self.named_in(now, &pending.to, reply);
                self.note_named(now, &named);
            }
        }
    }

    fn admit(&mut self, now: Instant, pending: &Pending, id: NodeId, rtt: std::time::Duration) {
        let addr = pending.to;
        if self.is_public_router(&addr) {
            return;
        }
        let before = self.table.id_at(&addr).filter(|before| *before != id);
        let (admission, id_changed) = self.table.on_reply(now, id, addr, rtt);
        self.stats.id_changes += u64::from(id_changed);
        if let Some(before) = before {
            self.doubt_neighbours(now, before);
        }
        if admission == Admission::Added {
            self.on_contact_added(now, id, addr);
        }
    }

    fn on_error(&mut self, now: Instant, pending: Pending, error: &ErrorReply<'_>) {
        self.stats.errors_in.count(error.code);
        self.trace_error(now, &pending, error.code);
        self.on_answer(now);
        match pending.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_dead(now, lookup, &pending.to),
            Purpose::Announce(lookup) => {
                self.on_announced(now, lookup, &pending.to, Err(error.code));
            }
            Purpose::Ping(ping) => self.emit(Event::PingDone { ping, id: None, rtt: None }),
            Purpose::Check => {}
        }
    }

    fn on_due(&mut self, now: Instant, due: Due) {
        self.trace_due(now, &due);
        match due {
            Due::Stalled(pending) => match pending.purpose {
                Purpose::Lookup(lookup) => self.on_lookup_stalled(now, lookup, &pending.to),
                Purpose::Announce(lookup) => self.on_announce_stalled(now, lookup, &pending.to),
                Purpose::Ping(_) | Purpose::Check => {}
            },
            Due::Overdue(pending) => self.on_overdue(now, &pending),
            Due::Dead(pending) => self.on_dead(now, &pending),
        }
    }

    fn on_overdue(&mut self, now: Instant, pending: &Pending) {
        if self.was_heard_since(pending.sent) {
            self.unreachable.on_silent(now, pending.to);
        }
        if let Some(id) = pending.expect {
            self.heard.on_asked(id);
        }
        match pending.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_overdue(now, lookup, &pending.to),
            Purpose::Announce(lookup) => self.on_announce_overdue(now, lookup, &pending.to),
            Purpose::Ping(_) | Purpose::Check => {}
        }
    }

    fn on_dead(&mut self, now: Instant, pending: &Pending) {
        self.stats.timeouts += 1;
        // While the local link is dead, silence says nothing about others.
        if !self.is_link_dead_after(now, pending.sent) {
            self.table.on_failure(now, &pending.to, pending.sent);
            if let Some(id) = pending.expect {
                self.closest.on_silent(id, &pending.to);
            }
        }
        match pending.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_expired(now, lookup, &pending.to),
            Purpose::Ping(ping) => self.emit(Event::PingDone { ping, id: None, rtt: None }),
            Purpose::Announce(_) | Purpose::Check => {}
        }
    }

    // Only answers to our own queries come here: nobody else has a vote.
    fn on_seen_at(&mut self, now: Instant, voter: SocketAddr, seen_at: SocketAddr) {
        let before = self.external_addr();
        let Some(ip) = self.vote.vote(now, voter.ip(), seen_at) else { return };
        if before.is_some() {
            self.doubt_reachability(now);
        }
        self.emit(Event::ExternalAddress(ip));
        if security::is_valid_id(self.id, ip) {
            return;
        }
        self.id = security::make_id(ip, &mut self.rng);
        self.table.set_own(now, self.id);
        self.server.peers.set_own(self.id);
        self.server.items.set_own(self.id);
        self.maintenance.on_id_changed(now);
        self.emit(Event::IdChanged(self.id));
    }

    /// Sends a query, if one may go there now.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        priority: Priority,
        to: SocketAddr,
        expect: Option<NodeId>,
        purpose: Purpose,
        method: &Method<'_>,
    ) -> Sent {
        if !self.may_send(&to) {
            self.stats.dropped.bad_destination += 1;
            return Sent::Never;
        }
        if !self.queries.has_room(&to) {
            self.stats.dropped.queries_full += 1;
            return Sent::Full;
        }
        let opens_flow = match self.flows.admit(now, &to, priority) {
            Passage::Granted { is_new } => is_new,
            Passage::NoBudget => return Sent::NoBudget,
            Passage::TooSoon(until) => return Sent::TooSoon(until),
        };
        self.stats.flows.granted += u64::from(opens_flow);
        let rtt = self.table.rtt(&to).or_else(|| self.maintenance.hinted_rtt(&to));
        let tid = self.queries.begin(now, &mut self.rng, to, expect, purpose, rtt);
        let head = QueryHead { tid: &tid, id: self.id, read_only: self.is_read_only() };
        let want = self.want_of(method);
        Stats::count(&mut self.stats.queries_out, method);
        self.reach.on_sent(now, to.ip());
        self.trace_asked(now, purpose, to, expect);
        let len =
            self.outbox.push_with(to, |out| krpc::encode_query_wanting(out, head, method, want));
        self.on_queued(len);
        Sent::Yes { bytes: len.unwrap_or_default(), opens_flow }
    }

    /// A datagram was put into the outbox, or not if that is full. Nothing else is ever put there:
    /// queries go where `may_send` allows, answers to whence a query came through the same gate.
    pub(super) fn on_queued(&mut self, len: Option<usize>) {
        let Some(len) = len else {
            self.stats.dropped.outputs_full += 1;
            return;
        };
        assert!(len <= DATAGRAM_ITEM_MAX, "every encoder keeps to its limit");
        self.stats.sent += 1;
        self.stats.sent_bytes += len as u64;
    }

    /// Tells the host. Events are never dropped: each answers to a command or to a change of ours.
    pub(super) fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// May anything be sent to `addr`?
    pub(super) fn may_send(&self, addr: &SocketAddr) -> bool {
        Family::of(addr) == self.config.family && is_sendable(addr) && !self.is_self(addr)
    }

    /// Is `addr` one of our own addresses?
    pub(super) fn is_self(&self, addr: &SocketAddr) -> bool {
        let same = |own: &SocketAddr| {
            let everywhere = own.ip().is_unspecified() && addr.ip().is_loopback();
            own.port() == addr.port() && (everywhere || own.ip() == addr.ip())
        };
        self.self_addrs.iter().any(same)
            || self.vote.winner().is_some_and(|seen| {
                let own_port = self.self_addrs.iter().any(|own| own.port() == addr.port());
                seen.ip() == addr.ip() && (seen.port() == addr.port() || own_port)
            })
    }

    /// The addresses at which we can be reached, as far as we know them.
    pub(super) fn own_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let bound = self.self_addrs.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        bound
            .chain(self.external_addr())
            .filter(|ip| ip.is_ipv4() == (self.config.family == Family::V4))
    }

    /// The port that we listen on, as far as we know: sent along with `implied_port`.
    pub(super) fn own_port(&self) -> u16 {
        self.self_addrs.first().map_or(USUAL_PORT, |addr| addr.port())
    }

    pub(super) fn name(&mut self) -> u64 {
        self.next_name += 1;
        self.next_name
    }
}

/// Datagrams that wait for the host: it drains them after every call, or after a turn's worth of
/// some hundred calls, so this is never reached. Ten megabytes of the longest.
const DATAGRAMS_WAITING_MAX: usize = 8_192;
/// Contacts saved: a full table has some 300.
const SAVED_MAX: usize = 512;
const USUAL_PORT: u16 = 6881;
