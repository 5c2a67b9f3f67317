//! What the rate limits let a torrent do in one direction: its own limit, and the one that it shares
//! with all torrents, which its host lends it for the time of each call.
//!
//! Whoever finds nothing left is held until there is something worth waking for. Until then nothing
//! is given to whoever happens to ask next; then connections are served in turn.

use std::num::NonZeroU64;

use crate::base::Instant;
use crate::base::budget::Budget;
use crate::base::limits::BLOCK_LEN;
use crate::peer::ConnId;

/// The limits of one direction.
#[derive(Debug)]
pub(super) struct Throttle {
    own: Budget,
    shared: Budget,
    held: Held,
    /// The connection that was given something last.
    last: Option<ConnId>,
    /// Blocks asked for and paid, and not come.
    paid: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    /// By its own limit.
    Until(Instant),
    /// By the shared one: the host says when it goes on.
    Shared,
}

impl Throttle {
    /// A throttle with this limit of its own.
    pub(super) fn new(own: Option<NonZeroU64>, now: Instant) -> Self {
        let (own, shared) = (Budget::new(own, now), Budget::new(None, now));
        Self { own, shared, held: Held::No, last: None, paid: 0 }
    }

    /// Another limit of its own from now on.
    pub(super) fn set_own(&mut self, now: Instant, rate: Option<NonZeroU64>) {
        self.own.set_rate(now, rate);
        if let Held::Until(_) = self.held {
            self.held = Held::No;
        }
    }

    /// The host lends the shared budget.
    pub(super) fn lend(&mut self, shared: Budget) {
        self.shared = shared;
    }

    /// The shared budget, less what was spent of it.
    pub(super) fn shared(&self) -> Budget {
        self.shared
    }

    /// Bytes that may flow now. Ask only if something would: who is told of nothing is held.
    pub(super) fn left(&mut self, now: Instant) -> usize {
        if !self.is_limited() {
            self.held = Held::No;
            return usize::MAX;
        }
        if self.held != Held::No {
            return 0;
        }
        let own = self.own.left(now);
        if own == 0 {
            self.held = Held::Until(self.own.ready_at());
            return 0;
        }
        let shared = self.shared.left(now);
        if shared == 0 {
            self.held = Held::Shared;
        }
        own.min(shared)
    }

    /// Blocks that may be asked for while `in_flight` are. What was given up since is paid back.
    pub(super) fn blocks_left(&mut self, now: Instant, in_flight: usize) -> usize {
        self.refund(self.paid.saturating_sub(in_flight) * BLOCK);
        self.paid = self.paid.min(in_flight);
        self.left(now).div_ceil(BLOCK)
    }

    /// So many blocks are asked of a connection.
    pub(super) fn on_asked(&mut self, conn: ConnId, blocks: usize) {
        self.paid += blocks;
        self.spend(conn, blocks * BLOCK);
    }

    /// A block came that was asked for and paid.
    pub(super) fn on_awaited(&mut self, len: usize) {
        self.paid = self.paid.saturating_sub(1);
        self.refund(BLOCK.saturating_sub(len));
    }

    /// Bytes came that nobody had paid for.
    pub(super) fn on_unpaid(&mut self, len: usize) {
        self.own.spend(len);
        self.shared.spend(len);
    }

    /// So much flows on a connection.
    pub(super) fn spend(&mut self, conn: ConnId, bytes: usize) {
        if bytes > 0 {
            self.last = Some(conn);
            self.on_unpaid(bytes);
        }
    }

    /// So much did not flow after all.
    pub(super) fn refund(&mut self, bytes: usize) {
        self.own.refund(bytes);
        self.shared.refund(bytes);
    }

    /// Puts connections in the order of their turns.
    pub(super) fn in_turn(&self, conns: &mut [ConnId]) {
        if let Some(last) = self.last.filter(|_| self.is_limited()) {
            let next = conns.iter().position(|conn| *conn > last);
            conns.rotate_left(next.unwrap_or(0));
        }
    }

    /// Is it held by the shared limit?
    pub(super) fn waits_for_shared(&self) -> bool {
        self.held == Held::Shared
    }

    /// The shared budget has something for this torrent.
    pub(super) fn on_shared(&mut self) {
        if self.held == Held::Shared {
            self.held = Held::No;
        }
    }

    /// When its own budget has something again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.held {
            Held::Until(at) => Some(at),
            Held::No | Held::Shared => None,
        }
    }

    /// Was it held until now?
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.held = Held::No;
        }
        is_due
    }

    fn is_limited(&self) -> bool {
        self.own.is_limited() || self.shared.is_limited()
    }
}

const BLOCK: usize = BLOCK_LEN as usize;
