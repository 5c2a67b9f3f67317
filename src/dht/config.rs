//! What the host decides about a node.

use super::flows::FLOWS_PER_SECOND;
use crate::base::addr::Family;

/// Settings of one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// IPv4 or IPv6: the node handles datagrams of this family alone (BEP 32).
    pub family: Family,
    /// Say `ro` in queries and answer none (BEP 43): for a program that runs for seconds.
    pub read_only: bool,
    /// Do the same, until it changes, if it turns out that strangers cannot reach us.
    pub prove_reachability: bool,
    /// Queries a second that one address may ask; `None` for no limit.
    pub per_ip_rate: Option<u32>,
    /// New flows a second that our queries may open; `None` for any number. Nodes of one engine share
    /// what there is.
    pub flows_per_second: Option<u32>,
    /// Keep public nodes whose id breaks BEP 42 out of the table, and neither ask them in lookups nor
    /// announce to them. They are answered all the same, as BEP 42 wants.
    pub enforce_node_ids: bool,
    /// Nodes that others named and that were never asked: so many are remembered, spread over the key
    /// space, to make lookups shorter. 0 for none. Each takes some 60 bytes.
    pub names_max: u32,
}

impl Config {
    /// The settings of a public node.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            read_only: false,
            prove_reachability: true,
            per_ip_rate: Some(PER_IP_RATE),
            flows_per_second: Some(FLOWS_PER_SECOND),
            enforce_node_ids: false,
            names_max: NAMES_MAX,
        }
    }
}

/// Queries a second from one address that a node answers unless told otherwise: several clients
/// behind one NAT stay below it; a flood does not.
pub const PER_IP_RATE: u32 = 50;

/// One in 2^12 parts of the key space: in a network of 100,000 nodes whoever is nearest of them to a
/// target knows its neighbourhood.
pub const NAMES_MAX: u32 = 4_096;
