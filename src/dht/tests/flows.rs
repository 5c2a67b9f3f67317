//! The budget of new flows, seen from outside: what a router before the node would count.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, public_addr};
use crate::base::addr::Family;
use crate::base::{InfoHash, Instant};
use crate::dht::{Config, Event, LookupId, LookupReport};

const NODES: usize = 100;
const LIFE: Duration = Duration::from_secs(30);

fn hash(n: u8) -> InfoHash {
    InfoHash::new(std::array::from_fn(|i| n.wrapping_mul(31).wrapping_add((i * 7) as u8)))
}

// When we made a router make an entry: the first datagram out, where there was none for half a minute.
fn new_flows(net: &Net) -> Vec<Instant> {
    let mut last: BTreeMap<SocketAddr, Instant> = BTreeMap::new();
    let opens = |(when, with, is_ours): &(Instant, SocketAddr, bool)| {
        let before = last.insert(*with, *when);
        let is_new = before.is_none_or(|before| when.since(before) >= LIFE);
        (is_new && *is_ours).then_some(*when)
    };
    net.traffic.iter().filter_map(opens).collect()
}

fn queries(net: &Net) -> usize {
    net.traffic.iter().filter(|(_, _, is_ours)| *is_ours).count()
}

fn assert_within(flows: &[Instant], rate: f64, burst: f64) {
    for (i, first) in flows.iter().enumerate() {
        for (j, last) in flows.iter().enumerate().skip(i) {
            let allowed = burst + last.since(*first).as_secs_f64() * rate;
            assert!((j - i + 1) as f64 <= allowed + 0.01, "{i}..={j} of {}", flows.len());
        }
    }
}

// A network of which one more node, allowed `rate`, knows an address.
fn net_with_newcomer(seed: u8, rate: Option<u32>) -> (Net, SocketAddr) {
    let (mut net, addrs) = Net::public(seed, NODES);
    let me = public_addr(240);
    net.watched = Some(me);
    net.add_with(me, Config { flows_per_second: rate, ..Config::new(Family::V4) }, None);
    net.on(me, |node, now| node.bootstrap(now, &addrs[..1]));
    (net, me)
}

fn finish_all(net: &mut Net, me: SocketAddr, lookups: &[LookupId]) -> Vec<LookupReport> {
    let end = net.now + Duration::from_secs(900);
    // Looked at now and then: what has happened is long to read.
    while net.now < end && !lookups.iter().all(|id| net.report(me, *id).is_some()) {
        net.run(Duration::from_millis(50));
    }
    lookups.iter().map(|id| net.report(me, *id).expect("every lookup ends")).collect()
}

#[test]
fn sixty_lookups_at_once_open_no_more_flows_than_allowed_and_find_everything() {
    let (mut net, me) = net_with_newcomer(71, Some(1));
    net.run(Duration::from_secs(20));
    for n in 0..60 {
        let at = public_addr(usize::from(n));
        net.on(at, |node, now| node.announce(now, hash(n), Some(77)));
    }
    net.run(Duration::from_secs(20));
    let lookups: Vec<LookupId> =
        (0..60).map(|n| net.on(me, |node, now| node.get_peers(now, hash(n)))).collect();
    let reports = finish_all(&mut net, me, &lookups);
    assert_within(&new_flows(&net), 1.0, 60.0);
    for (n, (report, lookup)) in reports.iter().zip(&lookups).enumerate() {
        let sharer = SocketAddr::new(public_addr(n).ip(), 77);
        assert_eq!(net.peers(me, *lookup), [sharer], "{report:?}");
    }
    let stats = *net.node(me).stats();
    // Who could not be asked yet does not count as silent.
    assert!(stats.flows.deferred > 0 && stats.timeouts == 0, "{stats:?}");
    assert!(stats.flows.granted as usize >= new_flows(&net).len());
    let cost: usize = reports.iter().map(|r| r.cost.flows).sum();
    assert!(cost > 0 && cost <= stats.flows.granted as usize);
    assert!(reports.iter().all(|r| r.cost.queries >= r.asked && r.cost.bytes > 60 * r.asked));
}

#[test]
fn single_lookup_is_as_fast_as_without_a_budget() {
    let took = |rate: Option<u32>| {
        let (mut net, me) = net_with_newcomer(72, rate);
        let mut took = Vec::new();
        // Cold at first, then with a warm table.
        for n in 0..12 {
            let get = net.on(me, |node, now| node.get_peers(now, hash(n)));
            took.push(finish_all(&mut net, me, &[get])[0].took);
            net.run(Duration::from_secs(5));
        }
        (took, net.node(me).stats().flows.deferred)
    };
    let (with, without) = (took(Some(50)), took(None));
    assert_eq!(with.0, without.0);
    assert_eq!(with.1, 0);
}

#[test]
fn ping_that_has_to_wait_is_answered_all_the_same() {
    let (mut net, me) = net_with_newcomer(73, Some(2));
    net.run(Duration::from_secs(120));
    let pings: Vec<_> =
        (0..90).map(|n| net.on(me, |node, now| node.ping(now, public_addr(n)))).collect();
    net.run(Duration::from_secs(60));
    for ping in &pings {
        let is_answer = |(_, event): &(SocketAddr, Event)| matches!(event, Event::PingDone { ping: p, rtt: Some(_), .. } if p == ping);
        assert!(net.events.iter().any(is_answer), "{ping:?}");
    }
    assert_within(&new_flows(&net), 2.0, 60.0);
}

#[test]
fn waiting_lookup_wakes_nobody_in_vain_and_can_be_cancelled() {
    let (mut net, me) = net_with_newcomer(74, Some(1));
    net.run(Duration::from_secs(200));
    let lookups: Vec<LookupId> =
        (0..40).map(|n| net.on(me, |node, now| node.get_peers(now, hash(n)))).collect();
    net.run(Duration::from_secs(10));
    net.traffic.clear();
    let mut wakes = 0;
    let end = net.now + Duration::from_secs(10);
    // Of our own accord, with nobody talking to us.
    net.down = (0..NODES).map(public_addr).collect();
    while net.now < end {
        let next = net.node(me).poll_timeout().unwrap();
        net.run_until(next.min(end), |_| false);
        wakes += 1;
    }
    // One for each flow, three for each query (stalled, overdue, dead), and the ticks.
    assert!(wakes <= 10 + 4 * queries(&net) + 40, "{wakes} for {}", queries(&net));
    lookups.iter().for_each(|id| net.on(me, |node, _| node.cancel(*id)));
    net.down.clear();
    net.traffic.clear();
    net.run(Duration::from_secs(5));
    assert!(queries(&net) < 20, "{}", queries(&net));
}

#[test]
fn pings_beyond_what_one_endpoint_gets_wait_for_the_others_and_wake_nobody() {
    let mut net = Net::new(96);
    let (me, silent) = (public_addr(0), SocketAddr::from(([9, 9, 9, 9], 9)));
    net.add(me);
    let pings: Vec<_> = (0..40).map(|_| net.on(me, |node, now| node.ping(now, silent))).collect();
    // `run` refuses a node that wants to be woken in the past.
    net.run(Duration::from_secs(60));
    let over = |ping| net.events.contains(&(me, Event::PingDone { ping, id: None, rtt: None }));
    assert!(pings.into_iter().all(over));
}
