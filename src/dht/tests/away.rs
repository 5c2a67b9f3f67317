//! The network is away, the machine slept, the address is another: the table survives, and the node
//! is back within seconds.

use std::net::SocketAddr;
use std::time::Duration;

use super::hostile::{HASH, PING};
use super::net::{Nat, Net, public_addr};
use crate::base::addr::Family;
use crate::dht::{Config, Event};

const HOUR: Duration = Duration::from_secs(3600);

/// Is `me` as good as before? A lookup started now answers for it.
fn is_back(net: &mut Net, me: SocketAddr) -> bool {
    let get = net.on(me, |node, now| node.get_peers(now, HASH));
    net.finish(me, get).answered >= 8
}

#[test]
fn nothing_that_we_send_gets_out_for_hours_while_others_still_ask_us() {
    let (mut net, addrs) = Net::public(100, 40);
    net.run(Duration::from_secs(60));
    let me = addrs[25];
    let before = net.node(me).contact_count();
    net.mute = vec![me];
    // Queries of strangers keep coming in: a proof of nothing.
    for n in 0..180u8 {
        net.inject(SocketAddr::from(([60 + n % 90, n, 1, 1], 1)), me, PING);
        net.run(Duration::from_secs(40));
    }
    assert_eq!(net.node(me).stats().link_losses, 1);
    assert!(net.node(me).contact_count() >= before - 2, "{before}");
    net.mute.clear();
    net.strays.clear();
    net.run(Duration::from_secs(8));
    assert!(is_back(&mut net, me));
    assert!(net.node(me).contact_count() >= before - 2);
}

#[test]
fn only_contact_that_died_is_no_dead_link_to_a_newcomer() {
    let mut net = Net::new(101);
    let (me, friend, newcomer) = (public_addr(0), public_addr(1), public_addr(2));
    net.add(me);
    net.add(friend);
    net.on(me, |node, now| node.bootstrap(now, &[friend]));
    net.run(Duration::from_secs(5));
    net.down = vec![friend];
    net.run(2 * HOUR);
    // Whoever comes then is let in at once.
    net.add(newcomer);
    net.on(newcomer, |node, now| node.bootstrap(now, &[me]));
    net.run(Duration::from_secs(8));
    assert!(net.node(me).saved().iter().any(|c| c.addr == newcomer));
}

#[test]
fn machine_that_slept_for_eight_hours_is_back_within_seconds() {
    // Of the others, so many are gone in the morning.
    for gone in [0, 25] {
        let (mut net, addrs) = Net::public(102, 40);
        net.run(Duration::from_secs(90));
        let me = addrs[25];
        let contacts = net.node(me).contact_count();
        let get = net.on(me, |node, now| node.get_peers(now, HASH));
        // The others stand still meanwhile; what counts here is the sleeper's clock.
        let others: Vec<_> = addrs.iter().copied().filter(|a| *a != me).collect();
        net.down = others.clone();
        let asleep = net.nodes.remove(&me).unwrap();
        net.run(8 * HOUR);
        net.nodes.insert(me, asleep);
        net.down = others[..gone].to_vec();
        net.on(me, |node, now| node.handle_timeout(now));
        assert_eq!(net.node(me).contact_count(), contacts, "nobody is lost for that");
        net.run(Duration::from_secs(10));
        // What was under way is over, and said so.
        assert!(net.report(me, get).is_some());
        assert!(is_back(&mut net, me), "{gone} gone");
    }
}

#[test]
fn clock_that_jumps_an_hour_ahead_again_and_again_costs_no_contact() {
    let (mut net, addrs) = Net::public(103, 40);
    net.run(Duration::from_secs(60));
    let me = addrs[7];
    let contacts = net.node(me).contact_count();
    for _ in 0..5 {
        // Its clock alone is wrong: to it, everybody was silent for an hour.
        let ahead = net.now + HOUR;
        net.nodes.get_mut(&me).unwrap().handle_timeout(ahead);
        while net.nodes.get_mut(&me).unwrap().poll_output().is_some() {}
        assert!(net.node(me).contact_count() >= contacts - 1);
        // From then on it is an hour ahead: the rest of the world catches up.
        let others: Vec<_> = addrs.iter().copied().filter(|a| *a != me).collect();
        net.down = others;
        net.run(HOUR);
        net.down.clear();
        net.run(Duration::from_secs(5));
        assert!(is_back(&mut net, me));
    }
}

#[test]
fn network_of_ipv6_that_goes_and_comes_back_is_joined_again() {
    let mut net = Net::new(104);
    let addrs: Vec<SocketAddr> =
        (0..30u16).map(|n| SocketAddr::from(([0x2a00 + n, n, 0, 0, 0, 0, 0, 1], 6881))).collect();
    for addr in &addrs {
        net.add(*addr);
        net.on(*addr, |node, now| node.bootstrap(now, &[addrs[0]]));
    }
    net.run(Duration::from_secs(60));
    let me = addrs[12];
    assert_eq!(net.node(me).external_addr(), Some(me.ip()));
    let before = net.node(me).contact_count();
    net.down = addrs.iter().copied().filter(|a| *a != me).collect();
    // A lookup during the outage ends, and says that nobody answered.
    let get = net.on(me, |node, now| node.get_peers(now, HASH));
    assert_eq!(net.finish(me, get).answered, 0);
    net.run(2 * HOUR);
    assert!(net.node(me).contact_count() >= before - 2);
    net.down.clear();
    net.run(Duration::from_secs(8));
    assert!(is_back(&mut net, me));
}

#[test]
fn moving_to_another_network_keeps_the_table_and_the_lookups_work_at_once() {
    let (mut net, addrs) = Net::public(105, 40);
    net.run(Duration::from_secs(90));
    let (old, new) = (addrs[20], SocketAddr::from(([77, 7, 7, 7], 6881)));
    let before = net.node(old).contact_count();
    let (id, announced) = (net.node(old).id(), net.on(old, |n, now| n.announce(now, HASH, None)));
    net.finish(old, announced);
    net.move_to(old, new);
    // The first answers there come from those that it knew, behind a router this time.
    net.nats.insert(new, Nat::PortRestricted);
    assert!(is_back(&mut net, new));
    net.run(20 * Duration::from_secs(60));
    assert_eq!(net.node(new).external_addr(), Some(new.ip()));
    assert_ne!(net.node(new).id(), id);
    assert!(net.node(new).contact_count() >= before - 4, "{before}");
    // Nobody keeps the old address for long.
    net.run(20 * Duration::from_secs(60));
    let known = addrs.iter().filter(|a| **a != old).filter(|a| {
        let contacts = net.node(**a).saved();
        contacts.iter().any(|c| c.addr == old)
    });
    assert_eq!(known.count(), 0);
}

#[test]
fn outage_of_every_length_is_survived() {
    for minutes in [1, 3, 10, 45] {
        let (mut net, addrs) = Net::public(106, 40);
        net.run(Duration::from_secs(60));
        let me = addrs[30];
        let before = net.node(me).contact_count();
        net.down = addrs.iter().copied().filter(|a| *a != me).collect();
        let sent = net.sent;
        net.run(minutes * Duration::from_secs(60));
        let rate = (net.sent - sent) as f64 / (60.0 * f64::from(minutes));
        assert!(rate < 5.0, "{rate} datagrams a second into the void");
        net.down.clear();
        net.run(Duration::from_secs(8));
        assert!(is_back(&mut net, me), "after {minutes} minutes");
        assert!(net.node(me).contact_count() >= before - 2, "after {minutes} minutes");
    }
}

#[test]
fn node_that_wakes_up_where_nobody_is_left_asks_for_names() {
    let (mut net, addrs) = Net::public(107, 30);
    net.run(Duration::from_secs(60));
    let me = addrs[3];
    net.events.clear();
    let fresh = SocketAddr::from(([88, 8, 8, 8], 6881));
    net.add_with(fresh, Config::new(Family::V4), None);
    net.down = addrs.iter().copied().filter(|a| *a != me).collect();
    net.run(Duration::from_secs(20 * 60));
    assert!(net.events.contains(&(me, Event::NeedBootstrap)));
    net.on(me, |node, now| node.bootstrap(now, &[fresh]));
    net.run(Duration::from_secs(5));
    assert!(net.node(fresh).saved().iter().any(|c| c.addr == me));
}
