//! What the nodes that are not there answer, and when.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Entry, K, Lie, Network, Salt, Says, Watch, at, head};
use crate::base::{InfoHash, Instant, Key, NodeId};
use crate::sim::world::Outside;
use crate::wire::bencode::Writer;
use crate::wire::compact;
use crate::wire::krpc::{Body, Message, Method, Query};

impl Network {
    /// `from` has sent a datagram to `to`: what comes back, and after what time.
    pub fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Option<(Duration, Vec<u8>)> {
        let Ok(message) = Message::decode(datagram) else { return None };
        let Body::Query(query) = message.body else { return None };
        let IpAddr::V4(own) = to.ip() else { return None };
        let is_lost = self.options.loss > 0.0 && self.rng.chance(self.options.loss);
        let is_silent = to != at(own) || is_lost || !self.is_alive(own);
        self.note_query(own, &query, is_silent);
        if is_silent {
            return None;
        }
        let late = 1.0 + self.options.jitter * self.rng.unit();
        let delay = self.rtt(own).mul_f64(late);
        Some((delay, self.reply(now, own, from, &message, &query)))
    }

    /// Keeps count of what is asked about `key` from now on.
    pub fn start_watching(&mut self, key: Key) {
        self.watches.insert(key, Watch::default());
    }

    fn note_query(&mut self, own: Ipv4Addr, query: &Query<'_>, is_silent: bool) {
        let is_announce = matches!(query.method, Method::AnnouncePeer { .. });
        let Some(key) = subject(&query.method) else { return };
        if let Some(watch) = self.watches.get_mut(&key)
            && !is_announce
        {
            watch.queries += 1;
            watch.dead += usize::from(is_silent);
            watch.asked.insert(own);
        }
    }

    fn reply(
        &mut self,
        now: Instant,
        own: Ipv4Addr,
        from: SocketAddr,
        message: &Message<'_>,
        query: &Query<'_>,
    ) -> Vec<u8> {
        let mut reply = Reply { id: self.id(own), nodes: None, token: None, values: Vec::new() };
        let token = self.token(own, from);
        match query.method {
            Method::Ping => {}
            Method::GetPeers { info_hash, .. } => {
                reply.nodes = Some(self.named(own, info_hash.key()));
                reply.token = Some(token);
                reply.values = self.values(own, info_hash);
            }
            Method::AnnouncePeer { info_hash, port, implied_port, token: shown, .. } => {
                if shown != token {
                    return refusal(message.tid);
                }
                let port = if implied_port { from.port() } else { port };
                let peer = SocketAddr::new(from.ip(), port);
                self.stored.entry((own, info_hash)).or_default().insert(peer);
                if let Some(watch) = self.watches.get_mut(&info_hash.key()) {
                    watch.announced.entry(own).or_insert(now);
                    watch.renewed.insert(own, now);
                }
            }
            ref method => {
                reply.nodes = subject(method).map(|key| self.named(own, key));
                reply.token = Some(token);
            }
        }
        reply.encode(message.tid, from)
    }

    // The nodes that `own` names as nearest to `key`.
    fn named(&self, own: Ipv4Addr, key: Key) -> Vec<(NodeId, SocketAddr)> {
        let target = head(key);
        let entries = match self.sybils.get(&own) {
            Some((_, Says::Nothing)) => Vec::new(),
            Some((_, Says::Allies | Says::Forged)) => {
                let ally = |ip| self.sybils.contains_key(&ip);
                self.closest(target, K.min(self.sybils.len()), ally)
            }
            Some((_, Says::Dead)) => self.closest(target, K, |ip| !self.is_alive(ip)),
            None if self.is_liar(own) => match self.options.lie {
                Lie::MadeUp => return self.made_up(own, key),
                Lie::Dead => self.closest(target, K, |ip| !self.is_alive(ip)),
                Lie::Allied => self.closest(target, K, |ip| self.is_liar(ip)),
            },
            None => self.closest_known(head(self.id(own).key()), target),
        };
        entries.into_iter().map(|Entry { ip, .. }| (self.id(ip), at(ip))).collect()
    }

    // Right next to the key, at addresses where nobody is.
    fn made_up(&self, own: Ipv4Addr, key: Key) -> Vec<(NodeId, SocketAddr)> {
        let make = |n: u8| {
            let mut id = *key.as_bytes();
            id[18] ^= n + 1;
            let noise = self.hash(own, Salt::MadeUp).rotate_left(u32::from(n) * 8);
            let [a, b, c, ..] = noise.to_le_bytes();
            let ip = if self.options.public { [172, a, b, c] } else { [127, 0, a, b] };
            (NodeId::new(id), at(Ipv4Addr::from(ip)))
        };
        (0..8).map(make).collect()
    }

    fn values(&self, own: Ipv4Addr, info_hash: InfoHash) -> Vec<SocketAddr> {
        if let Some((_, says)) = self.sybils.get(&own) {
            let [_, b, _, d] = own.octets();
            let forged = |n: u8| SocketAddr::from(([203, b, d, n], FORGED_PORT));
            let count = if *says == Says::Forged { FORGED_VALUES } else { 0 };
            return (0..count).map(forged).collect();
        }
        let stored = self.stored.get(&(own, info_hash));
        stored.into_iter().flatten().copied().take(VALUES_MAX).collect()
    }

    fn token(&self, own: Ipv4Addr, from: SocketAddr) -> [u8; 4] {
        let IpAddr::V4(from) = from.ip() else { return [0; 4] };
        let token = self.hash(own, Salt::Token) ^ self.hash(from, Salt::Token).rotate_left(1);
        let [a, b, c, d, ..] = token.to_le_bytes();
        [a, b, c, d]
    }
}

impl Outside for Network {
    fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Option<(Duration, Vec<u8>)> {
        Network::answer(self, now, from, to, datagram)
    }

    fn lives_at(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if self.exists(ip))
    }
}

// What a query is about.
fn subject(method: &Method<'_>) -> Option<Key> {
    match *method {
        Method::Ping => None,
        Method::FindNode { target } => Some(target),
        Method::GetPeers { info_hash, .. } | Method::AnnouncePeer { info_hash, .. } => {
            Some(info_hash.key())
        }
        Method::Get { target, .. } | Method::SampleInfohashes { target } => Some(target),
        Method::Put(put) => Some(put.target()),
        Method::Unknown { target, .. } => target,
    }
}

struct Reply {
    id: NodeId,
    nodes: Option<Vec<(NodeId, SocketAddr)>>,
    token: Option<[u8; 4]>,
    values: Vec<SocketAddr>,
}

impl Reply {
    fn encode(&self, tid: &[u8], to: SocketAddr) -> Vec<u8> {
        let mut out = Vec::with_capacity(400);
        let mut seen_at = Vec::new();
        compact::put_peer(&mut seen_at, to);
        let mut w = Writer::new(&mut out);
        w.dict().bytes(b"ip").bytes(&seen_at);
        w.bytes(b"r").dict().bytes(b"id").bytes(self.id.as_bytes());
        if let Some(nodes) = &self.nodes {
            let mut packed = Vec::with_capacity(26 * K);
            nodes.iter().for_each(|(id, addr)| compact::put_node(&mut packed, *id, *addr));
            w.bytes(b"nodes").bytes(&packed);
        }
        if let Some(token) = self.token {
            w.bytes(b"token").bytes(&token);
        }
        if !self.values.is_empty() {
            w.bytes(b"values").list();
            for value in &self.values {
                let mut packed = Vec::new();
                compact::put_peer(&mut packed, *value);
                w.bytes(&packed);
            }
            w.end();
        }
        w.end().bytes(b"t").bytes(tid).bytes(b"y").bytes(b"r").end();
        out
    }
}

fn refusal(tid: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.dict().bytes(b"e").list().int(203).bytes(b"bad token").end();
    w.bytes(b"t").bytes(tid).bytes(b"y").bytes(b"e").end();
    out
}

// As many as fit one datagram.
const VALUES_MAX: usize = 100;
const FORGED_VALUES: u8 = 50;
const FORGED_PORT: u16 = 666;
