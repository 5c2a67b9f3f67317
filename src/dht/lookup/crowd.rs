//! Nodes nearer to the target than chance brings so many: an attacker has put them there, or somebody
//! invented them. None of them is refused, for the suspicion may be wrong: a lookup that has one asks
//! the nearest as any lookup does, and besides as many beyond them as end any other; an announce goes to
//! both. So whoever is honest among them is found, and whatever they hide.
//!
//! While the lookup runs it judges by the estimate of how many nodes there are, at its end by those around
//! the target alone: then it knows them all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Lookup;
use super::candidates::{Candidate, State};
use crate::base::Distance;
use crate::base::addr::{network, wide_network};
use crate::dht::bucket::K;
use crate::dht::density::{cluster, crowd, share};

impl Lookup {
    /// How many of the closest candidates are suspected.
    pub(super) fn crowd(&self) -> usize {
        let suspects = self.suspects_to.map_or(0, |to| self.count_to(to));
        self.crowd_by_estimate().max(suspects)
    }

    fn crowd_by_estimate(&self) -> usize {
        let shares = self.candidates.iter().map(|c| c.share);
        self.density.named.map_or(0, |nodes| crowd(shares, nodes))
    }

    fn count_to(&self, share: f64) -> usize {
        self.candidates.partition_point(|c| c.share <= share)
    }

    /// As many as end a search have answered: do they stand too close together, beside those that are
    /// known beyond them? Then it does not end here.
    pub(super) fn grows_suspicious(&mut self) -> bool {
        if self.density.named.is_none() {
            return false;
        }
        let crowd = self.crowd();
        let Some(end) = self.answered_beyond(crowd, K) else { return false };
        let shares: Vec<f64> = self.candidates.iter().map(|c| c.share).collect();
        let found = cluster(&shares, end + 1);
        if found > crowd {
            self.suspects_to = shares.get(found - 1).copied();
        }
        found > crowd
    }

    // Where the `count`-th candidate beyond the crowd is that has answered, or the last that has.
    fn answered_beyond(&self, crowd: usize, count: usize) -> Option<usize> {
        let beyond = self.candidates.iter().enumerate().skip(crowd);
        let answered = beyond.filter(|(_, c)| c.state == State::Answered);
        answered.map(|(at, _)| at).take(count).last()
    }

    /// How many of the closest candidates are there against all chance, now that it is over.
    pub(super) fn established_crowd(&self) -> usize {
        match self.answered_beyond(self.crowd(), K) {
            Some(end) => self.cluster_to(end).map_or(0, |to| self.count_to(to)),
            // Nobody else has answered: there is nothing but the estimate to judge by.
            None => self.crowd_by_estimate(),
        }
    }

    // How far those reach that stand too close together, beside the last of the eight beyond them that
    // end the search. Who shares a network with a candidate is none, and is there all the same.
    fn cluster_to(&self, end: usize) -> Option<f64> {
        self.density.named?;
        let horizon = self.candidates[end].distance;
        let shunned = self.shunned.iter().map(|(distance, _)| *distance);
        let known = self.candidates.iter().map(|c| c.distance).chain(shunned);
        let mut known: Vec<Distance> = known.filter(|distance| *distance <= horizon).collect();
        known.sort_unstable();
        let shares: Vec<f64> = known.iter().map(share).collect();
        shares.get(cluster(&shares, shares.len()).checked_sub(1)?).copied()
    }

    /// How many of them answered, and so are no inventions. Of one network one is asked: if it answers,
    /// the others may be taken for real.
    pub(super) fn crowd_answered(&self) -> usize {
        let answered = |candidate: &&Candidate| candidate.state == State::Answered;
        let count = self.candidates.iter().take(self.established_crowd()).filter(answered).count();
        let end = self.answered_beyond(self.crowd(), K).filter(|_| count == 0);
        let to = end.and_then(|end| self.cluster_to(end));
        let is_in = |distance: &Distance| to.is_some_and(|to| share(distance) <= to);
        let shunned = self.shunned.iter().filter(|(distance, _)| is_in(distance));
        let networks: BTreeSet<IpAddr> = shunned.map(|(_, network)| *network).collect();
        let of_these = |c: &&Candidate| networks.contains(&network(c.addr.ip()));
        count + self.candidates.iter().filter(answered).filter(of_these).count()
    }

    /// Somebody in this network was named who shares it with a candidate.
    pub(super) fn note_shunned(&mut self, distance: Distance, network: IpAddr) {
        if let Err(at) = self.shunned.binary_search(&(distance, network)) {
            self.shunned.insert(at, (distance, network));
            self.shunned.truncate(SHUNNED_MAX);
        }
    }

    /// Whom of a crowd to ask next. Some are asked in any case, and more if they answer: whoever is honest
    /// among them knows what we look for, and whoever looks where we announce may know nobody else.
    pub(super) fn next_of_crowd(&self, crowd: usize) -> Option<usize> {
        let crowd = || self.candidates.iter().take(crowd);
        let answered = crowd().filter(|c| c.state == State::Answered).count();
        let asked_max = (CROWD_ASKED_MIN + 2 * answered).min(CROWD_ASKED_MAX);
        if crowd().map(|c| c.tries).sum::<usize>() >= asked_max {
            return None;
        }
        let untried = crowd().position(|c| c.state == State::Untried && !self.is_distrusted(c));
        let again = || crowd().position(|c| c.state == State::Overdue && self.deserves_retry(c));
        untried.or_else(again)
    }

    /// Of a crowd those that are announced to as well: the nearest, those first that are each of another
    /// operator. Those who look for us may hear of nobody else.
    pub(super) fn chosen_of_crowd(&self) -> Vec<usize> {
        let mut networks = BTreeSet::new();
        let crowd = self.candidates.iter().enumerate().take(self.crowd());
        let told = crowd.filter(|(_, c)| c.state == State::Answered && c.token.is_some());
        let (mut chosen, others): (Vec<_>, Vec<_>) =
            told.partition(|(_, c)| networks.insert(wide_network(c.addr.ip())));
        chosen.extend(others);
        chosen.into_iter().map(|(at, _)| at).take(CROWD_ANNOUNCES_MAX).collect()
    }

    /// How far the closest are that answered and have come there by chance, as shares of the key space.
    pub fn spread(&self) -> Vec<f64> {
        let honest = self.candidates.iter().skip(self.established_crowd());
        honest.filter(|c| c.state == State::Answered).map(|c| c.share).take(K).collect()
    }
}

/// Of a crowd that answers, as many as end a search.
pub(super) const CROWD_ANNOUNCES_MAX: usize = K;
/// Those remembered that share a network with a candidate: enough to see that they are many.
const SHUNNED_MAX: usize = 16;
// Of a crowd where nobody answers, and of one where all do.
const CROWD_ASKED_MIN: usize = 4;
const CROWD_ASKED_MAX: usize = 16;
