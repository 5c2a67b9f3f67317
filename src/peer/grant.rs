//! What a choked peer may ask of us all the same (BEP 6, "allowed fast"), and how much of it.

use crate::base::limits::BLOCK_LEN;
use crate::peer::pieces::Geometry;
use crate::wire::peer::BlockRef;

/// The pieces that were allowed to one peer.
#[derive(Debug)]
pub struct Grant {
    pieces: Vec<u32>,
    requests_left: u32,
}

impl Grant {
    /// These pieces.
    pub fn new(pieces: Vec<u32>, geometry: &Geometry) -> Self {
        let blocks = pieces.iter().map(|piece| geometry.len_of(*piece).div_ceil(BLOCK_LEN));
        let requests_left = blocks.fold(0u32, u32::saturating_add).saturating_mul(GRANT_COPIES_MAX);
        Self { pieces, requests_left }
    }

    /// The pieces.
    pub fn pieces(&self) -> &[u32] {
        &self.pieces
    }

    /// Takes a request from the grant. False if it is not in it, or if the grant is used up: BEP 6
    /// lets us refuse what we have sent already, and whoever is no beginner any more.
    pub fn admit(&mut self, block: &BlockRef, has: u32, waiting: usize) -> bool {
        let admitted = has < BEGINNER_PIECES_MAX
            && waiting < GRANT_QUEUE_MAX
            && self.requests_left > 0
            && self.pieces.contains(&block.piece);
        if admitted {
            self.requests_left -= 1;
        }
        admitted
    }
}

/// A peer with fewer pieces is a beginner. BEP 6: as many as are allowed to it.
pub const BEGINNER_PIECES_MAX: u32 = 10;
/// Each block of a grant may be asked for once, and once more if the first was lost in a choke.
const GRANT_COPIES_MAX: u32 = 2;
/// Requests of a choked peer that wait. It is a favour: whoever is served goes first.
const GRANT_QUEUE_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { pieces: 40, piece_len: 4 * BLOCK_LEN, last_len: 100 };

    fn block(piece: u32) -> BlockRef {
        BlockRef { piece, begin: 0, len: BLOCK_LEN }
    }

    #[test]
    fn grant_is_for_its_pieces_for_beginners_and_for_a_while() {
        let mut grant = Grant::new(vec![3, 39], &GEOMETRY);
        assert!(!grant.admit(&block(4), 0, 0), "another piece");
        assert!(!grant.admit(&block(3), BEGINNER_PIECES_MAX, 0), "no beginner");
        assert!(!grant.admit(&block(3), 0, GRANT_QUEUE_MAX), "one favour at a time");
        // Four blocks and one, twice.
        let admitted = (0..100_000).filter(|_| grant.admit(&block(3), 9, 31)).count();
        assert_eq!(admitted, 10);
    }
}
