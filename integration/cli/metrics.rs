//! `node`: its status, and its figures for Prometheus.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::network::Lab;
use crate::rig::{self, Running};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

// A node of that network which serves metrics, and where.
fn start(lab: &Lab) -> (Running, SocketAddr, Value) {
    let flags = ["node", "--json", "--status-interval", "100ms", "--metrics", "127.0.0.1:0"];
    let mut node = Running::start(&mut lab.command(&flags));
    loop {
        let status: Value = serde_json::from_str(&node.line()).unwrap();
        if status["nodes"][0]["contacts"].as_u64().unwrap() == 2 {
            let addr = status["metrics"].as_str().unwrap().parse().unwrap();
            return (node, addr, status);
        }
    }
}

// One request on a connection of its own; head and body of the answer.
fn request(addr: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(rig::DEADLINE)).unwrap();
    // In one piece: a connection is closed as soon as its first line is nonsense.
    let head = format!("{request} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn node_serves_its_figures_to_prometheus() {
    let lab = Lab::new();
    let (_node, addr, status) = start(&lab);
    let at = status["nodes"][0]["addr"].as_str().unwrap();
    let ping = ["dht", "ping", at];
    lab.run(&ping).expect(0);
    let (head, page) = request(addr, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(value(&page, "trackless_dht_contacts{"), 2.0);
    let labels = format!("family=\"ipv4\",addr=\"{at}\"");
    let pings = format!("trackless_dht_queries_in_total{{{labels},method=\"ping\"}}");
    assert!(value(&page, &pings) >= 1.0, "{page}");
    let answers = value(&page, "trackless_dht_replies_in_total");
    assert!(answers > 0.0 && answers == value(&page, "trackless_dht_rtt_seconds_count"), "{page}");
    // Counters count.
    lab.run(&ping).expect(0);
    let (_, later) = request(addr, "GET /metrics");
    assert!(value(&later, &pings) > value(&page, &pings));

    let (head, body) = request(addr, "HEAD /metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}{body}");
    for (asked, answered) in [
        ("GET /", "200"),
        ("GET /etc/passwd", "404"),
        ("POST /metrics", "405"),
        ("DELETE /", "405"),
        ("nonsense", "400"),
    ] {
        let (head, _) = request(addr, asked);
        assert!(head.starts_with(&format!("HTTP/1.1 {answered} ")), "{asked}: {head}");
    }
}

#[test]
fn idle_connections_do_not_keep_a_monitor_out() {
    let lab = Lab::new();
    let (_node, addr, _) = start(&lab);
    // More than there are places, and each has said the beginning of something.
    let idle: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(b"GET /metr").unwrap();
            stream
        })
        .collect();
    let (head, _) = request(addr, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // A head without an end is refused, whoever sends it.
    let mut endless = TcpStream::connect(addr).unwrap();
    endless.set_read_timeout(Some(rig::DEADLINE)).unwrap();
    endless.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = endless.write_all(b"GET /metrics HTTP/1.1\r\n");
    let line = format!("X-Long: {}\r\n", "x".repeat(1000));
    let refused = (0..10_000).any(|_| endless.write_all(line.as_bytes()).is_err());
    assert!(refused, "ten megabytes of headers were taken");
    drop(idle);
}

#[test]
fn metrics_port_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let flags = ["node", "--listen", "127.0.0.1:0", "--bootstrap", "127.0.0.1:1", "--metrics"];
    let done = rig::run(home.path(), &[&flags[..], &[&at]].concat()).expect(10);
    assert!(done.stderr.contains(&format!("cannot serve metrics on {at}")), "{done:#?}");
    let done = rig::run(home.path(), &[&flags[..], &["here"]].concat()).expect(2);
    assert!(done.stderr.contains("--metrics here: expected IP:PORT"), "{done:#?}");
    let done = rig::run(home.path(), &[&flags[..], &["192.0.2.77:9100"]].concat()).expect(6);
    assert!(done.stderr.contains("address of this machine with --metrics"), "{done:#?}");
}

#[test]
fn status_of_a_node_is_complete_and_counts_what_it_keeps() {
    let lab = Lab::new();
    let (mut node, _, mut status) = start(&lab);
    let one = &status["nodes"][0];
    for name in ["family", "addr", "id", "reachable", "read_only", "dead_share", "stats"] {
        assert!(!one[name].is_null(), "{name}: {status}");
    }
    let buckets = one["buckets"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap());
    assert_eq!(Some(buckets.sum::<u64>()), one["contacts"].as_u64(), "{status}");
    assert_eq!(one["reached_at"][0], one["addr"], "{status}");
    assert_eq!(
        one["stored"],
        serde_json::json!({"torrents": 0, "peers": 0, "peers_bytes": 0, "items": 0})
    );
    // The others may not have heard of it by the first announce.
    let deadline = Instant::now() + rig::DEADLINE;
    while status["nodes"][0]["stored"]["peers"] == 0 {
        assert!(Instant::now() < deadline, "{status}");
        lab.run(&["dht", "announce", HASH, "--port", "4716"]).expect(0);
        status = serde_json::from_str(&node.lines().pop().unwrap()).unwrap();
    }
    let stored = &status["nodes"][0]["stored"];
    let figures = (&stored["torrents"], &stored["peers"], &stored["items"]);
    assert_eq!(figures, (&1.into(), &1.into(), &0.into()), "{status}");
    assert!(stored["peers_bytes"].as_u64().unwrap() > 0, "{status}");
}

#[test]
fn status_line_of_a_node_is_for_eyes() {
    let lab = Lab::new();
    let flags = ["node", "--status-interval", "300ms", "--timeout", "2s", "--metrics"];
    let done = lab.run(&[&flags[..], &["127.0.0.1:0"]].concat()).expect(0);
    assert_eq!(done.stdout, "", "a node has no result");
    assert!(done.stderr.contains("metrics at http://127.0.0.1:"), "{done:#?}");
    assert!(done.stderr.contains("ipv4 2 contacts"), "{done:#?}");
}
