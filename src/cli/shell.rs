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
use crate::dht::LookupReport;
use crate::driver::Session;
use crate::engine::NodeEvent;

/// Runs until `quit`, or until stdin has ended and everything under way with it.
pub async fn run(
    session: &Session,
    started: Instant,
    console: &Arc<Console>,
) -> Result<(), Failure> {
    let addrs: Vec<_> = session.local_addrs().iter().map(ToString::to_string).collect();
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
                    Some(Ok(Line::Status)) => status(session, console).await,
                    Some(Ok(Line::Do(what))) => {
                        running.spawn(perform(session.clone(), what, console.clone()));
                    }
                    Some(Err(error)) => console.record(
                        || format!("error {}", escape(&error)),
                        || json!({"ev": "error", "error": error}),
                    ),
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

async fn perform(session: Session, what: What, console: Arc<Console>) {
    let started = Instant::now();
    let (subject, mut events) = match what {
        What::Lookup(hash) => (hash.to_string(), session.dht_get_peers(hash).await),
        What::Announce(hash, port) => (hash.to_string(), session.dht_announce(hash, port).await),
        What::FindNode(id) => (id.to_string(), session.dht_find_node(id).await),
        What::Ping(addr) => (addr.to_string(), session.dht_ping(addr).await),
    };
    let mut total = Total::default();
    while let Some(event) = events.recv().await {
        let at = started.elapsed();
        match event {
            NodeEvent::Peers(peers) => {
                peers.iter().for_each(|peer| say_peer(&console, &subject, *peer, at));
            }
            NodeEvent::Pinged { id, rtt } => say_pong(&console, &subject, id, rtt),
            NodeEvent::Done { report, last } => {
                total.add(&report);
                if last {
                    total.say(&console, &subject, what, at);
                }
            }
        }
    }
}

// Both address families together.
#[derive(Default)]
struct Total {
    asked: usize,
    answered: usize,
    peers: usize,
    announced: usize,
    nodes: Vec<String>,
}

impl Total {
    fn add(&mut self, report: &LookupReport) {
        self.asked += report.asked;
        self.answered += report.answered;
        self.peers += report.peers;
        self.announced += report.announced;
        self.nodes.extend(report.nodes.iter().map(|(id, addr)| format!("{id} {addr}")));
    }

    fn say(&self, console: &Console, subject: &str, what: What, at: Duration) {
        let Total { asked, answered, peers, announced, nodes } = self;
        console.record(
            || {
                let mut text = format!(
                    "done {subject} asked {asked} answered {answered} peers {peers} announced {announced}"
                );
                if let What::FindNode(_) = what {
                    nodes.iter().for_each(|node| text.push_str(&format!("\nnode {subject} {node}")));
                }
                text
            },
            || {
                let mut json = json!({
                    "ev": "done", "h": subject, "ms": millis(at), "asked": asked,
                    "answered": answered, "peers": peers, "announced": announced,
                });
                if let What::FindNode(_) = what {
                    json["nodes"] = json!(nodes);
                }
                json
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

fn say_pong(console: &Console, subject: &str, id: Option<NodeId>, rtt: Option<Duration>) {
    let id = id.map(|id| id.to_string());
    console.record(
        || format!("pong {subject} {}", id.as_deref().unwrap_or("none")),
        || json!({"ev": "pong", "h": subject, "id": id, "ms": rtt.map(millis)}),
    );
}

async fn status(session: &Session, console: &Console) {
    let nodes = session.status().await.map(|s| s.nodes).unwrap_or_default();
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
