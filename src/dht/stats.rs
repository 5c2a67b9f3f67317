//! Counters of one node. They only grow; the host takes differences.

use serde::Serialize;

use super::flows::FlowStats;

/// What came, what went, and what was dropped for which reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Datagrams handed to the node.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Datagrams handed to the host.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Queries that came, by method.
    pub queries_in: ByMethod,
    /// Queries that we sent, by method.
    pub queries_out: ByMethod,
    /// Answers that matched a query.
    pub replies_in: u64,
    /// Answers that came after their query had stalled.
    pub replies_late: u64,
    /// Errors that matched a query.
    pub errors_in: u64,
    /// Our queries that nobody answered.
    pub timeouts: u64,
    /// Errors that we sent.
    pub errors_out: u64,
    /// Datagrams dropped, by reason.
    pub dropped: Dropped,
    /// Endpoints that changed their id.
    pub id_changes: u64,
    /// Announces that were stored.
    pub announces_stored: u64,
    /// Announces refused because a limit was reached.
    pub announces_refused: u64,
    /// Networks from which somebody asked us something unasked, while that was being counted.
    pub unsolicited: u64,
    /// New flows, and queries that waited for them.
    pub flows: FlowStats,
    /// Items that were stored or refreshed.
    pub items_stored: u64,
    /// Items refused: forged, outdated, or a limit was reached.
    pub items_refused: u64,
    /// Times that the local link looked dead.
    pub link_losses: u64,
}

/// A count for each method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ByMethod {
    /// `ping`
    pub ping: u64,
    /// `find_node`
    pub find_node: u64,
    /// `get_peers`
    pub get_peers: u64,
    /// `announce_peer`
    pub announce_peer: u64,
    /// `get`
    pub get: u64,
    /// `put`
    pub put: u64,
    /// `sample_infohashes`
    pub sample_infohashes: u64,
    /// Any other.
    pub other: u64,
}

/// A count for each reason to drop a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Dropped {
    /// Not a message.
    pub malformed: u64,
    /// Longer than we read.
    pub oversize: u64,
    /// From port 0, multicast, the other family or ourselves.
    pub bad_source: u64,
    /// An answer or error to no query of ours, from that endpoint.
    pub unmatched: u64,
    /// A query beyond its address's rate.
    pub rate_limited: u64,
    /// A query while we are read-only.
    pub read_only: u64,
    /// A query that would have been answered by one error too many.
    pub error_limited: u64,
    /// A datagram of ours to where nothing is sent.
    pub bad_destination: u64,
    /// A query of ours beyond the limit of those under way: it waited.
    pub queries_full: u64,
    /// An output that the host did not drain in time.
    pub outputs_full: u64,
}

impl Stats {
    /// Counts `method` among `queries_in` or `queries_out`.
    pub(super) fn count(by: &mut ByMethod, method: &crate::wire::krpc::Method<'_>) {
        use crate::wire::krpc::Method;
        let slot = match method {
            Method::Ping => &mut by.ping,
            Method::FindNode { .. } => &mut by.find_node,
            Method::GetPeers { .. } => &mut by.get_peers,
            Method::AnnouncePeer { .. } => &mut by.announce_peer,
            Method::Get { .. } => &mut by.get,
            Method::Put(_) => &mut by.put,
            Method::SampleInfohashes { .. } => &mut by.sample_infohashes,
            Method::Unknown { .. } => &mut by.other,
        };
        *slot += 1;
    }
}
