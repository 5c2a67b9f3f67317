//! Answers and errors that we send, appended to a buffer: keys in the order of BEP 3, every answer
//! within the length that it is given.

use std::net::SocketAddr;

use super::VERSION;
use crate::base::NodeId;
use crate::base::addr::Family;
use crate::wire::bencode::Writer;
use crate::wire::compact;

/// An answer that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The query's `t`.
    pub tid: &'a [u8],
    /// Who asked: told to it as `ip` (BEP 42).
    pub to: SocketAddr,
    /// Us.
    pub id: NodeId,
    /// The closest IPv4 contacts, of which as many are written as fit; `None` for no such key.
    pub nodes: Option<&'a [(NodeId, SocketAddr)]>,
    /// The same for IPv6 (BEP 32).
    pub nodes6: Option<&'a [(NodeId, SocketAddr)]>,
    /// What an announce has to show.
    pub token: Option<&'a [u8]>,
    /// Peers, of which as many are written as fit; no key if there is none.
    pub values: &'a [SocketAddr],
    /// What else the query asked for.
    pub extra: Extra<'a>,
    /// Leave out `ip` and `v`: without contacts, peers and extras it is no longer than any query of
    /// that kind.
    pub brief: bool,
}

/// Keys of an answer that only some queries ask for. They are written whole: contacts and peers get
/// the room that these leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra<'a> {
    /// None of them.
    None,
    /// `BFsd` and `BFpe` (BEP 33): bloom filters of 256 bytes.
    Scrape {
        /// Of those that have all of it.
        seeds: &'a [u8],
        /// Of the others.
        peers: &'a [u8],
    },
    /// A stored item (BEP 44).
    Item {
        /// `k` and `sig`, of a mutable one.
        signed: Option<Signed<'a>>,
        /// `seq`, of a mutable one: written even if the value is not.
        seq: Option<i64>,
        /// `v`, bencoded.
        value: Option<&'a [u8]>,
    },
    /// Info-hashes stored here (BEP 51).
    Samples {
        /// Seconds until other ones are given.
        interval: i64,
        /// How many are stored.
        total: i64,
        /// Some of them, 20 bytes each.
        samples: &'a [u8],
    },
}

/// Who answers for a mutable item (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// `k`, 32 bytes.
    pub public_key: &'a [u8],
    /// `sig`, 64 bytes.
    pub signature: &'a [u8],
}

/// Appends an answer of at most `len_max` bytes. Contacts and then peers that do not fit are left
/// out; what else is in it the caller has measured.
pub fn encode_answer(out: &mut Vec<u8>, answer: &Answer<'_>, len_max: usize) {
    let mut room = len_max.saturating_sub(answer.fixed_len());
    let nodes = answer.nodes.map(|all| fitting_nodes(all, Family::V4, &mut room));
    let nodes6 = answer.nodes6.map(|all| fitting_nodes(all, Family::V6, &mut room));
    let values = fitting_peers(answer.values, room);

    let mut w = Writer::new(out);
    w.dict();
    if !answer.brief {
        w.bytes(b"ip").bytes_len(compact::peer_len(Family::of(&answer.to)));
        compact::put_peer(out, answer.to);
    }
    let mut w = Writer::new(out);
    w.bytes(b"r").dict();
    // BEP 3: keys ascend.
    if let Extra::Scrape { seeds, peers } = answer.extra {
        w.bytes(b"BFpe").bytes(peers).bytes(b"BFsd").bytes(seeds);
    }
    w.bytes(b"id").bytes(answer.id.as_bytes());
    match answer.extra {
        Extra::Samples { interval, .. } => {
            w.bytes(b"interval").int(interval);
        }
        Extra::Item { signed: Some(signed), .. } => {
            w.bytes(b"k").bytes(signed.public_key);
        }
        Extra::None | Extra::Scrape { .. } | Extra::Item { signed: None, .. } => {}
    }
    if let Some(nodes) = nodes {
        put_nodes(out, b"nodes", nodes, Family::V4);
    }
    if let Some(nodes) = nodes6 {
        put_nodes(out, b"nodes6", nodes, Family::V6);
    }
    let mut w = Writer::new(out);
    match answer.extra {
        Extra::Samples { total, samples, .. } => {
            w.bytes(b"num").int(total).bytes(b"samples").bytes(samples);
        }
        Extra::Item { signed, seq, .. } => {
            if let Some(seq) = seq {
                w.bytes(b"seq").int(seq);
            }
            if let Some(signed) = signed {
                w.bytes(b"sig").bytes(signed.signature);
            }
        }
        Extra::None | Extra::Scrape { .. } => {}
    }
    if let Some(token) = answer.token {
        w.bytes(b"token").bytes(token);
    }
    if let Extra::Item { value: Some(value), .. } = answer.extra {
        w.bytes(b"v").raw(value);
    }
    if !values.is_empty() {
        put_values(out, values);
    }
    let mut w = Writer::new(out);
    w.end().bytes(b"t").bytes(answer.tid);
    if !answer.brief {
        w.bytes(b"v").bytes(VERSION);
    }
    w.bytes(b"y").bytes(b"r").end();
}

impl Answer<'_> {
    // The length without contacts and peers; numbers are counted at their longest.
    fn fixed_len(&self) -> usize {
        let addr = compact::peer_len(Family::of(&self.to));
        let token = self.token.map_or(0, |token| b"5:token".len() + string_len(token.len()));
        let extra = match self.extra {
            Extra::None => 0,
            Extra::Scrape { seeds, peers } => {
                b"4:BFpe4:BFsd".len() + string_len(seeds.len()) + string_len(peers.len())
            }
            Extra::Item { signed, seq, value } => {
                let signed = signed.map_or(0, |signed| {
                    let (key, signature) = (signed.public_key.len(), signed.signature.len());
                    b"1:k3:sig".len() + string_len(key) + string_len(signature)
                });
                signed
                    + seq.map_or(0, |_| b"3:seq".len() + INT_LEN_MAX)
                    + value.map_or(0, |value| b"1:v".len() + value.len())
            }
            Extra::Samples { samples, .. } => {
                b"8:interval3:num7:samples".len() + 2 * INT_LEN_MAX + string_len(samples.len())
            }
        };
        ANSWER_FRAME_LEN + string_len(addr) + string_len(self.tid.len()) + token + extra
    }
}

// A string of `len` bytes and the length before it.
fn string_len(len: usize) -> usize {
    let digits = len.checked_ilog10().map_or(1, |log| log as usize + 1);
    digits + b":".len() + len
}

// The first of `all` that fit into `room`, which gets smaller by them.
fn fitting_nodes<'a>(
    all: &'a [(NodeId, SocketAddr)],
    family: Family,
    room: &mut usize,
) -> &'a [(NodeId, SocketAddr)] {
    let left = room.saturating_sub(NODES_KEY_LEN_MAX);
    let fitting = &all[..all.len().min(left / compact::node_len(family))];
    *room = left - fitting.len() * compact::node_len(family);
    fitting
}

fn fitting_peers(all: &[SocketAddr], room: usize) -> &[SocketAddr] {
    let mut left = room.saturating_sub(b"6:valuesle".len());
    let fits = |addr: &&SocketAddr| {
        let rest = left.checked_sub(string_len(compact::peer_len(Family::of(addr))));
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    &all[..all.iter().take_while(fits).count()]
}

fn put_nodes(out: &mut Vec<u8>, key: &[u8], nodes: &[(NodeId, SocketAddr)], family: Family) {
    Writer::new(out).bytes(key).bytes_len(nodes.len() * compact::node_len(family));
    for (id, addr) in nodes {
        debug_assert_eq!(Family::of(addr), family, "one family a list");
        compact::put_node(out, *id, *addr);
    }
}

fn put_values(out: &mut Vec<u8>, values: &[SocketAddr]) {
    Writer::new(out).bytes(b"values").list();
    for addr in values {
        Writer::new(out).bytes_len(compact::peer_len(Family::of(addr)));
        compact::put_peer(out, *addr);
    }
    Writer::new(out).end();
}

// `d2:ip` + `1:rd2:id20:` and the id + `e1:t` + `1:v4:TLxx` + `1:y1:re`.
const ANSWER_FRAME_LEN: usize = 5 + 11 + 20 + 4 + 9 + 7;
// `6:nodes6` and a length of at most four digits with its colon.
const NODES_KEY_LEN_MAX: usize = 8 + 5;
// `i-9223372036854775808e`
const INT_LEN_MAX: usize = 22;

/// The error codes of BEP 5 and BEP 44.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// 201
    Generic,
    /// 202
    Server,
    /// 203: malformed, invalid arguments or a bad token.
    Protocol,
    /// 204
    MethodUnknown,
    /// 205: a value too long to store (BEP 44).
    ValueLength,
    /// 206: a signature that does not fit what it signs (BEP 44).
    Signature,
    /// 207: a salt too long (BEP 44).
    SaltLength,
    /// 301: what is stored is not what was to be replaced (BEP 44).
    CasMismatch,
    /// 302: what is stored is newer (BEP 44).
    OldSequence,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> i64 {
        match self {
            ErrorCode::Generic => 201,
            ErrorCode::Server => 202,
            ErrorCode::Protocol => 203,
            ErrorCode::MethodUnknown => 204,
            ErrorCode::ValueLength => 205,
            ErrorCode::Signature => 206,
            ErrorCode::SaltLength => 207,
            ErrorCode::CasMismatch => 301,
            ErrorCode::OldSequence => 302,
        }
    }
}

/// Appends an error.
pub fn encode_error(out: &mut Vec<u8>, tid: &[u8], code: ErrorCode, text: &str) {
    let mut w = Writer::new(out);
    w.dict().bytes(b"e").list().int(code.number()).bytes(text.as_bytes()).end();
    w.bytes(b"t").bytes(tid).bytes(b"v").bytes(VERSION).bytes(b"y").bytes(b"e").end();
}
