//! Any history whatsoever: a world that remembers on its own what was asked, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{at, picker};
use crate::base::{Instant, Rng};
use crate::peer::ConnId;
use crate::swarm::picker::{BlockOutcome, BlockRef, PeerPieces, Picker};
use crate::wire::bitfield::Bitfield;

#[derive(Debug, Clone)]
struct Peer {
    pieces: Bitfield,
    is_seed: bool,
    asked: Vec<BlockRef>,
    given_up: Vec<BlockRef>,
}

#[derive(Debug, Clone)]
enum Step {
    Join { density: u8 },
    Have { peer: usize, piece: u32 },
    Pick { peer: usize, n: usize },
    Answer { peer: usize, which: usize },
    AnswerLate { peer: usize, which: usize },
    Reject { peer: usize, which: usize },
    Choke { peer: usize },
    Leave { peer: usize },
    Wait { millis: u64 },
    Want { mask: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..=4u8).prop_map(|density| Step::Join { density }),
        2 => (any::<usize>(), 0..12u32).prop_map(|(peer, piece)| Step::Have { peer, piece }),
        8 => (any::<usize>(), 1..12usize).prop_map(|(peer, n)| Step::Pick { peer, n }),
        12 => any::<(usize, usize)>().prop_map(|(peer, which)| Step::Answer { peer, which }),
        4 => any::<(usize, usize)>().prop_map(|(peer, which)| Step::AnswerLate { peer, which }),
        2 => any::<(usize, usize)>().prop_map(|(peer, which)| Step::Reject { peer, which }),
        1 => any::<usize>().prop_map(|peer| Step::Choke { peer }),
        1 => any::<usize>().prop_map(|peer| Step::Leave { peer }),
        2 => (0..7000u64).prop_map(|millis| Step::Wait { millis }),
        1 => any::<u64>().prop_map(|mask| Step::Want { mask }),
    ]
}

/// Runs the picker in a world that remembers on its own what was asked, and compares.
struct World {
    picker: Picker,
    pieces: u32,
    peers: BTreeMap<ConnId, Peer>,
    stored: BTreeSet<BlockRef>,
    now: Instant,
    next: u64,
    rng: Rng,
}

impl World {
    fn new(pieces: u32, sequential: bool, seed: u8) -> Self {
        World {
            picker: picker(pieces, sequential),
            pieces,
            peers: BTreeMap::new(),
            stored: BTreeSet::new(),
            now: at(0),
            next: 1,
            rng: Rng::from_seed([seed; 32]),
        }
    }

    fn nth(&self, n: usize) -> Option<ConnId> {
        self.peers.keys().nth(n % self.peers.len().max(1)).copied()
    }

    fn join(&mut self, density: u8) {
        let mut pieces = Bitfield::none(self.pieces);
        for piece in 0..self.pieces {
            if self.rng.chance(f64::from(density) / 4.0) {
                pieces.set(piece);
            }
        }
        let is_seed = pieces.is_all();
        self.picker.peer_has(&pieces);
        let peer = Peer { pieces, is_seed, asked: Vec::new(), given_up: Vec::new() };
        self.peers.insert(ConnId(self.next), peer);
        self.next += 1;
    }

    fn pick(&mut self, conn: ConnId, n: usize) -> usize {
        let peer = self.peers.get_mut(&conn).unwrap();
        let pieces = if peer.is_seed { PeerPieces::All } else { PeerPieces::Some(&peer.pieces) };
        let mut out = Vec::new();
        self.picker.pick(self.now, conn, pieces, None, n, &mut out);
        assert!(out.len() <= n);
        for block in &out {
            assert!(peer.pieces.has(block.piece.get()), "picks only what the peer has");
            assert!(self.picker.wanted().has(block.piece.get()));
            assert!(!self.stored.contains(block) && !self.picker.have().has(block.piece.get()));
            assert!(!peer.asked.contains(block), "asks a peer once");
        }
        peer.asked.extend(&out);
        for block in &out {
            let askers = self.peers.values().filter(|p| p.asked.contains(block)).count();
            assert!(askers <= 3);
        }
        out.len()
    }

    fn answer(&mut self, conn: ConnId, which: usize, bad_pieces: bool) {
        let peer = self.peers.get_mut(&conn).unwrap();
        if peer.asked.is_empty() {
            return;
        }
        let block = peer.asked.remove(which % peer.asked.len());
        let BlockOutcome::Store { cancel } = self.picker.on_block(self.now, conn, block) else {
            panic!("a block that was asked for is wanted: {block:?}");
        };
        self.take(block, cancel, bad_pieces);
    }

    fn answer_late(&mut self, conn: ConnId, which: usize) {
        let peer = self.peers.get_mut(&conn).unwrap();
        if peer.given_up.is_empty() {
            return;
        }
        let block = peer.given_up.remove(which % peer.given_up.len());
        // A connection tells the two apart: what was asked for again is not late.
        if peer.asked.contains(&block) {
            return;
        }
        let piece = block.piece.get();
        match self.picker.on_late_block(self.now, conn, block) {
            BlockOutcome::Store { cancel } => {
                assert!(self.picker.is_needed(piece) && !self.stored.contains(&block));
                self.take(block, cancel, true);
            }
            BlockOutcome::Duplicate => {
                assert!(self.stored.contains(&block) || self.picker.have().has(piece));
            }
            BlockOutcome::Unrequested => {
                let has_failed = self.picker.failed.contains(&piece);
                assert!(has_failed || !self.picker.wanted().has(piece));
            }
        }
    }

    fn take(&mut self, block: BlockRef, cancel: Vec<ConnId>, bad_pieces: bool) {
        let mut others: Vec<_> =
            self.peers.iter().filter(|(_, p)| p.asked.contains(&block)).collect();
        others.sort_by_key(|(conn, _)| cancel.iter().position(|c| c == *conn));
        assert!(others.iter().map(|(conn, _)| *conn).eq(&cancel));
        for other in cancel {
            self.peers.get_mut(&other).unwrap().asked.retain(|b| *b != block);
        }
        self.stored.insert(block);
        let stored = self.stored.iter().filter(|b| b.piece == block.piece);
        let bytes: u32 = stored.map(|b| b.len).sum();
        if bytes < self.picker.len_of(block.piece.get()) {
            return;
        }
        let blocks = self.stored.iter().filter(|b| b.piece == block.piece).count();
        assert_eq!(self.picker.givers(block.piece).len(), blocks);
        if bad_pieces && self.rng.chance(0.2) {
            self.stored.retain(|b| b.piece != block.piece);
            self.picker.on_piece_bad(block.piece);
        } else {
            self.picker.on_piece_good(block.piece);
        }
    }

    fn leave(&mut self, conn: ConnId) {
        let peer = self.peers.remove(&conn).unwrap();
        self.picker.on_peer_gone(conn);
        if peer.is_seed { self.picker.peer_lost_all() } else { self.picker.peer_lost(&peer.pieces) }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Join { density } if self.peers.len() < 12 => self.join(density),
            Step::Join { .. } => {}
            Step::Wait { millis } => self.now += Duration::from_millis(millis),
            Step::Want { mask } => {
                let mut wanted = Bitfield::none(self.pieces);
                for piece in (0..self.pieces).filter(|piece| mask >> piece & 1 == 1) {
                    wanted.set(piece);
                }
                self.picker.set_wanted(&wanted);
            }
            Step::Have { peer, piece } => {
                let Some(conn) = self.nth(peer) else { return };
                let peer = self.peers.get_mut(&conn).unwrap();
                if peer.pieces.set(piece % self.pieces) {
                    self.picker.peer_has_piece(piece % self.pieces);
                }
            }
            Step::Pick { peer, n } => {
                let Some(conn) = self.nth(peer) else { return };
                self.pick(conn, n);
            }
            Step::Answer { peer, which } => {
                let Some(conn) = self.nth(peer) else { return };
                self.answer(conn, which, true);
            }
            Step::AnswerLate { peer, which } => {
                let Some(conn) = self.nth(peer) else { return };
                self.answer_late(conn, which);
            }
            Step::Reject { peer, which } => {
                let Some(conn) = self.nth(peer) else { return };
                let peer = self.peers.get_mut(&conn).unwrap();
                if peer.asked.is_empty() {
                    return;
                }
                let block = peer.asked.remove(which % peer.asked.len());
                peer.given_up.push(block);
                assert!(self.picker.on_rejected(conn, block));
            }
            Step::Choke { peer } => {
                let Some(conn) = self.nth(peer) else { return };
                let peer = self.peers.get_mut(&conn).unwrap();
                peer.given_up.append(&mut peer.asked);
                self.picker.on_choked(conn);
            }
            Step::Leave { peer } => {
                let Some(conn) = self.nth(peer) else { return };
                self.leave(conn);
            }
        }
    }

    // From any state, one honest seed finishes everything, whoever else stays silent.
    fn finish(&mut self) {
        self.picker.set_wanted(&Bitfield::all(self.pieces));
        let seed = ConnId(self.next);
        self.join(4);
        for _ in 0..2_000 {
            if self.picker.is_complete() {
                break;
            }
            self.pick(seed, 16);
            while !self.peers[&seed].asked.is_empty() {
                self.answer(seed, 0, false);
            }
            self.picker.check();
            self.now += Duration::from_secs(1);
            // A block with three silent askers waits until one of them is given up.
            if self.picker.asked > 0 && self.peers.len() > 1 && self.rng.chance(0.05) {
                let other = *self.peers.keys().next().unwrap();
                self.leave(other);
            }
        }
        assert!(self.picker.is_complete(), "everything completes");
        assert!(self.peers.values().all(|p| p.asked.is_empty()) && self.picker.asked == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_history_loses_or_doubles_a_block(
        steps in prop::collection::vec(step(), 1..300),
        pieces in 1..12u32,
        sequential in any::<bool>(),
        seed in any::<u8>(),
    ) {
        let mut world = World::new(pieces, sequential, seed);
        for step in steps {
            world.apply(step);
            world.picker.check();
        }
        world.finish();
    }
}
