//! `trackless dht shell`: many operations on one node. Lines on stdin, events on stdout; operations
//! run at the same time, and each event names what it belongs to.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dht::millis;
use super::exit::Failure;
use super::format::escape;
use super::output::Console;
use crate::base::{InfoHash, NodeId};
use crate::driver::{Dht, DhtError, Lookup, Outcome, Pong};

/// Runs until `quit`, or until stdin has ended and everything under way with it.
pub async fn run(dht: &Dht, started: Instant, console: &Arc<Console>) -> Result<(), Failure> {
    let addrs: Vec<_> = dht.local_addrs().iter().map(ToString::to_string).collect();
    console.record(
        || format!("up {}", addrs.join(" ")),
        || json!({"ev": "up", "ms": millis(started.elapsed()), "addrs": addrs}),
    );
    let mut lines = read_in_background();
    let mut running = JoinSet::new();
    let mut is_open = true;
    while (is_open || !running.is_empty()) && !console.is_closed() {
        tokio::select! {
            line = lines.recv(), if is_open && running.len() < OPERATIONS_MAX => {
                match line.as_deref().map(Line::read) {
                    Some(Ok(Line::Quit)) => break,
                    Some(Ok(Line::Empty)) => {}
                    Some(Ok(Line::Status)) => status(dht, console).await,
                    Some(Ok(Line::Do(what))) => {
                        running.spawn(perform(dht.clone(), what, console.clone()));
                    }
                    Some(Err(error)) => say_error(console, &error),
                    None => is_open = false,
                }
            }
            Some(_) = running.join_next() => {}
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Empty,
    Quit,
    Status,
    Do(What),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Lookup(InfoHash),
    Announce(InfoHash, Option<u16>),
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
            ["announce", hash, port @ ..] if port.len() <= 1 => {
                let hash = hash.parse().map_err(|e| bad(hash, &e))?;
                let port = match port {
                    [port] => Some(port.parse().map_err(|e| bad(port, &e))?),
                    _ => None,
                };
                Line::Do(What::Announce(hash, port))
            }
            ["find-node", id] => Line::Do(What::FindNode(id.parse().map_err(|e| bad(id, &e))?)),
            ["ping", addr] => Line::Do(What::Ping(addr.parse().map_err(|e| bad(addr, &e))?)),
            _ => {
                return Err(
                    "expected `lookup HASH`, `announce HASH [PORT]`, `find-node ID`, `ping IP:PORT`, \
                     `status` or `quit`"
                        .to_owned(),
                );
            }
        })
    }
}

async fn perform(dht: Dht, what: What, console: Arc<Console>) {
    let started = Instant::now();
    let done = match what {
        What::Lookup(hash) => {
            let peers = dht.get_peers(hash).await;
            follow_peers(peers, &hash.to_string(), started, &console).await
        }
        What::Announce(hash, port) => {
            let peers = dht.announce(hash, port).await;
            follow_peers(peers, &hash.to_string(), started, &console).await
        }
        What::FindNode(id) => {
            let outcome = dht.find_node(id).await.finish().await;
            outcome.map(|outcome| say_done(&outcome, &id.to_string(), true, started, &console))
        }
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

async fn follow_peers(
    mut peers: Lookup<SocketAddr>,
    subject: &str,
    started: Instant,
    console: &Console,
) -> Result<(), DhtError> {
    while let Some(peer) = peers.next().await {
        say_peer(console, subject, peer, started.elapsed());
    }
    let outcome = peers.finish().await?;
    say_done(&outcome, subject, false, started, console);
    Ok(())
}

fn say_done(
    outcome: &Outcome,
    subject: &str,
    with_nodes: bool,
    started: Instant,
    console: &Console,
) {
    let (asked, answered) = (outcome.asked(), outcome.answered());
    let (peers, announced) = (outcome.peers(), outcome.announced());
    let nodes: Vec<_> = match with_nodes {
        true => outcome.nodes().map(|(id, addr)| format!("{id} {addr}")).collect(),
        false => Vec::new(),
    };
    console.record(
        || {
            let mut text = format!(
                "done {subject} asked {asked} answered {answered} peers {peers} announced {announced}"
            );
            nodes.iter().for_each(|node| text.push_str(&format!("\nnode {subject} {node}")));
            text
        },
        || {
            let mut json = json!({
                "ev": "done", "h": subject, "ms": millis(started.elapsed()), "asked": asked,
                "answered": answered, "peers": peers, "announced": announced,
            });
            if with_nodes {
                json["nodes"] = json!(nodes);
            }
            json
        },
    );
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
    console.record(
        || format!("status contacts {contacts} ids {}", ids.join(" ")),
        || json!({"ev": "status", "contacts": contacts, "ids": ids}),
    );
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
        for bad in ["lookup", "lookup x", "announce", "fly me", "ping here"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&format!("announce {HASH} 99999")).is_err());
    }
}
