//! A DHT node under a virtual clock, and a history for it: datagrams from a handful of endpoints,
//! answers to what it asked, commands, and time. Whatever happens, it keeps its promises.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use trackless::base::addr::{Family, canonical, is_sendable};
use trackless::base::limits::DATAGRAM_SEND_MAX;
use trackless::base::{InfoHash, Instant, NodeId};
use trackless::dht::{Config, Event, LookupId, Node, Output, SavedContact, make_id};
use trackless::wire::bencode::Writer;
use trackless::wire::krpc::{
    Body, ErrorCode, Message, Method, QueryHead, encode_error, encode_query,
};

use super::input::Input;

/// Bytes as the history of a node.
pub fn node(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.end();
}

struct World {
    node: Node,
    now: Instant,
    me: SocketAddr,
    family: Family,
    read_only: bool,
    endpoints: Vec<SocketAddr>,
    // What the node asked and nobody has answered: where, and under which transaction id.
    asked: Vec<(SocketAddr, Vec<u8>)>,
    lookups: BTreeSet<LookupId>,
    tokens: BTreeMap<SocketAddr, Vec<u8>>,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let flags = input.byte();
        let family = if flags & 1 == 0 { Family::V4 } else { Family::V6 };
        let mut config = Config::new(family);
        config.read_only = flags & 2 != 0;
        config.enforce_node_ids = flags & 4 != 0;
        if flags & 8 != 0 {
            config.per_ip_rate = None;
        }
        let read_only = config.read_only;
        let now = Instant::from_micros(1_000_000);
        let endpoints = endpoints(family);
        let me = endpoints[0];
        let mut node = Node::new(config, None, [input.byte(); 32], now);
        node.set_self_addrs(vec![me]);
        let (asked, lookups, tokens) = Default::default();
        let mut world =
            Self { node, now, me, family, read_only, endpoints, asked, lookups, tokens };
        if flags & 16 != 0 {
            let routers: Vec<_> = world.endpoints[1..4].to_vec();
            world.node.bootstrap(now, &routers);
        }
        world.drain(None);
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(10) {
            0 => {
                let (from, datagram) = (self.endpoint(input), input.bytes(600));
                self.deliver(from, datagram);
            }
            1..=3 => self.answer(input),
            4 | 5 => self.query(input),
            6 => self.command(input),
            7 => self.wait(Duration::from_millis(1 << input.below(14))),
            8 => {
                // Nobody calls for a while: the machine slept.
                self.now += Duration::from_secs(1 << input.below(18));
                self.wake();
            }
            _ => {
                if let Some((to, tid)) = self.taken(input) {
                    let mut out = Vec::new();
                    encode_error(&mut out, &tid, ErrorCode::Server, "no");
                    self.deliver(to, &out);
                }
            }
        }
    }

    fn endpoint(&self, input: &mut Input<'_>) -> SocketAddr {
        self.endpoints[input.below(self.endpoints.len())]
    }

    // A query that waits for its answer; now and then it is left there, to be answered twice.
    fn taken(&mut self, input: &mut Input<'_>) -> Option<(SocketAddr, Vec<u8>)> {
        if self.asked.is_empty() {
            return None;
        }
        let at = input.below(self.asked.len());
        if input.byte() & 7 == 0 {
            self.asked.get(at).cloned()
        } else {
            Some(self.asked.remove(at))
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let Some((to, tid)) = self.taken(input) else { return };
        let flags = input.byte();
        let id = self.id(input, to);
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.dict();
        if flags & 1 != 0 {
            w.bytes(b"ip").bytes(input.bytes(18));
        }
        w.bytes(b"r").dict().bytes(b"id").bytes(id.as_bytes());
        if flags & 2 != 0 {
            let key: &[u8] = if self.family == Family::V4 { b"nodes" } else { b"nodes6" };
            let nodes = self.nodes(input);
            Writer::new(&mut out).bytes(key).bytes(&nodes);
        }
        let mut w = Writer::new(&mut out);
        if flags & 4 != 0 {
            w.bytes(b"token").bytes(input.bytes(40));
        }
        if flags & 8 != 0 {
            w.bytes(b"values").list();
            for _ in 0..input.below(20) {
                let peer = compact(self.endpoints[input.below(self.endpoints.len())]);
                if input.byte() & 7 == 0 {
                    w.bytes(input.bytes(19))
                } else {
                    w.bytes(&peer)
                };
            }
            w.end();
        }
        if flags & 16 != 0 {
            // Keys that we may never have heard of.
            w.raw(input.bytes(200));
        }
        w.end().bytes(b"t").bytes(&tid).bytes(b"y").bytes(b"r").end();
        if flags & 32 != 0 {
            for _ in 0..input.below(4) {
                let at = usize::from(u16::from_be_bytes(input.array())) % out.len();
                out[at] = input.byte();
            }
        }
        let from = if flags & 64 == 0 { to } else { self.endpoint(input) };
        self.deliver(from, &out);
    }

    fn id(&self, input: &mut Input<'_>, at: SocketAddr) -> NodeId {
        match input.below(8) {
            0 => NodeId::new(input.array()),
            1 => self.node.id(),
            2 => {
                let mut id = *self.node.id().as_bytes();
                id[19] ^= input.byte();
                NodeId::new(id)
            }
            _ => {
                // The one that this endpoint always has.
                let mut seed = [0; 32];
                seed[..2].copy_from_slice(&at.port().to_be_bytes());
                make_id(at.ip(), &mut trackless::base::Rng::from_seed(seed))
            }
        }
    }

    fn nodes(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut nodes = Vec::new();
        for _ in 0..input.below(24) {
            let addr = self.endpoint(input);
            nodes.extend_from_slice(self.id(input, addr).as_bytes());
            nodes.extend_from_slice(&compact(addr));
        }
        nodes.extend_from_slice(input.bytes(3));
        nodes
    }

    fn query(&mut self, input: &mut Input<'_>) {
        let from = self.endpoint(input);
        let id = self.id(input, from);
        let key: [u8; 20] = [input.byte(); 20];
        let info_hash = InfoHash::new(key);
        let flags = input.byte();
        let token = match flags & 3 {
            0 => input.bytes(20).to_vec(),
            _ => self.tokens.get(&from).cloned().unwrap_or_default(),
        };
        let method = match input.below(7) {
            0 => Method::Ping,
            1 => Method::FindNode { target: info_hash.key() },
            2 => Method::GetPeers { info_hash, noseed: flags & 4 != 0, scrape: flags & 8 != 0 },
            3 => Method::AnnouncePeer {
                info_hash,
                port: u16::from_be_bytes(input.array()),
                implied_port: flags & 16 != 0,
                seed: flags & 32 != 0,
                token: &token,
            },
            4 => Method::Get { target: info_hash.key(), seq: None },
            5 => Method::SampleInfohashes { target: info_hash.key() },
            _ => Method::Unknown { name: input.bytes(12), target: None, writes: flags & 4 != 0 },
        };
        let head = QueryHead { tid: &[7, flags], id, read_only: flags & 64 != 0 };
        let mut out = Vec::new();
        encode_query(&mut out, head, &method);
        self.deliver(from, &out);
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        let info_hash = InfoHash::new([input.byte(); 20]);
        let before = self.lookups.len();
        match input.below(8) {
            0 => drop(self.lookups.insert(self.node.get_peers(now, info_hash))),
            1 => {
                let port = u16::from_be_bytes(input.array());
                self.lookups.insert(self.node.announce(now, info_hash, Some(port)));
            }
            2 => {
                let target = NodeId::new(*info_hash.as_bytes());
                self.lookups.insert(self.node.find_node(now, target));
            }
            3 => {
                let addr = self.endpoint(input);
                self.node.ping(now, addr);
            }
            4 => {
                let routers = [self.endpoint(input), self.endpoint(input)];
                self.node.bootstrap(now, &routers);
            }
            5 => {
                let addr = self.endpoint(input);
                self.node.add_contact(now, addr);
            }
            6 => {
                let addr = self.endpoint(input);
                let id = self.id(input, addr);
                let saved = SavedContact { id, addr, rtt_micros: None, age_secs: u32::MAX };
                self.node.restore(now, &[saved]);
            }
            _ => {
                if let Some(lookup) = self.lookups.pop_first() {
                    self.node.cancel(lookup);
                }
            }
        }
        assert!(self.lookups.len() <= before + 1);
        self.drain(None);
    }

    fn deliver(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.node.handle_datagram(self.now, from, datagram);
        self.drain(Some((from, datagram)));
    }

    // Lets time pass as a host does: the node is called whenever it wants to be.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..WAKES_MAX {
            let Some(at) = self.node.poll_timeout().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.wake();
        }
        panic!("woken {WAKES_MAX} times in {time:?}");
    }

    fn wake(&mut self) {
        self.node.handle_timeout(self.now);
        self.drain(None);
        let next = self.node.poll_timeout().expect("a node always has plans");
        assert!(next > self.now, "a timeout that was handled is over");
    }

    // Takes what the node puts out, which may be an answer to `cause`.
    fn drain(&mut self, cause: Option<(SocketAddr, &[u8])>) {
        let mut answers = 0;
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    assert!(datagram.len() <= DATAGRAM_SEND_MAX);
                    assert!(Family::of(&to) == self.family && is_sendable(&to) && to != self.me);
                    let message = Message::decode(&datagram).expect("we send what we can read");
                    match message.body {
                        Body::Query(_) => {
                            assert!(message.read_only || !self.read_only);
                            self.asked.truncate(ASKED_MAX - 1);
                            self.asked.insert(0, (to, message.tid.to_vec()));
                        }
                        Body::Reply(reply) => {
                            answers += 1;
                            let token = reply.token.map(<[u8]>::to_vec);
                            if let Some(token) = token {
                                self.tokens.insert(to, token);
                            }
                        }
                        Body::Error(_) => answers += 1,
                        Body::BadQuery(fault) => panic!("we asked wrongly: {fault}"),
                    }
                    if !matches!(message.body, Body::Query(_)) {
                        let (from, query) = cause.expect("only what is asked is answered");
                        assert_eq!(to, canonical(from));
                        let asked = Message::decode(query).expect("junk is not answered");
                        assert!(matches!(asked.body, Body::Query(_) | Body::BadQuery(_)));
                        assert_eq!(asked.tid, message.tid);
                        assert!(!self.read_only);
                    }
                }
                Output::Event(event) => self.on_event(&event),
            }
        }
        assert!(answers <= 1, "one datagram out for one in");
        let (torrents, peers) = self.node.stored();
        assert!(torrents <= 2_000 && peers <= 100_000);
        assert!(self.node.contact_count() <= 2_000);
        assert_eq!(self.node.bucket_sizes().iter().sum::<usize>(), self.node.contact_count());
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::PeersFound { lookup, peers } => {
                // The first may come before the caller has the lookup's name.
                assert!(self.lookups.contains(lookup) || self.lookups.iter().all(|l| l < lookup));
                assert!(!peers.is_empty() && peers.iter().all(is_sendable));
                assert!(!peers.contains(&self.me));
            }
            Event::LookupDone { lookup, report } => {
                assert!(self.lookups.remove(lookup), "it ends once: {report:?}");
                assert!(report.nodes.len() <= 8 && report.answered <= report.asked);
            }
            _ => {}
        }
    }

    // Silence from now on: every lookup comes to its end. What the node does after that, others have seen.
    fn end(&mut self) {
        let end = self.now + LOOKUP_TIME_MAX;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end)
            && !self.lookups.is_empty()
        {
            self.now = self.now.max(at);
            self.wake();
        }
        assert!(self.lookups.is_empty(), "they go on: {:?}", self.lookups);
        let again = self.node.saved();
        assert!(again.iter().all(|c| is_sendable(&c.addr) && c.addr != self.me));
    }
}

// Ourselves first, then routers; neighbours, far ones, twins at one address, and nobody.
fn endpoints(family: Family) -> Vec<SocketAddr> {
    let v4 = [
        "20.1.1.1:6881",
        "30.1.1.1:1",
        "31.1.1.1:2",
        "32.1.1.1:3",
        "33.1.1.1:4",
        "33.1.1.2:5",
        "33.1.1.2:6",
        "34.1.1.1:7",
        "35.1.1.1:8",
        "36.1.1.1:9",
        "37.1.1.1:10",
        "38.1.1.1:11",
        "39.1.1.1:12",
        "40.1.1.1:13",
        "41.1.1.1:14",
        "42.1.1.1:15",
        "10.1.1.1:16",
        "127.0.0.1:17",
        "192.168.1.1:18",
        "169.254.1.1:19",
        "0.0.0.0:20",
        "255.255.255.255:21",
        "224.0.0.1:22",
        "43.1.1.1:0",
        "[::ffff:44.1.1.1]:23",
        "[2a01::1]:24",
        "20.1.1.1:99",
    ];
    let v6 = [
        "[2a01::1]:6881",
        "[2a02::1]:1",
        "[2a03::1]:2",
        "[2a04::1]:3",
        "[2a05::1]:4",
        "[2a05::2]:5",
        "[2a05::2]:6",
        "[2a06::1]:7",
        "[2a07::1]:8",
        "[2a08::1]:9",
        "[2a09::1]:10",
        "[2a0a::1]:11",
        "[2a0b::1]:12",
        "[2a0c::1]:13",
        "[2a0d::1]:14",
        "[2a0e::1]:15",
        "[fd00::1]:16",
        "[::1]:17",
        "[fe80::1]:18",
        "[::]:19",
        "[ff02::1]:20",
        "[2a0f::1]:0",
        "[::ffff:44.1.1.1]:23",
        "[2a01::1]:99",
        "20.1.1.1:24",
    ];
    let all: &[&str] = match family {
        Family::V4 => &v4,
        Family::V6 => &v6,
    };
    all.iter().map(|addr| addr.parse().expect("an endpoint")).collect()
}

fn compact(addr: SocketAddr) -> Vec<u8> {
    let mut out = Vec::new();
    trackless::wire::compact::put_peer(&mut out, addr);
    out
}

const STEPS_MAX: usize = 150;
const ASKED_MAX: usize = 64;
// A minute, and what the last query may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(70);
// Far more than a node that is awake for two minutes needs.
const WAKES_MAX: usize = 20_000;
