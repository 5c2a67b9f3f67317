//! Who cannot be reached from outside finds out, and bothers nobody (BEP 43).

use std::net::SocketAddr;
use std::time::Duration;

use super::hostile::HASH;
use super::net::{Nat, Net, public_addr};
use crate::base::NodeId;
use crate::base::addr::Family;
use crate::dht::{Config, Event, Reachability};
use crate::wire::krpc::{self, Method, QueryHead};

const MINUTE: Duration = Duration::from_secs(60);

fn verdicts(net: &Net, at: SocketAddr) -> Vec<Reachability> {
    let all = net.events.iter().filter(|(addr, _)| *addr == at);
    all.filter_map(|(_, e)| match e {
        Event::Reachability(verdict) => Some(*verdict),
        _ => None,
    })
    .collect()
}

#[test]
fn node_behind_a_restricting_router_ends_read_only_and_the_others_serve() {
    let mut net = Net::new(80);
    let addrs: Vec<SocketAddr> = (0..60).map(public_addr).collect();
    let (by_host, by_port, cone) = (addrs[20], addrs[30], addrs[40]);
    net.nats =
        [(by_host, Nat::AddressRestricted), (by_port, Nat::PortRestricted), (cone, Nat::FullCone)]
            .into();
    for addr in &addrs {
        net.add(*addr);
        net.on(*addr, |node, now| node.bootstrap(now, &[public_addr(0)]));
        net.run(Duration::from_millis(200));
    }
    net.run(MINUTE);
    // Nothing is known yet, and everybody is a full node.
    assert!(addrs.iter().all(|a| !net.node(*a).is_read_only()));
    net.run(16 * MINUTE);
    for addr in &addrs {
        let restricted = [by_host, by_port].contains(addr);
        let node = net.node(*addr);
        let want = if restricted { Reachability::Unreachable } else { Reachability::Reachable };
        assert_eq!(
            (node.reachability(), node.is_read_only()),
            (want, restricted),
            "{addr} {}",
            node.stats().unsolicited
        );
    }
    // As soon as its contacts have noticed, nobody has it in his table.
    net.run(20 * MINUTE);
    for addr in &addrs {
        let known = net.node(*addr).saved();
        assert!(!known.iter().any(|c| [by_host, by_port].contains(&c.addr)), "{addr}");
        assert!(known.len() >= 30, "{addr} {}", known.len());
    }
    // It finds and announces like everybody.
    let announce = net.on(by_port, |node, now| node.announce(now, HASH, Some(5)));
    assert_eq!(net.finish(by_port, announce).announced, 8);
    let get = net.on(by_host, |node, now| node.get_peers(now, HASH));
    net.finish(by_host, get);
    assert_eq!(net.peers(by_host, get), [SocketAddr::new(by_port.ip(), 5)]);
}

#[test]
fn port_that_is_closed_and_opened_again_is_noticed() {
    let (mut net, addrs) = Net::public(81, 50);
    let me = addrs[20];
    net.run(14 * MINUTE);
    assert_eq!(net.node(me).reachability(), Reachability::Reachable);
    net.nats.insert(me, Nat::PortRestricted);
    net.run(75 * MINUTE);
    assert_eq!(net.node(me).reachability(), Reachability::Unreachable);
    net.nats.clear();
    // In so small a network a trial may fail once more before enough strangers have asked, and the next
    // one is two hours later.
    net.run(240 * MINUTE);
    assert_eq!(net.node(me).reachability(), Reachability::Reachable);
    assert!(!net.node(me).is_read_only());
    let told = verdicts(&net, me);
    let first = [Reachability::Reachable, Reachability::Unreachable, Reachability::Unknown];
    assert_eq!(told[..3], first);
    assert_eq!(told.last(), Some(&Reachability::Reachable), "{told:?}");
}

#[test]
fn private_and_small_networks_stay_full_citizens() {
    for (mut net, addrs) in [Net::loopback(83, 20), Net::public(84, 20)] {
        for _ in 0..4 {
            net.run(30 * MINUTE);
            assert!(addrs.iter().all(|a| !net.node(*a).is_read_only()));
        }
    }
}

#[test]
fn flood_of_forged_sources_makes_nobody_read_only() {
    let (mut net, addrs) = Net::public(85, 50);
    let me = addrs[7];
    let mut query = Vec::new();
    let head = QueryHead { tid: b"aa", id: NodeId::new([3; 20]), read_only: true };
    krpc::encode_query(&mut query, head, &Method::Ping);
    for n in 0..20_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        net.inject(SocketAddr::from(([70 + a, b, c, 1], 1)), me, &query);
    }
    assert_eq!(net.node(me).reachability(), Reachability::Reachable);
    net.strays.clear();
    for round in 0..5 {
        net.run(15 * MINUTE);
        for n in 0..5_000u32 {
            let [_, a, b, c] = n.to_be_bytes();
            net.inject(SocketAddr::from(([90 + round, a, b, c], 1)), me, &query);
        }
        net.strays.clear();
        assert!(!net.node(me).is_read_only());
    }
}

#[test]
fn node_that_moves_is_known_at_its_new_address_within_minutes() {
    let (mut net, addrs) = Net::public(86, 50);
    let (old, new) = (addrs[20], SocketAddr::from(([77, 7, 7, 7], 6881)));
    net.run(20 * MINUTE);
    let contacts = net.node(old).contact_count();
    net.move_to(old, new);
    net.run(25 * MINUTE);
    let node = net.node(new);
    assert_eq!(node.external_addr(), Some(new.ip()));
    assert!(crate::dht::is_valid_id(node.id(), new.ip()));
    assert_eq!(node.reachability(), Reachability::Reachable);
    assert_eq!(verdicts(&net, new), [Reachability::Unknown, Reachability::Reachable]);
    assert!(node.contact_count() >= contacts - 5);
}

#[test]
fn visitor_stays_read_only_whoever_comes() {
    let mut net = Net::new(87);
    let me = public_addr(0);
    net.add_with(me, Config { read_only: true, ..Config::new(Family::V4) }, None);
    let ping = super::hostile::PING;
    for n in 0..100 {
        net.inject(SocketAddr::from(([60 + n, 1, 1, 1], 1)), me, ping);
    }
    net.run(60 * MINUTE);
    assert!(net.node(me).is_read_only() && net.strays.is_empty());
}
