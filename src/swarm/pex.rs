//! Peer exchange (BEP 11): what one peer was told, and how often it may tell us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::wire::extension::{Pex, PexPeer};

/// Peer exchange with one peer.
#[derive(Debug, Default)]
pub struct PexState {
    told: BTreeSet<SocketAddr>,
    told_at: Option<Instant>,
    heard_at: Option<Instant>,
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
        if self.told_at.is_some_and(|at| now.since(at) < EVERY) {
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
        self.told.extend(added.iter().map(|p| p.addr));
        for addr in &dropped {
            self.told.remove(addr);
        }
        Some(Pex { added, dropped })
    }

    /// The peer sent a message: may it be listened to?
    pub fn may_hear(&mut self, now: Instant) -> bool {
        let early = self.heard_at.is_some_and(|at| now.since(at) < HEAR_EVERY);
        if !early {
            self.heard_at = Some(now);
        }
        !early
    }
}

/// BEP 11: at most one message a minute.
const EVERY: Duration = Duration::from_secs(60);
/// Messages that come faster are ignored. Some clients are a little early.
const HEAR_EVERY: Duration = Duration::from_secs(30);
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
        assert_eq!(state.next_message(now, me, &peers(1..100)), None);
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
    }
}
