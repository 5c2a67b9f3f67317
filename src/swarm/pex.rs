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
    /// The last of [`Parted`] that it may have been told of.
    parted_until: u64,
    /// The last messages heard, oldest first.
    heard: VecDeque<Instant>,
}

impl PexState {
    /// The next message to the peer, if it is time and there is news. `peers` are those that we
    /// are connected to now, under the addresses where they can be dialled. Where they are few, those
    /// whom we have parted from are told once, and taken back with the message after.
    pub fn next_message(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        peers: &BTreeMap<SocketAddr, u8>,
        parted: &Parted,
    ) -> Option<Pex> {
        let early = self.sent.checked_sub(1).and_then(|n| FIRST_PAUSES.get(n));
        let pause = early.filter(|_| self.told.len() < ADDED_MAX).unwrap_or(&EVERY);
        if self.told_at.is_some_and(|at| now.since(at) < *pause) {
            return None;
        }
        let news = peers.iter().filter(|(addr, _)| **addr != peer && !self.told.contains(addr));
        let mut added: Vec<_> = news
            .take(ADDED_MAX)
            .map(|(addr, flags)| PexPeer { addr: *addr, flags: *flags })
            .collect();
        let v4 = peers.keys().filter(|addr| addr.is_ipv4()).count();
        let is_sparse = |ip_v4: bool| if ip_v4 { v4 < SPARSE } else { peers.len() - v4 < SPARSE };
        let told_until = self.parted_until;
        for (serial, old) in parted.peers.iter().filter(|(serial, _)| *serial > told_until) {
            if added.len() >= ADDED_MAX {
                break;
            }
            self.parted_until = *serial;
            let is_known = peers.contains_key(&old.addr) || self.told.contains(&old.addr);
            if old.addr != peer && !is_known && is_sparse(old.addr.is_ipv4()) {
                added.push(*old);
            }
        }
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

/// Those whom we parted from for no fault of theirs, the last of them (BEP 11, "Filling underpopulated
/// lists"). A seed among seeds is connected to nobody: whoever comes would hear of nobody.
#[derive(Debug, Default)]
pub struct Parted {
    /// By the number of the parting.
    peers: VecDeque<(u64, PexPeer)>,
    count: u64,
}

impl Parted {
    /// We hung up on this peer.
    pub fn add(&mut self, peer: PexPeer) {
        self.peers.retain(|(_, old)| old.addr != peer.addr);
        let is_alike = |(_, old): &(u64, PexPeer)| old.addr.is_ipv4() == peer.addr.is_ipv4();
        if self.peers.iter().filter(|old| is_alike(old)).count() >= PARTED_MAX
            && let Some(oldest) = self.peers.iter().position(is_alike)
        {
            self.peers.remove(oldest);
        }
        self.count += 1;
        self.peers.push_back((self.count, peer));
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
/// BEP 11: who is connected to fewer than this may name others, for each of IPv4 and IPv6,
const SPARSE: usize = 25;
/// so many of them.
const PARTED_MAX: usize = 25;

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
        let first = state.next_message(now, me, &peers(1..100), &Parted::default()).unwrap();
        assert_eq!(first.added.len(), ADDED_MAX);
        assert!(first.added.iter().all(|p| p.addr != me));
        let soon = now + FIRST_PAUSES[2];
        assert_eq!(
            state.next_message(soon, me, &peers(1..100), &Parted::default()),
            None,
            "it has heard of many"
        );
        now += EVERY;
        assert_eq!(
            state.next_message(now, me, &peers(1..100), &Parted::default()).unwrap().added.len(),
            48
        );
        now += EVERY;
        assert_eq!(state.next_message(now, me, &peers(1..100), &Parted::default()), None);
        let last = state.next_message(now, me, &peers(1..99), &Parted::default()).unwrap();
        assert_eq!((last.added.len(), last.dropped.len()), (0, 1));
    }

    fn parted(range: std::ops::Range<u16>) -> Parted {
        let mut parted = Parted::default();
        peers(range).into_iter().for_each(|(addr, flags)| parted.add(PexPeer { addr, flags }));
        parted
    }

    #[test]
    fn those_whom_we_left_are_told_once_where_few_are_here_and_taken_back() {
        let (mut state, me) = (PexState::default(), SocketAddr::from(([10, 0, 0, 1], 1)));
        let (here, mut left, mut now) = (peers(1..5), parted(4..8), Instant::ZERO);
        let first = state.next_message(now, me, &here, &left).unwrap();
        let ports = |pex: &Pex| pex.added.iter().map(|p| p.addr.port()).collect::<Vec<_>>();
        assert_eq!(ports(&first), [2, 3, 4, 5, 6, 7]);
        // One more, and one that it was told of when it was here.
        let gone = |port| PexPeer { addr: SocketAddr::from(([10, 0, 0, 1], port)), flags: 0 };
        left.add(gone(8));
        left.add(gone(2));
        now += EVERY;
        let second = state.next_message(now, me, &peers(3..5), &left).unwrap();
        assert_eq!(ports(&second), [8]);
        let dropped: Vec<_> = second.dropped.iter().map(SocketAddr::port).collect();
        assert_eq!(dropped, [2, 5, 6, 7]);
        now += EVERY;
        let third = state.next_message(now, me, &peers(3..5), &left).unwrap();
        assert_eq!((third.added.len(), third.dropped.len()), (0, 1));
        now += EVERY;
        assert_eq!(state.next_message(now, me, &peers(3..5), &left), None);
    }

    #[test]
    fn where_enough_are_here_nobody_else_is_told() {
        let me = SocketAddr::from(([10, 0, 0, 1], 1));
        let told = |here| {
            let mut state = PexState::default();
            let pex = state.next_message(Instant::ZERO, me, &peers(here), &parted(100..110));
            pex.unwrap().added.len()
        };
        assert_eq!(told(1..25), 23 + 10);
        assert_eq!(told(1..26), 24);
    }

    #[test]
    fn few_of_those_whom_we_left_are_kept() {
        let mut left = parted(1..60_000);
        let v6 = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 1));
        (1..60_000).for_each(|n| left.add(PexPeer { addr: v6(n), flags: 0 }));
        assert_eq!(left.peers.len(), 2 * PARTED_MAX);
        left.add(PexPeer { addr: v6(59_999), flags: 0 });
        assert_eq!(left.peers.len(), 2 * PARTED_MAX, "it stands there once");
        let me = SocketAddr::from(([10, 0, 0, 1], 1));
        let told = PexState::default().next_message(Instant::ZERO, me, &BTreeMap::new(), &left);
        let told = told.unwrap().added;
        assert_eq!(told.len(), ADDED_MAX);
        assert!(told.iter().all(|p| p.addr.is_ipv6() || p.addr.port() >= 59_975), "the last");
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
            state.next_message(now, me, &peers(1..second + 2), &Parted::default()).is_some()
        });
        assert_eq!(told.collect::<Vec<_>>(), [1, 3, 8, 23, 83, 143]);
    }
}
