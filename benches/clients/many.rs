//! Many at once: torrents that rest, connections on one torrent, downloads side by side.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trackless::driver::{AddTorrent, Session, SessionConfig, TorrentEvent};
use trackless::swarm::Event;

use crate::client::{Client, Working};
use crate::limits::{megabytes, random_file};
use crate::world::{World, secs};
use crate::{Plan, figure, head, median, resolving, row, say};

/// A line for each.
pub fn table(plan: &Plan) {
    println!("**Many at once**, in one process each.\n");
    head(&["what", "figure"]);
    let print = |what: String, figure: String| {
        say(&format!("{what}: {figure}"));
        row(&[what, figure]);
    };
    let idle = idle();
    let what =
        format!("resident for each of {TORRENTS} torrents that are shared, announced and idle");
    print(what, format!("{:.1} KiB", idle.kib_each));
    print(
        format!("processor at rest, all {TORRENTS} together"),
        format!("{:.2} % of a core", idle.cpu_percent),
    );
    print(
        "DHT queries at rest, ours and others', all together".to_owned(),
        format!("{:.1} a second", idle.datagrams),
    );
    let runs: Vec<Served> = (0..plan.runs).map(|_| connections()).collect();
    let what =
        format!("one seeder, one torrent of {} MiB, {PEERS} downloaders at once", FILE >> 20);
    print(what, in_words(&runs, "seeder"));
    let runs: Vec<Served> = (0..plan.runs).filter_map(|_| parallel()).collect();
    let what = format!(
        "{DOWNLOADS} torrents of {} MiB downloaded side by side from one seeder",
        EACH >> 20
    );
    print(what, in_words(&runs, "downloader"));
}

// The medians; what it cost is that of one end.
fn in_words(runs: &[Served], end: &str) -> String {
    let of = |what: fn(&Served) -> f64, digits| figure(median(runs.iter().map(what)), digits);
    let (rate, cpu, peak) = (of(|run| run.rate, 0), of(|run| run.cpu, 1), of(|run| run.peak, 0));
    format!("{rate} MB/s in all, {cpu} CPU s/GiB and {peak} MiB for the {end}")
}

struct Idle {
    kib_each: f64,
    cpu_percent: f64,
    datagrams: f64,
}

fn idle() -> Idle {
    let world = World::new();
    let dht = world.dht(8);
    let (one, _) = resolving::share(&world, Some(&dht), &files(&world, "one", 1, 1000));
    one.program
        .stderr_line("word that it is announced", secs(60), |line| line.contains("announced to"));
    let (all, _) = resolving::share(&world, Some(&dht), &files(&world, "all", TORRENTS, 1000));
    let wanted = format!("{TORRENTS} announced");
    all.program
        .stderr_line("word that all are announced", secs(240), |line| line.contains(&wanted));
    std::thread::sleep(secs(5));
    let (cpu, sent) = (all.program.cpu(), datagrams_sent());
    std::thread::sleep(REST);
    let kib = all.program.resident_kib().saturating_sub(one.program.resident_kib());
    Idle {
        kib_each: kib as f64 / (TORRENTS - 1) as f64,
        cpu_percent: (all.program.cpu() - cpu).as_secs_f64() / REST.as_secs_f64() * 100.0,
        datagrams: (datagrams_sent() - sent) as f64 / REST.as_secs_f64(),
    }
}

// Of this network; outside a private one that is everybody's.
fn datagrams_sent() -> u64 {
    let snmp = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let line = snmp.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap_or_default();
    line.split(' ').nth(4).and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn files(world: &World, name: &str, count: usize, len: u64) -> Vec<PathBuf> {
    let there = world.folder(name);
    let make = |n: usize| {
        let path = there.join(format!("{name}-{n:05}.bin"));
        random_file(&path, len);
        path
    };
    (0..count).map(make).collect()
}

struct Served {
    rate: f64,
    cpu: f64,
    peak: f64,
}

// The downloaders are sessions of this process: they cost the machine what they cost, and the seeder's
// share is its own.
fn connections() -> Served {
    let world = World::new();
    let file = files(&world, "there", 1, FILE).remove(0);
    let seeding = Client::Trackless.seed(&world, Path::new(""), &file);
    let before = seeding.program.cpu();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let started = Instant::now();
    runtime.block_on(async {
        let downloads = (0..PEERS).map(|n| {
            // An address each: a seeder greets few strangers from one at a time.
            let (out, listen) = (world.folder(&format!("out-{n}")), vec![world.addr()]);
            let (link, peer) = (seeding.links[0].clone(), seeding.addr);
            tokio::spawn(async move {
                // One connection each: all of them come from the seeder.
                let config = SessionConfig {
                    listen,
                    dht: false,
                    accept: false,
                    connections_max: 1,
                    ..SessionConfig::default()
                };
                let session = Session::start(config).await.unwrap();
                let mut add = AddTorrent::magnet(&link).unwrap().into_dir(out);
                add.peers = vec![peer];
                let mut torrent = session.add(add).await.unwrap();
                while let Some(event) = torrent.next_event().await {
                    if matches!(event, TorrentEvent::Swarm(Event::Finished)) {
                        break;
                    }
                }
                session
            })
        });
        for download in downloads.collect::<Vec<_>>() {
            drop(download.await.unwrap());
        }
    });
    let (time, cpu) = (started.elapsed(), seeding.program.cpu() - before);
    served(time, FILE * PEERS, cpu, seeding.program.peak_kib())
}

fn served(time: Duration, bytes: u64, cpu: Duration, peak_kib: u64) -> Served {
    let gib = bytes as f64 / f64::from(1 << 30);
    Served {
        rate: megabytes(bytes, time),
        cpu: cpu.as_secs_f64() / gib,
        peak: peak_kib as f64 / 1024.0,
    }
}

fn parallel() -> Option<Served> {
    let world = World::new();
    let (seeding, links) = resolving::share(&world, None, &files(&world, "there", DOWNLOADS, EACH));
    let started = Instant::now();
    let get = world.trackless_at(world.addr(), [&["get".to_owned()], &links[..]].concat());
    let get = get.arg("-o").arg(world.folder("out")).args([
        "--no-dht",
        "--peer",
        &seeding.addr.to_string(),
    ]);
    let took = Working::new(started, get.start()).wait(secs(120));
    let took = took.map_err(|error| say(&format!("downloads side by side: {error}"))).ok()?;
    Some(served(took.time, EACH * DOWNLOADS as u64, took.cpu, took.peak_kib))
}

const TORRENTS: usize = 1000;
const REST: Duration = Duration::from_secs(20);
const PEERS: u64 = 200;
const FILE: u64 = 8 << 20;
const DOWNLOADS: usize = 100;
const EACH: u64 = 4 << 20;
