//! Answers other nodes' queries (BEP 5, 32, 33, 42, 43, 44, 51): one datagram out for one in, of
//! bounded size.
//!
//! Nothing is sent for junk, nor for an error or an answer; an address that asks too often is not
//! heard, and errors have a budget of their own. A querier gets no place in the table for asking: it
//! is pinged, and has to answer.

mod stores;

use std::net::SocketAddr;

use super::bucket::K;
use super::item_store::ItemStore;
use super::limiter::{Limiter, Room};
use super::node::Node;
use super::peer_store::PeerStore;
use super::sampling::Sampling;
use super::stats::Stats;
use super::table::{Near, Table};
use super::tokens::{TOKEN_LEN, Tokens};
use crate::base::addr::{Family, PackedAddr, is_private};
use crate::base::bounded::TokenBucket;
use crate::base::limits::DATAGRAM_SEND_MAX;
use crate::base::{Instant, Key, NodeId, Rng};
use crate::wire::bloom::Filter;
use crate::wire::item::Item;
use crate::wire::krpc::{
    self, Answer, ErrorCode, Extra, Fault, Message, Method, Query, Signed, Want,
};

/// The answering half of a node.
#[derive(Debug)]
pub(super) struct Server {
    pub tokens: Tokens,
    pub peers: PeerStore,
    pub items: ItemStore,
    sampling: Sampling,
    verifications: TokenBucket,
    limiter: Limiter,
    errors: TokenBucket,
    // Reused from answer to answer.
    near: Vec<Near>,
    nodes: Vec<(NodeId, SocketAddr)>,
    nodes6: Vec<(NodeId, SocketAddr)>,
    values: Vec<SocketAddr>,
}

impl Server {
    pub fn new(now: Instant, family: Family, own: NodeId, rng: &mut Rng) -> Self {
        Self {
            tokens: Tokens::new(now, rng),
            peers: PeerStore::new(family, own, now, rng),
            items: ItemStore::new(own),
            sampling: Sampling::new(now),
            verifications: TokenBucket::full(VERIFICATIONS_BURST, now),
            limiter: Limiter::new(now, rng),
            errors: TokenBucket::full(ERRORS_BURST, now),
            near: Vec::new(),
            nodes: Vec::new(),
            nodes6: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl Node {
    /// A query came.
    pub(super) fn on_query(
        &mut self,
        now: Instant,
        inquiry: &Inquiry<'_>,
        query: Result<&Query<'_>, Fault>,
    ) {
        if let Ok(query) = query {
            Stats::count(&mut self.stats.queries_in, &query.method);
        }
        if self.is_read_only() {
            self.stats.dropped.read_only += 1;
            return;
        }
        let room = self.room(now, inquiry.from);
        match room {
            Room::Full | Room::Known | Room::Brief => {}
            Room::Nothing => {
                self.stats.dropped.rate_limited += 1;
                return;
            }
            Room::Crowded => {
                self.stats.dropped.crowded += 1;
                return;
            }
        }
        let result = match query {
            Ok(query) => self.answer(now, inquiry, query, room),
            Err(fault) => Err(Refusal { code: fault.code(), text: fault_text(fault) }),
        };
        match (result, query) {
            (Ok(()), Ok(query)) if !inquiry.message.read_only => {
                self.consider_querier(now, query.id, inquiry.from);
            }
            (Ok(()), _) => {}
            (Err(refusal), _) => self.refuse(now, inquiry.from, inquiry.message.tid, refusal),
        }
    }

    fn room(&mut self, now: Instant, from: SocketAddr) -> Room {
        let Some(rate) = self.config.per_ip_rate else { return Room::Known };
        let Node { server, table, .. } = self;
        server.limiter.on_query(now, from.ip(), rate, || table.has_endpoint(&from))
    }

    fn refuse(&mut self, now: Instant, to: SocketAddr, tid: &[u8], refusal: Refusal) {
        if !self.server.errors.admit(now, ERRORS_RATE, ERRORS_BURST) {
            self.stats.dropped.error_limited += 1;
            return;
        }
        let Refusal { code, text } = refusal;
        let len = self.outbox.push_with(to, |out| krpc::encode_error(out, tid, code, text));
        self.stats.errors_out.count(code.number());
        self.on_queued(len);
    }

    // First everything that an answer needs is gathered, then it is written once, to where the host
    // takes it from.
    fn answer(
        &mut self,
        now: Instant,
        inquiry: &Inquiry<'_>,
        query: &Query<'_>,
        room: Room,
    ) -> Result<(), Refusal> {
        let &Inquiry { from, message, len: asked, beside } = inquiry;
        let mut subject = self.carry_out(now, from, query)?;
        let brief = room == Room::Brief;
        if brief {
            self.stats.answers_brief += 1;
            self.server.values.clear();
            (subject.target, subject.brings) = (None, Brings::Nothing);
        }
        let Subject { target, token, brings } = subject;
        let mut want = query.want.unwrap_or(Want::only(self.config.family));
        if matches!(brings, Brings::Filters(_)) {
            // BEP 33: they take half of the room, and only the contacts that are due come along.
            want = Want::only(self.config.family);
        }
        if let Some(target) = target {
            self.collect_contacts(target, from, want, beside);
        }
        let has = |family| target.is_some() && want.has(family);
        let len_max = match self.config.family {
            Family::V4 => DATAGRAM_SEND_MAX,
            Family::V6 => ANSWER_V6_MAX,
        };
        let Server { peers, items, sampling, nodes, nodes6, values, .. } = &mut self.server;
        let extra = match &brings {
            Brings::Nothing => Extra::None,
            Brings::Filters(filters) => {
                Extra::Scrape { seeds: filters.0.as_bytes(), peers: filters.1.as_bytes() }
            }
            Brings::Item { target, newer_than } => {
                items.get(now, *target).map_or(Extra::None, |item| item_extra(item, *newer_than))
            }
            Brings::Sample => {
                let sample = sampling.take(now, &mut self.rng, &from, peers);
                Extra::Samples {
                    interval: i64::try_from(sample.interval.as_secs()).unwrap_or(i64::MAX),
                    total: i64::try_from(sample.total).unwrap_or(i64::MAX),
                    samples: sample.hashes,
                }
            }
        };
        let answer = Answer {
            tid: message.tid,
            to: from,
            id: self.id,
            nodes: has(Family::V4).then_some(&nodes[..]),
            nodes6: has(Family::V6).then_some(&nodes6[..]),
            token: token.as_ref().map(|t| &t[..]),
            values,
            extra,
            brief,
        };
        let len = self.outbox.push_with(from, |out| krpc::encode_answer(out, &answer, len_max));
        self.on_queued(len);
        let gift = len.unwrap_or_default().saturating_sub(asked);
        if gift > 0 && room == Room::Full {
            self.server.limiter.on_gift(now, from.ip(), gift);
        }
        Ok(())
    }

    // What a query is about, after what it wants done was done.
    fn carry_out(
        &mut self,
        now: Instant,
        from: SocketAddr,
        query: &Query<'_>,
    ) -> Result<Subject, Refusal> {
        self.server.values.clear();
        let mut subject = Subject { target: None, token: None, brings: Brings::Nothing };
        match query.method {
            Method::Ping => {}
            Method::FindNode { target } => subject.target = Some(target),
            Method::GetPeers { info_hash, noseed, scrape } => {
                let target = info_hash.key();
                subject.target = Some(target);
                subject.token =
                    Some(self.server.tokens.make(now, &mut self.rng, from.ip(), target));
                self.sample_peers(now, from, info_hash, noseed);
                if scrape && let Some(filters) = self.filters(now, from, info_hash) {
                    subject.brings = Brings::Filters(Box::new(filters));
                }
            }
            Method::AnnouncePeer { info_hash, port, implied_port, seed, token } => {
                let port = if implied_port { from.port() } else { port };
                self.check_token(now, from, info_hash.key(), token)?;
                self.store_peer(now, SocketAddr::new(from.ip(), port), info_hash, seed)?;
            }
            Method::Get { target, seq } => {
                subject.target = Some(target);
                subject.token =
                    Some(self.server.tokens.make(now, &mut self.rng, from.ip(), target));
                subject.brings = Brings::Item { target, newer_than: seq };
            }
            Method::Put(put) => {
                self.check_token(now, from, put.target(), put.token)?;
                self.store_item(now, from, &put)?;
            }
            Method::SampleInfohashes { target } => {
                subject.target = Some(target);
                subject.brings = Brings::Sample;
            }
            // Contacts would look like success to somebody who wants something stored.
            Method::Unknown { target: Some(target), writes: false, .. } => {
                subject.target = Some(target);
            }
            Method::Unknown { .. } => return Err(METHOD_UNKNOWN),
        }
        Ok(subject)
    }

    // The contacts closest to `target`, of each family that is wanted: ours, and those of the node
    // beside us (BEP 32).
    fn collect_contacts(
        &mut self,
        target: Key,
        asker: SocketAddr,
        want: Want,
        beside: Option<&Node>,
    ) {
        let Server { near, nodes, nodes6, .. } = &mut self.server;
        for (family, out) in [(Family::V4, nodes), (Family::V6, nodes6)] {
            out.clear();
            let table = if family == self.config.family {
                Some(&self.table)
            } else {
                beside.filter(|node| node.config.family == family).map(|node| &node.table)
            };
            let Some(table) = table.filter(|_| want.has(family)) else { continue };
            closest_for(table, target, asker, near);
            out.extend(near.iter().map(|near| (near.id, near.addr)));
        }
    }
}

/// A query and what came with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inquiry<'a> {
    pub from: SocketAddr,
    pub message: &'a Message<'a>,
    /// Bytes of the datagram.
    pub len: usize,
    /// The node of the other family on this host.
    pub beside: Option<&'a Node>,
}

/// What an answer is about.
#[derive(Debug)]
struct Subject {
    // The key whose closest contacts are told.
    target: Option<Key>,
    token: Option<[u8; TOKEN_LEN]>,
    brings: Brings,
}

// What else is told.
#[derive(Debug)]
enum Brings {
    Nothing,
    Filters(Box<(Filter, Filter)>),
    Item { target: Key, newer_than: Option<i64> },
    Sample,
}

// Contacts of a private network mean nothing to somebody outside.
fn closest_for(table: &Table, target: Key, asker: SocketAddr, near: &mut Vec<Near>) {
    let (inside, asker) = (is_private(asker.ip()), PackedAddr::from(asker));
    let usable = |c: &super::bucket::Contact| {
        c.failures == 0 && !c.is_at(asker) && (inside || !is_private(c.ip()))
    };
    table.closest(target, K, usable, near);
}

// BEP 44: of a version that the asker has, only its number is told.
fn item_extra(item: &Item, newer_than: Option<i64>) -> Extra<'_> {
    match item {
        Item::Immutable { value } => Extra::Item { signed: None, seq: None, value: Some(value) },
        Item::Mutable { seq, .. } if newer_than.is_some_and(|known| *seq <= known) => {
            Extra::Item { signed: None, seq: Some(*seq), value: None }
        }
        Item::Mutable { public_key, seq, value, signature, .. } => Extra::Item {
            signed: Some(Signed { public_key, signature }),
            seq: Some(*seq),
            value: Some(value),
        },
    }
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    code: ErrorCode,
    text: &'static str,
}

const METHOD_UNKNOWN: Refusal = Refusal { code: ErrorCode::MethodUnknown, text: "method unknown" };

fn fault_text(fault: Fault) -> &'static str {
    match fault {
        Fault::NoMethod => "no method name",
        Fault::NoArguments => "no arguments",
        Fault::Id => "invalid id",
        Fault::Target => "invalid target",
        Fault::InfoHash => "invalid info_hash",
        Fault::Port => "invalid port",
        Fault::Token => "invalid token",
        Fault::Value => "invalid v",
        Fault::ValueLength => "v too big",
        Fault::PublicKey => "invalid k",
        Fault::Salt => "invalid salt",
        Fault::SaltLength => "salt too big",
        Fault::Seq => "invalid seq",
        Fault::Signature => "invalid signature",
        Fault::Cas => "invalid cas",
    }
}

// BEP 32 wants answers of at most 1024 bytes.
const ANSWER_V6_MAX: usize = 1_024;
// Errors a second in all: a program that asks wrongly is told, a flood is not.
const ERRORS_RATE: u32 = 100;
const ERRORS_BURST: u32 = 200;
// Signatures that are checked, at some 50 microseconds each, whoever asks: five hundredths of a core.
const VERIFICATIONS_RATE: u32 = 1_000;
const VERIFICATIONS_BURST: u32 = 2_000;

const _: () = assert!(ANSWER_V6_MAX <= DATAGRAM_SEND_MAX);
