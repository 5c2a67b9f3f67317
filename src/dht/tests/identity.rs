//! Who a node is: its id, its address, and what both are worth (BEP 42).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::hostile::{HASH, PING, alone, answer_to, exchange};
use super::net::{Net, loopback_addr, public_addr};
use crate::base::addr::Family;
use crate::base::{NodeId, Rng as Chance};
use crate::dht::{Config, make_id};

#[test]
fn enforced_ids_are_asked_and_announced_to_and_others_only_answered() {
    let mut net = Net::new(70);
    let me = public_addr(0);
    net.add_with(me, Config { enforce_node_ids: true, ..Config::new(Family::V4) }, None);
    let hosts: Vec<(NodeId, SocketAddr)> = (1..=8)
        .map(|n| {
            let addr = public_addr(n);
            let mut rng = Chance::from_seed([n as u8; 32]);
            // The odd ones sit just where the lookup goes.
            let mut id = *HASH.as_bytes();
            id[19] ^= n as u8;
            (if n % 2 == 0 { make_id(addr.ip(), &mut rng) } else { NodeId::new(id) }, addr)
        })
        .collect();
    for (id, addr) in hosts.clone() {
        let named = hosts.clone();
        net.script(addr, move |from, query| {
            vec![(addr, from, answer_to(query, id, from, &named, &[]))]
        });
    }
    // The one to start from has an id of its own choice; it is of use all the same.
    let router = hosts[0].1;
    let announce = net.on(me, |node, now| {
        node.bootstrap(now, &[router]);
        node.announce(now, HASH, Some(5))
    });
    let report = net.finish(me, announce);
    assert_eq!((report.asked, report.announced), (5, 4));
    net.run(Duration::from_secs(60));
    assert_eq!(net.node(me).contact_count(), 4);
    let queries = net.node(me).stats().queries_out;
    assert_eq!(queries.announce_peer, 4);
    // BEP 42: who does not keep the rule is answered.
    assert_eq!(exchange(&mut net, me, SocketAddr::from(([9, 9, 9, 9], 999)), PING).len(), 1);
}

#[test]
fn contact_that_turns_out_to_be_another_makes_us_ask_its_neighbours_who_they_are() {
    let mut net = Net::new(71);
    let me = loopback_addr(0);
    net.add(me);
    let own = net.node(me).id();
    // Twelve in the farthest half of the key space; the first is another one after a while.
    let turned = Rc::new(Cell::new(false));
    let asked = Rc::new(RefCell::new(BTreeMap::<SocketAddr, usize>::new()));
    for n in 1..=12u8 {
        let addr = loopback_addr(u16::from(n));
        let mut id = [n; 20];
        id[0] = own.as_bytes()[0] ^ 0x80;
        let (asked, turned) = (Rc::clone(&asked), Rc::clone(&turned));
        net.script(addr, move |from, query| {
            *asked.borrow_mut().entry(addr).or_default() += 1;
            let mut id = id;
            id[1] ^= u8::from(n == 1 && turned.get());
            vec![(addr, from, answer_to(query, NodeId::new(id), from, &[], &[]))]
        });
        net.on(me, |node, now| node.ping(now, addr));
    }
    net.run(Duration::from_secs(1));
    assert_eq!(net.node(me).contact_count(), 12);
    let times = |n: u16| asked.borrow().get(&loopback_addr(n)).copied().unwrap_or_default();
    // While all of them were heard of a moment ago, there is nothing to doubt.
    net.run(Duration::from_secs(360));
    let before: Vec<_> = (2..=12).map(times).collect();
    turned.set(true);
    net.on(me, |node, now| node.ping(now, loopback_addr(1)));
    net.run(Duration::from_millis(150));
    assert_eq!(net.node(me).stats().id_changes, 1);
    let after: Vec<_> = (2..=12).map(times).collect();
    assert!(before.iter().zip(&after).all(|(b, a)| *a == b + 1), "{before:?} {after:?}");
    // Once, not each time: they have just answered.
    turned.set(false);
    net.on(me, |node, now| node.ping(now, loopback_addr(1)));
    net.run(Duration::from_millis(150));
    assert_eq!((2..=12).map(times).collect::<Vec<_>>(), after);
}

#[test]
fn thousand_ids_of_one_address_and_a_network_full_of_nodes_get_one_place_each() {
    let (mut net, me, _) = alone();
    let mut rng = Chance::from_seed([3; 32]);
    // A node behind every port of one address, and one on every address of a /24.
    let ports = (1..=1_000u16).map(|port| SocketAddr::from(([50, 1, 1, 1], port)));
    let hosts = (1..=250u8).map(|host| SocketAddr::from(([60, 1, 1, host], 1)));
    for addr in ports.chain(hosts) {
        let id = NodeId::new(rng.array());
        net.script(addr, move |from, query| {
            vec![(addr, from, answer_to(query, id, from, &[], &[]))]
        });
        net.on(me, |node, now| node.ping(now, addr));
        net.run(Duration::from_millis(40));
    }
    net.run(Duration::from_secs(10));
    let known = net.node(me).saved();
    assert_eq!(
        known.iter().filter(|c| c.addr.ip() == SocketAddr::from(([50, 1, 1, 1], 1)).ip()).count(),
        1
    );
    // One for each bucket at most, and half of all nodes are in the first.
    let buckets = net.node(me).bucket_sizes().len();
    assert!(known.len() <= 1 + buckets, "{} of {buckets} buckets", known.len());
    // The same in a /64.
    let mut net = Net::new(72);
    let me: SocketAddr = "[2a01::1]:1".parse().unwrap();
    net.add(me);
    for n in 0..500u16 {
        let addr = SocketAddr::from(([0x2a02, 7, 7, 7, 0, 0, n, 1], 1));
        let id = NodeId::new(rng.array());
        net.script(addr, move |from, query| {
            vec![(addr, from, answer_to(query, id, from, &[], &[]))]
        });
        net.on(me, |node, now| node.ping(now, addr));
        net.run(Duration::from_millis(40));
    }
    net.run(Duration::from_secs(10));
    assert!(net.node(me).contact_count() <= net.node(me).bucket_sizes().len());
    assert!(net.node(me).contact_count() >= 1);
}
