use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::base::addr::Family;
use crate::base::{Instant, NodeId};
use crate::dht::{self, Node};
use crate::sim::{Effect, Host};
use crate::wire::krpc::{self, Body, Message, Method, QueryHead};

fn small(seed: u64) -> Options {
    Options {
        join_time: Duration::from_secs(60),
        settle_time: Duration::from_secs(60),
        row: Duration::from_secs(120),
        lookups_per_hour: 1_200,
        hashes: 5,
        ..Options::public(seed, 40, Duration::from_secs(240))
    }
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([n, 2, 3, 4], 6_881))
}

// What a host answers to `get_peers` for a hash of ones.
fn answer(traits: Traits) -> (NodeId, Vec<(NodeId, SocketAddr)>, Vec<SocketAddr>) {
    let node = Node::new(dht::Config::new(Family::V4), None, [3; 32], Instant::ZERO);
    let mut citizen = Citizen::new(node, traits);
    let mut query = Vec::new();
    let head = QueryHead { tid: b"abcd", id: NodeId::new([9; 20]), read_only: false };
    let info_hash = crate::base::InfoHash::new([1; 20]);
    let method = Method::GetPeers { info_hash, scrape: false, noseed: false };
    krpc::encode_query(&mut query, head, &method);
    citizen.handle_datagram(Instant::ZERO, addr(1), &query);
    let Some(Effect::Transmit { to, datagram }) = citizen.poll_effect(Instant::ZERO) else {
        panic!("it answers")
    };
    assert_eq!(to, addr(1));
    let message = Message::decode(&datagram).unwrap();
    let Body::Reply(reply) = message.body else { panic!("it is an answer") };
    assert!(reply.token.is_some() && message.tid == b"abcd");
    (reply.id, reply.contacts(Family::V4).collect(), reply.peers().collect())
}

#[test]
fn lazy_host_names_dead_nodes_beside_the_target() {
    let dead: Vec<_> = (10..40).map(addr).collect();
    let manners = Manners::Lazy(dead.clone().into_boxed_slice());
    let (_, nodes, peers) = answer(Traits { manners, ..Traits::default() });
    assert_eq!((nodes.len(), peers.len()), (8, 0));
    for (id, addr) in &nodes {
        assert!(dead.contains(addr) && id.as_bytes()[..3] == [1; 3], "{id} at {addr}");
    }
}

#[test]
fn sybil_names_its_allies_and_forged_peers() {
    let allies: Vec<_> = (50..60).map(|n| (NodeId::new([n; 20]), addr(n))).collect();
    let conspiracy = Conspiracy { allies: allies.clone(), forged: vec![addr(99)] };
    let manners = Manners::Sybil(Box::new(conspiracy));
    let (_, nodes, peers) = answer(Traits { manners, keeps_id: true });
    assert!(nodes.len() == 8 && nodes.iter().all(|node| allies.contains(node)));
    assert_eq!(peers, [addr(99)]);
    let (_, nodes, peers) = answer(Traits::default());
    assert!(nodes.is_empty() && peers.is_empty(), "an honest one knows nobody yet");
}

#[test]
fn same_seed_makes_the_same_table_and_another_seed_another() {
    let run = |seed| Run::new(small(seed)).finish();
    let (first, second, other) = (run(1), run(1), run(2));
    assert_eq!((first.trace, first.events), (second.trace, second.events), "seed 1 replays");
    assert_eq!(first.to_string(), second.to_string());
    assert_ne!(first.trace, other.trace);
    assert_eq!(first.rows.len(), 2);
}

#[test]
fn everything_is_found_where_nothing_goes_wrong() {
    let calm = Options { weather: Options::calm(3, 40, Duration::ZERO).weather, ..small(3) };
    let options = Options { sessions: None, nats: Nats::default(), ..calm };
    let table = Run::new(options).finish();
    let total = table.total.figures();
    println!("{table}");
    assert!(total.lookups > 30, "{table}");
    assert_eq!((total.found, total.recall), (100.0, 100.0), "{table}");
    // Some may have met a node before it knew its address, and so its id.
    assert!(total.fresh > 99.5, "{table}");
}

// Three in ten go at once: their contacts are dead, their announces are made by others.
#[test]
fn storm_is_survived() {
    let storm = Storm { at: Duration::from_secs(70), loss: 0.1, dies: 0.3 };
    let options = Options { storms: vec![storm], nats: Nats::default(), ..small(4) };
    let run = Run::new(Options { row: Duration::from_secs(60), time: 5 * STORM_ROW, ..options });
    let table = run.finish();
    println!("{table}");
    let [before, after] = [0, 1].map(|row| table.rows[row].figures());
    assert!(after.alive * 10 < before.alive * 8, "{table}");
    assert!(after.fresh < 80.0 && before.fresh > 95.0, "{table}");
    let last = table.rows[4].figures();
    assert!(last.found == 100.0 && last.recall >= 95.0, "{table}");
}

const STORM_ROW: Duration = Duration::from_secs(60);

#[test]
fn hosts_come_go_and_come_back() {
    let second = Duration::from_secs(1);
    let sessions = Sessions { short: 60 * second, long: 300 * second, short_share: 0.5 };
    let table = Run::new(Options { sessions: Some(sessions), eager: 1.0, ..small(5) }).finish();
    println!("{table}");
    let total = table.total.figures();
    assert!(total.came > 20 && total.went > 20, "{table}");
    assert!((20..60).contains(&total.alive), "as many come as go: {table}");
    assert!(total.cold > 10 && total.cold_found > 80.0, "{table}");
    assert!(table.total.uptime.as_secs() > 240 * 20, "{table}");
}
