//! Arbitrary, well-formed and mutated datagrams, in any order: a node holds to its promises.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::hostile::{HASH, answer_to, query_of};
use super::net::public_addr;
use crate::base::addr::Family;
use crate::base::limits::DATAGRAM_ITEM_MAX;
use crate::base::{InfoHash, Instant, NodeId};
use crate::dht::{Config, Node, Output};
use crate::wire::compact;
use crate::wire::krpc::{self, Body, Message, Method};

// Feeds `datagrams` to a node in the middle of things and holds it to its promises.
fn survives(datagrams: &[(u8, Vec<u8>)]) {
    let now = Instant::ZERO;
    let me = public_addr(0);
    let mut node = Node::new(Config::new(Family::V4), None, [1; 32], now);
    node.set_self_addrs(vec![me]);
    node.bootstrap(now, &[public_addr(1), public_addr(2)]);
    node.announce(now, HASH, None);
    let mut tids: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    for (step, (from, datagram)) in datagrams.iter().enumerate() {
        let now = now + Duration::from_millis(20) * u32::try_from(step).unwrap();
        let from = public_addr(usize::from(from % 5));
        let mut datagram = datagram.clone();
        // Half of them carry a transaction id that is really under way.
        if let Some((_, tid)) = tids.iter().find(|(to, _)| *to == from)
            && let Some(at) = datagram.windows(5).position(|w| w == b"1:t4:")
            && let Some(slot) = datagram.get_mut(at + 5..at + 9)
        {
            slot.copy_from_slice(tid);
        }
        while node.poll_output().is_some() {}
        node.handle_datagram(now, from, &datagram);
        let mut back = 0;
        while let Some(output) = node.poll_output() {
            let Output::Transmit { to, datagram } = output else { continue };
            assert!(datagram.len() <= DATAGRAM_ITEM_MAX && to != me && to.port() != 0);
            let sent = Message::decode(&datagram).expect("we send what we can read");
            if let Body::Query(_) = sent.body {
                tids.insert(0, (to, sent.tid.to_vec()));
            } else {
                assert_eq!(to, from);
                back += 1;
            }
        }
        assert!(back <= 1, "one datagram out for one in");
        if node.poll_timeout().is_some_and(|when| when <= now) {
            node.handle_timeout(now);
        }
    }
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let node = (any::<[u8; 20]>(), any::<[u8; 4]>(), any::<u16>());
    let reply =
        (any::<[u8; 20]>(), prop::collection::vec(node, 0..20), prop::option::of(any::<[u8; 6]>()))
            .prop_map(|(id, nodes, ip)| {
                let nodes: Vec<_> = nodes
                    .into_iter()
                    .map(|(id, ip, port)| (NodeId::new(id), SocketAddr::from((ip, port))))
                    .collect();
                let to = ip.and_then(|ip| compact::peer(&ip)).unwrap_or(public_addr(0));
                let values: Vec<_> = nodes.iter().map(|(_, addr)| *addr).collect();
                answer_to(b"d1:q1:x1:t4:abcd1:y1:qe", NodeId::new(id), to, &nodes, &values)
            });
    let query = (any::<[u8; 20]>(), 0..5u8, any::<u16>()).prop_map(|(key, which, port)| {
        let info_hash = InfoHash::new(key);
        query_of(&match which {
            0 => Method::Ping,
            1 => Method::FindNode { target: info_hash.key() },
            2 => Method::get_peers(info_hash),
            3 => Method::AnnouncePeer {
                info_hash,
                port,
                implied_port: port % 2 == 0,
                seed: false,
                token: &key,
            },
            _ => Method::Unknown { name: b"odd", target: Some(info_hash.key()), writes: false },
        })
    });
    let error = any::<[u8; 4]>().prop_map(|tid| {
        let mut out = Vec::new();
        krpc::encode_error(&mut out, &tid, krpc::ErrorCode::Generic, "no");
        out
    });
    prop_oneof![3 => reply, 2 => query, 1 => error]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_whatsoever_harm_a_node(datagrams in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 1..40)) {
        survives(&datagrams);
    }

    #[test]
    fn no_sequence_of_messages_harms_a_node(datagrams in prop::collection::vec((any::<u8>(), message()), 1..60)) {
        survives(&datagrams);
    }

    #[test]
    fn mutated_messages_do_not_harm_a_node(
        datagrams in prop::collection::vec((any::<u8>(), message(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..60),
    ) {
        let mutated: Vec<(u8, Vec<u8>)> = datagrams
            .into_iter()
            .map(|(from, mut datagram, at, byte, cut)| {
                let at = at.index(datagram.len());
                datagram[at] = byte;
                if cut {
                    datagram.truncate(at);
                }
                (from, datagram)
            })
            .collect();
        survives(&mutated);
    }
}
