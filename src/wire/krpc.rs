//! KRPC, the messages of the DHT (BEP 5, 32, 42, 43): a borrowed decoder here, and encoders that
//! append to a buffer in `query` and `answer`. Neither allocates.
//!
//! Strict in what we send; tolerant of the order of keys, odd transaction ids, a missing `v`, a
//! missing `implied_port` and unknown methods. Bytes that are no message are an error and deserve
//! silence; a query whose arguments are wrong keeps its transaction id, because BEP 5 wants error
//! 203 for it. Does not judge addresses, tokens or ids: that is the node's work.

mod answer;
mod query;

use std::net::SocketAddr;

pub use self::answer::{Answer, ErrorCode, Extra, Signed, encode_answer, encode_error};
pub use self::query::{
    Fault, Method, Put, Query, QueryHead, SignedPut, Want, encode_query, encode_query_wanting,
};
use crate::base::addr::Family;
use crate::base::{InfoHash, NodeId};
use crate::wire::bencode::{self, BencodeError, Entry, Limits, List, Value};
use crate::wire::bloom::FILTER_LEN;
use crate::wire::compact;

/// A transaction id is echoed up to this length. Real ones have 2 to 8 bytes; beyond 32 a query
/// would choose the size of our answer.
pub const TRANSACTION_ID_MAX: usize = 32;

/// What we call ourselves in `v`.
pub const VERSION: &[u8; 4] = b"TL\x00\x01";

/// One message, borrowed from a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `t`: 1 to 32 bytes that the answer echoes.
    pub tid: &'a [u8],
    /// What it says.
    pub body: Body<'a>,
    /// `v`: the sender's program, if it says.
    pub version: Option<&'a [u8]>,
    /// `ip` (BEP 42): the address at which the sender sees us.
    pub seen_at: Option<SocketAddr>,
    /// `ro` (BEP 43): the sender answers no queries. Anything but a zero counts.
    pub read_only: bool,
}

/// The kinds of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// `y` = `q`, with good arguments.
    Query(Query<'a>),
    /// `y` = `q`, but the arguments break BEP 5: error 203 is the answer.
    BadQuery(Fault),
    /// `y` = `r`.
    Reply(Reply<'a>),
    /// `y` = `e`.
    Error(ErrorReply<'a>),
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The sender.
    pub id: NodeId,
    /// `nodes`, compact; see [`Reply::contacts`].
    pub nodes: &'a [u8],
    /// `nodes6`, compact.
    pub nodes6: &'a [u8],
    /// What an announce has to show.
    pub token: Option<&'a [u8]>,
    /// What it says about an item (BEP 44).
    pub item: ItemReply<'a>,
    /// Who is a seed, and who is none (BEP 33): `BFsd` and `BFpe`, if both have their length.
    pub filters: Option<(&'a [u8; FILTER_LEN], &'a [u8; FILTER_LEN])>,
    /// Torrents that have peers stored there (BEP 51).
    pub samples: Option<Samples<'a>>,
    values: Option<List<'a>>,
}

/// What an answer says about an item (BEP 44). Nothing of it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemReply<'a> {
    /// `v`, bencoded: its bytes as they came.
    pub value: Option<&'a [u8]>,
    /// `k`
    pub public_key: Option<&'a [u8; 32]>,
    /// `seq`
    pub seq: Option<i64>,
    /// `sig`
    pub signature: Option<&'a [u8; 64]>,
}

/// Some of the torrents that a node has peers of (BEP 51).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples<'a> {
    hashes: &'a [u8],
    num: i64,
    interval: i64,
}

impl<'a> Samples<'a> {
    /// The torrents, as many as came. A ragged end is ignored.
    pub fn info_hashes(&self) -> impl Iterator<Item = InfoHash> + 'a {
        self.hashes.chunks_exact(20).filter_map(InfoHash::from_slice)
    }

    /// How many there are in all; never fewer than came.
    pub fn total(&self) -> u64 {
        let came = self.hashes.len() / 20;
        u64::try_from(self.num).unwrap_or_default().max(came as u64)
    }

    /// After how many seconds there will be others: at most six hours.
    pub fn interval(&self) -> u32 {
        u32::try_from(self.interval.clamp(0, i64::from(SAMPLE_INTERVAL_MAX))).unwrap_or_default()
    }
}

/// The longest interval between two samples, in seconds (BEP 51).
pub const SAMPLE_INTERVAL_MAX: u32 = 21_600;

impl<'a> Reply<'a> {
    /// The contacts of one family, as many as came.
    pub fn contacts(&self, family: Family) -> impl Iterator<Item = (NodeId, SocketAddr)> + 'a {
        let bytes = match family {
            Family::V4 => self.nodes,
            Family::V6 => self.nodes6,
        };
        compact::nodes(bytes, family)
    }

    /// The peers of both families; entries of other lengths and types are passed over.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> + 'a {
        let list = self.values;
        list.into_iter().flat_map(List::iter).filter_map(|v| compact::peer(v.bytes()?))
    }

    /// True if there is a list of peers at all.
    pub fn has_values(&self) -> bool {
        self.values.is_some()
    }
}

/// `e`: a code and a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// 201 generic, 202 server, 203 protocol, 204 method unknown; zero if it does not say.
    pub code: i64,
    /// In words.
    pub text: &'a [u8],
}

/// Why a datagram is no message. Nobody is told: silence is the answer to junk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KrpcError {
    /// Not bencode that we take.
    #[error("not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Bencode, but not a dictionary.
    #[error("not a dictionary")]
    NotADictionary,
    /// `t` is missing, empty, too long or not a string.
    #[error("no usable transaction id")]
    TransactionId,
    /// `y` is not one of `q`, `r`, `e`.
    #[error("unknown kind of message")]
    Kind,
    /// `y` = `r` without a sender's id of 20 bytes.
    #[error("an answer without a node id")]
    ReplyId,
}

impl<'a> Message<'a> {
    /// Reads one datagram. Bytes after the message are refused.
    pub fn decode(datagram: &'a [u8]) -> Result<Message<'a>, KrpcError> {
        let top = bencode::parse(datagram, Limits::MESSAGE)?;
        let top = top.dict().ok_or(KrpcError::NotADictionary)?;
        let [mut t, mut y, mut q, mut a, mut r, mut e, mut v, mut ip, mut ro] = [None; 9];
        for (key, value) in top.iter() {
            let slot = match key {
                b"t" => &mut t,
                b"y" => &mut y,
                b"q" => &mut q,
                b"a" => &mut a,
                b"r" => &mut r,
                b"e" => &mut e,
                b"v" => &mut v,
                b"ip" => &mut ip,
                b"ro" => &mut ro,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        let tid = t.and_then(Value::bytes).ok_or(KrpcError::TransactionId)?;
        if tid.is_empty() || tid.len() > TRANSACTION_ID_MAX {
            return Err(KrpcError::TransactionId);
        }
        let body = match y.and_then(Value::bytes) {
            Some(b"q") => match query::decode_query(q, a) {
                Ok(query) => Body::Query(query),
                Err(fault) => Body::BadQuery(fault),
            },
            Some(b"r") => Body::Reply(decode_reply(r).ok_or(KrpcError::ReplyId)?),
            Some(b"e") => Body::Error(decode_error(e)),
            _ => return Err(KrpcError::Kind),
        };
        Ok(Message {
            tid,
            body,
            version: v.and_then(Value::bytes),
            seen_at: ip.and_then(Value::bytes).and_then(decode_ip),
            read_only: ro.is_some_and(|ro| ro.int() != Some(0)),
        })
    }
}

fn decode_reply<'a>(r: Option<Value<'a>>) -> Option<Reply<'a>> {
    let [mut id, mut nodes, mut nodes6, mut token, mut values] = [None; 5];
    let [mut seeds, mut peers, mut samples, mut num, mut interval] = [None; 5];
    let [mut public_key, mut seq, mut signature] = [None; 3];
    let mut v = None;
    for Entry { key, value, raw } in r?.dict()?.entries() {
        let slot = match key {
            b"id" => &mut id,
            b"nodes" => &mut nodes,
            b"nodes6" => &mut nodes6,
            b"token" => &mut token,
            b"values" => &mut values,
            b"BFsd" => &mut seeds,
            b"BFpe" => &mut peers,
            b"samples" => &mut samples,
            b"num" => &mut num,
            b"interval" => &mut interval,
            b"k" => &mut public_key,
            b"seq" => &mut seq,
            b"sig" => &mut signature,
            b"v" => {
                v.get_or_insert(raw);
                continue;
            }
            _ => continue,
        };
        slot.get_or_insert(value);
    }
    let string = |value: Option<Value<'a>>| value.and_then(Value::bytes);
    let number = |value: Option<Value<'a>>| value.and_then(Value::int);
    Some(Reply {
        id: NodeId::from_slice(string(id)?)?,
        nodes: string(nodes).unwrap_or_default(),
        nodes6: string(nodes6).unwrap_or_default(),
        token: string(token),
        item: ItemReply {
            value: v,
            public_key: string(public_key).and_then(|k| k.try_into().ok()),
            seq: number(seq),
            signature: string(signature).and_then(|s| s.try_into().ok()),
        },
        filters: filter(string(seeds)).zip(filter(string(peers))),
        samples: string(samples).map(|hashes| Samples {
            hashes,
            num: number(num).unwrap_or_default(),
            interval: number(interval).unwrap_or_default(),
        }),
        values: values.and_then(Value::list),
    })
}

fn filter(bytes: Option<&[u8]>) -> Option<&[u8; FILTER_LEN]> {
    bytes?.try_into().ok()
}

// Some senders put a bare string or nothing there; the kind of message is clear all the same.
fn decode_error(e: Option<Value<'_>>) -> ErrorReply<'_> {
    let mut parts = e.and_then(Value::list).into_iter().flat_map(List::iter);
    let code = parts.next().and_then(Value::int).unwrap_or_default();
    let text = parts.next().and_then(Value::bytes).unwrap_or_default();
    ErrorReply { code, text }
}

// BEP 42 wants address and port; its first drafts had the address alone.
fn decode_ip(bytes: &[u8]) -> Option<SocketAddr> {
    compact::peer(bytes).or_else(|| Some(SocketAddr::new(compact::ip_addr(bytes)?, 0)))
}

#[cfg(test)]
mod tests;
