//! Super-seeding (BEP 16): a lone seed hands each piece out once and lets the swarm copy it.
//!
//! A seed that shows everything is asked by everybody for anything, and sends many pieces twice
//! before the first one has spread. Here it claims to have nothing, and then tells each peer of a
//! few pieces that nobody else has been told of; when a peer has got one, it is told of the next.
//! BEP 16 waits until *another* peer has the piece; that leaves the seed's line idle, so this waits
//! only until the piece was sent (some peers do not tell one that has a piece that they have it,
//! too), and how many pieces a peer is told of ahead follows its rate. A piece is told a second
//! time when it has had time to spread. Pure: it chooses; it says nothing itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::{Instant, Rng};
use crate::peer::{ConnId, Geometry};
use crate::wire::bitfield::Bitfield;

/// Which pieces were told to whom.
#[derive(Debug)]
pub struct SuperSeed {
    pieces: Vec<Piece>,
    /// Pieces in the order in which they are told: those never told by chance, then the longest
    /// told first.
    queue: VecDeque<u32>,
    peers: BTreeMap<ConnId, Offers>,
    geometry: Geometry,
    /// When a peer last got a piece that we had not told it of.
    copied_at: Option<Instant>,
    /// How long a piece takes from its telling until it is sent, smoothed: our line sets the pace.
    given: Duration,
    /// What was sent since when, of late.
    pace: Option<(Instant, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    /// Peers that have it.
    held: u16,
    told_at: Option<Instant>,
}

/// One peer's share.
#[derive(Debug)]
struct Offers {
    told: Bitfield,
    /// Told, and not sent yet: so many bytes are left of each.
    open: Vec<(u32, u32)>,
    /// Sent, and the peer has not said that it has it.
    sent: BTreeSet<u32>,
    /// How many may be open.
    room: usize,
    /// When it was last told of a piece, or got something of one.
    moved_at: Instant,
    /// Nothing was found for it: the search rests until then.
    dry_until: Instant,
    /// Pieces that were sent to it whole,
    taken: u32,
    /// and those that it was told and did not want.
    unwanted: u32,
}

impl SuperSeed {
    /// Nothing told yet.
    pub fn new(geometry: Geometry, rng: &mut Rng) -> Self {
        let mut order: Vec<u32> = (0..geometry.pieces).collect();
        rng.shuffle(&mut order);
        let count = order.len();
        Self {
            pieces: vec![Piece::default(); count],
            queue: order.into(),
            peers: BTreeMap::new(),
            geometry,
            copied_at: None,
            given: Duration::ZERO,
            pace: None,
        }
    }

    /// A peer came, and was told that we have nothing.
    pub fn add_peer(&mut self, now: Instant, conn: ConnId) {
        let told = Bitfield::none(self.geometry.pieces);
        let room = pieces_in(START_BYTES, self.geometry.piece_len);
        let offers = Offers {
            told,
            open: Vec::new(),
            sent: BTreeSet::new(),
            room,
            moved_at: now,
            dry_until: now,
            taken: 0,
            unwanted: 0,
        };
        self.peers.insert(conn, offers);
    }

    /// Was this peer told that we have nothing?
    pub fn has_peer(&self, conn: ConnId) -> bool {
        self.peers.contains_key(&conn)
    }

    /// A peer left, with these pieces. What only it was told is told to another at once.
    pub fn remove_peer(&mut self, conn: ConnId, had: Option<&Bitfield>) {
        for piece in had.into_iter().flat_map(Bitfield::iter) {
            self.lose(piece);
        }
        let Some(offers) = self.peers.remove(&conn) else { return };
        offers.sent.iter().for_each(|piece| self.lose(*piece));
        self.give_back(offers.open);
    }

    // What one peer does not take is for another to be told, before everything else.
    fn give_back(&mut self, open: Vec<(u32, u32)>) {
        for (piece, _) in open {
            let Some(state) = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p))
            else {
                continue;
            };
            if state.held == 0 {
                state.told_at = None;
                // At most a window of them: the search is short where it matters, at the back.
                if let Some(at) = self.queue.iter().rposition(|p| *p == piece) {
                    self.queue.remove(at);
                    self.queue.push_front(piece);
                }
            }
        }
    }

    /// A peer wants nothing of what it was told; it had `patience` to say so. True if that was so
    /// too often: whoever has chosen some of the files has to see everything to find its own.
    pub fn on_unwanted(&mut self, now: Instant, conn: ConnId, patience: Duration) -> bool {
        let Some(offers) = self.peers.get_mut(&conn) else { return false };
        if offers.open.is_empty() || now.since(offers.moved_at) < patience {
            return false;
        }
        let open = std::mem::take(&mut offers.open);
        offers.unwanted += u32::try_from(open.len()).unwrap_or(u32::MAX);
        let is_choosy =
            offers.unwanted >= UNWANTED_MAX && offers.unwanted > offers.taken / UNWANTED_MAX;
        self.give_back(open);
        is_choosy
    }

    /// A peer named the set of its pieces; `before` is the set it named earlier.
    pub fn on_pieces(&mut self, before: Option<&Bitfield>, pieces: &Bitfield) {
        for piece in before.into_iter().flat_map(Bitfield::iter) {
            self.lose(piece);
        }
        for piece in pieces.iter() {
            self.gain(piece);
        }
    }

    /// A peer has one more piece.
    pub fn on_have(&mut self, now: Instant, conn: ConnId, piece: u32) {
        // Who sees everything has it from anybody.
        if let Some(offers) = self.peers.get_mut(&conn) {
            if offers.sent.remove(&piece) {
                return;
            }
            offers.close(now, piece);
            if !offers.told.has(piece) {
                self.copied_at = Some(now);
            }
        }
        self.gain(piece);
    }

    /// A peer has one piece less.
    pub fn on_lost(&mut self, conn: ConnId, piece: u32) {
        if let Some(offers) = self.peers.get_mut(&conn) {
            offers.sent.remove(&piece);
        }
        self.lose(piece);
    }

    /// So many bytes of a piece were sent to a peer: true if that makes it whole.
    pub fn on_sent(&mut self, now: Instant, conn: ConnId, piece: u32, len: u32) -> bool {
        let (since, bytes) = self.pace.get_or_insert((now, 0));
        *bytes += u64::from(len);
        if now.since(*since) > PACE_TIME {
            (*since, *bytes) = (*since + now.since(*since) / 2, *bytes / 2);
        }
        let Some(offers) = self.peers.get_mut(&conn) else { return false };
        let Some((_, left)) = offers.open.iter_mut().find(|(open, _)| *open == piece) else {
            return false;
        };
        *left = left.saturating_sub(len);
        let is_whole = *left == 0;
        offers.moved_at = now;
        if !is_whole {
            return false;
        }
        offers.close(now, piece);
        offers.taken += 1;
        offers.sent.insert(piece);
        self.on_given(now, piece);
        self.gain(piece);
        true
    }

    /// A piece for a peer that is not served yet: it has to want something of us.
    pub fn bait(&mut self, now: Instant, conn: ConnId, theirs: Option<&Bitfield>) -> Option<u32> {
        let offers = self.peers.get(&conn)?;
        // Two where one was not wanted.
        let baits = if offers.unwanted == 0 { 1 } else { 2 };
        if offers.open.len() < baits { self.choose(now, conn, theirs) } else { None }
    }

    /// The next piece to tell a peer that is served, if it has room for one. `rate`: bytes a
    /// second that it takes from us, zero if unknown.
    pub fn next(
        &mut self,
        now: Instant,
        conn: ConnId,
        theirs: Option<&Bitfield>,
        rate: u64,
    ) -> Option<u32> {
        let stuck_time = STUCK_TIME.max(self.backlog(now));
        let offers = self.peers.get_mut(&conn)?;
        if rate > 0 {
            let ahead = rate.saturating_mul(AHEAD_TIME.as_millis() as u64) / 1_000;
            offers.room = offers.room.min(pieces_in(ahead, self.geometry.piece_len));
        }
        // It has them from elsewhere and does not say so, or will not have them.
        if now.since(offers.moved_at) >= stuck_time {
            offers.open.clear();
        }
        if offers.open.len() >= offers.room { None } else { self.choose(now, conn, theirs) }
    }

    /// The pieces that a peer was not told of: super-seeding ends.
    pub fn untold(&self, conn: ConnId) -> Option<impl Iterator<Item = u32> + '_> {
        let offers = self.peers.get(&conn)?;
        Some((0u32..).take(self.pieces.len()).filter(|piece| !offers.told.has(*piece)))
    }

    fn choose(&mut self, now: Instant, conn: ConnId, theirs: Option<&Bitfield>) -> Option<u32> {
        if now < self.peers.get(&conn)?.dry_until {
            return None;
        }
        let given_time = GIVEN_TIME.max(self.given * 2).max(self.backlog(now) * 2);
        let offers = self.peers.get_mut(&conn)?;
        // Pieces that others have brought already need nobody's help.
        for _ in 0..self.queue.len() {
            let Some(front) = self.queue.front().copied() else { break };
            let state = usize::try_from(front).ok().and_then(|p| self.pieces.get_mut(p))?;
            if state.told_at.is_some() || state.held == 0 {
                break;
            }
            state.told_at = Some(now);
            self.queue.rotate_left(1);
        }
        // As long as peers get pieces from each other there is no need to send any twice.
        let spreads =
            self.copied_at.is_some_and(|at| now.since(at) < COPIED_LATELY.max(self.given));
        let spread_time = if spreads { SPREAD_TIME } else { SPREAD_TIME_ALONE };
        let fits = |piece: &u32| {
            let Some(state) = usize::try_from(*piece).ok().and_then(|p| self.pieces.get(p)) else {
                return false;
            };
            let pause = if state.held == 0 { given_time } else { spread_time };
            !offers.told.has(*piece)
                && theirs.is_none_or(|theirs| !theirs.has(*piece))
                && state.told_at.is_none_or(|told| now.since(told) >= pause)
        };
        let Some(at) = self.queue.iter().position(fits) else {
            let pieces = u64::from(self.geometry.pieces);
            offers.dry_until = now + DRY_TIME + Duration::from_micros(pieces);
            return None;
        };
        let piece = self.queue.remove(at)?;
        self.queue.push_back(piece);
        offers.told.set(piece);
        offers.moved_at = now;
        offers.open.push((piece, self.geometry.len_of(piece)));
        let state = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p))?;
        state.told_at = Some(now);
        Some(piece)
    }

    // How long our line takes for all that the peers we serve were told of and have not been sent.
    fn backlog(&self, now: Instant) -> Duration {
        let Some((since, bytes)) = self.pace.filter(|(_, bytes)| *bytes > 0) else {
            return Duration::ZERO;
        };
        let served = self.peers.values().filter(|o| o.taken > 0 || o.open.len() > 1);
        let left: u64 = served.flat_map(|o| &o.open).map(|(_, left)| u64::from(*left)).sum();
        let time = now.since(since).as_micros().saturating_mul(left.into()) / u128::from(bytes);
        Duration::from_micros(u64::try_from(time).unwrap_or(u64::MAX)).min(BACKLOG_MAX)
    }

    // A piece has left as a whole: from now on it can spread. What it took until then was our line.
    fn on_given(&mut self, now: Instant, piece: u32) {
        let state = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p));
        if let Some(state) = state.filter(|state| state.held == 0)
            && let Some(told) = state.told_at.replace(now)
        {
            let took = now.since(told);
            let before = if self.given.is_zero() { took } else { self.given };
            self.given = (before * 3 + took) / 4;
        }
    }

    fn gain(&mut self, piece: u32) {
        if let Some(state) = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p)) {
            state.held = state.held.saturating_add(1);
        }
    }

    fn lose(&mut self, piece: u32) {
        if let Some(state) = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p)) {
            state.held = state.held.saturating_sub(1);
            if state.held == 0 {
                // Nobody can copy it any more.
                state.told_at = None;
            }
        }
    }
}

impl Offers {
    fn close(&mut self, now: Instant, piece: u32) {
        self.moved_at = now;
        if let Some(at) = self.open.iter().position(|(open, _)| *open == piece) {
            self.open.swap_remove(at);
            // Doubles in the time of a piece: what a fast peer can take is found out soon.
            self.room = (self.room + 1).min(OPEN_MAX);
        }
    }
}

// Pieces that hold so many bytes: at least two, so that one is on its way while the next is told.
fn pieces_in(bytes: u64, piece_len: u32) -> usize {
    let pieces = bytes / u64::from(piece_len.max(1));
    usize::try_from(pieces).unwrap_or(OPEN_MAX).clamp(OPEN_MIN, OPEN_MAX)
}

/// With fewer pieces there is nothing to divide.
pub const SUPER_SEED_PIECES_MIN: u32 = 8;
/// What a peer is told of at first.
const START_BYTES: u64 = 1 << 20;
/// What a peer is told of ahead is what it takes in this time.
const AHEAD_TIME: Duration = Duration::from_millis(1_000);
const OPEN_MIN: usize = 2;
/// Over so much time it is measured what our line carries.
const PACE_TIME: Duration = Duration::from_secs(20);
/// Nobody is waited for longer than this, however slow our line is.
const BACKLOG_MAX: Duration = Duration::from_secs(60);
/// Pieces told and not had yet: at 16 KiB a piece 64 MiB.
const OPEN_MAX: usize = 4_096;
/// A piece that nobody has is told to another after this time, or after twice what pieces take to be
/// sent if our own line is slow: its peer is slower than others.
const GIVEN_TIME: Duration = Duration::from_secs(5);
/// A piece that somebody has is told again after this time: it should have spread by then,
const SPREAD_TIME: Duration = Duration::from_secs(6);
/// or after this one, where nothing spreads: peers that cannot reach each other need us.
const SPREAD_TIME_ALONE: Duration = Duration::from_secs(1);
/// What spread so lately goes on spreading; where our line is slow, what did so in the time of a piece.
const COPIED_LATELY: Duration = Duration::from_secs(2);
/// A peer that takes nothing for this long is told of other pieces.
const STUCK_TIME: Duration = Duration::from_secs(2);
/// Pieces that a peer did not want, before it sees everything: one, and two, if it took none; and
/// then as many as a third of those that it took.
const UNWANTED_MAX: u32 = 3;
/// A search that found nothing is done again after this time, and a microsecond for each piece:
/// it takes a few nanoseconds for each.
const DRY_TIME: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);
    const PATIENCE: Duration = Duration::from_millis(300);

    fn seed(pieces: u32) -> SuperSeed {
        let geometry = Geometry { pieces, piece_len: 1 << 19, last_len: 5 };
        let mut seed = SuperSeed::new(geometry, &mut Rng::from_seed([1; 32]));
        seed.add_peer(Instant::ZERO, A);
        seed.add_peer(Instant::ZERO, B);
        seed
    }

    fn drain(seed: &mut SuperSeed, now: Instant, conn: ConnId) -> Vec<u32> {
        drain_at(seed, now, conn, 0)
    }

    fn drain_at(seed: &mut SuperSeed, now: Instant, conn: ConnId, rate: u64) -> Vec<u32> {
        std::iter::from_fn(|| seed.next(now, conn, None, rate)).collect()
    }

    #[test]
    fn each_piece_is_told_once_while_some_were_told_to_nobody() {
        let (mut seed, now) = (seed(100), Instant::ZERO);
        let mut told = Vec::new();
        while told.len() < 100 {
            for conn in [A, B] {
                for piece in drain(&mut seed, now, conn) {
                    told.push(piece);
                    seed.on_have(now, conn, piece);
                }
            }
        }
        told.sort_unstable();
        assert_eq!(told, (0..100).collect::<Vec<_>>());
        assert_eq!(seed.next(now, A, None, 0), None, "they have to spread first");
        let later = now + SPREAD_TIME_ALONE;
        let first = seed.next(later, A, None, 0).expect("nothing spreads");
        let other = (0..100).find(|p| *p != first && !seed.peers[&A].told.has(*p)).unwrap();
        seed.on_have(later, A, other);
        assert_eq!(seed.next(later, A, None, 0), None, "it spreads");
        assert!(seed.next(now + SPREAD_TIME, A, None, 0).is_some());
    }

    // Everything is told within six seconds, and the line takes 24 for it.
    #[test]
    fn what_our_own_line_is_late_with_is_told_to_nobody_else() {
        let (mut seed, mut now) = (seed(8), Instant::ZERO);
        let mut told: Vec<u32> = [A, B].iter().flat_map(|c| drain(&mut seed, now, *c)).collect();
        for conn in [A, B].into_iter().cycle().take(8) {
            now += Duration::from_secs(3);
            let is_held = |piece: u32| seed.pieces[usize::try_from(piece).unwrap()].held > 0;
            let mut open = seed.peers[&conn].open.iter().copied();
            let (piece, left) = open.find(|(piece, _)| !is_held(*piece)).unwrap();
            assert!(seed.on_sent(now, conn, piece, left));
            for piece in drain(&mut seed, now, conn) {
                let is_held = seed.pieces[usize::try_from(piece).unwrap()].held > 0;
                assert!(is_held || !told.contains(&piece), "{piece} at {now:?}");
                told.push(piece);
            }
        }
        assert!(seed.given > Duration::from_secs(8), "{:?}", seed.given);
    }

    #[test]
    fn window_doubles_with_what_is_taken_and_follows_the_rate() {
        let (mut seed, now) = (seed(1_000), Instant::ZERO);
        assert_eq!(drain(&mut seed, now, A).len(), 2);
        for n in [4, 8, 16] {
            let open = seed.peers[&A].open.clone();
            open.iter().for_each(|(piece, _)| seed.on_have(now, A, *piece));
            assert_eq!(drain(&mut seed, now, A).len(), n);
        }
        assert_eq!(seed.next(now, A, None, 1 << 20), None);
        assert_eq!(seed.peers[&A].room, 2);
    }

    #[test]
    fn piece_that_was_sent_counts_even_if_the_peer_does_not_say_so() {
        let (mut seed, now) = (seed(100), Instant::ZERO);
        let told = drain(&mut seed, now, A);
        assert!(!seed.on_sent(now, A, told[0], 1 << 18));
        assert_eq!(seed.next(now, A, None, 0), None);
        assert!(seed.peers[&A].open.len() == 2);
        assert!(seed.on_sent(now, A, told[0], 1 << 18));
        assert!(seed.next(now, A, None, 0).is_some());
        let held = |seed: &SuperSeed| seed.pieces[told[0] as usize].held;
        assert_eq!(held(&seed), 1);
        seed.on_have(now, A, told[0]);
        assert_eq!(held(&seed), 1, "it is the same one");
        seed.remove_peer(A, Some(&Bitfield::all(100)));
        assert_eq!(held(&seed), 0);
    }

    #[test]
    fn what_only_a_lost_peer_was_told_is_told_first() {
        let (mut seed, now) = (seed(100), Instant::ZERO);
        let lost = drain(&mut seed, now, A);
        seed.on_have(now, A, lost[0]);
        seed.remove_peer(A, None);
        assert_eq!(seed.next(now, B, None, 0), Some(lost[1]));
    }

    #[test]
    fn pieces_that_the_swarm_has_wait() {
        let (mut seed, now) = (seed(20), Instant::ZERO);
        let mut most = Bitfield::none(20);
        (0..19).for_each(|piece| _ = most.set(piece));
        seed.on_pieces(None, &most);
        assert_eq!(drain(&mut seed, now, A), [19]);
    }

    #[test]
    fn last_missing_piece_is_found_among_many() {
        let (mut seed, now) = (seed(10_000), Instant::ZERO);
        let mut theirs = Bitfield::all(10_000);
        theirs.clear(*seed.queue.back().unwrap());
        assert!(seed.next(now, A, Some(&theirs), 0).is_some());
        assert_eq!(seed.next(now, A, Some(&theirs), 0), None);
    }

    #[test]
    fn bait_is_one_piece() {
        let (mut seed, now) = (seed(20), Instant::ZERO);
        assert!(seed.bait(now, A, None).is_some());
        assert_eq!(seed.bait(now, A, None), None);
        assert_eq!(seed.untold(A).unwrap().count(), 19);
        assert!(seed.untold(ConnId(9)).is_none());
    }

    #[test]
    fn peer_that_wants_nothing_of_what_it_is_told_is_choosy() {
        let (mut seed, now) = (seed(100), Instant::ZERO);
        let bait = seed.bait(now, A, None).unwrap();
        assert!(!seed.on_unwanted(now + PATIENCE / 2, A, PATIENCE));
        assert!(!seed.on_unwanted(now + PATIENCE, A, PATIENCE), "the next one may be of use");
        assert_eq!(seed.bait(now + PATIENCE, B, None), Some(bait), "nobody else was told of it");
        let two: Vec<_> =
            std::iter::from_fn(|| seed.bait(now + PATIENCE, A, None)).take(9).collect();
        assert_eq!(two.len(), 2);
        assert!(seed.on_unwanted(now + 2 * PATIENCE, A, PATIENCE));
        // Who has taken enough is not choosy because of a few.
        let mut now = now + PATIENCE;
        for _ in 0..12 {
            seed.next(now, B, None, 1);
            let piece = seed.peers[&B].open[0].0;
            assert!(seed.on_sent(now, B, piece, 1 << 19));
        }
        for _ in 0..2 {
            drain_at(&mut seed, now, B, 1);
            now += PATIENCE;
            assert!(!seed.on_unwanted(now, B, PATIENCE));
        }
        assert!(!seed.on_unwanted(now, ConnId(9), PATIENCE), "it is told everything anyway");
    }

    #[test]
    fn stuck_peer_is_told_of_other_pieces() {
        let (mut seed, now) = (seed(100), Instant::ZERO);
        let first = drain(&mut seed, now, A);
        assert_eq!(seed.next(now + STUCK_TIME / 2, A, None, 0), None);
        let then = drain(&mut seed, now + STUCK_TIME, A);
        assert_eq!((first.len(), then.len()), (2, 2));
        assert!(then.iter().all(|piece| !first.contains(piece)));
    }
}
