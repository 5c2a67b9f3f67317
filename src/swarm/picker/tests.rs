mod random;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::base::Rng;

const P: u32 = 4 * BLOCK_LEN;
const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const C: ConnId = ConnId(3);

fn picker(pieces: u32, sequential: bool) -> Picker {
    let config = PickerConfig {
        pieces,
        piece_len: P,
        // The last block is seven bytes.
        total_len: u64::from(pieces) * u64::from(P) - u64::from(BLOCK_LEN) + 7,
        wanted: Bitfield::all(pieces),
        have: Bitfield::none(pieces),
        sequential,
    };
    Picker::new(config, [3; 32])
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn pick(p: &mut Picker, now: Instant, conn: ConnId, n: usize) -> Vec<BlockRef> {
    let mut out = Vec::new();
    p.pick(now, conn, PeerPieces::All, None, n, &mut out);
    p.check();
    out
}

fn store_all(p: &mut Picker, conn: ConnId, blocks: &[BlockRef]) {
    for block in blocks {
        assert_eq!(p.on_block(at(0), conn, *block), BlockOutcome::Store { cancel: Vec::new() });
    }
    p.check();
}

#[test]
fn what_somebody_waits_for_comes_first_in_its_order() {
    for sequential in [false, true] {
        let mut p = picker(20, sequential);
        p.set_urgent(vec![7, 8, 3]);
        // Two peers share the work on what is next.
        let first = pick(&mut p, at(0), A, 6);
        let second = pick(&mut p, at(0), B, 6);
        let pieces: Vec<u32> = first.iter().chain(&second).map(|b| b.piece.get()).collect();
        assert_eq!(pieces, [7, 7, 7, 7, 8, 8, 8, 8, 3, 3, 3, 3]);
        // The window moves on; what is here is not asked for again.
        store_all(&mut p, A, &first);
        p.on_piece_good(PieceIndex(7));
        p.set_urgent(vec![7, 8, 12]);
        assert!(pick(&mut p, at(0), C, 4).iter().all(|b| b.piece.get() == 12));
        // A peer without these is asked for something else.
        let mut some = Bitfield::none(20);
        some.set(15);
        p.set_urgent(vec![0, 1]);
        let mut out = Vec::new();
        p.pick(at(0), ConnId(9), PeerPieces::Some(&some), None, 4, &mut out);
        assert!(out.len() == 4 && out.iter().all(|b| b.piece.get() == 15));
        p.check();
    }
}

#[test]
fn piece_that_is_not_wanted_is_not_urgent_either() {
    let mut p = picker(4, false);
    let mut wanted = Bitfield::none(4);
    wanted.set(1);
    p.set_wanted(&wanted);
    p.set_urgent(vec![3, 1]);
    assert!(pick(&mut p, at(0), A, 100).iter().all(|b| b.piece.get() == 1));
}

#[test]
fn every_block_is_asked_once_and_the_last_is_short() {
    let mut p = picker(5, false);
    let all = pick(&mut p, at(0), A, 1000);
    assert_eq!(all.len(), 5 * 4);
    let distinct: BTreeSet<_> = all.iter().map(|b| (b.piece, b.begin)).collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(all.iter().map(|b| u64::from(b.len)).sum::<u64>(), p.missing_bytes());
    assert!(pick(&mut p, at(0), A, 10).is_empty(), "a peer is not asked twice for a block");
    store_all(&mut p, A, &all);
    for piece in 0..5 {
        assert!(!p.is_complete());
        p.on_piece_good(PieceIndex(piece));
        p.check();
    }
    assert!(p.is_complete() && p.have().is_all());
    assert_eq!(p.missing_bytes(), 0);
}

#[test]
fn rarest_piece_is_first_once_the_random_ones_are_here() {
    let mut p = picker(100, false);
    for piece in 0..RANDOM {
        p.on_piece_good(PieceIndex(piece));
    }
    let mut common = Bitfield::all(100);
    common.clear(77);
    p.peer_has(&common);
    p.peer_has(&common);
    let mut rare = Bitfield::none(100);
    rare.set(50);
    rare.set(77);
    p.peer_has(&rare);
    let mut out = Vec::new();
    p.pick(at(0), A, PeerPieces::Some(&rare), None, 1, &mut out);
    assert_eq!(out[0].piece, PieceIndex(77));
    // A seed is nobody's reason to prefer a piece, but it has the rarest too.
    p.peer_has_all();
    assert_eq!(p.copies(77), 2);
    p.on_peer_gone(A);
    p.check();
    assert_eq!(pick(&mut p, at(0), B, 1)[0].piece, PieceIndex(77));
    p.peer_lost(&rare);
    p.peer_lost_all();
    assert_eq!((p.copies(77), p.copies(50)), (0, 2));
}

const RANDOM: u32 = 4;

#[test]
fn peer_that_grew_to_a_seed_may_leave_as_one() {
    let mut p = picker(10, false);
    p.peer_has_all();
    for piece in 0..10 {
        p.peer_has_piece(piece);
    }
    p.peer_lost_all();
    p.peer_lost_all();
    p.check();
    assert!((0..10).all(|piece| p.copies(piece) == 0));
}

#[test]
fn two_peers_work_on_two_pieces_and_keep_them() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 2);
    let b = pick(&mut p, at(0), B, 2);
    assert_ne!(a[0].piece, b[0].piece);
    let more = pick(&mut p, at(0), A, 2);
    assert!(more.iter().all(|x| x.piece == a[0].piece));
}

#[test]
fn piece_of_a_peer_that_left_is_finished_by_the_next() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 2);
    store_all(&mut p, A, &a[..1]);
    p.on_peer_gone(A);
    p.check();
    let b = pick(&mut p, at(0), B, 3);
    assert!(b.iter().all(|x| x.piece == a[0].piece));
    assert_eq!(b[0], a[1]);
}

#[test]
fn peer_that_sends_nothing_leaves_nothing_behind() {
    let mut p = picker(50, false);
    for conn in 1..=1000 {
        pick(&mut p, at(0), ConnId(conn), 1);
        p.on_peer_gone(ConnId(conn));
    }
    p.check();
    assert!(p.partials.iter().flatten().count() == 0 && p.conns.is_empty());
    pick(&mut p, at(0), A, 1);
    assert!(p.asks.len() < 1000, "dead asks do not pile up");
}

#[test]
fn sequential_mode_goes_by_index() {
    let mut p = picker(5, true);
    let mut all = pick(&mut p, at(0), A, 3);
    all.extend(pick(&mut p, at(0), B, 3));
    all.extend(pick(&mut p, at(0), A, 100));
    assert!(all.is_sorted());
    assert_eq!(all.len(), 20);
}

#[test]
fn end_of_the_download_asks_several_and_cancels_the_losers() {
    let mut p = picker(1, false);
    let a = pick(&mut p, at(0), A, 9);
    assert_eq!(a.len(), 4);
    assert!(pick(&mut p, at(100), B, 9).is_empty(), "it may come yet");
    assert_eq!(pick(&mut p, at(400), B, 9), a);
    assert_eq!(pick(&mut p, at(400), C, 9), a);
    assert!(pick(&mut p, at(400), ConnId(4), 9).is_empty(), "at most three");
    assert_eq!(p.on_block(at(0), B, a[0]), BlockOutcome::Store { cancel: vec![A, C] });
    assert_eq!(p.on_block(at(0), A, a[0]), BlockOutcome::Duplicate);
    assert_eq!(p.on_block(at(0), ConnId(4), a[1]), BlockOutcome::Unrequested);
    p.check();
    assert_eq!(p.givers(PieceIndex(0)), [(0, B)]);
}

#[test]
fn blocks_of_a_silent_peer_are_taken_over() {
    let mut p = picker(50, false);
    let silent = pick(&mut p, at(0), A, 2);
    let b = pick(&mut p, at(4_000), B, 4);
    assert!(b.iter().all(|x| !silent.contains(x)));
    assert_eq!(p.poll_timeout(), Some(at(5_000)));
    store_all(&mut p, B, &b);
    let taken = pick(&mut p, at(5_000), B, 2);
    assert_eq!(taken, silent);
    // The late answer still counts if it is first.
    assert_eq!(p.on_block(at(0), A, silent[0]), BlockOutcome::Store { cancel: vec![B] });
    // The second asker leaves: the block is not forgotten though its first ask is long ago.
    p.on_peer_gone(B);
    p.check();
    assert_eq!(pick(&mut p, at(5_001), C, 1), silent[1..]);
}

#[test]
fn late_block_is_taken_if_it_is_still_wanted() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 4);
    store_all(&mut p, A, &a[..1]);
    // Given up, and nobody asked since; given up, and asked of two others.
    p.on_choked(A);
    assert_eq!(p.on_late_block(at(1), A, a[1]), BlockOutcome::Store { cancel: vec![] });
    let b = pick(&mut p, at(1), B, 2);
    assert_eq!(b, a[2..], "what is here is not asked for again");
    pick(&mut p, at(60_000), C, 2);
    assert_eq!(p.on_late_block(at(60_000), A, a[2]), BlockOutcome::Store { cancel: vec![B, C] });
    p.check();
    assert_eq!(p.on_late_block(at(60_000), A, a[2]), BlockOutcome::Duplicate);
    assert_eq!(p.on_block(at(60_000), B, a[2]), BlockOutcome::Duplicate);
    assert_eq!(p.givers(a[0].piece), [(0, A), (1, A), (2, A)]);
    p.check();
}

#[test]
fn late_block_of_a_piece_that_was_let_go_starts_it_again() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 4);
    p.on_choked(A);
    p.check();
    assert_eq!(p.on_late_block(at(1), A, a[3]), BlockOutcome::Store { cancel: vec![] });
    p.check();
    assert_eq!(pick(&mut p, at(1), B, 3), a[..3], "a started piece is finished first");
}

#[test]
fn late_block_is_not_taken_where_it_is_not_wanted() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 4);
    let piece = a[0].piece;
    p.on_choked(A);
    let mut others = Bitfield::all(50);
    others.clear(piece.get());
    p.set_wanted(&others);
    assert_eq!(p.on_late_block(at(1), A, a[0]), BlockOutcome::Unrequested);
    p.check();
    p.set_wanted(&Bitfield::all(50));
    // A piece that failed is left to one peer: a block of another would hide who lied.
    p.on_block(at(1), A, a[0]);
    let again = pick(&mut p, at(1), B, 1);
    p.on_block(at(1), B, again[0]);
    p.on_piece_bad(again[0].piece);
    assert_eq!(p.on_late_block(at(1), A, again[0]), BlockOutcome::Unrequested);
    p.on_piece_good(piece);
    assert_eq!(p.on_late_block(at(1), A, a[0]), BlockOutcome::Duplicate);
    let beyond = BlockRef { begin: 4 * BLOCK_LEN, ..a[0] };
    assert_eq!(p.on_late_block(at(1), A, beyond), BlockOutcome::Unrequested);
    p.check();
}

#[test]
fn silent_peer_takes_over_nothing() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 2);
    pick(&mut p, at(0), B, 1);
    let more = pick(&mut p, at(6_000), B, 50);
    assert!(more.iter().all(|x| !a.contains(x)));
}

#[test]
fn failed_piece_is_fetched_first_and_from_one_peer() {
    let mut p = picker(50, false);
    let a = pick(&mut p, at(0), A, 4);
    store_all(&mut p, A, &a);
    p.on_piece_bad(a[0].piece);
    p.check();
    let b = pick(&mut p, at(0), B, 1);
    assert_eq!(b[0].piece, a[0].piece);
    let c = pick(&mut p, at(0), C, 500);
    assert!(c.iter().all(|x| x.piece != a[0].piece));
    // It is not left to that one peer for ever.
    let d = pick(&mut p, at(21_000), ConnId(4), 500);
    assert_eq!(d.iter().filter(|x| x.piece == a[0].piece).count(), 4);
}

#[test]
fn choked_peer_is_asked_only_for_what_it_allows() {
    let mut p = picker(50, false);
    let mut out = Vec::new();
    p.pick(at(0), A, PeerPieces::All, Some(&[7, 9]), 100, &mut out);
    p.check();
    assert_eq!(out.len(), 8);
    assert!(out.iter().all(|b| [7, 9].contains(&b.piece.get())));
}

#[test]
fn wanted_set_changes_under_way() {
    let mut p = picker(10, false);
    let a = pick(&mut p, at(0), A, 2);
    let piece = a[0].piece.get();
    let mut wanted = Bitfield::none(10);
    wanted.set((piece + 1) % 10);
    p.set_wanted(&wanted);
    p.check();
    let next = pick(&mut p, at(0), A, 100);
    assert!(next.iter().all(|b| b.piece.get() == (piece + 1) % 10));
    // What was asked before is still good when it comes.
    store_all(&mut p, A, &a);
    p.set_wanted(&Bitfield::all(10));
    p.check();
    let rest = pick(&mut p, at(0), A, 100);
    assert!(rest.iter().all(|b| !a.contains(b)));
    assert!(rest.iter().any(|b| b.piece.get() == piece));
    assert!(!p.is_interesting(PeerPieces::Some(&Bitfield::none(10))));
    assert!(p.is_interesting(PeerPieces::Some(&wanted)));
}

#[test]
fn blocks_that_do_not_exist_are_unrequested() {
    let mut p = picker(2, false);
    pick(&mut p, at(0), A, 100);
    for (piece, begin, len) in [
        (2, 0, BLOCK_LEN),
        (0, 1, BLOCK_LEN),
        (0, P, BLOCK_LEN),
        (1, 3 * BLOCK_LEN, 8),
        (0, 0, 0),
        (u32::MAX, 0, 1),
    ] {
        let block = BlockRef { piece: PieceIndex(piece), begin, len };
        assert_eq!(p.on_block(at(0), A, block), BlockOutcome::Unrequested);
        assert!(!p.on_rejected(A, block));
    }
    let good = BlockRef { piece: PieceIndex(1), begin: 3 * BLOCK_LEN, len: 7 };
    assert!(p.on_rejected(A, good) && !p.on_rejected(A, good));
    p.check();
}

#[test]
#[ignore = "prints a figure"]
fn cost_of_a_block() {
    for (pieces, piece_len, sparse) in
        [(100_000u32, 1 << 20, false), (1_600_000, BLOCK_LEN, false), (1_600_000, BLOCK_LEN, true)]
    {
        let config = PickerConfig {
            pieces,
            piece_len,
            total_len: u64::from(pieces) * u64::from(piece_len),
            wanted: Bitfield::all(pieces),
            have: Bitfield::none(pieces),
            sequential: false,
        };
        let mut p = Picker::new(config, [1; 32]);
        let mut rng = Rng::from_seed([2; 32]);
        let mut peers = Vec::new();
        for peer in 0..20u32 {
            let mut bits = Bitfield::none(pieces);
            let density = if sparse { 0.01 * f64::from(peer) } else { 0.5 };
            for piece in 0..pieces {
                if rng.chance(density) {
                    bits.set(piece);
                }
            }
            p.peer_has(&bits);
            peers.push((ConnId(u64::from(peer)), bits, VecDeque::new()));
        }
        #[expect(clippy::disallowed_methods, reason = "a figure for eyes, not a decision")]
        let start = std::time::Instant::now();
        let mut blocks = 0u64;
        let mut out = Vec::new();
        let mut stored = BTreeMap::new();
        'all: for round in 0.. {
            for (conn, bits, asked) in &mut peers {
                let now = Instant::from_micros(blocks * 16);
                out.clear();
                p.pick(
                    now,
                    *conn,
                    PeerPieces::Some(bits),
                    None,
                    if round == 0 { 64 } else { 1 },
                    &mut out,
                );
                asked.extend(out.iter().copied());
                let Some(block): Option<BlockRef> = asked.pop_front() else { continue };
                p.on_block(Instant::from_micros(blocks * 16), *conn, block);
                let n = stored.entry(block.piece).or_insert(0);
                *n += block.len;
                if *n == piece_len {
                    p.on_piece_good(block.piece);
                    stored.remove(&block.piece);
                }
                blocks += 1;
                if blocks == 1_000_000 {
                    break 'all;
                }
            }
        }
        let each = start.elapsed().as_nanos() / u128::from(blocks);
        println!("{pieces} pieces of {piece_len}, sparse {sparse}: {each} ns a block");
    }
}
