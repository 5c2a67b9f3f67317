//! Lookups beside nodes that lie: the honest node's peers are found, nothing that nodes invent is
//! believed for long, and no third party is hit.

use std::net::SocketAddr;
use std::sync::Mutex;

use crate::world::bencode::nested_lists;
use crate::world::krpc::{FakeNode, Probe, Query, compact, compact_node, honest_answer};
use crate::world::{B, Content, Ended, Script, Seeder, World, secs};

const HASH: [u8; 20] = [0xc0; 20];

/// The peer that only forged replies name.
const FORGED: u8 = 66;

/// A node near the hash: the smaller `n`, the nearer.
fn near(n: u8) -> [u8; 20] {
    let mut id = HASH;
    id[10] ^= n + 1;
    id
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 2, n], 7000))
}

/// A lookup that starts at a hostile node, which is the only one to know the honest one.
struct Lookup {
    world: World,
    honest: FakeNode,
}

impl Lookup {
    fn new() -> Self {
        let world = World::new();
        let id = near(200);
        let honest = FakeNode::start(world.addr(), id, honest_answer(id, vec![], vec![peer(1)]));
        Self { world, honest }
    }

    fn honest_node(&self) -> Vec<u8> {
        compact_node(&self.honest.id, self.honest.addr)
    }

    /// `dht get-peers` from these nodes.
    fn run(&self, bootstrap: &[SocketAddr]) -> Ended {
        let hash = crate::world::hex(&HASH);
        let args = ["dht", "get-peers", &hash, "--timeout", "30s"];
        let mut launch = self.world.trackless_at(self.world.addr(), args);
        for node in bootstrap {
            launch = launch.args(["--bootstrap", &node.to_string()]);
        }
        launch.run(secs(60))
    }

    /// The lookup beside a hostile node; the honest one must be found.
    #[track_caller]
    fn beside(
        &self,
        what: &str,
        answer: impl Fn(&Query) -> Vec<Vec<u8>> + Send + 'static,
    ) -> FakeNode {
        let hostile = FakeNode::start(self.world.addr(), near(100), answer);
        let ended = self.run(&[hostile.addr, self.honest.addr]);
        assert!(
            ended.stdout.lines().any(|line| line == peer(1).to_string()),
            "{what}: the honest node's peer was not found (exit {})\n{}\n{}",
            ended.code,
            ended.stdout,
            ended.stderr
        );
        assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
        let forged = ended.stdout.contains(&peer(FORGED).to_string());
        assert!(!forged, "{what}: a forged reply was believed\n{}", ended.stdout);
        assert!(!hostile.queries().is_empty(), "{what}: the hostile node was never asked");
        assert!(ended.peak_kib < 200 * 1024, "{what}: {} KiB", ended.peak_kib);
        hostile
    }
}

fn r_of(id: [u8; 20]) -> B {
    B::dict([("id", B::str(id)), ("token", B::str("tttttttt"))])
}

#[test]
fn replies_with_wrong_transaction_ids_are_ignored() {
    for (what, t) in [
        ("another", B::str("xx")),
        ("empty", B::str("")),
        ("400 bytes", B::Str(vec![b't'; 400])),
        ("a number", B::Int(1)),
        ("a list", B::List(vec![])),
    ] {
        let lookup = Lookup::new();
        lookup.beside(what, move |_| {
            let values = B::List(vec![B::Str(compact(peer(FORGED)))]);
            let r = r_of(near(100)).with("values", values);
            vec![B::dict([("t", t.clone()), ("y", B::str("r")), ("r", r)]).encode()]
        });
    }
}

#[test]
fn reply_repeated_a_thousand_times_counts_once() {
    let lookup = Lookup::new();
    let honest = lookup.honest_node();
    lookup.beside("1000 times", move |query| {
        vec![query.reply(r_of(near(100)).with("nodes", B::str(&honest))); 1000]
    });
}

#[test]
fn reply_from_another_port_is_not_believed() {
    let lookup = Lookup::new();
    let other = Mutex::new(Probe::at(lookup.world.ip()));
    lookup.beside("another port", move |query| {
        let values = B::List(vec![B::Str(compact(peer(FORGED)))]);
        let forged = query.reply(r_of(near(100)).with("values", values));
        other.lock().unwrap().send(query.from, &forged);
        Vec::new()
    });
}

#[test]
fn nodes_and_values_that_cannot_be_are_never_given_out() {
    let lookup = Lookup::new();
    let bogus: Vec<SocketAddr> = [
        "0.0.0.0:6881",
        "255.255.255.255:6881",
        "224.0.0.5:6881",
        "10.1.2.3:0",
        "239.255.255.250:1900",
    ]
    .iter()
    .map(|a| a.parse().unwrap())
    .collect();
    let (nodes, values): (Vec<_>, Vec<_>) = bogus
        .iter()
        .enumerate()
        .map(|(n, addr)| (compact_node(&near(n as u8), *addr), B::Str(compact(*addr))))
        .unzip();
    let mut nodes = nodes.concat();
    nodes.extend(lookup.honest_node());
    let hostile = FakeNode::start(lookup.world.addr(), near(100), move |query| {
        let r = r_of(near(100)).with("nodes", B::str(&nodes));
        vec![query.reply(r.with("values", B::List(values.clone())))]
    });
    let ended = lookup.run(&[hostile.addr]).expect(0, "a lookup among impossible addresses");
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), [peer(1).to_string()]);
}

#[test]
fn third_party_named_as_every_node_is_asked_at_most_three_times() {
    let lookup = Lookup::new();
    let victim = FakeNode::start(lookup.world.addr(), [1; 20], |_| Vec::new());
    let mut nodes: Vec<u8> = (0..8).flat_map(|n| compact_node(&near(n), victim.addr)).collect();
    nodes.extend(lookup.honest_node());
    lookup.beside("eight ids at one address", move |query| {
        vec![query.reply(r_of(near(100)).with("nodes", B::str(&nodes)))]
    });
    let asked = victim.queries().len();
    assert!(asked <= 3, "a third party was asked {asked} times");
}

#[test]
fn thousands_of_invented_nodes_do_not_keep_the_lookup_from_its_end() {
    for count in [300_u16, 2500] {
        let lookup = Lookup::new();
        let [a, b, c, _] = lookup.world.ip().octets();
        let honest = lookup.honest_node();
        lookup.beside(&format!("{count} invented nodes"), move |query| {
            let mut nodes = honest.clone();
            for n in 0..count {
                let [high, low] = n.to_be_bytes();
                let addr = SocketAddr::from(([a, b.wrapping_add(1), c.wrapping_add(high), low], 1));
                let mut id = near(50);
                id[12..14].copy_from_slice(&n.to_be_bytes());
                nodes.extend(compact_node(&id, addr));
            }
            vec![query.reply(r_of(near(100)).with("nodes", B::str(&nodes)))]
        });
    }
}

#[test]
fn node_that_names_itself_or_the_seeker_is_asked_a_few_times_at_most() {
    for (what, names_seeker) in [("itself under other ids", false), ("the seeker", true)] {
        let lookup = Lookup::new();
        let own = lookup.world.addr();
        let count = Mutex::new(0_u8);
        let hostile = FakeNode::start(own, near(100), move |query| {
            let mut n = count.lock().unwrap();
            *n = n.wrapping_add(1);
            let at = if names_seeker { query.from } else { own };
            // Each time under ids that are nearer than those before.
            let nodes = (0..8).flat_map(|k| compact_node(&near(90 - *n % 10 * 9 - k), at));
            let r = r_of(near(100)).with("nodes", B::Str(nodes.collect()));
            vec![query.reply(r)]
        });
        let ended = lookup.run(&[hostile.addr, lookup.honest.addr]).expect(0, what);
        assert!(ended.stdout.contains(&peer(1).to_string()), "{what}: {}", ended.stdout);
        let asked = hostile.queries().len();
        assert!(asked <= 12, "{what}: it was asked {asked} times");
    }
}

#[test]
fn ever_nearer_nodes_do_not_lead_the_lookup_on_for_ever() {
    // All of them answer, each under a new id when it is named again: the chase has no natural end.
    const CHAIN: usize = 60;
    let lookup = Lookup::new();
    let addrs: Vec<_> = (0..CHAIN).map(|_| lookup.world.addr()).collect();
    let step = std::sync::Arc::new(Mutex::new(0_u32));
    let nodes: Vec<_> = (0..CHAIN)
        .map(|own| {
            let (addrs, step) = (addrs.clone(), step.clone());
            FakeNode::start(addrs[own], near(100), move |query| {
                let mut step = step.lock().unwrap();
                *step += 1;
                let id = |step: u32| {
                    let mut id = HASH;
                    id[11..15].copy_from_slice(&(u32::MAX - step).to_be_bytes());
                    id
                };
                let nodes = (1..=8_u32).flat_map(|k| {
                    let at = addrs[(own + k as usize) % CHAIN];
                    compact_node(&id(*step * 8 + k), at)
                });
                vec![query.reply(r_of(id(*step)).with("nodes", B::Str(nodes.collect())))]
            })
        })
        .collect();
    let ended = lookup.run(&[nodes[0].addr, lookup.honest.addr]).expect(0, "an endless chase");
    assert!(ended.stdout.contains(&peer(1).to_string()), "{}", ended.stdout);
    let queries: Vec<_> = nodes.iter().map(|node| node.queries().len()).collect();
    let most = queries.iter().max().copied().unwrap_or_default();
    assert!(most <= 12, "one address was asked {most} times: {queries:?}");
    assert!(ended.took < secs(30), "it had no end of its own: {:?}", ended.took);
}

#[test]
fn hostile_answer_at_the_start_does_not_end_the_search() {
    let world = World::new();
    let content = Content::single(32, 100_000, 32_768);
    let seeder = Seeder::start(world.addr(), &content, Script::honest());
    let (hostile, late) = (world.addr(), world.addr());
    // The only node that is there at first names nobody but itself.
    let hostile = FakeNode::start(hostile, near(1), move |query| {
        let nodes: Vec<u8> = (0..8).flat_map(|n| compact_node(&near(n), hostile)).collect();
        vec![query.reply(r_of(near(1)).with("nodes", B::Str(nodes)))]
    });
    let out = world.folder("out");
    let get = world
        .trackless_at(world.addr(), ["get", &content.magnet(), "--timeout", "100s", "--bootstrap"])
        .args([hostile.addr.to_string(), "--bootstrap".to_owned(), late.to_string()])
        .arg("-o")
        .arg(&out)
        .start();
    crate::world::eventually("a lookup has ended in vain", secs(30), || {
        let asked = hostile.queries().iter().any(|q| q.method == "get_peers");
        asked.then_some(())
    });
    // The pause is what is tested: by now it may have given up.
    std::thread::sleep(secs(5));
    let id = near(200);
    let _honest = FakeNode::start(late, id, honest_answer(id, vec![], vec![seeder.addr]));
    get.wait(secs(120)).expect(0, "a search that began with a hostile answer");
    content.assert_in(&out);
}

#[test]
fn malformed_replies_do_not_spoil_the_lookup() {
    type Make = fn(&Query) -> Vec<u8>;
    let cases: Vec<(&str, Make)> = vec![
        ("nodes of 25 bytes", |q| q.reply(r_of(near(100)).with("nodes", B::Str(vec![1; 25])))),
        ("nodes is a list", |q| q.reply(r_of(near(100)).with("nodes", B::List(vec![])))),
        ("values of odd lengths", |q| {
            let values = [0, 5, 7, 18, 4000].map(|len| B::Str(vec![1; len]));
            q.reply(r_of(near(100)).with("values", B::List(values.to_vec())))
        }),
        ("values is a number", |q| q.reply(r_of(near(100)).with("values", B::Int(4)))),
        ("no id", |q| q.reply(B::dict([("token", B::str("x"))]))),
        ("an id of 19 bytes", |q| q.reply(B::dict([("id", B::Str(vec![1; 19]))]))),
        ("an id of 5000 bytes", |q| q.reply(B::dict([("id", B::Str(vec![1; 5000]))]))),
        ("r is a list", |q| q.reply(B::List(vec![]))),
        ("an error", |q| q.error(202)),
        ("nested lists", |q| q.reply(r_of(near(100)).with("x", B::Raw(nested_lists(15_000))))),
        ("cut in the middle", |q| {
            let whole = q.reply(r_of(near(100)));
            whole[..whole.len() / 2].to_vec()
        }),
        ("not bencode", |_| vec![0xff; 1000]),
    ];
    for (what, make) in cases {
        Lookup::new().beside(what, move |query| vec![make(query)]);
    }
}

#[test]
fn huge_tokens_are_not_echoed() {
    let lookup = Lookup::new();
    let hash = crate::world::hex(&HASH);
    for token in [B::Str(vec![b'x'; 1024]), B::Str(vec![b'x'; 5000]), B::Int(7), B::List(vec![])] {
        let what = format!("{:.40}", format!("{token:?}"));
        let honest = lookup.honest_node();
        let hostile = FakeNode::start(lookup.world.addr(), near(0), move |query| {
            let r = B::dict([("id", B::str(near(0))), ("token", token.clone())]);
            vec![query.reply(r.with("nodes", B::str(&honest)))]
        });
        let args = ["dht", "announce", &hash, "--port", "7000", "--timeout", "30s", "--bootstrap"];
        let ended = lookup
            .world
            .trackless_at(lookup.world.addr(), args)
            .arg(hostile.addr.to_string())
            .run(secs(60));
        assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
        for query in hostile.queries().iter().filter(|q| q.method == "announce_peer") {
            let size = query.args.encode().len();
            assert!(size < 1000, "{what}: an announce of {size} bytes");
        }
        let announced = lookup.honest.queries().iter().any(|q| q.method == "announce_peer");
        assert!(announced, "{what}: the honest node was not announced to");
    }
}

#[test]
fn node_that_takes_the_seekers_or_a_changing_id_does_no_harm() {
    let lookup = Lookup::new();
    let honest = lookup.honest_node();
    let nodes = honest.clone();
    lookup.beside("the target as its id", move |query| {
        vec![query.reply(r_of(HASH).with("nodes", B::str(&nodes)))]
    });
    let nodes = honest.clone();
    lookup.beside("the asker's own id", move |query| {
        let own = query.args.get("id").cloned().unwrap_or(B::Int(0));
        vec![query.reply(B::dict([("id", own), ("nodes", B::str(&nodes))]))]
    });
    let count = Mutex::new(0_u8);
    lookup.beside("another id each time", move |query| {
        let mut n = count.lock().unwrap();
        *n = n.wrapping_add(1);
        vec![query.reply(r_of([*n; 20]).with("nodes", B::str(&honest)))]
    });
}

#[test]
fn two_thousand_dead_peers_do_not_hide_the_living_one() {
    let world = World::new();
    let content = Content::single(31, 100_000, 32_768);
    let seeder = Seeder::start(world.addr(), &content, Script::honest());
    let [a, b, c, _] = world.ip().octets();
    let id = [0x0f; 20];
    let alive = seeder.addr;
    // As many as one datagram that is read can carry, others each time it is asked.
    let asked = Mutex::new(0_u8);
    let node = FakeNode::start(world.addr(), id, move |query| {
        let mut asked = asked.lock().unwrap();
        *asked = asked.wrapping_add(1);
        let mut values: Vec<B> = (0..900_u16)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                let ip = [a, b.wrapping_add(*asked), c.wrapping_add(high), low];
                B::Str(compact(SocketAddr::from((ip, 1))))
            })
            .collect();
        values.insert(450, B::Str(compact(alive)));
        let r = B::dict([("id", B::str(id)), ("token", B::str("tttttttt"))]);
        let r = if query.method == "get_peers" { r.with("values", B::List(values)) } else { r };
        vec![query.reply(r)]
    });
    let out = world.folder("out");
    world
        .trackless_at(world.addr(), ["get", &content.magnet(), "--bootstrap"])
        .arg(node.addr.to_string())
        .arg("-o")
        .arg(&out)
        .run(secs(60))
        .expect(0, "one living peer among the dead");
    content.assert_in(&out);
}
