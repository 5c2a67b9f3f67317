//! Rate limits of one torrent, and torrents at rest.

use std::num::NonZeroU64;
use std::time::Duration;

use super::sample;
use super::world::{Sample, World};
use crate::base::budget::RateLimits;
use crate::peer::CloseReason;
use crate::swarm::{Config, DiskRequest, Event, Phase};
use crate::wire::bitfield::Bitfield;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn down(rate: u64) -> RateLimits {
    RateLimits { down: NonZeroU64::new(rate), up: None }
}

fn up(rate: u64) -> RateLimits {
    RateLimits { down: None, up: NonZeroU64::new(rate) }
}

fn limited(w: &World, limits: RateLimits) -> Config {
    Config { limits, ..w.config() }
}

fn received(w: &World, host: usize) -> f64 {
    w.hosts[host].torrent.status(w.now).downloaded as f64
}

fn sent(w: &World, host: usize) -> f64 {
    w.hosts[host].torrent.status(w.now).uploaded as f64
}

// Bytes a second that `count` grows by from now on.
fn rate(w: &mut World, time: Duration, count: impl Fn(&World) -> f64) -> f64 {
    let before = count(w);
    w.run(time, |_| false);
    (count(w) - before) / time.as_secs_f64()
}

#[track_caller]
fn assert_near(got: f64, wanted: f64) {
    assert!((got / wanted - 1.0).abs() < 0.03, "{got} instead of {wanted}");
}

#[test]
fn download_keeps_its_limit_with_few_peers_and_with_many() {
    for (seeds, limit) in [(1, 30_000), (5, 30_000), (6, 200_000)] {
        let mut w = World::new(Sample::new(8 << 20, 256 << 10));
        w.latency = Duration::from_millis(100);
        let seeds: Vec<_> = (0..seeds).map(|_| w.seed()).collect();
        let leech = w.add(limited(&w, down(limit)), None, None);
        w.introduce(leech, &seeds);
        w.run(secs(5), |_| false);
        assert_near(rate(&mut w, secs(30), |w| received(w, leech)), limit as f64);
        let status = w.hosts[leech].torrent.status(w.now);
        assert_eq!(status.wasted, 0, "a limit is no reason to ask twice");
        let least = seeds.iter().map(|seed| sent(&w, *seed)).fold(f64::MAX, f64::min);
        let share = received(&w, leech) / seeds.len() as f64;
        assert!(least > share / 2.0, "each has its turn: {least} of {share}");
    }
}

#[test]
fn limited_download_ends_with_the_right_bytes() {
    let mut w = World::new(sample());
    let seeds = [w.seed(), w.seed()];
    let leech = w.add(limited(&w, down(100_000)), None, None);
    w.introduce(leech, &seeds);
    let took = w.finish(&[leech], secs(60));
    // 2.64 MB, less what the first moment may bring.
    assert!(took > secs(25) && took < secs(29), "{took:?}");
}

#[test]
fn upload_keeps_its_limit_and_serves_all_alike() {
    for limit in [60_000, 300_000] {
        // A piece that nobody completes: they have nothing for each other.
        let mut w = World::new(Sample::new(16 << 20, 16 << 20));
        let all = Bitfield::all(w.sample.layout.piece_count());
        let info = Some(w.sample.info.clone());
        let seed = w.add(limited(&w, up(limit)), info, Some(all));
        let leeches: Vec<_> = (0..4).map(|_| w.leech()).collect();
        leeches.iter().for_each(|leech| w.introduce(*leech, &[seed]));
        w.run(secs(10), |_| false);
        assert_near(rate(&mut w, secs(40), |w| sent(w, seed)), limit as f64);
        let share = sent(&w, seed) / 4.0;
        for leech in leeches {
            let got = received(&w, leech);
            assert!(got > share * 0.8 && got < share * 1.2, "{got} of {share}");
        }
    }
}

#[test]
fn limit_changes_while_data_flows() {
    let mut w = World::new(Sample::new(24 << 20, 256 << 10));
    let (seed, leech) = (w.seed(), w.leech());
    w.set_rate(seed, 5e5);
    w.introduce(leech, &[seed]);
    w.run(secs(4), |_| false);
    for limit in [50_000, 200_000] {
        let now = w.now;
        w.hosts[leech].torrent.set_limits(now, down(limit));
        w.drain();
        // What was asked for before still comes.
        w.run(secs(20), |_| false);
        assert_near(rate(&mut w, secs(30), |w| received(w, leech)), limit as f64);
    }
    let now = w.now;
    w.hosts[leech].torrent.set_limits(now, RateLimits::default());
    w.drain();
    assert!(rate(&mut w, secs(10), |w| received(w, leech)) > 450_000.0);
}

// A download of four seconds that has been under way for `time`, with its seed.
fn under_way(time: Duration) -> (World, usize, usize) {
    let mut w = World::new(Sample::new(4 << 20, 65_536));
    let (seed, leech) = (w.seed(), w.leech());
    w.set_rate(seed, 1e6);
    w.introduce(leech, &[seed]);
    w.run(time, |_| false);
    (w, seed, leech)
}

#[test]
fn paused_torrent_rests_and_goes_on_where_it_was() {
    let (mut w, seed, leech) = under_way(secs(2));
    let now = w.now;
    assert!(w.hosts[leech].torrent.pause(now) && !w.hosts[leech].torrent.pause(now));
    w.drain();
    assert_eq!(w.hosts[leech].closes, [CloseReason::Stopped]);
    assert_eq!(w.hosts[leech].torrent.poll_timeout(), None, "nothing to wake for");
    // What was under way to the disk still arrives there.
    w.run(secs(1), |_| false);
    let before = w.hosts[leech].torrent.status(w.now);
    assert!(before.paused && before.connected == 0 && before.pieces_have > 5, "{before:?}");
    // Whoever comes is not let in, and nobody is called.
    let connects = w.hosts[leech].connects;
    w.introduce(seed, &[leech]);
    w.introduce(leech, &[seed]);
    w.run(secs(600), |_| false);
    let after = w.hosts[leech].torrent.status(w.now);
    assert_eq!((after.pieces_have, after.connected), (before.pieces_have, 0));
    assert_eq!(w.hosts[leech].connects, connects);
    assert!(!w.hosts[leech].torrent.wants_peers() && !w.hosts[leech].torrent.is_lonely());

    let now = w.now;
    assert!(w.hosts[leech].torrent.resume(now) && !w.hosts[leech].torrent.resume(now));
    w.drain();
    let took = w.finish(&[leech], secs(10));
    assert!(took < secs(4), "its peer is called back at once: {took:?}");
    let status = w.hosts[leech].torrent.status(w.now);
    assert!(!status.paused && status.phase == Phase::Seeding);
    // What was on its way when it parted came twice, no more.
    assert!(status.downloaded < (4 << 20) + (1 << 20), "{status:?}");
}

#[test]
fn torrent_that_starts_paused_looks_what_is_there_and_calls_nobody() {
    let mut w = World::new(sample());
    let seed = w.seed();
    let config = Config { paused: true, ..w.config() };
    let leech = w.add(config, Some(w.sample.info.clone()), None);
    w.introduce(leech, &[seed]);
    w.run(secs(60), |_| false);
    assert_eq!((w.hosts[leech].connects, w.hosts[leech].torrent.phase()), (0, Phase::Downloading));
    let now = w.now;
    w.hosts[leech].torrent.resume(now);
    w.drain();
    w.finish(&[leech], secs(10));
}

#[test]
fn recheck_believes_no_record_and_fetches_what_is_bad_again() {
    let mut w = World::new(Sample::new(1 << 20, 65_536));
    let (seed, leech) = (w.seed(), w.leech());
    assert!(!w.hosts[leech].torrent.recheck(w.now), "it has nothing that could be read");
    w.introduce(leech, &[seed]);
    w.finish(&[leech], secs(10));
    let disk = &mut w.hosts[leech].disk;
    let mut have = Bitfield::all(16);
    assert!(have.clear(3) && have.clear(9));
    disk.have = Some(have);
    disk.written.clear();
    disk.requests.clear();
    w.hosts[leech].events.clear();
    let now = w.now;
    assert!(w.hosts[leech].torrent.recheck(now) && !w.hosts[leech].torrent.recheck(now));
    let status = w.hosts[leech].torrent.status(now);
    assert_eq!((status.phase, status.connected, status.pieces_have), (Phase::Checking, 0, 0));
    w.drain();
    let asked = &w.hosts[leech].disk.requests;
    assert!(matches!(asked[..], [DiskRequest::Close, DiskRequest::Open { afresh: true, .. }]));
    w.finish(&[leech], secs(1200));
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!((status.pieces_have, status.downloaded), (16, (1 << 20) + 2 * 65_536));
}

#[test]
fn recheck_of_what_rests_leaves_it_at_rest() {
    let mut w = World::new(sample());
    let seed = w.seed();
    w.run(secs(1), |_| false);
    let now = w.now;
    assert!(w.hosts[seed].torrent.pause(now) && w.hosts[seed].torrent.recheck(now));
    w.drain();
    w.run(secs(1), |_| false);
    let status = w.hosts[seed].torrent.status(w.now);
    assert!(status.paused && status.phase == Phase::Seeding, "{status:?}");
}

#[test]
fn order_of_pieces_changes_under_way() {
    let (mut w, _, leech) = under_way(secs(1));
    w.hosts[leech].torrent.set_sequential(true);
    w.hosts[leech].events.clear();
    w.finish(&[leech], secs(20));
    let verified = w.hosts[leech].events.iter().filter_map(|(_, event)| match event {
        Event::PieceVerified(piece) => Some(piece.get()),
        _ => None,
    });
    // A second's worth was asked for before.
    let verified: Vec<_> = verified.collect();
    let (before, after) = verified.split_at(verified.len() - 30);
    assert!(after.is_sorted() && !before.is_sorted(), "{verified:?}");
}
