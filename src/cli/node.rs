//! `trackless node`: a DHT node in the foreground, for months.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};

use super::args::NodeArgs;
use super::config::{self, Network, usage};
use super::exit::{Code, Failure};
use super::format::{family, rough_duration};
use super::metrics::Metrics;
use super::online::{self, Role};
use super::output::Console;
use super::stage::plural;
use crate::dht::Reachability;
use crate::driver::{NodeStatus, Session, SessionStatus};

/// Runs the verb.
pub fn run(args: &NodeArgs, console: &Arc<Console>) -> Result<(), Failure> {
    let network = Network::new(&args.network)?;
    if !network.dht {
        return Err(usage("a node without the DHT does nothing: leave out --no-dht"));
    }
    if args.status_interval.is_zero() {
        return Err(usage("--status-interval must be longer than nothing"));
    }
    let metrics = args.metrics.as_deref().map(|at| config::address("--metrics", at)).transpose()?;
    let role = Role::Node { per_ip_rate: args.per_ip_rate.0 };
    online::block_on(async {
        let metrics = match metrics {
            Some(addr) => Some(Metrics::bind(addr).await?),
            None => None,
        };
        let session = start_where_found_again(&network, role).await?;
        let addr = metrics.as_ref().map(Metrics::addr);
        let serve = async {
            match metrics {
                Some(metrics) => metrics.serve(session.clone()).await,
                None => std::future::pending().await,
            }
        };
        let work = async {
            tokio::select! {
                never = report(&session, args.status_interval, addr, console) => match never {},
                never = serve => match never {},
                () = online::at(network.timeout.map(|limit| Instant::now() + limit)) => Ok(()),
            }
        };
        // A signal is how a node ends: there is nothing to explain.
        online::conduct(&session, work).await.map_err(Failure::reported)
    })
}

/// Starts a session that others remember: on the usual port if it is free, else on any.
pub async fn start_where_found_again(network: &Network, role: Role) -> Result<Session, Failure> {
    let mut usual = network.clone();
    if usual.listen.is_empty() {
        usual.listen = config::usual_addresses();
    }
    match online::start(&usual, role).await {
        Err(failure) if failure.code == Code::Conflict && network.listen.is_empty() => {
            online::start(network, role).await
        }
        started => started,
    }
}

async fn report(
    session: &Session,
    every: Duration,
    metrics: Option<SocketAddr>,
    console: &Console,
) -> Infallible {
    for addr in session.local_addrs() {
        console.note(&format!("listening on {addr}"));
    }
    if let Some(addr) = metrics {
        console.note(&format!("metrics at http://{addr}/metrics"));
    }
    let mut ticks = interval(every);
    // The first contacts answer within a moment of the start; an empty first report helps nobody.
    sleep(FIRST_REPORT.min(every)).await;
    loop {
        ticks.tick().await;
        let Some(status) = session.status().await else { continue };
        if console.is_json() {
            console.record(String::new, || to_json(&status, metrics));
        } else {
            let nodes: Vec<_> = status.nodes.iter().map(line).collect();
            let up = rough_duration(status.uptime);
            console.note(&format!("up {up}; {}", nodes.join("; ")));
        }
    }
}

fn line(node: &NodeStatus) -> String {
    let mut line = format!("{} {}", family(node.family), plural(node.contacts, "contact"));
    let mut say = |text: String| line.push_str(&format!(", {text}"));
    if let Some(nodes) = node.network_size {
        say(format!("about {nodes} nodes in all"));
    }
    if let Some(ip) = node.external {
        say(format!("seen as {ip}"));
    }
    match node.reachability {
        Reachability::Unknown => {}
        Reachability::Reachable => say("reachable".to_owned()),
        Reachability::Unreachable => {
            say("not reachable from outside (is the UDP port forwarded?)".to_owned());
        }
    }
    say(format!("{} queries came", node.stats.queries_in.total()));
    if let Some(share) = node.stats.dead_share() {
        say(format!("{:.0} % of ours unanswered", share * 100.0));
    }
    let (torrents, peers) = (node.torrents_stored, node.peers_stored);
    say(format!("keeps {} of {}", plural(peers, "peer"), plural(torrents, "torrent")));
    if node.items_stored > 0 {
        say(plural(node.items_stored, "item"));
    }
    line
}

fn to_json(status: &SessionStatus, metrics: Option<SocketAddr>) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": status.uptime.as_secs_f64(),
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "send_failures": status.send_failures,
        "metrics": metrics.map(|addr| addr.to_string()),
    })
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "family": family(node.family),
        "addr": node.addr.to_string(),
        "id": node.id.to_string(),
        "contacts": node.contacts,
        "network_size": node.network_size,
        "buckets": node.buckets,
        "external": node.external.map(|ip| ip.to_string()),
        "reached_at": node.reached_at.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "reachable": node.reachability,
        "read_only": node.read_only,
        "lookups_running": node.lookups_running,
        "dead_share": node.stats.dead_share(),
        "stored": {
            "torrents": node.torrents_stored,
            "peers": node.peers_stored,
            "peers_bytes": node.peers_stored_bytes,
            "items": node.items_stored,
        },
        "open_flows": node.open_flows,
        "flows_left": node.flows_left,
        "announcing": node.announcing,
        "stats": node.stats,
    })
}

const FIRST_REPORT: Duration = Duration::from_secs(1);
