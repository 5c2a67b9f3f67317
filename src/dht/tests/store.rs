//! What a node keeps for others and gives out.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::{Client, code, with_client};
use super::net::{Net, public_addr};
use crate::base::InfoHash;
use crate::wire::krpc::{Body, Message, Method};

const HASH: InfoHash = InfoHash::new([0x5a; 20]);

fn hash(n: u32) -> InfoHash {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash::new(hash)
}

#[test]
fn token_serves_its_address_and_torrent_for_five_to_ten_minutes() {
    with_client(|mut client| {
        let (me, other) =
            (SocketAddr::from(([9, 9, 9, 9], 9)), SocketAddr::from(([9, 9, 9, 8], 9)));
        let token = client.token(me, HASH);
        assert_eq!(client.announce(other, HASH, &token), 203);
        assert_eq!(client.announce(me, hash(1), &token), 203);
        for bad in [&b""[..], &token[..7], &[&token[..], b"x"].concat(), &[7; 8], &[7; 1000]] {
            assert_eq!(client.announce(me, HASH, bad), 203);
        }
        assert!(client.peers(HASH).is_empty());
        // Another port of the address is the same address.
        assert_eq!(client.announce(SocketAddr::new(me.ip(), 10), HASH, &token), 0);
        client.net.run(Duration::from_secs(290));
        assert_eq!(client.announce(me, HASH, &token), 0);
        client.net.run(Duration::from_secs(320));
        assert_eq!(client.announce(me, HASH, &token), 203);
        assert_eq!(client.peers(HASH), [SocketAddr::new(me.ip(), 7)]);
    });
}

#[test]
fn announced_port_follows_the_specification() {
    let from = SocketAddr::from(([9, 9, 9, 9], 999));
    for (args, want) in [
        ("12:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti5e", Ok(999)),
        ("12:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456", Ok(999)),
        ("12:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti0e", Ok(999)),
        ("12:implied_porti0e9:info_hash20:mnopqrstuvwxyz1234564:porti5e", Ok(5)),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti6e", Ok(6)),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti0e", Err(203)),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti65536e", Err(203)),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti-1e", Err(203)),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti1099511627776e", Err(203)),
        ("9:info_hash20:mnopqrstuvwxyz123456", Err(203)),
    ] {
        with_client(|mut client| {
            let info_hash = InfoHash::new(*b"mnopqrstuvwxyz123456");
            let token = client.token(from, info_hash);
            let mut text = format!("d1:ad2:id20:abcdefghij0123456789{args}5:token8:").into_bytes();
            text.extend_from_slice(&token);
            text.extend_from_slice(b"e1:q13:announce_peer1:t2:aa1:y1:qe");
            let answer = client.ask_raw(from, &text);
            assert_eq!(code(&answer), want.err().unwrap_or_default(), "{args}");
            let want: Vec<_> =
                want.ok().map(|port| SocketAddr::new(from.ip(), port)).into_iter().collect();
            assert_eq!(client.peers(info_hash), want, "{args}");
        });
    }
}

#[test]
fn thousands_of_announces_for_thousands_of_hashes_are_capped() {
    with_client(|mut client| {
        for n in 0..3_000u32 {
            let [_, _, a, b] = n.to_be_bytes();
            let from = SocketAddr::from(([60 + a, b, 1, 1], 1));
            let token = client.token(from, hash(n * 1_000_003));
            let code = client.announce(from, hash(n * 1_000_003), &token);
            assert!(code == 0 || code == 202);
        }
        let (hashes, peers) = client.net.node(client.me).stored();
        assert_eq!((hashes, peers), (2_000, 2_000));
        let stats = client.net.node(client.me).stats();
        assert_eq!(stats.announces_stored + stats.announces_refused, 3_000);
        assert!(stats.announces_refused > 0);
    });
}

#[test]
fn one_address_with_many_ports_leaves_room_for_the_others() {
    with_client(|mut client| {
        let flooder = SocketAddr::from(([9, 9, 9, 9], 9));
        let token = client.token(flooder, HASH);
        for port in 1..=2_000 {
            let method = Method::AnnouncePeer {
                info_hash: HASH,
                port,
                implied_port: false,
                seed: false,
                token: &token,
            };
            let code = code(&client.ask(flooder, &method));
            assert_eq!(code, if port <= 3 { 0 } else { 201 });
        }
        let honest = SocketAddr::from(([5, 5, 5, 5], 5));
        let token = client.token(honest, HASH);
        assert_eq!(client.announce(honest, HASH, &token), 0);
        assert_eq!(client.peers(HASH).len(), 4);
    });
}

#[test]
fn answer_about_a_crowded_torrent_fits_its_datagram() {
    for (me, limit) in [(public_addr(0), 1200), ("[2a01:1::1]:1".parse().unwrap(), 1024)] {
        let mut net = Net::new(52);
        let config = crate::dht::Config {
            per_ip_rate: None,
            ..crate::dht::Config::new(crate::base::addr::Family::of(&me))
        };
        net.add_with(me, config, None);
        let mut client = Client { net: &mut net, me };
        let peer = |n: u16| match me {
            SocketAddr::V4(_) => {
                SocketAddr::from(([60, n.to_be_bytes()[0], n.to_be_bytes()[1], 1], 1))
            }
            SocketAddr::V6(_) => SocketAddr::from(([0x2a02, n, 0, 0, 0, 0, 0, 1], 1)),
        };
        for n in 0..600 {
            let token = client.token(peer(n), HASH);
            // When it is full those stay who are here: nobody makes a crowd.
            let code = client.announce(peer(n), HASH, &token);
            assert!(code == 0 || (n >= 500 && code == 202), "{n}: {code}");
        }
        assert_eq!(client.net.node(me).stored(), (1, 500));
        for tid in [1, 32] {
            let want = "4:wantl2:n42:n6e";
            let tid = "t".repeat(tid);
            let text = format!(
                "d1:ad2:id20:abcdefghij01234567899:info_hash20:{}{want}e1:q9:get_peers2:roi1e1:t{}:{tid}1:y1:qe",
                "\x5a".repeat(20),
                tid.len(),
            );
            let answer = client.ask_raw(peer(9_000), text.as_bytes());
            assert!(answer.len() <= limit && answer.len() > 800, "{}", answer.len());
            let factor = answer.len() as f64 / text.len() as f64;
            assert!(factor <= 15.0, "{factor}");
            let Body::Reply(reply) = Message::decode(&answer).unwrap().body else { panic!() };
            assert!(reply.peers().count() >= 30);
        }
    }
}

#[test]
fn private_peers_and_contacts_are_not_told_to_the_public() {
    let (mut net, addrs) = Net::loopback(53, 12);
    let me = addrs[0];
    let inside = SocketAddr::from(([10, 1, 1, 1], 1));
    let outside = SocketAddr::from(([9, 9, 9, 9], 9));
    let mut client = Client { net: &mut net, me };
    let token = client.token(inside, HASH);
    assert_eq!(client.announce(inside, HASH, &token), 0);
    for (asker, peers, nodes) in [(inside, 1, 8), (outside, 0, 0)] {
        let answer = client.ask(asker, &Method::get_peers(HASH));
        let Body::Reply(reply) = Message::decode(&answer).unwrap().body else { panic!() };
        let contacts = reply.contacts(crate::base::addr::Family::V4).count();
        assert_eq!((reply.peers().count(), contacts), (peers, nodes));
    }
}

#[test]
fn asker_is_told_where_it_is_seen_and_gets_what_it_wants() {
    let (mut net, addrs) = Net::public(54, 12);
    net.run(Duration::from_secs(20));
    let from = SocketAddr::from(([9, 9, 9, 9], 999));
    let mut client = Client { net: &mut net, me: addrs[0] };
    let answer = client.ask(from, &Method::Ping);
    assert_eq!(Message::decode(&answer).unwrap().seen_at, Some(from));
    for (want, nodes) in
        [("", 8), ("4:wantl2:n4e", 8), ("4:wantl2:n42:n6e", 8), ("4:wantl2:n6e", 0)]
    {
        let text = format!(
            "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456{want}e1:q9:find_node2:roi1e1:t1:a1:y1:qe"
        );
        let answer = client.ask_raw(from, text.as_bytes());
        let Body::Reply(reply) = Message::decode(&answer).unwrap().body else { panic!() };
        assert_eq!(reply.contacts(crate::base::addr::Family::V4).count(), nodes, "{want}");
    }
}
