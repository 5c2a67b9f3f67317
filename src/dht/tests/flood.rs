//! Too much of what would be allowed: rates, budgets, and what one datagram can make of itself.

use std::net::SocketAddr;
use std::time::Duration;

use super::hostile::{HASH, PING, alone, exchange, query_of};
use super::net::{Net, public_addr};

use crate::base::addr::Family;
use crate::base::{InfoHash, NodeId};
use crate::dht::Config;
use crate::wire::krpc::{self, Body, Message, Method, QueryHead};

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
fn error_storm_of_one_address_gets_its_rate_and_others_still_hear_what_is_wrong() {
    let mut net = Net::new(39);
    let (me, flooder) = (public_addr(0), SocketAddr::from(([9, 9, 9, 9], 999)));
    net.add(me);
    net.run(Duration::from_millis(1));
    let wrong = b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe";
    for n in 0..1_000u16 {
        let from = SocketAddr::new(flooder.ip(), 1_000 + n % 7);
        net.inject(from, me, b"d1:eli203e5:wronge1:t2:aa1:y1:ee");
        net.inject(from, me, wrong);
    }
    let stats = net.node(me).stats();
    let rate = u64::from(Config::new(Family::V4).per_ip_rate.unwrap());
    assert_eq!(stats.errors_out.total(), 2 * rate);
    assert_eq!(stats.dropped.rate_limited, 1_000 - 2 * rate);
    assert_eq!((stats.dropped.unmatched, stats.dropped.error_limited), (1_000, 0));
    let other = SocketAddr::from(([5, 5, 5, 5], 5));
    assert_eq!(exchange(&mut net, me, other, wrong).len(), 1);
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

// Two seconds of 20,000 queries a second. What came in from those addresses, and what went out to them.
fn flood(
    net: &mut Net,
    me: SocketAddr,
    source: impl Fn(u32) -> u32,
    is_wide: bool,
) -> (usize, usize) {
    let (prober, seeker) =
        (SocketAddr::from(([9, 9, 9, 9], 999)), SocketAddr::from(([8, 8, 8, 8], 999)));
    let (mut bytes_in, mut probes) = (0, 0);
    for n in 0..40_000u32 {
        let from = SocketAddr::from((std::net::Ipv4Addr::from(source(n)), 1_000));
        let [a, b, c, d] = n.to_be_bytes();
        let mut hash = [0x5a; 20];
        hash[..4].copy_from_slice(&[d, c, b, a]);
        let query = query_of(&Method::get_peers(InfoHash::new(hash)));
        bytes_in += query.len();
        net.inject(from, me, &query);
        net.run(Duration::from_micros(50));
        if n % 5_000 == 2_500 {
            net.inject(prober, me, PING);
            net.inject(seeker, me, &query_of(&Method::FindNode { target: HASH.key() }));
            probes += 1;
        }
    }
    net.run(Duration::from_secs(1));
    let mut replies = |to| {
        let strays = net.take_strays(to).into_iter();
        let contacts =
            strays.filter_map(|(_, answer)| match Message::decode(&answer).unwrap().body {
                Body::Reply(reply) => Some(reply.contacts(Family::V4).count()),
                _ => None,
            });
        contacts.collect::<Vec<_>>()
    };
    assert_eq!(replies(prober).len(), probes);
    // In full, if anything tells it from the flood.
    let contacts = replies(seeker);
    assert_eq!(contacts.len(), probes);
    assert!(is_wide || contacts.iter().all(|n| *n == 8), "{contacts:?}");
    let out = std::mem::take(&mut net.strays);
    (bytes_in, out.iter().map(|(_, _, _, datagram)| datagram.len()).sum())
}

#[test]
fn flood_gets_less_than_it_sends_and_quiet_networks_get_every_answer() {
    let wide = |n: u32| 0x3000_0000 + ((n % 64) << 16) + ((n / 64 % 64) << 8);
    let everywhere = |n: u32| 0x3000_0000 + (n % 4_096) * 0x1_0000;
    let one = |_: u32| 0x3030_3030_u32;
    let sources: [(&dyn Fn(u32) -> u32, bool); 3] =
        [(&one, false), (&wide, false), (&everywhere, true)];
    for (source, is_wide) in sources {
        let (mut net, addrs) = Net::public(36, 20);
        net.run(Duration::from_secs(30));
        let (bytes_in, bytes_out) = flood(&mut net, addrs[3], source, is_wide);
        assert!(bytes_out <= bytes_in, "{bytes_out} for {bytes_in}");
        assert!(bytes_out > 0);
    }
}

#[test]
fn answer_without_a_gift_is_no_longer_than_its_query() {
    let (mut net, addrs) = Net::public(37, 20);
    net.run(Duration::from_secs(30));
    let (me, hash, target) = (addrs[3], HASH, HASH.key());
    let queries: Vec<Vec<u8>> = [
        Method::Ping,
        Method::FindNode { target },
        Method::get_peers(hash),
        Method::Get { target, seq: None },
        Method::SampleInfohashes { target },
        Method::Unknown { name: b"", target: Some(target), writes: false },
    ]
    .iter()
    .flat_map(|method| {
        [&b"a"[..], &[7; 32]].map(|tid| {
            let mut out = Vec::new();
            let head = QueryHead { tid, id: NodeId::new([3; 20]), read_only: true };
            krpc::encode_query(&mut out, head, method);
            // Without our `v` and `ro`, as small as it gets.
            let out = String::from_utf8_lossy(&out).replace("1:v4:TL\0\u{1}", "");
            out.replace("2:roi1e", "").into_bytes()
        })
    })
    .collect();
    // Until nothing is left to give to this network.
    for n in 0..12_000u32 {
        let from = SocketAddr::from((std::net::Ipv4Addr::from(0x3000_0000 + n), 1));
        net.inject(from, me, &query_of(&Method::get_peers(hash)));
    }
    let before = net.node(me).stats().answers_brief;
    assert!(before > 0);
    let from = |n: usize| SocketAddr::from(([0x30, 0, 200, u8::try_from(n).unwrap()], 9));
    for (n, query) in queries.iter().enumerate() {
        net.inject(from(n), me, query);
    }
    net.run(Duration::from_millis(100));
    for (n, query) in queries.iter().enumerate() {
        let (_, answer) = net.take_strays(from(n)).remove(0);
        assert!(answer.len() <= query.len(), "{} for {}", answer.len(), query.len());
    }
    let brief = net.node(me).stats().answers_brief - before;
    assert_eq!(brief, queries.len() as u64);
}
