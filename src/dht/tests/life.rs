//! How nodes find into the network, find peers, and come back.

use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, loopback_addr, public_addr};
use crate::base::addr::Family;
use crate::base::{InfoHash, NodeId};
use crate::dht::{Config, Event, SavedContact, is_valid_id};

const HASH: InfoHash = InfoHash::new([0x5a; 20]);

#[test]
fn fifty_nodes_find_each_other_from_one_address() {
    for (mut net, addrs) in [Net::public(1, 50), Net::loopback(2, 50)] {
        net.run(Duration::from_secs(20));
        for addr in &addrs {
            let contacts = net.node(*addr).contact_count();
            assert!(contacts >= 12, "{addr} knows {contacts}");
        }
        assert!(net.largest <= 400);
    }
}

#[test]
fn nodes_that_come_all_at_once_do_not_split_into_halves() {
    for seed in [81, 82] {
        let (mut net, addrs) = Net::loopback(seed, 60);
        net.run(Duration::from_secs(60));
        for addr in &addrs {
            let sizes = net.node(*addr).bucket_sizes();
            assert!(sizes[..2].iter().all(|n| *n >= 4), "seed {seed}: {addr} knows {sizes:?}");
        }
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
    let peer = SocketAddr::new(addrs[10].ip(), 1234);
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

#[test]
fn lookups_find_announces_with_a_third_dead_and_a_tenth_lost() {
    let (mut net, addrs) = Net::public(7, 60);
    net.run(Duration::from_secs(30));
    net.loss = 0.1;
    net.down = addrs.iter().copied().skip(1).step_by(3).collect();
    let alive: Vec<SocketAddr> =
        addrs.iter().copied().filter(|addr| !net.down.contains(addr)).collect();
    for n in 0..10u8 {
        let hash = InfoHash::new([n.wrapping_mul(37); 20]);
        let (from, to) = (alive[usize::from(n)], alive[39 - usize::from(n)]);
        let announce = net.on(from, |node, now| node.announce(now, hash, Some(5)));
        let report = net.finish(from, announce);
        assert!(report.announced >= 6, "{report:?}");
        let get = net.on(to, |node, now| node.get_peers(now, hash));
        let report = net.finish(to, get);
        assert_eq!(net.peers(to, get), [SocketAddr::new(from.ip(), 5)], "{report:?}");
        assert!(report.took < Duration::from_secs(12) && report.asked <= 80, "{report:?}");
    }
}

#[test]
fn lookup_ends_in_bounded_time_when_everybody_is_dead() {
    let (mut net, addrs) = Net::public(8, 40);
    net.run(Duration::from_secs(30));
    net.down = addrs[1..].to_vec();
    let before = net.sent;
    let get = net.on(addrs[0], |node, now| node.get_peers(now, HASH));
    let report = net.finish(addrs[0], get);
    assert_eq!((report.answered, report.peers), (0, 0));
    assert!(report.took <= Duration::from_secs(60) && report.asked <= 200, "{report:?}");
    assert!(net.sent - before < 400);
}

#[test]
fn only_lost_datagrams_delay_the_join() {
    let mut net = Net::new(9);
    net.loss = 0.4;
    net.add(public_addr(0));
    for n in 1..20 {
        net.add(public_addr(n));
        net.on(public_addr(n), |node, now| node.bootstrap(now, &[public_addr(0)]));
    }
    net.run(Duration::from_secs(60));
    for (addr, node) in net.nodes.iter().skip(1) {
        assert!(node.contact_count() > 0, "{addr}");
    }
}

#[test]
fn node_learns_its_address_and_takes_an_id_that_follows_from_it() {
    let (mut net, addrs) = Net::public(10, 40);
    net.run(Duration::from_secs(60));
    for addr in &addrs {
        let node = net.node(*addr);
        assert_eq!(node.external_addr(), Some(addr.ip()));
        assert!(is_valid_id(node.id(), addr.ip()));
        assert!(net.events.contains(&(*addr, Event::ExternalAddress(addr.ip()))));
        assert!(net.events.contains(&(*addr, Event::IdChanged(node.id()))));
    }
    // An id that holds is kept across a restart.
    let id = net.node(addrs[5]).id();
    net.events.clear();
    net.add_with(addrs[5], Config::new(Family::V4), Some(id));
    net.on(addrs[5], |node, now| node.bootstrap(now, &[addrs[0]]));
    net.run(Duration::from_secs(10));
    assert_eq!(net.node(addrs[5]).id(), id);
    assert!(!net.events.iter().any(|(at, e)| *at == addrs[5] && matches!(e, Event::IdChanged(_))));
}

#[test]
fn private_network_keeps_its_ids() {
    let (net, addrs) = Net::loopback(11, 30);
    assert!(addrs.iter().all(|addr| net.node(*addr).external_addr().is_none()));
    assert!(!net.events.iter().any(|(_, event)| matches!(event, Event::IdChanged(_))));
}

#[test]
fn read_only_node_is_in_no_table_and_answers_nothing() {
    let (mut net, addrs) = Net::loopback(12, 20);
    let fresh = loopback_addr(900);
    net.add_with(fresh, Config { read_only: true, ..Config::new(Family::V4) }, None);
    net.on(fresh, |node, now| node.bootstrap(now, &addrs[..2]));
    let get = net.on(fresh, |node, now| node.get_peers(now, HASH));
    let report = net.finish(fresh, get);
    assert!(report.answered >= 8);
    net.run(Duration::from_secs(30));
    for addr in &addrs {
        assert!(!net.node(*addr).saved().iter().any(|c| c.addr == fresh));
    }
    let ping = net.on(addrs[0], |node, now| node.ping(now, fresh));
    net.run(Duration::from_secs(10));
    let event = Event::PingDone { ping, id: None, rtt: None };
    assert!(net.events.contains(&(addrs[0], event)));
    assert!(net.node(fresh).stats().dropped.read_only > 0);
}

#[test]
fn restart_with_saved_contacts_needs_no_bootstrap_node() {
    let (mut net, addrs) = Net::public(13, 50);
    net.run(Duration::from_secs(60));
    let announce = net.on(addrs[10], |n, now| n.announce(now, HASH, Some(7)));
    net.finish(addrs[10], announce);
    let (saved, id) = (net.node(addrs[20]).saved(), net.node(addrs[20]).id());
    assert!(saved.len() >= 12 && saved.iter().any(|c| c.age_secs > 0 && c.rtt_micros.is_some()));
    // Most of what it knew is gone meanwhile, the bootstrap node too.
    net.down =
        addrs.iter().copied().filter(|a| *a != addrs[20] && *a != addrs[10]).step_by(2).collect();
    net.add_with(addrs[20], Config::new(Family::V4), Some(id));
    let start = net.now;
    let get = net.on(addrs[20], |node, now| {
        let get = node.get_peers(now, HASH);
        node.restore(now, &saved);
        assert_eq!(node.contact_count(), 0);
        // What was not confirmed yet is not lost if we end now.
        assert_eq!(node.saved().len(), saved.len());
        get
    });
    let found = |net: &Net| !net.peers(addrs[20], get).is_empty();
    assert!(net.run_until(start + Duration::from_secs(2), found));
    net.run(Duration::from_secs(20));
    assert!(net.node(addrs[20]).contact_count() >= 8);
    assert!(
        !net.events
            .iter()
            .any(|(at, e)| *at == addrs[20] && *e == Event::NeedBootstrap && net.now < start)
    );
}

#[test]
fn network_away_loses_no_contact_and_comes_back_within_seconds() {
    let (mut net, addrs) = Net::public(14, 50);
    net.run(Duration::from_secs(60));
    let me = addrs[25];
    let before = net.node(me).contact_count();
    // Everybody else is beyond the cable that was pulled.
    net.down = addrs.iter().copied().filter(|addr| *addr != me).collect();
    let sent = net.sent;
    net.run(Duration::from_secs(3600));
    assert_eq!(net.node(me).stats().link_losses, 1);
    assert!(net.node(me).contact_count() >= before - 2, "{before}");
    let rate = (net.sent - sent) as f64 / 3600.0;
    assert!(rate < 2.0, "{rate} datagrams a second while the link is dead");
    assert!(net.events.iter().any(|(at, e)| *at == me && *e == Event::NeedBootstrap));
    net.down.clear();
    net.events.clear();
    net.run(Duration::from_secs(8));
    let grew = net.events.iter().any(|(at, e)| *at == me && matches!(e, Event::TableGrew { .. }));
    assert!(grew, "told that a lookup is worth while again");
    let get = net.on(me, |node, now| node.get_peers(now, HASH));
    assert!(net.finish(me, get).answered >= 8);
}

#[test]
fn sleep_of_hours_is_no_reason_to_lose_anybody() {
    let (mut net, addrs) = Net::public(15, 40);
    net.run(Duration::from_secs(60));
    let me = addrs[25];
    let get = net.on(me, |node, now| node.get_peers(now, HASH));
    // The machine sleeps in the middle of a lookup; the others live on.
    let contacts = net.node(me).contact_count();
    let mut asleep = net.nodes.remove(&me).unwrap();
    net.run(Duration::from_secs(1200));
    asleep.handle_timeout(net.now);
    net.nodes.insert(me, asleep);
    assert!(net.on(me, |node, _| node.contact_count()) >= contacts);
    net.run(Duration::from_secs(20));
    assert!(net.report(me, get).is_some());
    assert!(net.node(me).contact_count() >= contacts.min(20));
}

#[test]
fn host_commands_answer_with_events() {
    let (mut net, addrs) = Net::loopback(16, 12);
    let ping = net.on(addrs[0], |node, now| node.ping(now, addrs[1]));
    let nowhere = net.on(addrs[0], |node, now| node.ping(now, "0.0.0.0:1".parse().unwrap()));
    let find = net.on(addrs[0], |node, now| node.find_node(now, NodeId::new([1; 20])));
    let cancelled = net.on(addrs[0], |node, now| node.get_peers(now, HASH));
    assert!(net.node(addrs[0]).lookup_progress(cancelled).is_some_and(|p| p.asked > 0));
    net.on(addrs[0], |node, _| node.cancel(cancelled));
    assert_eq!(net.node(addrs[0]).lookup_progress(cancelled), None);
    let report = net.finish(addrs[0], find);
    net.run(Duration::from_secs(60));
    assert!(net.report(addrs[0], cancelled).is_none());
    assert_eq!(report.nodes.len(), 8);
    let id = net.node(addrs[1]).id();
    let answered = net.events.iter().any(|(_, event)| {
        matches!(event, Event::PingDone { ping: p, id: Some(i), rtt: Some(_) } if *p == ping && *i == id)
    });
    assert!(answered);
    let event = Event::PingDone { ping: nowhere, id: None, rtt: None };
    assert!(net.events.contains(&(addrs[0], event)));
}

#[test]
fn hinted_contact_opens_the_network() {
    let (mut net, addrs) = Net::loopback(17, 20);
    let fresh = loopback_addr(901);
    net.add(fresh);
    let get = net.on(fresh, |node, now| {
        let get = node.get_peers(now, HASH);
        node.add_contact(now, addrs[7]);
        get
    });
    assert!(net.finish(fresh, get).answered >= 8);
    net.run(Duration::from_secs(10));
    assert!(net.node(fresh).contact_count() >= 8);
}

#[test]
fn contacts_that_leave_are_forgotten_and_handed_out_no_more() {
    let (mut net, addrs) = Net::public(18, 40);
    net.run(Duration::from_secs(60));
    net.down = addrs[30..].to_vec();
    net.run(Duration::from_secs(25 * 60));
    for addr in &addrs[..30] {
        let known = net.node(*addr).saved();
        assert!(!known.iter().any(|c| net.down.contains(&c.addr)), "{addr}");
        assert!(known.len() >= 12);
    }
}

#[test]
fn quiet_node_sends_little() {
    let (mut net, _) = Net::public(19, 30);
    net.run(Duration::from_secs(600));
    let before = net.sent;
    net.run(Duration::from_secs(1800));
    let rate = (net.sent - before) as f64 / 1800.0 / 30.0;
    assert!(rate < 1.0, "{rate} datagrams a second from each node");
}

#[test]
fn same_seed_same_history() {
    let run = || {
        let (mut net, addrs) = Net::public(20, 15);
        net.loss = 0.2;
        let get = net.on(addrs[3], |node, now| node.get_peers(now, HASH));
        let report = net.finish(addrs[3], get);
        (net.sent, net.now, report)
    };
    assert_eq!(run(), run());
}

#[test]
fn two_nodes_are_a_network() {
    for announcer_first in [true, false] {
        let mut net = Net::new(21);
        let (sharer, seeker) = (loopback_addr(0), loopback_addr(1));
        net.add(sharer);
        net.add(seeker);
        // One knows the other, and whoever comes second finds what the first has said.
        net.on(seeker, |node, now| node.bootstrap(now, &[sharer]));
        if !announcer_first {
            net.run(Duration::from_secs(3));
        }
        let announce = net.on(sharer, |node, now| node.announce(now, HASH, Some(77)));
        net.run(Duration::from_secs(3));
        let get = net.on(seeker, |node, now| node.get_peers(now, HASH));
        net.finish(seeker, get);
        assert_eq!(net.peers(seeker, get), [SocketAddr::new(sharer.ip(), 77)]);
        assert_eq!(net.finish(sharer, announce).announced, 1, "told to who came late as well");
        assert!(net.peers(sharer, announce).is_empty(), "nobody is told of himself");
    }
}

#[test]
fn node_that_starts_before_its_network_asks_for_names_every_few_seconds() {
    let mut net = Net::new(22);
    let fresh = public_addr(1);
    net.add(fresh);
    // For an hour no name has an address.
    let mut calls = Vec::new();
    for second in 0..3600u64 {
        net.run(Duration::from_secs(1));
        calls.extend(
            net.events.drain(..).filter_map(|(_, e)| (e == Event::NeedBootstrap).then_some(second)),
        );
    }
    let gaps: Vec<_> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= 16), "{gaps:?}");
    assert!(gaps[10..].iter().all(|gap| *gap >= 14), "and not without end: {gaps:?}");
    // Names that have addresses where nobody answers are asked less often, and never given up.
    net.on(fresh, |node, now| node.bootstrap(now, &[public_addr(99)]));
    net.run(Duration::from_secs(3600));
    let calls = net.events.iter().filter(|(_, e)| *e == Event::NeedBootstrap).count();
    assert!((55..=75).contains(&calls), "{calls} in an hour");
    for other in [public_addr(0), public_addr(2)] {
        net.add(other);
        net.on(other, |node, now| node.bootstrap(now, &[public_addr(0)]));
    }
    net.run(Duration::from_secs(10));
    net.on(fresh, |node, now| node.bootstrap(now, &[public_addr(0)]));
    net.run(Duration::from_secs(2));
    assert_eq!(net.node(fresh).contact_count(), 1, "the other; a public router is no contact");
}

#[test]
fn quick_contact_of_the_last_run_is_not_waited_for_as_long_as_a_stranger() {
    let stall = |rtt_micros| {
        let mut net = Net::new(23);
        let fresh = public_addr(1);
        net.add(fresh);
        let addr = public_addr(50);
        let id = NodeId::new([7; 20]);
        let gone = SavedContact { id, addr, rtt_micros, age_secs: 60 };
        net.on(fresh, |node, now| node.restore(now, &[gone]));
        assert!(net.strays.iter().any(|(_, _, to, _)| *to == addr) || net.sent > 0);
        net.node(fresh).poll_timeout().map(|at| at.since(net.now))
    };
    let (quick, stranger) = (stall(Some(30_000)), stall(None));
    assert_eq!(quick, Some(Duration::from_millis(150)), "the shortest that is ever waited");
    assert!(stranger > Some(Duration::from_millis(400)), "{stranger:?}");
}
