//! What all torrents may spend together, and whose turn it is when that is not enough for all: each
//! that found nothing left waits behind the others, once.

use std::collections::{BTreeSet, VecDeque};

use crate::base::Instant;
use crate::base::budget::{Budgets, Direction, RateLimits};
use crate::base::time::soonest;
use crate::engine::TorrentId;
use crate::engine::switchboard::Engine;
use crate::swarm::Torrent;

/// The budgets of an engine, and who waits for more of them.
#[derive(Debug)]
pub(super) struct Sharing {
    budgets: Budgets,
    down: Turns,
    up: Turns,
}

#[derive(Debug, Default)]
struct Turns {
    queue: VecDeque<TorrentId>,
    queued: BTreeSet<TorrentId>,
}

impl Turns {
    fn push(&mut self, id: TorrentId) {
        if self.queued.insert(id) {
            self.queue.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<TorrentId> {
        let id = self.queue.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }

    fn remove(&mut self, id: TorrentId) {
        if self.queued.remove(&id) {
            self.queue.retain(|other| *other != id);
        }
    }
}

impl Sharing {
    pub(super) fn new(limits: RateLimits, now: Instant) -> Self {
        let budgets = Budgets::new(limits, now);
        Self { budgets, down: Turns::default(), up: Turns::default() }
    }

    /// What a torrent is lent for one call.
    pub(super) fn budgets(&self) -> Budgets {
        self.budgets
    }

    /// Takes back what a torrent has left, and notes whether it would like more.
    pub(super) fn take_back(&mut self, id: TorrentId, torrent: &Torrent) {
        self.budgets = torrent.lent();
        for direction in BOTH {
            if torrent.waits_for(direction) {
                self.turns(direction).push(id);
            }
        }
    }

    /// A torrent is gone.
    pub(super) fn forget(&mut self, id: TorrentId) {
        BOTH.into_iter().for_each(|direction| self.turns(direction).remove(id));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let down = (!self.down.queue.is_empty()).then(|| self.budgets.down.ready_at());
        let up = (!self.up.queue.is_empty()).then(|| self.budgets.up.ready_at());
        soonest(down, up)
    }

    // Whose turn it is, if there is something to take.
    fn next(&mut self, now: Instant, direction: Direction) -> Option<TorrentId> {
        let has_some = self.budgets.of(direction).left(now) > 0;
        if has_some { self.turns(direction).pop() } else { None }
    }

    fn turns(&mut self, direction: Direction) -> &mut Turns {
        match direction {
            Direction::Down => &mut self.down,
            Direction::Up => &mut self.up,
        }
    }
}

impl Engine {
    /// Other limits for all torrents together from now on.
    pub fn set_limits(&mut self, now: Instant, limits: RateLimits) {
        self.sharing.budgets.set(now, limits);
        self.config.limits = limits;
        self.hand_out(now);
    }

    /// The limits of all torrents together.
    pub fn limits(&self) -> RateLimits {
        self.config.limits
    }

    /// Other limits for one torrent from now on.
    pub fn set_torrent_limits(&mut self, now: Instant, id: TorrentId, limits: RateLimits) {
        self.with_torrent(now, id, |t| t.set_limits(now, limits));
    }

    // Those who waited longest take first.
    pub(super) fn hand_out(&mut self, now: Instant) {
        if self.sharing.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        for direction in BOTH {
            while let Some(id) = self.sharing.next(now, direction) {
                self.with_torrent(now, id, |t| t.handle_turn(now, direction));
            }
        }
    }
}

const BOTH: [Direction; 2] = [Direction::Down, Direction::Up];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_torrent_waits_once_and_leaves_no_trace() {
        let mut turns = Turns::default();
        [1, 2, 1, 3, 2].into_iter().for_each(|id| turns.push(TorrentId(id)));
        turns.remove(TorrentId(2));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [TorrentId(1), TorrentId(3)]);
        assert!(turns.queued.is_empty());
    }
}
