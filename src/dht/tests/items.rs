//! What a node answers about items, samples, filters and the other family.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::client::{Client, code, with_client};
use super::net::{Net, public_addr};
use crate::base::addr::Family;
use crate::base::limits::{DATAGRAM_ITEM_MAX, DATAGRAM_SEND_MAX};
use crate::base::{InfoHash, Key, NodeId};
use crate::dht::{Config, Node};
use crate::wire::bencode::Writer;
use crate::wire::item::{Item, SecretKey};
use crate::wire::krpc::{self, Body, Message, Method, Put, QueryHead, Reply, SignedPut};

const HASH: InfoHash = InfoHash::new([0x5a; 20]);

fn from(n: u8) -> SocketAddr {
    SocketAddr::from(([60, n, 1, 1], 6881))
}

fn text(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).bytes(&vec![b'x'; len]);
    out
}

fn signed(salt: &[u8], seq: i64, value: &[u8]) -> Item {
    SecretKey::from_seed(&[7; 32]).sign(salt, seq, value.to_vec()).unwrap()
}

fn reply(answer: &[u8]) -> Reply<'_> {
    match Message::decode(answer).unwrap().body {
        Body::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

impl Client<'_> {
    fn item_token(&mut self, from: SocketAddr, target: Key) -> Vec<u8> {
        let answer = self.ask(from, &Method::Get { target, seq: None });
        reply(&answer).token.unwrap().to_vec()
    }

    // The code of the error that came, or zero.
    fn put(&mut self, from: SocketAddr, item: &Item, cas: Option<i64>) -> i64 {
        let token = self.item_token(from, item.target());
        code(&self.ask(from, &Method::Put(item.to_put(&token, cas))))
    }

    fn get(&mut self, target: Key, seq: Option<i64>) -> Vec<u8> {
        self.ask(from(99), &Method::Get { target, seq })
    }
}

#[test]
fn item_that_was_put_is_given_to_whoever_asks() {
    with_client(|mut client| {
        let plain = Item::immutable(b"d1:ai1e1:bl3:abcee".to_vec()).unwrap();
        let mutable = signed(b"salt", 5, b"3:one");
        assert!(reply(&client.get(plain.target(), None)).item.value.is_none());
        assert_eq!(client.put(from(1), &plain, None), 0);
        assert_eq!(client.put(from(1), &mutable, None), 0);
        assert_eq!(client.net.node(client.me).stored_items(), 2);
        let answer = client.get(plain.target(), None);
        let item = reply(&answer).item;
        assert_eq!((item.value, item.seq), (Some(plain.value()), None));
        let Item::Mutable { public_key, signature, .. } = &mutable else { panic!() };
        for (newer_than, told) in
            [(None, true), (Some(4), true), (Some(5), false), (Some(6), false)]
        {
            let answer = client.get(mutable.target(), newer_than);
            let item = reply(&answer).item;
            assert_eq!(item.seq, Some(5));
            assert_eq!(item.value, told.then_some(mutable.value()));
            assert_eq!(item.public_key, told.then_some(public_key));
            assert_eq!(item.signature, told.then_some(signature));
        }
    });
}

#[test]
fn put_is_refused_with_the_code_that_says_why() {
    with_client(|mut client| {
        assert_eq!(client.put(from(1), &signed(b"", 5, b"3:one"), None), 0);
        for (seq, value, cas, want) in [
            (5, b"3:one", None, 0),
            (5, b"3:two", None, 302),
            (4, b"3:old", None, 302),
            (6, b"3:cas", Some(3), 301),
            (6, b"3:cas", Some(5), 0),
            (6, b"3:cas", Some(6), 0),
        ] {
            let item = signed(b"", seq, value);
            assert_eq!(client.put(from(2), &item, cas), want, "{seq} {cas:?}");
        }
        let Item::Mutable { public_key, salt, value, mut signature, .. } = signed(b"", 9, b"3:bad")
        else {
            panic!()
        };
        signature[10] ^= 1;
        let forged = Item::Mutable { public_key, salt, seq: 9, value, signature };
        assert_eq!(client.put(from(3), &forged, None), 206);
        // Whoever has no token, or another's, stores nothing.
        let good = signed(b"x", 1, b"3:one");
        let token = client.item_token(from(4), good.target());
        assert_eq!(code(&client.ask(from(5), &Method::Put(good.to_put(&token, None)))), 203);
        assert_eq!(code(&client.ask(from(4), &Method::Put(good.to_put(b"fake", None)))), 203);
        let other = signed(b"y", 1, b"3:one");
        assert_eq!(code(&client.ask(from(4), &Method::Put(other.to_put(&token, None)))), 203);
        assert_eq!(client.net.node(client.me).stored_items(), 1);
    });
}

#[test]
fn immutable_item_is_stored_under_its_own_hash_whatever_is_claimed() {
    with_client(|mut client| {
        let item = Item::immutable(b"5:hello".to_vec()).unwrap();
        let lie = Key::new([9; 20]);
        let token = client.item_token(from(1), item.target());
        let mut datagram = b"d1:ad2:id20:abcdefghij01234567896:target20:".to_vec();
        datagram.extend_from_slice(lie.as_bytes());
        datagram.extend_from_slice(b"5:token8:");
        datagram.extend_from_slice(&token);
        datagram.extend_from_slice(b"1:v5:helloe1:q3:put1:t2:aa1:y1:qe");
        assert_eq!(code(&client.ask_raw(from(1), &datagram)), 0);
        assert!(reply(&client.get(lie, None)).item.value.is_none());
        assert_eq!(reply(&client.get(item.target(), None)).item.value, Some(item.value()));
    });
}

#[test]
fn largest_item_fits_its_datagram_and_a_larger_one_is_refused() {
    for me in [public_addr(0), "[2a01:1::1]:1".parse().unwrap()] {
        let mut net = Net::new(61);
        net.add_with(me, Config { per_ip_rate: None, ..Config::new(Family::of(&me)) }, None);
        let mut client = Client { net: &mut net, me };
        let from: SocketAddr =
            if me.is_ipv4() { from(1) } else { "[2a02:2::2]:2".parse().unwrap() };
        let item = signed(&[b's'; 64], i64::MAX, &text(996));
        let token = client.item_token(from, item.target());
        assert_eq!(code(&client.ask(from, &Method::Put(item.to_put(&token, Some(i64::MIN))))), 0);
        let query = format!(
            "d1:ad2:id20:abcdefghij01234567896:target20:{}4:wantl2:n42:n6ee1:q3:get1:t32:{}1:y1:qe",
            "@".repeat(20),
            "t".repeat(32),
        );
        let query = query.into_bytes();
        let at = query.iter().position(|b| *b == b'@').unwrap();
        let target = item.target();
        let query = [&query[..at], target.as_bytes(), &query[at + 20..]].concat();
        let answer = client.ask_raw(from, &query);
        assert!(answer.len() > 1_200 && answer.len() <= DATAGRAM_ITEM_MAX, "{}", answer.len());
        assert_eq!(reply(&answer).item.value, Some(item.value()));
        let too_big = text(997);
        let put = Put { token: &token, value: &too_big, signed: None };
        assert_eq!(code(&client.ask(from, &Method::Put(put))), 205);
    }
}

#[test]
fn one_address_cannot_fill_the_store_and_is_told_so() {
    with_client(|mut client| {
        let codes: Vec<i64> = (0..100)
            .map(|n| {
                let item = Item::immutable(format!("i{n}e").into_bytes()).unwrap();
                client.put(from(1), &item, None)
            })
            .collect();
        assert!(codes[..64].iter().all(|code| *code == 0));
        assert!(codes[64..].iter().all(|code| *code == 201));
        let honest = Item::immutable(b"6:honest".to_vec()).unwrap();
        assert_eq!(client.put(from(2), &honest, None), 0);
        let stats = client.net.node(client.me).stats();
        assert_eq!((stats.items_stored, stats.items_refused), (65, 36));
    });
}

#[test]
fn scrape_tells_seeds_from_peers_and_noseed_leaves_seeds_out() {
    with_client(|mut client| {
        for (n, seed) in [(1, true), (2, true), (3, false)] {
            let token = client.token(from(n), HASH);
            let method = Method::AnnouncePeer {
                info_hash: HASH,
                port: 7,
                implied_port: false,
                seed,
                token: &token,
            };
            assert_eq!(code(&client.ask(from(n), &method)), 0);
        }
        let get = |noseed, scrape| Method::GetPeers { info_hash: HASH, noseed, scrape };
        let answer = client.ask(from(9), &get(false, true));
        let told = reply(&answer);
        let (seeds, peers) = told.filters.unwrap();
        let filter = |ns: &[u8]| {
            let mut filter = crate::wire::bloom::Filter::new();
            ns.iter().for_each(|n| filter.insert(from(*n).ip()));
            filter
        };
        assert_eq!(seeds, filter(&[1, 2]).as_bytes());
        assert_eq!(peers, filter(&[3]).as_bytes());
        assert_eq!(told.peers().count(), 3);
        let answer = client.ask(from(9), &get(true, false));
        let told = reply(&answer);
        assert!(told.filters.is_none());
        let left: Vec<IpAddr> = told.peers().map(|peer| peer.ip()).collect();
        assert_eq!(left, [from(3).ip()]);
        // No torrent, no filters.
        let none =
            Method::GetPeers { info_hash: InfoHash::new([1; 20]), noseed: false, scrape: true };
        assert!(reply(&client.ask(from(9), &none)).filters.is_none());
    });
}

#[test]
fn samples_come_with_contacts_and_only_twice_an_interval() {
    let (mut net, addrs) = Net::public(62, 12);
    net.run(Duration::from_secs(20));
    let mut client = Client { net: &mut net, me: addrs[0] };
    let token = client.token(from(1), HASH);
    assert_eq!(client.announce(from(1), HASH, &token), 0);
    let method = Method::SampleInfohashes { target: Key::new([1; 20]) };
    for round in 0..4 {
        let answer = client.ask(from(2), &method);
        let told = reply(&answer);
        let samples = told.samples.unwrap();
        let hashes: Vec<_> = samples.info_hashes().collect();
        assert_eq!(hashes, if round < 2 { vec![HASH] } else { vec![] });
        assert_eq!(samples.total(), 1);
        assert!((1..=600).contains(&samples.interval()));
        assert_eq!(told.contacts(Family::V4).count(), 8);
    }
    let without = b"d1:ad2:id20:abcdefghij0123456789e1:q17:sample_infohashes1:t2:aa1:y1:qe";
    assert_eq!(code(&client.ask_raw(from(2), without)), 203);
}

// Two nodes of one host, one of each family, that know some contacts.
fn both_families() -> (Net, Node, Node) {
    let (mut net, addrs) = Net::public(63, 12);
    net.run(Duration::from_secs(20));
    let v4 = net.nodes.remove(&addrs[0]).unwrap();
    let mut net6 = Net::new(64);
    let v6: Vec<SocketAddr> =
        (1..=12u16).map(|n| SocketAddr::from(([0x2a00 + n, 1, 0, 0, 0, 0, 0, 1], 6881))).collect();
    for addr in &v6 {
        net6.add(*addr);
        net6.on(*addr, |node, now| node.bootstrap(now, &[v6[0]]));
        net6.run(Duration::from_millis(200));
    }
    net6.run(Duration::from_secs(20));
    let v6 = net6.nodes.remove(&v6[0]).unwrap();
    (net, v4, v6)
}

#[test]
fn contacts_of_both_families_are_told_to_whoever_wants_both() {
    let (net, mut v4, mut v6) = both_families();
    let asker6: SocketAddr = "[2a0f:9::9]:9".parse().unwrap();
    for (name, key) in [
        ("find_node", "target"),
        ("get_peers", "info_hash"),
        ("get", "target"),
        ("sample_infohashes", "target"),
        ("future", "target"),
    ] {
        for (want, on_v4, on_v6) in [
            ("", [8, 0], [0, 8]),
            ("4:wantl2:n4e", [8, 0], [8, 0]),
            ("4:wantl2:n6e", [0, 8], [0, 8]),
            ("4:wantl2:n42:n62:n9e", [8, 8], [8, 8]),
            ("4:wantle", [0, 0], [0, 0]),
        ] {
            let query = format!(
                "d1:ad2:id20:abcdefghij0123456789{}:{key}20:mnopqrstuvwxyz123456{want}e1:q{}:{name}2:roi1e1:t2:aa1:y1:qe",
                key.len(),
                name.len(),
            );
            let ask = |node: &mut Node, from: SocketAddr, beside: Option<&Node>, limit| {
                node.handle_datagram_beside(net.now, from, query.as_bytes(), beside);
                let (_, answer) = node.datagrams().pop().unwrap();
                assert!(answer.len() <= limit);
                [Family::V4, Family::V6].map(|family| reply(&answer).contacts(family).count())
            };
            let counts = ask(&mut v4, from(9), Some(&v6), DATAGRAM_SEND_MAX);
            assert_eq!(counts, on_v4, "{name} {want}");
            let counts = ask(&mut v6, asker6, Some(&v4), 1_024);
            assert_eq!(counts, on_v6, "{name} {want}");
            // Alone it tells what it has, and an empty list of the rest.
            let counts = ask(&mut v4, from(9), None, DATAGRAM_SEND_MAX);
            assert_eq!(counts, [on_v4[0], 0]);
        }
    }
}

#[test]
fn count_of_a_crowded_torrent_fits_beside_the_contacts_that_are_due() {
    let (net, mut v4, mut v6) = both_families();
    let peer4 = |n: u16| SocketAddr::from(([61, n.to_be_bytes()[0], n.to_be_bytes()[1], 1], 1));
    let peer6 = |n: u16| SocketAddr::from(([0x2a40, n, 0, 0, 0, 0, 0, 1], 1));
    let ask = |node: &mut Node, from: SocketAddr, query: &[u8], beside: Option<&Node>| {
        node.handle_datagram_beside(net.now, from, query, beside);
        let to_asker = |(to, answer)| if to == from { Some(answer) } else { None };
        std::iter::from_fn(|| node.datagrams().pop()).find_map(to_asker).unwrap()
    };
    let crowd = |node: &mut Node, peer: &dyn Fn(u16) -> SocketAddr| {
        for n in 0..400 {
            let mut query = Vec::new();
            let head = QueryHead { tid: b"aa", id: NodeId::new([3; 20]), read_only: true };
            krpc::encode_query(&mut query, head, &Method::get_peers(HASH));
            let answer = ask(node, peer(n), &query, None);
            let token = reply(&answer).token.unwrap();
            let (port, implied_port, seed) = (7, false, n % 2 == 0);
            let announce =
                Method::AnnouncePeer { info_hash: HASH, port, implied_port, seed, token };
            query.clear();
            krpc::encode_query(&mut query, head, &announce);
            assert_eq!(code(&ask(node, peer(n), &query, None)), 0);
        }
    };
    crowd(&mut v4, &peer4);
    crowd(&mut v6, &peer6);
    for tid in [2, 32] {
        let head = format!("d1:ad2:id20:abcdefghij01234567899:info_hash20:{}", "Z".repeat(20));
        let tail = format!("6:scrapei1e4:wantl2:n42:n6ee1:q9:get_peers2:roi1e1:t{tid}:");
        let query = format!("{head}{tail}{}1:y1:qe", "t".repeat(tid)).into_bytes();
        let answers = [
            (ask(&mut v4, from(9), &query, Some(&v6)), Family::V4, DATAGRAM_SEND_MAX),
            (ask(&mut v6, peer6(9_000), &query, Some(&v4)), Family::V6, 1_024),
        ];
        for (answer, family, limit) in answers {
            assert!(answer.len() <= limit, "{}", answer.len());
            let factor = answer.len() as f64 / query.len() as f64;
            assert!(factor <= 10.0, "{factor}");
            let told = reply(&answer);
            assert!(told.filters.is_some() && told.peers().count() > 0);
            assert_eq!(told.contacts(family).count(), 8);
        }
    }
}

#[test]
fn put_that_lacks_something_is_told_so_and_nothing_is_stored() {
    with_client(|mut client| {
        let k = format!("1:k32:{}", "k".repeat(32));
        let sig = format!("3:sig64:{}", "s".repeat(64));
        for (args, want) in [
            (format!("{k}{sig}5:token1:t1:v1:x"), 203),
            (format!("{k}3:seqi1e5:token1:t1:v1:x"), 206),
            (format!("{k}3:seqi1e3:sig63:{}5:token1:t1:v1:x", "s".repeat(63)), 206),
            (format!("1:k31:{}3:seqi1e{sig}5:token1:t1:v1:x", "k".repeat(31)), 203),
            (format!("{k}3:seqi1e{sig}5:token1:t"), 203),
            (format!("{k}3:seqi1e{sig}1:v1:x"), 203),
            (format!("{k}3:seqi1e{sig}5:token1:t1:v1:x"), 203),
            (format!("{k}3:seqi1e{sig}5:token1:t1:vd1:bi1e1:ai1ee"), 203),
            (format!("4:salt65:{}{k}3:seqi1e{sig}5:token1:t1:v1:x", "s".repeat(65)), 207),
        ] {
            let text =
                format!("d1:ad2:id20:abcdefghij0123456789{args}e1:q3:put2:roi1e1:t2:aa1:y1:qe");
            assert_eq!(code(&client.ask_raw(from(1), text.as_bytes())), want, "{args}");
        }
        assert_eq!(client.net.node(client.me).stored_items(), 0);
    });
}

// BEP 44: the bytes are signed as they are, but only one spelling of a value is stored.
#[test]
fn signed_value_in_another_spelling_is_refused_on_its_raw_bytes() {
    use ed25519_dalek::{Signer, SigningKey};
    with_client(|mut client| {
        let key = SigningKey::from_bytes(&[7; 32]);
        for (value, want) in [
            (&b"d1:ai1e1:bi2ee"[..], Some(0)),
            (b"d1:bi2e1:ai1ee", Some(203)),
            (b"d1:ai1e1:ai1ee", Some(203)),
            (b"03:abc", None),
            (b"i-0e", None),
        ] {
            let signed = [b"3:seqi1e1:v", value].concat();
            let signature = key.sign(&signed).to_bytes();
            let public_key = key.verifying_key().to_bytes();
            let target = crate::wire::item::mutable_target(&public_key, b"");
            let token = client.item_token(from(1), target);
            let signed = SignedPut {
                public_key: &public_key,
                salt: b"",
                seq: 1,
                signature: &signature,
                cas: None,
            };
            let put = Put { token: &token, value, signed: Some(signed) };
            let mut query = Vec::new();
            let head = QueryHead { tid: b"aa", id: NodeId::new([3; 20]), read_only: true };
            krpc::encode_query(&mut query, head, &Method::Put(put));
            client.net.inject(from(1), client.me, &query);
            client.net.run(Duration::from_millis(60));
            let answer = client.net.take_strays(from(1)).pop();
            assert_eq!(answer.map(|(_, answer)| code(&answer)), want);
        }
        assert_eq!(client.net.node(client.me).stored_items(), 1);
    });
}
