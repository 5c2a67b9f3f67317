//! A session's status in the text format of Prometheus, version 0.0.4. Pure.
//!
//! Counters come from [`Stats`] as it serialises: a field is a metric, a field of fields is one with a
//! label, so that a new counter appears here by itself.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::format::family;
use crate::dht::{Reachability, RttCounts, Stats};
use crate::driver::{NodeStatus, SessionStatus};

/// What the text is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole text.
pub fn render(status: &SessionStatus) -> String {
    let mut page = Page::default();
    page.head("trackless_info", "gauge", "The version of this program.");
    page.sample("trackless_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.head("trackless_uptime_seconds", "gauge", "Since the start.");
    page.sample("trackless_uptime_seconds", &[], status.uptime.as_secs_f64());
    let help = "Datagrams that the system did not take.";
    page.head("trackless_send_failures_total", "counter", help);
    page.sample("trackless_send_failures_total", &[], status.send_failures as f64);
    for (name, help, value) in GAUGES {
        page.nodes(&format!("trackless_dht_{name}"), "gauge", help, status, value);
    }
    buckets(&mut page, status);
    reachability(&mut page, status);
    round_trips(&mut page, status);
    counters(&mut page, status);
    page.0
}

type Gauge = fn(&NodeStatus) -> Option<f64>;

const GAUGES: &[(&str, &str, Gauge)] = &[
    ("contacts", "Contacts in the routing table; each has answered.", |n| Some(n.contacts as f64)),
    ("dead_share", "Of the queries that are over, the share that nobody answered.", |n| {
        n.stats.dead_share()
    }),
    ("network_size", "About how many nodes answer in the whole network; absent if unknown.", |n| {
        n.network_size.map(|nodes| nodes as f64)
    }),
    ("lookups_running", "Lookups under way, the node's own among them.", |n| {
        Some(n.lookups_running as f64)
    }),
    ("stored_torrents", "Torrents of which others announced peers.", |n| {
        Some(n.torrents_stored as f64)
    }),
    ("stored_peers", "Peers that others announced.", |n| Some(n.peers_stored as f64)),
    ("stored_peers_bytes", "Bytes that those peers take.", |n| Some(n.peers_stored_bytes as f64)),
    ("stored_items", "Items that others stored (BEP 44).", |n| Some(n.items_stored as f64)),
    ("read_only", "1 if the node asks and answers nobody (BEP 43).", |n| {
        Some(f64::from(u8::from(n.read_only)))
    }),
    ("open_flows", "Endpoints written to within half a minute.", |n| Some(n.open_flows as f64)),
    ("flows_left", "New flows that the budget allows now; absent without one.", |n| {
        n.flows_left.map(|left| left as f64)
    }),
    ("announced_torrents", "Torrents that are kept announced.", |n| {
        Some(n.announcing.torrents as f64)
    }),
    ("announced_held", "Those of them that the network holds.", |n| Some(n.announcing.held as f64)),
    ("announces_behind", "1 if the budget is too small to keep all of them announced.", |n| {
        Some(f64::from(u8::from(n.announcing.is_behind)))
    }),
];

// Fields of `Stats` in words; of those with parts, also what tells the parts apart.
const COUNTERS: &[(&str, &str, &str)] = &[
    ("received", "", "Datagrams that came."),
    ("received_bytes", "", "Bytes of the datagrams that came."),
    ("sent", "", "Datagrams that went out."),
    ("sent_bytes", "", "Bytes of the datagrams that went out."),
    ("queries_in", "method", "Queries that came."),
    ("queries_out", "method", "Queries that went out."),
    ("replies_in", "", "Answers that matched a query."),
    ("replies_late", "", "Answers that came after their query had stalled."),
    ("errors_in", "code", "Errors that matched a query."),
    ("errors_out", "code", "Errors that went out."),
    ("answers_brief", "", "Answers cut to the length of their query under a flood."),
    ("crowded_lookups", "", "Lookups that met a crowd of nodes next to their key."),
    ("timeouts", "", "Queries that nobody answered."),
    ("dropped", "reason", "Datagrams dropped."),
    ("id_changes", "", "Endpoints that changed their id."),
    ("announces_stored", "", "Announces that were stored."),
    ("announces_refused", "", "Announces refused because a limit was reached."),
    ("items_stored", "", "Items that were stored or refreshed (BEP 44)."),
    ("items_refused", "", "Items refused: forged, outdated, or a limit was reached."),
    ("unsolicited", "", "Networks from which somebody asked unasked, while that was counted."),
    ("flows", "event", "Queries that opened a flow, or waited for the budget of flows."),
    ("link_losses", "", "Times that the local link looked dead."),
];

fn counters(page: &mut Page, status: &SessionStatus) {
    let fields: Vec<Value> = status.nodes.iter().map(|n| fields(&n.stats)).collect();
    let Some(Value::Object(first)) = fields.first() else { return };
    for field in first.keys().filter(|field| *field != "rtt") {
        let known = COUNTERS.iter().find(|(name, ..)| name == field);
        let (label, help) = known
            .map_or(("", "See the statistics in the library's documentation."), |k| (k.1, k.2));
        let label = if label.is_empty() { "kind" } else { label };
        let name = format!("trackless_dht_{field}_total");
        page.head(&name, "counter", help);
        for (node, values) in status.nodes.iter().zip(&fields) {
            match &values[field] {
                Value::Object(parts) => {
                    for (part, value) in parts {
                        page.node(&name, node, &[(label, part)], value.as_f64());
                    }
                }
                value => page.node(&name, node, &[], value.as_f64()),
            }
        }
    }
}

fn fields(stats: &Stats) -> Value {
    serde_json::to_value(stats).unwrap_or_default()
}

fn buckets(page: &mut Page, status: &SessionStatus) {
    let name = "trackless_dht_bucket_contacts";
    let help = "Contacts by the leading bits that their ids share with ours.";
    page.head(name, "gauge", help);
    for node in &status.nodes {
        for (bits, contacts) in node.buckets.iter().enumerate() {
            page.node(name, node, &[("bits", &bits.to_string())], Some(*contacts as f64));
        }
    }
}

fn reachability(page: &mut Page, status: &SessionStatus) {
    let name = "trackless_dht_reachability";
    page.head(name, "gauge", "1 at what is known of whether strangers reach the node.");
    let states = [
        ("unknown", Reachability::Unknown),
        ("reachable", Reachability::Reachable),
        ("unreachable", Reachability::Unreachable),
    ];
    for node in &status.nodes {
        for (label, state) in states {
            let value = f64::from(u8::from(node.reachability == state));
            page.node(name, node, &[("state", label)], Some(value));
        }
    }
}

fn round_trips(page: &mut Page, status: &SessionStatus) {
    let name = "trackless_dht_rtt_seconds";
    page.head(name, "histogram", "How long answers took.");
    let (bucket, sum, count) =
        (format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count"));
    for node in &status.nodes {
        let rtt = &node.stats.rtt;
        let mut within = 0;
        for (millis, answers) in RttCounts::BOUNDS_MILLIS.iter().zip(rtt.counts) {
            within += answers;
            let bound = (f64::from(*millis) / 1e3).to_string();
            page.node(&bucket, node, &[("le", &bound)], Some(within as f64));
        }
        page.node(&bucket, node, &[("le", "+Inf")], Some(rtt.count() as f64));
        page.node(&sum, node, &[], Some(rtt.sum_micros as f64 / 1e6));
        page.node(&count, node, &[], Some(rtt.count() as f64));
    }
}

// The text so far. What is written into it is ours: names, numbers, addresses.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    // A sample of one node; none if there is no value.
    fn node(&mut self, name: &str, node: &NodeStatus, more: &[(&str, &str)], value: Option<f64>) {
        let Some(value) = value else { return };
        let addr = node.addr.to_string();
        let own = [("family", family(node.family)), ("addr", &addr)];
        self.sample(name, &[&own, more].concat(), value);
    }

    fn nodes(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        status: &SessionStatus,
        value: impl Fn(&NodeStatus) -> Option<f64>,
    ) {
        self.head(name, kind, help);
        for node in &status.nodes {
            self.node(name, node, &[], value(node));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::base::NodeId;
    use crate::base::addr::Family;

    fn node(addr: &str) -> NodeStatus {
        let addr: SocketAddr = addr.parse().unwrap();
        let mut stats = Stats { replies_in: 3, timeouts: 1, ..Stats::default() };
        stats.queries_in.get_peers = 41;
        stats.dropped.malformed = 7;
        stats.errors_out.protocol = 2;
        stats.rtt.counts = std::array::from_fn(|bin| u64::from(bin == 0 || bin == 15));
        stats.rtt.sum_micros = 6_000_500;
        NodeStatus {
            family: Family::of(&addr),
            addr,
            id: NodeId::new([1; 20]),
            contacts: 12,
            network_size: Some(9_000_000),
            buckets: vec![8, 4],
            lookups_running: 1,
            torrents_stored: 2,
            peers_stored: 3,
            peers_stored_bytes: 96,
            items_stored: 4,
            reached_at: vec![addr],
            external: None,
            reachability: Reachability::Reachable,
            read_only: false,
            open_flows: 5,
            flows_left: None,
            announcing: crate::dht::Announcing::default(),
            stats,
        }
    }

    fn page() -> String {
        render(&SessionStatus {
            uptime: Duration::from_millis(1_500),
            nodes: vec![node("0.0.0.0:6881"), node("[::]:6881")],
            torrents: 0,
            connections: 0,
            send_failures: 9,
        })
    }

    #[test]
    fn every_sample_belongs_to_a_described_metric_and_stands_once() {
        let page = page();
        let (mut kinds, mut samples) = (BTreeMap::new(), BTreeSet::new());
        for line in page.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap();
                assert!(page.contains(&format!("# HELP {name} ")), "{name}");
                assert_eq!(kinds.insert(name, kind), None, "{name} is described twice");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
                assert!(samples.insert(series), "{series} stands twice");
                let name = series.split('{').next().unwrap();
                let of_histogram =
                    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let kind = kinds.get(name).or_else(|| kinds.get(of_histogram?));
                assert!(kind.is_some(), "{line} comes before its TYPE");
                assert_eq!(name.ends_with("_total"), kind == Some(&"counter"), "{line}");
            }
        }
        assert!(samples.len() > 100 && page.ends_with('\n'));
    }

    #[test]
    fn figures_are_those_of_the_status() {
        let page = page();
        let v4 = "family=\"ipv4\",addr=\"0.0.0.0:6881\"";
        for line in [
            "trackless_uptime_seconds 1.5".to_owned(),
            "trackless_send_failures_total 9".to_owned(),
            format!("trackless_dht_contacts{{{v4}}} 12"),
            format!("trackless_dht_dead_share{{{v4}}} 0.25"),
            format!("trackless_dht_network_size{{{v4}}} 9000000"),
            format!("trackless_dht_bucket_contacts{{{v4},bits=\"1\"}} 4"),
            format!("trackless_dht_reachability{{{v4},state=\"reachable\"}} 1"),
            format!("trackless_dht_reachability{{{v4},state=\"unknown\"}} 0"),
            format!("trackless_dht_queries_in_total{{{v4},method=\"get_peers\"}} 41"),
            format!("trackless_dht_dropped_total{{{v4},reason=\"malformed\"}} 7"),
            format!("trackless_dht_errors_out_total{{{v4},code=\"203\"}} 2"),
            format!("trackless_dht_replies_in_total{{{v4}}} 3"),
            format!("trackless_dht_rtt_seconds_bucket{{{v4},le=\"0.001\"}} 1"),
            format!("trackless_dht_rtt_seconds_bucket{{{v4},le=\"5\"}} 1"),
            format!("trackless_dht_rtt_seconds_bucket{{{v4},le=\"+Inf\"}} 2"),
            format!("trackless_dht_rtt_seconds_sum{{{v4}}} 6.0005"),
            format!("trackless_dht_rtt_seconds_count{{{v4}}} 2"),
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("flows_left{"), "there is no budget");
        assert!(page.contains("family=\"ipv6\",addr=\"[::]:6881\""));
    }

    #[test]
    fn every_counter_is_described() {
        let Value::Object(fields) = fields(&Stats::default()) else { panic!("a struct") };
        for (field, value) in fields.iter().filter(|(field, _)| *field != "rtt") {
            let known = COUNTERS.iter().find(|(name, ..)| name == field);
            let (_, label, _) = known.unwrap_or_else(|| panic!("{field} has no row in COUNTERS"));
            assert_eq!(value.is_object(), !label.is_empty(), "{field}");
        }
    }
}
