//! Which block to ask of which peer (BEP 3: "rarest first", "endgame"). Plain numbers and sets: it
//! knows no sockets, files, hashes or addresses, and its owner tells it everything that happens.
//!
//! Every block is in exactly one state. Those of a piece that was never started are missing, those
//! of a good piece are good; a started piece keeps one state a block in `partial.rs`. `order.rs`
//! holds the pieces that may be started, rarest first; `select.rs` chooses among all of these.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use self::fellows::Fellows;
use self::order::Order;
use self::partial::{Askers, Block, Partial};
use crate::base::limits::BLOCK_LEN;
use crate::base::{Instant, Rng, Seed};
use crate::peer::ConnId;
use crate::swarm::PieceIndex;
use crate::wire::bitfield::Bitfield;

mod fellows;
mod order;
mod partial;
mod select;
#[cfg(test)]
mod tests;

/// One block, as a request names it (BEP 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// Which piece.
    pub piece: PieceIndex,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
}

/// The pieces of a peer.
#[derive(Debug, Clone, Copy)]
pub enum PeerPieces<'a> {
    /// It has everything.
    All,
    /// It has these.
    Some(&'a Bitfield),
}

impl PeerPieces<'_> {
    /// Does it have this piece?
    pub fn has(&self, piece: u32) -> bool {
        match self {
            PeerPieces::All => true,
            PeerPieces::Some(pieces) => pieces.has(piece),
        }
    }

    fn bits(&self) -> Option<&Bitfield> {
        match self {
            PeerPieces::All => None,
            PeerPieces::Some(pieces) => Some(pieces),
        }
    }
}

/// What a torrent is, to its picker.
#[derive(Debug, Clone)]
pub struct PickerConfig {
    /// Pieces in the torrent.
    pub pieces: u32,
    /// Bytes of every piece but the last.
    pub piece_len: u32,
    /// Bytes in all.
    pub total_len: u64,
    /// The pieces to fetch.
    pub wanted: Bitfield,
    /// The pieces that are here already.
    pub have: Bitfield,
    /// By index rather than rarest first.
    pub sequential: bool,
}

/// What a received block is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockOutcome {
    /// Give it to the storage, and tell these others that it is not needed any more.
    Store {
        /// Peers that were asked for the same block.
        cancel: Vec<ConnId>,
    },
    /// It was wanted once, but it is here already.
    Duplicate,
    /// This peer was not asked for it, or no such block exists.
    Unrequested,
}

/// The picker of one torrent.
#[derive(Debug)]
pub struct Picker {
    piece_len: u32,
    total_len: u64,
    sequential: bool,
    wanted: Bitfield,
    have: Bitfield,
    /// Wanted and not here.
    needed: Bitfield,
    missing_bytes: u64,
    order: Order,
    /// Where a started piece stands in `partials`.
    slots: Vec<u32>,
    partials: Vec<Option<Partial>>,
    free: Vec<u32>,
    /// Slots of wanted partial pieces with missing blocks, in no particular order.
    needy: Vec<u32>,
    conns: BTreeMap<ConnId, Conn>,
    /// Every ask in order of time. An entry outlives its ask; `asked_at` tells whether it is live.
    asks: VecDeque<Ask>,
    /// How many of `asks` are live.
    asked: usize,
    /// Blocks that are late: another peer may be asked for them.
    late: BTreeSet<(u32, u32)>,
    /// How long a block takes from being asked for to its arrival, smoothed over all peers.
    usual_wait: Option<Duration>,
    /// Pieces that failed their hash: fetched first, each from one peer, to find the liar.
    failed: BTreeSet<u32>,
    /// Pieces that somebody waits for, the soonest first.
    urgent: Vec<u32>,
    /// Whose pieces are whose, of those that only seeds have.
    fellows: Fellows,
    rng: Rng,
}

#[derive(Debug, Default)]
struct Conn {
    /// Blocks asked of this peer, oldest first.
    asked: VecDeque<(u32, u32, Instant)>,
    /// The piece it is at.
    piece: Option<u32>,
    /// It had no open piece when the order was in this epoch and it had so many pieces.
    barren: Option<(u64, Option<u32>)>,
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    piece: u32,
    block: u32,
    conn: ConnId,
    at: Instant,
}

impl Picker {
    /// A picker for a torrent of at least one piece. The sets are for `config.pieces` pieces, which
    /// cover `total_len` bytes.
    pub fn new(config: PickerConfig, seed: Seed) -> Self {
        let pieces = config.pieces;
        assert!(config.wanted.len() == pieces && config.have.len() == pieces, "sets of all pieces");
        assert!(
            config.total_len.div_ceil(u64::from(config.piece_len).max(1)) == u64::from(pieces),
            "the pieces cover the torrent"
        );
        let mut picker = Self {
            piece_len: config.piece_len,
            total_len: config.total_len,
            sequential: config.sequential,
            wanted: Bitfield::none(pieces),
            have: config.have,
            needed: Bitfield::none(pieces),
            missing_bytes: 0,
            order: Order::new(pieces),
            slots: vec![NO_SLOT; pieces as usize],
            partials: Vec::new(),
            free: Vec::new(),
            needy: Vec::new(),
            conns: BTreeMap::new(),
            asks: VecDeque::new(),
            asked: 0,
            late: BTreeSet::new(),
            usual_wait: None,
            failed: BTreeSet::new(),
            urgent: Vec::new(),
            fellows: Fellows::default(),
            rng: Rng::from_seed(seed),
        };
        picker.set_wanted(&config.wanted);
        picker
    }

    // --- who has what -------------------------------------------------------------------------

    /// A peer told its pieces.
    pub fn peer_has(&mut self, pieces: &Bitfield) {
        if pieces.is_all() {
            return self.peer_has_all();
        }
        for piece in pieces.iter() {
            self.order.count_up(piece);
        }
    }

    /// A peer has everything.
    pub fn peer_has_all(&mut self) {
        self.order.seed_up();
    }

    /// A peer has one more piece: call it once for each piece it did not have before.
    pub fn peer_has_piece(&mut self, piece: u32) {
        self.order.count_up(piece);
    }

    /// A peer that had these pieces is gone.
    pub fn peer_lost(&mut self, pieces: &Bitfield) {
        if pieces.is_all() {
            return self.peer_lost_all();
        }
        for piece in pieces.iter() {
            self.order.count_down(piece);
        }
    }

    /// A peer has one piece less, and had not everything: call it once for each.
    pub fn peer_lost_piece(&mut self, piece: u32) {
        self.order.count_down(piece);
    }

    /// A peer that had everything is gone.
    pub fn peer_lost_all(&mut self) {
        self.order.seed_down();
    }

    /// Those that download beside us have changed.
    pub fn set_fellows(&mut self, fellows: Fellows) {
        self.fellows = fellows;
    }

    /// Connected peers that have `piece`.
    pub fn copies(&self, piece: u32) -> u32 {
        self.order.copies(piece)
    }

    // --- what is here -------------------------------------------------------------------------

    /// The good pieces.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// The wanted pieces.
    pub fn wanted(&self) -> &Bitfield {
        &self.wanted
    }

    /// True if every wanted piece is good.
    pub fn is_complete(&self) -> bool {
        self.needed.is_none()
    }

    /// Bytes of wanted pieces that are not good yet.
    pub fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// The same, of pieces that no connected peer has.
    pub fn unavailable_bytes(&self) -> u64 {
        if self.order.has_seeds() {
            return 0;
        }
        let missing = self.needed.iter().filter(|piece| self.order.copies(*piece) == 0);
        missing.map(|piece| u64::from(self.len_of(piece))).sum()
    }

    /// True if `piece` is wanted and not good.
    pub fn is_needed(&self, piece: u32) -> bool {
        self.needed.has(piece)
    }

    /// Has this peer a piece that we want and lack?
    pub fn is_interesting(&self, pieces: PeerPieces<'_>) -> bool {
        match pieces {
            PeerPieces::All => !self.needed.is_none(),
            PeerPieces::Some(bits) => order::common(&self.needed, bits, 0).next().is_some(),
        }
    }

    /// Blocks asked of `conn` and not answered.
    pub fn asked_of(&self, conn: ConnId) -> usize {
        self.conns.get(&conn).map_or(0, |c| c.asked.len())
    }

    /// Was this peer asked only for what nobody else has?
    pub fn is_only_source(&self, conn: ConnId) -> bool {
        let asked = self.conns.get(&conn).map(|c| &c.asked);
        asked.is_some_and(|asked| asked.iter().all(|(piece, ..)| self.order.copies(*piece) <= 1))
    }

    /// When a block will be late and may be asked of another peer: worth a `pick` for idle peers.
    /// May be earlier than needed, never later.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asks.front().map(|ask| ask.at + LATE_AFTER)
    }

    /// Who gave the stored blocks of a piece: valid until the piece is called good or bad.
    pub fn givers(&self, piece: PieceIndex) -> Vec<(u32, ConnId)> {
        let Some(partial) = self.partial(piece.get()) else { return Vec::new() };
        let stored = partial.blocks().iter().zip(0..).filter_map(|(block, i)| match block {
            Block::Stored(giver) => Some((i, *giver)),
            Block::Missing | Block::Asked(_) => None,
        });
        stored.collect()
    }

    /// Pieces in order of their index from now on, or rarest first.
    pub fn set_sequential(&mut self, sequential: bool) {
        self.sequential = sequential;
    }

    /// Fetch these pieces from now on. What was started of others stays; nothing more of it is
    /// asked for.
    pub fn set_wanted(&mut self, wanted: &Bitfield) {
        assert_eq!(wanted.len(), self.have.len(), "a set of all pieces");
        for piece in 0..wanted.len() {
            let needed = wanted.has(piece) && !self.have.has(piece);
            if needed == self.needed.has(piece) {
                continue;
            }
            if needed {
                self.needed.set(piece);
                self.missing_bytes += u64::from(self.len_of(piece));
            } else {
                self.needed.clear(piece);
                self.missing_bytes -= u64::from(self.len_of(piece));
            }
            match self.slot(piece) {
                Some(slot) => self.update_needy(slot),
                None if needed => self.order.insert(piece),
                None => self.order.remove(piece),
            }
        }
        self.wanted = wanted.clone();
    }

    /// Somebody waits for these pieces, in this order: what is needed of them comes before all else.
    pub fn set_urgent(&mut self, pieces: Vec<u32>) {
        self.urgent = pieces;
    }

    /// The piece that is waited for soonest.
    pub fn first_urgent(&self) -> Option<u32> {
        self.urgent.iter().copied().find(|piece| self.needed.has(*piece))
    }

    // --- what happens to blocks ---------------------------------------------------------------

    /// `conn` sent a block.
    pub fn on_block(&mut self, now: Instant, conn: ConnId, block: BlockRef) -> BlockOutcome {
        let Some((piece, at)) = self.locate(block) else { return BlockOutcome::Unrequested };
        if self.have.has(piece) {
            return BlockOutcome::Duplicate;
        }
        let Some(slot) = self.slot(piece) else { return BlockOutcome::Unrequested };
        let partial = self.partials[slot].as_mut().expect("a slot in use holds a piece");
        let askers = match partial.block(at) {
            Some(Block::Asked(askers)) if askers.contains(conn) => *askers,
            Some(Block::Stored(_)) => return BlockOutcome::Duplicate,
            Some(Block::Asked(_) | Block::Missing) | None => return BlockOutcome::Unrequested,
        };
        if let Some(asked_at) = partial.asked_at(at, conn) {
            self.usual_wait = smoothed(self.usual_wait, now.since(asked_at));
        }
        partial.store(at, conn);
        self.late.remove(&(piece, at));
        BlockOutcome::Store { cancel: self.forget_askers(conn, askers, piece, at) }
    }

    /// `conn` sent a block that it was asked for once; meanwhile the request was given up. Nobody
    /// need be asked for it any more.
    pub fn on_late_block(&mut self, now: Instant, conn: ConnId, block: BlockRef) -> BlockOutcome {
        let Some((piece, at)) = self.locate(block) else { return BlockOutcome::Unrequested };
        if self.have.has(piece) {
            return BlockOutcome::Duplicate;
        }
        // A piece that failed is fetched from one peer alone, to find the liar.
        if !self.needed.has(piece) || self.failed.contains(&piece) {
            return BlockOutcome::Unrequested;
        }
        let slot = self.slot(piece).unwrap_or_else(|| self.open(now, piece));
        let partial = self.partials[slot].as_mut().expect("a slot in use holds a piece");
        let askers = match partial.block(at) {
            Some(Block::Missing) => Askers::none(),
            Some(Block::Asked(askers)) => *askers,
            Some(Block::Stored(_)) => return BlockOutcome::Duplicate,
            None => return BlockOutcome::Unrequested,
        };
        partial.store(at, conn);
        self.late.remove(&(piece, at));
        let cancel = self.forget_askers(conn, askers, piece, at);
        self.update_needy(slot);
        BlockOutcome::Store { cancel }
    }

    /// `conn` will not send a block that it was asked for (BEP 6 "reject", or we cancelled it).
    /// False if it was not asked for it.
    pub fn on_rejected(&mut self, conn: ConnId, block: BlockRef) -> bool {
        let Some((piece, at)) = self.locate(block) else { return false };
        let asked = self.partial(piece).is_some_and(|p| p.asked_at(at, conn).is_some());
        if asked {
            self.forget_ask(conn, piece, at);
            self.release(conn, piece, at);
        }
        asked
    }

    /// We cancelled a request: the same as a reject.
    pub fn on_cancelled(&mut self, conn: ConnId, block: BlockRef) -> bool {
        self.on_rejected(conn, block)
    }

    /// `conn` will send nothing of what it was asked for: it choked us and has no fast extension.
    pub fn on_choked(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        // Whoever comes next may finish its piece.
        state.piece = None;
        let asked = std::mem::take(&mut state.asked);
        self.asked -= asked.len();
        for (piece, block, _) in asked {
            self.release(conn, piece, block);
        }
    }

    /// The connection is over. Its pieces are taken back by `peer_lost` or `peer_lost_all`.
    pub fn on_peer_gone(&mut self, conn: ConnId) {
        self.on_choked(conn);
        self.conns.remove(&conn);
    }

    /// The piece passed its hash.
    pub fn on_piece_good(&mut self, piece: PieceIndex) {
        let piece = piece.get();
        self.drop_partial(piece);
        self.order.remove(piece);
        self.failed.remove(&piece);
        self.have.set(piece);
        if self.needed.clear(piece) {
            self.missing_bytes -= u64::from(self.len_of(piece));
        }
    }

    /// The piece failed its hash, or is gone from the disk: all of its blocks are missing again.
    pub fn on_piece_bad(&mut self, piece: PieceIndex) {
        let piece = piece.get();
        if self.drop_partial(piece) {
            self.failed.insert(piece);
        }
        self.have.clear(piece);
        if self.wanted.has(piece) {
            if self.needed.set(piece) {
                self.missing_bytes += u64::from(self.len_of(piece));
            }
            self.order.insert(piece);
        }
    }

    /// A piece that was good is gone. It is fetched again, or not wanted any more.
    pub fn on_piece_lost(&mut self, piece: PieceIndex, again: bool) {
        if !again && self.wanted.clear(piece.get()) && self.needed.clear(piece.get()) {
            self.missing_bytes -= u64::from(self.len_of(piece.get()));
        }
        self.on_piece_bad(piece);
    }

    // --- the small steps ----------------------------------------------------------------------

    fn slot(&self, piece: u32) -> Option<usize> {
        self.slots.get(piece as usize).filter(|slot| **slot != NO_SLOT).map(|slot| *slot as usize)
    }

    fn partial(&self, piece: u32) -> Option<&Partial> {
        self.slot(piece).and_then(|slot| self.partials[slot].as_ref())
    }

    fn len_of(&self, piece: u32) -> u32 {
        let left = self.total_len - u64::from(piece) * u64::from(self.piece_len);
        u32::try_from(left).unwrap_or(u32::MAX).min(self.piece_len)
    }

    fn block_ref(&self, piece: u32, block: u32) -> BlockRef {
        let begin = block * BLOCK_LEN;
        let len = (self.len_of(piece) - begin).min(BLOCK_LEN);
        BlockRef { piece: PieceIndex(piece), begin, len }
    }

    // The piece and the number of a block that exists exactly so.
    fn locate(&self, block: BlockRef) -> Option<(u32, u32)> {
        let piece = block.piece.get();
        if piece >= self.have.len() || !block.begin.is_multiple_of(BLOCK_LEN) {
            return None;
        }
        let len = self.len_of(piece);
        let exists = block.begin < len && block.len == (len - block.begin).min(BLOCK_LEN);
        exists.then_some((piece, block.begin / BLOCK_LEN))
    }

    fn forget_ask(&mut self, conn: ConnId, piece: u32, block: u32) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        // Peers answer in order, so that this is nearly always the first.
        let at = state.asked.iter().position(|(p, b, _)| (*p, *b) == (piece, block));
        at.and_then(|at| state.asked.remove(at)).expect("both sides of an ask are recorded");
        self.asked -= 1;
    }

    // `conn` brought what these were asked for: returns the others.
    fn forget_askers(
        &mut self,
        conn: ConnId,
        askers: Askers,
        piece: u32,
        block: u32,
    ) -> Vec<ConnId> {
        let askers = askers.as_slice().iter().map(|(asker, _)| *asker);
        askers.clone().for_each(|asker| self.forget_ask(asker, piece, block));
        askers.filter(|asker| *asker != conn).collect()
    }

    // The other half of `forget_ask`: the block's own record.
    fn release(&mut self, conn: ConnId, piece: u32, block: u32) {
        let Some(slot) = self.slot(piece) else { return };
        let partial = self.partials[slot].as_mut().expect("a slot in use holds a piece");
        if !partial.release(block, conn) {
            // Others are asked still, but the record of when may be gone: it counts as late.
            if matches!(partial.block(block), Some(Block::Asked(_))) {
                self.late.insert((piece, block));
            }
            return;
        }
        self.late.remove(&(piece, block));
        if partial.is_untouched() {
            // A peer that starts rare pieces and sends nothing leaves nothing behind.
            self.drop_partial(piece);
            if self.needed.has(piece) {
                self.order.insert(piece);
            }
        } else {
            self.update_needy(slot);
        }
    }

    // Frees the slot of a started piece. False if it was not started.
    fn drop_partial(&mut self, piece: u32) -> bool {
        let Some(slot) = self.slot(piece) else { return false };
        let mut partial = self.partials[slot].take().expect("a slot in use holds a piece");
        self.leave_needy(&mut partial);
        for (block, i) in partial.blocks().iter().zip(0..) {
            let Block::Asked(askers) = block else { continue };
            self.late.remove(&(piece, i));
            for (asker, _) in askers.as_slice() {
                self.forget_ask(*asker, piece, i);
            }
        }
        self.slots[piece as usize] = NO_SLOT;
        self.free.push(u32::try_from(slot).expect("slots are counted in 32 bits"));
        true
    }

    // Puts a partial piece on the list of needy ones, or takes it off.
    fn update_needy(&mut self, slot: usize) {
        let mut partial = self.partials[slot].take().expect("a slot in use holds a piece");
        let needy = partial.missing() > 0 && self.needed.has(partial.piece);
        if !needy {
            self.leave_needy(&mut partial);
        } else if partial.needy_at.is_none() {
            partial.needy_at = Some(self.needy.len());
            self.needy.push(u32::try_from(slot).expect("slots are counted in 32 bits"));
        }
        self.partials[slot] = Some(partial);
    }

    fn leave_needy(&mut self, partial: &mut Partial) {
        let Some(at) = partial.needy_at.take() else { return };
        self.needy.swap_remove(at);
        if let Some(moved) = self.needy.get(at) {
            let moved = self.partials[*moved as usize].as_mut();
            moved.expect("a needy slot holds a piece").needy_at = Some(at);
        }
    }
}

// An eighth of the new value, as TCP smooths its round trips (RFC 6298).
fn smoothed(usual: Option<Duration>, sample: Duration) -> Option<Duration> {
    Some(usual.map_or(sample, |usual| (usual * 7 + sample) / 8))
}

const NO_SLOT: u32 = u32::MAX;

/// A block that was asked for this long ago is late. Pipelines are sized to be answered within
/// about three seconds, so a peer that is slow but steady is not taken for a silent one.
const LATE_AFTER: Duration = Duration::from_secs(5);
