//! Which pieces may be started, rarest first. One list for each number of copies, in which every
//! change is a swap: counting one more copy costs the same in a torrent of ten pieces and of a
//! million. It knows nothing of blocks.

use crate::base::Rng;
use crate::wire::bitfield::Bitfield;

/// The open pieces (wanted, not started), ordered by rarity, and the rarity of all pieces.
#[derive(Debug)]
pub(super) struct Order {
    counts: Vec<u16>,
    seeds: u32,
    /// Level `n` holds the open pieces of which `n` peers have a copy, not counting those peers
    /// that have everything. In no particular order.
    levels: Vec<Vec<u32>>,
    /// Where an open piece stands in its level.
    at: Vec<u32>,
    open: Bitfield,
    first_open: u32,
    /// Changes whenever a piece becomes open.
    epoch: u64,
}

impl Order {
    /// No copies known, nothing open.
    pub(super) fn new(pieces: u32) -> Self {
        Self {
            counts: vec![0; pieces as usize],
            seeds: 0,
            levels: vec![Vec::new(); LEVELS],
            at: vec![0; pieces as usize],
            open: Bitfield::none(pieces),
            first_open: 0,
            epoch: 0,
        }
    }

    /// How many pieces are open.
    pub(super) fn len(&self) -> u32 {
        self.open.count()
    }

    /// Changes whenever a piece becomes open: until then, a peer without any has none.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The open pieces as a set.
    pub(super) fn open(&self) -> &Bitfield {
        &self.open
    }

    /// Peers that have `piece`.
    pub(super) fn copies(&self, piece: u32) -> u32 {
        self.seeds + self.counts.get(piece as usize).copied().map_or(0, u32::from)
    }

    /// Has anybody everything?
    pub(super) fn has_seeds(&self) -> bool {
        self.seeds > 0
    }

    /// Adds `piece` to the open ones; nothing happens if it is one.
    pub(super) fn insert(&mut self, piece: u32) {
        if !self.open.set(piece) {
            return;
        }
        self.first_open = self.first_open.min(piece);
        self.epoch += 1;
        self.enter(piece, self.level(piece));
    }

    /// Takes `piece` out of the open ones; nothing happens if it is none.
    pub(super) fn remove(&mut self, piece: u32) {
        if !self.open.clear(piece) {
            return;
        }
        self.leave(piece, self.level(piece));
    }

    /// One more peer has `piece`.
    pub(super) fn count_up(&mut self, piece: u32) {
        self.count(piece, |count| count.saturating_add(1));
    }

    /// One peer less has `piece`.
    pub(super) fn count_down(&mut self, piece: u32) {
        self.count(piece, |count| count.saturating_sub(1));
    }

    /// One more peer has everything.
    pub(super) fn seed_up(&mut self) {
        self.seeds += 1;
    }

    /// One peer that has everything is gone. It may have been counted piece by piece as it grew;
    /// then its copies are found there: only the sum matters.
    pub(super) fn seed_down(&mut self) {
        if self.seeds > 0 {
            self.seeds -= 1;
            return;
        }
        for piece in 0..self.open.len() {
            self.count_down(piece);
        }
    }

    /// An open piece of a peer that has all, among the rarest. Of those that only such peers have, one
    /// that is `ours` if a bounded search finds it.
    pub(super) fn rarest(&self, ours: impl Fn(u32) -> bool, rng: &mut Rng) -> Option<u32> {
        let (copies, rarest) = self.levels.iter().enumerate().find(|(_, l)| !l.is_empty())?;
        if copies == 0 {
            let (behind, ahead) = rarest.split_at(rng.below(rarest.len()));
            let mut some = ahead.iter().chain(behind).take(LOOKS_MAX);
            if let Some(piece) = some.find(|piece| ours(**piece)) {
                return Some(*piece);
            }
        }
        rng.pick(rarest).copied()
    }

    /// An open piece out of `has`, among the rarest as far as a bounded search shows.
    pub(super) fn rarest_of(&self, has: &Bitfield, rng: &mut Rng) -> Option<u32> {
        let mut looks = LOOKS_MAX;
        // Level 0 holds what no counted peer has.
        for pieces in self.levels.iter().skip(1).filter(|level| !level.is_empty()) {
            let offset = rng.below(pieces.len());
            let (behind, ahead) = pieces.split_at(offset);
            for piece in ahead.iter().chain(behind) {
                if has.has(*piece) {
                    return Some(*piece);
                }
                looks -= 1;
                if looks == 0 {
                    return self.sampled(has, rng);
                }
            }
        }
        None
    }

    /// A random open piece, of those in `has` if given.
    pub(super) fn random(&self, has: Option<&Bitfield>, rng: &mut Rng) -> Option<u32> {
        match has {
            None => {
                let from = rng.below(self.open.len() as usize);
                self.both(&self.open, from).next()
            }
            Some(has) => {
                let from = rng.below(has.len() as usize);
                self.both(has, from).next()
            }
        }
    }

    /// The open piece with the lowest index, of those in `has` if given.
    pub(super) fn lowest(&mut self, has: Option<&Bitfield>) -> Option<u32> {
        while self.first_open < self.open.len() && !self.open.has(self.first_open) {
            self.first_open += 1;
        }
        match has {
            None => (self.first_open < self.open.len()).then_some(self.first_open),
            Some(has) => common(&self.open, has, self.first_open as usize / 8).next(),
        }
    }

    // The rarest of a few, found by comparing the two sets a word at a time: for a peer that has so
    // little of what is rare that walking the order would be the slower way.
    fn sampled(&self, has: &Bitfield, rng: &mut Rng) -> Option<u32> {
        let from = rng.below(has.len() as usize);
        self.both(has, from).take(SAMPLES).min_by_key(|piece| self.counts[*piece as usize])
    }

    fn both<'a>(&'a self, has: &'a Bitfield, from: usize) -> impl Iterator<Item = u32> + 'a {
        let start = from / 8;
        common(&self.open, has, start).chain(
            common(&self.open, has, 0).take_while(move |piece| (*piece as usize) < start * 8),
        )
    }

    fn level(&self, piece: u32) -> usize {
        level_of(self.counts[piece as usize])
    }

    fn count(&mut self, piece: u32, change: impl FnOnce(u16) -> u16) {
        let Some(count) = self.counts.get_mut(piece as usize) else { return };
        let before = level_of(*count);
        *count = change(*count);
        let after = level_of(*count);
        if before != after && self.open.has(piece) {
            self.leave(piece, before);
            self.enter(piece, after);
        }
    }

    fn enter(&mut self, piece: u32, level: usize) {
        self.at[piece as usize] = index(self.levels[level].len());
        self.levels[level].push(piece);
    }

    fn leave(&mut self, piece: u32, level: usize) {
        let at = self.at[piece as usize];
        let pieces = &mut self.levels[level];
        pieces.swap_remove(at as usize);
        if let Some(moved) = pieces.get(at as usize) {
            self.at[*moved as usize] = at;
        }
        // In a large torrent every level may once have held every piece.
        if pieces.len() < pieces.capacity() / 4 && pieces.capacity() > SPARE_MAX {
            pieces.shrink_to(pieces.len() * 2);
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.levels.iter().map(Vec::len).sum::<usize>(), self.open.count() as usize);
        for (level, pieces) in self.levels.iter().enumerate() {
            for (piece, at) in pieces.iter().zip(0..) {
                assert_eq!(self.at[*piece as usize], at);
                assert_eq!(self.level(*piece), level, "piece {piece} stands on its level");
                assert!(self.open.has(*piece) && *piece >= self.first_open);
            }
        }
    }
}

/// The pieces in both sets, ascending, from byte `start` of the sets on.
pub(super) fn common<'a>(a: &'a Bitfield, b: &'a Bitfield, start: usize) -> Common<'a> {
    Common { a: a.as_bytes(), b: b.as_bytes(), next: start, word: 0 }
}

pub(super) struct Common<'a> {
    a: &'a [u8],
    b: &'a [u8],
    next: usize,
    word: u64,
}

impl Iterator for Common<'_> {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        while self.word == 0 {
            let (a, b) = (self.a.get(self.next..)?, self.b.get(self.next..)?);
            if a.is_empty() {
                return None;
            }
            self.word = word(a) & word(b);
            self.next += 8;
        }
        let bit = self.word.leading_zeros();
        self.word &= !(1 << (63 - bit));
        Some(index((self.next - 8) * 8) + bit)
    }
}

// The first eight bytes, or what there is of them, with the first bit highest: as pieces are
// numbered.
fn word(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk() {
        return u64::from_be_bytes(*eight);
    }
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(padded)
}

fn level_of(count: u16) -> usize {
    usize::from(count).min(LEVELS - 1)
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("there are at most PIECES_MAX pieces")
}

/// Pieces with 63 copies or more are equally common.
const LEVELS: usize = 64;
/// Entries walked in order of rarity before the sets are compared as words instead.
const LOOKS_MAX: usize = 64;
/// Common pieces among which the rarest is taken then.
const SAMPLES: usize = 16;
/// Capacity that a level keeps though it is nearly empty.
const SPARE_MAX: usize = 1024;
