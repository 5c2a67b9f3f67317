//! Too much of what would be allowed: rates, budgets, and what one datagram can make of itself.

use std::net::SocketAddr;
use std::time::Duration;

use super::hostile::{HASH, PING, alone, exchange, query_of};
use super::net::{Net, public_addr};
use crate::base::NodeId;
use crate::base::addr::Family;
use crate::dht::Config;
use crate::dht::server::RATES_TRACKED_MAX;
use crate::wire::krpc::{self, Method, QueryHead};

#[test]
fn errors_have_a_budget() {
    let (mut net, me, _) = alone();
    for n in 0..5_000u16 {
        let [a, b] = n.to_be_bytes();
        net.inject(SocketAddr::from(([7, 7, a, b], 1)), me, b"d1:q4:ping1:t2:aa1:y1:qe");
    }
    let stats = net.node(me).stats();
    assert_eq!((stats.errors_out.total(), stats.dropped.error_limited), (200, 4_800));
}

#[test]
fn rate_of_one_address_is_limited_and_the_others_do_not_suffer() {
    let mut net = Net::new(33);
    let (me, flooder) = (public_addr(0), SocketAddr::from(([9, 9, 9, 9], 999)));
    net.add_with(me, Config { per_ip_rate: Some(5), ..Config::new(Family::V4) }, None);
    for n in 0..600u16 {
        // Each from another port of the one address, over ten seconds.
        let from = SocketAddr::new(flooder.ip(), 1000 + n);
        net.inject(from, me, PING);
        net.run(Duration::from_micros(16_667));
        if n % 50 == 0 {
            let [_, host] = n.to_be_bytes();
            let honest = SocketAddr::from(([5, 5, 5, host], 5));
            assert_eq!(exchange(&mut net, me, honest, PING).len(), 1);
        }
    }
    let dropped = net.node(me).stats().dropped.rate_limited;
    assert!((520..=560).contains(&dropped), "{dropped}");
}

#[test]
fn limiter_is_bounded_in_memory() {
    let (mut net, me, _) = alone();
    for n in 0..40_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        net.inject(SocketAddr::from(([6, a, b, c], 1)), me, PING);
    }
    let node = net.node(me);
    assert_eq!(node.server.limiter_len(), RATES_TRACKED_MAX);
    // A whole /64 is one source.
    let mut net = Net::new(34);
    let me: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
    net.add(me);
    for n in 0..1000 {
        net.inject(SocketAddr::from(([0x2001, 0xdb8, 7, 7, n, n, n, n], 1)), me, PING);
    }
    assert_eq!(net.node(me).server.limiter_len(), 1);
    assert!(net.node(me).stats().dropped.rate_limited >= 890);
}

#[test]
fn strangers_queue_for_a_ping_and_the_queue_is_bounded() {
    let (mut net, me, _) = alone();
    for n in 0..5_000u16 {
        let [a, b] = n.to_be_bytes();
        net.inject(SocketAddr::from(([60 + a, b, 1, 1], 1)), me, &query_of(&Method::Ping));
    }
    net.run(Duration::from_secs(2));
    let pings = net.node(me).stats().queries_out.ping;
    assert!((1..=128).contains(&pings), "{pings}");
}

// Bytes out for bytes in, of one query from a stranger.
#[test]
fn amplification_is_one_datagram_of_a_bounded_factor() {
    let (mut net, addrs) = Net::public(35, 30);
    net.run(Duration::from_secs(30));
    let me = addrs[3];
    for (n, (method, factor)) in [
        (Method::Ping, 2.0),
        (Method::FindNode { target: HASH.key() }, 4.0),
        (Method::get_peers(HASH), 4.0),
        (
            Method::AnnouncePeer {
                info_hash: HASH,
                port: 1,
                implied_port: false,
                seed: false,
                token: b"",
            },
            1.0,
        ),
        (Method::Unknown { name: b"x", target: Some(HASH.key()), writes: false }, 4.0),
        (Method::Unknown { name: b"x", target: None, writes: false }, 2.0),
    ]
    .into_iter()
    .enumerate()
    {
        let from = SocketAddr::from(([9, u8::try_from(n).unwrap(), 9, 9], 999));
        let mut datagram = Vec::new();
        let head = QueryHead { tid: b"a", id: NodeId::new([3; 20]), read_only: false };
        krpc::encode_query(&mut datagram, head, &method);
        // Without our `v`, as small as it gets.
        let datagram = String::from_utf8_lossy(&datagram).replace("1:v4:TL\0\u{1}", "");
        let answers = exchange(&mut net, me, from, datagram.as_bytes());
        assert_eq!(answers.len(), 1);
        let ratio = answers[0].len() as f64 / datagram.len() as f64;
        assert!(ratio <= factor, "{method:?}: {ratio}");
    }
}
