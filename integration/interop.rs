//! trackless and the real clients move a multi-file torrent of odd sizes over a private DHT, from
//! nothing but a magnet link, in both directions, and every file has the right SHA-256.

use std::path::Path;

use crate::clients::{Client, wait_announced};
use crate::world::{Content, World, have, netns, secs};

fn content() -> Content {
    Content::tree(71, 3_000_000, 65_536)
}

fn client_leeches_from_trackless(client: Client) {
    if !have(client.installed()) {
        return;
    }
    let world = World::new();
    let dht = world.dht(NODES);
    let content = content();
    let path = content.write_to(&world.folder("there"));
    let sharing = world.share_on(&dht, &path);
    let probe = crate::world::krpc::Probe::at(world.ip());
    dht.wait_for_peer(&probe, &sharing.info_hash(), sharing.addr, 60);
    let out = world.folder("out");
    client.get(&world, &dht, &sharing.magnet, &out).finish(CLIENT_LIMIT_SECS);
    compare(client, &content, &out);
}

fn compare(client: Client, content: &Content, out: &Path) {
    if client.creates_empty_files() {
        content.assert_in(out);
    } else {
        content.assert_in_but_empty_files(out);
    }
}

fn trackless_leeches_from_client(client: Client) {
    if !have(client.installed()) {
        return;
    }
    let world = World::new();
    let dht = world.dht(NODES);
    let content = content();
    let there = world.folder("there");
    content.write_to(&there);
    let torrent = world.dir().join("it.torrent");
    std::fs::write(&torrent, content.torrent()).unwrap();
    let seeding = client.seed(&world, &dht, &torrent, &there);
    wait_announced(&world, &dht, &content.info_hash(), &seeding, CLIENT_LIMIT_SECS);
    let out = world.folder("out");
    world
        .trackless_at(world.addr(), ["get", &content.magnet()])
        .args(dht.bootstrap_flags())
        .arg("-o")
        .arg(&out)
        .run(secs(90))
        .expect(0, "a download from a real client");
    content.assert_in(&out);
}

#[test]
fn libtorrent_leeches_from_trackless() {
    netns::inside("interop::libtorrent_leeches_from_trackless", || {
        client_leeches_from_trackless(Client::Libtorrent);
    });
}

#[test]
fn transmission_leeches_from_trackless() {
    netns::inside("interop::transmission_leeches_from_trackless", || {
        client_leeches_from_trackless(Client::Transmission);
    });
}

#[test]
fn aria2_leeches_from_trackless() {
    netns::inside("interop::aria2_leeches_from_trackless", || {
        client_leeches_from_trackless(Client::Aria2);
    });
}

#[test]
fn trackless_leeches_from_libtorrent() {
    netns::inside("interop::trackless_leeches_from_libtorrent", || {
        trackless_leeches_from_client(Client::Libtorrent);
    });
}

#[test]
fn trackless_leeches_from_transmission() {
    netns::inside("interop::trackless_leeches_from_transmission", || {
        trackless_leeches_from_client(Client::Transmission);
    });
}

#[test]
fn trackless_leeches_from_aria2() {
    netns::inside("interop::trackless_leeches_from_aria2", || {
        trackless_leeches_from_client(Client::Aria2);
    });
}

#[test]
fn trackless_leeches_from_trackless_over_the_dht_alone() {
    let world = World::new();
    let dht = world.dht(8);
    let content = content();
    let path = content.write_to(&world.folder("there"));
    let sharing = world.share_on(&dht, &path);
    let out = world.folder("out");
    world
        .trackless_at(world.addr(), ["get", &sharing.magnet])
        .args(dht.bootstrap_flags())
        .arg("-o")
        .arg(&out)
        .run(secs(90))
        .expect(0, "a download from trackless");
    content.assert_in(&out);
    // The torrent that `resolve` writes is one that others can use: the same hash.
    let torrent = world.dir().join("resolved.torrent");
    world
        .trackless_at(world.addr(), ["resolve", &sharing.magnet, "-o"])
        .arg(&torrent)
        .args(dht.bootstrap_flags())
        .run(secs(60))
        .expect(0, "resolve");
    world.trackless(["verify"]).arg(&torrent).arg(&out).run(secs(60)).expect(0, "verify");
}

#[test]
fn swarm_without_its_seeder_finishes_from_each_other() {
    let world = World::new();
    let dht = world.dht(6);
    let content = Content::tree(72, 2_000_000, 65_536);
    let path = content.write_to(&world.folder("there"));
    let sharing = world.share_on(&dht, &path);
    let start = |n: usize| {
        let out = world.folder(&format!("out-{n}"));
        let launch = world
            .trackless_at(world.addr(), ["get", &sharing.magnet, "--seed=forever"])
            .args(dht.bootstrap_flags())
            .arg("-o")
            .arg(&out);
        (launch.start(), out)
    };
    let first: Vec<_> = (0..3).map(start).collect();
    for (program, out) in &first {
        program.stdout_line("saved path", secs(90), |line| line.contains(&content.name));
        content.assert_in(out);
    }
    // The source goes; who comes now is served by those who have it.
    sharing.program.terminate(secs(20));
    let (late, out) = start(9);
    late.stdout_line("saved path", secs(90), |line| line.contains(&content.name));
    content.assert_in(&out);
}

/// Enough nodes for Transmission, which does not search with fewer than nine.
const NODES: usize = 14;
/// Transmission and aria2 begin to look for peers after half a minute of their own timers.
const CLIENT_LIMIT_SECS: u64 = 150;
