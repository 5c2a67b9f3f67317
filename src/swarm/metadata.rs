//! Fetching the info dictionary from peers (BEP 9).
//!
//! Several peers are asked at once, and each of them for a whole copy: the first copy whose hash
//! is right wins, and a wrong one convicts exactly its giver. Mixing the pieces of several peers,
//! as BEP 9 suggests, lets one liar spoil every copy without being found.
//!
//! Memory is bounded: a copy grows only with what arrives, so many copies grow at once, and few
//! of those may be large.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::base::limits::METADATA_SIZE_MAX;
use crate::peer::ConnId;
use crate::wire::extension::METADATA_PIECE_LEN;

/// The copies under way.
#[derive(Debug, Default)]
pub struct MetadataFetch {
    copies: BTreeMap<ConnId, Copy>,
}

#[derive(Debug)]
struct Copy {
    size: usize,
    bytes: Vec<u8>,
    /// One flag a piece that was asked for: has it come?
    got: Vec<bool>,
    got_count: usize,
    state: CopyState,
    /// How often it was passed over: each time for longer.
    pauses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyState {
    /// Not asked yet, or passed over until then.
    Waiting { until: Instant },
    /// Being fetched. `heard_at` is when its giver last sent something of it.
    Active { since: Instant, heard_at: Instant },
}

/// What a piece of metadata did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was not asked for, or came before.
    Ignored,
    /// The copy grew.
    Grew,
    /// The copy is complete, whether right or wrong.
    Complete(Bytes),
    /// It contradicts what its giver said before: its copy cannot come out right.
    Contradiction,
}

impl MetadataFetch {
    /// Nobody has metadata yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A peer says that it has the info dictionary, of `size` bytes. False if that cannot be.
    pub fn add_giver(&mut self, now: Instant, conn: ConnId, size: u64) -> bool {
        let Some(size) = usize::try_from(size).ok().filter(|s| (1..=METADATA_SIZE_MAX).contains(s))
        else {
            return false;
        };
        if self.copies.get(&conn).is_none_or(|copy| copy.size != size) {
            self.copies.insert(conn, Copy::new(now, size));
        }
        true
    }

    /// The connection is over.
    pub fn remove(&mut self, conn: ConnId) {
        self.copies.remove(&conn);
    }

    /// The metadata is here: forgets all copies.
    pub fn clear(&mut self) {
        self.copies.clear();
    }

    /// Whom to ask for which piece now.
    pub fn next_requests(&mut self, now: Instant) -> Vec<(ConnId, u32)> {
        self.pass_over(now);
        self.activate(now);
        let mut requests = Vec::new();
        for (conn, copy) in &mut self.copies {
            if matches!(copy.state, CopyState::Active { .. }) {
                copy.ask(|piece| requests.push((*conn, piece)));
            }
        }
        requests
    }

    /// A piece came.
    pub fn on_data(
        &mut self,
        now: Instant,
        conn: ConnId,
        piece: u32,
        total_size: u64,
        data: &[u8],
    ) -> Outcome {
        let Some(copy) = self.copies.get_mut(&conn) else { return Outcome::Ignored };
        let piece = usize::try_from(piece).unwrap_or(usize::MAX);
        if copy.got.get(piece).is_none_or(|got| *got) {
            return Outcome::Ignored;
        }
        let size_agrees = usize::try_from(total_size).is_ok_and(|total| total == copy.size);
        if !size_agrees || data.len() != copy.piece_len(piece) {
            return Outcome::Contradiction;
        }
        copy.store(now, piece, data);
        if copy.got_count < copy.piece_count() {
            return Outcome::Grew;
        }
        let copy = self.copies.remove(&conn).expect("it was there a moment ago");
        Outcome::Complete(copy.bytes.into())
    }

    /// A peer refuses a piece: others are asked instead, and it again later.
    pub fn on_reject(&mut self, now: Instant, conn: ConnId, piece: u32) {
        let Some(copy) = self.copies.get_mut(&conn) else { return };
        let piece = usize::try_from(piece).unwrap_or(usize::MAX);
        let awaited = copy.got.get(piece).is_some_and(|got| !got);
        if awaited && matches!(copy.state, CopyState::Active { .. }) {
            copy.pause(now);
        }
    }

    /// Bytes of the copy that is furthest, and its size; zeros if there is none.
    pub fn progress(&self) -> (usize, usize) {
        let copies = self.copies.values().map(|copy| (copy.arrived(), copy.size));
        copies.max_by_key(|(arrived, size)| arrived * 1000 / size).unwrap_or_default()
    }

    /// Does this peer say that it has the metadata?
    pub fn has_giver(&self, conn: ConnId) -> bool {
        self.copies.contains_key(&conn)
    }

    // Takes the turn from givers that went silent; and, if others wait, from those that are slow.
    fn pass_over(&mut self, now: Instant) {
        let others_wait = self.copies.values().any(|copy| copy.is_ready(now));
        for copy in self.copies.values_mut() {
            let CopyState::Active { since, heard_at } = copy.state else { continue };
            let is_slow = others_wait && now.since(since) >= TURN;
            if is_slow || now.since(heard_at) >= SILENCE_MAX {
                copy.pause(now);
            }
        }
    }

    // Fewest pauses first, then smallest: a peer that answered, or was never asked, goes before
    // one that kept us waiting, and a monstrous claim goes last.
    fn activate(&mut self, now: Instant) {
        let is_active = |copy: &&Copy| matches!(copy.state, CopyState::Active { .. });
        let mut active = self.copies.values().filter(is_active).count();
        let mut large = self.copies.values().filter(is_active).filter(|c| c.is_large()).count();
        let mut ready: Vec<_> = self.copies.values_mut().filter(|c| c.is_ready(now)).collect();
        ready.sort_by_key(|copy| (copy.pauses, copy.size));
        for copy in ready {
            if active >= COPIES_MAX {
                return;
            }
            if copy.is_large() {
                if large >= COPIES_LARGE_MAX {
                    continue;
                }
                large += 1;
            }
            active += 1;
            copy.state = CopyState::Active { since: now, heard_at: now };
        }
    }
}

impl Copy {
    fn new(now: Instant, size: usize) -> Self {
        Self {
            size,
            bytes: Vec::new(),
            got: Vec::new(),
            got_count: 0,
            state: CopyState::Waiting { until: now },
            pauses: 0,
        }
    }

    fn piece_count(&self) -> usize {
        self.size.div_ceil(METADATA_PIECE_LEN)
    }

    fn piece_len(&self, piece: usize) -> usize {
        (self.size - piece * METADATA_PIECE_LEN).min(METADATA_PIECE_LEN)
    }

    fn is_ready(&self, now: Instant) -> bool {
        matches!(self.state, CopyState::Waiting { until } if until <= now)
    }

    fn is_large(&self) -> bool {
        self.size > LARGE_SIZE
    }

    fn arrived(&self) -> usize {
        (self.got_count * METADATA_PIECE_LEN).min(self.size)
    }

    // Asks for the next pieces, in order, as far as the pipeline has room.
    fn ask(&mut self, mut request: impl FnMut(u32)) {
        while self.got.len() < self.piece_count() && self.got.len() - self.got_count < PIPELINE {
            request(u32::try_from(self.got.len()).expect("the size is bounded"));
            self.got.push(false);
        }
    }

    fn store(&mut self, now: Instant, piece: usize, data: &[u8]) {
        let at = piece * METADATA_PIECE_LEN;
        if self.bytes.len() < at + data.len() {
            // At most a pipeline ahead of what has come.
            self.bytes.resize(at + data.len(), 0);
        }
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.got[piece] = true;
        self.got_count += 1;
        if let CopyState::Active { heard_at, .. } = &mut self.state {
            *heard_at = now;
        }
    }

    // Keeps the pieces that came in a row from the start; the others are asked for again.
    fn pause(&mut self, now: Instant) {
        self.pauses = self.pauses.saturating_add(1);
        let pause = PAUSE * (1 << self.pauses.min(5));
        self.state = CopyState::Waiting { until: now + pause };
        let kept = self.got.iter().take_while(|got| **got).count();
        self.got.truncate(kept);
        self.got_count = kept;
        self.bytes.truncate(kept * METADATA_PIECE_LEN);
        if self.is_large() {
            *self = Self { state: self.state, pauses: self.pauses, ..Self::new(now, self.size) };
        }
    }
}

/// Copies that are fetched at once. Most info dictionaries are below 100 KiB.
const COPIES_MAX: usize = 8;
/// Of these, copies of more than [`LARGE_SIZE`]: they hold at most 96 MiB together.
const COPIES_LARGE_MAX: usize = 3;
/// Ten times a common info dictionary of a large torrent.
const LARGE_SIZE: usize = 4 << 20;
/// Pieces asked of one peer at once. Transmission queues 64 and rejects more.
const PIPELINE: usize = 32;
/// A giver that sends nothing for so long is passed over.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A giver keeps its place for so long if others wait for one.
const TURN: Duration = Duration::from_secs(10);
/// Half of the first pause of a giver that was passed over or refused; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 2 * METADATA_PIECE_LEN + 100;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn piece(n: u32) -> Vec<u8> {
        let len = if n == 2 { 100 } else { METADATA_PIECE_LEN };
        vec![u8::try_from(n).unwrap(); len]
    }

    fn answer(fetch: &mut MetadataFetch, conn: u64, n: u32) -> Outcome {
        fetch.on_data(at(0), ConnId(conn), n, SIZE as u64, &piece(n))
    }

    #[test]
    fn whole_copy_is_asked_of_each_peer_and_the_first_completes() {
        let mut fetch = MetadataFetch::new();
        for conn in 0..20 {
            assert!(fetch.add_giver(at(0), ConnId(conn), SIZE as u64));
        }
        let requests = fetch.next_requests(at(0));
        assert_eq!(requests.len(), COPIES_MAX * 3);
        assert!(fetch.next_requests(at(0)).is_empty());
        assert_eq!(answer(&mut fetch, 3, 2), Outcome::Grew);
        assert_eq!(answer(&mut fetch, 3, 0), Outcome::Grew);
        assert_eq!(answer(&mut fetch, 3, 0), Outcome::Ignored);
        assert_eq!(fetch.progress(), (2 * METADATA_PIECE_LEN, SIZE));
        let whole = [piece(0), piece(1), piece(2)].concat();
        assert_eq!(answer(&mut fetch, 3, 1), Outcome::Complete(whole.into()));
        assert_eq!(answer(&mut fetch, 3, 1), Outcome::Ignored);
        assert_eq!(fetch.copies.len(), 19);
    }

    #[test]
    fn senseless_sizes_are_refused_before_anything_is_allocated() {
        let mut fetch = MetadataFetch::new();
        for size in [0, METADATA_SIZE_MAX as u64 + 1, u64::MAX, i64::MAX as u64] {
            assert!(!fetch.add_giver(at(0), ConnId(1), size));
        }
        assert!(fetch.add_giver(at(0), ConnId(1), METADATA_SIZE_MAX as u64));
        assert_eq!(fetch.next_requests(at(0)).len(), PIPELINE);
        assert!(fetch.copies[&ConnId(1)].bytes.capacity() == 0);
    }

    #[test]
    fn contradictions_and_unasked_pieces_are_told_apart() {
        let mut fetch = MetadataFetch::new();
        fetch.add_giver(at(0), ConnId(1), SIZE as u64);
        let unasked = fetch.on_data(at(0), ConnId(1), 0, SIZE as u64, &piece(0));
        assert_eq!(unasked, Outcome::Ignored);
        fetch.next_requests(at(0));
        let far = fetch.on_data(at(0), ConnId(1), 3, SIZE as u64, &piece(0));
        assert_eq!(far, Outcome::Ignored);
        let other = fetch.on_data(at(0), ConnId(1), 0, 1 + SIZE as u64, &piece(0));
        assert_eq!(other, Outcome::Contradiction);
        let short = fetch.on_data(at(0), ConnId(1), 0, SIZE as u64, &piece(2));
        assert_eq!(short, Outcome::Contradiction);
    }

    #[test]
    fn silent_and_refusing_givers_are_passed_over_in_seconds() {
        let mut fetch = MetadataFetch::new();
        for conn in 0..9 {
            fetch.add_giver(at(0), ConnId(conn), SIZE as u64);
        }
        fetch.next_requests(at(0));
        fetch.on_reject(at(1), ConnId(0), 0);
        let asked = fetch.next_requests(at(1));
        assert!(asked.iter().all(|(conn, _)| *conn == ConnId(8)) && asked.len() == 3);
        let asked = fetch.next_requests(at(3));
        assert!(asked.iter().all(|(conn, _)| *conn == ConnId(0)), "its pause is over: {asked:?}");
        assert_eq!(asked.len(), 3);
        fetch.remove(ConnId(0));
        fetch.remove(ConnId(8));
        assert_eq!(fetch.next_requests(at(5)).len(), 7 * 3, "asked again after a pause");
    }

    #[test]
    fn slow_givers_do_not_keep_the_places_of_others() {
        let mut fetch = MetadataFetch::new();
        let size = 100 * METADATA_PIECE_LEN;
        for conn in 0..=COPIES_MAX as u64 {
            fetch.add_giver(at(0), ConnId(conn), size as u64);
        }
        fetch.next_requests(at(0));
        let mut asked = Vec::new();
        for second in 1..=10 {
            for conn in 0..COPIES_MAX as u64 {
                let piece = u32::try_from(second - 1).unwrap();
                fetch.on_data(
                    at(second),
                    ConnId(conn),
                    piece,
                    size as u64,
                    &vec![0; METADATA_PIECE_LEN],
                );
            }
            asked = fetch.next_requests(at(second));
        }
        assert!(asked.iter().any(|(conn, _)| *conn == ConnId(8)));
    }

    #[test]
    fn few_large_copies_grow_at_once() {
        let mut fetch = MetadataFetch::new();
        for conn in 0..20 {
            fetch.add_giver(at(0), ConnId(conn), 5 << 20);
        }
        assert_eq!(fetch.next_requests(at(0)).len(), COPIES_LARGE_MAX * PIPELINE);
        fetch.add_giver(at(0), ConnId(99), 100);
        assert_eq!(fetch.next_requests(at(0)), [(ConnId(99), 0)]);
    }
}
