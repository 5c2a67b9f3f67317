//! Lookups by the hundred in one node: all of them end, within the budget, and nobody who waits for one
//! of his own notices them.

use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, loopback_addr, public_addr};
use crate::base::addr::Family;
use crate::base::{InfoHash, Instant, Rng};
use crate::dht::{Config, LookupId, LookupReport, Priority};

const NODES: usize = 80;

fn hashes(count: usize) -> Vec<InfoHash> {
    let mut rng = Rng::from_seed([9; 32]);
    (0..count).map(|_| InfoHash::new(rng.array())).collect()
}

// A network, and in it a node that has been there for a while.
fn net_with_asker(seed: u8, rate: Option<u32>) -> (Net, SocketAddr) {
    let (mut net, addrs) = Net::public(seed, NODES);
    let me = public_addr(240);
    net.watched = Some(me);
    net.add_with(me, Config { flows_per_second: rate, ..Config::new(Family::V4) }, None);
    net.on(me, |node, now| node.bootstrap(now, &addrs[..1]));
    net.run(Duration::from_secs(30));
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
fn many_lookups_share_what_they_learn_and_hold_nobody_up() {
    let (mut net, me) = net_with_asker(81, Some(5));
    let hashes = hashes(200);
    let alone = net.on(me, |node, now| node.get_peers(now, hashes[0]));
    let alone = finish_all(&mut net, me, &[alone])[0].clone();
    net.run(Duration::from_secs(60));

    let start = net.now;
    let bulk: Vec<LookupId> = hashes
        .iter()
        .map(|hash| net.on(me, |node, now| node.get_peers_at(now, *hash, Priority::Bulk)))
        .collect();
    net.run(Duration::from_secs(1));
    let (waiting, running) = net.node(me).bulk_lookups();
    assert!(waiting > 0 && running < 40, "{waiting} wait, {running} run");
    assert!(net.node(me).lookup_progress(bulk[199]).is_some());
    // In the middle of it somebody asks and waits for the answer.
    let urgent: Vec<Duration> = (0..4)
        .map(|n| {
            let get = net.on(me, |node, now| node.get_peers(now, InfoHash::new([n * 60; 20])));
            finish_all(&mut net, me, &[get])[0].took
        })
        .collect();
    let slowest = *urgent.iter().max().unwrap();
    assert!(slowest < alone.took * 3, "{urgent:?} beside {:?}", alone.took);

    let reports = finish_all(&mut net, me, &bulk);
    assert!(reports.iter().all(|r| r.answered >= 8 && r.asked > 0));
    let mean = reports.iter().map(|r| r.cost.queries).sum::<usize>() as f64 / 200.0;
    assert!(mean < 0.8 * alone.cost.queries as f64, "{mean} beside {}", alone.cost.queries);
    assert!(net.node(me).closest_remembered() > 50);
    assert_eq!(net.node(me).bulk_lookups(), (0, 0));
    assert_eq!(net.node(me).stats().timeouts, 0);
    // No address heard from us more than four times a second, but for what was urgent.
    let fastest = busiest_second(&net, start);
    assert!(fastest <= 4 + 8, "{fastest} datagrams to one address within a second");
}

// The most datagrams to one address within a second: four at once and one each 250 ms, and announces
// and urgent ones beside them.
fn busiest_second(net: &Net, start: Instant) -> usize {
    let ours: Vec<(Instant, SocketAddr)> = net
        .traffic
        .iter()
        .filter(|(when, _, is_ours)| *is_ours && *when >= start)
        .map(|(when, with, _)| (*when, *with))
        .collect();
    let within = |i: usize| {
        let (first, to) = ours[i];
        let second = ours[i..].iter().take_while(|(when, _)| when.since(first).as_secs() < 1);
        second.filter(|(_, with)| *with == to).count()
    };
    (0..ours.len()).map(within).max().unwrap_or_default()
}

#[test]
fn hundred_lookups_at_once_are_not_held_up_in_a_private_network() {
    let mut net = Net::new(82);
    net.delay = (Duration::from_micros(50), Duration::from_micros(300));
    let addrs: Vec<SocketAddr> = (0..60).map(loopback_addr).collect();
    for addr in &addrs {
        // All of them have one address.
        let config = net.config();
        net.add_with(*addr, config, None);
        net.on(*addr, |node, now| node.bootstrap(now, &addrs[..1]));
    }
    net.run(Duration::from_secs(60));
    let hashes = hashes(100);
    for (n, hash) in hashes.iter().enumerate() {
        net.on(addrs[n % 60], |node, now| node.announce(now, *hash, Some(7)));
    }
    net.run(Duration::from_secs(1));
    let start = net.now;
    let me = addrs[30];
    let bulk: Vec<LookupId> = hashes
        .iter()
        .map(|hash| net.on(me, |node, now| node.get_peers_at(now, *hash, Priority::Bulk)))
        .collect();
    finish_all(&mut net, me, &bulk);
    assert!(net.now - start < Duration::from_millis(500), "{:?}", net.now - start);
    let found =
        bulk.iter().enumerate().filter(|(n, id)| n % 60 == 30 || !net.peers(me, **id).is_empty());
    assert_eq!(found.count(), 100);
}

#[test]
fn cancelled_lookups_make_room_at_once() {
    let (mut net, me) = net_with_asker(83, None);
    let hashes = hashes(200);
    let bulk: Vec<LookupId> = hashes
        .iter()
        .map(|hash| net.on(me, |node, now| node.get_peers_at(now, *hash, Priority::Bulk)))
        .collect();
    let (waiting, running) = net.node(me).bulk_lookups();
    assert_eq!(waiting + running, 200);
    assert!(waiting > 0 && running > 0);
    for lookup in &bulk[..150] {
        net.on(me, |node, _| node.cancel(*lookup));
        assert_eq!(net.node(me).lookup_progress(*lookup), None);
    }
    finish_all(&mut net, me, &bulk[150..]);
    assert!(bulk[..150].iter().all(|id| net.report(me, *id).is_none()));
    assert_eq!(net.node(me).bulk_lookups(), (0, 0));
}
