//! The choice: which blocks this peer is asked for now. Each step of [`Picker::pick`] is one
//! reason to prefer a block; a step takes what it can and leaves the rest to the next.

use std::time::Duration;

use super::partial::{Block, Partial};
use super::{Ask, BlockRef, LATE_AFTER, PeerPieces, Picker};
use crate::base::Instant;
use crate::base::limits::BLOCK_LEN;
use crate::peer::ConnId;
use crate::wire::bitfield::Bitfield;

/// Who asks and what it may be asked for.
struct Asker<'a> {
    now: Instant,
    conn: ConnId,
    have: PeerPieces<'a>,
    allowed: Option<&'a [u32]>,
}

impl Asker<'_> {
    fn may_give(&self, piece: u32) -> bool {
        self.have.has(piece) && self.allowed.is_none_or(|allowed| allowed.contains(&piece))
    }
}

impl Picker {
    /// Appends up to `n` blocks to ask of `conn`, which has `have`; only pieces out of `allowed` if
    /// given (BEP 6 "allowed fast", while choked). From now on they count as asked.
    pub fn pick(
        &mut self,
        now: Instant,
        conn: ConnId,
        have: PeerPieces<'_>,
        allowed: Option<&[u32]>,
        n: usize,
        out: &mut Vec<BlockRef>,
    ) {
        if n == 0 || self.needed.is_none() {
            return;
        }
        let asker = Asker { now, conn, have, allowed };
        let full = out.len() + n;
        self.collect_late(now);
        self.conns.entry(conn).or_default();
        self.take_urgent(&asker, full, out);
        if self.sequential {
            self.take_late(&asker, full, out);
            self.take_in_sequence(&asker, full, out);
        } else {
            self.take_own_piece(&asker, full, out);
            self.take_late(&asker, full, out);
            self.take_failed(&asker, full, out);
            self.take_partials(&asker, Join::Ownerless, full, out);
            // More started pieces than peers can work on: help to finish them first.
            if self.needy.len() > self.conns.len() + PARTIALS_SPARE {
                self.take_partials(&asker, Join::Any, full, out);
            }
            self.take_new_pieces(&asker, full, out);
            self.take_partials(&asker, Join::Any, full, out);
        }
        self.take_twice(&asker, full, out);
    }

    // Somebody waits for these: several peers may work on the same piece.
    fn take_urgent(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        for at in 0..self.urgent.len().min(LOOKS_MAX) {
            if out.len() >= full {
                return;
            }
            let piece = self.urgent[at];
            if !self.needed.has(piece) || !asker.may_give(piece) {
                continue;
            }
            let partial =
                self.slot(piece).and_then(|slot| Some((slot, self.partials[slot].as_ref()?)));
            match partial {
                Some((slot, partial)) if self.may_join(partial, asker, Join::Any) => {
                    self.take_from(slot, asker, full, out);
                }
                Some(_) => {}
                None => self.start(piece, asker, full, out),
            }
        }
    }

    // A peer tends to keep its piece: fewer pieces in the air, and a piece from one peer convicts
    // that peer if it fails.
    fn take_own_piece(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        let Some(piece) = self.conns.get(&asker.conn).and_then(|c| c.piece) else { return };
        if let Some(slot) = self.slot(piece)
            && self.needed.has(piece)
            && asker.may_give(piece)
        {
            self.take_from(slot, asker, full, out);
        }
    }

    // Blocks whose peer is silent go to a peer that is not.
    fn take_late(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        if self.late.is_empty() || out.len() >= full || self.is_slow(asker, LATE_AFTER) {
            return;
        }
        let late: Vec<_> = self.late.iter().copied().take(LOOKS_MAX).collect();
        for (piece, block) in late {
            if out.len() >= full {
                return;
            }
            if self.ask_too(asker, piece, block, out) {
                self.late.remove(&(piece, block));
            }
        }
    }

    // Does this peer itself owe a block for so long?
    fn is_slow(&self, asker: &Asker<'_>, wait: Duration) -> bool {
        let oldest = self.conns.get(&asker.conn).and_then(|c| c.asked.front());
        oldest.is_some_and(|(_, _, at)| asker.now.since(*at) >= wait)
    }

    fn take_failed(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        if self.failed.is_empty() {
            return;
        }
        let failed: Vec<_> = self.failed.iter().copied().take(LOOKS_MAX).collect();
        for piece in failed {
            if out.len() >= full {
                return;
            }
            if self.order.open().has(piece) && asker.may_give(piece) {
                self.start(piece, asker, full, out);
            }
        }
    }

    fn take_partials(
        &mut self,
        asker: &Asker<'_>,
        join: Join,
        full: usize,
        out: &mut Vec<BlockRef>,
    ) {
        let mut at = 0;
        while out.len() < full && at < self.needy.len().min(LOOKS_MAX) {
            let slot = self.needy[at] as usize;
            let partial = self.partials[slot].as_ref().expect("a needy slot holds a piece");
            if self.may_join(partial, asker, join) && asker.may_give(partial.piece) {
                self.take_from(slot, asker, full, out);
                // A piece without missing blocks has left the list; another stands in its place.
                if self.needy.get(at).is_none_or(|s| *s as usize != slot) {
                    continue;
                }
            }
            at += 1;
        }
    }

    fn may_join(&self, partial: &Partial, asker: &Asker<'_>, join: Join) -> bool {
        match join {
            _ if self.is_ownerless(partial, asker.conn) => true,
            Join::Ownerless => false,
            Join::Any => partial.solo_until.is_none_or(|until| asker.now >= until),
        }
    }

    // True if no peer but `conn` is at this piece.
    fn is_ownerless(&self, partial: &Partial, conn: ConnId) -> bool {
        let Some(owner) = partial.owner else { return true };
        owner == conn || self.conns.get(&owner).is_none_or(|c| c.piece != Some(partial.piece))
    }

    fn take_new_pieces(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        // A peer that had nothing to start is not searched again until one of both has changed.
        let known = (self.order.epoch(), asker.have.bits().map(Bitfield::count));
        while out.len() < full {
            let conn = self.conns.entry(asker.conn).or_default();
            if asker.allowed.is_none() && conn.barren == Some(known) {
                return;
            }
            match self.next_piece(asker) {
                Some(piece) => self.start(piece, asker, full, out),
                None => {
                    if asker.allowed.is_none() {
                        self.conns.entry(asker.conn).or_default().barren = Some(known);
                    }
                    return;
                }
            }
        }
    }

    fn next_piece(&mut self, asker: &Asker<'_>) -> Option<u32> {
        if self.order.len() == 0 {
            return None;
        }
        if let Some(allowed) = asker.allowed {
            let open = self.order.open();
            return allowed.iter().copied().find(|p| open.has(*p) && asker.have.has(*p));
        }
        // The first pieces are random: a rare one is slow to get, and we have nothing to give yet.
        let is_shared = matches!(asker.have, PeerPieces::All) && !self.fellows.is_alone();
        if self.have.count() < RANDOM_PIECES && !is_shared {
            return self.order.random(asker.have.bits(), &mut self.rng);
        }
        match asker.have {
            PeerPieces::All => {
                self.order.rarest(|piece| self.fellows.is_ours(piece), &mut self.rng)
            }
            PeerPieces::Some(bits) => self.order.rarest_of(bits, &mut self.rng),
        }
    }

    fn take_in_sequence(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        while out.len() < full {
            let needy = self.needy.iter().filter_map(|slot| self.partials[*slot as usize].as_ref());
            let started = needy.map(|p| p.piece).filter(|piece| asker.may_give(*piece)).min();
            let fresh = match asker.allowed {
                None => self.order.lowest(asker.have.bits()),
                Some(_) => self.next_piece(asker),
            };
            match (started, fresh) {
                (Some(piece), fresh) if fresh.is_none_or(|fresh| piece < fresh) => {
                    let slot = self.slot(piece).expect("a started piece has a slot");
                    self.take_from(slot, asker, full, out);
                }
                (_, Some(piece)) => self.start(piece, asker, full, out),
                (_, None) => return,
            }
        }
    }

    // Nothing is left that nobody was asked for: ask several peers for the same block, the one that
    // waits longest first. At the very end (endgame) as soon as it takes longer than usual, else only
    // for blocks that take long. In a swarm of fast peers most blocks arrive before that; without
    // waiting a small torrent came three times.
    fn take_twice(&mut self, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        let asked = self.asked_of(asker.conn);
        if out.len() >= full || asked >= ENDGAME_ASKS_MAX {
            return;
        }
        let full = full.min(out.len() + ENDGAME_ASKS_MAX - asked);
        let is_endgame = self.order.len() == 0 && self.needy.is_empty();
        let usual = self.usual_wait.unwrap_or(FIRST_WAIT) * 2;
        let age_min = if is_endgame {
            usual.min(ENDGAME_WAIT_MAX)
        } else {
            usual.clamp(IDLE_WAIT_MIN, LATE_AFTER)
        };
        if self.is_slow(asker, age_min) {
            return;
        }
        self.take_late(asker, full, out);
        let mut at = 0;
        while out.len() < full && at < self.asks.len().min(ENDGAME_LOOKS_MAX) {
            let Ask { piece, block, at: asked_at, .. } = self.asks[at];
            if asker.now.since(asked_at) < age_min {
                return;
            }
            self.ask_too(asker, piece, block, out);
            at += 1;
        }
    }

    // --- the small steps ----------------------------------------------------------------------

    fn start(&mut self, piece: u32, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        let slot = self.open(asker.now, piece);
        self.take_from(slot, asker, full, out);
    }

    /// Makes a started piece of one that was not; the caller does something to a block of it.
    pub(super) fn open(&mut self, now: Instant, piece: u32) -> usize {
        self.order.remove(piece);
        let mut partial = Partial::new(piece, self.len_of(piece).div_ceil(BLOCK_LEN));
        if self.failed.contains(&piece) {
            partial.solo_until = Some(now + SOLO_TIME);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.partials.push(None);
                u32::try_from(self.partials.len() - 1).expect("there are at most PIECES_MAX pieces")
            }
        };
        self.slots[piece as usize] = slot;
        self.partials[slot as usize] = Some(partial);
        slot as usize
    }

    // Asks for missing blocks of a started piece, in order.
    fn take_from(&mut self, slot: usize, asker: &Asker<'_>, full: usize, out: &mut Vec<BlockRef>) {
        let mut partial = self.partials[slot].take().expect("a slot in use holds a piece");
        let piece = partial.piece;
        if self.is_ownerless(&partial, asker.conn) {
            partial.owner = Some(asker.conn);
        }
        while out.len() < full {
            let Some(block) = partial.ask_next(asker.conn, asker.now) else { break };
            self.record_ask(asker, piece, block, out);
        }
        let is_left = partial.missing() > 0 && self.needed.has(piece);
        self.conns.entry(asker.conn).or_default().piece = is_left.then_some(piece);
        self.partials[slot] = Some(partial);
        self.update_needy(slot);
    }

    fn ask_too(
        &mut self,
        asker: &Asker<'_>,
        piece: u32,
        block: u32,
        out: &mut Vec<BlockRef>,
    ) -> bool {
        if !asker.may_give(piece) || !self.needed.has(piece) {
            return false;
        }
        let Some(slot) = self.slot(piece) else { return false };
        let partial = self.partials[slot].as_mut().expect("a slot in use holds a piece");
        if !partial.ask_too(block, asker.conn, asker.now) {
            return false;
        }
        self.record_ask(asker, piece, block, out);
        true
    }

    fn record_ask(&mut self, asker: &Asker<'_>, piece: u32, block: u32, out: &mut Vec<BlockRef>) {
        let Asker { now, conn, .. } = *asker;
        self.conns.entry(conn).or_default().asked.push_back((piece, block, now));
        self.asks.push_back(Ask { piece, block, conn, at: now });
        self.asked += 1;
        out.push(self.block_ref(piece, block));
    }

    // Forgets asks that were answered, and moves what has become late to where it can be found.
    fn collect_late(&mut self, now: Instant) {
        while let Some(ask) = self.asks.front().copied() {
            if self.is_live(&ask) {
                if now.since(ask.at) < LATE_AFTER {
                    break;
                }
                if self.is_late(&ask) {
                    self.late.insert((ask.piece, ask.block));
                }
            }
            self.asks.pop_front();
        }
        // A late front must not keep thousands of answered asks behind it in memory.
        if self.asks.len() > 2 * self.asked + ASKS_SPARE {
            let mut asks = std::mem::take(&mut self.asks);
            asks.retain(|ask| self.is_live(ask));
            self.asks = asks;
        }
    }

    fn is_live(&self, ask: &Ask) -> bool {
        self.partial(ask.piece).and_then(|p| p.asked_at(ask.block, ask.conn)) == Some(ask.at)
    }

    // A block asked of several peers is late when the last of them is.
    fn is_late(&self, ask: &Ask) -> bool {
        let block = self.partial(ask.piece).and_then(|partial| partial.block(ask.block));
        let Some(Block::Asked(askers)) = block else { return false };
        !askers.is_full() && askers.as_slice().iter().all(|(_, at)| *at <= ask.at)
    }

    /// Everything that must be true between two calls. Slow: for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.order.check();
        let mut asked = 0;
        assert!(self.asks.len() <= 2 * self.asked + ASKS_SPARE + 4096);
        let mut missing_bytes = 0;
        for piece in 0..self.have.len() {
            let needed = self.wanted.has(piece) && !self.have.has(piece);
            assert_eq!(needed, self.needed.has(piece));
            missing_bytes += if needed { u64::from(self.len_of(piece)) } else { 0 };
            let Some(partial) = self.partial(piece) else {
                assert_eq!(
                    self.order.open().has(piece),
                    needed,
                    "piece {piece} is open iff needed"
                );
                continue;
            };
            partial.check();
            assert_eq!(partial.piece, piece);
            assert!(!self.order.open().has(piece) && !self.have.has(piece), "one state a piece");
            assert!(!partial.is_untouched(), "an untouched piece is not started");
            let is_needy = partial.missing() > 0 && needed;
            assert_eq!(partial.needy_at.is_some(), is_needy);
            if let Some(at) = partial.needy_at {
                assert_eq!(self.needy[at], self.slots[piece as usize]);
            }
            for (block, i) in partial.blocks().iter().zip(0..) {
                let Block::Asked(askers) = block else {
                    assert!(!self.late.contains(&(piece, i)), "only an asked block is late");
                    continue;
                };
                for (conn, at) in askers.as_slice() {
                    assert!(self.conns[conn].asked.contains(&(piece, i, *at)), "both records");
                    asked += 1;
                }
            }
        }
        assert_eq!(missing_bytes, self.missing_bytes);
        assert_eq!(self.conns.values().map(|c| c.asked.len()).sum::<usize>(), asked);
        assert_eq!(self.asked, asked);
        assert_eq!(self.partials.iter().flatten().count() + self.free.len(), self.partials.len());
        let needy = self.partials.iter().flatten().filter(|p| p.needy_at.is_some()).count();
        assert_eq!(needy, self.needy.len());
    }
}

/// Which started pieces a peer may help with.
#[derive(Clone, Copy)]
enum Join {
    /// Those that nobody works on.
    Ownerless,
    /// Every one that is not kept for one peer.
    Any,
}

/// Pieces chosen at random before rarity counts.
const RANDOM_PIECES: u32 = 4;
/// Started pieces beyond one a peer: what peers that left have begun.
const PARTIALS_SPARE: usize = 8;
/// Entries looked at in one list by one call.
const LOOKS_MAX: usize = 256;
/// Blocks of a peer's pipeline up to which it is asked as the second or third one: half a second of
/// 1 MB/s, and the most that one peer can send in vain at the end.
const ENDGAME_ASKS_MAX: usize = 32;
/// Asks looked at for that.
const ENDGAME_LOOKS_MAX: usize = 1024;
/// Answered asks that may stand in the queue of asks beside as many as there are live ones.
const ASKS_SPARE: usize = 256;
/// Before the end an idle peer is asked for a block that another was asked for at least this long ago.
const IDLE_WAIT_MIN: Duration = Duration::from_secs(1);
/// At the end no block is waited for longer than this before another peer is asked too.
const ENDGAME_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a block is waited for while it is not known what is usual.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long a piece that failed before is left to one peer.
const SOLO_TIME: Duration = Duration::from_secs(20);
