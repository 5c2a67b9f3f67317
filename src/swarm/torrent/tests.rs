//! Two and more torrent cores in a small world; who breaks the rules is in `hostile`, who comes
//! with empty hands in `beginners`, who is held back in `pacing`, what is kept to itself in `private`,
//! who loses pieces in `losing`, whom a lone seed tells of what in `offering`, who reads while it comes
//! in `reading`, crowds are in `floods`, every rule and who breaks it in `rules`, single frames against
//! one core in `raw`.

mod beginners;
mod floods;
mod hostile;
mod losing;
mod offering;
mod pacing;
mod private;
mod raw;
mod reading;
mod rules;
mod world;

use std::time::Duration;

use bytes::Bytes;

use self::world::{Bend, Sample, World};
use crate::base::hash::sha1;
use crate::base::limits::BLOCK_LEN;
use crate::base::{InfoHash, Instant, PeerId};
use crate::peer::CloseReason;
use crate::swarm::{
    Config, DiskError, DiskErrorKind, DiskEvent, DiskRequest, Event, Phase, StopCause, Torrent,
};
use crate::wire::bitfield::Bitfield;
use crate::wire::peer::Message;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// 40 pieces of 64 KiB, and a last short one.
fn sample() -> Sample {
    Sample::new(40 * 65_536 + 20_000, 65_536)
}

#[test]
fn magnet_alone_becomes_verified_data() {
    let mut w = World::new(sample());
    let (seed, leech) = (w.seed(), w.leech());
    w.introduce(leech, &[seed]);
    let took = w.finish(&[leech], secs(10));
    // 2.6 MB at 100 Mbit/s are 0.21 s; the rest is 20 ms a round trip.
    assert!(took < Duration::from_millis(500), "{took:?}");
    let events: Vec<_> = w.hosts[leech].events.iter().map(|(_, e)| e.clone()).collect();
    assert_eq!(events[0], Event::MetadataReady { info: w.sample.info.clone() });
    assert_eq!(events[1], Event::Opened { have: 0, pieces: 41 });
    assert_eq!(events.len(), 2 + 41 + 1);
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!((status.phase, status.wasted), (Phase::Seeding, 0));
    assert_eq!(status.verified_bytes, w.sample.data.len() as u64);
    w.run(secs(1), |_| false);
    assert!(
        w.hosts[seed].closes.contains(&CloseReason::Useless)
            || w.hosts[leech].closes.contains(&CloseReason::Useless)
    );
    assert_eq!(w.hosts[seed].torrent.status(w.now).uploaded, w.sample.data.len() as u64);
}

#[test]
fn metadata_comes_in_three_round_trips_and_the_first_block_in_three_more() {
    let mut w = World::new(sample());
    w.latency = Duration::from_millis(100);
    let (seed, leech) = (w.seed(), w.leech());
    w.introduce(leech, &[seed]);
    w.finish(&[leech], secs(10));
    let ready = w.hosts[leech].events[0].0;
    assert!(ready.as_micros() < 610_000, "dial, handshakes, metadata: {ready:?}");
    let first = w.hosts[leech].events[2].0;
    // The interest went out with the metadata request, so that one more trip brings data.
    assert!(first.as_micros() < 900_000, "{first:?}");
}

#[test]
fn swarm_spreads_from_one_seed() {
    let mut w = World::new(Sample::new(10 << 20, 128 << 10));
    let seed = w.seed();
    w.set_rate(seed, 2e6);
    let leeches: Vec<_> = (0..6).map(|_| w.leech()).collect();
    for leech in &leeches {
        // Each knows the seed and one other; peer exchange does the rest.
        w.introduce(*leech, &[seed, leeches[(leech + 1) % 6]]);
    }
    w.finish(&leeches, secs(60));
    let sent = w.hosts[seed].torrent.status(w.now).uploaded as f64 / w.sample.data.len() as f64;
    assert!(sent < 2.0, "the seed sent {sent} copies to six");
}

#[test]
fn peers_are_told_of_each_other() {
    let mut w = World::new(sample());
    let (hub, a) = (w.seed(), w.leech());
    w.set_rate(hub, 50e3);
    let b = w.leech();
    w.introduce(a, &[hub]);
    w.introduce(b, &[hub]);
    let met = w.run(secs(20), |w| {
        let knows = |x: usize, y: usize| {
            w.hosts[x].torrent.peers().iter().any(|p| p.addr.ip() == w.hosts[y].addr.ip())
        };
        knows(a, b) && knows(b, a)
    });
    assert!(met);
    w.finish(&[a, b], secs(200));
}

#[test]
fn only_missing_pieces_are_fetched_after_a_restart() {
    let mut w = World::new(sample());
    let seed = w.seed();
    let mut have = Bitfield::none(41);
    (0..30).for_each(|p| _ = have.set(p));
    let leech = w.add(w.config(), Some(w.sample.info.clone()), Some(have));
    w.introduce(leech, &[seed]);
    w.finish(&[leech], secs(10));
    let downloaded = w.hosts[leech].torrent.status(w.now).downloaded;
    assert_eq!(downloaded, (w.sample.data.len() - 30 * 65_536) as u64);
    assert!(
        w.hosts[leech].events.iter().any(|(_, e)| *e == Event::Opened { have: 30, pieces: 41 })
    );
}

#[test]
fn pieces_found_while_connected_are_offered_to_those_who_wait() {
    let mut w = World::new(sample());
    let seed = w.seed();
    let mut have = Bitfield::none(41);
    (0..20).for_each(|p| _ = have.set(p));
    // It knows only the hash, yet its disk holds half of the data.
    let half = w.add(w.config(), None, Some(have));
    let other = w.leech();
    w.introduce(half, &[seed, other]);
    w.finish(&[half, other], secs(20));
    assert!(w.hosts[half].torrent.status(w.now).downloaded < w.sample.data.len() as u64 * 6 / 10);
}

#[test]
fn selected_files_alone_are_fetched_and_more_on_demand() {
    let mut w = World::new(sample());
    let seed = w.seed();
    let mut config = w.config();
    config.wanted = Some(vec![true, false]);
    let leech = w.add(config, None, None);
    w.introduce(leech, &[seed]);
    assert!(w.run(secs(10), |w| w.is_finished(leech)));
    let files = w.hosts[leech].torrent.files();
    assert_eq!((files[0].verified, files[0].wanted), (files[0].len, true));
    assert!(files[1].verified < 65_536 && !files[1].wanted);
    w.hosts[leech].events.clear();
    let now = w.now;
    w.hosts[leech].torrent.select(now, None);
    w.drain();
    assert_eq!(w.hosts[leech].torrent.phase(), Phase::Downloading);
    // The seed may have been let go as useless; it is dialled again in its time.
    w.finish(&[leech], secs(1200));
}

#[test]
fn files_are_named_by_the_index_that_a_selection_counts() {
    let info = Bytes::from_static(
        b"d5:filesl\
          d6:lengthi9e4:pathl1:aee\
          d4:attr1:p6:lengthi16375e4:pathl4:.pad5:16375ee\
          d6:lengthi7e4:pathl1:bee\
          e4:name1:x12:piece lengthi16384e6:pieces40:aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbe",
    );
    let info_hash = InfoHash::new(sha1(&info));
    let config = Config::new(PeerId::new([1; 20]));
    let mut torrent = Torrent::new(config, info_hash, Some(info), [1; 32], Instant::ZERO);
    torrent.select(Instant::ZERO, Some(vec![false, false, true]));
    let files = torrent.files();
    let seen: Vec<_> = files.iter().map(|f| (f.index, f.len, f.wanted)).collect();
    assert_eq!(seen, [(0, 9, false), (2, 7, true)], "padding is not shown, and is counted");
}

#[test]
fn resolving_ends_with_the_metadata() {
    let mut w = World::new(sample());
    let seed = w.seed();
    let mut config = w.config();
    config.metadata_only = true;
    let leech = w.add(config, None, None);
    w.introduce(leech, &[seed]);
    let ready = Event::MetadataReady { info: w.sample.info.clone() };
    assert!(w.run(secs(2), |w| w.hosts[leech].events.iter().any(|(_, e)| *e == ready)));
    assert_eq!(w.hosts[leech].torrent.phase(), Phase::Stopped);
    assert_eq!(w.hosts[leech].closes, [CloseReason::Stopped]);
    assert!(w.hosts[leech].disk.requests.is_empty());
    assert_eq!(w.hosts[leech].torrent.poll_timeout(), None);
}

#[test]
fn both_dial_each_other_and_one_connection_stays() {
    let mut w = World::new(sample());
    let (a, b) = (w.seed(), w.leech());
    w.set_rate(a, 100e3);
    w.introduce(a, &[b]);
    w.introduce(b, &[a]);
    w.run(secs(10), |_| false);
    for host in [a, b] {
        assert_eq!(w.hosts[host].torrent.peers().len(), 1);
    }
    assert_eq!(w.hosts[a].closes.len() + w.hosts[b].closes.len(), 2, "both close the same one");
}

#[test]
fn connection_to_ourselves_is_closed_and_not_tried_again() {
    let mut w = World::new(sample());
    let leech = w.leech();
    w.introduce(leech, &[leech]);
    w.run(secs(300), |_| false);
    assert_eq!(w.hosts[leech].connects, 1);
    assert!(w.hosts[leech].torrent.peers().is_empty());
}

#[test]
fn connections_are_limited_and_refused_peers_are_retried_with_patience() {
    let mut w = World::new(sample());
    let mut config = w.config();
    config.connections_max = 3;
    let all = Bitfield::all(41);
    let seed = w.add(config, Some(w.sample.info.clone()), Some(all));
    w.set_rate(seed, 20e3);
    let leeches: Vec<_> = (0..8).map(|_| w.leech()).collect();
    for leech in &leeches {
        w.introduce(*leech, &[seed]);
    }
    w.run(secs(30), |w| {
        assert!(w.hosts[seed].torrent.peers().len() <= 3);
        false
    });
    assert!(w.hosts[seed].closes.iter().all(|r| *r == CloseReason::Crowded));
    let connects: usize = leeches.iter().map(|l| w.hosts[*l].connects).sum();
    assert!(connects < 60, "{connects}");
}

// Five places, and six peers that have everything, choke for ever and take one each.
#[test]
fn peers_that_choke_for_ever_do_not_keep_an_honest_one_out() {
    let mut w = World::new(sample());
    let is_unchoke = |sent: &Bytes| matches!(Message::decode(sent), Ok(Message::Unchoke));
    let chokers: Vec<_> = (0..6)
        .map(|_| {
            w.bent_seed(
                move |_, sent| if is_unchoke(&sent) { Bend::Drop } else { Bend::Send(sent) },
            )
        })
        .collect();
    let config = Config { connections_max: 5, ..w.config() };
    let leech = w.add(config, None, None);
    w.introduce(leech, &chokers);
    w.run(secs(10), |_| false);
    assert_eq!(w.hosts[leech].torrent.peers().len(), 5, "every place is taken");
    let honest = w.seed();
    w.introduce(leech, &[honest]);
    w.finish(&[leech], secs(200));
    assert_eq!(w.banned_by(leech), [], "to choke is no crime");
}

#[test]
fn stop_closes_everything_and_nothing_follows() {
    let mut w = World::new(sample());
    let (seed, leech) = (w.seed(), w.leech());
    w.set_rate(seed, 500e3);
    w.introduce(leech, &[seed]);
    assert!(w.run(secs(5), |w| w.hosts[leech].torrent.status(w.now).pieces_have > 5));
    let now = w.now;
    w.hosts[leech].torrent.stop(now);
    w.drain();
    assert!(!w.hosts[leech].disk.is_open);
    assert_eq!(w.hosts[leech].disk.requests.last(), Some(&DiskRequest::Close));
    let before = w.hosts[leech].disk.requests.len();
    w.run(secs(60), |_| false);
    assert_eq!(w.hosts[leech].disk.requests.len(), before);
    assert_eq!(w.hosts[leech].torrent.poll_timeout(), None);
    assert!(w.hosts[seed].torrent.peers().is_empty());
}

#[test]
fn storage_failure_stops_the_torrent_with_its_reason() {
    let mut w = World::new(sample());
    let (seed, leech) = (w.seed(), w.leech());
    w.introduce(leech, &[seed]);
    w.run(Duration::from_millis(150), |_| false);
    let error = DiskError {
        kind: DiskErrorKind::Full,
        context: "writing /x".into(),
        message: "no space left".into(),
    };
    let now = w.now;
    w.hosts[leech].torrent.handle_disk(now, DiskEvent::Failed(error.clone()));
    w.drain();
    assert_eq!(w.hosts[leech].torrent.phase(), Phase::Stopped);
    assert!(w.hosts[leech].events.iter().any(|(_, e)| *e == Event::Failed(error.clone())));
    // Who missed the news sees it in the status; other files that are wanted do not start it.
    assert!(!w.hosts[leech].torrent.pause(now), "it is at rest already");
    w.hosts[leech].torrent.select(now, Some(vec![true, false]));
    w.run(secs(60), |_| false);
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!(
        (status.phase, status.stopped_by),
        (Phase::Stopped, Some(StopCause::Storage(error)))
    );
    assert!(!status.finished && !w.hosts[leech].disk.is_open);

    // There is space now: it looks at what is there, and goes on with those whom it knew.
    let pieces = w.sample.layout.piece_count();
    let mut half = Bitfield::none(pieces);
    (0..pieces).step_by(2).for_each(|piece| _ = half.set(piece));
    w.hosts[leech].disk.have = Some(half);
    w.hosts[leech].disk.data = w.sample.data.clone();
    w.hosts[leech].disk.written.clear();
    let now = w.now;
    assert!(w.hosts[leech].torrent.resume(now) && !w.hosts[leech].torrent.resume(now));
    w.drain();
    w.finish(&[leech], secs(30));
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!((status.phase, status.stopped_by), (Phase::Seeding, None));
    assert!(status.finished);
    assert!(w.hosts[leech].disk.requests.iter().any(|r| {
        matches!(r, DiskRequest::Open { wanted: Some(wanted), .. } if *wanted == [true, false])
    }));
}

// Between two slow lines nothing can be moved: what is asked again is sent twice.
#[test]
fn what_only_one_peer_has_is_waited_for_and_not_asked_again() {
    let mut w = World::new(Sample::new(40 * 16_384, 16_384));
    let half_of = |from: u32| {
        let mut half = Bitfield::none(40);
        (from..from + 20).for_each(|piece| _ = half.set(piece));
        half
    };
    let halves = [0, 20].map(|from| {
        let config = Config { super_seeding: false, wanted: Some(vec![false; 2]), ..w.config() };
        let host = w.add(config, Some(w.sample.info.clone()), Some(half_of(from)));
        w.hosts[host].disk.data = w.sample.data.clone();
        // A block takes four seconds.
        w.set_rate(host, 4_096.0);
        host
    });
    let leech = w.leech();
    w.introduce(leech, &halves);
    w.finish(&[leech], secs(200));
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!((status.wasted, status.downloaded), (0, 40 * 16_384));
}

#[test]
fn status_tells_what_nobody_who_is_here_has() {
    let mut w = World::new(sample());
    let pieces = w.sample.layout.piece_count();
    let mut half = Bitfield::none(pieces);
    (0..pieces / 2).for_each(|piece| _ = half.set(piece));
    let config = Config { super_seeding: false, ..w.config() };
    let one = w.add(config, Some(w.sample.info.clone()), Some(half));
    let leech = w.leech();
    let info = w.sample.info.clone();
    let offline = w.add(w.config(), Some(info), None);
    w.introduce(leech, &[one]);
    let wanted = w.sample.data.len() as u64;
    assert!(w.run(secs(20), |w| w.hosts[leech].torrent.status(w.now).pieces_have == pieces / 2));
    let status = w.hosts[leech].torrent.status(w.now);
    assert_eq!(status.unavailable_bytes, wanted - status.verified_bytes);
    let alone = w.hosts[offline].torrent.status(w.now);
    assert_eq!(alone.unavailable_bytes, wanted, "nobody is here");
    let seed = w.seed();
    w.introduce(leech, &[seed]);
    w.finish(&[leech], secs(30));
    assert_eq!(w.hosts[leech].torrent.status(w.now).unavailable_bytes, 0);
}

#[test]
fn nothing_more_is_asked_while_the_storage_is_stuck() {
    let mut w = World::new(Sample::new(80 << 20, 1 << 20));
    let (seed, leech) = (w.seed(), w.leech());
    for host in [seed, leech] {
        w.set_rate(host, 1e9);
    }
    w.introduce(leech, &[seed]);
    assert!(w.run(secs(10), |w| w.hosts[leech].disk.is_open));
    w.hosts[leech].disk.is_stuck = true;
    w.run(secs(5), |_| false);
    // The answer to `Open` was under way, so that it began to download.
    let downloaded = w.hosts[leech].torrent.status(w.now).downloaded;
    let bound = 1536 * u64::from(BLOCK_LEN) + (1 << 20);
    assert!(downloaded > 11 << 20 && downloaded <= bound, "{downloaded}");
}

#[test]
fn fast_line_is_filled() {
    let mut w = World::new(Sample::new(48 << 20, 1 << 20));
    w.latency = Duration::from_micros(50);
    let (seed, leech) = (w.seed(), w.leech());
    for host in [seed, leech] {
        w.set_rate(host, 200e6);
    }
    w.introduce(leech, &[seed]);
    let took = w.finish(&[leech], secs(10));
    let rate = (48 << 20) as f64 / took.as_secs_f64();
    assert!(rate > 180e6, "{rate}");
}

// Three peers and a seed on a line as fast as each of theirs.
#[test]
fn lone_seed_sends_one_copy_and_a_second_seed_ends_that() {
    let mut w = World::new(Sample::new(6_000_000, 32_768));
    let mut config = w.config();
    config.super_seeding = true;
    let leech =
        |w: &mut World, n: u8| w.add(Config { peer_id: coping(n), ..w.config() }, None, None);
    let all = Bitfield::all(w.sample.layout.piece_count());
    let seed = w.add(config.clone(), Some(w.sample.info.clone()), Some(all));
    w.set_rate(seed, 1e6);
    let leeches = [leech(&mut w, 11), leech(&mut w, 12), leech(&mut w, 13)];
    for leech in leeches {
        w.introduce(leech, &[seed]);
        w.introduce(leech, &leeches);
    }
    let done = |w: &World, leech: &usize| w.hosts[*leech].torrent.phase() == Phase::Seeding;
    assert!(w.run(secs(60), |w| leeches.iter().all(|leech| done(w, leech))));
    let sent = w.hosts[seed].torrent.status(w.now).uploaded;
    assert!(sent < 6_000_000 * 115 / 100, "{sent}");

    // Who comes with everything is closed as useless, and from now on newcomers see it all.
    let second = w.seed();
    w.introduce(second, &[seed]);
    w.run(secs(5), |_| false);
    let late = w.leech();
    w.introduce(late, &[seed]);
    let pieces = w.sample.layout.piece_count();
    let sees_all =
        |w: &World| w.hosts[late].torrent.peers().iter().any(|peer| peer.pieces_have == pieces);
    assert!(w.run(secs(1), sees_all));
}

// Only clients that cope with a super-seed are treated so.
fn coping(n: u8) -> PeerId {
    let mut id = [n; 20];
    id[..3].copy_from_slice(b"-TK");
    PeerId::new(id)
}

#[test]
fn whoever_wants_few_of_the_pieces_of_a_lone_seed_gets_them_soon() {
    let mut w = World::new(Sample::new(6_000_000, 16_384));
    let mut config = w.config();
    config.super_seeding = true;
    let all = Bitfield::all(w.sample.layout.piece_count());
    let seed = w.add(config, Some(w.sample.info.clone()), Some(all));
    for n in 11..19 {
        let config =
            Config { peer_id: coping(n), wanted: Some(vec![n % 2 == 0, n % 2 == 1]), ..w.config() };
        let leech = w.add(config, None, None);
        w.introduce(leech, &[seed]);
        assert!(w.run(secs(8), |w| w.is_finished(leech)), "{n}");
    }
}

// Sooner or later each is connected to one that has no more than itself, while all others are known.
#[test]
fn whoever_has_one_place_does_not_spend_it_on_a_peer_that_has_nothing_more() {
    let mut w = World::new(Sample::new(2_000_000, 16_384));
    let config = Config { super_seeding: true, ..w.config() };
    let all = Bitfield::all(w.sample.layout.piece_count());
    let seed = w.add(config, Some(w.sample.info.clone()), Some(all));
    let leeches: Vec<_> = (11..19)
        .map(|n| {
            let config = Config { peer_id: coping(n), connections_max: 1, ..w.config() };
            w.add(config, None, None)
        })
        .collect();
    for leech in &leeches {
        let others = leeches.iter().copied().filter(|other| other != leech);
        w.introduce(*leech, &others.chain([seed]).collect::<Vec<_>>());
    }
    w.finish(&leeches, secs(120));
}
