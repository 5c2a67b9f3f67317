//! Where a session and its DHT nodes stand: what a status line and a monitor are made of.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::Family;
use crate::base::{Instant, NodeId};
use crate::dht::{self, Node};

/// Where the whole session stands.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// Since the start.
    pub uptime: Duration,
    /// One entry a DHT node.
    pub nodes: Vec<NodeStatus>,
    /// Torrents being worked on.
    pub torrents: usize,
    /// Open connections.
    pub connections: usize,
    /// Datagrams that the system did not take.
    pub send_failures: u64,
}

/// One DHT node.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Where it is bound.
    pub addr: SocketAddr,
    /// Its id.
    pub id: NodeId,
    /// Contacts in its table that answered.
    pub contacts: usize,
    /// About how many nodes of its family answer in the whole network; `None` before a few lookups.
    pub network_size: Option<u64>,
    /// Contacts in each bucket of its table, farthest first.
    pub buckets: Vec<usize>,
    /// Lookups under way, its own among them.
    pub lookups_running: usize,
    /// Torrents of which others announced peers to it.
    pub torrents_stored: usize,
    /// Peers that others announced to it.
    pub peers_stored: usize,
    /// Bytes that those peers take.
    pub peers_stored_bytes: usize,
    /// Items that others stored in it (BEP 44).
    pub items_stored: usize,
    /// Where others reach it, as far as it knows.
    pub reached_at: Vec<SocketAddr>,
    /// The address that the world sees, once enough networks agree (BEP 42).
    pub external: Option<IpAddr>,
    /// Whether strangers reach it.
    pub reachability: dht::Reachability,
    /// It asks and answers nobody (BEP 43).
    pub read_only: bool,
    /// Endpoints that it wrote to within half a minute: entries that a router holds for it.
    pub open_flows: usize,
    /// New flows that it may open now, of the budget that all nodes share; `None` without one.
    pub flows_left: Option<u64>,
    /// The torrents that it keeps announced, and what that costs.
    pub announcing: dht::Announcing,
    /// Its counters.
    pub stats: dht::Stats,
}

impl NodeStatus {
    pub(super) fn of(node: &Node, addr: SocketAddr, now: Instant) -> Self {
        let (torrents_stored, peers_stored) = node.stored();
        Self {
            family: node.family(),
            addr,
            id: node.id(),
            contacts: node.contact_count(),
            network_size: node.estimated_nodes(),
            buckets: node.bucket_sizes(),
            lookups_running: node.lookups_running(),
            torrents_stored,
            peers_stored,
            peers_stored_bytes: node.stored_bytes(),
            items_stored: node.stored_items(),
            reached_at: node.reached_at(),
            external: node.external_addr(),
            reachability: node.reachability(),
            read_only: node.is_read_only(),
            open_flows: node.open_flows(now),
            flows_left: node.flows_left(now),
            announcing: node.announcing(now),
            stats: *node.stats(),
        }
    }
}
