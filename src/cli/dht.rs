//! `trackless dht`: one DHT operation, or (`shell`) many.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::args::{DhtArgs, DhtOperation};
use super::config::{self, Network, usage};
use super::exit::{Code, Failure};
use super::format::measured;
use super::input;
use super::online::{self, Role};
use super::output::Console;
use super::shell;
use super::stage::{Stage, plural};
use crate::base::{InfoHash, NodeId};
use crate::dht::LookupReport;
use crate::driver::Session;
use crate::engine::NodeEvent;

/// Runs the verb.
pub fn run(args: &DhtArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let network = Network::new(&args.network)?;
    if !network.dht {
        return Err(usage("`dht` without the DHT does nothing: leave out --no-dht"));
    }
    let operation = Operation::read(&args.operation)?;
    online::block_on(async {
        let started = Instant::now();
        let session = online::start(&network, Role::Visitor).await?;
        let work = async {
            match operation {
                Operation::Ping(node) => ping(&session, &node, console).await,
                Operation::FindNode(id) => find_node(&session, id, console).await,
                Operation::GetPeers(hash) => get_peers(&session, hash, console).await,
                Operation::Announce(hash, port) => announce(&session, hash, port, console).await,
                Operation::Shell => shell::run(&session, started, console).await,
            }
        };
        let limited = async {
            tokio::select! {
                outcome = work => outcome,
                () = online::at(network.timeout.map(|limit| started + limit)) => Err(late(&session).await),
            }
        };
        online::conduct(&session, limited).await
    })
}

enum Operation {
    Ping(String),
    FindNode(NodeId),
    GetPeers(InfoHash),
    Announce(InfoHash, Option<u16>),
    Shell,
}

impl Operation {
    fn read(args: &DhtOperation) -> Result<Self, Failure> {
        Ok(match args {
            DhtOperation::Ping { node } => Self::Ping(config::host_port("NODE", node)?),
            DhtOperation::FindNode { id } => {
                Self::FindNode(id.parse().map_err(|e| usage(format!("{id}: {e}")))?)
            }
            DhtOperation::GetPeers { hash } => Self::GetPeers(input::link(hash)?.info_hash),
            DhtOperation::Announce { hash, port } => {
                Self::Announce(input::link(hash)?.info_hash, *port)
            }
            DhtOperation::Shell => Self::Shell,
        })
    }
}

async fn ping(session: &Session, node: &str, console: &Console) -> Result<(), Failure> {
    let lookup = timeout(NAME_LOOKUP_MAX, tokio::net::lookup_host(node)).await;
    let addrs: Vec<_> = match lookup {
        Ok(Ok(addrs)) => addrs.collect(),
        _ => Vec::new(),
    };
    let families: Vec<_> = session.local_addrs().iter().map(SocketAddr::is_ipv4).collect();
    // The first one that a socket of ours can reach.
    let Some(addr) = addrs.into_iter().find(|a| families.contains(&a.is_ipv4())) else {
        let failure = Failure::new(Code::NoNetwork, format!("{node}: no such host"));
        return Err(failure.advise("check the name"));
    };
    let mut events = session.dht_ping(addr).await;
    match events.recv().await {
        Some(NodeEvent::Pinged { id: Some(id), rtt }) => {
            let rtt = rtt.unwrap_or_default();
            console.record(
                || format!("{id} {addr} {}", measured(rtt)),
                || json!({"code": 0, "id": id.to_string(), "addr": addr.to_string(), "ms": millis(rtt)}),
            );
            Ok(())
        }
        _ => Err(Failure::new(Code::NoPeers, format!("{addr}: no answer"))
            .advise("check the address: it must be a DHT node's UDP port")),
    }
}

async fn find_node(session: &Session, id: NodeId, console: &Console) -> Result<(), Failure> {
    let events = session.dht_find_node(id).await;
    let reports = follow(events, console, |_| {}).await;
    let mut nodes: Vec<_> = reports.iter().flat_map(|r| &r.nodes).collect();
    nodes.sort_by_key(|(node, _)| node.key().distance(id.key()));
    for (node, addr) in &nodes {
        console.record(
            || format!("{node} {addr}"),
            || json!({"id": node.to_string(), "addr": addr.to_string()}),
        );
    }
    summary(&reports, console);
    if nodes.is_empty() { Err(nobody(&reports)) } else { Ok(()) }
}

async fn get_peers(session: &Session, hash: InfoHash, console: &Console) -> Result<(), Failure> {
    let events = session.dht_get_peers(hash).await;
    let mut seen = BTreeSet::new();
    let reports = follow(events, console, |peer| {
        // Both address families may name the same peer.
        if seen.insert(peer) {
            console.record(|| peer.to_string(), || json!({"addr": peer.to_string()}));
        }
    })
    .await;
    summary(&reports, console);
    match (seen.is_empty(), answered(&reports)) {
        (false, _) => Ok(()),
        (true, 0) => Err(nobody(&reports)),
        (true, _) => {
            let asked = plural(reports.iter().map(|r| r.asked).sum(), "node");
            let error =
                format!("asked {asked}, none knows a peer for this hash: nobody shares it now");
            Err(Failure::new(Code::NoPeers, error).at(Stage::Peers))
        }
    }
}

async fn announce(
    session: &Session,
    hash: InfoHash,
    port: Option<u16>,
    console: &Console,
) -> Result<(), Failure> {
    let events = session.dht_announce(hash, port).await;
    let reports = follow(events, console, |_| {}).await;
    let taken: usize = reports.iter().map(|r| r.announced).sum();
    console.record(
        || format!("announced to {}", plural(taken, "node")),
        || json!({"code": 0, "announced": taken, "asked": reports.iter().map(|r| r.asked).sum::<usize>()}),
    );
    summary(&reports, console);
    match (taken, answered(&reports)) {
        (0, 0) => Err(nobody(&reports)),
        (0, _) => Err(Failure::new(Code::NoPeers, "no node took the announce").at(Stage::Nodes)),
        _ => Ok(()),
    }
}

// Until the last report, or until nobody reads what is found.
async fn follow(
    mut events: mpsc::Receiver<NodeEvent>,
    console: &Console,
    mut on_peer: impl FnMut(SocketAddr),
) -> Vec<LookupReport> {
    let mut reports = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            NodeEvent::Peers(peers) => peers.into_iter().for_each(&mut on_peer),
            NodeEvent::Done { report, last } => {
                reports.push(report);
                if last {
                    break;
                }
            }
            NodeEvent::Pinged { .. } => {}
        }
        if console.is_closed() {
            break;
        }
    }
    reports
}

fn summary(reports: &[LookupReport], console: &Console) {
    for report in reports {
        console.note(&format!(
            "asked {}, {} answered, {} dead, {} found, {}",
            plural(report.asked, "node"),
            report.answered,
            report.dead,
            plural(report.peers, "peer"),
            measured(report.took)
        ));
    }
}

fn answered(reports: &[LookupReport]) -> usize {
    reports.iter().map(|r| r.answered).sum()
}

fn nobody(reports: &[LookupReport]) -> Failure {
    let asked = reports.iter().map(|r| r.asked).sum();
    let error = match asked {
        0 => "no bootstrap node could be asked: is there a network?".to_owned(),
        asked => format!("no answer from any of {}: is UDP blocked?", plural(asked, "node")),
    };
    Failure::new(Code::NoNetwork, error).at(Stage::Bootstrap)
}

// The user's time limit ran out.
async fn late(session: &Session) -> Failure {
    let nodes = session.status().await.map(|s| s.nodes).unwrap_or_default();
    let contacts: usize = nodes.iter().map(|n| n.contacts).sum();
    if contacts == 0 {
        Failure::new(Code::NoNetwork, "time is up: no node answered").at(Stage::Bootstrap)
    } else {
        Failure::new(Code::NoPeers, "time is up before the lookup was over").at(Stage::Peers)
    }
}

/// Milliseconds with their fraction, for JSON.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

const NAME_LOOKUP_MAX: Duration = Duration::from_secs(10);
