//! What we asked of one peer: the pipeline of outstanding requests and its size.
//!
//! The pipeline starts at [`WINDOW_START`] blocks, grows by one with every block that arrives
//! while it is full (it doubles in a round trip, as TCP does), and is cut once a tick to what the
//! peer delivers in [`DRAIN_TARGET`]: a slow peer never holds blocks that others could bring soon.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::Instant;
use crate::base::limits::BLOCK_LEN;
use crate::wire::peer::BlockRef;

/// Outstanding requests to one peer.
#[derive(Debug)]
pub struct Requests {
    outstanding: VecDeque<Request>,
    // Asked once, then given up: such a block may still come, and is no fault of the peer's.
    given_up: VecDeque<BlockRef>,
    window: usize,
    window_max: usize,
    // When the peer last gave us something to go by: a block, or our asking an idle one.
    heard_at: Instant,
    snubs: u32,
    probe_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    block: BlockRef,
    at: Instant,
}

/// How a block that arrived relates to what we asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was awaited.
    Awaited,
    /// It had been given up.
    GivenUp,
    /// It was awaited, but with another length.
    WrongLength,
    /// It was never asked for, or came before.
    Never,
}

impl Requests {
    /// Nothing asked yet.
    pub fn new(now: Instant) -> Self {
        Self {
            outstanding: VecDeque::new(),
            given_up: VecDeque::new(),
            window: WINDOW_START,
            window_max: WINDOW_DEFAULT_MAX,
            heard_at: now,
            snubs: 0,
            probe_at: None,
        }
    }

    /// The peer says how many requests it queues (BEP 10, `reqq`).
    pub fn set_peer_queue(&mut self, requests: u32) {
        let requests = usize::try_from(requests).unwrap_or(usize::MAX);
        self.window_max = requests.clamp(1, WINDOW_MAX);
        self.window = self.window.min(self.window_max);
    }

    /// How many more may be asked now. Zero until an eighth of the pipeline is free: requests
    /// then go out many to a packet.
    pub fn room(&self, now: Instant) -> usize {
        if self.is_snubbed() {
            let may_probe =
                self.outstanding.is_empty() && self.probe_at.is_some_and(|at| at <= now);
            return usize::from(may_probe);
        }
        let room = self.window.saturating_sub(self.outstanding.len());
        if room * 8 >= self.window { room } else { 0 }
    }

    /// `block` was asked for.
    pub fn add(&mut self, now: Instant, block: BlockRef) {
        if self.outstanding.is_empty() {
            self.heard_at = now;
        }
        self.outstanding.push_back(Request { block, at: now });
    }

    /// A block came.
    pub fn on_block(&mut self, now: Instant, block: &BlockRef) -> Asked {
        let same_place = |b: &BlockRef| b.piece == block.piece && b.begin == block.begin;
        // Peers answer in order: the first comparison nearly always hits.
        if let Some(at) = self.outstanding.iter().position(|r| same_place(&r.block)) {
            if self.outstanding[at].block.len != block.len {
                return Asked::WrongLength;
            }
            let was_full = self.outstanding.len() + self.window / 4 >= self.window;
            self.outstanding.remove(at);
            self.on_delivery(now, was_full);
            return Asked::Awaited;
        }
        let Some(at) = self.given_up.iter().position(|b| b == block) else { return Asked::Never };
        self.given_up.remove(at);
        self.on_delivery(now, false);
        Asked::GivenUp
    }

    fn on_delivery(&mut self, now: Instant, was_full: bool) {
        self.heard_at = now;
        if self.is_snubbed() {
            self.snubs = 0;
            self.probe_at = None;
            self.window = WINDOW_MIN.min(self.window_max);
        } else if was_full {
            self.window = (self.window + 1).min(self.window_max);
        }
    }

    /// The peer rejected a request: true if it was outstanding.
    pub fn on_reject(&mut self, block: &BlockRef) -> bool {
        if let Some(at) = self.outstanding.iter().position(|r| r.block == *block) {
            self.outstanding.remove(at);
            return true;
        }
        if let Some(at) = self.given_up.iter().position(|b| b == block) {
            self.given_up.remove(at);
        }
        false
    }

    /// Gives one request up: true if it was outstanding. The block may still come.
    pub fn give_up(&mut self, block: &BlockRef) -> bool {
        let Some(at) = self.outstanding.iter().position(|r| r.block == *block) else {
            return false;
        };
        self.outstanding.remove(at);
        self.remember_given_up(*block);
        true
    }

    /// Gives all requests up and returns them.
    pub fn give_up_all(&mut self) -> Vec<BlockRef> {
        let blocks: Vec<_> = self.outstanding.drain(..).map(|r| r.block).collect();
        blocks.iter().for_each(|b| self.remember_given_up(*b));
        blocks
    }

    /// Forgets all requests without expecting any of them: the peer choked us and does not speak
    /// the fast extension.
    pub fn on_choke(&mut self) -> Vec<BlockRef> {
        // A block that was in flight when the choke was sent may still come.
        self.give_up_all()
    }

    /// The peer lost a piece: what was asked of it will not come, unless it is on its way.
    pub fn on_lost(&mut self, piece: u32) -> Vec<BlockRef> {
        let asked = self.outstanding.iter().map(|r| r.block).filter(|b| b.piece == piece);
        let asked: Vec<_> = asked.collect();
        self.outstanding.retain(|r| r.block.piece != piece);
        asked.iter().for_each(|block| self.remember_given_up(*block));
        asked
    }

    fn remember_given_up(&mut self, block: BlockRef) {
        if self.given_up.len() >= GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back(block);
    }

    /// The peer has not delivered for too long: it gets one request at a time from now on, with
    /// growing pauses, until it delivers again. Returns what it held.
    pub fn snub(&mut self, now: Instant) -> Vec<BlockRef> {
        self.snubs = self.snubs.saturating_add(1);
        let pause = PROBE_PAUSE * (1 << self.snubs.min(4));
        self.probe_at = Some(now + pause);
        self.give_up_all()
    }

    /// Has the peer stopped delivering?
    pub fn is_snubbed(&self) -> bool {
        self.snubs > 0
    }

    /// How long the peer has let us wait: zero if nothing is outstanding.
    pub fn silence(&self, now: Instant) -> Duration {
        match self.outstanding.front() {
            Some(oldest) => now.since(self.heard_at.max(oldest.at)),
            None => Duration::ZERO,
        }
    }

    /// How long the oldest request has been waiting.
    pub fn oldest(&self, now: Instant) -> Duration {
        self.outstanding.front().map_or(Duration::ZERO, |r| now.since(r.at))
    }

    /// Sizes the pipeline by the rate, in bytes a second. Called once a tick.
    pub fn adapt(&mut self, now: Instant, rate: u64) {
        // The first blocks have to arrive before a rate means anything.
        if self.is_snubbed() || rate == 0 || self.oldest(now) < ADAPT_AGE_MIN {
            return;
        }
        let drained = rate as f64 * DRAIN_TARGET.as_secs_f64() / f64::from(BLOCK_LEN);
        let target = (drained as usize).clamp(WINDOW_MIN, WINDOW_MAX);
        self.window = self.window.min(target.min(self.window_max));
    }

    /// Requests beyond the pipeline's size, newest first: a slow peer was asked for them before it
    /// was known to be slow. They are given up.
    pub fn trim(&mut self) -> Vec<BlockRef> {
        let keep = 2 * self.window;
        let mut blocks = Vec::new();
        while self.outstanding.len() > keep {
            let Some(request) = self.outstanding.pop_back() else { break };
            blocks.push(request.block);
            self.remember_given_up(request.block);
        }
        blocks
    }

    /// How many requests are outstanding.
    pub fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// Is nothing outstanding?
    pub fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Is this request outstanding?
    pub fn has(&self, block: &BlockRef) -> bool {
        self.outstanding.iter().any(|r| r.block == *block)
    }
}

/// Outstanding requests at the start: 512 KiB fill 40 Mbit/s at 100 ms, and twice that in the next
/// round trip. More would hand a small torrent to the first peers, fast or slow.
const WINDOW_START: usize = 32;
/// Outstanding requests to the slowest peer: one on its way, some behind it.
const WINDOW_MIN: usize = 4;
/// Outstanding requests to the fastest peer: 32 MiB is 300 MB/s at 100 ms.
pub const WINDOW_MAX: usize = 2000;
/// Outstanding requests to a peer that does not say what it queues; most take 250.
const WINDOW_DEFAULT_MAX: usize = 250;
/// Requests given up of which the block is still recognised.
const GIVEN_UP_MAX: usize = 2 * WINDOW_MAX;
/// What a peer holds should arrive within this time.
const DRAIN_TARGET: Duration = Duration::from_secs(2);
/// A rate says something once the oldest request has waited this long, or longer.
const ADAPT_AGE_MIN: Duration = Duration::from_millis(300);
/// A peer that stopped delivering is asked again after this time, doubled each time.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u32) -> BlockRef {
        BlockRef { piece: n / 16, begin: n % 16 * BLOCK_LEN, len: BLOCK_LEN }
    }

    fn fill(requests: &mut Requests, now: Instant, next: &mut u32) {
        for _ in 0..requests.room(now) {
            requests.add(now, block(*next));
            *next += 1;
        }
    }

    #[test]
    fn pipeline_doubles_in_a_round_trip_up_to_what_the_peer_queues() {
        let (mut requests, now, mut next) = (Requests::new(Instant::ZERO), Instant::ZERO, 0);
        requests.set_peer_queue(200);
        let mut answered = 0;
        fill(&mut requests, now, &mut next);
        assert_eq!(requests.len(), WINDOW_START);
        for _ in 0..4 {
            for _ in 0..requests.len() {
                assert_eq!(requests.on_block(now, &block(answered)), Asked::Awaited);
                answered += 1;
                fill(&mut requests, now, &mut next);
            }
        }
        assert_eq!(requests.window, 200);
        assert!(requests.len() > 150);
    }

    #[test]
    fn slow_peer_gives_back_what_it_cannot_bring_soon() {
        let (mut requests, mut now, mut next) = (Requests::new(Instant::ZERO), Instant::ZERO, 0);
        fill(&mut requests, now, &mut next);
        now += Duration::from_secs(1);
        requests.on_block(now, &block(0));
        requests.adapt(now, u64::from(BLOCK_LEN));
        assert_eq!(requests.window, WINDOW_MIN);
        let given_up = requests.trim();
        assert_eq!(given_up.len(), WINDOW_START - 1 - 2 * WINDOW_MIN);
        assert_eq!(given_up[0], block(31));
        assert_eq!(requests.on_block(now, &block(31)), Asked::GivenUp);
        assert_eq!(requests.on_block(now, &block(31)), Asked::Never);
    }

    #[test]
    fn silent_peer_is_probed_with_growing_pauses_until_it_delivers() {
        let (mut requests, mut now, mut next) = (Requests::new(Instant::ZERO), Instant::ZERO, 0);
        fill(&mut requests, now, &mut next);
        now += Duration::from_secs(5);
        assert_eq!(requests.silence(now), Duration::from_secs(5));
        assert_eq!(requests.snub(now).len(), WINDOW_START);
        assert_eq!((requests.room(now), requests.silence(now)), (0, Duration::ZERO));
        now += 2 * PROBE_PAUSE;
        assert_eq!(requests.room(now), 1);
        requests.add(now, block(1000));
        assert_eq!(requests.room(now), 0);
        assert_eq!(requests.on_block(now, &block(3)), Asked::GivenUp);
        assert!(!requests.is_snubbed());
    }

    #[test]
    fn wrong_length_and_unasked_blocks_are_told_apart() {
        let (mut requests, now) = (Requests::new(Instant::ZERO), Instant::ZERO);
        requests.add(now, block(0));
        let short = BlockRef { len: 5, ..block(0) };
        assert_eq!(requests.on_block(now, &short), Asked::WrongLength);
        assert_eq!(requests.on_block(now, &block(1)), Asked::Never);
        assert!(requests.on_reject(&block(0)) && !requests.on_reject(&block(0)));
        assert!(requests.is_empty());
    }
}
