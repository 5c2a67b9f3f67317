//! The bencode scanner: reads what the reference reads, and nothing else.

use trackless::wire::bencode::{Limits, Value, Writer, parse, parse_prefix};

use super::reference::{self, Tree};

/// Any bytes, as a message and as a torrent file.
pub fn bencode(data: &[u8]) {
    for limits in [Limits::MESSAGE, Limits { depth_max: 5, tokens_max: 20 }] {
        compare(data, limits);
    }
}

/// Ours and the reference agree on `data`; the tree, if it is bencode and nothing behind it.
pub fn compare(data: &[u8], limits: Limits) -> Option<Tree> {
    let theirs = reference::read(data, limits.depth_max, limits.tokens_max);
    let ours = parse_prefix(data, limits);
    let (tree, len) = match (&ours, theirs) {
        (Ok((value, len)), Some((tree, their_len))) => {
            assert_eq!(*len, their_len, "where it ends");
            assert_eq!(same(*value), tree);
            let canonical = tree.canonical();
            assert_eq!(value.is_canonical(), canonical == data[..*len]);
            if value.is_canonical() {
                let mut out = Vec::new();
                write(&tree, &mut out);
                assert_eq!(out, canonical);
            }
            (tree, their_len)
        }
        (Err(_), None) => {
            assert!(parse(data, limits).is_err());
            return None;
        }
        (ours, theirs) => panic!("ours: {ours:?}, the reference: {theirs:?}"),
    };
    let whole = parse(data, limits);
    assert_eq!(whole.is_ok(), len == data.len());
    whole.is_ok().then_some(tree)
}

// What we read as a tree.
fn same(value: Value<'_>) -> Tree {
    match value {
        Value::Int(n) => Tree::Int(n),
        Value::Bytes(bytes) => Tree::Bytes(bytes.to_vec()),
        Value::List(list) => Tree::List(list.iter().map(same).collect()),
        Value::Dict(dict) => {
            let mut pairs = dict.iter();
            let entries = dict.entries().map(|entry| {
                assert_eq!(pairs.next(), Some((entry.key, entry.value)));
                assert!(dict.get(entry.key).is_some());
                (entry.key.to_vec(), same(entry.value), entry.raw.to_vec())
            });
            Tree::Dict(entries.collect())
        }
    }
}

fn write(tree: &Tree, out: &mut Vec<u8>) {
    match tree {
        Tree::Int(n) => {
            Writer::new(out).int(*n);
        }
        Tree::Bytes(bytes) => {
            Writer::new(out).bytes(bytes);
        }
        Tree::List(items) => {
            Writer::new(out).list();
            items.iter().for_each(|item| write(item, out));
            Writer::new(out).end();
        }
        Tree::Dict(entries) => {
            Writer::new(out).dict();
            for (key, value, _) in entries {
                Writer::new(out).bytes(key);
                write(value, out);
            }
            Writer::new(out).end();
        }
    }
}
