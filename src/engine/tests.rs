//! The engine routes: each test plays the host by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::base::addr::Family;
use crate::base::limits::DHT_COMMANDS_MAX;
use crate::base::{InfoHash, Instant, NodeId, PeerId};
use crate::dht;
use crate::peer::{CloseReason, ConnId};
use crate::swarm::{DialError, DiskError, DiskErrorKind, DiskEvent, DiskRequest};
use crate::wire::extension::METADATA_ID;
use crate::wire::handshake::Handshake;
use crate::wire::krpc::{self, Answer, Body, Extra, Message};

mod crowds;
mod families;

const INFO: &[u8] = b"d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
const PRIVATE: &[u8] =
    b"d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa7:privatei1ee";

const LONGER_THAN_LOOKUPS: Duration = Duration::from_secs(90);

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 6881))
}

// A node of this family that listens at its own address.
fn node(socket: u8, family: Family, own: &str) -> NodeConfig {
    let own: SocketAddr = own.parse().unwrap();
    NodeConfig {
        socket: SocketId(socket),
        port: own.port(),
        dht: dht::Config::new(family),
        id: None,
        contacts: Vec::new(),
        own_addrs: vec![own],
    }
}

fn engine(with_dht: bool) -> Engine {
    let mut config = Config::new(PeerId::new([7; 20]));
    config.listen_port = Some(6881);
    if with_dht {
        config.nodes.push(node(0, Family::V4, "10.0.0.1:6881"));
    }
    Engine::new(config, [1; 32], Instant::ZERO)
}

fn outputs(engine: &mut Engine) -> Vec<Output> {
    std::iter::from_fn(|| engine.poll_output()).collect()
}

fn known(info: &'static [u8]) -> AddTorrent {
    let mut add = AddTorrent::new(InfoHash::new(crate::base::hash::sha1(info)));
    add.info = Some(Bytes::from_static(info));
    add
}

fn datagrams_to(outputs: &[Output], to: SocketAddr) -> usize {
    outputs.iter().filter(|o| matches!(o, Output::Transmit { to: t, .. } if *t == to)).count()
}

fn hello(info_hash: InfoHash, id: u8) -> Bytes {
    Bytes::copy_from_slice(&Handshake::new(info_hash, PeerId::new([id; 20]), true).encode())
}

#[test]
fn added_torrent_asks_the_dht_and_dials_given_peers_at_once() {
    let mut e = engine(true);
    e.bootstrap(Instant::ZERO, &[addr(9)]);
    outputs(&mut e);
    let mut add = AddTorrent::new(InfoHash::new([3; 20]));
    add.peers = vec![addr(5)];
    e.add_torrent(Instant::ZERO, add).unwrap();
    let out = outputs(&mut e);
    assert!(datagrams_to(&out, addr(9)) > 0, "{out:?}");
    assert!(out.iter().any(|o| matches!(o, Output::Connect { addr: a, .. } if *a == addr(5))));
}

#[test]
fn same_torrent_is_refused_a_second_time() {
    let mut e = engine(false);
    let id = e.add_torrent(Instant::ZERO, known(INFO)).unwrap();
    assert_eq!(e.add_torrent(Instant::ZERO, known(INFO)), Err(AddError::Duplicate(id)));
    e.remove_torrent(Instant::ZERO, id);
    assert!(e.add_torrent(Instant::ZERO, known(INFO)).is_ok());
}

#[test]
fn private_torrent_stays_out_of_the_dht() {
    let mut e = engine(true);
    e.bootstrap(Instant::ZERO, &[addr(9)]);
    outputs(&mut e);
    let public = e.add_torrent(Instant::ZERO, known(INFO)).unwrap();
    assert!(datagrams_to(&outputs(&mut e), addr(9)) > 0);
    assert!(e.discovery(public).is_some());
    let private = e.add_torrent(Instant::ZERO, known(PRIVATE)).unwrap();
    assert_eq!(datagrams_to(&outputs(&mut e), addr(9)), 0);
    assert!(e.discovery(private).is_none());
}

#[test]
fn private_magnet_leaves_the_dht_when_that_is_known() {
    let mut e = engine(true);
    e.bootstrap(Instant::ZERO, &[addr(9)]);
    let hash = InfoHash::new(crate::base::hash::sha1(PRIVATE));
    let id = e.add_torrent(Instant::ZERO, AddTorrent::new(hash)).unwrap();
    assert!(e.discovery(id).is_some());
    let conn = e.accept(Instant::ZERO, addr(5)).unwrap();
    e.handle_frame(Instant::ZERO, conn, hello(hash, 1));
    let extended = |payload: Vec<u8>| Bytes::from([&[20][..], &payload].concat());
    let theirs = format!("\0d1:md11:ut_metadatai3ee13:metadata_sizei{}ee", PRIVATE.len());
    e.handle_frame(Instant::ZERO, conn, extended(theirs.into_bytes()));
    outputs(&mut e);
    let data = format!("d8:msg_typei1e5:piecei0e10:total_sizei{}ee", PRIVATE.len());
    let data = [&[METADATA_ID][..], data.as_bytes(), PRIVATE].concat();
    e.handle_frame(Instant::ZERO, conn, extended(data));
    let is_news = |o: &Output| {
        let Output::Event(Event::Torrent { event, .. }) = o else { return false };
        matches!(event, crate::swarm::Event::MetadataReady { .. })
    };
    assert!(outputs(&mut e).iter().any(is_news));
    assert!(e.discovery(id).is_none());
    // Nor does it go back there after a rest.
    e.pause(Instant::ZERO, id);
    e.resume(Instant::ZERO, id);
    assert!(e.discovery(id).is_none());
}

#[test]
fn paused_torrent_asks_the_dht_again_only_when_it_is_resumed() {
    let mut e = engine(true);
    e.bootstrap(Instant::ZERO, &[addr(9)]);
    let id = e.add_torrent(Instant::ZERO, AddTorrent::new(InfoHash::new([3; 20]))).unwrap();
    assert_eq!(e.discovery(id).unwrap().running, 1);
    let conn = e.accept(Instant::ZERO, addr(5)).unwrap();
    e.handle_frame(Instant::ZERO, conn, hello(InfoHash::new([3; 20]), 1));
    outputs(&mut e);
    e.pause(Instant::ZERO, id);
    let closed = Output::Close { conn, reason: CloseReason::Stopped };
    assert!(outputs(&mut e).contains(&closed));
    assert_eq!(e.discovery(id).unwrap().running, 0);
    let mut now = Instant::ZERO;
    while now < Instant::ZERO + LONGER_THAN_LOOKUPS {
        now = e.poll_timeout().unwrap();
        e.handle_timeout(now);
        assert_eq!(e.discovery(id).unwrap().running, 0, "at {now:?}");
    }
    e.resume(now, id);
    assert_eq!(e.discovery(id).unwrap().running, 1);
    // One whose storage fails rests as well.
    let (kind, context) = (DiskErrorKind::Full, "writing".to_owned());
    let error = DiskError { kind, context, message: "no space left".to_owned() };
    e.handle_disk(now, id, DiskEvent::Failed(error));
    assert_eq!(e.discovery(id).unwrap().running, 0);
    // One that starts paused does the same.
    let mut add = AddTorrent::new(InfoHash::new([4; 20]));
    (add.paused, add.peers) = (true, vec![addr(6)]);
    outputs(&mut e);
    let id = e.add_torrent(now, add).unwrap();
    assert_eq!(e.discovery(id).unwrap().running, 0);
    assert!(!outputs(&mut e).iter().any(|o| matches!(o, Output::Connect { .. })));
    e.resume(now, id);
    assert_eq!(e.discovery(id).unwrap().running, 1);
    assert!(outputs(&mut e).iter().any(|o| matches!(o, Output::Connect { .. })));
}

#[test]
fn stranger_that_names_an_unknown_torrent_is_closed() {
    let mut e = engine(false);
    let conn = e.accept(Instant::ZERO, addr(5)).unwrap();
    e.handle_frame(Instant::ZERO, conn, hello(InfoHash::new([9; 20]), 1));
    let reason = CloseReason::UnknownTorrent;
    assert_eq!(outputs(&mut e), [Output::Close { conn, reason }]);
}

#[test]
fn stranger_reaches_the_torrent_it_names() {
    let mut e = engine(false);
    let add = known(INFO);
    let hash = add.info_hash;
    e.add_torrent(Instant::ZERO, add).unwrap();
    assert!(
        outputs(&mut e)
            .iter()
            .any(|o| matches!(o, Output::Disk { request: DiskRequest::Open { .. }, .. }))
    );
    let conn = e.accept(Instant::ZERO, addr(5)).unwrap();
    e.handle_frame(Instant::ZERO, conn, hello(hash, 1));
    let out = outputs(&mut e);
    let answer = out.iter().find_map(|o| match o {
        Output::Send { conn: c, bytes } if *c == conn => Some(bytes.clone()),
        _ => None,
    });
    assert_eq!(Handshake::decode(&answer.unwrap()[..68]).unwrap().info_hash, hash);
}

#[test]
fn silent_stranger_is_closed_after_its_time() {
    let mut e = engine(false);
    let conn = e.accept(Instant::ZERO, addr(5)).unwrap();
    let at = e.poll_timeout().unwrap();
    assert_eq!(at, Instant::ZERO + Duration::from_secs(10));
    e.handle_timeout(at);
    let reason = CloseReason::HandshakeTimeout;
    assert_eq!(outputs(&mut e), [Output::Close { conn, reason }]);
}

#[test]
fn failed_dial_is_counted_and_the_name_forgotten() {
    let mut e = engine(false);
    let mut add = AddTorrent::new(InfoHash::new([3; 20]));
    add.peers = vec![addr(5)];
    let id = e.add_torrent(Instant::ZERO, add).unwrap();
    let conn = outputs(&mut e).iter().find_map(|o| match o {
        Output::Connect { conn, .. } => Some(*conn),
        _ => None,
    });
    let conn = conn.unwrap();
    e.handle_connect_failed(Instant::ZERO, conn, DialError::Refused);
    assert!(!e.handle_connected(Instant::ZERO, conn));
    assert_eq!(e.torrent(id).unwrap().status(Instant::ZERO).dials_failed, 1);
}

#[test]
fn removed_torrent_takes_its_connections_along() {
    let mut e = engine(false);
    let add = known(INFO);
    let hash = add.info_hash;
    let id = e.add_torrent(Instant::ZERO, add).unwrap();
    let conn = e.accept(Instant::ZERO, addr(5)).unwrap();
    e.handle_frame(Instant::ZERO, conn, hello(hash, 1));
    outputs(&mut e);
    e.remove_torrent(Instant::ZERO, id);
    let out = outputs(&mut e);
    assert!(out.contains(&Output::Close { conn, reason: CloseReason::Stopped }), "{out:?}");
    assert!(out.contains(&Output::Disk { torrent: id, request: DiskRequest::Close }), "{out:?}");
    e.handle_frame(Instant::ZERO, ConnId(conn.0), hello(hash, 1));
    assert_eq!(outputs(&mut e), []);
}

#[test]
fn family_without_anybody_to_ask_does_not_hold_a_lookup_up() {
    assert!(ends_in_time(true), "answered by the other family");
    assert!(ends_in_time(false), "nobody answers at all");
}

// Is a lookup over in 20 seconds that starts from a router of one family, whether or not it answers?
fn ends_in_time(answers: bool) -> bool {
    let mut nodes = Vec::new();
    for (id, family, own) in [
        (0, Family::V4, "10.0.0.1:1"),
        (1, Family::V6, "[fd00::1]:1"),
        (2, Family::V4, "10.0.0.9:1"),
    ] {
        nodes.push(node(id, family, own));
    }
    let router = nodes.pop().unwrap();
    let ours = Config { nodes, ..Config::new(PeerId::new([7; 20])) };
    let mut e = Engine::new(ours, [1; 32], Instant::ZERO);
    let mut config = Config::new(PeerId::new([8; 20]));
    config.nodes.push(router);
    let mut router = Engine::new(config, [2; 32], Instant::ZERO);
    e.bootstrap(Instant::ZERO, &["10.0.0.9:1".parse().unwrap()]);
    let command = e.get_peers(Instant::ZERO, InfoHash::new([5; 20]));

    let (ours, theirs) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.9:1".parse().unwrap());
    let mut now = Instant::ZERO;
    while now < Instant::ZERO + Duration::from_secs(20) {
        let mut done = false;
        for o in outputs(&mut e) {
            if let Output::Transmit { socket: SocketId(0), datagram, .. } = &o {
                router.handle_datagram(now, SocketId(2), ours, datagram);
            }
            let wanted = |event: &NodeEvent| matches!(event, NodeEvent::Done { last: true, .. });
            done |= matches!(&o, Output::Event(Event::Command { command: c, event })
                if *c == command && wanted(event));
        }
        if done {
            return true;
        }
        for o in outputs(&mut router) {
            if let Output::Transmit { datagram, .. } = o
                && answers
            {
                e.handle_datagram(now, SocketId(0), theirs, &datagram);
            }
        }
        now += Duration::from_millis(100);
        e.handle_timeout(now);
        router.handle_timeout(now);
    }
    false
}

#[test]
fn node_that_is_asked_for_both_families_tells_what_its_sibling_knows() {
    let nodes = vec![node(0, Family::V4, "10.0.0.1:1"), node(1, Family::V6, "[fd00::1]:1")];
    let mut e =
        Engine::new(Config { nodes, ..Config::new(PeerId::new([7; 20])) }, [1; 32], Instant::ZERO);
    let friend: SocketAddr = "[fd00::2]:2".parse().unwrap();
    let friend_id = NodeId::new([3; 20]);
    e.add_contact(Instant::ZERO, friend);
    let asked = outputs(&mut e).into_iter().find_map(|o| match o {
        Output::Transmit { to, datagram, .. } if to == friend => Some(datagram),
        _ => None,
    });
    let query = asked.unwrap();
    let tid = Message::decode(&query).unwrap().tid;
    let pong = Answer {
        tid,
        to: "[fd00::1]:1".parse().unwrap(),
        id: friend_id,
        nodes: None,
        nodes6: None,
        token: None,
        values: &[],
        extra: Extra::None,
        brief: false,
    };
    let mut datagram = Vec::new();
    krpc::encode_answer(&mut datagram, &pong, 1_000);
    e.handle_datagram(Instant::ZERO, SocketId(1), friend, &datagram);
    outputs(&mut e);

    let query = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:find_node2:roi1e1:t2:aa1:y1:qe";
    e.handle_datagram(Instant::ZERO, SocketId(0), addr(9), query);
    let answers = outputs(&mut e);
    let Some(Output::Transmit { to, datagram, socket: SocketId(0) }) = answers.first() else {
        panic!("{answers:?}")
    };
    assert_eq!(*to, addr(9));
    let Body::Reply(reply) = Message::decode(datagram).unwrap().body else { panic!() };
    assert_eq!(reply.contacts(Family::V6).collect::<Vec<_>>(), [(friend_id, friend)]);
}

#[test]
fn family_that_knows_nobody_is_told_some_by_the_other() {
    let nodes = vec![node(0, Family::V4, "10.0.0.1:1"), node(1, Family::V6, "[fd00::1]:1")];
    let mut e =
        Engine::new(Config { nodes, ..Config::new(PeerId::new([7; 20])) }, [1; 32], Instant::ZERO);
    let router = addr(9);
    e.bootstrap(Instant::ZERO, &[router]);
    let friends: Vec<(NodeId, SocketAddr)> = (2..10u8)
        .map(|n| {
            (NodeId::new([n; 20]), SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, n.into()], 1)))
        })
        .collect();
    let (mut now, mut asked, mut told) = (Instant::ZERO, 0, 0);
    while now < Instant::ZERO + Duration::from_secs(600) {
        for o in outputs(&mut e) {
            let Output::Transmit { socket, to, datagram } = o else { continue };
            if socket == SocketId(1) {
                assert!(friends.iter().any(|(_, friend)| *friend == to));
                asked += 1;
                continue;
            }
            let message = Message::decode(&datagram).unwrap();
            let Body::Query(query) = message.body else { continue };
            let both = query.want.is_some_and(|want| want.v4 && want.v6);
            told += usize::from(both);
            let answer = Answer {
                tid: message.tid,
                to: addr(1),
                id: NodeId::new([9; 20]),
                nodes: None,
                nodes6: both.then_some(&friends[..]),
                token: None,
                values: &[],
                extra: Extra::None,
                brief: false,
            };
            let mut out = Vec::new();
            krpc::encode_answer(&mut out, &answer, 1_000);
            e.handle_datagram(now, SocketId(0), to, &out);
        }
        now += Duration::from_millis(100);
        e.handle_timeout(now);
    }
    assert!(asked > 0, "somebody of the other family was asked");
    // One in the middle may name whom it likes: no answer is worth more than four, no time 32.
    assert!(told > 0 && told <= 100, "{told}");
}

#[test]
fn ping_of_a_family_we_do_not_have_fails_at_once() {
    let mut e = engine(true);
    let command = e.ping(Instant::ZERO, "[2001:db8::1]:1".parse().unwrap());
    let event = NodeEvent::Refused(Refused::NoNode);
    assert!(outputs(&mut e).contains(&Output::Event(Event::Command { command, event })));
}

#[test]
fn every_command_ends_even_where_no_node_runs() {
    let mut e = Engine::new(Config::new(PeerId::new([7; 20])), [1; 32], Instant::ZERO);
    let hash = InfoHash::new([5; 20]);
    let commands = [
        e.get_peers(Instant::ZERO, hash),
        e.announce(Instant::ZERO, hash, None),
        e.find_node(Instant::ZERO, NodeId::new([6; 20])),
        e.ping(Instant::ZERO, "10.0.0.9:1".parse().unwrap()),
    ];
    let told = outputs(&mut e);
    for command in commands {
        let event = NodeEvent::Refused(Refused::NoNode);
        assert!(told.contains(&Output::Event(Event::Command { command, event })), "{command:?}");
    }
}

#[test]
fn commands_beyond_the_limit_are_refused_and_cancelled_ones_make_room() {
    let mut e = engine(true);
    let hash = |n: usize| {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        InfoHash::new(bytes)
    };
    let refused = |e: &mut Engine, command| {
        let event = NodeEvent::Refused(Refused::Busy);
        outputs(e).contains(&Output::Event(Event::Command { command, event }))
    };
    let now = Instant::ZERO;
    let running: Vec<_> = (0..DHT_COMMANDS_MAX).map(|n| e.get_peers(now, hash(n))).collect();
    outputs(&mut e);
    let beyond = e.get_peers(now, hash(DHT_COMMANDS_MAX));
    assert!(refused(&mut e, beyond));
    e.cancel(running[0]);
    let fits = e.get_peers(now, hash(DHT_COMMANDS_MAX));
    assert!(!refused(&mut e, fits));
}

#[test]
fn cancelled_command_is_never_heard_of_again() {
    let mut e = engine(true);
    let commands = [1, 2].map(|n| e.get_peers(Instant::ZERO, InfoHash::new([n; 20])));
    e.cancel(commands[0]);
    let mut told = Vec::new();
    while let Some(at) = e.poll_timeout().filter(|at| *at < Instant::ZERO + LONGER_THAN_LOOKUPS) {
        e.handle_timeout(at);
        told.extend(outputs(&mut e).into_iter().filter_map(|output| match output {
            Output::Event(Event::Command { command, event }) => Some((command, event.is_last())),
            _ => None,
        }));
    }
    assert_eq!(told, [(commands[1], true)]);
}

#[test]
fn nodes_of_all_families_share_one_budget_of_new_flows() {
    let nodes = vec![node(0, Family::V4, "20.0.0.1:1"), node(1, Family::V6, "[2001:db8::1]:1")];
    let mut e =
        Engine::new(Config { nodes, ..Config::new(PeerId::new([7; 20])) }, [1; 32], Instant::ZERO);
    let mut now = Instant::ZERO + Duration::from_secs(1);
    for n in 0..400u16 {
        let [high, low] = n.to_be_bytes();
        e.ping(now, SocketAddr::from(([30, high, low, 1], 1)));
        e.ping(now, SocketAddr::from(([0x2001, 0xdb9, n, 0, 0, 0, 0, 1], 1)));
    }
    let sent = |e: &mut Engine| {
        let to_family =
            |v4| move |o: &&Output| matches!(o, Output::Transmit { to, .. } if to.is_ipv4() == v4);
        let all = outputs(e);
        [true, false].map(|v4| all.iter().filter(to_family(v4)).count())
    };
    let at_once = sent(&mut e);
    assert_eq!(at_once.iter().sum::<usize>(), 150, "{at_once:?}");
    let end = now + Duration::from_secs(10);
    let mut later = [0, 0];
    while now < end {
        now = e.poll_timeout().unwrap().max(now);
        e.handle_timeout(now);
        let new = sent(&mut e);
        later = [later[0] + new[0], later[1] + new[1]];
    }
    assert!((450..=502).contains(&later.iter().sum::<usize>()), "{later:?}");
    assert!(later.iter().all(|n| *n > 100), "both have their turns: {later:?}");
}

// BEP 45: a node for each address; neither forgets that the other is us.
#[test]
fn none_of_our_addresses_is_dialled_once_one_is_confirmed() {
    let own = ["8.8.8.1:6881", "9.9.9.1:6881"];
    let nodes = vec![node(0, Family::V4, own[0]), node(1, Family::V4, own[1])];
    let mut config = Config { nodes, ..Config::new(PeerId::new([7; 20])) };
    config.listen_port = Some(6881);
    let mut e = Engine::new(config, [1; 32], Instant::ZERO);
    let routers: Vec<SocketAddr> = (20..36).map(|n| SocketAddr::from(([n, 1, 1, 1], 1))).collect();
    e.bootstrap(Instant::ZERO, &routers);
    let mut now = Instant::ZERO;
    while e.nodes[0].node.external_addr().is_none() {
        for o in outputs(&mut e) {
            // Only the first node hears where it is seen.
            let Output::Transmit { socket: SocketId(0), to, datagram } = o else { continue };
            let message = Message::decode(&datagram).unwrap();
            let Body::Query(_) = message.body else { continue };
            let SocketAddr::V4(from) = to else { unreachable!("all are") };
            let answer = Answer {
                tid: message.tid,
                to: own[0].parse().unwrap(),
                id: NodeId::new([from.ip().octets()[0]; 20]),
                nodes: Some(&[]),
                nodes6: None,
                token: None,
                values: &[],
                extra: Extra::None,
                brief: false,
            };
            let mut out = Vec::new();
            krpc::encode_answer(&mut out, &answer, 1_000);
            e.handle_datagram(now, SocketId(0), to, &out);
        }
        now += Duration::from_millis(100);
        assert!(now < Instant::ZERO + Duration::from_secs(600), "nobody tells it");
        e.handle_timeout(now);
    }
    let mut add = AddTorrent::new(InfoHash::new([3; 20]));
    let other = SocketAddr::from(([5, 5, 5, 5], 5));
    add.peers = own.iter().map(|addr| addr.parse().unwrap()).chain([other]).collect();
    e.add_torrent(now, add).unwrap();
    let dialled: Vec<_> = outputs(&mut e)
        .into_iter()
        .filter_map(|o| if let Output::Connect { addr, .. } = o { Some(addr) } else { None })
        .collect();
    assert_eq!(dialled, [other]);
}

#[test]
fn dial_gets_the_place_of_a_peer_that_is_of_no_use_to_another_torrent() {
    let mut config = Config::new(PeerId::new([7; 20]));
    config.connections_max = 1;
    let (mut e, mut now) = (Engine::new(config, [1; 32], Instant::ZERO), Instant::ZERO);
    let shared = known(INFO);
    let hash = shared.info_hash;
    e.add_torrent(now, shared).unwrap();
    let idle = e.accept(now, addr(5)).unwrap();
    e.handle_frame(now, idle, hello(hash, 1));
    let mut wanted = AddTorrent::new(InfoHash::new([3; 20]));
    wanted.peers = vec![addr(6)];
    e.add_torrent(now, wanted).unwrap();
    let dials = |out: &[Output]| out.iter().any(|o| matches!(o, Output::Connect { .. }));
    assert!(!dials(&outputs(&mut e)), "the only place is taken");
    let mut out = Vec::new();
    while !dials(&out) {
        now = e.poll_timeout().expect("somebody waits").max(now + Duration::from_millis(1));
        assert!(now < Instant::ZERO + Duration::from_secs(20), "it waits for ever");
        e.handle_timeout(now);
        out = outputs(&mut e);
    }
    assert!(out.contains(&Output::Close { conn: idle, reason: CloseReason::Crowded }), "{out:?}");
}
