//! What rate limits come to: several torrents of one client share its limit, and so do those of the
//! clients that download from it.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;

use super::downloads::info_dictionary;
use crate::base::budget::RateLimits;
use crate::base::hash::sha1;
use crate::base::{InfoHash, Rng};
use crate::engine::{AddTorrent, TorrentId};
use crate::sim::client::Client;
use crate::sim::disk::{DiskFaults, MemoryDisk};
use crate::sim::link::{Line, Weather};
use crate::sim::{HostId, World};

/// Who shares what, and how fast it may flow.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// Torrents, each of one file.
    pub torrents: u32,
    /// Clients that download, each all torrents.
    pub downloaders: u32,
    /// Bytes of each file.
    pub size: u32,
    /// Bytes a second that the one who shares may send, of all torrents.
    pub up: Option<NonZeroU64>,
    /// Bytes a second that each downloader may receive, of all torrents.
    pub down: Option<NonZeroU64>,
    /// How long is looked on, after a start of ten seconds.
    pub time: Duration,
}

/// What flowed, in bytes a second.
#[derive(Debug, Clone)]
pub struct Report {
    /// From the one who shares.
    pub sent: f64,
    /// To each downloader.
    pub received: Vec<f64>,
    /// Of each torrent.
    pub torrents: Vec<f64>,
}

/// Runs the scenario.
pub fn run(options: Options) -> Report {
    let mut rng = Rng::from_seed(super::seed(options.seed));
    let mut world = World::new(Weather::internet(), rng.fork());
    let contents: Vec<Bytes> = (0..options.torrents).map(|_| content(&mut rng, options)).collect();
    let share = RateLimits { down: None, up: options.up };
    let (sharer, shared) = join(&mut world, &mut rng, &contents, Role::Shares, share);
    let from = world.addr(sharer);
    let fetch = RateLimits { down: options.down, up: NonZeroU64::new(1) };
    let mut downloaders = Vec::new();
    for _ in 0..options.downloaders {
        let (host, torrents) = join(&mut world, &mut rng, &contents, Role::Fetches, fetch);
        for torrent in &torrents {
            world.command(host, |client, now| client.add_peers(now, *torrent, &[from]));
        }
        downloaders.push((host, torrents));
    }
    world.run_for(START);
    let figures = |world: &World<Client>| {
        let of = |host: HostId, torrent: TorrentId| {
            let client = world.core(host).and_then(|client| client.engine().torrent(torrent));
            client.map(|torrent| torrent.status(world.now()))
        };
        let sent = shared.iter().filter_map(|t| Some(of(sharer, *t)?.uploaded as f64));
        let received = downloaders.iter().map(|(host, torrents)| {
            torrents.iter().filter_map(|t| Some(of(*host, *t)?.downloaded as f64)).sum::<f64>()
        });
        (sent.collect::<Vec<_>>(), received.collect::<Vec<_>>())
    };
    let before = figures(&world);
    world.run_for(options.time);
    let after = figures(&world);
    let rates = |after: &[f64], before: &[f64]| -> Vec<f64> {
        let pairs = after.iter().zip(before);
        pairs.map(|(after, before)| (after - before) / options.time.as_secs_f64()).collect()
    };
    let torrents = rates(&after.0, &before.0);
    Report { sent: torrents.iter().sum(), received: rates(&after.1, &before.1), torrents }
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Shares,
    Fetches,
}

fn content(rng: &mut Rng, options: Options) -> Bytes {
    let mut content = vec![0; options.size as usize];
    rng.fill(&mut content);
    content.into()
}

fn join(
    world: &mut World<Client>,
    rng: &mut Rng,
    contents: &[Bytes],
    role: Role,
    limits: RateLimits,
) -> (HostId, Vec<TorrentId>) {
    let host =
        world.add(Line::default(), |addr, seed, now| Client::new(addr, seed, now, DISK_TIME));
    world.command(host, |client, now| client.set_limits(now, limits));
    let mut torrents = Vec::new();
    for content in contents {
        let info = info_dictionary(content, PIECE_LEN);
        let mut add = AddTorrent::new(InfoHash::new(sha1(&info)));
        add.info = Some(info);
        add.super_seeding = false;
        let (faults, seed) = (DiskFaults::default(), rng.fork());
        let disk = match role {
            Role::Shares => MemoryDisk::with_content(content.clone(), faults, seed),
            Role::Fetches => MemoryDisk::new(faults, seed),
        };
        let added = world.command(host, |client, now| client.add(now, add, disk));
        torrents.extend(added.and_then(Result::ok));
    }
    (host, torrents)
}

/// How long the start takes: connections are made, and first portions used up.
const START: Duration = Duration::from_secs(10);
const PIECE_LEN: u32 = 64 * 1024;
const DISK_TIME: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let (size, time) = (12 << 20, Duration::from_secs(60));
        Options { seed: 1, torrents: 4, downloaders: 2, size, up: None, down: None, time }
    }

    #[track_caller]
    fn assert_near(got: f64, wanted: f64, off: f64) {
        assert!((got / wanted - 1.0).abs() < off, "{got} instead of {wanted}");
    }

    #[test]
    fn torrents_of_one_client_share_its_upload_limit_alike() {
        let options = Options { up: NonZeroU64::new(500_000), ..options() };
        let report = run(options);
        println!("{options:?}\n{report:?}");
        assert_near(report.sent, 500_000.0, 0.02);
        report.torrents.iter().for_each(|rate| assert_near(*rate, 125_000.0, 0.25));
        report.received.iter().for_each(|rate| assert_near(*rate, 250_000.0, 0.25));
    }

    #[test]
    fn torrents_of_one_client_share_its_download_limit_alike() {
        let options = Options { down: NonZeroU64::new(200_000), ..options() };
        let report = run(options);
        println!("{options:?}\n{report:?}");
        report.received.iter().for_each(|rate| assert_near(*rate, 200_000.0, 0.02));
        report.torrents.iter().for_each(|rate| assert_near(*rate, 100_000.0, 0.25));
    }

    #[test]
    fn many_torrents_under_a_low_limit_all_move() {
        let (torrents, size) = (30, 2 << 20);
        let options = Options {
            torrents,
            size,
            up: NonZeroU64::new(100_000),
            time: Duration::from_secs(180),
            ..options()
        };
        let report = run(options);
        println!("{options:?}\n{report:?}");
        assert_near(report.sent, 100_000.0, 0.02);
        assert!(report.torrents.iter().all(|rate| *rate > 1_000.0), "{:?}", report.torrents);
    }
}
