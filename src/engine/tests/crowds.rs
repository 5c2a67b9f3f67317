//! All places are taken: who gets in nevertheless, and who has to leave for it.

use super::*;
use crate::swarm::DiskEvent;
use crate::wire::bitfield::Bitfield;

const PLACES: usize = 16;

// A seed of one torrent with few places.
fn seed() -> Engine {
    let mut config = Config::new(PeerId::new([7; 20]));
    config.listen_port = Some(6881);
    config.connections_max = PLACES;
    let mut e = Engine::new(config, [1; 32], Instant::ZERO);
    let id = e.add_torrent(Instant::ZERO, known(INFO)).unwrap();
    e.handle_disk(Instant::ZERO, id, DiskEvent::Opened { have: Bitfield::all(1) });
    e.handle_disk(Instant::ZERO, id, DiskEvent::Flushed);
    outputs(&mut e);
    e
}

// Somebody connects, says hello and wants something. True if it is let in.
fn comes(e: &mut Engine, now: Instant, from: SocketAddr, id: u8) -> bool {
    let hash = InfoHash::new(crate::base::hash::sha1(INFO));
    let Some(conn) = e.accept(now, from) else { return false };
    e.handle_frame(now, conn, hello(hash, id));
    // Have none, interested.
    e.handle_frame(now, conn, Bytes::from_static(&[15]));
    e.handle_frame(now, conn, Bytes::from_static(&[2]));
    let closed = |o: &Output| matches!(o, Output::Close { conn: c, .. } if *c == conn);
    !outputs(e).iter().any(closed)
}

fn public(network: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([20, 0, network, host], 5_000))
}

fn later(e: &mut Engine, time: Duration) -> Instant {
    let end = Instant::ZERO + time;
    while let Some(at) = e.poll_timeout().filter(|at| *at <= end) {
        e.handle_timeout(at);
        outputs(e);
    }
    end
}

#[test]
fn house_that_is_full_of_silent_strangers_lets_everybody_in_who_says_hello() {
    let mut e = seed();
    for n in 0..250 {
        assert!(e.accept(Instant::ZERO, public(n, 1)).is_some());
    }
    for n in 0..10 {
        assert!(comes(&mut e, Instant::ZERO, public(n, 2), 100 + n), "newcomer {n}");
    }
}

#[test]
fn network_that_holds_all_places_leaves_one_to_a_newcomer_at_once() {
    let mut e = seed();
    let taken = (0..100).filter(|n| comes(&mut e, Instant::ZERO, public(0, *n), *n)).count();
    assert_eq!(taken, PLACES - PLACES / 8, "the rest is for strangers");
    assert!(comes(&mut e, Instant::ZERO, public(1, 1), 200));
    assert!(!comes(&mut e, Instant::ZERO, public(0, 200), 201), "but not to one of its own");
}

#[test]
fn crowd_from_everywhere_that_takes_nothing_leaves_places_within_twenty_seconds() {
    let mut e = seed();
    let taken = (0..100).filter(|n| comes(&mut e, Instant::ZERO, public(*n, 1), *n)).count();
    assert_eq!(taken, PLACES - PLACES / 8);
    let now = later(&mut e, Duration::from_secs(15));
    assert!(!comes(&mut e, now, public(200, 1), 200), "they may yet be served");
    let now = later(&mut e, Duration::from_secs(20));
    assert!(comes(&mut e, now, public(200, 1), 200));
}

// One torrent holds all places, and another is asked for.
#[test]
fn torrent_that_has_most_places_gives_one_up_for_another() {
    let mut e = seed();
    let id = e.add_torrent(Instant::ZERO, known(PRIVATE)).unwrap();
    e.handle_disk(Instant::ZERO, id, DiskEvent::Opened { have: Bitfield::all(1) });
    (0..100).for_each(|n| _ = comes(&mut e, Instant::ZERO, public(0, n), n));
    let conn = e.accept(Instant::ZERO, public(9, 9)).unwrap();
    let hash = InfoHash::new(crate::base::hash::sha1(PRIVATE));
    e.handle_frame(Instant::ZERO, conn, hello(hash, 200));
    assert_eq!(e.torrent(id).unwrap().connections(), 1);
    let closes = outputs(&mut e).iter().filter(|o| matches!(o, Output::Close { .. })).count();
    assert_eq!(closes, 1, "and only one");
}
