//! What nodes find and store for their hosts: items, samples, counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, public_addr};
use crate::base::addr::Family;
use crate::base::{InfoHash, Key};
use crate::dht::{Announcement, Event, Item, ItemKey, LookupId, LookupReport, SecretKey};
use crate::wire::bencode::Writer;
use crate::wire::krpc::{self, Answer, Body, Extra, Message, Method, Query, Signed};

const HASH: InfoHash = InfoHash::new([0x5a; 20]);
const HOUR: Duration = Duration::from_secs(3_600);

fn value(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).bytes(text.as_bytes());
    out
}

fn signed(seq: i64, text: &str) -> Item {
    SecretKey::from_seed(&[7; 32]).sign(b"salt", seq, value(text)).unwrap()
}

fn plain(text: &str) -> Item {
    Item::immutable(value(text)).unwrap()
}

fn network(seed: u8, count: usize) -> (Net, Vec<SocketAddr>) {
    let (mut net, addrs) = Net::public(seed, count);
    net.run(Duration::from_secs(30));
    (net, addrs)
}

fn put(net: &mut Net, at: SocketAddr, item: &Item, cas: Option<i64>) -> LookupReport {
    let lookup = net.on(at, |node, now| node.put_item(now, item.clone(), cas));
    net.finish(at, lookup)
}

fn get(net: &mut Net, at: SocketAddr, key: ItemKey) -> (Vec<Item>, LookupReport) {
    let lookup = net.on(at, |node, now| node.get_item(now, key));
    let report = net.finish(at, lookup);
    (items(net, at, lookup), report)
}

fn items(net: &Net, at: SocketAddr, lookup: LookupId) -> Vec<Item> {
    let found = net.events.iter().filter_map(|(addr, event)| match event {
        Event::ItemFound { lookup: id, item } if *id == lookup && *addr == at => Some(item),
        _ => None,
    });
    found.cloned().collect()
}

// The nodes that store something under `target`, and whether those are the closest.
fn holders(net: &mut Net, target: Key) -> (BTreeSet<SocketAddr>, usize) {
    let mut by_distance: Vec<_> =
        net.nodes.iter().map(|(addr, node)| (target.distance(node.id().key()), *addr)).collect();
    by_distance.sort();
    let now = net.now;
    let holds = |net: &mut Net, addr: &SocketAddr| {
        let node = net.nodes.get_mut(addr).unwrap();
        node.server.items.get(now, target).is_some()
    };
    let all: BTreeSet<SocketAddr> =
        by_distance.iter().map(|(_, addr)| *addr).filter(|addr| holds(net, addr)).collect();
    let closest = by_distance.iter().take(8).filter(|(_, addr)| all.contains(addr)).count();
    (all, closest)
}

// From now on the node at `addr` answers as `change` says; its clock stands still.
fn tamper(
    net: &mut Net,
    addr: SocketAddr,
    mut change: impl FnMut(&[u8], Vec<u8>) -> Option<Vec<u8>> + 'static,
) {
    let now = net.now;
    let mut node = net.nodes.remove(&addr).unwrap();
    net.script(addr, move |from, datagram| {
        let Ok(Message { body: Body::Query(_), .. }) = Message::decode(datagram) else {
            return Vec::new();
        };
        node.handle_datagram(now, from, datagram);
        let mut out = Vec::new();
        while let Some((to, answer)) = node.datagrams().pop() {
            let is_answer = !matches!(Message::decode(&answer).unwrap().body, Body::Query(_));
            if to == from && is_answer {
                out.extend(change(datagram, answer).map(|answer| (addr, to, answer)));
            }
        }
        out
    });
}

fn method(query: &[u8]) -> Method<'_> {
    match Message::decode(query).unwrap().body {
        Body::Query(Query { method, .. }) => method,
        other => panic!("{other:?}"),
    }
}

// Closest to `target` first, all but `except`.
fn closest(net: &Net, target: Key, except: &[SocketAddr]) -> Vec<SocketAddr> {
    let nodes = net.nodes.iter().filter(|(addr, _)| !except.contains(addr));
    let mut near: Vec<_> =
        nodes.map(|(addr, node)| (target.distance(node.id().key()), *addr)).collect();
    near.sort();
    near.into_iter().map(|(_, addr)| addr).collect()
}

#[test]
fn item_is_stored_at_the_eight_closest_and_found_by_anybody() {
    let (mut net, addrs) = network(70, 60);
    for item in [plain("hello"), signed(1, "one")] {
        let report = put(&mut net, addrs[3], &item, None);
        assert!(report.announced >= 8 && report.refused.is_empty(), "{report:?}");
        let (all, among_closest) = holders(&mut net, item.target());
        assert!(among_closest >= 7, "{among_closest} of {all:?}");
        for at in [addrs[3], addrs[20], addrs[40]] {
            let (found, report) = get(&mut net, at, item.key());
            assert_eq!(found, std::slice::from_ref(&item));
            assert!(report.copies > 0 && report.refused.is_empty());
        }
    }
    // An immutable item ends its lookup; there is nothing newer to wait for.
    let (mut whole, mut short) = (0, 0);
    for at in [addrs[50], addrs[30], addrs[10], addrs[1]] {
        let (_, report) = get(&mut net, at, signed(1, "").key());
        assert!(report.copies >= 8, "{report:?}");
        whole += report.asked;
        short += get(&mut net, at, plain("hello").key()).1.asked;
    }
    assert!(short < whole, "{short} {whole}");
}

#[test]
fn nothing_is_found_where_nothing_was_stored() {
    let (mut net, addrs) = network(71, 30);
    let (found, report) = get(&mut net, addrs[3], plain("nobody has it").key());
    assert!(found.is_empty() && report.copies == 0 && report.answered >= 8);
}

#[test]
fn newest_version_wins_and_an_older_one_is_stored_nowhere() {
    let (mut net, addrs) = network(72, 60);
    assert!(put(&mut net, addrs[3], &signed(5, "five"), None).announced >= 8);
    assert!(put(&mut net, addrs[4], &signed(7, "seven"), None).announced >= 8);
    let sent = net.node(addrs[5]).stats().queries_out.put;
    let old = put(&mut net, addrs[5], &signed(6, "six"), None);
    assert_eq!((old.announced, old.refused.first()), (0, Some(&302)), "{old:?}");
    assert_eq!(net.node(addrs[5]).stats().queries_out.put, sent);
    // Its host is told what there is instead.
    let lookup = net.events.iter().rev().find_map(|(_, e)| match e {
        Event::ItemFound { lookup, item } if *item == signed(7, "seven") => Some(*lookup),
        _ => None,
    });
    assert!(lookup.is_some());
    let (found, _) = get(&mut net, addrs[30], signed(0, "").key());
    assert_eq!(found.last(), Some(&signed(7, "seven")));
}

#[test]
fn another_value_of_the_same_version_is_refused_by_every_node() {
    let (mut net, addrs) = network(73, 40);
    put(&mut net, addrs[3], &signed(5, "five"), None);
    let report = put(&mut net, addrs[4], &signed(5, "V"), None);
    assert_eq!(report.refused.iter().filter(|code| **code == 302).count(), report.refused.len());
    assert!(report.refused.len() >= 7 && report.announced <= 1, "{report:?}");
    let again = put(&mut net, addrs[3], &signed(5, "five"), None);
    assert!(again.announced >= 8 && again.refused.is_empty(), "{again:?}");
}

#[test]
fn only_the_version_that_is_named_is_replaced() {
    let (mut net, addrs) = network(74, 60);
    let first = put(&mut net, addrs[3], &signed(5, "five"), Some(4));
    assert!(first.announced >= 8, "nothing is stored that could differ: {first:?}");
    let wrong = put(&mut net, addrs[4], &signed(6, "six"), Some(4));
    assert_eq!((wrong.announced, wrong.refused.first()), (0, Some(&301)), "{wrong:?}");
    let right = put(&mut net, addrs[4], &signed(6, "six"), Some(5));
    assert!(right.announced >= 8 && right.refused.is_empty(), "{right:?}");
    let (found, _) = get(&mut net, addrs[20], signed(0, "").key());
    assert_eq!(found.last(), Some(&signed(6, "six")));
}

#[test]
fn item_that_proves_nothing_never_leaves_us() {
    let (mut net, addrs) = network(75, 12);
    let Item::Mutable { public_key, salt, seq, signature, .. } = signed(5, "five") else {
        panic!()
    };
    let forged = Item::Mutable { public_key, salt, seq, value: value("six"), signature };
    let report = put(&mut net, addrs[3], &forged, None);
    assert_eq!((report.asked, report.announced, &report.refused[..]), (0, 0, &[206][..]));
}

#[test]
fn forged_and_outdated_answers_do_not_hide_the_genuine_item() {
    let (mut net, addrs) = network(76, 60);
    let genuine = signed(7, "seven");
    put(&mut net, addrs[3], &genuine, None);
    let near = closest(&net, genuine.target(), &[addrs[3], addrs[30]]);
    // Of the eight closest, six lie: forged newer versions, an old one, another's item.
    for (n, liar) in near.iter().take(6).enumerate() {
        let id = net.node(*liar).id();
        tamper(&mut net, *liar, move |query, answer| {
            let Method::Get { .. } = method(query) else { return Some(answer) };
            let other = SecretKey::from_seed(&[9; 32]).sign(b"salt", 99, value("other")).unwrap();
            let item = match n % 3 {
                0 => signed(5, "old but true"),
                1 => other,
                _ => signed(9, "forged"),
            };
            let Item::Mutable { public_key, seq, value, mut signature, .. } = item else {
                panic!()
            };
            signature[3] ^= u8::from(n % 3 == 2);
            let message = Message::decode(query).unwrap();
            let to = Message::decode(&answer).unwrap().seen_at.unwrap();
            let answer = Answer {
                tid: message.tid,
                to,
                id,
                nodes: None,
                nodes6: None,
                token: Some(b"token"),
                values: &[],
                extra: Extra::Item {
                    signed: Some(Signed { public_key: &public_key, signature: &signature }),
                    seq: Some(seq),
                    value: Some(&value),
                },
                brief: false,
            };
            let mut out = Vec::new();
            krpc::encode_answer(&mut out, &answer, 1_200);
            Some(out)
        });
    }
    let (found, _) = get(&mut net, addrs[30], genuine.key());
    assert_eq!(found.last(), Some(&genuine));
    assert!(found.iter().all(|item| item.check().is_ok() && item.target() == genuine.target()));
}

#[test]
fn nodes_that_store_no_items_are_passed_over() {
    let (mut net, addrs) = network(77, 60);
    let item = signed(1, "one");
    // Of the twelve closest half are silent when asked for an item, or answer as if for nodes.
    let near = closest(&net, item.target(), &[addrs[3], addrs[30]]);
    for (n, old) in near.iter().take(12).enumerate().filter(|(n, _)| n % 2 == 0) {
        let id = net.node(*old).id();
        tamper(&mut net, *old, move |query, answer| match method(query) {
            Method::Put(_) => None,
            Method::Get { .. } if n % 4 == 0 => None,
            Method::Get { .. } => {
                let to = Message::decode(&answer).unwrap().seen_at.unwrap();
                let Body::Reply(reply) = Message::decode(&answer).unwrap().body else { panic!() };
                let nodes: Vec<_> = reply.contacts(Family::V4).collect();
                let mut out = super::hostile::answer_to(query, id, to, &nodes, &[]);
                // Without a token: `5:token5:token` goes.
                let at = out.windows(14).position(|w| w == b"5:token5:token").unwrap();
                out.drain(at..at + 14);
                Some(out)
            }
            _ => Some(answer),
        });
    }
    let report = put(&mut net, addrs[3], &item, None);
    assert!(report.announced >= 8, "{report:?}");
    let (found, report) = get(&mut net, addrs[30], item.key());
    assert_eq!(found, [item]);
    // One of the eight may have been slow when it was stored.
    assert!(report.copies >= 7, "{report:?}");
}

#[test]
fn items_get_through_although_a_fifth_of_all_datagrams_is_lost() {
    let (mut net, addrs) = network(78, 60);
    net.loss = 0.2;
    for n in 0..5 {
        let item = signed(n, "through");
        assert!(put(&mut net, addrs[3], &item, None).announced >= 5);
        let (found, _) = get(&mut net, addrs[30], item.key());
        assert_eq!(found.last(), Some(&item));
    }
}

#[test]
fn kept_item_outlives_its_two_hours_and_the_nodes_that_held_it() {
    let (mut net, addrs) = network(79, 24);
    let (kept, left) = (signed(3, "kept"), plain("left alone"));
    put(&mut net, addrs[3], &left, None);
    assert!(net.on(addrs[3], |node, now| node.keep_item(now, kept.clone())));
    net.run(HOUR / 2);
    // Half of those that hold it go.
    let (all, _) = holders(&mut net, kept.target());
    let gone: Vec<SocketAddr> =
        all.into_iter().filter(|addr| *addr != addrs[3] && *addr != addrs[20]).take(4).collect();
    net.down.extend(&gone);
    net.run(4 * HOUR);
    let (found, _) = get(&mut net, addrs[20], kept.key());
    assert_eq!(found, std::slice::from_ref(&kept));
    assert!(get(&mut net, addrs[20], left.key()).0.is_empty());
    let looks = net.events.iter().filter(|(_, e)| matches!(e, Event::ItemKept { .. })).count();
    assert!((4..=7).contains(&looks), "{looks}");
    assert_eq!(net.node(addrs[3]).kept_items().collect::<Vec<_>>(), [&kept]);
    assert!(net.on(addrs[3], |node, _| node.drop_item(kept.target())));
    net.run(3 * HOUR);
    assert!(get(&mut net, addrs[20], kept.key()).0.is_empty());
}

#[test]
fn well_kept_item_is_left_alone_and_a_newer_one_is_kept_instead() {
    let (mut net, addrs) = network(80, 40);
    let old = signed(3, "old");
    // Everybody has it.
    for addr in &addrs {
        net.on(*addr, |node, now| node.store_at_home(now, &old));
    }
    net.on(addrs[3], |node, now| assert!(node.keep_item(now, old.clone())));
    net.run(Duration::from_secs(60));
    let kept = |net: &Net| {
        let told = net.events.iter().rev().find_map(|(_, e)| match e {
            Event::ItemKept { item, copies, stored } => Some((item.clone(), *copies, *stored)),
            _ => None,
        });
        told.unwrap()
    };
    let (item, copies, stored) = kept(&net);
    assert_eq!((item, stored), (old.clone(), 0));
    assert!(copies > 8, "{copies}");
    let new = signed(4, "new");
    put(&mut net, addrs[7], &new, None);
    net.run(HOUR + Duration::from_secs(60));
    assert_eq!(kept(&net).0, new);
    assert_eq!(net.node(addrs[3]).kept_items().collect::<Vec<_>>(), [&new]);
    // What is older, or proves nothing, is not kept.
    net.on(addrs[3], |node, now| assert!(!node.keep_item(now, old)));
}

#[test]
fn kept_items_are_bounded() {
    let mut net = Net::new(81);
    let me = public_addr(0);
    let config = net.config();
    net.add_with(me, config, None);
    for n in 0..1_010 {
        let taken = net.on(me, |node, now| node.keep_item(now, plain(&format!("{n}"))));
        assert_eq!(taken, n < 1_000);
    }
}

#[test]
fn count_of_a_torrent_is_the_union_of_what_nodes_say() {
    let (mut net, addrs) = network(82, 60);
    for (n, addr) in addrs.iter().enumerate().take(30) {
        let seed = n % 3 == 0;
        let lookup = net.on(*addr, |node, now| {
            node.announce_as(
                now,
                HASH,
                Announcement { port: Some(7), seed, ..Announcement::default() },
            )
        });
        net.finish(*addr, lookup);
    }
    let near = closest(&net, HASH.key(), &[addrs[40]]);
    // One claims thousands, one does not know BEP 33.
    let full = near[0];
    tamper(&mut net, full, |query, answer| {
        let Method::GetPeers { scrape: true, .. } = method(query) else { return Some(answer) };
        let at = answer.windows(9).position(|w| w == b"4:BFpe256").unwrap() + 10;
        let mut lie = answer;
        lie[at..at + 256].fill(0xff);
        Some(lie)
    });
    let lookup = net.on(addrs[40], |node, now| node.scrape(now, HASH));
    let report = net.finish(addrs[40], lookup);
    let count = report.scrape.unwrap();
    assert!((9..=11).contains(&count.seeds) && (18..=22).contains(&count.peers), "{count:?}");
    assert!(count.nodes >= 7, "{count:?}");
    assert_eq!(net.peers(addrs[40], lookup).len(), 30);
    let none = net.on(addrs[40], |node, now| node.scrape(now, InfoHash::new([1; 20])));
    let none = net.finish(addrs[40], none).scrape.unwrap();
    assert_eq!((none.seeds, none.peers, none.nodes), (0, 0, 0));
}

#[test]
fn peers_of_a_node_that_cannot_count_are_counted_as_peers() {
    let (mut net, addrs) = network(83, 40);
    for addr in addrs.iter().take(10) {
        let lookup = net.on(*addr, |node, now| node.announce(now, HASH, Some(7)));
        net.finish(*addr, lookup);
    }
    for addr in addrs.iter().filter(|addr| **addr != addrs[30]) {
        tamper(&mut net, *addr, |query, answer| {
            let Method::GetPeers { scrape: true, .. } = method(query) else { return Some(answer) };
            let from = answer.windows(9).position(|w| w == b"4:BFpe256");
            let mut plain = answer;
            if let Some(at) = from {
                plain.drain(at..at + 2 * (10 + 256));
            }
            Some(plain)
        });
    }
    let lookup = net.on(addrs[30], |node, now| node.scrape(now, HASH));
    let count = net.finish(addrs[30], lookup).scrape.unwrap();
    assert_eq!((count.seeds, count.peers), (0, 10), "{count:?}");
}

#[test]
fn samples_tell_the_torrents_of_the_nodes_on_the_way() {
    let (mut net, addrs) = network(84, 40);
    let hashes: BTreeSet<InfoHash> = (0..20).map(|n| InfoHash::new([n * 12; 20])).collect();
    for (hash, addr) in hashes.iter().zip(&addrs) {
        let lookup = net.on(*addr, |node, now| node.announce(now, *hash, Some(7)));
        net.finish(*addr, lookup);
    }
    let mut seen = BTreeSet::new();
    for target in [Key::new([0; 20]), Key::new([0x80; 20])] {
        let lookup = net.on(addrs[30], |node, now| node.sample(now, target));
        let report = net.finish(addrs[30], lookup);
        assert!(report.answered >= 8);
        let mut told = 0;
        for (_, event) in &net.events {
            if let Event::Samples { lookup: id, info_hashes, total, interval, .. } = event
                && *id == lookup
            {
                assert!(*total >= info_hashes.len() as u64 && *interval <= 6 * HOUR);
                seen.extend(info_hashes.iter().copied());
                told += 1;
            }
        }
        assert!(told >= 8, "{told}");
    }
    assert!(seen.is_subset(&hashes) && seen.len() >= 15, "{}", seen.len());
}
