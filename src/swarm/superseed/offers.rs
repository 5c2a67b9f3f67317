//! What one peer was told of by a lone seed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::Instant;
use crate::peer::Geometry;
use crate::wire::bitfield::Bitfield;

/// One peer's share.
#[derive(Debug)]
pub(super) struct Offers {
    pub(super) told: Bitfield,
    /// Told, and not sent yet: so many bytes are left of each.
    pub(super) open: Vec<(u32, u32)>,
    /// Sent, and the peer has not said that it has it.
    pub(super) sent: BTreeSet<u32>,
    /// How many may be open,
    pub(super) room: usize,
    /// and how many at least.
    pub(super) room_min: usize,
    /// When it was last told of a piece, or got something of one.
    pub(super) moved_at: Instant,
    /// Nothing was found for it: the search rests until then.
    pub(super) dry_until: Instant,
    /// Pieces that were sent to it whole,
    pub(super) taken: u32,
    /// and those that it was told and did not want.
    pub(super) unwanted: u32,
    /// Times in a row that it took nothing of what it was told.
    pub(super) stuck: u32,
    /// It was told of everything: it takes what it likes.
    pub(super) sees_all: bool,
    /// Pieces that it was given first, since it was judged last,
    pub(super) young: u32,
    /// and before: they should have turned up elsewhere,
    pub(super) due: u32,
    /// as so many have. Both count of late.
    pub(super) passed_on: u32,
    /// It keeps what it gets, as far as we see.
    pub(super) is_keeper: bool,
}

impl Offers {
    /// Nothing told yet; it is to be told of so many bytes ahead at least.
    pub(super) fn new(now: Instant, geometry: Geometry, ahead_min: u64) -> Self {
        // Beside those bytes: one that is being sent, and one that is being told.
        let beside = if ahead_min > 0 { OPEN_MIN } else { 0 };
        let room_min = pieces_in(ahead_min, geometry.piece_len) + beside;
        Self {
            told: Bitfield::none(geometry.pieces),
            open: Vec::new(),
            sent: BTreeSet::new(),
            room: pieces_in(START_BYTES, geometry.piece_len).max(room_min),
            room_min,
            moved_at: now,
            dry_until: now,
            taken: 0,
            unwanted: 0,
            stuck: 0,
            sees_all: false,
            young: 0,
            due: 0,
            passed_on: 0,
            is_keeper: false,
        }
    }

    /// Has it got something of us of late, or is it about to?
    pub(super) fn is_taking(&self, now: Instant) -> bool {
        self.taken > 0 && now.since(self.moved_at) < STUCK_TIME
    }

    /// A piece that it was told of is there.
    pub(super) fn close(&mut self, now: Instant, piece: u32) {
        self.moved_at = now;
        self.stuck = 0;
        if let Some(at) = self.open.iter().position(|(open, _)| *open == piece) {
            self.open.swap_remove(at);
            // Doubles in the time of a piece: what a fast peer can take is found out soon.
            self.room = (self.room + 1).min(OPEN_MAX);
        }
    }
}

/// Pieces that hold so many bytes: at least two, so that one is on its way while the next is told.
pub(super) fn pieces_in(bytes: u64, piece_len: u32) -> usize {
    let pieces = bytes / u64::from(piece_len.max(1));
    usize::try_from(pieces).unwrap_or(OPEN_MAX).clamp(OPEN_MIN, OPEN_MAX)
}

/// What a peer is told of at first.
const START_BYTES: u64 = 1 << 20;
const OPEN_MIN: usize = 2;
/// Pieces told and not had yet: at 16 KiB a piece 64 MiB.
const OPEN_MAX: usize = 4_096;
/// A peer that takes nothing for this long is told of other pieces.
pub(super) const STUCK_TIME: Duration = Duration::from_secs(2);
