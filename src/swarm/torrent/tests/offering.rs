//! A lone seed that hands its pieces out one by one, and whom it and others tell of peers.

use std::time::Duration;

use super::sample;
use super::world::{Sample, World};
use crate::base::Instant;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

// Many clients end when they have everything; whoever got the last piece takes it along.
#[test]
fn those_who_leave_with_the_last_piece_keep_nobody_waiting() {
    let size = 4 << 20;
    let mut w = World::new(Sample::new(size, 64 << 10));
    let seed = w.lone_seed();
    w.set_rate(seed, 1e6);
    let mut left: Vec<usize> = (0..5).map(|_| w.taker()).collect();
    for (n, taker) in left.iter().enumerate() {
        w.introduce(*taker, &[seed]);
        w.introduce(*taker, &left[..n]);
    }
    while !left.is_empty() {
        assert!(w.run(secs(30), |w| left.iter().any(|taker| w.is_finished(*taker))));
        let now = w.now;
        left.retain(|taker| {
            let is_finished = w.is_finished(*taker);
            if is_finished {
                w.hosts[*taker].torrent.stop(now);
            }
            !is_finished
        });
        w.drain();
    }
    let optimum = size as f64 / 1e6;
    let took = (w.now - Instant::ZERO).as_secs_f64() / optimum;
    let copies = w.hosts[seed].torrent.status(w.now).uploaded as f64 / size as f64;
    assert!(took < 1.1 && copies < 1.1, "{took} optima, {copies} copies");
}

// What it does not hear of at once it takes five seconds later.
#[test]
fn who_would_doze_sees_everything_when_nothing_is_left_to_be_divided() {
    let mut w = World::new(Sample::new(8 << 20, 64 << 10));
    let seed = w.lone_seed();
    w.set_rate(seed, 1e6);
    let (taker, dozer) = (w.taker(), w.taker_of(b"-rQ0000-"));
    w.introduce(taker, &[seed]);
    w.introduce(dozer, &[seed, taker]);
    let told_out = |w: &World| {
        let super_seed = w.hosts[seed].torrent.super_seed.as_ref();
        super_seed.is_some_and(|super_seed| super_seed.is_told_out())
    };
    assert!(w.run(secs(30), told_out));
    let torrent = &w.hosts[seed].torrent;
    let are_divided = torrent.peers.iter().filter(|(conn, peer)| {
        let is_dozer = peer.id.is_some_and(|id| id.as_bytes().starts_with(b"-rQ"));
        is_dozer && torrent.super_seed.as_ref().is_some_and(|s| s.has_peer(**conn))
    });
    assert_eq!((torrent.peers.len(), are_divided.count()), (2, 0));
    w.finish(&[taker, dozer], secs(30));
}

#[test]
fn newcomer_hears_from_a_seed_of_the_seeds_that_it_parted_from() {
    let mut w = World::new(sample());
    let (first, second) = (w.seed(), w.seed());
    w.introduce(first, &[second]);
    assert!(w.run(secs(5), |w| !w.hosts[first].closes.is_empty()), "two seeds part");
    let newcomer = w.leech();
    w.set_rate(first, 50e3);
    w.introduce(newcomer, &[first]);
    assert!(w.run(secs(10), |w| w.hosts[newcomer].torrent.status(w.now).connected == 2));
}
