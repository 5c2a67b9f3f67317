//! The verbs that need a network, on a private one: two DHT nodes on loopback.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::arg;
use crate::rig::{self, Done, Running};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

// Two nodes that know each other, and a place for what the tests make.
pub(super) struct Lab {
    dir: tempfile::TempDir,
    pub(super) boot: SocketAddr,
    _nodes: Vec<Running>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (free_port(), free_port());
        let start = |me: SocketAddr, other: SocketAddr| {
            let mut command = rig::trackless(dir.path());
            let state = dir.path().join(format!("state-{}", me.port()));
            command.args(["node", "--listen", &me.to_string(), "--bootstrap", &other.to_string()]);
            Running::start(command.args([
                "--json",
                "--status-interval",
                "100ms",
                "--state-dir",
                arg(&state),
            ]))
        };
        let mut nodes = vec![start(one, two), start(two, one)];
        let deadline = Instant::now() + rig::DEADLINE;
        for node in &mut nodes {
            loop {
                let status: serde_json::Value = serde_json::from_str(&node.line()).unwrap();
                if status["nodes"][0]["contacts"].as_u64().unwrap() > 0 {
                    break;
                }
                assert!(Instant::now() < deadline, "the nodes do not find each other: {status}");
            }
        }
        Self { dir, boot: one, _nodes: nodes }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    // A command with the flags of this network; it keeps no state.
    pub(super) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = rig::trackless(self.dir.path());
        command.args(args).args(["--listen", "127.0.0.1:0", "--bootstrap", &self.boot.to_string()]);
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Done {
        rig::finish(&mut self.command(args), None)
    }

    // A folder of two files, and a process that shares it.
    pub(super) fn share(&self) -> (Running, String) {
        let folder = self.path("shared/pair");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("one.bin"), pattern(700_001)).unwrap();
        fs::write(folder.join("two.txt"), pattern(33_333)).unwrap();
        let mut share = Running::start(&mut self.command(&["share", arg(&folder)]));
        let magnet = share.line();
        assert!(magnet.starts_with("magnet:?xt=urn:btih:"), "{magnet}");
        (share, magnet)
    }

    pub(super) fn assert_fetched(&self, out: &Path) {
        for name in ["one.bin", "two.txt"] {
            let shared = fs::read(self.path("shared/pair").join(name)).unwrap();
            assert!(fs::read(out.join("pair").join(name)).unwrap() == shared, "{name} differs");
        }
    }
}

#[test]
fn shared_folder_is_got_by_its_magnet_link_alone() {
    let lab = Lab::new();
    let (mut share, magnet) = lab.share();
    let out = lab.path("out");
    let done = lab.run(&["get", &magnet, "-o", arg(&out)]).expect(0);
    assert_eq!(done.stdout, format!("{}\n", out.join("pair").display()), "the saved path alone");
    lab.assert_fetched(&out);

    let again = lab.run(&["get", &magnet, "-o", arg(&out), "--json"]).expect(0).json();
    assert_eq!((&again["code"], &again["downloaded"]), (&0.into(), &0.into()), "{again}");

    let ended = share.end("INT").expect(130);
    assert_eq!(ended.stdout, "", "the link was the only line");
    assert!(ended.stderr.contains("announced to"), "{ended:#?}");
}

#[test]
fn private_torrent_says_how_it_is_fetched() {
    let lab = Lab::new();
    let (file, torrent) = (lab.path("secret.bin"), lab.path("secret.torrent"));
    fs::write(&file, pattern(50_000)).unwrap();
    let create = ["create", "--private", arg(&file), "-o", arg(&torrent)];
    let created = rig::finish(rig::trackless(lab.dir.path()).args(create), None).expect(0);
    assert!(created.stderr.contains("--peer IP:PORT"), "{created:#?}");
    // Nobody is asked, so there is nothing to wait for.
    let (out, nobody) = (lab.path("out"), free_port().to_string());
    let mut get = rig::trackless(lab.dir.path());
    get.args(["get", arg(&torrent), "-o", arg(&out), "--bootstrap", &nobody]);
    for flags in [&[][..], &["--no-dht"]] {
        let alone = rig::finish(get.args(flags), None).expect(4);
        assert!(alone.stderr.contains("private"), "{alone:#?}");
        assert!(alone.stderr.contains("--peer IP:PORT"), "{alone:#?}");
        assert!(!alone.stderr.contains("--no-dht"), "{alone:#?}");
    }

    let at = free_port().to_string();
    let mut command = rig::trackless(lab.dir.path());
    command.args(["share", arg(&torrent), "--listen", &at, "--bootstrap", &lab.boot.to_string()]);
    let mut share = Running::start(&mut command);
    let magnet = share.line();
    for link in [arg(&torrent), &magnet] {
        lab.run(&["get", link, "-o", arg(&out), "--peer", &at]).expect(0);
        assert!(fs::read(out.join("secret.bin")).unwrap() == pattern(50_000));
        fs::remove_dir_all(&out).unwrap();
    }
    let ended = share.end("INT").expect(130);
    assert_eq!(ended.stdout, "", "the link was the only line");
    assert!(ended.stderr.contains("secret.bin: private (BEP 27)"), "{ended:#?}");
}

#[test]
fn chosen_files_alone_are_got() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let listed = lab.run(&["get", &magnet, "--list", "--json"]).expect(0).json();
    assert_eq!(listed["files"][1]["path"], "pair/two.txt", "{listed}");
    for (choice, link) in [
        (Some("*.txt"), magnet.clone()),
        (Some("1"), magnet.clone()),
        (None, format!("{magnet}&so=1")),
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut args = vec!["get", &link, "-o", arg(out.path())];
        args.extend(choice.iter().flat_map(|c| ["--files", c]));
        let done = lab.run(&args).expect(0);
        let two = out.path().join("pair/two.txt");
        assert_eq!(done.stdout, format!("{}\n", two.display()));
        assert!(fs::read(two).unwrap() == pattern(33_333));
        assert!(!out.path().join("pair/one.bin").exists(), "{choice:?}");
    }
    let done =
        lab.run(&["get", &magnet, "--files", "*.iso", "-o", arg(&lab.path("none"))]).expect(2);
    assert!(done.stderr.contains("*.iso"), "{done:#?}");
}

#[test]
fn links_resolve_one_by_one_and_in_bulk() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let hash = magnet["magnet:?xt=urn:btih:".len()..][..40].to_owned();

    let row = lab.run(&["resolve", &magnet]).expect(0).stdout;
    assert_eq!(row, format!("{hash}\t733334\t2\tpair\n"));

    let file = lab.path("it.torrent");
    let done = lab.run(&["resolve", &hash, "-o", arg(&file)]).expect(0);
    assert_eq!(done.stdout, "", "the file is the result");
    let info = rig::run(lab.dir.path(), &["info", "--json", arg(&file)]).expect(0).json();
    assert_eq!(info["info_hash"], hash);
    let raw = lab.path("raw.torrent");
    let mut command = lab.command(&["resolve", &hash, "-o", "-", "-q"]);
    let status = command.stdout(fs::File::create(&raw).unwrap()).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::read(raw).unwrap(), fs::read(&file).unwrap());

    let links = format!("# mine\n\n{magnet}\n{hash}\nnonsense\n");
    let folder = lab.path("torrents");
    let mut command =
        lab.command(&["resolve", "-i", "-", "-o", arg(&folder), "--json", "--jobs", "3"]);
    let done = rig::finish(&mut command, Some(links.as_bytes())).expect(3);
    let codes: Vec<_> = done
        .stdout
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes.len(), 3, "a line for every link: {done:#?}");
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 2, "{codes:?}");
    assert!(folder.join(format!("{hash}.torrent")).is_file());
}

#[test]
fn torrent_file_and_direct_peer_need_no_dht() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let file = lab.path("it.torrent");
    lab.run(&["resolve", &magnet, "-o", arg(&file)]).expect(0);
    // The peer's address, as the DHT knows it.
    let peer = lab.run(&["dht", "get-peers", &magnet]).expect(0).stdout;
    let out = lab.path("direct");
    let args = ["get", arg(&file), "-o", arg(&out), "--no-dht", "--peer", peer.trim(), "-q"];
    let done = rig::run(lab.dir.path(), &args).expect(0);
    lab.assert_fetched(&out);
    assert_eq!(done.stderr, "", "-q shows nothing");
}

#[test]
fn share_with_a_bad_piece_offers_the_rest_and_writes_nothing() {
    let lab = Lab::new();
    let (_whole, magnet) = lab.share();
    let (file, copy) = (lab.path("it.torrent"), lab.path("copy"));
    lab.run(&["resolve", &magnet, "-o", arg(&file)]).expect(0);
    let peer = lab.run(&["dht", "get-peers", &magnet]).expect(0).stdout;
    fs::create_dir_all(copy.join("pair")).unwrap();
    let mut damaged = pattern(700_001);
    damaged[5] ^= 1;
    fs::write(copy.join("pair/one.bin"), &damaged).unwrap();
    fs::write(copy.join("pair/two.txt"), pattern(33_333)).unwrap();

    // Beside somebody who has the missing piece.
    let args = ["share", arg(&file), "--data", arg(&copy), "--peer", peer.trim()];
    let mut share = Running::start(&mut lab.command(&args));
    share.line();
    std::thread::sleep(Duration::from_secs(2));
    let ended = share.end("INT").expect(130);
    let named = "pieces are good; not shared whole: pair/one.bin\n";
    assert!(ended.stderr.contains(named), "{ended:#?}");
    assert!(fs::read(copy.join("pair/one.bin")).unwrap() == damaged, "it was written to");

    let mut share = Running::start(&mut lab.command(&[&["--json"], &args[..]].concat()));
    // The magnet, then this.
    share.line();
    let event: serde_json::Value = serde_json::from_str(&share.line()).unwrap();
    assert_eq!(
        (&event["event"], &event["files"][0]["path"]),
        (&"incomplete".into(), &"pair/one.bin".into())
    );
    assert_eq!(
        (event["files"].as_array().unwrap().len(), &event["files"][0]["bytes"]),
        (1, &700_001.into())
    );
    share.end("INT").expect(130);
}

#[test]
fn who_can_meet_nobody_is_told_at_once() {
    let home = tempfile::tempdir().unwrap();
    for verb in ["get", "resolve"] {
        let begun = Instant::now();
        let done = rig::run(home.path(), &[verb, HASH, "--no-dht"]).expect(4);
        assert!(done.stderr.contains("no peer was given and the DHT is off"), "{done:#?}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{verb}: {:?}", begun.elapsed());
    }
}

#[test]
fn failure_names_its_stage_and_code() {
    let lab = Lab::new();
    let nobody = lab.run(&["get", HASH, "--timeout", "1s", "--json"]).expect(4).json();
    assert_eq!((&nobody["code"], &nobody["stage"]), (&4.into(), &"peers".into()), "{nobody}");
    assert!(nobody["error"].as_str().unwrap().contains("none knows a peer"), "{nobody}");

    // A home without memory of the network above.
    let home = tempfile::tempdir().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let boot = silent.local_addr().unwrap().to_string();
    // One node, however often it is named or asked.
    let twice = format!("{boot},{boot}");
    let flags = ["--listen", "127.0.0.1:0", "--bootstrap", &twice, "--timeout", "1s"];
    for verb in ["get", "resolve"] {
        let done = rig::run(home.path(), &[&[verb, HASH][..], &flags].concat()).expect(6);
        assert!(done.stderr.contains("no answer from any of 1 bootstrap node"), "{done:#?}");
        assert_eq!(done.stdout, "");
    }

    let refused = free_port().to_string();
    let args = ["get", HASH, "--no-dht", "--peer", &refused, "--timeout", "1s", "--json"];
    let unreachable = rig::run(home.path(), &args).expect(4).json();
    assert_eq!(unreachable["stage"], "connected", "{unreachable}");
    assert_eq!(unreachable["error"], "1 peer found, none reachable");
}

#[test]
fn one_dead_link_of_several_leaves_the_others_alone() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let out = lab.path("out");
    let done = lab.run(&["get", HASH, &magnet, "-o", arg(&out), "--timeout", "5s"]).expect(4);
    assert_eq!(done.stdout, format!("{}\n", out.join("pair").display()));
    assert!(done.stderr.contains(HASH), "the dead one is named: {done:#?}");
    lab.assert_fetched(&out);
}

#[test]
fn bad_links_of_several_are_told_and_the_good_ones_are_got() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let out = lab.path("out");
    let args = ["get", "nonsense", &magnet, "gone.torrent", "-o", arg(&out), "--json"];
    let done = lab.run(&args).expect(3);
    let lines: Vec<serde_json::Value> =
        done.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let told = |n: usize| (lines[n]["link"].as_str().unwrap(), lines[n]["code"].as_u64().unwrap());
    assert_eq!(lines.len(), 3, "a line for every link: {done:#?}");
    assert_eq!((told(0), told(1)), (("nonsense", 3), ("gone.torrent", 3)), "{done:#?}");
    assert_eq!(told(2), (magnet.as_str(), 0), "{done:#?}");
    lab.assert_fetched(&out);

    let all_bad = lab.run(&["get", "nonsense", "magnet:?dn=x"]).expect(3);
    assert_eq!(all_bad.stdout, "");
    assert_eq!(all_bad.stderr.lines().count(), 4, "a cause and an advice each: {all_bad:#?}");
}

#[test]
fn signal_ends_sharing_on_as_a_success_and_a_download_not() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = tempfile::tempdir().unwrap();
        let get = ["get", &magnet, "-o", arg(out.path()), "--seed"];
        let mut get = Running::start(&mut lab.command(&get));
        assert_eq!(get.line(), out.path().join("pair").to_str().unwrap());
        let ended = get.end(signal).expect(0);
        assert!(ended.stderr.contains("sharing ended"), "{ended:#?}");
        lab.assert_fetched(out.path());

        // One of two is not there yet: that is what the signal ends.
        let out = tempfile::tempdir().unwrap();
        let both = ["get", &magnet, HASH, "-o", arg(out.path()), "--seed"];
        let mut get = Running::start(&mut lab.command(&both));
        get.line();
        let ended = get.end(signal).expect(code);
        assert!(!ended.stderr.contains("sharing ended"), "{ended:#?}");
    }
}

#[test]
fn what_is_shared_on_keeps_no_other_download_waiting() {
    // More than are fetched at the same time.
    const LINKS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let mut args = vec!["get".to_owned(), "--no-dht".to_owned(), "--seed".to_owned()];
    for n in 0..LINKS {
        let file = dir.path().join(format!("{n}.bin"));
        let torrent = dir.path().join(format!("{n}.torrent"));
        fs::write(&file, pattern(1000 + n)).unwrap();
        rig::run(dir.path(), &["create", arg(&file), "-o", arg(&torrent)]).expect(0);
        args.push(arg(&torrent).to_owned());
    }
    args.extend(["-o".to_owned(), arg(dir.path()).to_owned()]);
    let mut get = Running::start(rig::trackless(dir.path()).args(args));
    (0..LINKS).for_each(|_| drop(get.line()));
    get.end("INT").expect(0);
}

#[test]
fn same_torrent_named_twice_is_shared_once() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let folder = lab.path("shared/pair");
    let copy = lab.path("copy/pair");
    fs::create_dir_all(&copy).unwrap();
    for name in ["one.bin", "two.txt"] {
        fs::copy(folder.join(name), copy.join(name)).unwrap();
    }
    let paths = [arg(&folder), arg(&copy), arg(&folder)];
    let mut share = Running::start(&mut lab.command(&[&["share"][..], &paths].concat()));
    assert_eq!(share.line(), magnet);
    std::thread::sleep(Duration::from_millis(500));
    let ended = share.end("INT").expect(130);
    assert_eq!(ended.stdout, "", "one line");
    assert_eq!(ended.stderr.matches("the same torrent as before").count(), 2, "{ended:#?}");
}

#[test]
fn port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let done = rig::run(home.path(), &["get", HASH, "--listen", &at]).expect(10);
    assert!(done.stderr.contains(&at), "{done:#?}");
}

#[test]
fn signals_end_cleanly_and_soon() {
    let lab = Lab::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (mut share, _) = lab.share();
        let started = Instant::now();
        share.end(signal).expect(code);
        assert!(started.elapsed() < Duration::from_secs(5), "{signal}: {:?}", started.elapsed());
        let mut get = Running::start(&mut lab.command(&["get", HASH, "--json"]));
        std::thread::sleep(Duration::from_millis(300));
        let done = get.end(signal).expect(code);
        assert_eq!(done.json()["code"], code, "{done:#?}");
    }
}

#[test]
fn node_keeps_its_id_across_a_restart() {
    let lab = Lab::new();
    let id = || {
        let state = lab.path("state");
        let mut command = lab.command(&["node", "--json", "--status-interval", "100ms"]);
        let mut node = Running::start(command.args(["--state-dir", arg(&state)]));
        let id = loop {
            let status: serde_json::Value = serde_json::from_str(&node.line()).unwrap();
            // A node that knows nobody has nothing worth keeping.
            if status["nodes"][0]["contacts"].as_u64().unwrap() > 0 {
                break status["nodes"][0]["id"].as_str().unwrap().to_owned();
            }
        };
        node.end("TERM").expect(143);
        id
    };
    let first = id();
    assert_eq!(first.len(), 40);
    assert_eq!(id(), first);
}

// BEP 45: a node for each address, each with an id of its own.
#[test]
fn two_addresses_are_two_nodes_and_both_keep_their_ids() {
    let lab = Lab::new();
    let listen = [free_port(), free_port()].map(|addr| addr.to_string());
    let ids = || {
        let mut command = rig::trackless(lab.dir.path());
        command.args(["node", "--json", "--status-interval", "100ms", "--state-dir"]);
        command.args([arg(&lab.path("state")), "--bootstrap", &lab.boot.to_string()]);
        command.args(["--listen", &listen[0], "--listen", &listen[1]]);
        let mut node = Running::start(&mut command);
        let deadline = Instant::now() + rig::DEADLINE;
        loop {
            let status: serde_json::Value = serde_json::from_str(&node.line()).unwrap();
            let nodes = status["nodes"].as_array().unwrap();
            assert_eq!(nodes.len(), 2);
            if nodes.iter().all(|node| node["contacts"].as_u64().unwrap() > 0) {
                break;
            }
            assert!(Instant::now() < deadline, "a node finds nobody: {status}");
        }
        // What each says of itself, at its own address.
        let ids = listen.clone().map(|addr| {
            let answer = lab.run(&["dht", "ping", &addr, "--json"]).expect(0).json();
            answer["id"].as_str().unwrap().to_owned()
        });
        node.end("TERM").expect(143);
        ids
    };
    let first = ids();
    assert_ne!(first[0], first[1]);
    assert_eq!(ids(), first);
}

#[test]
fn existing_torrent_is_shared_where_its_data_lies() {
    let lab = Lab::new();
    let (mut share, magnet) = lab.share();
    let file = lab.path("it.torrent");
    lab.run(&["resolve", &magnet, "-o", arg(&file)]).expect(0);
    share.end("TERM").expect(143);

    let data = lab.path("shared");
    let mut again = Running::start(&mut lab.command(&["share", arg(&file), "--data", arg(&data)]));
    assert_eq!(again.line(), magnet);
    let out = lab.path("out");
    lab.run(&["get", &magnet, "-o", arg(&out)]).expect(0);
    lab.assert_fetched(&out);

    let empty = lab.path("empty");
    fs::create_dir(&empty).unwrap();
    let done = lab.run(&["share", arg(&file), "--data", arg(&empty)]);
    assert_eq!(done.code(), 5, "{done:#?}");
}

#[test]
fn get_goes_on_sharing_until_its_goal() {
    let lab = Lab::new();
    let (_share, magnet) = lab.share();
    let out = lab.path("out");
    let started = Instant::now();
    lab.run(&["get", &magnet, "-o", arg(&out), "--seed=1500ms"]).expect(0);
    assert!(started.elapsed() >= Duration::from_millis(1500));
    lab.run(&["get", &magnet, "-o", arg(&out), "--seed=0"]).expect(0);
}

#[test]
fn broken_pipe_ends_a_stream_without_a_word() {
    let lab = Lab::new();
    let mut node = lab.command(&["node", "--json", "--status-interval", "20ms", "--timeout", "2s"]);
    let mut running = node
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(running.stdout.take());
    let status = rig::wait(&mut running, rig::DEADLINE).expect("it ends at its time limit");
    assert_eq!(status.code(), Some(0));
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut running.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(stderr, "");
}

// Bytes that no two pieces share.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

// A port that was free a moment ago, for both TCP and UDP.
pub(super) fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        if UdpSocket::bind(addr).is_ok() {
            return addr;
        }
    }
}
