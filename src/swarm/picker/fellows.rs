//! Who of those that download fetches which piece from a seed. Without a word between them two that ask
//! a slow seed at random ask it for the same piece now and then, and near the end always: its line then
//! carries it twice. Here each piece belongs to one of the fellows, by a draw that gives the same
//! result to all that know the same fellows (rendezvous hashing), and each asks for its own pieces
//! first. Nobody has to keep to it: a piece that its owner has not fetched is fetched like any other
//! once our own ones are under way.

use crate::base::PeerId;

/// Those that download, ourselves included.
#[derive(Debug, Default)]
pub struct Fellows {
    ours: u64,
    others: Vec<u64>,
}

impl Fellows {
    /// Ourselves and `others`.
    pub fn new(ours: &PeerId, others: impl Iterator<Item = PeerId>) -> Self {
        Self { ours: key(ours), others: others.map(|id| key(&id)).take(FELLOWS_MAX).collect() }
    }

    /// Is nobody else known?
    pub fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// Is a piece ours to fetch?
    pub fn is_ours(&self, piece: u32) -> bool {
        let lot = draw(self.ours, piece);
        self.others.iter().all(|other| draw(*other, piece) < lot)
    }
}

// The tail of an id is chance in every client; its head names the client.
fn key(id: &PeerId) -> u64 {
    let bytes = id.as_bytes();
    bytes.last_chunk().map_or(0, |tail| u64::from_be_bytes(*tail))
}

// The last steps of splitmix64: every bit of both depends on every bit of the result.
fn draw(key: u64, piece: u32) -> u64 {
    let mut x = key ^ u64::from(piece).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// With more the share of each is too small to be found by a bounded search.
const FELLOWS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_belongs_to_one_of_those_that_know_each_other() {
        let ids: Vec<_> = (1..=5u8).map(|n| PeerId::new([n; 20])).collect();
        let views = ids
            .iter()
            .map(|ours| Fellows::new(ours, ids.iter().copied().filter(move |other| other != ours)));
        let views: Vec<_> = views.collect();
        let mut shares = [0; 5];
        for piece in 0..1_000 {
            let owners: Vec<_> = (0..5).filter(|n| views[*n].is_ours(piece)).collect();
            assert_eq!(owners.len(), 1, "{piece}");
            shares[owners[0]] += 1;
        }
        assert!(shares.iter().all(|share| (150..250).contains(share)), "{shares:?}");
        assert!((0..100).all(|piece| Fellows::new(&ids[0], std::iter::empty()).is_ours(piece)));
    }
}
