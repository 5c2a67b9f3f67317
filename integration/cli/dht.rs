//! `dht`: one operation, or many, on a private network of two nodes on loopback.

use std::sync::atomic::{AtomicBool, Ordering};

use super::network::{Lab, free_port};
use crate::rig::{self, Done};
use crate::world::krpc::{FakeNode, honest_answer};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn dht_operations_print_one_record_a_line() {
    let lab = Lab::new();
    let boot = lab.boot.to_string();
    let pong = lab.run(&["dht", "ping", &boot]).expect(0).stdout;
    assert!(pong.split(' ').next().unwrap().len() == 40 && pong.contains(&boot), "{pong}");
    let nodes = lab.run(&["dht", "find-node", HASH, "--json"]).expect(0).records();
    assert_eq!(nodes.len(), 3, "two nodes and the closing record: {nodes:?}");
    assert_eq!((&nodes[2]["code"], &nodes[2]["nodes"]), (&0.into(), &2.into()), "{nodes:?}");

    lab.run(&["dht", "get-peers", HASH]).expect(4);
    let taken = lab.run(&["dht", "announce", HASH, "--port", "4711", "--json"]).expect(0).json();
    assert_eq!(taken["announced"], 2, "{taken}");
    let peers = lab.run(&["dht", "get-peers", HASH]).expect(0).stdout;
    assert_eq!(peers, "127.0.0.1:4711\n");
    let peers = lab.run(&["dht", "get-peers", HASH, "--json"]).expect(0).records();
    assert_eq!(peers[0]["addr"], "127.0.0.1:4711");
    assert_eq!((&peers[1]["code"], &peers[1]["peers"]), (&0.into(), &1.into()), "{peers:?}");
    assert_eq!((&peers[1]["asked"], &peers[1]["answered"]), (&2.into(), &2.into()), "{peers:?}");
}

#[test]
fn ping_is_answered_although_the_first_was_lost() {
    let id = [8; 20];
    let (answer, was_lost) = (honest_answer(id, Vec::new(), Vec::new()), AtomicBool::new(false));
    let node = FakeNode::start(free_port(), id, move |query| {
        let is_lost = query.method == "ping" && !was_lost.swap(true, Ordering::Relaxed);
        if is_lost { Vec::new() } else { answer(query) }
    });
    let (home, addr) = (tempfile::tempdir().unwrap(), node.addr.to_string());
    let flags = ["--listen", "127.0.0.1:0", "--bootstrap", &addr];
    let pong = rig::run(home.path(), &[&["dht", "ping", &addr], &flags[..]].concat()).expect(0);
    assert!(pong.stdout.starts_with(&"08".repeat(20)), "{pong:#?}");
}

#[test]
fn shell_runs_what_stdin_says_and_ends_with_it() {
    let lab = Lab::new();
    let input = format!("announce {HASH} 4712\nlookup zz\n");
    let mut command = lab.command(&["dht", "shell", "--json"]);
    let done = rig::finish(&mut command, Some(input.as_bytes())).expect(0);
    assert!(done.stdout.starts_with("{\"addrs\""), "{done:#?}");
    let events = |done: &Done, kind: &str| -> Vec<serde_json::Value> {
        done.records().into_iter().filter(|e| e["ev"] == kind).collect()
    };
    assert_eq!(events(&done, "up").len(), 1);
    assert_eq!(events(&done, "error").len(), 1);
    assert_eq!(events(&done, "done")[0]["announced"], 2, "{done:#?}");

    let mut command = lab.command(&["dht", "shell", "--json"]);
    let done = rig::finish(&mut command, Some(format!("lookup {HASH}\n").as_bytes())).expect(0);
    assert_eq!(events(&done, "peer")[0]["addr"], "127.0.0.1:4712", "{done:#?}");
    assert_eq!(events(&done, "done")[0]["h"], HASH);
}

#[test]
fn shell_keeps_torrents_announced_and_looks_up_in_bulk() {
    let lab = Lab::new();
    // No more of them than a node answers to one address in a moment.
    let hash = |n: u32| format!("{n:040x}");
    let lines = |verb: &str, rest: &str| -> String {
        (0..12).map(|n| format!("{verb} {}{rest}\n", hash(n))).collect()
    };
    let shell = |input: String| {
        let mut command = lab.command(&["dht", "shell", "--json"]);
        rig::finish(&mut command, Some(input.as_bytes())).expect(0).records()
    };
    let count = |events: &[serde_json::Value], kind: &str| {
        events.iter().filter(|e| e["ev"] == kind).count()
    };
    let announced = shell(lines("announce", " 4716"));
    assert_eq!(count(&announced, "done"), 12, "{announced:#?}");

    let status = format!("drop {HASH}\ndrop {}\nstatus\n", hash(7));
    let told = shell([lines("keep", " 4717"), lines("bulk", ""), status].concat());
    let counts = ["kept", "dropped", "done", "error"].map(|kind| count(&told, kind));
    assert_eq!(counts, [12, 1, 12, 1], "{told:#?}");
    let found = told.iter().filter(|e| e["addr"] == "127.0.0.1:4716").count();
    assert_eq!(found, 12, "{told:#?}");
    let status = told.iter().find(|e| e["ev"] == "status").unwrap();
    assert_eq!(status["announcing"][0]["torrents"], 11, "{status}");
}

#[test]
fn traced_lookup_prints_every_step_with_its_distance_and_what_came() {
    let lab = Lab::new();
    lab.run(&["dht", "announce", HASH, "--port", "4713"]).expect(0);
    let traced = lab.run(&["dht", "lookup", "--trace", HASH, "--json"]).expect(0).records();
    let (end, steps) = traced.split_last().unwrap();
    assert_eq!((&end["code"], &end["peers"]), (&0.into(), &1.into()), "{end}");
    let kind = |wanted: &'static str| steps.iter().filter(move |s| s["step"] == wanted);
    assert_eq!((kind("asked").count(), kind("answered").count()), (2, 2), "{traced:#?}");
    let peer = serde_json::json!("127.0.0.1:4713");
    assert_eq!(steps.iter().filter(|s| s["addr"] == peer).count(), 1, "named once: {traced:#?}");
    for step in kind("answered") {
        assert_eq!(step["distance"].as_str().unwrap().len(), 40, "{step}");
        assert!(step["rtt_ms"].as_f64().unwrap() > 0.0 && step["token"] == true, "{step}");
        assert_eq!(step["peers"], serde_json::json!([peer]), "{step}");
    }

    let text = lab.run(&["dht", "get-peers", "--trace", HASH]).expect(0);
    let line = text.stdout.lines().find(|line| line.contains("answered")).unwrap();
    assert!(line.contains("2^1") && line.contains("1 peer, token"), "{text:#?}");
    assert!(
        text.stdout.lines().any(|line| line.ends_with("peer      127.0.0.1:4713")),
        "{text:#?}"
    );
}

#[test]
fn announce_is_verified_by_a_stranger() {
    let lab = Lab::new();
    let args = ["dht", "announce", "--verify", HASH, "--port", "4714"];
    let told = lab.run(&args).expect(0);
    let line = "announced to 2 nodes, found by a stranger at 2 of the 2 closest nodes\n";
    assert_eq!(told.stdout, line, "{told:#?}");
    let json = lab.run(&[&args[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&json["code"], &json["announced"]), (&0.into(), &2.into()), "{json}");
    let verified = &json["verified"];
    assert_eq!((&verified["found_at"], &verified["of"]), (&2.into(), &2.into()), "{json}");
    // At the port that the queries come from, too.
    lab.run(&["dht", "announce", "--verify", HASH]).expect(0);
}

#[test]
fn announce_that_nodes_drop_is_not_called_done() {
    // It takes whatever it is told, and knows nothing of it afterwards.
    let id = [7; 20];
    let forgetful = FakeNode::start(free_port(), id, honest_answer(id, Vec::new(), Vec::new()));
    let home = tempfile::tempdir().unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--bootstrap", &forgetful.addr.to_string()];
    let announce = ["dht", "announce", HASH, "--port", "4715"];
    let unverified = rig::run(home.path(), &[&announce[..], &flags].concat()).expect(0);
    assert_eq!(unverified.stdout, "announced to 1 node\n");
    let verify = [&announce[..], &flags, &["--verify", "--json"]].concat();
    let failed = rig::run(home.path(), &verify).expect(4).json();
    assert_eq!((&failed["code"], &failed["stage"]), (&4.into(), &"peers".into()), "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("did not find it"), "{failed}");
    // Two nodes asked it: the second has another id and another port.
    let asked = forgetful.queries();
    let who = |q: &crate::world::krpc::Query| (q.from, q.args.get("id").cloned());
    let asked: Vec<_> = asked.iter().filter(|q| q.method == "get_peers").map(who).collect();
    let (first, last) = (asked.first().unwrap(), asked.last().unwrap());
    assert!(first.0 != last.0 && first.1 != last.1, "{asked:?}");
}
