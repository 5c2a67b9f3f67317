//! Making a torrent, and checking data against one.

use std::path::Path;
use std::time::Instant;

use crate::client::{Client, Took, Working, libtorrent_offline};
use crate::limits::{Limits, megabytes, random_file};
use crate::world::{Launch, World, installed, secs};
use crate::{Plan, figure, head, median, row, say};

/// 2 GiB in pieces of 1 MiB.
pub fn table(plan: &Plan) {
    let world = World::new();
    let bytes = plan.mib << 21;
    let file = world.dir().join("payload.bin");
    random_file(&file, bytes);
    let torrent = world.dir().join("payload.torrent");
    create_ours(&world, &file, &torrent).run(secs(60)).expect(0, "a torrent");
    println!(
        "**A torrent of {} MiB made, and its data verified**, in pieces of 1 MiB. SHA-1 took {:.0} MB/s a core.\n",
        bytes >> 20,
        Limits::measure_sha1()
    );
    head(&["what", "MB/s", "CPU s", "peak MiB resident"]);
    let made = world.dir().join("made.torrent");
    let scratch = world.folder("scratch");
    for (name, launch) in commands(plan, &world, &file, &torrent, &made, &scratch) {
        let mut runs: Vec<Took> = Vec::new();
        for _ in 0..plan.runs {
            let _ = std::fs::remove_file(&made);
            match Working::new(Instant::now(), launch().start()).wait(secs(60)) {
                Ok(took) => runs.push(took),
                Err(error) => say(&format!("{name}: {error}")),
            }
        }
        let cells = [
            name.to_owned(),
            figure(median(runs.iter().map(|took| megabytes(bytes, took.time))), 0),
            figure(median(runs.iter().map(|took| took.cpu.as_secs_f64())), 2),
            figure(median(runs.iter().map(|took| took.peak_kib as f64 / 1024.0)), 0),
        ];
        say(&cells.join("  "));
        row(&cells);
    }
}

type Make<'a> = Box<dyn Fn() -> Launch + 'a>;

fn commands<'a>(
    plan: &Plan,
    world: &'a World,
    file: &'a Path,
    torrent: &'a Path,
    made: &'a Path,
    scratch: &'a Path,
) -> Vec<(&'static str, Make<'a>)> {
    let dir = file.parent().unwrap();
    let mut all: Vec<(&'static str, Make<'a>)> =
        vec![("create: trackless", Box::new(move || create_ours(world, file, made)))];
    if installed("mktorrent").is_ok() {
        let mktorrent = |threads: &'static str| -> Make<'a> {
            let launch =
                move || Launch::new("mktorrent").args(["-t", threads, "-l", "20", "-d", "-o"]);
            Box::new(move || launch().arg(made).arg(file))
        };
        all.push(("create: mktorrent -t 2", mktorrent("2")));
        all.push(("create: mktorrent -t 1", mktorrent("1")));
    }
    if installed("transmission-create").is_ok() {
        let make = move || {
            Launch::new("transmission-create").args(["-s", "1024", "-o"]).arg(made).arg(file)
        };
        all.push(("create: transmission", Box::new(make)));
    }
    if plan.has(Client::Libtorrent) {
        let make =
            move || libtorrent_offline("create").arg(file).arg(made).args(["--piece", "1048576"]);
        all.push(("create: libtorrent", Box::new(make)));
    }
    let verify = move || world.trackless(["verify"]).arg(torrent).arg(dir);
    all.push(("verify: trackless", Box::new(verify)));
    if plan.has(Client::Libtorrent) {
        let check = move || libtorrent_offline("check").arg(torrent).arg(dir);
        all.push(("verify: libtorrent", Box::new(check)));
    }
    if plan.has(Client::Aria2) {
        let check = move || {
            Launch::new("aria2c")
                .args(["--no-conf=true", "--check-integrity=true", "--hash-check-only=true"])
                .args(["--seed-time=0", "--enable-dht=false", "--enable-dht6=false"])
                .args(["--bt-enable-lpd=false", "--summary-interval=0"])
                .arg(format!("--dir={}", dir.display()))
                .arg(torrent)
                .cwd(scratch)
        };
        all.push(("verify: aria2", Box::new(check)));
    }
    all
}

fn create_ours(world: &World, file: &Path, out: &Path) -> Launch {
    world.trackless(["create", "--piece-length", "1MiB", "-o"]).arg(out).arg(file)
}
