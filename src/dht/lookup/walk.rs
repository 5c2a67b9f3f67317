//! Whom a lookup asks next, and when it has asked enough: a walk over its candidates from the closest
//! outwards.

use super::Lookup;
use super::candidates::{Candidate, State};
use crate::base::addr::is_private;
use crate::dht::bucket::K;
use crate::dht::flows::Priority;

/// What a walk over the candidates found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Whom to ask next.
    pub(super) ask: Option<usize>,
    /// Somebody is waited for who could be among the closest.
    pub(super) blocked: bool,
    /// As many as are wanted have answered, and nobody closer is waited for.
    pub(super) enough: bool,
}

impl Lookup {
    /// While somebody waits and nobody has answered: those of whom the nearest news is to be expected
    /// soonest, that is quick ones among near ones. `None` if that is over.
    pub(super) fn opening(&self) -> Option<Walk> {
        if self.answered > 0 || self.has_failed() || !self.is_urgent() {
            return None;
        }
        let open = || self.candidates.iter().enumerate().skip(self.crowd());
        let waiting = open().filter(|(_, c)| c.state == State::Asked).count();
        let untried = open().filter(|(_, c)| c.state == State::Untried && waiting < OPENING);
        let best = untried.min_by(|(_, a), (_, b)| self.detour(a).total_cmp(&self.detour(b)));
        let (ask, blocked) = (best.map(|(at, _)| at), waiting > 0);
        (ask.is_some() || blocked).then_some(Walk { ask, blocked, enough: false })
    }

    // How long it takes by way of this one, in usual round trips; only differences mean anything. Of
    // eight that a node names the nearest is some four bits nearer than itself, until it is among the
    // nearest there are.
    fn detour(&self, candidate: &Candidate) -> f64 {
        let usual = self.usual_rtt.as_secs_f64().max(0.001);
        let rtt = candidate.rtt.map_or(STRANGER, |rtt| rtt.as_secs_f64() / usual);
        let nearest = self.density.named.map_or(f64::MIN_POSITIVE, |nodes| NEAR / nodes);
        rtt + candidate.share.max(nearest).log2() / BITS_A_STEP
    }

    // Does somebody wait for what it finds?
    fn is_urgent(&self) -> bool {
        self.priority == Priority::Interactive
    }

    // So many queries are waited for at once.
    fn width(&self) -> usize {
        match (self.is_urgent(), self.density.alive()) {
            (false, _) => ALPHA,
            (true, Some(alive)) => urgent_width(alive),
            (true, None) if self.answered < COLD_START => ALPHA_COLD_START,
            (true, None) => ALPHA_COLD,
        }
    }

    /// From the closest outwards, until eight (or as many as are wanted) are alive or enough are being
    /// waited for. If not `trusting`, those are left aside of whom it may be doubted that they are there
    /// or have come there by chance.
    pub(super) fn walk(&self, trusting: bool) -> Walk {
        let crowd = if trusting { 0 } else { self.crowd() };
        let mut walk = self.walk_from(crowd, trusting);
        if crowd == 0 {
            return walk;
        }
        walk.blocked |= self.candidates.iter().take(crowd).any(|c| c.state == State::Asked);
        if walk.ask.is_none() {
            walk.ask = self.next_of_crowd(crowd);
        }
        walk
    }

    fn walk_from(&self, start: usize, trusting: bool) -> Walk {
        let demand_valid = self.demands_valid_ids();
        let wanted = self.answers_wanted();
        let (mut alive, mut waiting) = (0, 0);
        let alpha = self.width();
        let mut walk = Walk::default();
        for (at, candidate) in self.candidates.iter().enumerate().skip(start) {
            match candidate.state {
                State::Answered => {
                    alive += usize::from(self.counts(candidate, demand_valid));
                    if alive == wanted {
                        walk.enough = true;
                        return walk;
                    }
                }
                State::Untried => {
                    if trusting || !self.is_distrusted(candidate) {
                        walk.ask = Some(at);
                        return walk;
                    }
                }
                State::Asked => {
                    walk.blocked = true;
                    waiting += usize::from(!self.is_near(candidate));
                    if waiting == alpha {
                        return walk;
                    }
                }
                State::Stalled => walk.blocked = true,
                State::Overdue => {
                    if self.deserves_retry(candidate) {
                        walk.ask = Some(at);
                        return walk;
                    }
                }
                State::Dead => {}
            }
        }
        walk
    }

    // Will it be asked in any case, and does somebody wait for it? As near as that only those eight are
    // that end the search.
    fn is_near(&self, candidate: &Candidate) -> bool {
        let near = |nodes: f64| nodes * candidate.share <= NEAR;
        !self.own_account && self.density.answering.is_some_and(near)
    }

    /// BEP 42: nodes whose id does not follow from their address do not count towards the end, where
    /// most nodes' ids do. In a network that does not know the rule nobody would count.
    pub(super) fn demands_valid_ids(&self) -> bool {
        if self.ids_follow {
            return true;
        }
        let answered = || self.candidates.iter().filter(|c| c.state == State::Answered);
        let valid = answered().filter(|c| c.valid_id && !is_private(c.addr.ip())).count();
        valid >= K / 2 && valid * 4 >= answered().count()
    }

    /// Is it one of the eight that end the search?
    pub(super) fn counts(&self, candidate: &Candidate, demand_valid: bool) -> bool {
        (candidate.valid_id || !demand_valid)
            && (candidate.token.is_some() || !self.demands_tokens())
    }

    // Where others answer, silence may be one lost datagram. Not so the nodes of who names dead ones,
    // and while nobody answers, it is better to ask others than the same again.
    pub(super) fn deserves_retry(&self, candidate: &Candidate) -> bool {
        candidate.tries < TRIES_MAX && self.answered > 0 && !self.is_distrusted(candidate)
    }
}

// Where that share of those asked answers: as many as let the usual number of answers come.
fn urgent_width(alive: f64) -> usize {
    let suffices = |asked: &usize| *asked as f64 * alive >= ANSWERS_URGENT;
    (ALPHA_URGENT..ALPHA_URGENT_MAX).find(suffices).unwrap_or(ALPHA_URGENT_MAX)
}

/// Queries waited for at once, counted from the closest outwards; those that are very close not counted.
pub(super) const ALPHA: usize = 5;
// The same while a person waits: a tenth more queries for a twelfth less time.
const ALPHA_URGENT: usize = 6;
// Of them so many answer where three in ten are gone. Where every other one is, to go on with six is a
// tenth slower, and eight are four queries more.
const ANSWERS_URGENT: f64 = 3.8;
const ALPHA_URGENT_MAX: usize = 12;
// And by a node that has just started, of whose contacts none is near: each of many steps is as long as
// the quickest of those asked takes.
const ALPHA_COLD: usize = 8;
// Until so many have answered it asks more widely, for all that follows begins with the quickest of
// them: a sixteenth less time for fourteen queries more.
pub(super) const COLD_START: usize = 12;
const ALPHA_COLD_START: usize = 12;
// Queries before the first answer. Some of those asked are slow or gone, and the first few that answer
// name different nodes. In a network of 100,000, eight are 10 ms slower.
const OPENING: usize = 12;
// In usual round trips: half of all strangers answer sooner, and some never.
const STRANGER: f64 = 1.2;
const BITS_A_STEP: f64 = 4.0;
/// So many nodes that answer should be as near as those that are asked without counting.
const NEAR: f64 = 8.0;
// Queries to one node. If a tenth of all datagrams is lost, one round trip in five fails, and one time
// in 25 the next one as well.
const TRIES_MAX: usize = 2;
