//! Datagrams from strangers against `trackless node` (BEP 5, 42, 43): whatever comes, the node
//! lives, stays small, answers the others, and never says more than it was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use trackless::base::Rng;

use crate::world::bencode::nested_lists;
use crate::world::krpc::{FakeNode, Probe, error_code, honest_answer};
use crate::world::{B, Program, World, eventually, secs};

/// A node alone in its world, and a probe beside it.
struct Node {
    world: World,
    program: Program,
    addr: SocketAddr,
    probe: Probe,
}

impl Node {
    fn new() -> Self {
        Self::with(&["--per-ip-rate", "off"])
    }

    fn with(flags: &[&str]) -> Self {
        let world = World::new();
        let addr = world.addr();
        // Nobody is there: a node needs a network to join, and this one is empty.
        let nobody = world.addr().to_string();
        let args = ["node", "--bootstrap", &nobody];
        let program = world.trackless_at(addr, args).args(flags).start();
        let probe = Probe::at(world.ip());
        eventually("the node answers", secs(30), || probe.ping(addr).then_some(()));
        Self { world, program, addr, probe }
    }

    #[track_caller]
    fn expect_well(&mut self, what: &str) {
        let fresh = Probe::at(self.world.ip());
        let answers = (0..5).any(|_| fresh.ping(self.addr));
        self.program.expect_alive(what);
        assert!(answers, "{what}: it lives but answers no ping\n{}", self.program.last_words());
    }

    /// What came back on the probe's socket, up to and without the answer to a ping sent last:
    /// silence is proved by an answer, not by waiting.
    fn answers_to(&self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.probe.drain();
        let ping = self.probe.query("ping", B::dict([]));
        let wanted = ping.get("t").cloned();
        self.probe.send(self.addr, datagram);
        self.probe.send(self.addr, &ping.encode());
        let (mut answers, end) = (Vec::new(), Instant::now() + secs(5));
        while Instant::now() < end {
            let Some((bytes, _)) = self.probe.receive(secs(2)) else {
                self.probe.send(self.addr, &ping.encode());
                continue;
            };
            if B::decode(&bytes).and_then(|b| b.get("t").cloned()) == wanted {
                return answers;
            }
            answers.push(bytes);
        }
        panic!("no answer to the ping behind {:?}", String::from_utf8_lossy(datagram));
    }
}

fn query(t: &str, method: &str, args: B) -> Vec<u8> {
    B::dict([("t", B::str(t)), ("y", B::str("q")), ("q", B::str(method)), ("a", args)]).encode()
}

const ID: [u8; 20] = [0x33; 20];

fn id() -> B {
    B::str(ID)
}

#[test]
fn nested_broken_and_oversized_datagrams_are_dropped() {
    let mut node = Node::new();
    let before = node.program.resident_kib();
    let inside =
        |value: Vec<u8>| query("aa", "ping", B::dict([("id", id()), ("x", B::Raw(value))]));
    let reply = |value: Vec<u8>| {
        let r = B::dict([("id", id()), ("nodes", B::Raw(value))]);
        B::dict([("t", B::str("aa")), ("y", B::str("r")), ("r", r)]).encode()
    };
    let mut cases: Vec<Vec<u8>> = vec![
        vec![b'l'; 65_000],
        vec![b'd'; 65_000],
        b"d1:a".repeat(16_000),
        nested_lists(30_000),
        inside(nested_lists(30_000)),
        reply(nested_lists(30_000)),
        vec![],
        vec![0; 65_507],
        vec![0xff; 65_507],
        b"99999999999:x".to_vec(),
        b"d1:t99999999999999999999:".to_vec(),
        b"-1:x".to_vec(),
        b"i-0e".to_vec(),
        b"i00e".to_vec(),
        b"i--1e".to_vec(),
        format!("d1:ai{}e1:q4:ping1:t2:aa1:y1:qe", "9".repeat(400)).into_bytes(),
        b"d1:ad2:idi99999999999999999999ee1:q4:ping1:t2:aa1:y1:qe".to_vec(),
        query("aa", "ping", B::dict([("id", id()), ("big", B::Str(vec![0; 60_000]))])),
        B::List(vec![B::Int(0); 30_000]).encode(),
    ];
    let whole = query("aa", "get_peers", B::dict([("id", id()), ("info_hash", id())]));
    cases.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
    for datagram in &cases {
        node.probe.send(node.addr, datagram);
    }
    node.expect_well("after broken datagrams");
    for datagram in cases.iter().take(6) {
        assert!(node.answers_to(datagram).is_empty(), "junk was answered");
    }
    let grown = node.program.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "grew by {grown} KiB");
}

#[test]
fn mutated_queries_do_not_end_or_grow_the_node() {
    let mut node = Node::new();
    let seed = 4242;
    println!("seed {seed}");
    let mut rng = Rng::from_seed([(seed % 251) as u8; 32]);
    let templates: Vec<Vec<u8>> = vec![
        query("aa", "ping", B::dict([("id", id())])),
        query("bb", "find_node", B::dict([("id", id()), ("target", id())])),
        query("cc", "get_peers", B::dict([("id", id()), ("info_hash", id())])),
        query(
            "dd",
            "announce_peer",
            B::dict([
                ("id", id()),
                ("info_hash", id()),
                ("port", B::Int(1)),
                ("token", B::str("12345678")),
                ("implied_port", B::Int(1)),
            ]),
        ),
        B::dict([("t", B::str("aa")), ("y", B::str("r")), ("r", B::dict([("id", id())]))]).encode(),
        B::dict([
            ("t", B::str("aa")),
            ("y", B::str("e")),
            ("e", B::List(vec![B::Int(201), B::str("x")])),
        ])
        .encode(),
    ];
    let mut after_warm_up = 0;
    for round in 0..4000 {
        let mut datagram = rng.pick(&templates).unwrap().clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(datagram.len());
            match rng.below(4) {
                0 => datagram[at] = rng.array::<1>()[0],
                1 => datagram[at] = b"ilde0123456789:-"[rng.below(16)],
                2 => datagram.truncate(at.max(1)),
                _ => {
                    let copy = datagram[at..].to_vec();
                    datagram.extend(copy);
                    datagram.truncate(3000);
                }
            }
        }
        node.probe.send(node.addr, &datagram);
        if round % 500 == 499 {
            node.probe.drain();
            node.expect_well("among mutated queries");
        }
        if round == 999 {
            after_warm_up = node.program.resident_kib();
        }
    }
    let grown = node.program.resident_kib().saturating_sub(after_warm_up);
    assert!(grown < 2 * 1024, "grew by {grown} KiB");
}

#[test]
fn queries_with_wrong_arguments_get_an_error_or_silence() {
    let mut node = Node::new();
    let mut queries = Vec::new();
    for method in ["ping", "find_node", "get_peers", "announce_peer"] {
        for args in [B::List(vec![]), B::Int(1), B::str("a")] {
            queries.push((method, args));
        }
        for wrong in [
            B::Str(vec![]),
            B::Str(vec![1; 19]),
            B::Str(vec![1; 21]),
            B::Str(vec![1; 5000]),
            B::Int(20),
            B::List(vec![]),
        ] {
            let good = B::dict([
                ("id", id()),
                ("target", id()),
                ("info_hash", id()),
                ("port", B::Int(1)),
                ("token", B::str("x")),
            ]);
            queries.push((method, good.clone().with("id", wrong.clone())));
            let key = if method == "find_node" { "target" } else { "info_hash" };
            if method != "ping" {
                queries.push((method, good.with(key, wrong)));
            }
        }
        queries.push((method, B::dict([])));
        if method != "ping" {
            queries.push((method, B::dict([("id", id())])));
        }
    }
    for (method, args) in queries {
        let datagram = query("zz", method, args.clone());
        for answer in node.answers_to(&datagram) {
            let answer = B::decode(&answer).expect("bencode");
            let code = error_code(&answer);
            assert!(
                code.is_some_and(|c| (201..=204).contains(&c)),
                "{method} {args:?}: {answer:?}"
            );
        }
    }
    let no_args =
        B::dict([("t", B::str("zz")), ("y", B::str("q")), ("q", B::str("announce_peer"))]);
    for answer in node.answers_to(&no_args.encode()) {
        assert!(error_code(&B::decode(&answer).unwrap()).is_some(), "announce without arguments");
    }
    node.expect_well("after wrong arguments");
}

#[test]
fn unknown_methods_are_refused_with_204() {
    let node = Node::new();
    let reply = node.probe.ask(node.addr, "make_tea", B::dict([])).expect("an answer");
    assert_eq!(error_code(&reply), Some(204), "{reply:?}");
}

#[test]
fn odd_transaction_ids_are_echoed_up_to_32_bytes() {
    let node = Node::new();
    for len in [1, 2, 3, 4, 8, 20, 32] {
        let t = B::Str(vec![b't'; len]);
        let message = node.probe.query("ping", B::dict([])).with("t", t);
        let reply = node.probe.exchange(node.addr, &message, secs(4));
        assert!(reply.is_some_and(|r| r.get("r").is_some()), "t of {len} bytes: no reply");
    }
    for len in [0, 33, 1024] {
        let message = node.probe.query("ping", B::dict([])).with("t", B::Str(vec![b't'; len]));
        let said: usize = node.answers_to(&message.encode()).iter().map(Vec::len).sum();
        assert!(said <= 100, "t of {len} bytes was answered with {said} bytes");
    }
}

#[test]
fn absent_version_unsorted_keys_and_no_implied_port_are_accepted() {
    let node = Node::new();
    let unsorted = b"d1:y1:q1:t2:un1:q4:ping1:ad2:id20:aaaaaaaaaaaaaaaaaaaaee";
    let answers = node.answers_to(unsorted);
    assert!(
        answers.iter().any(|a| B::decode(a).is_some_and(|b| b.get("r").is_some())),
        "unsorted keys are refused: {answers:?}"
    );
    let hash = [0x21; 20];
    let token = node.probe.get_peers(node.addr, &hash).expect("a reply").token;
    let reply =
        node.probe.announce(node.addr, &hash, B::Int(7001), B::Str(token)).expect("a reply");
    assert!(reply.get("r").is_some(), "announce without implied_port: {reply:?}");
    let peers = node.probe.get_peers(node.addr, &hash).expect("a reply").peers;
    assert_eq!(peers, [SocketAddr::new(node.probe.addr().ip(), 7001)]);
}

#[test]
fn implied_port_wins_over_the_port_named() {
    let node = Node::new();
    let hash = [0x22; 20];
    let token = node.probe.get_peers(node.addr, &hash).expect("a reply").token;
    let args = B::dict([
        ("info_hash", B::str(hash)),
        ("implied_port", B::Int(1)),
        ("port", B::Int(9)),
        ("token", B::Str(token)),
    ]);
    let reply = node.probe.ask(node.addr, "announce_peer", args).expect("a reply");
    assert!(reply.get("r").is_some(), "{reply:?}");
    assert_eq!(node.probe.get_peers(node.addr, &hash).unwrap().peers, [node.probe.addr()]);
}

#[test]
fn replies_and_errors_that_answer_nothing_are_met_with_silence() {
    let mut node = Node::new();
    for n in 0..200_u32 {
        let t = B::Str(n.to_be_bytes().to_vec());
        let message = if n % 2 == 0 {
            let r = B::dict([("id", id()), ("nodes", B::Str(vec![7; 26 * 8]))]);
            B::dict([
                ("t", t),
                ("y", B::str("r")),
                ("r", r),
                ("ip", B::Str(vec![8, 8, 8, 8, 0, 1])),
            ])
        } else {
            B::dict([("t", t), ("y", B::str("e")), ("e", B::List(vec![B::Int(203), B::str("x")]))])
        };
        let answers = node.answers_to(&message.encode());
        // A stranger may be pinged because we heard of it; what came must not be answered.
        for answer in answers {
            let answer = B::decode(&answer).unwrap();
            assert_eq!(answer.get("y").and_then(B::bytes), Some(b"q".as_slice()), "{answer:?}");
        }
    }
    node.expect_well("after unsolicited replies");
}

#[test]
fn announce_without_a_good_token_is_refused() {
    let node = Node::new();
    let (hash, other) = ([0x41; 20], [0x42; 20]);
    let token = node.probe.get_peers(node.addr, &hash).expect("a reply").token;
    assert!(token.len() >= 8, "a token of {} bytes", token.len());
    let stranger = Probe::at(node.world.ip());
    let theirs = stranger.get_peers(node.addr, &hash).expect("a reply").token;
    let for_other = node.probe.get_peers(node.addr, &other).expect("a reply").token;
    let mut bent = token.clone();
    bent[0] ^= 1;
    let bad: Vec<(&str, B)> = vec![
        ("empty", B::Str(vec![])),
        ("invented", B::Str(vec![1; token.len()])),
        ("bent", B::Str(bent)),
        ("cut", B::Str(token[..token.len() - 1].to_vec())),
        ("too long", B::Str([token.clone(), vec![0]].concat())),
        ("an int", B::Int(7)),
        ("1 KiB", B::Str(vec![3; 1024])),
        ("another address's", B::Str(theirs)),
        ("another torrent's", B::Str(for_other)),
    ];
    for (what, token) in bad {
        let reply = node.probe.announce(node.addr, &hash, B::Int(7000), token);
        let code = reply.as_ref().and_then(error_code);
        assert_eq!(code, Some(203), "a token that is {what}: {reply:?}");
    }
    let stored = node.probe.get_peers(node.addr, &hash).expect("a reply").peers;
    assert_eq!(stored, [], "an announce without a token was stored");
    let reply = node.probe.announce(node.addr, &hash, B::Int(7000), B::Str(token)).unwrap();
    assert!(reply.get("r").is_some(), "the good token is refused: {reply:?}");
}

#[test]
fn announce_of_impossible_ports_is_not_stored() {
    let node = Node::new();
    for (n, port) in
        [B::Int(0), B::Int(65_536), B::Int(-1), B::Int(1 << 40), B::str("7"), B::List(vec![])]
            .into_iter()
            .enumerate()
    {
        let hash = [0x50 + n as u8; 20];
        let token = node.probe.get_peers(node.addr, &hash).expect("a reply").token;
        let reply = node.probe.announce(node.addr, &hash, port.clone(), B::Str(token));
        if let Some(reply) = &reply {
            assert!(error_code(reply).is_some(), "port {port:?}: {reply:?}");
        }
        let stored = node.probe.get_peers(node.addr, &hash).expect("a reply").peers;
        assert_eq!(stored, [], "port {port:?} was stored");
    }
}

#[test]
fn three_thousand_announced_hashes_leave_memory_flat() {
    let mut node = Node::new();
    let announce = |n: u32| {
        let mut hash = [0x60; 20];
        hash[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        let Some(reply) = node.probe.get_peers(node.addr, &hash) else { return };
        node.probe.announce(node.addr, &hash, B::Int(7000), B::Str(reply.token));
    };
    (0..200).for_each(announce);
    let before = node.program.resident_kib();
    (200..3000).for_each(announce);
    let grown = node.program.resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "3000 hashes made it grow by {grown} KiB");
    node.expect_well("after 3000 announces");
    // A torrent for which this node is the right place finds room at any time.
    let reply = node.probe.ask(node.addr, "ping", B::dict([])).expect("a reply");
    let own = reply.get("r").and_then(|r| r.get("id")?.bytes()).expect("an id");
    let mut hash: [u8; 20] = own.try_into().expect("20 bytes");
    hash[19] ^= 1;
    let stranger = Probe::at(node.world.ip());
    let token = stranger.get_peers(node.addr, &hash).expect("a reply").token;
    let reply = stranger.announce(node.addr, &hash, B::Int(7001), B::Str(token)).expect("a reply");
    assert!(reply.get("r").is_some(), "{reply:?}");
    assert_eq!(node.probe.get_peers(node.addr, &hash).expect("a reply").peers.len(), 1);
}

#[test]
fn one_answer_per_query_and_never_fifteen_times_its_size() {
    let node = Node::new();
    let hash = [0x71; 20];
    let [a, b, c, _] = node.world.ip().octets();
    // 250 peers at addresses of their own, and a table of real nodes.
    let fakes: Vec<_> = (0..16)
        .map(|n| {
            let id = [n * 16; 20];
            FakeNode::start(node.world.addr(), id, honest_answer(id, Vec::new(), Vec::new()))
        })
        .collect();
    for host in 0..=249 {
        let other = Probe::at(Ipv4Addr::new(a, b.wrapping_add(1), c, host + 1));
        let Some(reply) = other.get_peers(node.addr, &hash) else { continue };
        other.announce(node.addr, &hash, B::Int(7000), B::Str(reply.token));
    }
    for fake in &fakes {
        knock_as(&node, fake, false);
    }
    let want = B::List(vec![B::str("n4"), B::str("n6")]);
    let cases = [
        ("ping", B::dict([]), 4.0),
        ("find_node", B::dict([("target", B::str(hash)), ("want", want.clone())]), 5.0),
        ("get_peers", B::dict([("info_hash", B::str([9; 20]))]), 5.0),
        ("get_peers", B::dict([("info_hash", B::str(hash)), ("want", want.clone())]), 15.0),
        (
            "get_peers",
            B::dict([("info_hash", B::str(hash)), ("want", want), ("scrape", B::Int(1))]),
            15.0,
        ),
        ("announce_peer", B::dict([("info_hash", B::str(hash))]), 4.0),
        ("nonsense", B::dict([]), 4.0),
    ];
    for (method, args, limit) in cases {
        let datagram = node.probe.query(method, args).encode();
        let answers = node.answers_to(&datagram);
        assert!(answers.len() <= 1, "{method}: {} datagrams for one", answers.len());
        let out: usize = answers.iter().map(Vec::len).sum();
        assert!(out <= 1200, "{method}: {out} bytes in one answer");
        let factor = out as f64 / datagram.len() as f64;
        println!("{method}: {} bytes in, {out} bytes out, factor {factor:.1}", datagram.len());
        assert!(factor <= limit, "{method}: {} bytes in, {out} bytes out", datagram.len());
    }
}

#[test]
fn flooder_is_limited_and_the_others_are_answered() {
    let mut node = Node::with(&[]);
    let flooder = Probe::at(node.world.ip());
    let datagram = query("ff", "find_node", B::dict([("id", id()), ("target", id())]));
    let socket = flooder.socket.try_clone().unwrap();
    let addr = node.addr;
    let (sent, answered) = (30_000_usize, std::sync::atomic::AtomicUsize::new(0));
    let worst = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            for n in 0..sent {
                let _ = socket.send_to(&datagram, addr);
                if n % 100 == 0 {
                    // 20 000 a second: the pace is the attack.
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let listener = scope.spawn(|| {
            while flooder.receive(secs(1)).is_some() {
                answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let mut worst = Duration::ZERO;
        while !flood.is_finished() {
            let honest = Probe::at(node.world.ip());
            let asked = Instant::now();
            assert!(honest.ping(node.addr), "not answered beside a flood");
            worst = worst.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        listener.join().unwrap();
        worst
    });
    let answered = answered.into_inner();
    println!("{answered} of {sent} answered; the slowest honest answer took {worst:?}");
    assert!(answered < sent / 20, "{answered} of {sent} queries of a flooder were answered");
    node.expect_well("after a flood");
}

#[test]
fn flood_from_two_hundred_addresses_leaves_room_for_others() {
    let mut node = Node::with(&[]);
    let flooders: Vec<_> = (0..200).map(|_| Probe::at(node.world.ip())).collect();
    let datagram = query("ff", "get_peers", B::dict([("id", id()), ("info_hash", id())]));
    let before = node.program.resident_kib();
    let mut worst = Duration::ZERO;
    for round in 0..20 {
        for flooder in &flooders {
            for _ in 0..10 {
                flooder.send(node.addr, &datagram);
            }
        }
        let honest = Probe::at(node.world.ip());
        let asked = Instant::now();
        assert!(honest.ping(node.addr), "round {round}: not answered beside a flood");
        worst = worst.max(asked.elapsed());
        flooders.iter().for_each(|f| f.socket.set_nonblocking(true).unwrap());
        flooders.iter().for_each(|f| while f.socket.recv(&mut [0; 1]).is_ok() {});
    }
    println!("the slowest honest answer took {worst:?}");
    let grown = node.program.resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "200 flooders made it grow by {grown} KiB");
    node.expect_well("after a flood from 200 addresses");
}

#[test]
fn strangers_that_never_answer_are_never_handed_out() {
    let node = Node::new();
    let mut silent = Vec::new();
    for n in 0..60_u8 {
        let ghost = Probe::at(node.world.ip());
        let id = B::str([[0x80; 19].as_slice(), &[n]].concat());
        let knock = ghost.query("ping", B::dict([("id", id)])).without("ro");
        let _ = ghost.exchange(node.addr, &knock, secs(1));
        silent.push(ghost);
    }
    // One that does answer shows that the table works, and that the node has had its time.
    let good_id = [0x80; 20];
    let good = FakeNode::start(node.world.addr(), good_id, honest_answer(good_id, vec![], vec![]));
    knock_as(&node, &good, false);
    let handed_out = eventually("a node that answers is handed out", secs(60), || {
        let nodes = node.probe.find_node(node.addr, &good_id)?;
        nodes.contains(&good.addr).then_some(nodes)
    });
    for ghost in &silent {
        assert!(!handed_out.contains(&ghost.addr()), "{} never answered", ghost.addr());
    }
}

#[test]
fn read_only_nodes_never_enter_the_table() {
    let node = Node::new();
    let start = |n: u8| {
        let id = [0x90 + n; 20];
        FakeNode::start(node.world.addr(), id, honest_answer(id, vec![], vec![]))
    };
    let (read_only, normal) = (start(0), start(1));
    knock_as(&node, &read_only, true);
    knock_as(&node, &normal, false);
    let nodes = eventually("the normal node is handed out", secs(60), || {
        let nodes = node.probe.find_node(node.addr, &normal.id)?;
        nodes.contains(&normal.addr).then_some(nodes)
    });
    assert!(!nodes.contains(&read_only.addr), "a read-only node was handed out");
}

/// Sends a query from the fake node's own endpoint, as if it had just started.
fn knock_as(node: &Node, fake: &FakeNode, read_only: bool) {
    let ping = node.probe.query("ping", B::dict([("id", B::str(fake.id))]));
    let ping = if read_only { ping } else { ping.without("ro") };
    fake.send(node.addr, &ping.encode());
}
