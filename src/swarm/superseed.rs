//! Super-seeding (BEP 16): a lone seed hands each piece out once and lets the swarm copy it.
//!
//! A seed that shows everything is asked by everybody for anything, and sends many pieces twice
//! before the first one has spread. Here it claims to have nothing, and then tells each peer of a
//! few pieces that nobody else has been told of; when a peer has got one, it is told of the next.
//! BEP 16 waits until *another* peer has the piece; that leaves the seed's line idle, so this waits
//! only until the piece was sent (some peers do not tell one that has a piece that they have it,
//! too), and how many pieces a peer is told of ahead follows its rate. A piece is told a second
//! time when it has had time to spread, and our line has nothing new to send.
//!
//! Only those whom our line can feed are told of anything. If each of a hundred peers were told of a
//! piece and eight of them are served, ninety pieces would wait for their peer's turn, and leave late
//! or twice.
//!
//! Some peers keep what they get: they never unchoke anybody, or nobody reaches them. A piece that such
//! a peer was given first has to be sent once more. So it is watched whether what a peer got from us
//! turns up elsewhere; as long as there are new pieces and others that pass them on, one that does not
//! is told of few, and of such as others have already. Pure: it chooses; it says nothing itself.

mod offers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::offers::{Offers, STUCK_TIME, pieces_in};
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
    /// Since when nothing is left that nobody was told of.
    told_out_at: Option<Instant>,
    /// When something was sent last,
    sent_at: Instant,
    /// and when somebody was told of a piece who is not served.
    baited_at: Instant,
    /// Searches that may be made before their time, as somebody has left,
    early: u32,
    /// and how many were allowed since then.
    early_given: (Instant, u32),
    /// When it is judged next who passes on what it gets.
    judge_at: Instant,
    /// Pieces told to anybody, of late,
    told: u32,
    /// and of them to peers that keep what they get.
    told_to_keepers: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    /// Peers that have it.
    held: u16,
    /// The peer that was given it first, as long as nobody else has it from there; 0 if nobody.
    giver: u32,
    told_at: Option<Instant>,
    /// Peers that may be told of it at once, as one has left with it.
    urgent: u8,
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
            told_out_at: None,
            sent_at: Instant::ZERO,
            baited_at: Instant::ZERO,
            early: 0,
            early_given: (Instant::ZERO, 0),
            judge_at: Instant::ZERO,
            told: 0,
            told_to_keepers: 0,
        }
    }

    /// A peer came, and was told that we have nothing. It is told of so many bytes ahead at least.
    pub fn add_peer(&mut self, now: Instant, conn: ConnId, ahead_min: u64) {
        self.peers.insert(conn, Offers::new(now, self.geometry, ahead_min));
    }

    /// Was this peer told that we have nothing, and not of everything since?
    pub fn has_peer(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|offers| !offers.sees_all)
    }

    /// A peer is told of everything. What it was sent still counts as being there: not every client
    /// says that it has what it was given.
    pub fn show_all(&mut self, conn: ConnId) {
        let Some(offers) = self.peers.get_mut(&conn) else { return };
        offers.sees_all = true;
        offers.told = Bitfield::all(self.geometry.pieces);
        let open = std::mem::take(&mut offers.open);
        self.give_back(open);
    }

    /// A peer left, with these pieces. True if others are to be told of something at once: nobody else
    /// has it, or was told of it.
    pub fn remove_peer(&mut self, now: Instant, conn: ConnId, had: Option<&Bitfield>) -> bool {
        // Whoever leaves in the end has all that it wanted. So has the next, with what it took along.
        let urgent = if self.is_told_out() { URGENT_MAX } else { 0 };
        let offers = self.peers.remove(&conn);
        let sent = offers.iter().flat_map(|offers| offers.sent.iter().copied());
        let mut is_missed = false;
        for piece in had.into_iter().flat_map(Bitfield::iter).chain(sent) {
            if let Some(state) = self.lose(piece) {
                state.urgent = urgent;
                is_missed = true;
            }
        }
        let open = offers.map(|offers| offers.open).unwrap_or_default();
        is_missed |= !open.is_empty();
        self.give_back(open);
        if is_missed {
            let (since, given) = &mut self.early_given;
            if now.since(*since) >= EARLY_TIME {
                (*since, *given) = (now, 0);
            }
            self.early = EARLY_STEP.min(EARLY_MAX - *given);
            *given += self.early;
        }
        is_missed
    }

    // Nothing was found for this peer a moment ago, and nothing has come back since.
    fn rests(&mut self, now: Instant, conn: ConnId) -> bool {
        let is_dry = self.peers.get(&conn).is_none_or(|offers| now < offers.dry_until);
        let is_early = is_dry && self.early > 0;
        self.early -= u32::from(is_early);
        is_dry && !is_early
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
        self.credit(conn, piece);
        self.gain(piece);
    }

    // A peer has a piece that it was not told of by us: whoever was given it first has passed it on.
    fn credit(&mut self, conn: ConnId, piece: u32) {
        if self.peers.get(&conn).is_none_or(|offers| offers.told.has(piece)) {
            return;
        }
        let state = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p));
        let Some(state) = state.filter(|s| s.giver != 0 && s.giver != short(conn)) else { return };
        let giver = ConnId(std::mem::take(&mut state.giver).into());
        if let Some(giver) = self.peers.get_mut(&giver) {
            giver.passed_on += 1;
        }
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
        self.sent_at = now;
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
        offers.stuck = 0;
        if !is_whole {
            return false;
        }
        offers.close(now, piece);
        offers.taken += 1;
        offers.sent.insert(piece);
        if let Some(state) = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p)) {
            // Sent to a second peer it says nothing any more about the first.
            state.giver = if state.held == 0 { short(conn) } else { 0 };
            offers.young += u32::from(state.held == 0);
        }
        self.on_given(now, piece);
        self.gain(piece);
        true
    }

    /// A piece for a peer that is not served yet: it has to want something of us.
    pub fn bait(&mut self, now: Instant, conn: ConnId, theirs: Option<&Bitfield>) -> Option<u32> {
        let offers = self.peers.get(&conn).filter(|offers| !offers.sees_all)?;
        // Two where one was not wanted.
        let baits = if offers.unwanted == 0 { 1 } else { 2 };
        if offers.open.len() >= baits || self.rests(now, conn) {
            return None;
        }
        if !self.has_room(now) {
            self.peers.get_mut(&conn)?.dry_until = now + DRY_TIME;
            return None;
        }
        let bait = self.choose(now, conn, theirs)?;
        self.baited_at = now;
        Some(bait)
    }

    // Is somebody wanted who waits to be served? As many as make our line busy are enough; but whoever
    // they are, they keep nobody waiting for ever.
    fn has_room(&self, now: Instant) -> bool {
        let is_idle = now.since(self.sent_at) >= IDLE_TIME;
        if now.since(self.baited_at) >= if is_idle { BAIT_IDLE } else { BAIT_BUSY } {
            return true;
        }
        let time = self.given_time(self.backlog(now));
        let waiting = |o: &&Offers| !o.open.is_empty() && now.since(o.moved_at) < time;
        self.peers.values().filter(waiting).take(ENGAGED_MAX).count() < ENGAGED_MAX
    }

    // A piece that nobody has is told to another after this time.
    fn given_time(&self, backlog: Duration) -> Duration {
        GIVEN_TIME.max(self.given * 2).max(backlog * 2)
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
        let offers = self.peers.get_mut(&conn).filter(|offers| !offers.sees_all)?;
        if rate > 0 {
            let ahead = rate.saturating_mul(AHEAD_TIME.as_millis() as u64) / 1_000;
            let ahead = pieces_in(ahead, self.geometry.piece_len).max(offers.room_min);
            offers.room = offers.room.min(ahead);
        }
        // It has them from elsewhere and does not say so, or will not have them.
        if now.since(offers.moved_at) >= stuck_time && !offers.open.is_empty() {
            offers.open.clear();
            offers.stuck += 1;
        }
        if offers.open.len() >= offers.room || self.rests(now, conn) {
            return None;
        }
        self.choose(now, conn, theirs)
    }

    /// Does a peer stand still whatever it is told? Not every client copes with a seed that has nothing
    /// at first.
    pub fn stands_still(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|o| !o.sees_all && o.stuck >= STUCK_MAX)
    }

    /// Was each piece told to somebody, or is it there already?
    pub fn is_told_out(&self) -> bool {
        let front = self.queue.front().and_then(|p| usize::try_from(*p).ok());
        front.and_then(|p| self.pieces.get(p)).is_none_or(|state| state.told_at.is_some())
    }

    /// Is there nothing to be saved? Everything was told, nothing spreads, and our line sends a whole copy
    /// in no time.
    pub fn is_pointless(&self, now: Instant) -> bool {
        let had_time = self.told_out_at.is_some_and(|at| now.since(at) >= SPREAD_TIME_ALONE);
        let total = u64::from(self.geometry.pieces) * u64::from(self.geometry.piece_len);
        let is_cheap = self.pace.is_some_and(|(since, bytes)| {
            let took = self.sent_at.since(since).as_micros().saturating_mul(total.into());
            took <= CHEAP_COPY.as_micros() * u128::from(bytes)
        });
        had_time && is_cheap && !self.spreads(now)
    }

    /// The pieces that a peer was not told of: super-seeding ends.
    pub fn untold(&self, conn: ConnId) -> Option<impl Iterator<Item = u32> + '_> {
        let offers = self.peers.get(&conn).filter(|offers| !offers.sees_all)?;
        Some((0u32..).take(self.pieces.len()).filter(|piece| !offers.told.has(*piece)))
    }

    fn choose(&mut self, now: Instant, conn: ConnId, theirs: Option<&Bitfield>) -> Option<u32> {
        let backlog = self.backlog(now);
        let given_time = self.given_time(backlog);
        // A piece that is sent twice waits for those that are sent once.
        let is_busy = backlog > BUSY_TIME;
        self.judge(now);
        let has_passers =
            self.peers.values().any(|o| !o.is_keeper && !o.sees_all && o.is_taking(now));
        let is_told_out = self.is_told_out();
        self.told_out_at = self.told_out_at.filter(|_| is_told_out).or(is_told_out.then_some(now));
        // As long as peers get pieces from each other there is no need to send any twice.
        let spreads = self.spreads(now);
        let spread_time = if spreads { SPREAD_TIME } else { SPREAD_TIME_ALONE };
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
        let is_kept_short = offers.is_keeper && has_passers && !is_told_out;
        if is_kept_short && self.told_to_keepers > self.told / KEEPERS_SHARE {
            return None;
        }
        let fits = |piece: &u32| {
            let Some(state) = usize::try_from(*piece).ok().and_then(|p| self.pieces.get(p)) else {
                return false;
            };
            let pause = if state.held == 0 { given_time } else { spread_time };
            !offers.told.has(*piece)
                && (!is_kept_short || state.held > 0)
                && (!is_busy || !spreads || state.held == 0)
                && theirs.is_none_or(|theirs| !theirs.has(*piece))
                && (state.urgent > 0 || state.told_at.is_none_or(|told| now.since(told) >= pause))
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
        self.told += 1;
        self.told_to_keepers += u32::from(is_kept_short);
        let state = usize::try_from(piece).ok().and_then(|p| self.pieces.get_mut(p))?;
        state.told_at = Some(now);
        state.urgent = state.urgent.saturating_sub(1);
        Some(piece)
    }

    // Who keeps what it gets? Asked again and again: one that passes on late is found out then.
    fn judge(&mut self, now: Instant) {
        if now < self.judge_at {
            return;
        }
        self.judge_at = now + JUDGE_TIME.max(self.given * 2);
        (self.told, self.told_to_keepers) = (self.told / 2, self.told_to_keepers / 2);
        for offers in self.peers.values_mut() {
            offers.is_keeper = offers.due >= KEPT_MIN && offers.passed_on < offers.due / KEPT_SHARE;
            offers.due = offers.due / 2 + std::mem::take(&mut offers.young);
            offers.passed_on /= 2;
        }
    }

    // How long our line takes for all that the peers we serve were told of and have not been sent.
    fn backlog(&self, now: Instant) -> Duration {
        let Some((since, bytes)) = self.pace.filter(|(_, bytes)| *bytes > 0) else {
            return Duration::ZERO;
        };
        let lately = STUCK_TIME.max(self.given);
        let served = self.peers.values().filter(|o| o.taken > 0 || o.open.len() > 1);
        let served = served.filter(|o| now.since(o.moved_at) < lately);
        let left: u64 = served.flat_map(|o| &o.open).map(|(_, left)| u64::from(*left)).sum();
        let time = now.since(since).as_micros().saturating_mul(left.into()) / u128::from(bytes);
        Duration::from_micros(u64::try_from(time).unwrap_or(u64::MAX)).min(BACKLOG_MAX)
    }

    // Do peers get pieces from each other?
    fn spreads(&self, now: Instant) -> bool {
        self.copied_at.is_some_and(|at| now.since(at) < COPIED_LATELY.max(self.given))
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
            state.urgent = 0;
        }
    }

    // Somebody has a piece no more: the piece, if nobody has it now and it can be copied from nobody.
    fn lose(&mut self, piece: u32) -> Option<&mut Piece> {
        let state = self.pieces.get_mut(usize::try_from(piece).ok()?)?;
        state.held = state.held.saturating_sub(1);
        if state.held > 0 {
            return None;
        }
        state.told_at = None;
        Some(state)
    }
}

// The name of a peer in a piece, which is small: nobody if it does not fit.
fn short(conn: ConnId) -> u32 {
    u32::try_from(conn.0).unwrap_or(0)
}

/// With fewer pieces there is nothing to divide.
pub const SUPER_SEED_PIECES_MIN: u32 = 8;
/// What a peer is told of ahead is what it takes in this time.
const AHEAD_TIME: Duration = Duration::from_millis(1_000);
/// Over so much time it is measured what our line carries.
const PACE_TIME: Duration = Duration::from_secs(20);
/// Nobody is waited for longer than this, however slow our line is.
const BACKLOG_MAX: Duration = Duration::from_secs(60);
/// A piece that nobody has is told to another after this time, or after twice what pieces take to be
/// sent if our own line is slow: its peer is slower than others.
const GIVEN_TIME: Duration = Duration::from_secs(5);
/// A piece that somebody left with in the end is told to so many without a pause.
const URGENT_MAX: u8 = 4;
/// A piece that somebody has is told again after this time: it should have spread by then,
const SPREAD_TIME: Duration = Duration::from_secs(6);
/// or after this one, where nothing spreads: peers that cannot reach each other need us.
const SPREAD_TIME_ALONE: Duration = Duration::from_secs(1);
/// A line that sends a copy in so little time has no need to send only one.
const CHEAP_COPY: Duration = Duration::from_secs(2);
/// What spread so lately goes on spreading; where our line is slow, what did so in the time of a piece.
const COPIED_LATELY: Duration = Duration::from_secs(2);
/// With so many peers that are told of something and have not been sent it nobody else is told of
/// anything: those that are served, and some that wait.
const ENGAGED_MAX: usize = 12;
/// But after this time somebody is,
const BAIT_BUSY: Duration = Duration::from_secs(5);
/// or after this one, where our line is idle:
const BAIT_IDLE: Duration = Duration::from_millis(100);
/// nothing was sent for so long.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Our line is busy if what peers were told of takes it longer than this.
const BUSY_TIME: Duration = Duration::from_millis(500);
/// One that does so this many times in a row, of everything.
const STUCK_MAX: u32 = 4;
/// Pieces that a peer did not want, before it sees everything: one, and two, if it took none; and
/// then as many as a third of those that it took.
const UNWANTED_MAX: u32 = 3;
/// So often it is judged who passes on what it gets, or in twice the time that pieces take to be sent.
const JUDGE_TIME: Duration = Duration::from_secs(5);
/// A peer keeps what it gets if less than a quarter of the pieces that it was given first has turned up
/// elsewhere, of this many or more.
const KEPT_MIN: u32 = 4;
const KEPT_SHARE: u32 = 4;
/// Of the pieces that are told while there are new ones, those peers get one in this many.
const KEEPERS_SHARE: u32 = 12;
/// A search that found nothing is done again after this time, and a microsecond for each piece:
/// it takes a few nanoseconds for each.
const DRY_TIME: Duration = Duration::from_millis(100);
/// So many are done before, if somebody leaves with pieces that are missed,
const EARLY_STEP: u32 = 16;
/// and so many in this time, however many leave.
const EARLY_MAX: u32 = 128;
const EARLY_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
