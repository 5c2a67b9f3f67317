//! Answers other nodes' queries (BEP 5, 32, 42, 43): one datagram out for one in, of bounded size.
//!
//! Nothing is sent for junk, nor for an error or an answer; an address that asks too often is not
//! heard, and errors have a budget of their own. A querier gets no place in the table for asking: it
//! is pinged, and has to answer.

use std::net::{IpAddr, SocketAddr};

use super::bucket::K;
use super::node::Node;
use super::peer_store::PeerStore;
use super::stats::Stats;
use super::table::Near;
use super::tokens::Tokens;
use crate::base::addr::{Family, is_private, network};
use crate::base::bounded::{LimitedMap, TokenBucket};
use crate::base::limits::DATAGRAM_SEND_MAX;
use crate::base::{InfoHash, Instant, Key, NodeId, Rng};
use crate::wire::krpc::{self, Answer, ErrorCode, Extra, Fault, Message, Method, Query};

/// The answering half of a node.
#[derive(Debug)]
pub(super) struct Server {
    pub tokens: Tokens,
    pub peers: PeerStore,
    limiter: LimitedMap<IpAddr, TokenBucket>,
    errors: TokenBucket,
    // Reused from answer to answer.
    near: Vec<Near>,
    nodes: Vec<(NodeId, SocketAddr)>,
    values: Vec<SocketAddr>,
}

impl Server {
    pub fn new(now: Instant, own: NodeId, rng: &mut Rng) -> Self {
        Self {
            tokens: Tokens::new(now, rng),
            peers: PeerStore::new(own),
            limiter: LimitedMap::new(RATES_TRACKED_MAX),
            errors: TokenBucket::full(ERRORS_BURST, now),
            near: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Addresses whose rate is being watched.
    #[cfg(test)]
    pub fn limiter_len(&self) -> usize {
        self.limiter.len()
    }

    // May this address ask one more query? An IPv6 host has a whole /64 to speak from.
    fn admits(&mut self, now: Instant, from: &SocketAddr, rate: Option<u32>) -> bool {
        let Some(rate) = rate else { return true };
        let source = match Family::of(from) {
            Family::V4 => from.ip(),
            Family::V6 => network(from.ip()),
        };
        let burst = rate.saturating_mul(BURST_SECS);
        let bucket = self.limiter.get_or_insert_with(source, || TokenBucket::full(burst, now));
        bucket.admit(now, rate, burst)
    }
}

impl Node {
    /// A query came.
    pub(super) fn on_query(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &Message<'_>,
        query: Result<&Query<'_>, Fault>,
    ) {
        if let Ok(query) = query {
            Stats::count(&mut self.stats.queries_in, &query.method);
        }
        if self.is_read_only() {
            self.stats.dropped.read_only += 1;
            return;
        }
        if !self.server.admits(now, &from, self.config.per_ip_rate) {
            self.stats.dropped.rate_limited += 1;
            return;
        }
        let result = match query {
            Ok(query) => self.answer(now, from, message.tid, query),
            Err(fault) => Err(Refusal { code: fault.code(), text: fault_text(fault) }),
        };
        match (result, query) {
            (Ok(()), Ok(query)) if !message.read_only => {
                self.consider_querier(now, query.id, from);
            }
            (Ok(()), _) => {}
            (Err(refusal), _) => self.refuse(now, from, message.tid, refusal),
        }
    }

    fn refuse(&mut self, now: Instant, to: SocketAddr, tid: &[u8], refusal: Refusal) {
        if !self.server.errors.admit(now, ERRORS_RATE, ERRORS_BURST) {
            self.stats.dropped.error_limited += 1;
            return;
        }
        let Refusal { code, text } = refusal;
        let len = self.outbox.push_with(to, |out| krpc::encode_error(out, tid, code, text));
        self.stats.errors_out += 1;
        self.on_queued(len);
    }

    // First everything that an answer needs is gathered, then it is written once, to where the host
    // takes it from.
    fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        tid: &[u8],
        query: &Query<'_>,
    ) -> Result<(), Refusal> {
        let mut token = None;
        self.server.values.clear();
        let wants_nodes = query.want.is_none_or(|want| want.has(self.config.family));
        let target = match query.method {
            Method::Ping => None,
            Method::FindNode { target } => Some(target),
            Method::GetPeers { info_hash, .. } => {
                token = Some(self.server.tokens.make(now, &mut self.rng, from.ip(), info_hash));
                self.sample_peers(now, from, info_hash);
                Some(info_hash.key())
            }
            Method::AnnouncePeer { info_hash, port, implied_port, token, .. } => {
                let port = if implied_port { from.port() } else { port };
                self.store(now, SocketAddr::new(from.ip(), port), info_hash, token)?;
                None
            }
            Method::Get { target, .. } | Method::SampleInfohashes { target } => Some(target),
            // Contacts would look like success to somebody who wants something stored.
            Method::Unknown { target: Some(target), writes: false, .. } => Some(target),
            Method::Put(_) | Method::Unknown { .. } => return Err(METHOD_UNKNOWN),
        };
        let with_nodes = target.filter(|_| wants_nodes);
        if let Some(target) = with_nodes {
            self.collect_contacts(target, from);
        }
        let nodes = with_nodes.map(|_| &self.server.nodes[..]);
        let (nodes, nodes6, len_max) = match self.config.family {
            Family::V4 => (nodes, None, DATAGRAM_SEND_MAX),
            Family::V6 => (None, nodes, ANSWER_V6_MAX),
        };
        let answer = Answer {
            tid,
            to: from,
            id: self.id,
            nodes,
            nodes6,
            token: token.as_ref().map(|t| &t[..]),
            values: &self.server.values,
            extra: Extra::None,
        };
        let len = self.outbox.push_with(from, |out| krpc::encode_answer(out, &answer, len_max));
        self.on_queued(len);
        Ok(())
    }

    // Contacts of a private network mean nothing to somebody outside.
    fn collect_contacts(&mut self, target: Key, asker: SocketAddr) {
        let inside = is_private(asker.ip());
        let usable = |c: &super::bucket::Contact| {
            c.failures == 0 && c.addr != asker && (inside || !is_private(c.addr.ip()))
        };
        self.table.closest(target, K, usable, &mut self.server.near);
        self.server.nodes.clear();
        self.server.nodes.extend(self.server.near.iter().map(|near| (near.id, near.addr)));
    }

    fn sample_peers(&mut self, now: Instant, asker: SocketAddr, info_hash: InfoHash) {
        let inside = is_private(asker.ip());
        let usable = |peer: &SocketAddr| inside || !is_private(peer.ip());
        let Server { peers, values, .. } = &mut self.server;
        peers.sample(now, &mut self.rng, info_hash, PEERS_PER_ANSWER_MAX, usable, values);
    }

    /// Peers of `info_hash` that others announced to us.
    pub(super) fn stored_peers(&mut self, now: Instant, info_hash: InfoHash) -> Vec<SocketAddr> {
        let mut peers = Vec::new();
        let count = PEERS_PER_ANSWER_MAX;
        self.server.peers.sample(now, &mut self.rng, info_hash, count, |_| true, &mut peers);
        peers
    }

    /// We announce ourselves, so whoever asks us is told as well.
    pub(super) fn store_own(&mut self, now: Instant, info_hash: InfoHash, port: u16) {
        let ips: Vec<IpAddr> = self.own_ips().collect();
        for ip in ips {
            // Without room it is only not told here.
            let _ = self.server.peers.announce(now, info_hash, SocketAddr::new(ip, port));
        }
    }

    fn store(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        info_hash: InfoHash,
        token: &[u8],
    ) -> Result<(), Refusal> {
        let Server { tokens, peers, .. } = &mut self.server;
        if !tokens.is_valid(now, &mut self.rng, peer.ip(), info_hash, token) {
            return Err(BAD_TOKEN);
        }
        match peers.announce(now, info_hash, peer) {
            Ok(()) => {
                self.stats.announces_stored += 1;
                Ok(())
            }
            Err(_) => {
                self.stats.announces_refused += 1;
                Err(NO_ROOM)
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    code: ErrorCode,
    text: &'static str,
}

const METHOD_UNKNOWN: Refusal = Refusal { code: ErrorCode::MethodUnknown, text: "method unknown" };
const BAD_TOKEN: Refusal = Refusal { code: ErrorCode::Protocol, text: "invalid token" };
const NO_ROOM: Refusal = Refusal { code: ErrorCode::Server, text: "no room" };

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

/// Peers in one answer, as libtorrent sends; the length of the datagram may allow fewer.
const PEERS_PER_ANSWER_MAX: usize = 100;
// BEP 32 wants answers of at most 1024 bytes.
const ANSWER_V6_MAX: usize = 1_024;
/// Addresses whose rate is remembered: with some 100 bytes each, below two megabytes.
pub(super) const RATES_TRACKED_MAX: usize = 16_384;
// What an address may ask at once after a silence, in seconds of its rate.
const BURST_SECS: u32 = 2;
// Errors a second in all: a program that asks wrongly is told, a flood is not.
const ERRORS_RATE: u32 = 100;
const ERRORS_BURST: u32 = 200;

const _: () = assert!(ANSWER_V6_MAX <= DATAGRAM_SEND_MAX);
