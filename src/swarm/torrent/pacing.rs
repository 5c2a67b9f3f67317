//! How fast, and whether at all: rate limits, pausing and resuming.

use super::Torrent;
use crate::base::Instant;
use crate::base::budget::{Budgets, Direction, RateLimits};
use crate::swarm::{Phase, StopCause};

impl Torrent {
    /// Other limits of its own from now on.
    pub fn set_limits(&mut self, now: Instant, limits: RateLimits) {
        self.now = now;
        self.config.limits = limits;
        self.down.set_own(now, limits.down);
        self.up.set_own(now, limits.up);
        self.refill_all(now);
        self.serve_all();
    }

    /// Its own limits.
    pub fn limits(&self) -> RateLimits {
        self.config.limits
    }

    /// Lends it what all torrents may spend together; it is taken back after each call.
    pub fn lend(&mut self, shared: Budgets) {
        self.down.lend(shared.down);
        self.up.lend(shared.up);
    }

    /// What is left of what was lent.
    pub fn lent(&self) -> Budgets {
        Budgets { down: self.down.shared(), up: self.up.shared() }
    }

    /// Does it wait for more of what all torrents share?
    pub fn waits_for(&self, direction: Direction) -> bool {
        match direction {
            Direction::Down => self.down.waits_for_shared(),
            Direction::Up => self.up.waits_for_shared(),
        }
    }

    /// What all share has something again, and it is this torrent's turn.
    pub fn handle_turn(&mut self, now: Instant, direction: Direction) {
        self.now = now;
        match direction {
            Direction::Down => {
                self.down.on_shared();
                self.refill_all(now);
            }
            Direction::Up => {
                self.up.on_shared();
                self.serve_all();
            }
        }
    }

    /// Lets go of all connections until [`Torrent::resume`]. What is under way to the disk goes on. False
    /// if there was nothing to pause.
    pub fn pause(&mut self, now: Instant) -> bool {
        self.now = now;
        if self.phase == Phase::Stopped || std::mem::replace(&mut self.paused, true) {
            return false;
        }
        self.close_all(now);
        true
    }

    /// Goes on where [`Torrent::pause`] or a failing storage stopped it: whom we parted from is called
    /// back. False if it is not at rest, or cannot go on.
    pub fn resume(&mut self, now: Instant) -> bool {
        self.now = now;
        if !self.can_resume() {
            return false;
        }
        self.paused = false;
        if self.stopped_by.take().is_some() {
            self.start_over(false);
        }
        self.candidates.call_back();
        self.dial(now);
        true
    }

    /// Is it at rest, and could go on?
    pub fn can_resume(&self) -> bool {
        match (self.phase, &self.stopped_by) {
            (Phase::Stopped, Some(StopCause::Storage(_))) => true,
            (Phase::Stopped, _) => false,
            _ => self.paused,
        }
    }

    /// May it have connections?
    pub(super) fn is_active(&self) -> bool {
        self.phase != Phase::Stopped && !self.paused
    }

    /// A limit of its own may have held it until now.
    pub(super) fn go_on_if_due(&mut self, now: Instant) {
        if self.down.is_due(now) {
            self.refill_all(now);
        }
        if self.up.is_due(now) {
            self.serve_all();
        }
    }

    // Goes on sending to everybody who waits, in turn.
    fn serve_all(&mut self) {
        let mut conns = self.conns();
        self.up.in_turn(&mut conns);
        conns.into_iter().for_each(|conn| self.read_ahead(conn));
    }
}
