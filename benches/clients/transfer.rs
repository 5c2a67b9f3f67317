//! One big file from one client to another, from the start of the second one's process until it has
//! everything and has checked it.

use std::time::Duration;

use crate::client::{Client, From, Took};
use crate::limits::{Limits, megabytes};
use crate::payload::Payload;
use crate::world::{World, secs};
use crate::{Plan, figure, head, median, row, say};

struct Run {
    took: Took,
    seeder_cpu: Duration,
}

/// Each pair that trackless is in, and each client with itself.
pub fn table(plan: &Plan) {
    let payload = Payload::new(plan.mib << 20, "1MiB");
    let limits = Limits::measure(&payload.file);
    let (mib, copy, sha1) = (plan.mib, limits.copy, limits.sha1);
    println!(
        "**One file of {mib} MiB over TCP**, from a link and the seeder's address; from process start to checked. The machine's own \
         copy from file to TCP to file took {copy:.0} MB/s in the same run, and its SHA-1 {sha1:.0} MB/s a core. What is resident \
         counts mapped file pages, which libtorrent and qbittorrent have many of.\n"
    );
    head(&[
        "seeder → downloader",
        "MB/s",
        "of the copy",
        "CPU s/GiB, seeder",
        "downloader",
        "peak MiB resident, downloader",
    ]);
    for (seeder, leecher) in pairs(&plan.others) {
        let name = format!("{} → {}", seeder.name(), leecher.name());
        let mut runs = Vec::new();
        let mut fault = None;
        // A pair that takes a minute has shown what there is to see.
        while runs.len() < plan.runs && runs.iter().all(|run: &Run| run.took.time < secs(30)) {
            match one(seeder, leecher, &payload) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    say(&format!("{name}: {error}"));
                    fault = Some(error);
                    break;
                }
            }
        }
        print(&name, &runs, plan.mib << 20, copy, fault.is_some());
    }
}

fn pairs(others: &[Client]) -> Vec<(Client, Client)> {
    let ours = Client::Trackless;
    let of = |client: &Client| [(*client, ours), (ours, *client), (*client, *client)];
    [(ours, ours)].into_iter().chain(others.iter().flat_map(of)).collect()
}

fn one(seeder: Client, leecher: Client, payload: &Payload) -> Result<Run, String> {
    let world = World::new();
    let seeding = seeder.seed(&world, &payload.torrent, &payload.file);
    let link = seeding.links.first().unwrap_or(&payload.link);
    let out = world.folder("out");
    let before = seeding.program.cpu();
    let took = leecher.get(&world, link, &out, From::Peer(seeding.addr)).wait(secs(150))?;
    let seeder_cpu = seeding.program.cpu().saturating_sub(before);
    payload.check(&out)?;
    Ok(Run { took, seeder_cpu })
}

fn print(name: &str, runs: &[Run], bytes: u64, copy: f64, failed: bool) {
    let gib = bytes as f64 / f64::from(1 << 30);
    let rate = median(runs.iter().map(|run| megabytes(bytes, run.took.time)));
    let cells = [
        if failed { format!("{name} (failed)") } else { name.to_owned() },
        figure(rate, 0),
        figure(rate.map(|rate| rate / copy), 2),
        figure(median(runs.iter().map(|run| run.seeder_cpu.as_secs_f64() / gib)), 1),
        figure(median(runs.iter().map(|run| run.took.cpu.as_secs_f64() / gib)), 1),
        figure(median(runs.iter().map(|run| run.took.peak_kib as f64 / 1024.0)), 0),
    ];
    row(&cells);
    say(&cells.join("  "));
}
