//! Whom a lookup asks next, and when it has asked enough: a walk over its candidates from the closest
//! outwards.

use super::Lookup;
use super::candidates::{Candidate, State};
use crate::base::addr::is_private;
use crate::dht::bucket::K;

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
    /// From the closest outwards, until eight (or as many as are wanted) are alive or five are being
    /// waited for.
    pub(super) fn walk(&self, trusting: bool) -> Walk {
        let demand_valid = self.demands_valid_ids();
        let wanted = self.answers_wanted();
        let (mut alive, mut waiting) = (0, 0);
        let mut walk = Walk::default();
        for (at, candidate) in self.candidates.iter().enumerate() {
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
                    waiting += 1;
                    if waiting == ALPHA {
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
    fn deserves_retry(&self, candidate: &Candidate) -> bool {
        candidate.tries < TRIES_MAX && self.answered > 0 && !self.is_distrusted(candidate)
    }
}

/// Queries waited for at once, counted from the closest outwards.
pub(super) const ALPHA: usize = 5;
// Queries to one node. If a tenth of all datagrams is lost, one round trip in five fails, and one time
// in 25 the next one as well.
const TRIES_MAX: usize = 2;
