//! What others send that they should not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::net::{Net, loopback_addr, public_addr};
use crate::base::addr::Family;
use crate::base::{InfoHash, NodeId, Rng as Chance};
use crate::dht::{Event, make_id};
use crate::wire::compact;
use crate::wire::krpc::{self, Answer, Body, Extra, Message, Method, QueryHead};

pub(super) const HASH: InfoHash = InfoHash::new([0x5a; 20]);
pub(super) const PING: &[u8] = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";

// One node at a public address; 9.9.9.9 is a stranger.
pub(super) fn alone() -> (Net, SocketAddr, SocketAddr) {
    let mut net = Net::new(30);
    let (me, stranger) = (public_addr(0), SocketAddr::from(([9, 9, 9, 9], 999)));
    net.add(me);
    net.run(Duration::from_millis(1));
    (net, me, stranger)
}

// What comes back to `from` for one datagram, not counting a later ping.
pub(super) fn exchange(
    net: &mut Net,
    me: SocketAddr,
    from: SocketAddr,
    datagram: &[u8],
) -> Vec<Vec<u8>> {
    net.inject(from, me, datagram);
    net.run(Duration::from_millis(100));
    let came = net.take_strays(from).into_iter().map(|(_, datagram)| datagram);
    came.filter(|d| !matches!(Message::decode(d).unwrap().body, Body::Query(_))).collect()
}

fn error_code(datagram: &[u8]) -> Option<i64> {
    match Message::decode(datagram).unwrap().body {
        Body::Error(error) => Some(error.code),
        _ => None,
    }
}

pub(super) fn query_of(method: &Method<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let head = QueryHead { tid: b"aa", id: NodeId::new([3; 20]), read_only: false };
    krpc::encode_query(&mut out, head, method);
    out
}

// An honest-looking answer to `query`, with the given contacts and peers.
pub(super) fn answer_to(
    query: &[u8],
    id: NodeId,
    seen_at: SocketAddr,
    nodes: &[(NodeId, SocketAddr)],
    values: &[SocketAddr],
) -> Vec<u8> {
    let tid = Message::decode(query).unwrap().tid;
    let mut out = Vec::new();
    let token = Some(&b"token"[..]);
    // All of one family.
    let is_v6 = nodes.first().is_some_and(|(_, addr)| addr.is_ipv6());
    let (nodes, nodes6) = if is_v6 { (None, Some(nodes)) } else { (Some(nodes), None) };
    let extra = Extra::None;
    let answer = Answer { tid, to: seen_at, id, nodes, nodes6, token, values, extra, brief: false };
    krpc::encode_answer(&mut out, &answer, 100_000);
    out
}

#[test]
fn junk_is_met_with_silence_and_life_goes_on() {
    let (mut net, me, stranger) = alone();
    let mut junk: Vec<Vec<u8>> = vec![
        b"l".repeat(1400),
        b"d1:a".repeat(300),
        b"l".repeat(20_000),
        b"99999999999:x".to_vec(),
        b"-1:x".to_vec(),
        b"d1:ti-0e1:y1:qe".to_vec(),
        b"d1:ti00e1:y1:qe".to_vec(),
        b"d1:ti99999999999999999999e1:y1:qe".to_vec(),
        b"d1:ti--1e1:y1:qe".to_vec(),
        [PING, b"x"].concat(),
        Vec::new(),
    ];
    let find = query_of(&Method::FindNode { target: HASH.key() });
    let announce = query_of(&Method::AnnouncePeer {
        info_hash: HASH,
        port: 1,
        implied_port: true,
        seed: false,
        token: b"12345678",
    });
    for good in [PING, &find, &announce] {
        junk.extend((0..good.len()).map(|len| good[..len].to_vec()));
    }
    for datagram in &junk {
        assert!(exchange(&mut net, me, stranger, datagram).is_empty());
    }
    let dropped = net.node(me).stats().dropped;
    assert_eq!(dropped.malformed + dropped.oversize, junk.len() as u64);
    assert_eq!(exchange(&mut net, me, stranger, PING).len(), 1);
}

#[test]
fn wrong_arguments_get_one_error_and_no_place() {
    let (mut net, me, stranger) = alone();
    let hash = "9:info_hash20:mnopqrstuvwxyz123456";
    let id = "2:id20:abcdefghij0123456789";
    let mut bad = Vec::new();
    for name in
        ["ping", "find_node", "get_peers", "announce_peer", "get", "put", "sample_infohashes"]
    {
        let q = format!("1:q{}:{name}1:t2:aa1:y1:qe", name.len());
        for a in [
            "",
            "1:ale",
            "1:ai5e",
            "1:a3:abc",
            "1:ade",
            "1:ad2:id0:e",
            "1:ad2:id19:abcdefghij012345678e",
            "1:ad2:id21:abcdefghij0123456789xe",
            "1:ad2:idi7ee",
            "1:ad2:idlee",
        ] {
            bad.push(format!("d{a}{q}"));
        }
        bad.push(format!("d1:ad2:id1000:{}e{q}", "x".repeat(1000)));
    }
    for (name, key) in [
        ("find_node", "6:target"),
        ("get_peers", "9:info_hash"),
        ("announce_peer", "4:porti1e5:token1:x9:info_hash"),
        ("get", "6:target"),
        ("sample_infohashes", "6:target"),
    ] {
        for len in [0, 19, 21, 1000] {
            let args = format!("{key}{len}:{}", "x".repeat(len));
            bad.push(format!("d1:ad{id}{args}e1:q{}:{name}1:t2:aa1:y1:qe", name.len()));
        }
    }
    for (name, args) in [
        ("get_peers", "9:info_hashi5e".to_string()),
        ("get_peers", "9:info_hashle".to_string()),
        ("announce_peer", format!("{hash}4:porti0e5:token1:x")),
        ("announce_peer", format!("{hash}4:porti65536e5:token1:x")),
        ("announce_peer", format!("{hash}4:porti-1e5:token1:x")),
        ("announce_peer", format!("{hash}4:port4:68815:token1:x")),
        ("announce_peer", format!("{hash}4:porti1e")),
        ("announce_peer", format!("{hash}4:porti1e5:tokeni5e")),
        ("announce_peer", format!("{hash}4:porti1e5:token0:")),
        ("announce_peer", format!("{hash}4:porti1e5:token1000:{}", "x".repeat(1000))),
    ] {
        bad.push(format!("d1:ad{id}{args}e1:q{}:{name}1:t2:aa1:y1:qe", name.len()));
    }
    for text in &bad {
        net.run(Duration::from_secs(1));
        net.strays.clear();
        let answers = exchange(&mut net, me, stranger, text.as_bytes());
        assert_eq!(answers.len(), 1, "{text}");
        assert_eq!(error_code(&answers[0]), Some(203), "{text}");
        assert!(answers[0].len() < 100);
    }
    // Nobody pinged it, and nothing was stored.
    net.run(Duration::from_secs(5));
    assert!(net.take_strays(stranger).is_empty());
    assert_eq!((net.node(me).contact_count(), net.node(me).stored()), (0, (0, 0)));
}

#[test]
fn odd_transaction_ids_are_echoed_up_to_32_bytes() {
    let (mut net, me, stranger) = alone();
    for len in [0, 1, 2, 3, 4, 8, 32, 33, 1024] {
        net.run(Duration::from_secs(1));
        net.strays.clear();
        let tid = vec![b'\xff'; len];
        let mut text = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t".to_vec();
        text.extend_from_slice(format!("{len}:").as_bytes());
        text.extend_from_slice(&tid);
        text.extend_from_slice(b"1:y1:qe");
        let answers = exchange(&mut net, me, stranger, &text);
        if (1..=32).contains(&len) {
            assert_eq!(Message::decode(&answers[0]).unwrap().tid, tid);
        } else {
            assert!(answers.is_empty());
        }
    }
}

#[test]
fn unknown_methods_are_answered_like_find_node_or_with_204() {
    let (mut net, addrs) = Net::public(31, 12);
    net.run(Duration::from_secs(20));
    let stranger = SocketAddr::from(([9, 9, 9, 9], 999));
    let id = "2:id20:abcdefghij0123456789";
    let target = "6:target20:mnopqrstuvwxyz123456";
    let salt = format!("4:salt20000:{}", "s".repeat(20_000));
    for (name, args, want) in [
        ("get", target.to_string(), None),
        ("future", target.to_string(), None),
        ("future", "9:info_hash20:mnopqrstuvwxyz123456".to_string(), None),
        ("future", String::new(), Some(204)),
        ("put", target.to_string(), Some(203)),
        ("vote", format!("{target}5:token1:x"), Some(204)),
    ] {
        let text = format!("d1:ad{id}{args}e1:q{}:{name}1:t2:aa1:y1:qe", name.len());
        let answers = exchange(&mut net, addrs[0], stranger, text.as_bytes());
        assert_eq!(answers.len(), 1);
        assert_eq!(error_code(&answers[0]), want, "{name} {args}");
        if want.is_none() {
            let Body::Reply(reply) = Message::decode(&answers[0]).unwrap().body else { panic!() };
            assert_eq!(reply.contacts(Family::V4).count(), 8);
        }
    }
    let text = format!("d1:ad{id}{salt}e1:q3:put1:t2:aa1:y1:qe");
    assert!(exchange(&mut net, addrs[0], stranger, text.as_bytes()).is_empty());
}

#[test]
fn only_the_asked_endpoint_with_the_right_transaction_id_is_believed() {
    let (mut net, me, host) = alone();
    let id = make_id(host.ip(), &mut Chance::from_seed([1; 32]));
    net.on(me, |node, now| node.ping(now, host));
    net.run(Duration::from_millis(70));
    let (_, query) = net.take_strays(host).pop().unwrap();
    let good = answer_to(&query, id, me, &[], &[]);
    let mut wrong_tid = good.clone();
    let at = wrong_tid.windows(5).position(|w| w == b"1:t4:").unwrap() + 5;
    wrong_tid[at] ^= 1;
    net.inject(SocketAddr::new(host.ip(), 1000), me, &good);
    net.inject(SocketAddr::from(([9, 9, 9, 8], 999)), me, &good);
    net.inject(host, me, &wrong_tid);
    assert_eq!(net.node(me).stats().dropped.unmatched, 3);
    assert_eq!(net.node(me).contact_count(), 0);
    net.inject(host, me, &good);
    assert_eq!((net.node(me).contact_count(), net.node(me).stats().replies_in), (1, 1));
    for _ in 0..1000 {
        net.inject(host, me, &good);
    }
    assert_eq!(net.node(me).stats().replies_in, 1);
    assert_eq!(net.node(me).stats().dropped.unmatched, 1003);
}

#[test]
fn guessed_transaction_ids_are_never_accepted() {
    let (mut net, me, host) = alone();
    net.on(me, |node, now| node.ping(now, host));
    net.run(Duration::from_millis(70));
    let (_, query) = net.take_strays(host).pop().unwrap();
    let good = answer_to(&query, NodeId::new([1; 20]), me, &[], &[]);
    let at = good.windows(5).position(|w| w == b"1:t4:").unwrap() + 5;
    let actual = good[at..at + 4].to_vec();
    let mut rng = Chance::from_seed([5; 32]);
    for n in 0..50_000u32 {
        let mut guess = good.clone();
        // Half in order, half at random.
        guess[at..at + 4].copy_from_slice(&if n % 2 == 0 { n.to_be_bytes() } else { rng.array() });
        if guess[at..at + 4] != actual {
            net.inject(host, me, &guess);
        }
    }
    assert_eq!((net.node(me).contact_count(), net.node(me).stats().replies_in), (0, 0));
}

#[test]
fn unsolicited_answers_and_errors_are_met_with_silence() {
    let (mut net, me, stranger) = alone();
    for n in 0..200 {
        let from = SocketAddr::new(stranger.ip(), 1000 + n);
        net.inject(
            from,
            me,
            b"d2:ip6:\x08\x08\x08\x08\x00\x011:rd2:id20:abcdefghij0123456789e1:t4:aaaa1:y1:re",
        );
        net.inject(from, me, b"d1:eli203e5:wronge1:t4:aaaa1:y1:ee");
        net.inject(from, me, b"d1:t4:aaaa1:y1:ee");
    }
    net.run(Duration::from_secs(2));
    assert!(net.strays.is_empty());
    assert_eq!(net.node(me).stats().dropped.unmatched, 600);
    assert_eq!((net.node(me).contact_count(), net.node(me).external_addr()), (0, None));
}

#[test]
fn one_network_cannot_tell_us_who_we_are() {
    let (mut net, me, _) = alone();
    let id = net.node(me).id();
    let lie: SocketAddr = "66.6.6.6:6".parse().unwrap();
    for n in 0..120u8 {
        let host = SocketAddr::from(([8, 8, n % 3, n], 1));
        net.script(host, move |from, query| {
            let own = make_id(host.ip(), &mut Chance::from_seed([n; 32]));
            vec![(host, from, answer_to(query, own, lie, &[], &[]))]
        });
        net.on(me, |node, now| node.ping(now, host));
        // Queries, and answers to nothing, have no vote at all.
        for m in 0..5 {
            let from = SocketAddr::from(([100 + n, m, 1, 1], 1));
            net.inject(from, me, &answer_to(PING, NodeId::new([n; 20]), lie, &[], &[]));
            net.inject(from, me, b"d1:ad2:id20:abcdefghij0123456789e2:ip6:\x42\x06\x06\x06\x00\x061:q4:ping1:t2:aa1:y1:qe");
        }
        net.run(Duration::from_millis(200));
    }
    assert!(net.node(me).stats().replies_in >= 120);
    assert_eq!((net.node(me).external_addr(), net.node(me).id()), (None, id));
}

#[test]
fn host_that_changes_its_id_is_thrown_out() {
    let (mut net, me, _) = alone();
    let host = loopback_addr(1);
    let mut n = 0u8;
    net.script(host, move |from, query| {
        n += 1;
        vec![(host, from, answer_to(query, NodeId::new([n; 20]), from, &[], &[]))]
    });
    for _ in 0..10 {
        net.on(me, |node, now| node.ping(now, host));
        net.run(Duration::from_millis(200));
    }
    assert_eq!(net.node(me).contact_count(), 0);
    assert!(net.node(me).stats().id_changes >= 2, "{:?}", net.node(me).stats());
}

#[test]
fn queriers_that_never_answer_are_not_handed_out() {
    let (mut net, me, stranger) = alone();
    for n in 0..120u8 {
        let mut datagram = Vec::new();
        let mut id = [0x5a; 20];
        id[19] = n;
        let head = QueryHead { tid: b"aa", id: NodeId::new(id), read_only: false };
        krpc::encode_query(&mut datagram, head, &Method::Ping);
        net.inject(SocketAddr::from(([60, n, 1, 1], 1)), me, &datagram);
    }
    net.run(Duration::from_secs(30));
    let find = query_of(&Method::FindNode { target: HASH.key() });
    let answers = exchange(&mut net, me, stranger, &find);
    let Body::Reply(reply) = Message::decode(&answers[0]).unwrap().body else { panic!() };
    assert_eq!((reply.contacts(Family::V4).count(), net.node(me).contact_count()), (0, 0));
    // Each was asked at most a few times whether it is there.
    let mut asked: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for (_, _, to, datagram) in &net.strays {
        if matches!(Message::decode(datagram).unwrap().body, Body::Query(_)) {
            *asked.entry(*to).or_default() += 1;
        }
    }
    assert!(asked.values().all(|n| *n <= 2) && !asked.is_empty());
}

#[test]
fn read_only_senders_are_answered_and_get_no_place() {
    let (mut net, me, stranger) = alone();
    for ro in ["i1e", "1:1", "le", "i7e"] {
        let text = format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:ro{ro}1:t2:aa1:y1:qe");
        assert_eq!(exchange(&mut net, me, stranger, text.as_bytes()).len(), 1, "{ro}");
    }
    net.run(Duration::from_secs(3));
    assert!(net.take_strays(stranger).is_empty(), "nobody pings it");
    assert_eq!(exchange(&mut net, me, stranger, PING).len(), 1);
    net.run(Duration::from_secs(3));
    assert_eq!(net.take_strays(stranger).len(), 1, "one that is not read-only is pinged");
}

// Makes `me` look up through a liar who names `nodes` and `values`, and returns what was sent to
// addresses where nobody lives, with the peers that the host was told of.
fn lied_to(
    me: SocketAddr,
    liar: SocketAddr,
    nodes: Vec<u8>,
    values: &'static [u8],
) -> (Net, Vec<SocketAddr>) {
    let mut net = Net::new(32);
    net.add(me);
    net.script(liar, move |from, query| {
        let tid = Message::decode(query).unwrap().tid.to_vec();
        let mut out = b"d1:rd2:id20:liarliarliarliarliar5:nodes".to_vec();
        out.extend_from_slice(format!("{}:", nodes.len()).as_bytes());
        out.extend_from_slice(&nodes);
        out.extend_from_slice(b"6:values");
        out.extend_from_slice(values);
        out.extend_from_slice(format!("e1:t{}:", tid.len()).as_bytes());
        out.extend_from_slice(&tid);
        out.extend_from_slice(b"1:y1:re");
        vec![(liar, from, out)]
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
fn nothing_is_sent_to_useless_addresses_that_others_name() {
    let me = public_addr(0);
    let liar = SocketAddr::from(([9, 9, 9, 9], 999));
    let bad = [
        "0.0.0.0:1",
        "0.1.2.3:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "240.1.1.1:1",
        "10.1.1.1:1",
        "172.16.0.1:1",
        "192.168.1.1:1",
        "169.254.1.1:1",
        "100.64.0.1:1",
        "8.8.8.8:0",
    ];
    let good: SocketAddr = "99.1.1.1:5".parse().unwrap();
    let mut nodes = Vec::new();
    for (n, addr) in bad.iter().enumerate() {
        let n = u8::try_from(n).unwrap();
        compact::put_node(&mut nodes, NodeId::new([n; 20]), addr.parse().unwrap());
    }
    compact::put_node(&mut nodes, NodeId::new([40; 20]), me);
    compact::put_node(&mut nodes, NodeId::new([41; 20]), good);
    for extra in [&b""[..], b"x", &[7; 25]] {
        let nodes = [&nodes, extra].concat();
        let values = b"l6:\x08\x08\x08\x08\x00\x016:\x08\x08\x08\x08\x00\x006:\x7f\x00\x00\x01\x00\x016:\xe0\x00\x00\x01\x00\x016:\xff\xff\xff\xff\x00\x016:\x0a\x00\x00\x01\x00\x015:abcde7:abcdefgi5e0:le6:\x08\x08\x08\x08\x00\x01e";
        let (net, peers) = lied_to(me, liar, nodes, values);
        assert_eq!(peers, ["8.8.8.8:1".parse().unwrap()]);
        assert!(net.strays.iter().any(|(_, _, to, _)| *to == good), "the good entry is used");
        assert!(net.strays.iter().all(|(_, _, to, _)| *to == good), "{:?}", net.strays);
        assert_eq!(net.node(me).contact_count(), 0);
    }
}

#[test]
fn on_a_private_network_link_local_and_broadcast_are_still_left_alone() {
    let (me, liar) = (SocketAddr::from(([10, 77, 1, 1], 1)), SocketAddr::from(([10, 77, 1, 9], 9)));
    let mut nodes = Vec::new();
    for (n, addr) in
        ["169.254.1.1:1", "255.255.255.255:1", "224.0.0.1:9", "10.77.1.5:0", "10.77.1.1:1"]
            .iter()
            .enumerate()
    {
        let n = u8::try_from(n).unwrap();
        compact::put_node(&mut nodes, NodeId::new([n; 20]), addr.parse().unwrap());
    }
    let (net, peers) =
        lied_to(me, liar, nodes, b"l6:\xa9\xfe\x01\x01\x00\x016:\x0a\x4d\x01\x06\x00\x01e");
    assert!(net.strays.is_empty(), "{:?}", net.strays);
    assert_eq!(peers, ["10.77.1.6:1".parse().unwrap()]);
}

#[test]
fn third_party_named_by_everybody_is_asked_at_most_three_times() {
    let (mut net, me, _) = alone();
    let victim = SocketAddr::from(([77, 7, 7, 7], 7));
    let liars: Vec<SocketAddr> = (1..20).map(public_addr).collect();
    for (n, liar) in liars.clone().into_iter().enumerate() {
        let n = u8::try_from(n).unwrap();
        net.script(liar, move |from, query| {
            let id = make_id(liar.ip(), &mut Chance::from_seed([n; 32]));
            let named: Vec<_> = (0..8u8)
                .map(|m| {
                    let mut id = *HASH.as_bytes();
                    id[19] ^= n * 8 + m;
                    (NodeId::new(id), victim)
                })
                .collect();
            vec![(liar, from, answer_to(query, id, from, &named, &[]))]
        });
    }
    let lookups: Vec<_> = (0..5)
        .map(|_| {
            let get = net.on(me, |node, now| {
                node.bootstrap(now, &liars);
                node.get_peers(now, HASH)
            });
            net.finish(me, get);
            net.run(Duration::from_secs(20));
            get
        })
        .collect();
    assert_eq!(lookups.len(), 5);
    let asked = net.take_strays(victim).len();
    assert!(asked <= 3, "{asked}");
}

#[test]
fn spoofed_query_cannot_evict_a_contact() {
    let (mut net, addrs) = Net::loopback(36, 12);
    let contact = net.node(addrs[0]).saved()[0].clone();
    for n in 0..50 {
        let mut datagram = Vec::new();
        let head = QueryHead { tid: b"aa", id: NodeId::new([n; 20]), read_only: false };
        krpc::encode_query(&mut datagram, head, &Method::Ping);
        net.inject(contact.addr, addrs[0], &datagram);
    }
    net.run(Duration::from_secs(5));
    assert!(
        net.node(addrs[0]).saved().iter().any(|c| (c.id, c.addr) == (contact.id, contact.addr))
    );
}

#[test]
fn lookup_passes_liars_who_name_only_dead_nodes() {
    let (mut net, addrs) = Net::public(37, 40);
    net.run(Duration::from_secs(60));
    let announce = net.on(addrs[10], |node, now| node.announce(now, HASH, Some(5)));
    net.finish(addrs[10], announce);
    let invented = Rc::new(RefCell::new(Chance::from_seed([8; 32])));
    // One node in ten is a liar from now on.
    for liar in addrs[30..34].iter().copied() {
        let id = net.node(liar).id();
        net.nodes.remove(&liar);
        let rng = Rc::clone(&invented);
        net.script(liar, move |from, query| {
            if !matches!(Message::decode(query).unwrap().body, Body::Query(_)) {
                return Vec::new();
            }
            let named: Vec<_> = (0..16)
                .map(|_| {
                    let mut rng = rng.borrow_mut();
                    let mut near = *HASH.as_bytes();
                    rng.fill(&mut near[3..]);
                    let [a, b, c, d] = rng.array();
                    (NodeId::new(near), SocketAddr::from(([1 + a % 200, b, c, d], 1)))
                })
                .filter(|(_, addr)| !crate::base::addr::is_private(addr.ip()))
                .collect();
            vec![(liar, from, answer_to(query, id, from, &named, &[]))]
        });
    }
    for asker in [1, 15, 25] {
        let get = net.on(addrs[asker], |node, now| node.get_peers(now, HASH));
        let report = net.finish(addrs[asker], get);
        assert_eq!(net.peers(addrs[asker], get), [SocketAddr::new(addrs[10].ip(), 5)]);
        assert!(report.asked <= 100 && report.took < Duration::from_secs(15), "{report:?}");
    }
}

#[test]
fn events_and_table_survive_a_flood_of_every_kind() {
    let (mut net, addrs) = Net::loopback(38, 15);
    let mut rng = Chance::from_seed([9; 32]);
    for _ in 0..3_000 {
        let mut datagram = query_of(&Method::get_peers(HASH));
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(datagram.len());
            datagram[at] = rng.array::<1>()[0];
        }
        net.inject(SocketAddr::from(([9, 9, 9, 9], 1)), addrs[0], &datagram);
    }
    let get = net.on(addrs[0], |node, now| node.get_peers(now, HASH));
    assert!(net.finish(addrs[0], get).answered >= 8);
    assert!(net.events.iter().all(|(_, e)| !matches!(e, Event::IdChanged(_))));
}
