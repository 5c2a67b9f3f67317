//! `trackless dht shell`: many operations on one node. Lines on stdin, events on stdout; operations
//! run at the same time, and each event names what it belongs to.

use std::io::BufRead;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dht::{items, millis, survey};
use super::exit::Failure;
use super::format::escape;
use super::output::Console;
use crate::base::{InfoHash, Key, NodeId};
use crate::dht::{Item, ItemKey, string_value};
use crate::driver::{Dht, DhtError, Lookup, Outcome, Pong, Sample};

/// Runs until `quit`, or until stdin has ended and everything under way with it.
pub async fn run(dht: &Dht, started: Instant, console: &Arc<Console>) -> Result<(), Failure> {
    let addrs: Vec<_> = dht.local_addrs().iter().map(ToString::to_string).collect();
    console.record(
        || format!("up {}", addrs.join(" ")),
        || json!({"ev": "up", "ms": millis(started.elapsed()), "addrs": addrs}),
    );
    let mut lines = read_in_background();
    let mut running = JoinSet::new();
    let mut in_bulk = JoinSet::new();
    let mut is_open = true;
    while (is_open || !running.is_empty() || !in_bulk.is_empty()) && !console.is_closed() {
        let has_room = running.len() < OPERATIONS_MAX && in_bulk.len() < IN_BULK_MAX;
        tokio::select! {
            line = lines.recv(), if is_open && has_room => {
                match line.as_deref().map(Line::read) {
                    Some(Ok(Line::Quit)) => break,
                    Some(Ok(Line::Empty)) => {}
                    Some(Ok(Line::Status)) => status(dht, console).await,
                    Some(Ok(Line::Keep(hash, port))) => keep(dht, hash, port, console).await,
                    Some(Ok(Line::Drop(hash))) => drop_kept(dht, hash, console).await,
                    Some(Ok(Line::Do(what @ What::Bulk(_)))) => {
                        in_bulk.spawn(perform(dht.clone(), what, console.clone()));
                    }
                    Some(Ok(Line::Do(what))) => {
                        running.spawn(perform(dht.clone(), what, console.clone()));
                    }
                    Some(Err(error)) => say_error(console, &error),
                    None => is_open = false,
                }
            }
            Some(_) = running.join_next() => {}
            Some(_) = in_bulk.join_next() => {}
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Empty,
    Quit,
    Status,
    Keep(InfoHash, Option<u16>),
    Drop(InfoHash),
    Do(What),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Lookup(InfoHash),
    Bulk(InfoHash),
    Announce(InfoHash, Option<u16>),
    Scrape(InfoHash),
    Sample(Key),
    Get(String, ItemKey),
    Put(Item),
    FindNode(NodeId),
    Ping(SocketAddr),
}

impl Line {
    fn read(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split_whitespace().collect();
        let bad = |word: &str, error: &dyn std::fmt::Display| format!("{word}: {error}");
        Ok(match words.as_slice() {
            [] => Line::Empty,
            ["quit" | "exit"] => Line::Quit,
            ["status"] => Line::Status,
            ["lookup" | "get-peers", hash] => {
                Line::Do(What::Lookup(hash.parse().map_err(|e| bad(hash, &e))?))
            }
            ["bulk", hash] => Line::Do(What::Bulk(hash.parse().map_err(|e| bad(hash, &e))?)),
            [verb @ ("announce" | "keep"), hash, port @ ..] if port.len() <= 1 => {
                let hash = hash.parse().map_err(|e| bad(hash, &e))?;
                let port = match port {
                    [port] => Some(port.parse::<NonZeroU16>().map_err(|e| bad(port, &e))?.get()),
                    _ => None,
                };
                match *verb {
                    "keep" => Line::Keep(hash, port),
                    _ => Line::Do(What::Announce(hash, port)),
                }
            }
            ["drop", hash] => Line::Drop(hash.parse().map_err(|e| bad(hash, &e))?),
            ["scrape", hash] => Line::Do(What::Scrape(hash.parse().map_err(|e| bad(hash, &e))?)),
            ["sample"] => Line::Do(What::Sample(survey::random_key().map_err(|f| f.error)?)),
            ["sample", key] => Line::Do(What::Sample(key.parse().map_err(|e| bad(key, &e))?)),
            ["get", key, salt @ ..] if salt.len() <= 1 => {
                let read = items::item_key(key, salt.first().copied()).map_err(|f| f.error)?;
                Line::Do(What::Get((*key).to_owned(), read))
            }
            ["put", ..] => {
                let value = text.trim_start().strip_prefix("put").unwrap_or_default();
                let value = value.strip_prefix(char::is_whitespace).unwrap_or_default();
                let item = Item::immutable(string_value(value.as_bytes()));
                Line::Do(What::Put(item.map_err(|e| bad("put", &e))?))
            }
            ["find-node", id] => Line::Do(What::FindNode(id.parse().map_err(|e| bad(id, &e))?)),
            ["ping", addr] => Line::Do(What::Ping(addr.parse().map_err(|e| bad(addr, &e))?)),
            _ => {
                return Err(
                    "expected `lookup HASH`, `bulk HASH`, `announce HASH [PORT]`, `keep HASH [PORT]`, \
                     `drop HASH`, `scrape HASH`, `find-node ID`, \
                     `sample [TARGET]`, `get KEY [SALT]`, `put VALUE`, `ping IP:PORT`, `status` or `quit`"
                        .to_owned(),
                );
            }
        })
    }
}

async fn perform(dht: Dht, what: What, console: Arc<Console>) {
    let asked = Asked { started: Instant::now(), console: &console };
    let done = match what {
        What::Lookup(hash) => asked.peers(hash, dht.get_peers(hash).await).await,
        What::Bulk(hash) => asked.peers(hash, dht.get_peers_in_bulk(hash).await).await,
        What::Announce(hash, port) => asked.peers(hash, dht.announce(hash, port).await).await,
        What::Scrape(hash) => asked.scrape(hash, dht.scrape(hash).await).await,
        What::Sample(target) => asked.samples(target, dht.sample(target).await).await,
        What::Get(name, key) => asked.items(&name, dht.get_item(key).await).await,
        What::Put(item) => {
            let target = item.target().to_string();
            asked.items(&target, dht.put_item(item, None).await).await
        }
        What::FindNode(id) => asked.nodes(id, dht.find_node(id).await).await,
        What::Ping(addr) => {
            let pong = match dht.ping(addr).await {
                Err(DhtError::NoAnswer(_)) => Ok(None),
                answered => answered.map(Some),
            };
            pong.map(|pong| say_pong(&console, addr, pong))
        }
    };
    if let Err(error) = done {
        say_error(&console, &error.to_string());
    }
}

// One operation under way.
struct Asked<'a> {
    started: Instant,
    console: &'a Console,
}

impl Asked<'_> {
    async fn peers(&self, hash: InfoHash, mut peers: Lookup<SocketAddr>) -> Result<(), DhtError> {
        let subject = hash.to_string();
        while let Some(peer) = peers.next().await {
            say_peer(self.console, &subject, peer, self.started.elapsed());
        }
        self.done(&subject, &peers.finish().await?, &Value::Null);
        Ok(())
    }

    async fn scrape(&self, hash: InfoHash, scrape: Lookup<SocketAddr>) -> Result<(), DhtError> {
        let outcome = scrape.finish().await?;
        let count = outcome.scrape().unwrap_or_default();
        let more =
            json!({"seeds": count.seeds, "downloaders": count.peers, "counted_by": count.nodes});
        self.done(&hash.to_string(), &outcome, &more);
        Ok(())
    }

    async fn samples(&self, target: Key, mut samples: Lookup<Sample>) -> Result<(), DhtError> {
        let subject = target.to_string();
        while let Some(sample) = samples.next().await {
            let text = || {
                let hashes: Vec<_> = sample.info_hashes.iter().map(ToString::to_string).collect();
                format!("samples {subject} {} {}", sample.from, hashes.join(" "))
            };
            let json = || self.event("samples", &subject, survey::sample_json(&sample));
            self.console.record(text, json);
        }
        self.done(&subject, &samples.finish().await?, &Value::Null);
        Ok(())
    }

    async fn items(&self, subject: &str, mut found: Lookup<Item>) -> Result<(), DhtError> {
        while let Some(item) = found.next().await {
            self.console.record(
                || format!("item {subject} {}", escape(&items::line(&item))),
                || self.event("item", subject, items::to_json(&item)),
            );
        }
        let outcome = found.finish().await?;
        let refused: Vec<i64> = outcome.refused().collect();
        self.done(subject, &outcome, &json!({"refused": refused}));
        Ok(())
    }

    async fn nodes(&self, id: NodeId, nodes: Lookup<(NodeId, SocketAddr)>) -> Result<(), DhtError> {
        let (subject, outcome) = (id.to_string(), nodes.finish().await?);
        let nodes: Vec<_> = outcome.nodes().map(|(id, addr)| format!("{id} {addr}")).collect();
        if !self.console.is_json() {
            for node in &nodes {
                self.console.write(format!("node {subject} {node}\n").as_bytes());
            }
        }
        self.done(&subject, &outcome, &json!({"nodes": nodes}));
        Ok(())
    }

    fn event(&self, name: &str, subject: &str, mut json: Value) -> Value {
        json["ev"] = name.into();
        json["h"] = subject.into();
        json["ms"] = millis(self.started.elapsed()).into();
        json
    }

    // The end of it. `more` is for programs; people are told what of it is a number.
    fn done(&self, subject: &str, outcome: &Outcome, more: &Value) {
        let (asked, answered) = (outcome.asked(), outcome.answered());
        let (peers, announced) = (outcome.peers(), outcome.announced());
        let more = || more.as_object().into_iter().flatten();
        self.console.record(
            || {
                let mut text = format!(
                    "done {subject} asked {asked} answered {answered} peers {peers} announced {announced}"
                );
                for (name, value) in more().filter(|(_, value)| value.is_number()) {
                    text.push_str(&format!(" {name} {value}"));
                }
                text
            },
            || {
                let mut json = json!({
                    "asked": asked, "answered": answered, "peers": peers, "announced": announced,
                });
                for (name, value) in more() {
                    json[name] = value.clone();
                }
                self.event("done", subject, json)
            },
        );
    }
}

fn say_peer(console: &Console, subject: &str, peer: SocketAddr, at: Duration) {
    console.record(
        || format!("peer {subject} {peer}"),
        || json!({"ev": "peer", "h": subject, "ms": millis(at), "addr": peer.to_string()}),
    );
}

fn say_pong(console: &Console, addr: SocketAddr, pong: Option<Pong>) {
    let id = pong.map(|p| p.id.to_string());
    console.record(
        || format!("pong {addr} {}", id.as_deref().unwrap_or("none")),
        || json!({"ev": "pong", "h": addr.to_string(), "id": id, "ms": pong.map(|p| millis(p.rtt))}),
    );
}

fn say_error(console: &Console, error: &str) {
    console
        .record(|| format!("error {}", escape(error)), || json!({"ev": "error", "error": error}));
}

async fn status(dht: &Dht, console: &Console) {
    let nodes = dht.status().await.unwrap_or_default();
    let contacts: usize = nodes.iter().map(|n| n.contacts).sum();
    let ids: Vec<_> = nodes.iter().map(|n| n.id.to_string()).collect();
    let announcing: Vec<_> = nodes.iter().map(|n| n.announcing).collect();
    let kept: usize = announcing.iter().map(|a| a.torrents).max().unwrap_or_default();
    console.record(
        || format!("status contacts {contacts} kept {kept} ids {}", ids.join(" ")),
        || json!({"ev": "status", "contacts": contacts, "ids": ids, "announcing": announcing}),
    );
}

async fn keep(dht: &Dht, hash: InfoHash, port: Option<u16>, console: &Console) {
    match dht.keep_announced(hash, port).await {
        Ok(true) => say_kept("kept", hash, console),
        Ok(false) => say_error(console, &format!("{hash}: too many are kept announced")),
        Err(error) => say_error(console, &error.to_string()),
    }
}

async fn drop_kept(dht: &Dht, hash: InfoHash, console: &Console) {
    match dht.drop_announced(hash).await {
        Ok(true) => say_kept("dropped", hash, console),
        Ok(false) => say_error(console, &format!("{hash}: it is not kept announced")),
        Err(error) => say_error(console, &error.to_string()),
    }
}

fn say_kept(what: &str, hash: InfoHash, console: &Console) {
    console.record(|| format!("{what} {hash}"), || json!({"ev": what, "h": hash.to_string()}));
}

// stdin blocks: it is read on a thread of its own, a few lines ahead.
fn read_in_background() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(LINES_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

const LINES_AHEAD_MAX: usize = 16;
/// Operations at the same time; further lines wait.
const OPERATIONS_MAX: usize = 64;
/// Lookups of which each waits for its turn; further lines wait. Enough to put them in a good order.
const IN_BULK_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn lines_are_read_as_documented() {
        let hash: InfoHash = HASH.parse().unwrap();
        let read = |text: &str| Line::read(text);
        assert_eq!(read(""), Ok(Line::Empty));
        assert_eq!(read(" quit "), Ok(Line::Quit));
        assert_eq!(read(&format!("lookup {HASH}")), Ok(Line::Do(What::Lookup(hash))));
        assert_eq!(
            read(&format!("announce {HASH} 7777")),
            Ok(Line::Do(What::Announce(hash, Some(7777))))
        );
        assert_eq!(read(&format!("announce {HASH}")), Ok(Line::Do(What::Announce(hash, None))));
        assert_eq!(read(&format!("bulk {HASH}")), Ok(Line::Do(What::Bulk(hash))));
        assert_eq!(read(&format!("keep {HASH} 7777")), Ok(Line::Keep(hash, Some(7777))));
        assert_eq!(read(&format!("keep {HASH}")), Ok(Line::Keep(hash, None)));
        assert_eq!(read(&format!("drop {HASH}")), Ok(Line::Drop(hash)));
        let put = |value: &str| {
            Ok(Line::Do(What::Put(Item::immutable(string_value(value.as_bytes())).unwrap())))
        };
        assert_eq!(read("put  two  words "), put(" two  words "));
        assert_eq!(read("put"), put(""));
        let key = ItemKey::Immutable(HASH.parse().unwrap());
        assert_eq!(read(&format!("get {HASH}")), Ok(Line::Do(What::Get(HASH.to_owned(), key))));
        let public = "ab".repeat(32);
        let key = ItemKey::Mutable { public_key: [0xab; 32], salt: b"s".to_vec() };
        assert_eq!(read(&format!("get {public} s")), Ok(Line::Do(What::Get(public, key))));
        assert!(matches!(read("sample"), Ok(Line::Do(What::Sample(_)))));
        assert!(read(&format!("put {}", "x".repeat(1_000))).is_err());
        for bad in [
            "get x",
            "get",
            "sample x:1",
            "scrape",
            "lookup",
            "lookup x",
            "announce",
            "fly me",
            "ping here",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&format!("announce {HASH} 99999")).is_err());
        assert!(read(&format!("keep {HASH} 0")).is_err());
    }
}
