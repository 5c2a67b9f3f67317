//! KRPC messages: what we understand is what stands there by the reference's reading, and what we
//! write we read.

use std::net::{IpAddr, SocketAddr};

use trackless::base::addr::Family;
use trackless::wire::bencode::Limits;
use trackless::wire::krpc::{
    Body, Message, Method, Query, QueryHead, Reply, TRANSACTION_ID_MAX, encode_query,
};

use super::bencode::compare;
use super::reference::Tree;

/// Any bytes as a datagram.
pub fn krpc(data: &[u8]) {
    let tree = compare(data, Limits::MESSAGE);
    let message = Message::decode(data);
    let text = |key: &str| tree.as_ref()?.get(key)?.bytes();
    let Some(tid) = text("t").filter(|t| (1..=TRANSACTION_ID_MAX).contains(&t.len())) else {
        assert!(message.is_err(), "no transaction id: {message:?}");
        return;
    };
    let tree = tree.as_ref().expect("it has a transaction id");
    let Ok(message) = message else {
        let has_id = tree.get("r").is_some_and(|r| id_of(r).is_some());
        assert!(match text("y") {
            Some(b"q" | b"e") => false,
            Some(b"r") => !has_id,
            _ => true,
        });
        return;
    };
    assert_eq!(message.tid, tid);
    assert_eq!(message.version, text("v"));
    let read_only = tree.get("ro").is_some_and(|ro| *ro != Tree::Int(0));
    assert_eq!(message.read_only, read_only);
    assert_eq!(message.seen_at, text("ip").and_then(seen_at));
    match (text("y"), &message.body) {
        (Some(b"q"), Body::Query(query)) => on_query(tree, query),
        (Some(b"q"), Body::BadQuery(_)) => {}
        (Some(b"r"), Body::Reply(reply)) => on_reply(tree.get("r").expect("an answer"), reply),
        (Some(b"e"), Body::Error(error)) => {
            let parts = tree.get("e").and_then(Tree::list).unwrap_or_default();
            assert_eq!(error.code, parts.first().and_then(Tree::int).unwrap_or(0));
            assert_eq!(error.text, parts.get(1).and_then(Tree::bytes).unwrap_or_default());
        }
        (kind, body) => panic!("{kind:?} was read as {body:?}"),
    }
}

fn on_query(tree: &Tree, query: &Query<'_>) {
    let args = tree.get("a").expect("arguments");
    assert_eq!(Some(&query.id.as_bytes()[..]), id_of(args));
    let key = |name: &str| args.get(name).and_then(Tree::bytes).filter(|key| key.len() == 20);
    let flag = |name: &str| args.get(name).and_then(Tree::int).is_some_and(|n| n != 0);
    let name = tree.get("q").and_then(Tree::bytes).expect("a method");
    match (name, query.method) {
        (b"ping", Method::Ping) => {}
        (b"find_node", Method::FindNode { target })
        | (b"sample_infohashes", Method::SampleInfohashes { target }) => {
            assert_eq!(Some(&target.as_bytes()[..]), key("target"));
        }
        (b"get_peers", Method::GetPeers { info_hash, noseed, scrape }) => {
            assert_eq!(Some(&info_hash.as_bytes()[..]), key("info_hash"));
            assert_eq!((noseed, scrape), (flag("noseed"), flag("scrape")));
        }
        (b"announce_peer", Method::AnnouncePeer { info_hash, port, implied_port, seed, token }) => {
            assert_eq!(Some(&info_hash.as_bytes()[..]), key("info_hash"));
            assert_eq!((implied_port, seed), (flag("implied_port"), flag("seed")));
            assert!(implied_port || port != 0);
            let named = args.get("port").and_then(Tree::int);
            assert!(port == 0 || named == Some(i64::from(port)));
            assert_eq!(Some(token), args.get("token").and_then(Tree::bytes));
        }
        (b"get", Method::Get { target, seq }) => {
            assert_eq!(Some(&target.as_bytes()[..]), key("target"));
            assert_eq!(seq, args.get("seq").and_then(Tree::int));
        }
        (b"put", Method::Put(put)) => {
            let (value, raw) = args.entry("v").expect("a value");
            assert_eq!((put.value, &value.canonical()[..]), (raw, raw));
            assert_eq!(put.signed.is_some(), args.get("k").is_some());
            if let Some(signed) = put.signed {
                let salt = args.get("salt").map(|salt| salt.bytes().expect("a string"));
                assert_eq!(signed.salt, salt.unwrap_or_default());
                assert_eq!(Some(signed.seq), args.get("seq").and_then(Tree::int));
                assert_eq!(signed.cas, args.get("cas").and_then(Tree::int));
            }
            // Not worth an opinion of its own, but it must not panic.
            let _ = trackless::wire::item::Item::from_put(&put);
        }
        (name, Method::Unknown { name: read, target, writes }) => {
            assert_eq!(name, read);
            assert_eq!(
                target.map(|t| t.as_bytes().to_vec()),
                key("target").or(key("info_hash")).map(<[u8]>::to_vec)
            );
            assert_eq!(writes, args.get("token").is_some());
            return;
        }
        (name, method) => panic!("{name:?} was read as {method:?}"),
    }
    let mut out = Vec::new();
    let head = QueryHead { tid: b"aa", id: query.id, read_only: true };
    encode_query(&mut out, head, &query.method);
    let again = Message::decode(&out).expect("we read what we write");
    assert_eq!(again.body, Body::Query(Query { want: None, ..*query }));
    assert!(again.read_only);
}

fn on_reply(r: &Tree, reply: &Reply<'_>) {
    assert_eq!(Some(&reply.id.as_bytes()[..]), id_of(r));
    let text = |key: &str| r.get(key).and_then(Tree::bytes);
    assert_eq!(reply.token, text("token"));
    for (family, key, len) in [(Family::V4, "nodes", 26), (Family::V6, "nodes6", 38)] {
        let want = text(key).unwrap_or_default().chunks_exact(len);
        let want = want.map(|node| (node[..20].to_vec(), endpoint(&node[20..])));
        let read = reply.contacts(family).map(|(id, addr)| (id.as_bytes().to_vec(), Some(addr)));
        assert!(read.eq(want), "{key}");
    }
    let values = r.get("values").and_then(Tree::list);
    assert_eq!(reply.has_values(), values.is_some());
    let want = values.unwrap_or_default().iter().filter_map(|v| endpoint(v.bytes()?));
    assert!(reply.peers().eq(want), "values");
    assert_eq!(reply.item.value, r.entry("v").map(|(_, raw)| raw));
    assert_eq!(reply.item.seq, r.get("seq").and_then(Tree::int));
    let sized = |key: &str, len: usize| text(key).filter(|bytes| bytes.len() == len);
    assert_eq!(reply.item.public_key.map(|k| &k[..]), sized("k", 32));
    assert_eq!(reply.item.signature.map(|s| &s[..]), sized("sig", 64));
    let filters = reply.filters.map(|(seeds, peers)| (&seeds[..], &peers[..]));
    assert_eq!(filters, sized("BFsd", 256).zip(sized("BFpe", 256)));
    assert_eq!(reply.samples.is_some(), text("samples").is_some());
    if let Some(samples) = reply.samples {
        let came = samples.info_hashes().count();
        assert!(samples.total() >= came as u64 && samples.interval() <= 21_600);
    }
}

fn id_of(dict: &Tree) -> Option<&[u8]> {
    dict.get("id")?.bytes().filter(|id| id.len() == 20)
}

fn seen_at(bytes: &[u8]) -> Option<SocketAddr> {
    let without_port = [bytes, &[0, 0]].concat();
    endpoint(bytes).or_else(|| endpoint(&without_port))
}

fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
}
