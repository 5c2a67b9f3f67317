//! Peer exchange (BEP 11): what one peer was told, and how often it may tell us.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::wire::extension::{Pex, PexPeer};

/// Peer exchange with one peer.
#[derive(Debug, Default)]
pub struct PexState {
    told: BTreeSet<SocketAddr>,
    told_at: Option<Instant>,
    /// Messages sent so far.
    sent: usize,
    /// The last messages heard, oldest first.
    heard: VecDeque<Instant>,
}

impl PexState {
    /// The next message to the peer, if it is time and there is news. `peers` are those that we
    /// are connected to now, under the addresses where they can be dialled.
    pub fn next_message(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        peers: &BTreeMap<SocketAddr, u8>,
    ) -> Option<Pex> {
        let early = self.sent.checked_sub(1).and_then(|n| FIRST_PAUSES.get(n));
        let pause = early.filter(|_| self.told.len() < ADDED_MAX).unwrap_or(&EVERY);
        if self.told_at.is_some_and(|at| now.since(at) < *pause) {
            return None;
        }
        let news = peers.iter().filter(|(addr, _)| **addr != peer && !self.told.contains(addr));
        let added: Vec<_> = news
            .take(ADDED_MAX)
            .map(|(addr, flags)| PexPeer { addr: *addr, flags: *flags })
            .collect();
        let gone = self.told.iter().filter(|addr| !peers.contains_key(addr));
        let dropped: Vec<_> = gone.take(ADDED_MAX).copied().collect();
        if added.is_empty() && dropped.is_empty() {
            return None;
        }
        self.told_at = Some(now);
        self.sent += 1;
        self.told.extend(added.iter().map(|p| p.addr));
        for addr in &dropped {
            self.told.remove(addr);
        }
        Some(Pex { added, dropped })
    }

    /// The peer sent a message: may it be listened to?
    pub fn may_hear(&mut self, now: Instant) -> bool {
        self.heard.retain(|at| now.since(*at) < EVERY);
        let is_early = self.heard.back().is_some_and(|at| now.since(*at) < HEAR_EVERY);
        if is_early || self.heard.len() >= HEARD_MAX {
            return false;
        }
        self.heard.push_back(now);
        true
    }
}

/// BEP 11: at most one message a minute.
const EVERY: Duration = Duration::from_secs(60);
/// We depart from it in the first minute of a connection, when a swarm begins and its peers come one
/// after the other: each hears of those that come next within seconds. Not who has heard of enough to
/// begin with. libtorrent closes a connection that brings more than six in a minute.
const FIRST_PAUSES: [Duration; 3] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15)];
/// Messages that come faster are ignored,
const HEAR_EVERY: Duration = Duration::from_secs(1);
/// and those beyond so many in a minute.
const HEARD_MAX: usize = 6;
/// BEP 11: at most 50 in each list.
const ADDED_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(range: std::ops::Range<u16>) -> BTreeMap<SocketAddr, u8> {
        range.map(|n| (SocketAddr::from(([10, 0, 0, 1], n)), 0)).collect()
    }

    #[test]
    fn only_news_are_told_once_a_minute_and_bounded() {
        let mut now = Instant::ZERO;
        let (mut state, me) = (PexState::default(), SocketAddr::from(([10, 0, 0, 1], 1)));
        let first = state.next_message(now, me, &peers(1..100)).unwrap();
        assert_eq!(first.added.len(), ADDED_MAX);
        assert!(first.added.iter().all(|p| p.addr != me));
        let soon = now + FIRST_PAUSES[2];
        assert_eq!(state.next_message(soon, me, &peers(1..100)), None, "it has heard of many");
        now += EVERY;
        assert_eq!(state.next_message(now, me, &peers(1..100)).unwrap().added.len(), 48);
        now += EVERY;
        assert_eq!(state.next_message(now, me, &peers(1..100)), None);
        let last = state.next_message(now, me, &peers(1..99)).unwrap();
        assert_eq!((last.added.len(), last.dropped.len()), (0, 1));
    }

    #[test]
    fn flood_is_heard_once() {
        let mut state = PexState::default();
        let heard = (0..100_000u64).filter(|n| state.may_hear(Instant::from_micros(*n)));
        assert_eq!(heard.count(), 1);
        assert!(state.may_hear(Instant::ZERO + HEAR_EVERY));
        // One that paces itself is heard a few times a minute.
        let seconds = (2..600).map(|n| Instant::ZERO + Duration::from_secs(n));
        assert_eq!(seconds.filter(|now| state.may_hear(*now)).count(), 10 * HEARD_MAX - 2);
    }

    #[test]
    fn young_connection_hears_of_newcomers_soon_and_an_old_one_once_a_minute() {
        let (mut state, me) = (PexState::default(), SocketAddr::from(([10, 0, 0, 1], 1)));
        // Every second somebody comes.
        let told = (1..200u16).filter(|second| {
            let now = Instant::ZERO + Duration::from_secs((*second).into());
            state.next_message(now, me, &peers(1..second + 2)).is_some()
        });
        assert_eq!(told.collect::<Vec<_>>(), [1, 3, 8, 23, 83, 143]);
    }
}
