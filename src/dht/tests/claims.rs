//! What others claim in answers: nodes and peers that cannot be, too many of them, or nobody alive.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::hostile::{HASH, alone, answer_to, exchange};
use super::net::{Net, public_addr};
use crate::base::{NodeId, Rng as Chance};
use crate::dht::make_id;
use crate::wire::krpc::{Body, Message, Method};

#[test]
fn order_of_keys_is_free_and_of_two_equal_ones_the_first_counts() {
    let (mut net, me, stranger) = alone();
    for (text, tid) in [
        ("d1:y1:q1:t2:un1:q4:ping1:ad2:id20:abcdefghij0123456789ee", "un"),
        ("d1:q4:ping1:ad2:id20:abcdefghij01234567892:id3:abce1:t2:ab1:t2:cd1:y1:q1:y1:ze", "ab"),
        ("d1:ad1:xle2:id20:abcdefghij01234567891:ad2:idlee1:q4:ping1:t2:gg1:y1:qe", ""),
        // The doubled arguments are wrong; the first ones are not.
        ("d1:ad2:id20:abcdefghij0123456789e1:ale1:q4:ping1:t2:ok1:y1:qe", "ok"),
    ] {
        let answers = exchange(&mut net, me, stranger, text.as_bytes());
        let tids: Vec<&[u8]> = answers.iter().map(|a| Message::decode(a).unwrap().tid).collect();
        let want: Vec<&[u8]> = Some(tid.as_bytes()).filter(|t| !t.is_empty()).into_iter().collect();
        assert_eq!(tids, want, "{text}");
        for answer in &answers {
            assert!(matches!(Message::decode(answer).unwrap().body, Body::Reply(_)), "{text}");
        }
    }
}

// A lookup of `me` through a liar whose answer is `answer`; what was sent to nobody, and the peers.
fn through_a_liar(
    me: SocketAddr,
    liar: SocketAddr,
    answer: impl Fn(&[u8]) -> Vec<u8> + 'static,
) -> (Net, Vec<SocketAddr>) {
    let mut net = Net::new(110);
    net.add(me);
    net.script(liar, move |from, query| match Message::decode(query).unwrap().body {
        Body::Query(_) => vec![(liar, from, answer(query))],
        _ => Vec::new(),
    });
    let get = net.on(me, |node, now| {
        node.bootstrap(now, &[liar]);
        node.get_peers(now, HASH)
    });
    net.finish(me, get);
    let peers = net.peers(me, get);
    (net, peers)
}

#[test]
fn useless_addresses_of_ipv6_are_neither_asked_nor_told() {
    let at = |s: &str| s.parse::<SocketAddr>().unwrap();
    let (me, liar) = (at("[2a01::1]:6881"), at("[2a02::9]:9"));
    let (good, peer) = (at("[2a03::1]:5"), at("[2a04::1]:6"));
    let bad: Vec<SocketAddr> = [
        "[::]:1",
        "[::1]:1",
        "[ff02::1]:1",
        "[::ffff:8.8.8.8]:1",
        "[::8.8.8.8]:1",
        "[fe80::1]:1",
        "[fd00::1]:1",
        "[2a05::1]:0",
        "[2a01::1]:6881",
    ]
    .iter()
    .map(|addr| at(addr))
    .collect();
    let nodes: Vec<_> = (0u8..)
        .zip(bad.iter().copied().chain([good]))
        .map(|(n, addr)| (NodeId::new([n + 1; 20]), addr))
        .collect();
    let values: Vec<_> = bad.iter().copied().chain([peer, peer]).collect();
    let (net, peers) = through_a_liar(me, liar, move |query| {
        answer_to(query, NodeId::new([0x77; 20]), me, &nodes, &values)
    });
    assert_eq!(peers, [peer]);
    assert!(net.strays.iter().any(|(_, _, to, _)| *to == good), "the good entry is used");
    assert!(net.strays.iter().all(|(_, _, to, _)| *to == good), "{:?}", net.strays);
}

#[test]
fn of_two_hundred_contacts_few_are_asked_and_never_one_that_has_our_id() {
    let mut net = Net::new(113);
    let (me, liar) = (public_addr(0), SocketAddr::from(([9, 9, 9, 9], 999)));
    let twin = SocketAddr::from(([99, 9, 9, 9], 9));
    net.add(me);
    let own = net.node(me).id();
    net.script(liar, move |from, query| {
        let mut rng = Chance::from_seed([4; 32]);
        // All of them valid, near the key, and each in a network of its own.
        let mut named: Vec<_> = (1..=200u8)
            .map(|n| {
                let mut id = *HASH.as_bytes();
                rng.fill(&mut id[4..]);
                (NodeId::new(id), SocketAddr::from(([80, n, 1, 1], 1)))
            })
            .collect();
        named.insert(100, (own, twin));
        vec![(liar, from, answer_to(query, NodeId::new([0x77; 20]), from, &named, &[]))]
    });
    let get = net.on(me, |node, now| {
        node.bootstrap(now, &[liar]);
        node.get_peers(now, HASH)
    });
    net.finish(me, get);
    let mut asked = BTreeSet::new();
    for (_, _, to, datagram) in &net.strays {
        let Body::Query(query) = Message::decode(datagram).unwrap().body else { continue };
        if matches!(query.method, Method::GetPeers { .. }) {
            asked.insert(*to);
        }
    }
    // Sixteen of the answer, and when these are silent a dozen of those that were named and remembered.
    assert!((8..=16 + 12).contains(&asked.len()), "{}", asked.len());
    assert!(net.strays.iter().all(|(_, _, to, _)| *to != twin));
}

#[test]
fn peers_are_bounded_told_once_and_never_ourselves() {
    let (me, liar) = (public_addr(0), SocketAddr::from(([9, 9, 9, 9], 999)));
    let peer = |n: u16| {
        let [a, b] = n.to_be_bytes();
        SocketAddr::from(([100, 1 + a % 60, b, 1], 7))
    };
    // As many as one datagram that we read can hold, some of them several times, and ourselves.
    let mut values: Vec<_> = (0..450).chain(0..400).map(peer).collect();
    values.insert(7, me);
    let (net, peers) = through_a_liar(me, liar, move |query| {
        let answer = answer_to(query, NodeId::new([0x77; 20]), me, &[], &values);
        assert!(answer.len() < 8 * 1024);
        answer
    });
    assert_eq!(peers.len(), 450);
    assert!(!peers.contains(&me));
    assert!(net.strays.is_empty());

    // More than we read: dropped whole, like everything that is too long.
    let values: Vec<_> = (0..5_000).map(peer).collect();
    let (net, peers) = through_a_liar(me, liar, move |query| {
        answer_to(query, NodeId::new([0x77; 20]), me, &[], &values)
    });
    assert!(peers.is_empty());
    assert!(net.node(me).stats().dropped.oversize > 0);

    // Other ones from each of many liars: there is an end.
    let mut net = Net::new(111);
    net.add(me);
    let liars: Vec<_> = (1..=16).map(public_addr).collect();
    for (n, liar) in (0u16..).zip(liars.clone()) {
        let values: Vec<_> = (n * 400..n * 400 + 400).map(peer).collect();
        net.script(liar, move |from, query| {
            let id = make_id(liar.ip(), &mut Chance::from_seed([n as u8; 32]));
            vec![(liar, from, answer_to(query, id, from, &[], &values))]
        });
    }
    let get = net.on(me, |node, now| {
        node.bootstrap(now, &liars);
        node.get_peers(now, HASH)
    });
    let report = net.finish(me, get);
    assert_eq!((report.peers, net.peers(me, get).len()), (2_000, 2_000));
}

#[test]
fn lookup_with_four_of_five_dead_ends_soon_and_says_how_many() {
    let (mut net, addrs) = Net::public(112, 100);
    net.run(Duration::from_secs(60));
    let announce = net.on(addrs[10], |node, now| node.announce(now, HASH, Some(5)));
    net.finish(addrs[10], announce);
    net.down = addrs.iter().copied().filter(|a| *a != addrs[0] && *a != addrs[10]).collect();
    // Every fifth lives.
    net.down =
        net.down.iter().copied().enumerate().filter(|(n, _)| n % 5 != 0).map(|d| d.1).collect();
    let (before, start) = (net.sent, net.now);
    let get = net.on(addrs[0], |node, now| node.get_peers(now, HASH));
    let report = net.finish(addrs[0], get);
    assert!(net.now - start < Duration::from_secs(30), "{report:?}");
    assert!(report.answered > 0 && report.dead > 0, "{report:?}");
    assert_eq!(report.answered + report.dead, report.asked);
    assert!(net.sent - before < 300, "{} datagrams", net.sent - before);
}
