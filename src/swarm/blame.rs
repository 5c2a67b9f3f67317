//! Whose block was bad? A piece that fails its hash does not say. When one peer gave all of it,
//! that peer lied. Else the blocks' digests are kept, and compared when the same piece has come
//! again and passed: exactly those peers whose block differs are convicted.
//!
//! Convicting everybody who gave a block of a failed piece would let one liar get honest peers
//! banned. It only judges; banning is up to `candidates.rs`. Peers are named by their address:
//! a judgement may come after the connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::base::Digest;
use crate::swarm::PieceIndex;

/// The pieces under suspicion.
#[derive(Debug, Default)]
pub struct Blame {
    pieces: BTreeMap<PieceIndex, Case>,
    /// Blocks remembered in all cases.
    blocks: usize,
}

/// What a failed piece asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This peer gave the whole piece: it sent bad data.
    Convicted(SocketAddr),
    /// Let the storage hash the blocks of the bad copy (before it is discarded), and hand the
    /// digests to [`Blame::on_blocks_hashed`].
    HashBlocks,
    /// Nothing can be learned: there are too many suspects already.
    Unknown,
}

#[derive(Debug, Default)]
struct Case {
    copies: Vec<Copy>,
    /// The next digests to come are those of the good copy.
    is_good: bool,
}

/// One bad copy of a piece.
#[derive(Debug)]
struct Copy {
    givers: Vec<(u32, SocketAddr)>,
    /// `None` until the storage has hashed the blocks.
    digests: Option<Vec<Digest>>,
}

impl Blame {
    /// Nobody is suspected.
    pub fn new() -> Self {
        Self::default()
    }

    /// A piece failed its hash; `givers` names who gave each block that was received since the start.
    pub fn on_piece_failed(&mut self, piece: PieceIndex, givers: &[(u32, SocketAddr)]) -> Verdict {
        let Some((_, first)) = givers.first() else { return Verdict::Unknown };
        if givers.iter().all(|(_, giver)| giver == first) {
            return Verdict::Convicted(*first);
        }
        let copies = self.pieces.get(&piece).map_or(0, |case| case.copies.len());
        if copies >= COPIES_MAX || self.blocks + givers.len() > BLOCKS_MAX {
            return Verdict::Unknown;
        }
        self.blocks += givers.len();
        let copy = Copy { givers: givers.to_vec(), digests: None };
        self.pieces.entry(piece).or_default().copies.push(copy);
        Verdict::HashBlocks
    }

    /// A piece passed. True if the storage shall hash its blocks, to compare.
    pub fn on_piece_good(&mut self, piece: PieceIndex) -> bool {
        let Some(case) = self.pieces.get_mut(&piece) else { return false };
        case.is_good = true;
        true
    }

    /// The digests that were asked for. Returns the convicted, each once, in order of address.
    pub fn on_blocks_hashed(&mut self, piece: PieceIndex, digests: &[Digest]) -> Vec<SocketAddr> {
        let Some(case) = self.pieces.get_mut(&piece) else { return Vec::new() };
        // The storage answers in order: bad copies first, each before the next one is complete.
        if let Some(copy) = case.copies.iter_mut().find(|copy| copy.digests.is_none()) {
            copy.digests = Some(digests.to_vec());
            return Vec::new();
        }
        if !case.is_good {
            return Vec::new();
        }
        let case = self.close(piece);
        let mut convicted: Vec<_> =
            case.copies.iter().flat_map(|copy| copy.liars(digests)).collect();
        convicted.sort_unstable();
        convicted.dedup();
        convicted
    }

    /// The storage could not hash: the case is dropped.
    pub fn on_hashing_failed(&mut self, piece: PieceIndex) {
        self.close(piece);
    }

    /// Pieces that wait for their good copy.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// True if nobody is suspected.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn close(&mut self, piece: PieceIndex) -> Case {
        let case = self.pieces.remove(&piece).unwrap_or_default();
        self.blocks -= case.copies.iter().map(|copy| copy.givers.len()).sum::<usize>();
        case
    }
}

impl Copy {
    fn liars(&self, good: &[Digest]) -> impl Iterator<Item = SocketAddr> {
        let bad = self.digests.as_deref().unwrap_or_default();
        self.givers.iter().filter_map(move |(block, giver)| {
            let at = *block as usize;
            (bad.get(at)? != good.get(at)?).then_some(*giver)
        })
    }
}

/// Bad copies of one piece that are remembered: by then every liar among its givers is named.
const COPIES_MAX: usize = 4;
/// Blocks remembered in all: about 15 MB of givers and digests. 256 failed pieces of 4 MiB.
const BLOCKS_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    fn peer(n: usize) -> SocketAddr {
        format!("10.0.0.{n}:6881").parse().unwrap()
    }

    const PIECE: PieceIndex = PieceIndex(5);

    #[test]
    fn single_giver_is_convicted_at_once() {
        let mut blame = Blame::new();
        let givers = [(0, peer(1)), (1, peer(1))];
        assert_eq!(blame.on_piece_failed(PIECE, &givers), Verdict::Convicted(peer(1)));
        assert!(blame.is_empty() && !blame.on_piece_good(PIECE));
        assert_eq!(blame.on_piece_failed(PIECE, &[]), Verdict::Unknown);
    }

    #[test]
    fn only_who_gave_a_different_block_is_convicted() {
        let mut blame = Blame::new();
        let first = [(0, peer(1)), (1, peer(2)), (2, peer(3))];
        assert_eq!(blame.on_piece_failed(PIECE, &first), Verdict::HashBlocks);
        assert!(blame.on_blocks_hashed(PIECE, &[[0; 20], [9; 20], [2; 20]]).is_empty());
        let second = [(0, peer(4)), (1, peer(1)), (2, peer(3))];
        assert_eq!(blame.on_piece_failed(PIECE, &second), Verdict::HashBlocks);
        assert!(blame.on_blocks_hashed(PIECE, &[[8; 20], [1; 20], [2; 20]]).is_empty());
        assert!(blame.on_piece_good(PIECE));
        let good = [[0; 20], [1; 20], [2; 20]];
        assert_eq!(blame.on_blocks_hashed(PIECE, &good), [peer(2), peer(4)]);
        assert!(blame.is_empty() && blame.blocks == 0);
    }

    #[test]
    fn memory_is_bounded_and_the_case_goes_on_with_what_there_is() {
        let mut blame = Blame::new();
        let givers: Vec<_> = (0..1024).map(|b| (b, peer(b as usize % 2))).collect();
        let mut unknown = 0;
        for piece in 0..300 {
            for _ in 0..6 {
                match blame.on_piece_failed(PieceIndex(piece), &givers) {
                    Verdict::HashBlocks => {}
                    Verdict::Unknown => unknown += 1,
                    Verdict::Convicted(_) => panic!("two givers"),
                }
            }
        }
        assert_eq!(blame.blocks, BLOCKS_MAX);
        assert_eq!(blame.len(), 64, "four copies of each");
        assert_eq!(unknown, 300 * 6 - 256);
        blame.on_hashing_failed(PieceIndex(0));
        assert_eq!(blame.on_piece_failed(PieceIndex(299), &givers), Verdict::HashBlocks);
    }

    proptest! {
        #[test]
        fn liars_and_nobody_else_are_convicted(
            copies in prop::collection::vec(prop::collection::vec((1..9usize, any::<bool>()), 8), 1..4),
        ) {
            let mut blame = Blame::new();
            let mut liars = BTreeSet::new();
            let mut waiting = VecDeque::new();
            for copy in &copies {
                let givers: Vec<_> =
                    copy.iter().zip(0..).map(|((giver, _), block)| (block, peer(*giver))).collect();
                match blame.on_piece_failed(PIECE, &givers) {
                    Verdict::Convicted(who) => prop_assert!(givers.iter().all(|g| g.1 == who)),
                    Verdict::Unknown => prop_assert!(false, "there is room"),
                    Verdict::HashBlocks => {
                        let digest = |(i, (_, bad)): (usize, &(usize, bool))| [i as u8 + if *bad { 100 } else { 0 }; 20];
                        waiting.push_back(copy.iter().enumerate().map(digest).collect::<Vec<_>>());
                        liars.extend(copy.iter().filter(|(_, bad)| *bad).map(|(giver, _)| peer(*giver)));
                    }
                }
            }
            let asks = !waiting.is_empty();
            for digests in waiting {
                prop_assert!(blame.on_blocks_hashed(PIECE, &digests).is_empty());
            }
            prop_assert_eq!(blame.on_piece_good(PIECE), asks);
            let good: Vec<_> = (0..8).map(|i| [i as u8; 20]).collect();
            let convicted = blame.on_blocks_hashed(PIECE, &good);
            prop_assert_eq!(convicted, liars.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(blame.blocks, 0);
        }
    }
}
