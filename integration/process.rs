//! The process as its neighbours see it: signals, ports, closed streams, homes, and networks that
//! speak IPv6 alone.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::content::bytes;
use crate::world::krpc::Probe;
use crate::world::{Content, Program, Script, Seeder, World, eventually, have, secs};

#[track_caller]
fn ends_with(mut program: Program, signal: Signal, code: i32, what: &str) {
    let asked = Instant::now();
    program.signal(signal);
    let ended = program.wait(secs(20));
    let took = asked.elapsed();
    assert_eq!(ended.code, code, "{what}: {}", ended.stderr);
    assert!(took < secs(6), "{what}: it took {took:?} to end");
}

#[test]
fn first_signal_ends_every_verb_cleanly_within_seconds() {
    let world = World::new();
    let content = Content::single(61, 2_000_000, 65_536);
    let there = world.folder("there");
    let path = content.write_to(&there);
    let slow = Script::honest().paced(Duration::from_millis(50));
    let seeder = Seeder::start(world.addr(), &content, slow);
    let dead = world.addr();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let addr = world.addr();
        let node = world.trackless_at(addr, ["node", "--bootstrap", &dead.to_string()]).start();
        let probe = Probe::at(world.ip());
        eventually("a node", secs(30), || probe.ping(addr).then_some(()));
        ends_with(node, signal, code, "node");
        let sharing = world.share(&path);
        ends_with(sharing.program, signal, code, "share");
        seeder.forget();
        let out = world.folder(&format!("out-{code}"));
        let get = world.get(&content.magnet(), &out, &[seeder.addr, dead]).start();
        assert!(seeder.wait(secs(30), |log| log.blocks_sent > 3), "{}", get.last_words());
        ends_with(get, signal, code, "get");
        let hopeless = world
            .trackless_at(world.addr(), ["get", &content.magnet(), "--bootstrap"])
            .args([&dead.to_string(), "-o", "nowhere"])
            .start();
        hopeless.stderr_line("progress", secs(30), |line| !line.is_empty());
        ends_with(hopeless, signal, code, "get without a network");
    }
}

#[test]
fn second_signal_ends_at_once() {
    let world = World::new();
    let content = Content::single(66, 2_000_000, 65_536);
    let path = content.write_to(&world.folder("there"));
    let mut sharing = world.share(&path);
    // Stopped, it takes both signals at the same moment when it goes on.
    sharing.program.signal(Signal::STOP);
    sharing.program.signal(Signal::INT);
    sharing.program.signal(Signal::TERM);
    let asked = Instant::now();
    sharing.program.signal(Signal::CONT);
    let ended = sharing.program.wait(secs(20));
    assert!([130, 143].contains(&ended.code), "{}: {}", ended.code, ended.stderr);
    assert!(asked.elapsed() < secs(3), "it took {:?}", asked.elapsed());
}

#[test]
fn port_in_use_is_said_and_is_not_silently_another() {
    let world = World::new();
    for held in ["tcp", "udp"] {
        let addr = world.addr();
        let listener = (held == "tcp").then(|| TcpListener::bind(addr).unwrap());
        let socket = (held == "udp").then(|| UdpSocket::bind(addr).unwrap());
        let out = world.folder("out");
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let ended = world
            .trackless(["get", hash, "--bootstrap", "127.0.0.1:1", "--listen"])
            .args([&addr.to_string(), "--timeout", "5s", "-o"])
            .arg(&out)
            .run(secs(30));
        assert_eq!(ended.code, 10, "{held}: {}", ended.stderr);
        let named = ended.stderr.contains(&addr.to_string());
        assert!(named, "{held}: the address is not named: {}", ended.stderr);
        drop((listener, socket));
    }
    let elsewhere = world
        .trackless(["node", "--listen", "192.0.2.77:6881", "--bootstrap", "127.0.0.1:1"])
        .run(secs(30));
    assert!(![0, 101].contains(&elsewhere.code), "{}", elsewhere.stderr);
    assert!(elsewhere.stderr.contains("192.0.2.77"), "{}", elsewhere.stderr);
}

#[test]
fn closed_streams_are_no_panic_and_do_not_stop_a_download() {
    let world = World::new();
    let content = Content::single(62, 200_000, 32_768);
    let seeder = Seeder::start(world.addr(), &content, Script::honest());
    for (name, redirect) in
        [("stdout", ">&-"), ("stderr", "2>&-"), ("both", ">&- 2>&-"), ("stdin too", "<&- >&- 2>&-")]
    {
        let out = world.folder(&format!("out {name}"));
        let script = format!("exec \"$0\" \"$@\" {redirect}");
        let ended = world
            .get(&content.magnet(), &out, &[seeder.addr])
            .behind("sh", ["-c", &script])
            .run(secs(60));
        assert_eq!(ended.code, 0, "{name} closed: {}", ended.stderr);
        content.assert_in(&out);
    }
    // A reader that goes away while the program goes on.
    let (there, addr, torrent) =
        (world.folder("there"), world.addr(), world.dir().join("it.torrent"));
    content.write_to(&there);
    std::fs::write(&torrent, content.torrent()).unwrap();
    let mut child = std::process::Command::new(crate::world::TRACKLESS)
        .args(["share", "--no-dht", "--listen", &addr.to_string(), "--state-dir"])
        .arg(world.folder("state"))
        .arg("--data")
        .arg(&there)
        .arg(&torrent)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    eventually("share listens", secs(30), || std::net::TcpStream::connect(addr).ok());
    let out = world.folder("from a share without streams");
    let get = world.get(&content.magnet(), &out, &[addr]).args(["--timeout", "30s"]).run(secs(60));
    let alive = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    let _ = child.wait();
    get.expect(0, "a download from a share whose streams are closed");
    assert!(alive, "share ended when its reader went away");
}

#[test]
fn home_that_is_missing_or_read_only_does_not_stop_a_download() {
    let world = World::new();
    let content = Content::single(63, 200_000, 32_768);
    let seeder = Seeder::start(world.addr(), &content, Script::honest());
    let cases: [(&str, Option<&str>); 4] = [
        ("unset", None),
        ("empty", Some("")),
        ("not there", Some("/nonexistent/home")),
        ("read-only even for root", Some("/proc")),
    ];
    for (what, home) in cases {
        let out = world.folder(&format!("home {what}"));
        let listen = world.addr().to_string();
        let mut launch = world
            .trackless(["get", &content.magnet(), "--no-dht", "--listen", &listen, "--peer"])
            .arg(seeder.addr.to_string())
            .arg("-o")
            .arg(&out)
            .without_env("HOME");
        if let Some(home) = home {
            launch = launch.env("HOME", home);
        }
        launch.run(secs(60)).expect(0, &format!("HOME is {what}"));
        content.assert_in(&out);
    }
}

#[test]
fn network_of_ipv6_alone_is_enough() {
    let free = |()| {
        let socket = UdpSocket::bind("[::1]:0").ok()?;
        TcpListener::bind(socket.local_addr().ok()?).ok()?.local_addr().ok()
    };
    if !have(free(()).map(drop).ok_or_else(|| "this machine has no IPv6 loopback".to_owned())) {
        return;
    }
    let world = World::new();
    let content = Content::tree(64, 500_000, 65_536);
    let path = content.write_to(&world.folder("there"));
    let addrs: Vec<SocketAddr> = (0..6).filter_map(|_| free(())).collect();
    let [router, second, sharing, getting, ..] = addrs[..] else { panic!("no ports: {addrs:?}") };
    let start = |addr: SocketAddr, args: &[&str], known: SocketAddr| {
        world
            .trackless(args)
            .args(["--listen", &addr.to_string(), "--bootstrap", &known.to_string(), "--state-dir"])
            .arg(world.folder(&format!("state-{}", addr.port())))
    };
    let _nodes =
        [start(router, &["node"], second).start(), start(second, &["node"], router).start()];
    let share = start(sharing, &["share", path.to_str().unwrap()], router).start();
    let magnet = share.stdout_line("magnet link", secs(60), |line| line.starts_with("magnet:"));
    let out = world.folder("out");
    let get = ["get", &magnet, "-o", out.to_str().unwrap(), "--timeout", "60s"];
    start(getting, &get, router).run(secs(90)).expect(0, "a download over IPv6 alone");
    content.assert_in(&out);
}

#[test]
fn stopped_for_a_while_a_download_goes_on() {
    let world = World::new();
    let content = Content::single(65, 1_000_000, 65_536);
    let slow = Script::honest().paced(Duration::from_millis(20));
    let seeder = Seeder::start(world.addr(), &content, slow);
    let out = world.folder("out");
    let mut get = world.get(&content.magnet(), &out, &[seeder.addr]).start();
    assert!(seeder.wait(secs(30), |log| log.blocks_sent > 5), "{}", get.last_words());
    get.signal(Signal::STOP);
    // The pause is what is tested; longer than any timer of a request.
    std::thread::sleep(secs(8));
    get.signal(Signal::CONT);
    get.wait(secs(90)).expect(0, "a download that was stopped for a while");
    content.assert_in(&out);
}

#[test]
fn thousand_idle_torrents_cost_little_memory_and_no_more_of_it_with_time() {
    let world = World::new();
    let dht = world.dht(3);
    let there = world.folder("there");
    let paths: Vec<_> = (0..1000).map(|n| there.join(format!("{n}.bin"))).collect();
    for (n, path) in paths.iter().enumerate() {
        std::fs::write(path, bytes(67, n, 1000 + n)).unwrap();
    }
    let share = world.trackless_at(
        world.addr(),
        ["share".as_ref()].into_iter().chain(paths.iter().map(|p| p.as_os_str())),
    );
    let share = share.args(dht.bootstrap_flags()).start();
    let announced =
        |line: &str| line.contains("sharing 1000 torrents") && line.contains("1000 announced");
    share.stderr_line("word that all are announced", secs(120), announced);
    // The pause is what is tested.
    let (before, worked) = (share.resident_kib(), share.cpu());
    std::thread::sleep(secs(20));
    let (after, worked) = (share.resident_kib(), share.cpu() - worked);
    assert!(after < 100 * 1024, "{after} KiB for 1000 torrents");
    assert!(after.saturating_sub(before) < 1024, "from {before} to {after} KiB in 20 s of rest");
    // Processor time, not time on the clock: 0.04 s were measured, and a busy machine adds little.
    assert!(worked < secs(2), "{worked:?} of work in 20 s of rest");
    let ended = share.terminate(secs(20)).expect(143, "1000 shares");
    let links = ended.stdout.lines().filter(|l| l.starts_with("magnet:")).count();
    assert_eq!((links, ended.stdout.lines().count()), (1000, 1000));
}
