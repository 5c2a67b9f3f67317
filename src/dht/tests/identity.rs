//! Who a node is: its id, its address, and what both are worth (BEP 42).

use std::net::SocketAddr;
use std::time::Duration;

use super::hostile::{HASH, PING, answer_to, exchange};
use super::net::{Net, public_addr};
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
