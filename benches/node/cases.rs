//! The cases: each prepares a node or a datagram once and then does its step again and again.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use trackless::base::addr::Family;
use trackless::base::{InfoHash, Instant, Key, NodeId, Rng};
use trackless::dht::bench::BareTable;
use trackless::dht::{Config, LookupId, Node, Output};
use trackless::wire::krpc::{
    self, Answer, Body, Extra, Message, Method, QueryHead, encode_answer, encode_query,
};

/// Steps to be done.
pub type Run = Box<dyn FnMut(u32)>;

/// Something that is measured.
pub struct Case {
    pub name: &'static str,
    /// Steps of one sample.
    pub rounds: u32,
    /// Makes what the steps need.
    pub prepare: Box<dyn FnMut() -> Run>,
}

fn case(name: &'static str, rounds: u32, prepare: impl FnMut() -> Run + 'static) -> Case {
    Case { name, rounds, prepare: Box::new(prepare) }
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Case> {
    vec![
        case("decode a get_peers query", 5_000, || decode(query(&Method::get_peers(hash(1))))),
        case("decode an answer with 8 contacts", 5_000, || decode(answer(8, 0))),
        case("decode an answer with 8 contacts and 50 peers", 2_000, || decode(answer(8, 50))),
        case("encode an answer with 8 contacts", 5_000, || encode(8, 0)),
        case("encode an answer with 8 contacts and 50 peers", 2_000, || encode(8, 50)),
        case("answer ping", 2_000, || ask(|_| Method::Ping)),
        case("answer find_node, far half of the keys", 2_000, || ask(|n| find(n, true))),
        case("answer find_node, near half of the keys", 2_000, || ask(|n| find(n, false))),
        case("answer get_peers, nothing stored", 2_000, || ask(|n| Method::get_peers(hash(n)))),
        case("answer get_peers, 500 peers stored", 500, || {
            ask(|_| Method::get_peers(hash(STORED)))
        }),
        case("answer get_peers and announce_peer", 1_000, announce),
        case("answer get_peers as shipped, from 4096 addresses", 2_000, ask_as_shipped),
        case("drop a datagram that is no message", 5_000, || hand_in(b"x".repeat(80))),
        case("drop an answer to no query", 5_000, || hand_in(answer(8, 0))),
        case("table: take an answer of a contact", 5_000, || offer(known)),
        case("table: offer it somebody new where it is full", 5_000, || offer(newcomer)),
        case("table: the 8 closest to a key", 2_000, closest),
        case("lookup step: take an answer, ask the next", 20, lookup),
    ]
}

/// What stored peers take.
pub fn memory() -> Vec<String> {
    let mut node = node(None);
    let now = Instant::ZERO;
    for hash_at in 0..2_000u32 {
        for n in 0..500u32 {
            let addr = peer(hash_at * 500 + n);
            let token = token(&mut node, now, addr, hash(hash_at));
            let method = announce_of(hash(hash_at), &token);
            send(&mut node, now, addr, &query(&method));
        }
    }
    let (torrents, peers) = node.stored();
    let bytes = node.stored_bytes();
    vec![format!(
        "A store of {peers} peers of {torrents} torrents takes {:.1} MB, {:.1} bytes a peer.",
        bytes as f64 / 1e6,
        bytes as f64 / peers as f64
    )]
}

// ---- codec ----

fn decode(datagram: Vec<u8>) -> Run {
    Box::new(move |rounds| {
        for _ in 0..rounds {
            let message = Message::decode(black_box(&datagram)).unwrap();
            if let Body::Reply(reply) = message.body {
                black_box(reply.contacts(Family::V4).count() + reply.peers().count());
            }
        }
    })
}

fn encode(nodes: usize, values: usize) -> Run {
    let (contacts, peers) = lists(nodes, values);
    let mut out = Vec::new();
    Box::new(move |rounds| {
        for _ in 0..rounds {
            out.clear();
            encode_answer(&mut out, &answer_of(b"abcd", &contacts, &peers), 1_200);
            black_box(&out);
        }
    })
}

// ---- a node with a full table ----

fn ask(method: impl Fn(u32) -> Method<'static> + 'static) -> Run {
    let mut node = node(None);
    let now = Instant::ZERO + Duration::from_secs(600);
    for n in 0..500 {
        let token = token(&mut node, now, peer(n), hash(STORED));
        send(&mut node, now, peer(n), &query(&announce_of(hash(STORED), &token)));
    }
    let queries: Vec<Vec<u8>> = (0..256).map(|n| query(&method(n))).collect();
    answered(node, now, queries, |n| peer(n % 4_096))
}

fn ask_as_shipped() -> Run {
    let mut node = node(Some(50));
    let mut now = Instant::ZERO + Duration::from_secs(600);
    let queries: Vec<Vec<u8>> = (0..256).map(|n| query(&Method::get_peers(hash(n)))).collect();
    let mut at = 0;
    let mut run = move |rounds| {
        for _ in 0..rounds {
            // Calm: a thousand a second from everybody together.
            now += Duration::from_millis(1);
            at += 1;
            node.handle_datagram(now, peer(at % 4_096), &queries[at as usize % queries.len()]);
            assert_eq!(node.datagrams().len(), 1, "every query is answered");
            node.datagrams().clear();
        }
    };
    // All of them have been heard of.
    run(4_096);
    Box::new(run)
}

// The host takes the answers of a turn together.
fn answered(
    mut node: Node,
    now: Instant,
    queries: Vec<Vec<u8>>,
    from: impl Fn(u32) -> SocketAddr + 'static,
) -> Run {
    let mut at = 0;
    Box::new(move |rounds| {
        for _ in 0..rounds {
            at += 1;
            node.handle_datagram(now, from(at), &queries[at as usize % queries.len()]);
            if node.datagrams().len() == 64 {
                black_box(node.datagrams().iter().count());
                node.datagrams().clear();
            }
        }
    })
}

fn announce() -> Run {
    let mut node = node(None);
    let now = Instant::ZERO + Duration::from_secs(600);
    let pairs: Vec<_> = (0..1_000)
        .map(|n| {
            let token = token(&mut node, now, peer(n), hash(n));
            (query(&Method::get_peers(hash(n))), query(&announce_of(hash(n), &token)))
        })
        .collect();
    let mut at = 0;
    Box::new(move |rounds| {
        for _ in 0..rounds {
            at = (at + 1) % 1_000;
            let (question, announce) = &pairs[at as usize];
            node.handle_datagram(now, peer(at), question);
            node.handle_datagram(now, peer(at), announce);
            assert_eq!(node.datagrams().len(), 2, "both are answered");
            node.datagrams().clear();
        }
    })
}

fn hand_in(datagram: Vec<u8>) -> Run {
    let mut node = node(None);
    let now = Instant::ZERO + Duration::from_secs(600);
    Box::new(move |rounds| {
        for _ in 0..rounds {
            node.handle_datagram(now, peer(7), black_box(&datagram));
            assert!(node.datagrams().is_empty());
        }
    })
}

// ---- the table alone ----

// As full as that of a node which has been up for long in a network of millions.
fn full_table() -> (BareTable, Vec<SocketAddr>) {
    let mut table = BareTable::new(NodeId::new([0x5a; 20]));
    let now = Instant::ZERO;
    let added = |n: &u32| table.on_reply(now, id_of(contact(*n)), contact(*n));
    let contacts: Vec<SocketAddr> = (0..20_000).filter(added).map(contact).collect();
    assert!(table.len() > 180, "{} contacts", table.len());
    (table, contacts)
}

fn known(contacts: &[SocketAddr], n: u32) -> SocketAddr {
    contacts[n as usize % contacts.len()]
}

// Each from another network, most of them in the half where we are not.
fn newcomer(_: &[SocketAddr], n: u32) -> SocketAddr {
    peer(n % 100_000)
}

fn offer(who: fn(&[SocketAddr], u32) -> SocketAddr) -> Run {
    let (mut table, contacts) = full_table();
    let now = Instant::ZERO + Duration::from_secs(60);
    let mut n = 0;
    Box::new(move |rounds| {
        for _ in 0..rounds {
            n += 1;
            let addr = who(&contacts, n);
            black_box(table.on_reply(now, id_of(addr), addr));
        }
    })
}

fn closest() -> Run {
    let (mut table, _) = full_table();
    let keys: Vec<Key> = (0..256).map(|n| hash(n).key()).collect();
    let mut n = 0;
    Box::new(move |rounds| {
        for _ in 0..rounds {
            n += 1;
            assert_eq!(table.closest(black_box(keys[n % keys.len()])), 8);
        }
    })
}

// ---- lookups ----

// Whole lookups in a network that answers at once; a step is one answer and what follows from it.
fn lookup() -> Run {
    let mut node = node(None);
    let mut now = Instant::ZERO + Duration::from_secs(600);
    let mut rng = Rng::from_seed([6; 32]);
    Box::new(move |rounds| {
        let mut steps = 0;
        while steps < rounds {
            now += Duration::from_millis(50);
            let target = InfoHash::new(rng.array());
            let _: LookupId = node.get_peers(now, target);
            while let Some(output) = node.poll_output() {
                let Output::Transmit { to, datagram } = output else { continue };
                let Some(reply) = reply_near(&datagram, to, target, &mut rng) else { continue };
                node.handle_datagram(now, to, &reply);
                steps += 1;
                if steps >= rounds {
                    break;
                }
            }
        }
    })
}

// The answer of a node to `datagram`: eight contacts that are some bits closer than itself.
fn reply_near(datagram: &[u8], to: SocketAddr, target: InfoHash, rng: &mut Rng) -> Option<Vec<u8>> {
    let message = Message::decode(datagram).ok()?;
    let Body::Query(_) = message.body else { return None };
    let id = id_of(to);
    let shared = id.key().shared_prefix_bits(target.key());
    let contacts: Vec<_> = (0..8)
        .map(|_| {
            let addr = peer(rng.u32() % 1_000_000);
            (near(id_of(addr), target.key(), shared + 4), addr)
        })
        .collect();
    let mut out = Vec::new();
    encode_answer(&mut out, &Answer { id, ..answer_of(message.tid, &contacts, &[]) }, 1_200);
    Some(out)
}

fn near(id: NodeId, target: Key, bits: u32) -> NodeId {
    let (mut near, bytes) = (*id.as_bytes(), (bits / 8).min(20) as usize);
    near[..bytes].copy_from_slice(&target.as_bytes()[..bytes]);
    NodeId::new(near)
}

// ---- what all need ----

// A node that knows some 250 others.
fn node(per_ip_rate: Option<u32>) -> Node {
    let config = Config {
        per_ip_rate,
        flows_per_second: None,
        prove_reachability: false,
        ..Config::new(Family::V4)
    };
    let mut now = Instant::ZERO;
    let mut node = Node::new(config, Some(NodeId::new([0x5a; 20])), [1; 32], now);
    for n in 0..2_000 {
        node.add_contact(now, contact(n));
        now += Duration::from_millis(50);
        while let Some(output) = node.poll_output() {
            let Output::Transmit { to, datagram } = output else { continue };
            let Ok(message) = Message::decode(&datagram) else { continue };
            let mut out = Vec::new();
            let answer = Answer { id: id_of(to), ..answer_of(message.tid, &[], &[]) };
            encode_answer(&mut out, &answer, 1_200);
            node.handle_datagram(now, to, &out);
        }
        if node.poll_timeout().is_some_and(|at| at <= now) {
            node.handle_timeout(now);
        }
    }
    assert!(node.contact_count() > 180, "{} contacts", node.contact_count());
    node
}

fn send(node: &mut Node, now: Instant, from: SocketAddr, datagram: &[u8]) {
    node.handle_datagram(now, from, datagram);
    black_box(node.datagrams().len());
    node.datagrams().clear();
}

fn token(node: &mut Node, now: Instant, from: SocketAddr, info_hash: InfoHash) -> Vec<u8> {
    node.handle_datagram(now, from, &query(&Method::get_peers(info_hash)));
    let token = node.datagrams().iter().find_map(|(_, datagram)| {
        match Message::decode(datagram).ok()?.body {
            Body::Reply(reply) => reply.token.map(<[u8]>::to_vec),
            _ => None,
        }
    });
    node.datagrams().clear();
    token.expect("every get_peers is answered with a token")
}

fn announce_of(info_hash: InfoHash, token: &[u8]) -> Method<'_> {
    Method::AnnouncePeer { info_hash, port: 6881, implied_port: false, seed: false, token }
}

fn query(method: &Method<'_>) -> Vec<u8> {
    let head = QueryHead { tid: b"abcd", id: NodeId::new([3; 20]), read_only: true };
    let mut out = Vec::new();
    encode_query(&mut out, head, method);
    out
}

fn lists(nodes: usize, values: usize) -> (Vec<(NodeId, SocketAddr)>, Vec<SocketAddr>) {
    let number = |n: usize| u32::try_from(n).unwrap();
    let contacts = (0..nodes).map(|n| (id_of(contact(number(n))), contact(number(n)))).collect();
    (contacts, (0..values).map(|n| peer(number(n))).collect())
}

fn answer(nodes: usize, values: usize) -> Vec<u8> {
    let (contacts, peers) = lists(nodes, values);
    let mut out = Vec::new();
    encode_answer(&mut out, &answer_of(b"abcd", &contacts, &peers), 1_200);
    out
}

fn answer_of<'a>(
    tid: &'a [u8],
    contacts: &'a [(NodeId, SocketAddr)],
    peers: &'a [SocketAddr],
) -> krpc::Answer<'a> {
    Answer {
        tid,
        to: SocketAddr::from(([9, 9, 9, 9], 9)),
        id: NodeId::new([7; 20]),
        nodes: Some(contacts),
        nodes6: None,
        token: Some(b"12345678"),
        values: peers,
        extra: Extra::None,
        brief: false,
    }
}

// A key in the half of the space where we are not, or in ours.
fn find(n: u32, far: bool) -> Method<'static> {
    let mut key = *hash(n).as_bytes();
    key[0] = if far { key[0] | 0x80 } else { key[0] & 0x7f };
    Method::FindNode { target: Key::new(key) }
}

fn hash(n: u32) -> InfoHash {
    InfoHash::new(Rng::from_seed([n.to_be_bytes(); 8].concat().try_into().unwrap()).array())
}

fn id_of(addr: SocketAddr) -> NodeId {
    let SocketAddr::V4(v4) = addr else { unreachable!("all are") };
    // As good as random, and quickly made: what it takes is counted too.
    let n = u64::from(v4.ip().to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes();
    NodeId::new(std::array::from_fn(|i| mixed[i % 8]))
}

// Public addresses, each in a /24 of its own.
fn peer(n: u32) -> SocketAddr {
    SocketAddr::from((
        std::net::Ipv4Addr::from(0x3000_0000 + n.wrapping_mul(0x101) % 0x4000_0000),
        1,
    ))
}

fn contact(n: u32) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from(0x1000_0007 + n * 0x1_0100), 6881))
}

const STORED: u32 = 1_000_000;
