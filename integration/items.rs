//! Items, samples and counts between trackless and libtorrent, in both directions (BEP 33, 44, 51): what
//! one puts the other gets, whoever's nodes hold it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;
use trackless::base::addr::Family;
use trackless::base::{self, InfoHash, Key};
use trackless::dht::{Config, Event, Item, ItemKey, LookupId, LookupReport, Node, SecretKey};
use trackless::wire::bencode::Writer;

use crate::clients::{Client, libtorrent_items, libtorrent_nodes};
use crate::world::{World, have, secs};

/// A node of the library on a real socket.
struct Ours {
    node: Node,
    socket: UdpSocket,
    start: Instant,
}

impl Ours {
    fn new(world: &World, known: &[SocketAddr]) -> Self {
        let socket = UdpSocket::bind(world.addr()).unwrap();
        let node = Node::new(Config::new(Family::V4), None, [7; 32], base::Instant::ZERO);
        let mut ours = Self { node, socket, start: Instant::now() };
        ours.node.set_self_addrs(vec![ours.addr()]);
        ours.node.bootstrap(base::Instant::ZERO, &known[..known.len().min(3)]);
        let wanted = (known.len() - 1).min(8);
        ours.run("it joins", |ours, _| (ours.node.contact_count() >= wanted).then_some(()));
        ours
    }

    fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn now(&self) -> base::Instant {
        base::Instant::ZERO + self.start.elapsed()
    }

    // Until `done` has what it wants; it sees every event, and is asked after every step.
    fn run<T>(&mut self, what: &str, mut done: impl FnMut(&Self, Option<Event>) -> Option<T>) -> T {
        let end = Instant::now() + secs(60);
        let mut buffer = vec![0; 9_000];
        while Instant::now() < end {
            for (to, datagram) in self.node.datagrams().iter() {
                let _ = self.socket.send_to(datagram, to);
            }
            self.node.datagrams().clear();
            while let Some(event) = self.node.poll_event() {
                if let Some(result) = done(self, Some(event)) {
                    return result;
                }
            }
            if let Some(result) = done(self, None) {
                return result;
            }
            let wait = self.node.poll_timeout().map_or(secs(1), |at| at.since(self.now()));
            let wait = wait.clamp(Duration::from_millis(1), secs(1));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => self.node.handle_datagram(self.now(), from, &buffer[..len]),
                Err(_) => self.node.handle_timeout(self.now()),
            }
        }
        panic!("not in time: {what}");
    }

    // Every event of a lookup, and what it did.
    fn finish(&mut self, what: &str, lookup: LookupId) -> (Vec<Event>, LookupReport) {
        let mut events = Vec::new();
        let report = self.run(what, |_, event| match event? {
            Event::LookupDone { lookup: id, report } if id == lookup => Some(report),
            event => {
                events.push(event);
                None
            }
        });
        (events, report)
    }

    fn put(&mut self, item: &Item, cas: Option<i64>) -> LookupReport {
        let lookup = self.node.put_item(self.now(), item.clone(), cas);
        self.finish("put", lookup).1
    }

    fn get(&mut self, key: ItemKey) -> Option<Item> {
        let lookup = self.node.get_item(self.now(), key);
        let (events, _) = self.finish("get", lookup);
        let mut items = events.into_iter().filter_map(|event| match event {
            Event::ItemFound { item, .. } => Some(item),
            _ => None,
        });
        items.next_back()
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut value = Vec::new();
    Writer::new(&mut value).bytes(text.as_bytes());
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key() -> SecretKey {
    SecretKey::from_seed(&SEED)
}

fn signed(seq: i64, value: &str) -> Item {
    key().sign(b"salt", seq, text(value)).unwrap()
}

// Puts and gets of both, over the nodes at `known`.
fn both_ways(world: &World, known: &[SocketAddr]) {
    let mut ours = Ours::new(world, known);
    let plain = Item::immutable(text("from trackless")).unwrap();
    let report = ours.put(&plain, None);
    assert!(report.announced >= 5 && report.refused.is_empty(), "{report:?}");
    let report = ours.put(&signed(3, "version 3"), None);
    assert!(report.announced >= 5 && report.refused.is_empty(), "{report:?}");

    let key_hex = hex(&key().public_key());
    let requests = [
        json!({ "get": plain.target().to_string() }),
        json!({ "get_signed": key_hex, "salt": "salt" }),
        json!({ "put": "from libtorrent" }),
        json!({ "put_signed": "version 4", "seed": hex(&SEED), "key": key_hex, "salt": "salt" }),
        json!({ "get_signed": key_hex, "salt": "salt" }),
    ];
    let answers = libtorrent_items(world, known, &requests);
    assert_eq!(answers[0]["value"], "from trackless");
    assert_eq!((&answers[1]["value"], &answers[1]["seq"]), (&json!("version 3"), &json!(3)));
    let theirs = Item::immutable(text("from libtorrent")).unwrap();
    assert_eq!(answers[2]["target"], theirs.target().to_string());
    assert!(answers[2]["stored"].as_i64() >= Some(5), "{answers:?}");
    assert!(answers[3]["stored"].as_i64() >= Some(5), "{answers:?}");
    assert_eq!((&answers[4]["value"], &answers[4]["seq"]), (&json!("version 4"), &json!(4)));

    assert_eq!(ours.get(theirs.key()), Some(theirs));
    // The same key signs the same bytes, in whichever program.
    assert_eq!(ours.get(signed(0, "").key()), Some(signed(4, "version 4")));
    assert_eq!(ours.put(&signed(5, "version 5"), Some(3)).refused.first(), Some(&301));
    assert_eq!(ours.put(&signed(3, "version 3"), None).refused.first(), Some(&302));
    assert!(ours.put(&signed(5, "version 5"), Some(4)).announced >= 5);
}

#[test]
fn items_go_both_ways_over_nodes_of_trackless() {
    if !have(Client::Libtorrent.installed()) {
        return;
    }
    let world = World::new();
    let dht = world.dht(NODES);
    both_ways(&world, &dht.addrs);
}

#[test]
fn items_go_both_ways_over_nodes_of_libtorrent() {
    if !have(Client::Libtorrent.installed()) {
        return;
    }
    let world = World::new();
    let (_nodes, addrs) = libtorrent_nodes(&world, NODES);
    both_ways(&world, &addrs);
}

#[test]
fn nodes_of_libtorrent_count_and_sample_what_we_announce() {
    if !have(Client::Libtorrent.installed()) {
        return;
    }
    let world = World::new();
    let (_nodes, addrs) = libtorrent_nodes(&world, NODES);
    let info_hash = InfoHash::new([0x42; 20]);
    let mut seed = Ours::new(&world, &addrs);
    let how = trackless::dht::Announcement { port: Some(7), seed: true, ..Default::default() };
    let lookup = seed.node.announce_as(seed.now(), info_hash, how);
    assert!(seed.finish("announce of a seed", lookup).1.announced >= 5);
    let mut peer = Ours::new(&world, &addrs);
    let lookup = peer.node.announce(peer.now(), info_hash, Some(8));
    assert!(peer.finish("announce of a peer", lookup).1.announced >= 5);

    let mut asker = Ours::new(&world, &addrs);
    let lookup = asker.node.scrape(asker.now(), info_hash);
    let count = asker.finish("scrape", lookup).1.scrape.unwrap();
    assert_eq!((count.seeds, count.peers), (1, 1), "{count:?}");
    assert!(count.nodes >= 5, "{count:?}");

    let lookup = asker.node.sample(asker.now(), Key::new([0x42; 20]));
    let (events, _) = asker.finish("sample", lookup);
    let told = events.iter().filter(|event| match event {
        Event::Samples { info_hashes, total, interval, .. } => {
            assert!(*total >= info_hashes.len() as u64 && *interval <= secs(21_600));
            info_hashes.contains(&info_hash)
        }
        _ => false,
    });
    assert!(told.count() >= 5, "{events:?}");
}

/// The secret that makes the key of these tests.
const SEED: [u8; 32] = [0x17; 32];
/// Nodes of the private DHT: more than the eight that store something.
const NODES: usize = 10;
