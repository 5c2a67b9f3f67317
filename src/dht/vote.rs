//! Which address do others see us at (BEP 42)? One vote for each wide network (/16 or /32), so that
//! one operator cannot outvote the rest, and only from answers to queries that we sent.
//!
//! The caller sees to the second half: it passes nothing in that did not match a query.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::Instant;
use crate::base::addr::{Family, PackedAddr, is_private, is_sendable, wide_network};
use crate::base::bounded::push_snugly;

/// Counts votes about our external address.
#[derive(Debug)]
pub struct AddressVote {
    family: Family,
    // One for each network, the longest silent first.
    votes: Vec<Vote>,
    winner: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Vote {
    network: IpAddr,
    seen_at: PackedAddr,
    when: Instant,
}

impl AddressVote {
    /// No votes yet.
    pub fn new(family: Family) -> Self {
        Self { family, votes: Vec::new(), winner: None }
    }

    /// The endpoint that enough networks agreed on, with the port that the last of them named.
    pub fn winner(&self) -> Option<SocketAddr> {
        self.winner
    }

    /// `voter` says that it sees us at `seen_at`. The new address, if this vote changed it.
    pub fn vote(&mut self, now: Instant, voter: IpAddr, seen_at: SocketAddr) -> Option<IpAddr> {
        let usable = Family::of(&seen_at) == self.family
            && is_sendable(&SocketAddr::new(seen_at.ip(), 1))
            && !is_private(seen_at.ip())
            && !is_private(voter);
        if !usable {
            return None;
        }
        self.keep(Vote { network: wide_network(voter), seen_at: seen_at.into(), when: now });
        let current = self.winner.map(|addr| addr.ip());
        if current == Some(seen_at.ip()) {
            self.winner = Some(seen_at);
            return None;
        }
        let count = |ip: IpAddr| {
            let fresh = |vote: &Vote| now.since(vote.when) < VOTE_AGE_MAX;
            self.votes.iter().filter(|v| v.seen_at.ip() == ip && fresh(v)).count()
        };
        let (challenger, holder) = (count(seen_at.ip()), current.map_or(0, count));
        let needed = if current.is_some() { VOTES_TO_CHANGE_MIN } else { VOTES_TO_WIN_MIN };
        // All other opinions together, not only the holder, have to be clearly fewer.
        let others = self.votes.iter().filter(|v| now.since(v.when) < VOTE_AGE_MAX).count();
        let others = (others - challenger).max(holder);
        if challenger < needed || challenger < others * 3 / 2 {
            return None;
        }
        self.winner = Some(seen_at);
        Some(seen_at.ip())
    }

    fn keep(&mut self, vote: Vote) {
        if let Some(at) = self.votes.iter().position(|v| v.network == vote.network) {
            self.votes.remove(at);
        } else if self.votes.len() >= NETWORKS_COUNTED_MAX {
            self.votes.remove(0);
        }
        push_snugly(&mut self.votes, vote);
    }
}

/// Networks that must agree on a first address: three of one operator's choosing are cheap, and
/// a lookup brings a dozen.
pub const VOTES_TO_WIN_MIN: usize = 4;
/// Networks that must agree before a known address is given up, and our id with it.
pub const VOTES_TO_CHANGE_MIN: usize = 8;
/// Networks whose vote is remembered; the longest silent is forgotten first.
const NETWORKS_COUNTED_MAX: usize = 64;
/// A vote counts this long: as long as a table takes to be asked once.
const VOTE_AGE_MAX: Duration = Duration::from_secs(30 * 60);

const _: () = assert!(VOTES_TO_CHANGE_MIN * 5 / 2 < NETWORKS_COUNTED_MAX, "a change can win");

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn four_networks_elect_and_eight_change() {
        let mut vote = AddressVote::new(Family::V4);
        let now = Instant::ZERO;
        for n in 1..4 {
            assert_eq!(vote.vote(now, ip(&format!("{n}.1.1.1")), at("9.9.9.9:1")), None);
        }
        assert_eq!(vote.vote(now, ip("4.1.1.1"), at("9.9.9.9:1")), Some(ip("9.9.9.9")));
        for n in 11..18 {
            assert_eq!(vote.vote(now, ip(&format!("{n}.1.1.1")), at("7.7.7.7:1")), None);
        }
        assert_eq!(vote.vote(now, ip("18.1.1.1"), at("7.7.7.7:1")), Some(ip("7.7.7.7")));
        assert_eq!(vote.winner(), Some(at("7.7.7.7:1")));
    }

    #[test]
    fn thousand_hosts_of_one_network_have_one_vote() {
        let mut vote = AddressVote::new(Family::V4);
        for n in 0..1000 {
            let voter = ip(&format!("5.5.{}.{}", n / 250, n % 250));
            assert_eq!(vote.vote(Instant::ZERO, voter, at("9.9.9.9:1")), None);
        }
        assert_eq!(vote.winner(), None);
    }

    #[test]
    fn liars_need_a_clear_majority() {
        let mut vote = AddressVote::new(Family::V4);
        for n in 101..=110 {
            vote.vote(Instant::ZERO, ip(&format!("{n}.1.1.1")), at("9.9.9.9:1"));
        }
        for n in 111..=124 {
            assert_eq!(vote.vote(Instant::ZERO, ip(&format!("{n}.1.1.1")), at("7.7.7.7:1")), None);
        }
        assert_eq!(vote.winner(), Some(at("9.9.9.9:1")));
    }

    #[test]
    fn private_voters_and_useless_addresses_do_not_count() {
        let mut vote = AddressVote::new(Family::V4);
        for n in 1..=20 {
            vote.vote(Instant::ZERO, ip(&format!("10.{n}.1.1")), at("9.9.9.9:1"));
            for bad in ["10.0.0.1:1", "127.0.0.1:1", "0.0.0.0:1", "224.0.0.1:1", "[2001:db8::1]:1"]
            {
                vote.vote(Instant::ZERO, ip(&format!("{n}.1.1.1")), at(bad));
            }
        }
        assert_eq!(vote.winner(), None);
        assert!(vote.votes.is_empty());
    }

    #[test]
    fn old_votes_fade_and_memory_is_bounded() {
        let mut vote = AddressVote::new(Family::V4);
        for n in 1..=3 {
            vote.vote(Instant::ZERO, ip(&format!("{n}.1.1.1")), at("9.9.9.9:1"));
        }
        let later = Instant::ZERO + VOTE_AGE_MAX;
        assert_eq!(vote.vote(later, ip("4.1.1.1"), at("9.9.9.9:1")), None);
        for n in 0..250 {
            vote.vote(later, ip(&format!("9.{n}.1.1")), at(&format!("8.8.8.{n}:1")));
        }
        assert_eq!(vote.votes.len(), NETWORKS_COUNTED_MAX);
    }
}
