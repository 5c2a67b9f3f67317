//! Readers of the data while it comes.

use std::num::NonZeroU64;
use std::time::Duration;

use super::world::{Sample, World};
use crate::base::budget::RateLimits;
use crate::swarm::{Config, ReaderId};
use crate::wire::bitfield::Bitfield;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

// A leech at 200 kB/s with three seeds, whose data takes 40 s, that has been at it for a while.
fn slow() -> (World, usize) {
    let mut w = World::new(Sample::new(8 << 20, 64 << 10));
    let limits = RateLimits { down: NonZeroU64::new(200_000), up: None };
    let seeds = [w.seed(), w.seed(), w.seed()];
    let leech = w.add(Config { limits, ..w.config() }, None, None);
    w.introduce(leech, &seeds);
    w.run(secs(5), |_| false);
    (w, leech)
}

#[test]
fn what_a_reader_waits_for_comes_first_and_in_order() {
    let (mut w, leech) = slow();
    let (now, window) = (w.now, 100..110);
    let before = w.hosts[leech].torrent.status(now).pieces_have;
    let missing: Vec<_> =
        window.clone().filter(|p| !w.hosts[leech].torrent.has_piece(*p)).collect();
    w.hosts[leech].torrent.set_window(now, ReaderId(1), Some(window.clone()));
    w.drain();
    let mut came: Vec<u32> = Vec::new();
    assert!(w.run(secs(10), |w| {
        let torrent = &w.hosts[leech].torrent;
        came.extend(missing.iter().filter(|p| torrent.has_piece(**p)));
        came.sort_unstable();
        came.dedup();
        came.len() == missing.len()
    }));
    // What had been asked for before still came, and what lay on the way.
    let others = w.hosts[leech].torrent.status(w.now).pieces_have - before;
    assert!(others as usize <= missing.len() + 8, "{others} for {}", missing.len());
    // 64 KiB a piece.
    let needed = secs(1).mul_f64(missing.len() as f64 * 65_536.0 / 200_000.0);
    assert!(w.now - now < needed + secs(2), "{:?}", w.now - now);
    w.finish(&[leech], secs(60));
}

#[test]
fn reader_that_jumps_takes_its_window_along() {
    let (mut w, leech) = slow();
    for start in [90, 20, 60] {
        let now = w.now;
        w.hosts[leech].torrent.set_window(now, ReaderId(1), Some(start..start + 4));
        w.drain();
        assert!(w.run(secs(3), |w| w.hosts[leech].torrent.has_piece(start)), "piece {start}");
    }
    let now = w.now;
    w.hosts[leech].torrent.set_window(now, ReaderId(1), None);
    w.drain();
    w.finish(&[leech], secs(60));
}

#[test]
fn two_readers_get_on_alike() {
    let (mut w, leech) = slow();
    let now = w.now;
    for (reader, start) in [(1, 40), (2, 110)] {
        w.hosts[leech].torrent.set_window(now, ReaderId(reader), Some(start..start + 10));
    }
    w.drain();
    let both = |w: &World| [40, 110].iter().all(|p| w.hosts[leech].torrent.has_piece(*p));
    assert!(w.run(secs(3), both));
}

#[test]
fn reader_of_a_lone_seed_that_hands_pieces_out_soon_has_what_it_waits_for() {
    // Everything takes 80 s; without a word to the seed the piece comes somewhere in the middle.
    let mut w = World::new(Sample::new(8 << 20, 64 << 10));
    let (seed, leech) = (w.lone_seed(), w.taker());
    w.set_rate(seed, 100e3);
    let now = w.now;
    w.hosts[leech].torrent.set_window(now, ReaderId(1), Some(100..110));
    w.introduce(leech, &[seed]);
    assert!(w.run(secs(8), |w| w.hosts[leech].torrent.has_piece(100)));
    assert!(w.run(secs(10), |w| (100..110).all(|p| w.hosts[leech].torrent.has_piece(p))));
    w.finish(&[leech], secs(120));
}

#[test]
fn reader_takes_what_there_is_if_nobody_has_what_it_waits_for() {
    let mut w = World::new(Sample::new(1 << 20, 64 << 10));
    let info = Some(w.sample.info.clone());
    let mut some = Bitfield::all(w.sample.layout.piece_count());
    some.clear(0);
    let giver = w.add(w.config(), info.clone(), Some(some));
    let leech = w.add(w.config(), info, None);
    let now = w.now;
    w.hosts[leech].torrent.set_window(now, ReaderId(1), Some(0..1));
    w.introduce(leech, &[giver]);
    assert!(w.run(secs(20), |w| w.hosts[leech].torrent.status(w.now).pieces_have == 15));
}
