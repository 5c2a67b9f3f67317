//! `trackless node`: a DHT node in the foreground, for months.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};

use super::args::NodeArgs;
use super::config::{self, Network, usage};
use super::exit::{Code, Failure};
use super::format::rough_duration;
use super::online::{self, Role};
use super::output::Console;
use super::stage::plural;
use crate::base::addr::Family;
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
    let role = Role::Node { per_ip_rate: args.per_ip_rate.0 };
    online::block_on(async {
        let session = start_where_found_again(&network, role).await?;
        let work = async {
            tokio::select! {
                never = report(&session, args.status_interval, console) => match never {},
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

async fn report(session: &Session, every: Duration, console: &Console) -> Infallible {
    for addr in session.local_addrs() {
        console.note(&format!("listening on {addr}"));
    }
    let mut ticks = interval(every);
    // The first contacts answer within a moment of the start; an empty first report helps nobody.
    sleep(FIRST_REPORT.min(every)).await;
    loop {
        ticks.tick().await;
        let Some(status) = session.status().await else { continue };
        if console.is_json() {
            console.record(String::new, || to_json(&status));
        } else {
            let nodes: Vec<_> = status.nodes.iter().map(line).collect();
            let up = rough_duration(status.uptime);
            console.note(&format!("up {up}; {}", nodes.join("; ")));
        }
    }
}

fn line(node: &NodeStatus) -> String {
    let family = family(node.family);
    let seen = node.external.map(|ip| format!(", seen as {ip}")).unwrap_or_default();
    let queries = node.stats.queries_in;
    let answered = queries.ping + queries.find_node + queries.get_peers + queries.announce_peer;
    let reach = match node.reachability {
        Reachability::Unknown | Reachability::Reachable => "",
        Reachability::Unreachable => ", not reachable from outside (is the UDP port forwarded?)",
    };
    format!(
        "{family} {}{seen}{reach}, {} queries came, {} announces kept",
        plural(node.contacts, "contact"),
        answered,
        node.stats.announces_stored
    )
}

fn to_json(status: &SessionStatus) -> Value {
    let nodes: Vec<_> = status
        .nodes
        .iter()
        .map(|node| {
            json!({
                "family": family(node.family),
                "addr": node.addr.to_string(),
                "id": node.id.to_string(),
                "contacts": node.contacts,
                "external": node.external.map(|ip| ip.to_string()),
                "reachable": node.reachability,
                "read_only": node.read_only,
                "open_flows": node.open_flows,
                "stats": node.stats,
            })
        })
        .collect();
    json!({
        "uptime": status.uptime.as_secs_f64(),
        "nodes": nodes,
        "send_failures": status.send_failures,
    })
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

const FIRST_REPORT: Duration = Duration::from_secs(1);
