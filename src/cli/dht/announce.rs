//! `dht announce`, and its proof: a second lookup by a node that has nothing in common with the
//! first, which is what a stranger's lookup would be.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;

use super::{millis, nobody, summary};
use crate::base::InfoHash;
use crate::cli::config::Network;
use crate::cli::exit::{Code, Failure};
use crate::cli::format::measured;
use crate::cli::online::{self, Role};
use crate::cli::output::Console;
use crate::cli::stage::plural;
use crate::dht::StepKind;
use crate::driver::{Dht, NodeStatus, Outcome, Stage};

/// What to announce.
#[derive(Debug, Clone, Copy)]
pub struct Announce {
    /// For which torrent.
    pub info_hash: InfoHash,
    /// Where we are; `None` for the port that the queries come from.
    pub port: Option<u16>,
    /// Look for it afterwards, as a stranger.
    pub verify: bool,
}

impl Announce {
    /// Announces, and verifies if asked to.
    pub async fn run(
        &self,
        dht: &Dht,
        network: &Network,
        console: &Console,
    ) -> Result<(), Failure> {
        let outcome = dht.announce(self.info_hash, self.port).await.finish().await?;
        summary(&outcome, console);
        let taken = outcome.announced();
        if outcome.answered() == 0 {
            return Err(nobody(&outcome));
        }
        if taken == 0 {
            return Err(Failure::new(Code::NoPeers, "no node took the announce").at(Stage::Nodes));
        }
        let taken_by = format!("announced to {}", plural(taken, "node"));
        if !self.verify {
            console.record(
                || taken_by,
                || json!({"code": 0, "announced": taken, "asked": outcome.asked()}),
            );
            return Ok(());
        }
        let verdict = self.look_as_a_stranger(dht, network, console).await?;
        if verdict.named_by == 0 {
            let error = format!("{taken_by}, and a stranger's lookup did not find it");
            let advice = "nodes near this hash drop what they take: announce again, or try later";
            return Err(Failure::new(Code::NoPeers, error).at(Stage::Peers).advise(advice));
        }
        let Verdict { named_by, closest_by, outcome: stranger } = &verdict;
        let closest = stranger.nodes().count();
        console.record(
            || {
                let nodes = plural(closest, "closest node");
                format!("{taken_by}, found by a stranger at {closest_by} of the {nodes}")
            },
            || {
                json!({
                    "code": 0, "announced": taken, "asked": outcome.asked(),
                    "verified": {
                        "found_at": closest_by, "of": closest, "named_by": named_by,
                        "asked": stranger.asked(), "answered": stranger.answered(),
                        "ms": millis(stranger.took()),
                    },
                })
            },
        );
        Ok(())
    }

    // Another node id, another socket, no memory: it has to find its way from the bootstrap nodes.
    async fn look_as_a_stranger(
        &self,
        dht: &Dht,
        network: &Network,
        console: &Console,
    ) -> Result<Verdict, Failure> {
        let nodes = dht.status().await?;
        let is_us = |peer: &SocketAddr| nodes.iter().any(|node| self.is_at(node, peer));
        let anywhere = |addr: &SocketAddr| SocketAddr::new(addr.ip(), 0);
        let network = Network {
            listen: network.listen.iter().map(anywhere).collect(),
            state_dir: None,
            ..network.clone()
        };
        let stranger = online::start(&network, Role::Visitor).await?;
        let mut steps = stranger.dht().trace_peers(self.info_hash).await;
        let mut named_by = BTreeSet::new();
        while let Some(step) = steps.next().await {
            if let StepKind::Answered { peers, .. } = &step.kind
                && peers.iter().any(is_us)
            {
                named_by.insert(step.to);
            }
        }
        let outcome = steps.finish().await?;
        stranger.shutdown().await;
        console.note(&format!(
            "a stranger asked {}, {} answered, {} named us, {}",
            plural(outcome.asked(), "node"),
            outcome.answered(),
            named_by.len(),
            measured(outcome.took())
        ));
        if outcome.answered() == 0 {
            return Err(nobody(&outcome));
        }
        let closest_by = outcome.nodes().filter(|(_, addr)| named_by.contains(addr)).count();
        Ok(Verdict { named_by: named_by.len(), closest_by, outcome })
    }

    // Is this peer what `node` announced?
    fn is_at(&self, node: &NodeStatus, peer: &SocketAddr) -> bool {
        let everywhere = node.addr.ip().is_unspecified() && is_loopback(peer.ip());
        node.reached_at.iter().chain([&node.addr]).any(|at| {
            (at.ip() == peer.ip() || everywhere) && self.port.unwrap_or(at.port()) == peer.port()
        })
    }
}

// What a stranger found.
struct Verdict {
    // Nodes that named us.
    named_by: usize,
    // Of which among the closest that answered.
    closest_by: usize,
    outcome: Outcome,
}

fn is_loopback(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}
