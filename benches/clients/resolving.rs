//! From links to info dictionaries: one link, a hundred, ten thousand.

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Client, From, JOBS, Seeding, Took, libtorrent_seed};
use crate::payload::{bare, torrent_of};
use crate::world::krpc::Probe;
use crate::world::{Dht, Program, World, info_hash_of, secs};
use crate::{Plan, figure, head, median, row, say};

/// One link, of a torrent with 2048 pieces.
pub fn metadata(plan: &Plan) {
    println!(
        "**Time to the metadata** of 2048 pieces (41 kB), from process start to the end of the process: over a private DHT of {NODES} \
         nodes, and from a peer whose address is given.\n"
    );
    head(&["client", "over the DHT, s", "direct, s"]);
    for client in clients(plan) {
        let over_dht = (0..plan.runs).map_while(|_| one(plan, client, true));
        let over_dht = median(over_dht.collect::<Vec<f64>>());
        let direct = (0..plan.runs).map_while(|_| one(plan, client, false));
        let direct = median(direct.collect::<Vec<f64>>());
        row(&[client.name().to_owned(), figure(over_dht, 2), figure(direct, 2)]);
    }
}

fn clients(plan: &Plan) -> impl Iterator<Item = Client> {
    let others = plan.others.clone().into_iter().filter(|c| *c != Client::Qbittorrent);
    std::iter::once(Client::Trackless).chain(others)
}

fn one(plan: &Plan, client: Client, over_dht: bool) -> Option<f64> {
    let rig = Rig::new(plan, &[512 << 20], 1 << 18, over_dht);
    let took = rig.resolve(client)?;
    Some(took.time.as_secs_f64())
}

/// Many links in one process.
pub fn bulk(plan: &Plan) {
    let links = plan.links;
    println!(
        "**Many links in one process**: small torrents of one seeder, over a private DHT of {NODES} nodes ({} for {links} links), \
         and from the seeder's address. A dash says that not all were resolved in this set-up, not that a client cannot. trackless had {JOBS} of {links} under way at a time.\n",
        nodes_for(links)
    );
    head(&["client", "links", "over the DHT, s", "peak MiB", "direct, s", "peak MiB"]);
    for (count, runs) in [(100, plan.runs), (links, 1)] {
        let is_large = count > 100;
        for client in clients(plan).filter(|client| match client {
            Client::Trackless => true,
            Client::Libtorrent | Client::Rqbit => !is_large,
            Client::Aria2 | Client::Transmission | Client::Qbittorrent => false,
        }) {
            let mut cells = vec![client.name().to_owned(), count.to_string()];
            for over_dht in [true, false] {
                let took: Vec<Took> = (0..runs)
                    .map_while(|_| {
                        Rig::new(plan, &vec![20_000; count], 1 << 15, over_dht).resolve(client)
                    })
                    .collect();
                cells.push(figure(median(took.iter().map(|took| took.time.as_secs_f64())), 2));
                cells
                    .push(figure(median(took.iter().map(|took| took.peak_kib as f64 / 1024.0)), 0));
            }
            say(&cells.join("  "));
            row(&cells);
        }
    }
}

// Torrents of one file each, and somebody who seeds them.
struct Rig {
    world: World,
    dht: Option<Dht>,
    seeding: Seeding,
    links: Vec<String>,
}

impl Rig {
    fn new(plan: &Plan, sizes: &[u64], piece: u32, over_dht: bool) -> Self {
        let world = World::new();
        let there = world.folder("there");
        let files: Vec<PathBuf> =
            (0..sizes.len()).map(|n| there.join(format!("content-{n:05}.bin"))).collect();
        for (n, (file, len)) in files.iter().zip(sizes).enumerate() {
            // Only the first bytes differ: the content is never asked for.
            std::fs::write(file, format!("{n:05}")).unwrap();
            std::fs::File::options().write(true).open(file).unwrap().set_len(*len).unwrap();
        }
        let dht = over_dht.then(|| world.dht(nodes_for(files.len())));
        // libtorrent announces a torrent every four seconds: of many it would take minutes.
        let (seeding, links) = if plan.has(Client::Libtorrent) && files.len() == 1 {
            seed_by_libtorrent(&world, dht.as_ref(), &files, piece)
        } else {
            share(&world, dht.as_ref(), &files)
        };
        if let Some(dht) = &dht {
            let probe = Probe::at(world.ip());
            for link in &links {
                dht.wait_for_peer(&probe, &info_hash_of(link), seeding.addr, 120);
            }
        }
        Self { world, dht, seeding, links }
    }

    fn resolve(&self, client: Client) -> Option<Took> {
        let from = match &self.dht {
            Some(dht) => From::Dht(dht),
            None => From::Peer(self.seeding.addr),
        };
        let limit =
            secs(90).max(Duration::from_millis(30) * u32::try_from(self.links.len()).unwrap());
        let took = client.resolve(&self.world, &self.links, from)?.wait(limit);
        let how = if self.dht.is_some() { "over the DHT" } else { "direct" };
        say(&format!("{} {how}: {took:.2?}", client.name()));
        took.ok()
    }
}

fn seed_by_libtorrent(
    world: &World,
    dht: Option<&Dht>,
    files: &[PathBuf],
    piece: u32,
) -> (Seeding, Vec<String>) {
    let mut torrents = Vec::new();
    let mut links = Vec::new();
    for file in files {
        let (torrent, link) = torrent_of(world, file, &piece.to_string());
        torrents.push(torrent);
        links.push(link);
    }
    let dir = files[0].parent().unwrap();
    (libtorrent_seed(world, dht, dir, &torrents), links)
}

/// One process of ours that shares many files.
pub fn share(world: &World, dht: Option<&Dht>, files: &[PathBuf]) -> (Seeding, Vec<String>) {
    let addr = world.addr();
    let launch = world.trackless_at(addr, ["share", "--flows-per-second", "off"]);
    let launch = match dht {
        Some(dht) => launch.args(dht.bootstrap_flags()),
        None => launch.arg("--no-dht"),
    };
    let program: Program = launch.args(files).start();
    let count = files.len();
    let links = program.stdout_lines(count, secs(120)).iter().map(|link| bare(link)).collect();
    (Seeding { addr, links: Vec::new(), program }, links)
}

// A node stores 2000 torrents, and eight nodes hold each: half of their room is left.
fn nodes_for(torrents: usize) -> usize {
    NODES.max(torrents * 8 / 1000)
}

/// Of the private DHT.
pub const NODES: usize = 20;
