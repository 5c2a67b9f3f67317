//! Queries: what is asked, the arguments that it takes, and why they may be wrong.

use super::{ErrorCode, VERSION};
use crate::base::addr::Family;
use crate::base::limits::{ITEM_SALT_MAX, ITEM_VALUE_MAX};
use crate::base::{InfoHash, Key, NodeId};
use crate::wire::bencode::{Dict, Entry, Value, Writer};
use crate::wire::item;

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
        /// Rather those that are no seeds (BEP 33).
        noseed: bool,
        /// How many there are as well (BEP 33).
        scrape: bool,
    },
    /// Store the sender as a peer of a torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: InfoHash,
        /// Where the peer listens; zero only if `implied_port`.
        port: u16,
        /// Take the source port of the datagram instead.
        implied_port: bool,
        /// It has the whole torrent (BEP 33).
        seed: bool,
        /// What an earlier `get_peers` was answered with.
        token: &'a [u8],
    },
    /// The item stored under a key (BEP 44).
    Get {
        /// The key.
        target: Key,
        /// Only if its sequence number is higher.
        seq: Option<i64>,
    },
    /// Store an item (BEP 44).
    Put(Put<'a>),
    /// Some of the torrents that have peers stored here (BEP 51).
    SampleInfohashes {
        /// The contacts closest to this key come with them.
        target: Key,
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

impl Method<'_> {
    /// Just the peers of a torrent.
    pub fn get_peers(info_hash: InfoHash) -> Self {
        Method::GetPeers { info_hash, noseed: false, scrape: false }
    }
}

/// What a `put` wants stored (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// What an earlier `get` was answered with.
    pub token: &'a [u8],
    /// `v`, bencoded: its bytes as they came.
    pub value: &'a [u8],
    /// Who signs it; `None` for an item that is known by its hash.
    pub signed: Option<SignedPut<'a>>,
}

impl Put<'_> {
    /// The key under which it is stored.
    pub fn target(&self) -> Key {
        match &self.signed {
            None => item::immutable_target(self.value),
            Some(signed) => item::mutable_target(signed.public_key, signed.salt),
        }
    }
}

/// The signed half of a mutable item (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedPut<'a> {
    /// `k`
    pub public_key: &'a [u8; 32],
    /// Tells items of one key from each other; may be empty.
    pub salt: &'a [u8],
    /// The version of the item.
    pub seq: i64,
    /// `sig`: over salt, sequence number and value.
    pub signature: &'a [u8; 64],
    /// Only if what is stored has this sequence number.
    pub cas: Option<i64>,
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
    /// Both families.
    pub const BOTH: Want = Want { v4: true, v6: true };

    /// Those of one family.
    pub fn only(family: Family) -> Self {
        Self { v4: family == Family::V4, v6: family == Family::V6 }
    }

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
    /// `v` is missing, or not as bencode has to be written (BEP 44).
    #[error("invalid v")]
    Value,
    /// `v` is longer than any node has to store.
    #[error("v too big")]
    ValueLength,
    /// `k` is not 32 bytes.
    #[error("invalid k")]
    PublicKey,
    /// `salt` is not a string.
    #[error("invalid salt")]
    Salt,
    /// `salt` is longer than 64 bytes.
    #[error("salt too big")]
    SaltLength,
    /// `seq` is missing, negative or not a number.
    #[error("invalid seq")]
    Seq,
    /// `sig` is not 64 bytes.
    #[error("invalid signature")]
    Signature,
    /// `cas` is not a number.
    #[error("invalid cas")]
    Cas,
}

impl Fault {
    /// The error that answers it.
    pub fn code(self) -> ErrorCode {
        match self {
            Fault::ValueLength => ErrorCode::ValueLength,
            Fault::SaltLength => ErrorCode::SaltLength,
            Fault::Signature => ErrorCode::Signature,
            Fault::NoMethod
            | Fault::NoArguments
            | Fault::Id
            | Fault::Target
            | Fault::InfoHash
            | Fault::Port
            | Fault::Token
            | Fault::Value
            | Fault::PublicKey
            | Fault::Salt
            | Fault::Seq
            | Fault::Cas => ErrorCode::Protocol,
        }
    }
}

pub(super) fn decode_query<'a>(
    q: Option<Value<'a>>,
    a: Option<Value<'a>>,
) -> Result<Query<'a>, Fault> {
    let name = q.and_then(Value::bytes).ok_or(Fault::NoMethod)?;
    let args = Args::read(a.and_then(Value::dict).ok_or(Fault::NoArguments)?);
    let id = string(args.id).and_then(NodeId::from_slice).ok_or(Fault::Id)?;
    let target = string(args.target).and_then(to_key);
    let info_hash = string(args.info_hash).and_then(InfoHash::from_slice);
    let method = match name {
        b"ping" => Method::Ping,
        b"find_node" => Method::FindNode { target: target.ok_or(Fault::Target)? },
        b"get_peers" => Method::GetPeers {
            info_hash: info_hash.ok_or(Fault::InfoHash)?,
            noseed: flag(args.noseed),
            scrape: flag(args.scrape),
        },
        b"announce_peer" => decode_announce(info_hash.ok_or(Fault::InfoHash)?, &args)?,
        b"get" => {
            Method::Get { target: target.ok_or(Fault::Target)?, seq: args.seq.and_then(Value::int) }
        }
        b"put" => Method::Put(decode_put(&args)?),
        b"sample_infohashes" => Method::SampleInfohashes { target: target.ok_or(Fault::Target)? },
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

fn decode_announce<'a>(info_hash: InfoHash, args: &Args<'a>) -> Result<Method<'a>, Fault> {
    let implied_port = flag(args.implied_port);
    let port = args.port.and_then(Value::int).and_then(|p| u16::try_from(p).ok());
    let port = match port {
        Some(port) if port != 0 => port,
        _ if implied_port => 0,
        _ => return Err(Fault::Port),
    };
    let token = string(args.token).ok_or(Fault::Token)?;
    Ok(Method::AnnouncePeer { info_hash, port, implied_port, seed: flag(args.seed), token })
}

fn decode_put<'a>(args: &Args<'a>) -> Result<Put<'a>, Fault> {
    let token = string(args.token).ok_or(Fault::Token)?;
    let (value, raw) = args.v.ok_or(Fault::Value)?;
    if raw.len() > ITEM_VALUE_MAX {
        return Err(Fault::ValueLength);
    }
    if !value.is_canonical() {
        return Err(Fault::Value);
    }
    let signed = if args.k.is_some() { Some(decode_signed(args)?) } else { None };
    Ok(Put { token, value: raw, signed })
}

fn decode_signed<'a>(args: &Args<'a>) -> Result<SignedPut<'a>, Fault> {
    let public_key = string(args.k).and_then(|k| k.try_into().ok()).ok_or(Fault::PublicKey)?;
    let salt = match args.salt {
        None => &[][..],
        Some(salt) => salt.bytes().ok_or(Fault::Salt)?,
    };
    if salt.len() > ITEM_SALT_MAX {
        return Err(Fault::SaltLength);
    }
    let seq = args.seq.and_then(Value::int).filter(|seq| *seq >= 0).ok_or(Fault::Seq)?;
    let signature = string(args.sig).and_then(|s| s.try_into().ok()).ok_or(Fault::Signature)?;
    let cas = match args.cas {
        None => None,
        Some(cas) => Some(cas.int().ok_or(Fault::Cas)?),
    };
    Ok(SignedPut { public_key, salt, seq, signature, cas })
}

#[derive(Default)]
struct Args<'a> {
    cas: Option<Value<'a>>,
    id: Option<Value<'a>>,
    implied_port: Option<Value<'a>>,
    info_hash: Option<Value<'a>>,
    k: Option<Value<'a>>,
    noseed: Option<Value<'a>>,
    port: Option<Value<'a>>,
    salt: Option<Value<'a>>,
    scrape: Option<Value<'a>>,
    seed: Option<Value<'a>>,
    seq: Option<Value<'a>>,
    sig: Option<Value<'a>>,
    target: Option<Value<'a>>,
    token: Option<Value<'a>>,
    v: Option<(Value<'a>, &'a [u8])>,
    want: Option<Value<'a>>,
}

impl<'a> Args<'a> {
    fn read(dict: Dict<'a>) -> Args<'a> {
        let mut args = Args::default();
        for Entry { key, value, raw } in dict.entries() {
            let slot = match key {
                b"cas" => &mut args.cas,
                b"id" => &mut args.id,
                b"implied_port" => &mut args.implied_port,
                b"info_hash" => &mut args.info_hash,
                b"k" => &mut args.k,
                b"noseed" => &mut args.noseed,
                b"port" => &mut args.port,
                b"salt" => &mut args.salt,
                b"scrape" => &mut args.scrape,
                b"seed" => &mut args.seed,
                b"seq" => &mut args.seq,
                b"sig" => &mut args.sig,
                b"target" => &mut args.target,
                b"token" => &mut args.token,
                b"v" => {
                    args.v.get_or_insert((value, raw));
                    continue;
                }
                b"want" => &mut args.want,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        args
    }
}

fn string(value: Option<Value<'_>>) -> Option<&[u8]> {
    value.and_then(Value::bytes)
}

// BEP 5 and BEP 33 give their flags as 1.
fn flag(value: Option<Value<'_>>) -> bool {
    value.and_then(Value::int).is_some_and(|n| n != 0)
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
    encode_query_wanting(out, head, method, None);
}

/// The same, saying which families of contacts are wanted (BEP 32): those of `want`, or none in
/// particular.
pub fn encode_query_wanting(
    out: &mut Vec<u8>,
    head: QueryHead<'_>,
    method: &Method<'_>,
    want: Option<Want>,
) {
    let mut w = Writer::new(out);
    w.dict().bytes(b"a").dict();
    if let Method::Put(Put { signed: Some(SignedPut { cas: Some(cas), .. }), .. }) = method {
        w.bytes(b"cas").int(*cas);
    }
    w.bytes(b"id").bytes(head.id.as_bytes());
    let name: &[u8] = match *method {
        Method::Ping => b"ping",
        Method::FindNode { target } => {
            w.bytes(b"target").bytes(target.as_bytes());
            b"find_node"
        }
        Method::GetPeers { info_hash, noseed, scrape } => {
            w.bytes(b"info_hash").bytes(info_hash.as_bytes());
            if noseed {
                w.bytes(b"noseed").int(1);
            }
            if scrape {
                w.bytes(b"scrape").int(1);
            }
            b"get_peers"
        }
        Method::AnnouncePeer { info_hash, port, implied_port, seed, token } => {
            // Always present: a deployed node drops announces without the key.
            w.bytes(b"implied_port").int(i64::from(implied_port));
            w.bytes(b"info_hash").bytes(info_hash.as_bytes());
            w.bytes(b"port").int(i64::from(port));
            if seed {
                w.bytes(b"seed").int(1);
            }
            w.bytes(b"token").bytes(token);
            b"announce_peer"
        }
        Method::Get { target, seq } => {
            if let Some(seq) = seq {
                w.bytes(b"seq").int(seq);
            }
            w.bytes(b"target").bytes(target.as_bytes());
            b"get"
        }
        Method::Put(put) => {
            encode_put(&mut w, &put);
            b"put"
        }
        Method::SampleInfohashes { target } => {
            w.bytes(b"target").bytes(target.as_bytes());
            b"sample_infohashes"
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
    if let Some(want) = want {
        encode_want(&mut w, want);
    }
    w.end().bytes(b"q").bytes(name);
    if head.read_only {
        w.bytes(b"ro").int(1);
    }
    w.bytes(b"t").bytes(head.tid).bytes(b"v").bytes(VERSION).bytes(b"y").bytes(b"q").end();
}

fn encode_want(w: &mut Writer<'_>, want: Want) {
    w.bytes(b"want").list();
    for (wanted, name) in [(want.v4, b"n4"), (want.v6, b"n6")] {
        if wanted {
            w.bytes(name);
        }
    }
    w.end();
}

fn encode_put(w: &mut Writer<'_>, put: &Put<'_>) {
    if let Some(signed) = &put.signed {
        w.bytes(b"k").bytes(signed.public_key);
        if !signed.salt.is_empty() {
            w.bytes(b"salt").bytes(signed.salt);
        }
        w.bytes(b"seq").int(signed.seq);
        w.bytes(b"sig").bytes(signed.signature);
    }
    // BEP 44 derives the target from the rest, but a deployed node drops a `put` without one.
    w.bytes(b"target").bytes(put.target().as_bytes());
    w.bytes(b"token").bytes(put.token).bytes(b"v").raw(put.value);
}
