//! `dht find-node` and `dht get-peers`, the latter step by step on request.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{close, millis, nobody, summary};
use crate::base::{Distance, InfoHash, NodeId};
use crate::cli::exit::{Code, Failure};
use crate::cli::format::measured;
use crate::cli::output::Console;
use crate::cli::stage::plural;
use crate::dht::{Step, StepKind};
use crate::driver::{Dht, Outcome, Stage};

/// `find-node`.
pub async fn node(dht: &Dht, id: NodeId, console: &Console) -> Result<(), Failure> {
    let outcome = dht.find_node(id).await.finish().await?;
    let mut nodes: Vec<_> = outcome.nodes().collect();
    nodes.sort_by_key(|(node, _)| node.key().distance(id.key()));
    for (node, addr) in &nodes {
        console.record(
            || format!("{node} {addr}"),
            || json!({"id": node.to_string(), "addr": addr.to_string()}),
        );
    }
    if nodes.is_empty() {
        return Err(nobody(&outcome));
    }
    close(&outcome, &json!({"nodes": nodes.len()}), console);
    Ok(())
}

/// `get-peers`.
pub async fn peers(dht: &Dht, hash: InfoHash, console: &Console) -> Result<(), Failure> {
    let mut peers = dht.get_peers(hash).await;
    let mut seen = BTreeSet::new();
    while let Some(peer) = peers.next().await {
        // Both address families may name the same peer.
        if seen.insert(peer) {
            console.record(|| peer.to_string(), || json!({"addr": peer.to_string()}));
        }
        if console.is_closed() {
            return Ok(());
        }
    }
    conclude(&peers.finish().await?, seen.len(), console)
}

/// `get-peers --trace`.
pub async fn traced(dht: &Dht, hash: InfoHash, console: &Console) -> Result<(), Failure> {
    let mut steps = dht.trace_peers(hash).await;
    let mut seen = BTreeSet::new();
    while let Some(step) = steps.next().await {
        console.record(|| row(&step), || to_json(&step));
        if let StepKind::Answered { peers, .. } = &step.kind {
            for peer in peers.iter().filter(|peer| seen.insert(**peer)) {
                console.record(|| peer_row(&step, *peer), || json!({"addr": peer.to_string()}));
            }
        }
        if console.is_closed() {
            return Ok(());
        }
    }
    conclude(&steps.finish().await?, seen.len(), console)
}

fn conclude(outcome: &Outcome, found: usize, console: &Console) -> Result<(), Failure> {
    if found > 0 {
        close(outcome, &json!({"peers": found}), console);
        return Ok(());
    }
    summary(outcome, console);
    if outcome.answered() == 0 {
        return Err(nobody(outcome));
    }
    let asked = plural(outcome.asked(), "node");
    let error = format!("asked {asked}, none knows a peer for this hash: nobody shares it now");
    Err(Failure::new(Code::NoPeers, error).at(Stage::Peers))
}

// When, what, who, how far, what came.
fn row(step: &Step) -> String {
    let after = format!("{:.1}", millis(step.after));
    let id = step.id.map_or("-".to_owned(), |id| id.to_string());
    let distance = step.distance.map_or("-".to_owned(), magnitude);
    let came = match &step.kind {
        StepKind::Asked | StepKind::Stalled | StepKind::GivenUp | StepKind::Dead => String::new(),
        StepKind::Refused { rtt, code } => format!("  {}: error {code}", measured(*rtt)),
        StepKind::Answered { rtt, contacts, nearer, peers, has_token } => {
            let nodes = plural(*contacts, "node");
            let peers = plural(peers.len(), "peer");
            let token = if *has_token { ", token" } else { "" };
            format!("  {}: {nodes} ({nearer} nearer), {peers}{token}", measured(*rtt))
        }
    };
    let (what, to) = (name(&step.kind), step.to);
    format!("{after:>9} ms  {what:<8}  {to:<21}  {distance:<5}  {id:<40}{came}").trim_end().into()
}

fn peer_row(step: &Step, peer: SocketAddr) -> String {
    let after = format!("{:.1}", millis(step.after));
    format!("{after:>9} ms  {:<8}  {peer}", "peer")
}

fn name(kind: &StepKind) -> &'static str {
    match kind {
        StepKind::Asked => "asked",
        StepKind::Answered { .. } => "answered",
        StepKind::Refused { .. } => "refused",
        StepKind::Stalled => "stalled",
        StepKind::GivenUp => "given up",
        StepKind::Dead => "dead",
    }
}

// The power of two that the distance is below.
fn magnitude(distance: Distance) -> String {
    format!("2^{}", 160 - distance.leading_zeros())
}

fn to_json(step: &Step) -> Value {
    let mut json = json!({
        "step": name(&step.kind), "ms": millis(step.after), "node": step.to.to_string(),
        "id": step.id.map(|id| id.to_string()),
        "distance": step.distance.map(|distance| distance.to_string()),
    });
    match &step.kind {
        StepKind::Asked | StepKind::Stalled | StepKind::GivenUp | StepKind::Dead => {}
        StepKind::Refused { rtt, code } => {
            json["rtt_ms"] = millis(*rtt).into();
            json["error"] = (*code).into();
        }
        StepKind::Answered { rtt, contacts, nearer, peers, has_token } => {
            json["rtt_ms"] = millis(*rtt).into();
            json["contacts"] = (*contacts).into();
            json["nearer"] = (*nearer).into();
            json["peers"] = peers.iter().map(ToString::to_string).collect();
            json["token"] = (*has_token).into();
        }
    }
    json
}
