//! `trackless dht`: one DHT operation, or (`shell`) many.

mod announce;
mod find;
pub mod items;
mod keys;
pub mod survey;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use self::announce::Announce;
use self::items::{Get, Put};
use self::survey::Place;
use super::args::{DhtArgs, DhtOperation};
use super::config::{self, Network, usage};
use super::exit::{Code, Failure};
use super::format::measured;
use super::input;
use super::online::{self, Role};
use super::output::Console;
use super::shell;
use super::stage::plural;
use crate::base::addr::is_sendable;
use crate::base::{InfoHash, NodeId};
use crate::dht::LookupKind;
use crate::driver::{Dht, DhtError, Outcome, Pong, Stage};
use crate::engine::Refused;

/// Runs the verb.
pub fn run(args: &DhtArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let network = Network::new(&args.network)?;
    if !network.dht {
        return Err(usage("`dht` without the DHT does nothing: leave out --no-dht"));
    }
    let operation = Operation::read(&args.operation, console)?;
    online::block_on(async {
        let started = Instant::now();
        let session = online::start(&network, Role::Visitor).await?;
        let dht = session.dht();
        let work = async {
            match operation {
                Operation::Ping(node) => ping(&dht, &node, console).await,
                Operation::FindNode(id) => find::node(&dht, id, console).await,
                Operation::GetPeers(hash) => find::peers(&dht, hash, console).await,
                Operation::Trace(hash) => find::traced(&dht, hash, console).await,
                Operation::Announce(announce) => announce.run(&dht, &network, console).await,
                Operation::Get(get) => get.run(&dht, console).await,
                Operation::Put(put) => put.run(&dht, console).await,
                Operation::Sample(place) => survey::sample(&dht, place, console).await,
                Operation::Scrape(hash) => survey::scrape(&dht, hash, console).await,
                Operation::Shell => shell::run(&dht, started, console).await,
            }
        };
        let limited = async {
            tokio::select! {
                outcome = work => outcome,
                () = online::at(network.timeout.map(|limit| started + limit)) => Err(late(&dht).await),
                never = break_silence(&dht, console) => match never {},
            }
        };
        online::conduct(&session, limited).await
    })
}

enum Operation {
    Ping(String),
    FindNode(NodeId),
    GetPeers(InfoHash),
    Trace(InfoHash),
    Announce(Announce),
    Get(Get),
    Put(Box<Put>),
    Sample(Place),
    Scrape(InfoHash),
    Shell,
}

impl Operation {
    fn read(args: &DhtOperation, console: &Console) -> Result<Self, Failure> {
        Ok(match args {
            DhtOperation::Ping { node } => Self::Ping(config::host_port("NODE", node)?),
            DhtOperation::FindNode { id } => {
                Self::FindNode(id.parse().map_err(|e| usage(format!("{id}: {e}")))?)
            }
            DhtOperation::GetPeers { hash, trace: false } => {
                Self::GetPeers(input::link(hash)?.info_hash)
            }
            DhtOperation::GetPeers { hash, trace: true } => {
                Self::Trace(input::link(hash)?.info_hash)
            }
            DhtOperation::Announce { hash, port, verify } => {
                let info_hash = input::link(hash)?.info_hash;
                Self::Announce(Announce { info_hash, port: *port, verify: *verify })
            }
            DhtOperation::Get { key, salt, output } => {
                Self::Get(Get::read(key, salt.as_deref(), output.as_ref())?)
            }
            DhtOperation::Put(args) => Self::Put(Box::new(Put::read(args, console)?)),
            DhtOperation::Sample { place } => Self::Sample(Place::read(place.as_deref())?),
            DhtOperation::Scrape { hash } => Self::Scrape(input::link(hash)?.info_hash),
            DhtOperation::Shell => Self::Shell,
        })
    }
}

async fn ping(dht: &Dht, node: &str, console: &Console) -> Result<(), Failure> {
    let (addr, Pong { id, rtt }) = pong(dht, node).await?;
    console.record(
        || format!("{id} {addr} {}", measured(rtt)),
        || json!({"code": 0, "id": id.to_string(), "addr": addr.to_string(), "ms": millis(rtt)}),
    );
    Ok(())
}

// The node of that name, if it answers.
async fn pong(dht: &Dht, node: &str) -> Result<(SocketAddr, Pong), Failure> {
    let lookup = timeout(NAME_LOOKUP_MAX, tokio::net::lookup_host(node)).await;
    let addrs: Vec<_> = match lookup {
        Ok(Ok(addrs)) => addrs.collect(),
        _ => Vec::new(),
    };
    let families: Vec<_> = dht.local_addrs().iter().map(SocketAddr::is_ipv4).collect();
    // The first one that a socket of ours can reach.
    let Some(addr) = addrs.into_iter().find(|a| families.contains(&a.is_ipv4())) else {
        let failure = Failure::new(Code::NoNetwork, format!("{node}: no such host"));
        return Err(failure.advise("check the name"));
    };
    if !is_sendable(&addr) {
        return Err(usage(format!("{node}: nothing is ever sent to such an address")));
    }
    match ping_twice(dht, addr).await {
        Ok(pong) => Ok((addr, pong)),
        Err(error @ DhtError::NoAnswer(_)) => Err(Failure::new(Code::NoPeers, error.to_string())
            .advise("check the address: it must be a DHT node's UDP port")),
        Err(error) => Err(error.into()),
    }
}

// Silence may be one lost datagram: after a while a second ping goes out, and the answer to either counts.
async fn ping_twice(dht: &Dht, addr: SocketAddr) -> Result<Pong, DhtError> {
    let mut first = std::pin::pin!(dht.ping(addr));
    if let Ok(answer) = timeout(SECOND_PING_AFTER, &mut first).await {
        return answer;
    }
    let mut second = std::pin::pin!(dht.ping(addr));
    tokio::select! {
        Ok(answer) = &mut first => Ok(answer),
        answer = &mut second => answer,
    }
}

// The last words on a lookup that found something: for eyes, or the closing record.
fn close(outcome: &Outcome, found: &Value, console: &Console) {
    if !console.is_json() {
        return summary(outcome, console);
    }
    let mut json = json!({
        "code": 0, "asked": outcome.asked(), "answered": outcome.answered(),
        "dead": outcome.dead(), "crowd": outcome.crowd(), "ms": millis(outcome.took()),
    });
    for (name, value) in found.as_object().into_iter().flatten() {
        json[name] = value.clone();
    }
    console.record(String::new, || json);
}

fn summary(outcome: &Outcome, console: &Console) {
    for report in &outcome.reports {
        let peers = plural(report.peers, "peer");
        let found = match report.kind {
            LookupKind::GetPeers(_) | LookupKind::Announce(_) | LookupKind::Scrape(_) => {
                format!("{peers} found, ")
            }
            LookupKind::FindNode
            | LookupKind::GetItem
            | LookupKind::PutItem
            | LookupKind::Sample => String::new(),
        };
        let (asked, took) = (plural(report.asked, "node"), measured(report.took));
        let (answered, dead) = (report.answered, report.dead);
        console.note(&format!("asked {asked}, {answered} answered, {dead} dead, {found}{took}"));
    }
    if outcome.crowd() > 0 {
        console.warn(&format!(
            "{} closer than chance puts there: somebody watches this key, or hides what is stored at it",
            match outcome.crowd() {
                1 => "1 node sits".to_owned(),
                crowd => format!("{crowd} nodes sit"),
            }
        ));
    }
}

fn nobody(outcome: &Outcome) -> Failure {
    let error = match outcome.asked() {
        0 => "no bootstrap node could be asked: is there a network?".to_owned(),
        asked => format!("no answer from any of {}: is UDP blocked?", plural(asked, "node")),
    };
    Failure::new(Code::NoNetwork, error).at(Stage::Bootstrap)
}

impl From<DhtError> for Failure {
    fn from(error: DhtError) -> Self {
        let code = match error {
            DhtError::Ended => return online::gone(),
            DhtError::NoAnswer(_) => Code::NoPeers,
            DhtError::Refused(Refused::NoNode) => Code::NoNetwork,
            DhtError::Refused(Refused::Busy) => Code::Other,
        };
        Failure::new(code, error.to_string())
    }
}

// Whoever waits for the first answer of all is told so.
async fn break_silence(dht: &Dht, console: &Console) -> Infallible {
    sleep(SILENCE_MAX).await;
    let nodes = dht.status().await.unwrap_or_default();
    if nodes.iter().all(|node| node.stats.replies_in == 0) {
        console.note("no node has answered yet: asking on");
    }
    std::future::pending().await
}

// The user's time limit ran out.
async fn late(dht: &Dht) -> Failure {
    let nodes = dht.status().await.unwrap_or_default();
    let contacts: usize = nodes.iter().map(|n| n.contacts).sum();
    if contacts == 0 {
        Failure::new(Code::NoNetwork, "time is up: no node answered").at(Stage::Bootstrap)
    } else {
        Failure::new(Code::NoPeers, "time is up before an answer came")
            .at(Stage::Nodes)
            .advise("give it more time with --timeout")
    }
}

/// Milliseconds with three digits of their fraction, for JSON.
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

const NAME_LOOKUP_MAX: Duration = Duration::from_secs(10);
const SECOND_PING_AFTER: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
