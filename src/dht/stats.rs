//! Counters of one node. They only grow; the host takes differences.

use std::time::Duration;

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
    /// Errors that matched a query, by number.
    pub errors_in: ByCode,
    /// How long answers took.
    pub rtt: RttCounts,
    /// Our queries that nobody answered.
    pub timeouts: u64,
    /// Errors that we sent, by number.
    pub errors_out: ByCode,
    /// Answers cut to the length of their query, because strangers asked too much.
    pub answers_brief: u64,
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
    /// Lookups that met more nodes around their target than chance puts there.
    pub crowded_lookups: u64,
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

impl ByMethod {
    /// All together.
    pub fn total(&self) -> u64 {
        let find = self.ping + self.find_node + self.get_peers + self.announce_peer;
        find + self.get + self.put + self.sample_infohashes + self.other
    }
}

/// A count for each error (BEP 5 and 44); serialised under its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ByCode {
    /// 201: a generic error.
    #[serde(rename = "201")]
    pub generic: u64,
    /// 202: a server error.
    #[serde(rename = "202")]
    pub server: u64,
    /// 203: malformed, invalid arguments or a bad token.
    #[serde(rename = "203")]
    pub protocol: u64,
    /// 204: method unknown.
    #[serde(rename = "204")]
    pub method_unknown: u64,
    /// 205: a value too long.
    #[serde(rename = "205")]
    pub value_length: u64,
    /// 206: a signature that does not fit.
    #[serde(rename = "206")]
    pub signature: u64,
    /// 207: a salt too long.
    #[serde(rename = "207")]
    pub salt_length: u64,
    /// 301: what is stored is not what was to be replaced.
    #[serde(rename = "301")]
    pub cas_mismatch: u64,
    /// 302: what is stored is newer.
    #[serde(rename = "302")]
    pub old_sequence: u64,
    /// Any other.
    pub other: u64,
}

impl ByCode {
    /// All together.
    pub fn total(&self) -> u64 {
        let bep5 = self.generic + self.server + self.protocol + self.method_unknown;
        let bep44 = self.value_length + self.signature + self.salt_length;
        bep5 + bep44 + self.cas_mismatch + self.old_sequence + self.other
    }

    pub(super) fn count(&mut self, code: i64) {
        let slot = match code {
            201 => &mut self.generic,
            202 => &mut self.server,
            203 => &mut self.protocol,
            204 => &mut self.method_unknown,
            205 => &mut self.value_length,
            206 => &mut self.signature,
            207 => &mut self.salt_length,
            301 => &mut self.cas_mismatch,
            302 => &mut self.old_sequence,
            _ => &mut self.other,
        };
        *slot += 1;
    }
}

/// How long answers took: a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RttCounts {
    /// Answers within each of [`RttCounts::BOUNDS_MILLIS`] and above the one before; the last, above
    /// all of them.
    pub counts: [u64; RttCounts::BOUNDS_MILLIS.len() + 1],
    /// All of them together, in microseconds.
    pub sum_micros: u64,
}

impl RttCounts {
    /// The upper ends of all bins but the last. Steps of about one and a half, from one rack to a
    /// satellite; a query is over after eight seconds.
    pub const BOUNDS_MILLIS: [u16; 15] =
        [1, 5, 10, 25, 50, 75, 100, 150, 250, 400, 600, 1_000, 1_500, 2_500, 5_000];

    /// Answers.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn record(&mut self, rtt: Duration) {
        let bin = Self::BOUNDS_MILLIS.partition_point(|b| Duration::from_millis((*b).into()) < rtt);
        self.counts[bin] += 1;
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }
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
    /// A query beyond what all strangers, or those of its network, may ask.
    pub crowded: u64,
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
    /// Of our queries that are over, the share that nobody answered; `None` before there are any.
    pub fn dead_share(&self) -> Option<f64> {
        let over = self.replies_in + self.errors_in.total() + self.timeouts;
        (over > 0).then(|| self.timeouts as f64 / over as f64)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_counted_within_their_bounds() {
        let mut rtts = RttCounts::default();
        for micros in [0, 1_000, 1_001, 90_000, 100_000, 8_000_000] {
            rtts.record(Duration::from_micros(micros));
        }
        let bins = rtts.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        assert_eq!(
            bins.map(|(bin, n)| (bin, *n)).collect::<Vec<_>>(),
            [(0, 2), (1, 1), (6, 2), (15, 1)]
        );
        assert_eq!((rtts.count(), rtts.sum_micros), (6, 8_192_001));
        assert!(RttCounts::BOUNDS_MILLIS.is_sorted());
    }

    #[test]
    fn errors_are_counted_by_number() {
        let mut errors = ByCode::default();
        for code in [201, 202, 203, 204, 205, 206, 207, 301, 302, 302, -1, 0, i64::MAX] {
            errors.count(code);
        }
        assert_eq!((errors.total(), errors.old_sequence, errors.other), (13, 2, 3));
    }

    #[test]
    fn dead_share_is_of_what_is_over() {
        let mut stats = Stats::default();
        assert_eq!(stats.dead_share(), None);
        (stats.replies_in, stats.timeouts) = (5, 2);
        stats.errors_in.count(204);
        assert_eq!(stats.dead_share(), Some(0.25));
    }
}
