//! How nodes find into the network, find peers, and come back.

use std::time::Duration;

use super::net::{Net, loopback_addr, public_addr};
use crate::base::InfoHash;
use crate::base::addr::Family;
use crate::dht::{Config, Event};

const HASH: InfoHash = InfoHash::new([0x5a; 20]);

#[test]
fn fifty_nodes_find_each_other_from_one_address() {
    for (mut net, addrs) in [Net::public(1, 50), Net::loopback(2, 50)] {
        net.run(Duration::from_secs(20));
        for addr in &addrs {
            let contacts = net.node(*addr).contact_count();
            assert!(contacts >= 20, "{addr} knows {contacts}");
        }
        assert!(net.largest <= 400);
    }
}

#[test]
fn announce_is_found_by_a_stranger() {
    let (mut net, addrs) = Net::public(3, 50);
    let announce = net.on(addrs[10], |n, now| n.announce(now, HASH, Some(1234)));
    let report = net.finish(addrs[10], announce);
    assert_eq!((report.announced, report.nodes.len()), (8, 8));
    let get = net.on(addrs[40], |n, now| n.get_peers(now, HASH));
    let report = net.finish(addrs[40], get);
    let peer = std::net::SocketAddr::new(addrs[10].ip(), 1234);
    assert_eq!(net.peers(addrs[40], get), [peer]);
    assert!(report.asked < 40 && report.answered >= 8 && report.took < Duration::from_secs(2));
}

#[test]
fn implied_port_is_the_source_port() {
    let (mut net, addrs) = Net::loopback(4, 10);
    let announce = net.on(addrs[3], |n, now| n.announce(now, HASH, None));
    net.finish(addrs[3], announce);
    let get = net.on(addrs[7], |n, now| n.get_peers(now, HASH));
    net.finish(addrs[7], get);
    assert_eq!(net.peers(addrs[7], get), [addrs[3]]);
}

#[test]
fn cold_node_finds_peers_within_milliseconds() {
    let (mut net, addrs) = Net::loopback(5, 30);
    let announce = net.on(addrs[3], |n, now| n.announce(now, HASH, Some(99)));
    net.finish(addrs[3], announce);
    let fresh = loopback_addr(500);
    net.add_with(fresh, Config { read_only: true, ..Config::new(Family::V4) }, None);
    // The lookup is there before anybody to ask.
    let get = net.on(fresh, |n, now| n.get_peers(now, HASH));
    net.run(Duration::from_secs(2));
    assert!(net.peers(fresh, get).is_empty() && net.report(fresh, get).is_none());
    let start = net.now;
    net.on(fresh, |n, now| n.bootstrap(now, &[loopback_addr(0)]));
    let found = |net: &Net| !net.peers(fresh, get).is_empty();
    assert!(net.run_until(start + Duration::from_millis(5), found), "peers within 5 ms");
    assert!(net.finish(fresh, get).took < Duration::from_secs(3));
    assert!(net.now - start < Duration::from_millis(600), "{:?}", net.now - start);
}

#[test]
fn lookup_without_anybody_ends_and_says_so() {
    let mut net = Net::new(6);
    let addr = public_addr(1);
    net.add(addr);
    let get = net.on(addr, |n, now| n.get_peers(now, HASH));
    let report = net.finish(addr, get);
    assert_eq!((report.asked, report.answered), (0, 0));
    assert!(net.events.contains(&(addr, Event::NeedBootstrap)));
}
