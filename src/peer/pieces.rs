//! Which pieces a peer has. As long as the info dictionary is missing nobody knows how many there
//! are: what the peer says is then kept as it came, within bounds, and read when they are counted.

use bytes::Bytes;

use crate::base::limits::PIECES_MAX;
use crate::peer::Misbehavior;
use crate::wire::bitfield::Bitfield;
use crate::wire::peer::BlockRef;

/// The measures of a torrent's pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// How many pieces.
    pub pieces: u32,
    /// Bytes of every piece but the last.
    pub piece_len: u32,
    /// Bytes of the last piece.
    pub last_len: u32,
}

impl Geometry {
    /// Does `block` lie within a piece?
    pub fn contains(&self, block: &BlockRef) -> bool {
        let end = block.begin.checked_add(block.len);
        block.len > 0 && end.is_some_and(|end| end <= self.len_of(block.piece))
    }

    /// Bytes of a piece; none if it does not exist.
    pub fn len_of(&self, piece: u32) -> u32 {
        match piece {
            p if p >= self.pieces => 0,
            p if p == self.pieces - 1 => self.last_len,
            _ => self.piece_len,
        }
    }
}

/// The pieces of one peer.
#[derive(Debug)]
pub enum RemotePieces {
    /// It is not known yet how many pieces there are.
    Uncounted(Claims),
    /// The pieces are counted.
    Counted(Bitfield),
}

/// What a peer said before the pieces were counted.
#[derive(Debug, Default)]
pub struct Claims {
    whole: Option<Whole>,
    haves: Vec<u32>,
    lost: Vec<u32>,
}

#[derive(Debug)]
enum Whole {
    All,
    Bits(Bytes),
}

impl RemotePieces {
    /// Nothing said yet.
    pub fn new(geometry: Option<Geometry>) -> Self {
        match geometry {
            Some(g) => RemotePieces::Counted(Bitfield::none(g.pieces)),
            None => RemotePieces::Uncounted(Claims::default()),
        }
    }

    /// The set, if the pieces are counted.
    pub fn counted(&self) -> Option<&Bitfield> {
        match self {
            RemotePieces::Counted(set) => Some(set),
            RemotePieces::Uncounted(_) => None,
        }
    }

    /// Does it have everything, as far as can be known?
    pub fn is_seed(&self) -> bool {
        match self {
            RemotePieces::Counted(set) => set.is_all() && !set.is_empty(),
            RemotePieces::Uncounted(claims) => matches!(claims.whole, Some(Whole::All)),
        }
    }

    /// A have message: true if the piece is new.
    pub fn add(&mut self, piece: u32) -> Result<bool, Misbehavior> {
        match self {
            RemotePieces::Counted(set) if piece < set.len() => Ok(set.set(piece)),
            RemotePieces::Counted(_) => Err(Misbehavior::PieceOutOfRange),
            RemotePieces::Uncounted(claims) => {
                let exists = usize::try_from(piece).is_ok_and(|p| p < PIECES_MAX);
                if !exists {
                    return Err(Misbehavior::PieceOutOfRange);
                }
                // Beyond the bound we believe it to have less than it has; it can do no harm.
                if claims.haves.len() < UNCOUNTED_HAVES_MAX {
                    claims.haves.push(piece);
                }
                claims.lost.retain(|lost| *lost != piece);
                Ok(false)
            }
        }
    }

    /// A piece is taken back (BEP 54): true if it was there.
    pub fn remove(&mut self, piece: u32) -> Result<bool, Misbehavior> {
        match self {
            RemotePieces::Counted(set) if piece < set.len() => Ok(set.clear(piece)),
            RemotePieces::Counted(_) => Err(Misbehavior::PieceOutOfRange),
            RemotePieces::Uncounted(claims) => {
                let exists = usize::try_from(piece).is_ok_and(|p| p < PIECES_MAX);
                if !exists {
                    return Err(Misbehavior::PieceOutOfRange);
                }
                claims.haves.retain(|have| *have != piece);
                // Beyond the bound we believe it to have more than it has: it will refuse.
                if claims.lost.len() < UNCOUNTED_LOSSES_MAX && !claims.lost.contains(&piece) {
                    claims.lost.push(piece);
                }
                Ok(false)
            }
        }
    }

    /// A bitfield message: the set it replaces.
    pub fn set_bits(&mut self, bits: Bytes) -> Result<Option<Bitfield>, Misbehavior> {
        match self {
            RemotePieces::Counted(set) => {
                let new = Bitfield::decode(&bits, set.len()).ok_or(Misbehavior::BadBitfield)?;
                Ok(Some(std::mem::replace(set, new)))
            }
            RemotePieces::Uncounted(claims) => {
                if bits.len() > PIECES_MAX.div_ceil(8) {
                    return Err(Misbehavior::BadBitfield);
                }
                // A copy: the frame would hold a whole receive buffer until the metadata comes.
                claims.whole = Some(Whole::Bits(Bytes::copy_from_slice(&bits)));
                claims.lost.clear();
                Ok(None)
            }
        }
    }

    /// A "have all" or "have none" message: the set it replaces.
    pub fn set_all(&mut self, all: bool) -> Option<Bitfield> {
        match self {
            RemotePieces::Counted(set) => {
                let new = if all { Bitfield::all(set.len()) } else { Bitfield::none(set.len()) };
                Some(std::mem::replace(set, new))
            }
            RemotePieces::Uncounted(claims) => {
                claims.whole = all.then_some(Whole::All);
                claims.lost.clear();
                None
            }
        }
    }

    /// Now there are `pieces` pieces: reads what was said so far.
    pub fn count(&mut self, pieces: u32) -> Result<(), Misbehavior> {
        let RemotePieces::Uncounted(claims) = self else { return Ok(()) };
        let mut set = match &claims.whole {
            Some(Whole::All) => Bitfield::all(pieces),
            Some(Whole::Bits(bits)) => {
                Bitfield::decode(bits, pieces).ok_or(Misbehavior::BadBitfield)?
            }
            None => Bitfield::none(pieces),
        };
        for piece in &claims.haves {
            if *piece >= pieces {
                return Err(Misbehavior::PieceOutOfRange);
            }
            set.set(*piece);
        }
        for piece in &claims.lost {
            if *piece >= pieces {
                return Err(Misbehavior::PieceOutOfRange);
            }
            set.clear(*piece);
        }
        *self = RemotePieces::Counted(set);
        Ok(())
    }
}

/// Have messages that are kept while the pieces are uncounted: a busy peer verifies that many in
/// the minutes which a slow metadata transfer can take.
const UNCOUNTED_HAVES_MAX: usize = 4096;
/// Pieces taken back in that time. Whoever loses more has nothing that we want.
const UNCOUNTED_LOSSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { pieces: 3, piece_len: 100, last_len: 30 };

    fn block(piece: u32, begin: u32, len: u32) -> BlockRef {
        BlockRef { piece, begin, len }
    }

    #[test]
    fn blocks_beyond_a_piece_are_outside() {
        for good in [block(0, 0, 100), block(1, 99, 1), block(2, 0, 30)] {
            assert!(GEOMETRY.contains(&good), "{good:?}");
        }
        for bad in [
            block(0, 0, 101),
            block(0, 100, 1),
            block(2, 1, 30),
            block(3, 0, 1),
            block(0, 0, 0),
            block(0, u32::MAX, u32::MAX),
            block(u32::MAX, 0, 1),
        ] {
            assert!(!GEOMETRY.contains(&bad), "{bad:?}");
        }
    }

    #[test]
    fn claims_made_before_the_count_are_read_after_it() {
        let mut pieces = RemotePieces::new(None);
        pieces.set_bits(Bytes::from_static(&[0x80, 0])).unwrap();
        pieces.add(9).unwrap();
        assert!(pieces.counted().is_none());
        pieces.count(10).unwrap();
        assert_eq!(pieces.counted().unwrap().iter().collect::<Vec<_>>(), [0, 9]);

        let mut seed = RemotePieces::new(None);
        seed.set_all(true);
        assert!(seed.is_seed());
        seed.count(10).unwrap();
        assert!(seed.is_seed());
    }

    #[test]
    fn claims_that_cannot_be_are_refused_at_the_count() {
        let mut pieces = RemotePieces::new(None);
        pieces.set_bits(Bytes::from_static(&[0xff, 0xff])).unwrap();
        assert_eq!(pieces.count(10), Err(Misbehavior::BadBitfield));
        let mut pieces = RemotePieces::new(None);
        pieces.add(10).unwrap();
        assert_eq!(pieces.count(10), Err(Misbehavior::PieceOutOfRange));
        assert_eq!(pieces.add(u32::MAX), Err(Misbehavior::PieceOutOfRange));
        let long = Bytes::from(vec![0; PIECES_MAX / 8 + 2]);
        assert_eq!(pieces.set_bits(long), Err(Misbehavior::BadBitfield));
    }

    #[test]
    fn pieces_taken_back_before_the_count_are_not_there_after_it() {
        let mut pieces = RemotePieces::new(None);
        pieces.set_all(true);
        for piece in [3, 4, 5, 3] {
            assert_eq!(pieces.remove(piece), Ok(false));
        }
        pieces.add(4).unwrap();
        pieces.count(10).unwrap();
        assert_eq!(pieces.counted().unwrap().iter().collect::<Vec<_>>(), [0, 1, 2, 4, 6, 7, 8, 9]);
        assert_eq!((pieces.remove(0), pieces.remove(0)), (Ok(true), Ok(false)));
        assert_eq!(pieces.remove(10), Err(Misbehavior::PieceOutOfRange));

        let mut pieces = RemotePieces::new(None);
        for piece in 0..100_000 {
            assert_eq!(pieces.remove(piece), Ok(false));
        }
        let RemotePieces::Uncounted(claims) = &pieces else { panic!() };
        assert_eq!(claims.lost.len(), UNCOUNTED_LOSSES_MAX);
        assert_eq!(pieces.remove(u32::MAX), Err(Misbehavior::PieceOutOfRange));
        assert_eq!(pieces.count(10), Err(Misbehavior::PieceOutOfRange));
    }

    #[test]
    fn haves_before_the_count_are_bounded() {
        let mut pieces = RemotePieces::new(None);
        for _ in 0..100_000 {
            assert_eq!(pieces.add(7), Ok(false));
        }
        let RemotePieces::Uncounted(claims) = &pieces else { panic!() };
        assert_eq!(claims.haves.len(), UNCOUNTED_HAVES_MAX);
    }
}
