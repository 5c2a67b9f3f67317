//! Many at once: links by the thousand, downloads by the hundred, a crowd at one seeder. All of them
//! come to an end, in memory that has a bound.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use trackless::driver::{AddTorrent, Session, SessionConfig, TorrentEvent};
use trackless::swarm::Event;

use crate::faults::tracing;
use crate::world::content::bytes;
use crate::world::{Program, World, have, secs};

// One process that shares so many files of so many bytes; their links.
fn share(
    world: &World,
    files: usize,
    len: usize,
    flags: &[&str],
) -> (Program, SocketAddr, Vec<String>, PathBuf) {
    let there = world.folder("there");
    let paths: Vec<_> = (0..files).map(|n| there.join(format!("{n:04}.bin"))).collect();
    for (n, path) in paths.iter().enumerate() {
        std::fs::write(path, bytes(83, n, len + n % 7)).unwrap();
    }
    let addr = world.addr();
    let share = world.trackless_at(addr, ["share", "--no-dht"]).args(flags).args(&paths).start();
    let links = share.stdout_lines(files, secs(60));
    (share, addr, links, there)
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

#[test]
fn thousands_of_links_end_in_a_result_or_a_cause_each() {
    let world = World::new();
    let (_share, peer, mut lines, _) = share(&world, 2000, 1000, &[]);
    let known = lines.len();
    lines.extend((0..20).map(|n| format!("magnet:?xt=urn:btih:{n:040x}")));
    lines.extend((0..20).map(|n| format!("this is no link, {n}")));
    let list = world.dir().join("links.txt");
    std::fs::write(&list, lines.join("\n") + "\n").unwrap();
    let resolve =
        world.trackless_at(world.addr(), ["resolve", "--no-dht", "--json", "--jobs", "100"]);
    let resolve = resolve.args(["--timeout", "30s", "--peer", &peer.to_string(), "-i"]).arg(&list);
    let ended = resolve.arg("-o").arg(world.folder("out")).run(secs(240));
    let said: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut answered: Vec<&str> = said.iter().filter_map(|line| line["link"].as_str()).collect();
    let good = said.iter().filter(|line| line["code"] == 0).count();
    let causes = said.iter().filter(|line| line["error"].is_string()).count();
    assert_eq!((good, causes), (known, lines.len() - known), "{}", ended.stderr);
    answered.sort_unstable();
    lines.sort_unstable();
    assert_eq!(answered, lines, "a line each");
    assert_eq!(std::fs::read_dir(world.folder("out")).unwrap().count(), known);
    ended.expect_memory_below(64, "thousands of links");
}

#[test]
fn hundred_downloads_run_side_by_side() {
    let world = World::new();
    let (_share, peer, links, there) = share(&world, 100, 300_000, &[]);
    let out = world.folder("out");
    let get = world.trackless_at(world.addr(), ["get".to_owned()].iter().chain(&links));
    let get = get.args(["--no-dht", "--peer", &peer.to_string(), "-o"]).arg(&out);
    let ended = get.run(secs(120)).expect(0, "100 downloads");
    assert_eq!(ended.stdout.lines().count(), links.len(), "a path each");
    for entry in std::fs::read_dir(&there).unwrap() {
        let path = entry.unwrap().path();
        assert!(same(&path, &out.join(path.file_name().unwrap())), "{}", path.display());
    }
    ended.expect_memory_below(96, "100 downloads");
}

// Each write takes 3 ms, and a sixth of what is on its way fits into what may wait.
#[test]
fn downloads_whose_disk_is_slow_do_not_pile_up_in_memory() {
    if !have(tracing()) {
        return;
    }
    let world = World::new();
    let (_share, peer, links, there) = share(&world, 24, 6_000_000, &["--no-super-seeding"]);
    let out = world.folder("out");
    let get = world.trackless_at(world.addr(), ["get".to_owned()].iter().chain(&links));
    let get = get.args(["--no-dht", "--peer", &peer.to_string(), "-o"]).arg(&out);
    let slow = "inject=pwrite64,pwritev,pwritev2:delay_enter=3000";
    let calls = "trace=pwrite64,pwritev,pwritev2";
    // The tracer is a process beside the one whose memory is looked at, not in front of it.
    let strace = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", calls, "-e", slow];
    let ended = get.behind("strace", strace).run(secs(120)).expect(0, "downloads on a slow disk");
    for entry in std::fs::read_dir(&there).unwrap() {
        let path = entry.unwrap().path();
        assert!(same(&path, &out.join(path.file_name().unwrap())), "{}", path.display());
    }
    ended.expect_memory_below(96, "downloads on a slow disk");
}

#[test]
fn crowd_of_two_hundred_is_served_by_one_seeder() {
    let world = World::new();
    let (mut share, peer, links, there) = share(&world, 1, 400_000, &["--no-super-seeding"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let finished = runtime.block_on(async {
        let downloads: Vec<_> = (0..200)
            .map(|n| {
                download(world.addr(), world.folder(&format!("out-{n}")), links[0].clone(), peer)
            })
            .map(tokio::spawn)
            .collect();
        let mut finished = Vec::new();
        for download in downloads {
            finished.push(tokio::time::timeout(secs(120), download).await.unwrap().unwrap());
        }
        finished
    });
    share.expect_alive("a seeder with a crowd");
    assert_eq!(finished.len(), 200);
    for out in finished {
        assert!(same(&there.join("0000.bin"), &out.join("0000.bin")), "{}", out.display());
    }
    assert!(share.peak_kib() < 96 * 1024, "{} KiB for 200 connections", share.peak_kib());
}

// A downloader with one connection, in this process: a session of its own.
async fn download(at: SocketAddr, out: PathBuf, link: String, peer: SocketAddr) -> PathBuf {
    let config = SessionConfig {
        listen: vec![at],
        dht: false,
        accept: false,
        connections_max: 1,
        ..SessionConfig::default()
    };
    let session = Session::start(config).await.unwrap();
    let mut add = AddTorrent::magnet(&link).unwrap().into_dir(&out);
    add.peers = vec![peer];
    let mut torrent = session.add(add).await.unwrap();
    while let Some(event) = torrent.next_event().await {
        match event {
            TorrentEvent::Swarm(Event::Finished) => break,
            TorrentEvent::Swarm(Event::Failed(error)) => panic!("{}", error.message),
            _ => {}
        }
    }
    session.shutdown().await;
    out
}
