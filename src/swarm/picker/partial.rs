//! One piece that has been started: the state of each of its blocks.

use crate::base::Instant;
use crate::peer::ConnId;

/// A block of a started piece is in exactly one of these states; the blocks of other pieces are
/// all missing or all good.
#[derive(Debug, Clone, Copy)]
pub(super) enum Block {
    /// Nobody was asked.
    Missing,
    /// Asked, and not yet here.
    Asked(Askers),
    /// Given to the storage; the piece's hash decides whether it is good.
    Stored(ConnId),
}

/// Who was asked for one block and when: one peer, or several when a block is late or the end near.
#[derive(Debug, Clone, Copy)]
pub(super) struct Askers {
    list: [(ConnId, Instant); ASKERS_MAX],
    len: u8,
}

impl Askers {
    fn one(conn: ConnId, now: Instant) -> Self {
        Self { list: [(conn, now); ASKERS_MAX], len: 1 }
    }

    pub(super) fn none() -> Self {
        Self { list: [(ConnId(0), Instant::ZERO); ASKERS_MAX], len: 0 }
    }

    pub(super) fn as_slice(&self) -> &[(ConnId, Instant)] {
        &self.list[..usize::from(self.len)]
    }

    pub(super) fn contains(&self, conn: ConnId) -> bool {
        self.as_slice().iter().any(|(c, _)| *c == conn)
    }

    pub(super) fn is_full(&self) -> bool {
        usize::from(self.len) == ASKERS_MAX
    }

    fn add(&mut self, conn: ConnId, now: Instant) {
        assert!(!self.is_full() && !self.contains(conn), "a peer is asked once for a block");
        self.list[usize::from(self.len)] = (conn, now);
        self.len += 1;
    }

    fn remove(&mut self, conn: ConnId) -> bool {
        let Some(at) = self.as_slice().iter().position(|(c, _)| *c == conn) else { return false };
        self.len -= 1;
        self.list.swap(at, usize::from(self.len));
        true
    }
}

/// A started piece.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) piece: u32,
    blocks: Vec<Block>,
    missing: u32,
    asked: u32,
    /// No block before this one is missing.
    cursor: usize,
    /// Who started it and tends to finish it.
    pub(super) owner: Option<ConnId>,
    /// Until then nobody else is asked: the piece failed before, and a piece from one peer alone
    /// tells at once whether that peer lies.
    pub(super) solo_until: Option<Instant>,
    /// Its position in the picker's list of partial pieces with missing blocks.
    pub(super) needy_at: Option<usize>,
}

impl Partial {
    pub(super) fn new(piece: u32, blocks: u32) -> Self {
        Self {
            piece,
            blocks: vec![Block::Missing; blocks as usize],
            missing: blocks,
            asked: 0,
            cursor: 0,
            owner: None,
            solo_until: None,
            needy_at: None,
        }
    }

    pub(super) fn missing(&self) -> u32 {
        self.missing
    }

    /// True if no block was asked for or stored: the piece is as if it had never been started.
    pub(super) fn is_untouched(&self) -> bool {
        self.missing as usize == self.blocks.len()
    }

    pub(super) fn block(&self, block: u32) -> Option<&Block> {
        self.blocks.get(block as usize)
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Asks `conn` for the next missing block.
    pub(super) fn ask_next(&mut self, conn: ConnId, now: Instant) -> Option<u32> {
        if self.missing == 0 {
            return None;
        }
        while !matches!(self.blocks[self.cursor], Block::Missing) {
            self.cursor += 1;
        }
        self.blocks[self.cursor] = Block::Asked(Askers::one(conn, now));
        self.missing -= 1;
        self.asked += 1;
        self.cursor += 1;
        u32::try_from(self.cursor - 1).ok()
    }

    /// Asks one more peer for a block that is asked for already. False if that makes no sense.
    pub(super) fn ask_too(&mut self, block: u32, conn: ConnId, now: Instant) -> bool {
        let Some(Block::Asked(askers)) = self.blocks.get_mut(block as usize) else { return false };
        if askers.is_full() || askers.contains(conn) {
            return false;
        }
        askers.add(conn, now);
        true
    }

    /// When `conn` was asked for `block`, if it still is.
    pub(super) fn asked_at(&self, block: u32, conn: ConnId) -> Option<Instant> {
        let Block::Asked(askers) = self.block(block)? else { return None };
        askers.as_slice().iter().find(|(c, _)| *c == conn).map(|(_, at)| *at)
    }

    /// `conn` will not send `block`. True if the block is missing now.
    pub(super) fn release(&mut self, block: u32, conn: ConnId) -> bool {
        let Some(Block::Asked(askers)) = self.blocks.get_mut(block as usize) else { return false };
        if !askers.remove(conn) || askers.len > 0 {
            return false;
        }
        self.blocks[block as usize] = Block::Missing;
        self.asked -= 1;
        self.missing += 1;
        self.cursor = self.cursor.min(block as usize);
        true
    }

    /// The block is with the storage. Only for a block that is not.
    pub(super) fn store(&mut self, block: u32, giver: ConnId) {
        let state = &mut self.blocks[block as usize];
        match std::mem::replace(state, Block::Stored(giver)) {
            Block::Asked(_) => self.asked -= 1,
            Block::Missing => self.missing -= 1,
            Block::Stored(_) => panic!("a block is stored once"),
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let count = |f: fn(&Block) -> bool| self.blocks.iter().filter(|b| f(b)).count();
        assert_eq!(count(|b| matches!(b, Block::Missing)), self.missing as usize);
        assert_eq!(count(|b| matches!(b, Block::Asked(_))), self.asked as usize);
        let before = &self.blocks[..self.cursor];
        assert!(!before.iter().any(|b| matches!(b, Block::Missing)), "cursor passed a block");
    }
}

/// Peers asked for one block at the same time. The third makes up for two silent ones; more would
/// only multiply what is wasted at the end of every download.
pub(super) const ASKERS_MAX: usize = 3;
