//! Claims about who is told of what.

use super::*;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const PATIENCE: Duration = Duration::from_millis(300);

fn seed(pieces: u32) -> SuperSeed {
    let geometry = Geometry { pieces, piece_len: 1 << 19, last_len: 5 };
    let mut seed = SuperSeed::new(geometry, &mut Rng::from_seed([1; 32]));
    seed.add_peer(Instant::ZERO, A, 0);
    seed.add_peer(Instant::ZERO, B, 0);
    seed
}

fn drain(seed: &mut SuperSeed, now: Instant, conn: ConnId) -> Vec<u32> {
    drain_at(seed, now, conn, 0)
}

fn drain_at(seed: &mut SuperSeed, now: Instant, conn: ConnId, rate: u64) -> Vec<u32> {
    std::iter::from_fn(|| seed.next(now, conn, None, rate)).collect()
}

#[test]
fn each_piece_is_told_once_while_some_were_told_to_nobody() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let mut told = Vec::new();
    while told.len() < 100 {
        for conn in [A, B] {
            for piece in drain(&mut seed, now, conn) {
                told.push(piece);
                seed.on_have(now, conn, piece);
            }
        }
    }
    told.sort_unstable();
    assert_eq!(told, (0..100).collect::<Vec<_>>());
    assert_eq!(seed.next(now, A, None, 0), None, "they have to spread first");
    let later = now + SPREAD_TIME_ALONE;
    let first = seed.next(later, A, None, 0).expect("nothing spreads");
    let other = (0..100).find(|p| *p != first && !seed.peers[&A].told.has(*p)).unwrap();
    seed.on_have(later, A, other);
    assert_eq!(seed.next(later, A, None, 0), None, "it spreads");
    assert!(seed.next(now + SPREAD_TIME, A, None, 0).is_some());
}

// Everything is told within six seconds, and the line takes 24 for it.
#[test]
fn what_our_own_line_is_late_with_is_told_to_nobody_else() {
    let (mut seed, mut now) = (seed(8), Instant::ZERO);
    let mut told: Vec<u32> = [A, B].iter().flat_map(|c| drain(&mut seed, now, *c)).collect();
    for conn in [A, B].into_iter().cycle().take(8) {
        now += Duration::from_secs(3);
        let is_held = |piece: u32| seed.pieces[usize::try_from(piece).unwrap()].held > 0;
        let mut open = seed.peers[&conn].open.iter().copied();
        let (piece, left) = open.find(|(piece, _)| !is_held(*piece)).unwrap();
        assert!(seed.on_sent(now, conn, piece, left));
        for piece in drain(&mut seed, now, conn) {
            let is_held = seed.pieces[usize::try_from(piece).unwrap()].held > 0;
            assert!(is_held || !told.contains(&piece), "{piece} at {now:?}");
            told.push(piece);
        }
    }
    assert!(seed.given > Duration::from_secs(8), "{:?}", seed.given);
}

#[test]
fn window_doubles_with_what_is_taken_and_follows_the_rate() {
    let (mut seed, now) = (seed(1_000), Instant::ZERO);
    assert_eq!(drain(&mut seed, now, A).len(), 2);
    for n in [4, 8, 16] {
        let open = seed.peers[&A].open.clone();
        open.iter().for_each(|(piece, _)| seed.on_have(now, A, *piece));
        assert_eq!(drain(&mut seed, now, A).len(), n);
    }
    assert_eq!(seed.next(now, A, None, 1 << 20), None);
    assert_eq!(seed.peers[&A].room, 2);
}

#[test]
fn piece_that_was_sent_counts_even_if_the_peer_does_not_say_so() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let told = drain(&mut seed, now, A);
    assert!(!seed.on_sent(now, A, told[0], 1 << 18));
    assert_eq!(seed.next(now, A, None, 0), None);
    assert!(seed.peers[&A].open.len() == 2);
    assert!(seed.on_sent(now, A, told[0], 1 << 18));
    assert!(seed.next(now, A, None, 0).is_some());
    let held = |seed: &SuperSeed| seed.pieces[told[0] as usize].held;
    assert_eq!(held(&seed), 1);
    seed.on_have(now, A, told[0]);
    assert_eq!(held(&seed), 1, "it is the same one");
    seed.remove_peer(now, A, Some(&Bitfield::all(100)));
    assert_eq!(held(&seed), 0);
}

#[test]
fn what_only_a_lost_peer_was_told_is_told_first() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let lost = drain(&mut seed, now, A);
    seed.on_have(now, A, lost[0]);
    seed.remove_peer(now, A, None);
    assert_eq!(seed.next(now, B, None, 0), Some(lost[1]));
}

#[test]
fn what_a_peer_left_with_in_the_end_is_told_to_several_at_once() {
    let (mut seed, now) = (seed(4), Instant::ZERO);
    let others: Vec<_> = (3..20).map(ConnId).collect();
    others.iter().for_each(|conn| seed.add_peer(now, *conn, 0));
    let (of_a, of_b) = (drain(&mut seed, now, A), drain(&mut seed, now, B));
    of_a.iter().for_each(|piece| seed.on_have(now, A, *piece));
    of_b.iter().for_each(|piece| seed.on_have(now, B, *piece));
    others.iter().for_each(|conn| assert_eq!(seed.next(now, *conn, None, 0), None, "it spreads"));
    let mut had = Bitfield::none(4);
    of_a.iter().for_each(|piece| _ = had.set(*piece));
    assert!(seed.remove_peer(now, A, Some(&had)));
    let mut again: Vec<_> = others.iter().flat_map(|conn| drain(&mut seed, now, *conn)).collect();
    again.sort_unstable();
    let mut missed = of_a.repeat(URGENT_MAX.into());
    missed.sort_unstable();
    assert_eq!(again, missed);
    // One that has got them passes them on.
    of_a.iter().for_each(|piece| seed.on_have(now, others[9], *piece));
    seed.remove_peer(now, others[0], None);
    assert!(drain(&mut seed, now, others[10]).is_empty());
}

// To look for something costs time with many pieces.
#[test]
fn crowd_that_leaves_again_and_again_causes_few_searches() {
    let (mut seed, now) = (seed(4), Instant::ZERO);
    let crowd: Vec<_> = (3..200).map(ConnId).collect();
    crowd.iter().for_each(|conn| seed.add_peer(now, *conn, 0));
    let told = [drain(&mut seed, now, A), drain(&mut seed, now, B)].concat();
    told.iter().for_each(|piece| seed.on_have(now, B, *piece));
    let mut searches = 0;
    for n in 1_000..1_100 {
        seed.add_peer(now, ConnId(n), 0);
        let mut had = Bitfield::none(4);
        had.set(told[0]);
        seed.on_lost(B, told[0]);
        seed.on_pieces(None, &had);
        assert!(seed.remove_peer(now, ConnId(n), Some(&had)));
        searches += crowd.iter().filter(|conn| !seed.rests(now, **conn)).count();
        crowd.iter().for_each(|conn| _ = seed.next(now, *conn, Some(&Bitfield::all(4)), 0));
    }
    let max = usize::try_from(EARLY_MAX).unwrap() + crowd.len();
    assert!((16..=max).contains(&searches), "{searches}");
}

#[test]
fn what_a_peer_left_with_while_there_is_more_is_told_to_one() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let told = drain(&mut seed, now, A);
    seed.on_have(now, A, told[0]);
    let mut had = Bitfield::none(100);
    had.set(told[0]);
    assert!(seed.remove_peer(now, A, Some(&had)));
    let others: Vec<_> = (3..60).map(ConnId).collect();
    others.iter().for_each(|conn| seed.add_peer(now, *conn, 0));
    let again: Vec<_> = others.iter().flat_map(|conn| drain(&mut seed, now, *conn)).collect();
    assert_eq!(again.iter().filter(|piece| **piece == told[0]).count(), 1);
}

#[test]
fn pieces_that_the_swarm_has_wait() {
    let (mut seed, now) = (seed(20), Instant::ZERO);
    let mut most = Bitfield::none(20);
    (0..19).for_each(|piece| _ = most.set(piece));
    seed.on_pieces(None, &most);
    assert_eq!(drain(&mut seed, now, A), [19]);
}

#[test]
fn last_missing_piece_is_found_among_many() {
    let (mut seed, now) = (seed(10_000), Instant::ZERO);
    let mut theirs = Bitfield::all(10_000);
    theirs.clear(*seed.queue.back().unwrap());
    assert!(seed.next(now, A, Some(&theirs), 0).is_some());
    assert_eq!(seed.next(now, A, Some(&theirs), 0), None);
}

#[test]
fn bait_is_one_piece() {
    let (mut seed, now) = (seed(20), Instant::ZERO);
    assert!(seed.bait(now, A, None).is_some());
    assert_eq!(seed.bait(now, A, None), None);
    assert_eq!(seed.untold(A).unwrap().count(), 19);
    assert!(seed.untold(ConnId(9)).is_none());
}

#[test]
fn peer_that_wants_nothing_of_what_it_is_told_is_choosy() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let bait = seed.bait(now, A, None).unwrap();
    assert!(!seed.on_unwanted(now + PATIENCE / 2, A, PATIENCE));
    assert!(!seed.on_unwanted(now + PATIENCE, A, PATIENCE), "the next one may be of use");
    assert_eq!(seed.bait(now + PATIENCE, B, None), Some(bait), "nobody else was told of it");
    let two: Vec<_> = std::iter::from_fn(|| seed.bait(now + PATIENCE, A, None)).take(9).collect();
    assert_eq!(two.len(), 2);
    assert!(seed.on_unwanted(now + 2 * PATIENCE, A, PATIENCE));
    // Who has taken enough is not choosy because of a few.
    let mut now = now + PATIENCE;
    for _ in 0..12 {
        seed.next(now, B, None, 1);
        let piece = seed.peers[&B].open[0].0;
        assert!(seed.on_sent(now, B, piece, 1 << 19));
    }
    for _ in 0..2 {
        drain_at(&mut seed, now, B, 1);
        now += PATIENCE;
        assert!(!seed.on_unwanted(now, B, PATIENCE));
    }
    assert!(!seed.on_unwanted(now, ConnId(9), PATIENCE), "it is told everything anyway");
}

#[test]
fn stuck_peer_is_told_of_other_pieces() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let first = drain(&mut seed, now, A);
    assert_eq!(seed.next(now + STUCK_TIME / 2, A, None, 0), None);
    let then = drain(&mut seed, now + STUCK_TIME, A);
    assert_eq!((first.len(), then.len()), (2, 2));
    assert!(then.iter().all(|piece| !first.contains(piece)));
}

#[test]
fn peer_that_takes_nothing_stands_still() {
    let (mut seed, mut now) = (seed(100), Instant::ZERO);
    while !seed.stands_still(A) {
        drain(&mut seed, now, A);
        now += STUCK_TIME;
        assert!(now < Instant::ZERO + 8 * STUCK_TIME);
    }
    let (piece, left) = seed.peers[&A].open[0];
    seed.on_sent(now, A, piece, left / 2);
    assert!(!seed.stands_still(A) && !seed.stands_still(ConnId(9)));
}

#[test]
fn peer_that_asks_for_much_at_once_is_told_of_more_than_that() {
    let mut seed = seed(100);
    seed.add_peer(Instant::ZERO, ConnId(3), 8 << 19);
    assert_eq!(drain_at(&mut seed, Instant::ZERO, ConnId(3), 1).len(), 10);
}

// Everything is sent the moment it is told; what A gets B has too, a little later, and not the other
// way round.
#[test]
fn peer_that_keeps_what_it_gets_is_given_little_while_another_passes_it_on() {
    let (mut seed, mut now) = (seed(1_000), Instant::ZERO);
    let mut given = [Vec::new(), Vec::new()];
    let mut seen = [0, 0];
    for tick in 0..120 {
        now += Duration::from_millis(250);
        for (conn, given) in [A, B].into_iter().zip(&mut given) {
            for piece in drain_at(&mut seed, now, conn, 1 << 20) {
                seed.on_sent(now, conn, piece, 1 << 19);
                given.push(piece);
            }
        }
        let passed_on: Vec<u32> = given[0].drain(..).collect();
        passed_on.iter().for_each(|piece| seed.on_have(now, B, *piece));
        if tick >= 60 {
            seen[0] += passed_on.len();
            seen[1] += given[1].len();
        }
        given[1].clear();
    }
    assert!(seen[0] > 60 && seen[1] * 6 < seen[0], "{seen:?}");
    // Alone it is given everything.
    seed.remove_peer(now, A, None);
    assert!(!drain(&mut seed, now + STUCK_TIME, B).is_empty());
}

#[test]
fn what_a_peer_was_sent_is_there_after_it_was_told_of_everything() {
    let (mut seed, now) = (seed(100), Instant::ZERO);
    let told = drain(&mut seed, now, A);
    assert!(seed.on_sent(now, A, told[0], 1 << 19));
    seed.show_all(A);
    assert!(!seed.has_peer(A) && seed.untold(A).is_none());
    assert_eq!((seed.next(now, A, None, 0), seed.bait(now, A, None)), (None, None));
    assert_eq!(drain(&mut seed, now, B)[0], told[1], "it may not take that one");
    let held = |seed: &SuperSeed| seed.pieces[told[0] as usize].held;
    assert_eq!(held(&seed), 1);
    seed.remove_peer(now, A, None);
    assert_eq!(held(&seed), 0);
}

#[test]
fn only_those_whom_our_line_can_feed_are_told_of_anything() {
    let mut seed = seed(100);
    let crowd: Vec<_> = (1..=60).map(ConnId).collect();
    crowd.iter().skip(2).for_each(|conn| seed.add_peer(Instant::ZERO, *conn, 0));
    let baited = |seed: &mut SuperSeed, now| {
        crowd.iter().filter(|conn| seed.bait(now, **conn, None).is_some()).count()
    };
    let mut now = Instant::ZERO + DRY_TIME;
    assert_eq!(baited(&mut seed, now), ENGAGED_MAX);
    // Our line is busy with one of them.
    let send = |seed: &mut SuperSeed, now: &mut Instant| {
        *now += BAIT_BUSY / 20;
        let (piece, _) = seed.peers[&A].open[0];
        assert!(!seed.on_sent(*now, A, piece, 1));
        baited(seed, *now)
    };
    assert_eq!((0..18).map(|_| send(&mut seed, &mut now)).sum::<usize>(), 0);
    // The others had their time, and nobody waits for ever behind them.
    assert_eq!((0..4).map(|_| send(&mut seed, &mut now)).sum::<usize>(), ENGAGED_MAX - 1);
    // Those who were told take nothing, and nothing is sent.
    let mut step = || {
        now += BAIT_IDLE;
        baited(&mut seed, now)
    };
    assert_eq!((0..8).map(|_| step()).sum::<usize>(), 0);
    assert_eq!((0..10).map(|_| step()).sum::<usize>(), 9);
}

#[test]
fn nothing_is_sent_twice_while_there_is_something_new_to_send() {
    let (mut seed, mut now) = (seed(5), Instant::ZERO);
    let first = drain(&mut seed, now, A);
    let others = drain(&mut seed, now, B);
    assert_eq!((first.len(), others.len()), (2, 2));
    for piece in first {
        now += Duration::from_secs(4);
        assert!(seed.on_sent(now, A, piece, 1 << 19));
        drain(&mut seed, now, A);
    }
    now += SPREAD_TIME;
    // It spreads, and B has room; the rest of what it was told takes our line four seconds each.
    let halves: Vec<_> = seed.peers[&B].open.clone();
    seed.on_have(now, B, seed.peers[&A].sent.first().copied().unwrap());
    for (piece, _) in &halves {
        seed.on_sent(now, B, *piece, 1 << 18);
    }
    assert!(drain(&mut seed, now, B).is_empty());
    for (piece, left) in seed.peers[&B].open.clone() {
        seed.on_sent(now, B, piece, left);
    }
    for (piece, left) in seed.peers[&A].open.clone() {
        seed.on_sent(now, A, piece, left);
    }
    now += DRY_TIME * 2;
    assert!(!drain(&mut seed, now, B).is_empty());
}

#[test]
fn line_that_sends_a_copy_at_once_need_not_send_only_one_where_nothing_spreads() {
    let pointless_after = |pause, copies: bool| {
        let (mut seed, mut now) = (seed(4), Instant::ZERO);
        let mut pieces = drain(&mut seed, now, A);
        while let Some(piece) = pieces.pop() {
            now += pause;
            seed.on_sent(now, A, piece, 1 << 19);
            pieces.extend(drain(&mut seed, now, A));
        }
        assert!(!seed.is_pointless(now), "they may spread");
        now += SPREAD_TIME_ALONE;
        if copies {
            seed.on_have(now, B, 0);
        }
        seed.is_pointless(now)
    };
    assert!(pointless_after(Duration::from_millis(1), false));
    assert!(!pointless_after(Duration::from_millis(1), true));
    assert!(!pointless_after(CHEAP_COPY / 2, false));
}
