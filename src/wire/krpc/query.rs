//! Queries: what is asked, the arguments that it takes, and why they may be wrong.

use super::VERSION;
use crate::base::addr::Family;
use crate::base::{InfoHash, Key, NodeId};
use crate::wire::bencode::{Dict, Value, Writer};

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The sender.
    pub id: NodeId,
    /// What it asks.
    pub method: Method<'a>,
    /// `want` (BEP 32): the families of the nodes it asks for, if it says.
    pub want: Option<Want>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// Are you there?
    Ping,
    /// The contacts closest to a key.
    FindNode {
        /// The key.
        target: Key,
    },
    /// The peers of a torrent, or else the closest contacts.
    GetPeers {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// Store the sender as a peer of a torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: InfoHash,
        /// Where the peer listens; zero only if `implied_port`.
        port: u16,
        /// Take the source port of the datagram instead.
        implied_port: bool,
        /// What an earlier `get_peers` was answered with.
        token: &'a [u8],
    },
    /// Something that we do not know.
    Unknown {
        /// What it is called.
        name: &'a [u8],
        /// Its `target` or `info_hash`, if there is one.
        target: Option<Key>,
        /// It carries a token, so it wants something stored.
        writes: bool,
    },
}

/// Families of nodes (BEP 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// `n4`
    pub v4: bool,
    /// `n6`
    pub v6: bool,
}

impl Want {
    /// True if contacts of `family` are wanted.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Why the arguments of a query are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `q` is missing or not a string.
    #[error("no method name")]
    NoMethod,
    /// `a` is missing or not a dictionary.
    #[error("no arguments")]
    NoArguments,
    /// `id` is not 20 bytes.
    #[error("invalid id")]
    Id,
    /// `target` is not 20 bytes.
    #[error("invalid target")]
    Target,
    /// `info_hash` is not 20 bytes.
    #[error("invalid info_hash")]
    InfoHash,
    /// `port` is no port, and not implied.
    #[error("invalid port")]
    Port,
    /// `token` is missing or not a string.
    #[error("invalid token")]
    Token,
}

pub(super) fn decode_query<'a>(
    q: Option<Value<'a>>,
    a: Option<Value<'a>>,
) -> Result<Query<'a>, Fault> {
    let name = q.and_then(Value::bytes).ok_or(Fault::NoMethod)?;
    let args = Args::read(a.and_then(Value::dict).ok_or(Fault::NoArguments)?);
    let id = args.id.and_then(Value::bytes).and_then(NodeId::from_slice).ok_or(Fault::Id)?;
    let target = args.target.and_then(Value::bytes).and_then(to_key);
    let info_hash = args.info_hash.and_then(Value::bytes).and_then(InfoHash::from_slice);
    let method = match name {
        b"ping" => Method::Ping,
        b"find_node" => Method::FindNode { target: target.ok_or(Fault::Target)? },
        b"get_peers" => Method::GetPeers { info_hash: info_hash.ok_or(Fault::InfoHash)? },
        b"announce_peer" => {
            let info_hash = info_hash.ok_or(Fault::InfoHash)?;
            let implied_port =
                args.implied_port.and_then(Value::int).is_some_and(|implied| implied != 0);
            let port = args.port.and_then(Value::int).and_then(|p| u16::try_from(p).ok());
            let port = match port {
                Some(port) if port != 0 => port,
                _ if implied_port => 0,
                _ => return Err(Fault::Port),
            };
            let token = args.token.and_then(Value::bytes).ok_or(Fault::Token)?;
            Method::AnnouncePeer { info_hash, port, implied_port, token }
        }
        name => Method::Unknown {
            name,
            target: target.or(info_hash.map(InfoHash::key)),
            writes: args.token.is_some(),
        },
    };
    let want = args.want.and_then(Value::list).map(|list| {
        list.iter().filter_map(Value::bytes).fold(Want::default(), |want, family| Want {
            v4: want.v4 || family == b"n4",
            v6: want.v6 || family == b"n6",
        })
    });
    Ok(Query { id, method, want })
}

#[derive(Default)]
struct Args<'a> {
    id: Option<Value<'a>>,
    target: Option<Value<'a>>,
    info_hash: Option<Value<'a>>,
    implied_port: Option<Value<'a>>,
    port: Option<Value<'a>>,
    token: Option<Value<'a>>,
    want: Option<Value<'a>>,
}

impl<'a> Args<'a> {
    fn read(dict: Dict<'a>) -> Args<'a> {
        let mut args = Args::default();
        for (key, value) in dict.iter() {
            let slot = match key {
                b"id" => &mut args.id,
                b"target" => &mut args.target,
                b"info_hash" => &mut args.info_hash,
                b"implied_port" => &mut args.implied_port,
                b"port" => &mut args.port,
                b"token" => &mut args.token,
                b"want" => &mut args.want,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        args
    }
}

fn to_key(bytes: &[u8]) -> Option<Key> {
    bytes.try_into().ok().map(Key::new)
}

/// What stands around the arguments of a query that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryHead<'a> {
    /// `t`
    pub tid: &'a [u8],
    /// Us.
    pub id: NodeId,
    /// Say `ro` (BEP 43).
    pub read_only: bool,
}

/// Appends a query. [`Method::Unknown`] is written with its name and target, for tests and probes.
pub fn encode_query(out: &mut Vec<u8>, head: QueryHead<'_>, method: &Method<'_>) {
    let mut w = Writer::new(out);
    w.dict().bytes(b"a").dict().bytes(b"id").bytes(head.id.as_bytes());
    let name: &[u8] = match *method {
        Method::Ping => b"ping",
        Method::FindNode { target } => {
            w.bytes(b"target").bytes(target.as_bytes());
            b"find_node"
        }
        Method::GetPeers { info_hash } => {
            w.bytes(b"info_hash").bytes(info_hash.as_bytes());
            b"get_peers"
        }
        Method::AnnouncePeer { info_hash, port, implied_port, token } => {
            // Always present: a deployed node drops announces without the key.
            w.bytes(b"implied_port").int(i64::from(implied_port));
            w.bytes(b"info_hash").bytes(info_hash.as_bytes());
            w.bytes(b"port").int(i64::from(port));
            w.bytes(b"token").bytes(token);
            b"announce_peer"
        }
        Method::Unknown { name, target, writes } => {
            if let Some(target) = target {
                w.bytes(b"target").bytes(target.as_bytes());
            }
            if writes {
                w.bytes(b"token").bytes(b"");
            }
            name
        }
    };
    w.end().bytes(b"q").bytes(name);
    if head.read_only {
        w.bytes(b"ro").int(1);
    }
    w.bytes(b"t").bytes(head.tid).bytes(b"v").bytes(VERSION).bytes(b"y").bytes(b"q").end();
}
