//! Whom to serve (BEP 3 "choking"). While we download: those who give us most, and one more by
//! chance so that newcomers and better partners can show what they give. While we seed: everybody
//! in turn. It sees rates and wishes, and answers with who is to be choked and unchoked.
//!
//! Classic clients decide every ten seconds only, so that a lone newcomer waits for the clock. Here
//! a free slot is given away at once; the clock only takes slots back.
//!
//! No crowd keeps an honest peer waiting. Whoever does not use its slot loses it to the next, and is
//! behind all others from then on. For as long as that happens, somebody who has used one well goes
//! before those of whom that is not known; these have half of the slots, to show it; and of them
//! every other one goes to who came last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::time::soonest;
use crate::base::{Instant, Rng, Seed};
use crate::peer::ConnId;

/// One connected peer, as the choker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChokerPeer {
    /// Which connection.
    pub conn: ConnId,
    /// It wants something from us.
    pub interested: bool,
    /// Payload bytes a second from it, over the last seconds.
    pub download_rate: u64,
    /// We wait for data from it in vain: it loses its place among those who give us most.
    pub snubbed: bool,
    /// It has a slot, and asks nothing or does not take what it is sent.
    pub wasteful: bool,
    /// It has taken something from us.
    pub proven: bool,
    /// Since when it is connected.
    pub connected_at: Instant,
}

impl ChokerPeer {
    fn wants(&self) -> bool {
        self.interested && !self.wasteful
    }
}

/// What changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To choke.
    pub choke: Vec<ConnId>,
    /// To unchoke.
    pub unchoke: Vec<ConnId>,
}

impl Changes {
    /// True if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.choke.is_empty() && self.unchoke.is_empty()
    }
}

/// Decides whom to serve. Peers start choked, as BEP 3 says.
#[derive(Debug)]
pub struct Choker {
    slots: usize,
    /// The unchoked ones, since when.
    served: BTreeMap<ConnId, Instant>,
    /// When those lost their slot that are still connected and were served before.
    left: BTreeMap<ConnId, Instant>,
    /// Those who did not use their last slot.
    wasted: BTreeSet<ConnId>,
    wasted_at: Option<Instant>,
    optimistic: Option<(ConnId, Instant)>,
    /// The next slot that is free is for whoever came last.
    newest_first: bool,
    next_turn: Option<Instant>,
    rng: Rng,
}

impl Choker {
    /// A choker that serves at most `slots` peers at once.
    pub fn new(slots: usize, seed: Seed) -> Self {
        Self {
            slots,
            served: BTreeMap::new(),
            left: BTreeMap::new(),
            wasted: BTreeSet::new(),
            wasted_at: None,
            optimistic: None,
            newest_first: false,
            next_turn: None,
            rng: Rng::from_seed(seed),
        }
    }

    /// Is this peer unchoked?
    pub fn is_served(&self, conn: ConnId) -> bool {
        self.served.contains_key(&conn)
    }

    /// How many peers are unchoked.
    pub fn served(&self) -> usize {
        self.served.len()
    }

    /// When [`Choker::handle_timeout`] wants to be called; `None` while nobody is served.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_turn
    }

    /// A connection is over. Its slot is free: call [`Choker::fill`].
    pub fn on_peer_gone(&mut self, conn: ConnId) {
        self.served.remove(&conn);
        self.left.remove(&conn);
        self.wasted.remove(&conn);
        if self.optimistic.is_some_and(|(o, _)| o == conn) {
            self.optimistic = None;
        }
        if self.served.is_empty() {
            self.next_turn = None;
        }
    }

    /// Somebody became interested or a slot is free: gives free slots away, takes none back.
    pub fn fill(&mut self, now: Instant, peers: &[ChokerPeer]) -> Changes {
        let mut changes = Changes::default();
        let mut waiting: Vec<_> = self.waiting(peers).collect();
        // A peer that lost interest keeps its slot until somebody else needs it.
        let idle = peers.iter().filter(|p| !p.wants() && self.is_served(p.conn));
        let mut idle: Vec<_> = idle.copied().collect();
        // Who wants nothing leaves first.
        idle.sort_by_key(|p| !p.interested);
        if idle.iter().any(|p| p.wasteful && p.interested) {
            self.wasted_at = Some(now);
        }
        let mut on_trial =
            peers.iter().filter(|p| p.wants() && !p.proven && self.is_served(p.conn)).count();
        while self.served.len() < self.slots || !idle.is_empty() {
            let Some(next) = self.next(now, on_trial, &mut waiting) else { break };
            if self.served.len() >= self.slots {
                let Some(idle) = idle.pop() else { break };
                // One that wastes its slot has nothing to fear from another that did.
                if idle.interested && self.wasted.contains(&next.conn) {
                    break;
                }
                self.choke(now, idle.conn, &mut changes);
                if idle.interested {
                    self.wasted.insert(idle.conn);
                }
            }
            on_trial += usize::from(!next.proven);
            self.unchoke(now, next.conn, &mut changes);
        }
        changes
    }

    /// The turn: every ten seconds the slots are given anew. Does nothing before its time.
    pub fn handle_timeout(&mut self, now: Instant, seeding: bool, peers: &[ChokerPeer]) -> Changes {
        let mut changes = Changes::default();
        if self.next_turn.is_none_or(|turn| now < turn) {
            return changes;
        }
        self.next_turn = Some(now + TURN);
        let wishes = peers.iter().filter(|p| p.wants()).count();
        if wishes <= self.slots {
            self.optimistic = None;
        } else {
            let chosen = if seeding { self.rotate(now, peers) } else { self.reward(now, peers) };
            let leaving: Vec<_> =
                self.served.keys().copied().filter(|conn| !chosen.contains(conn)).collect();
            for conn in leaving {
                self.choke(now, conn, &mut changes);
            }
            for conn in chosen {
                self.unchoke(now, conn, &mut changes);
            }
        }
        let rest = self.fill(now, peers);
        changes.choke.extend(rest.choke);
        changes.unchoke.extend(rest.unchoke);
        changes
    }

    // Tit for tat: who gives us most, and one by chance.
    fn reward(&mut self, now: Instant, peers: &[ChokerPeer]) -> Vec<ConnId> {
        let regular = self.slots.saturating_sub(1);
        let mut givers: Vec<_> = peers.iter().filter(|p| p.wants() && !p.snubbed).collect();
        self.rng.shuffle(&mut givers);
        givers.sort_by_key(|p| std::cmp::Reverse(p.download_rate));
        let mut chosen: Vec<_> = givers.iter().take(regular).map(|p| p.conn).collect();
        let optimistic = self.optimistic.filter(|(conn, since)| {
            let stays = peers.iter().any(|p| p.conn == *conn && p.wants());
            stays && now.since(*since) < OPTIMISTIC_TIME && !chosen.contains(conn)
        });
        self.optimistic = optimistic.or_else(|| {
            // Not the last one again: it had its chance and did not earn a regular slot.
            let last = self.optimistic.map(|(conn, _)| conn);
            let mut waiting: Vec<_> = peers
                .iter()
                .filter(|p| p.wants() && !chosen.contains(&p.conn) && Some(p.conn) != last)
                .copied()
                .collect();
            self.draw(now, &mut waiting).map(|conn| (conn, now))
        });
        chosen.extend(self.optimistic.map(|(conn, _)| conn).filter(|_| self.slots > 0));
        chosen
    }

    // Everybody in turn: who was served for its time makes room for who waits longest.
    fn rotate(&mut self, now: Instant, peers: &[ChokerPeer]) -> Vec<ConnId> {
        self.optimistic = None;
        let mut wishes: Vec<_> = peers.iter().filter(|p| p.wants()).collect();
        let newest = self.newest(wishes.iter().copied()).filter(|_| self.is_beset(now));
        self.rng.shuffle(&mut wishes);
        wishes.sort_by_key(|p| match (self.served.get(&p.conn), self.left.get(&p.conn)) {
            _ if self.wasted.contains(&p.conn) => (5, Instant::ZERO),
            (Some(since), _) if now.since(*since) < SEED_TIME => (0, *since),
            (None, None) if Some(p.conn) == newest => (1, Instant::ZERO),
            (None, None) => (2, Instant::ZERO),
            (None, Some(left)) => (3, *left),
            (Some(since), _) => (4, *since),
        });
        // Those on trial have half of the slots, and what the others leave them.
        let proven = wishes.iter().filter(|p| p.proven).count();
        let trials = self.trials(now).max(self.slots.saturating_sub(proven));
        let (mut on_trial, mut others) = (0, 0);
        wishes.retain(|p| {
            let (count, most) = match p.proven {
                true => (&mut others, self.slots),
                false => (&mut on_trial, trials),
            };
            *count += 1;
            *count <= most
        });
        wishes.truncate(self.slots);
        wishes.iter().map(|p| p.conn).collect()
    }

    // Slots for those who have not shown yet that they use one.
    fn trials(&self, now: Instant) -> usize {
        if self.is_beset(now) { self.slots.div_ceil(2) } else { self.slots }
    }

    // Was a slot wasted lately?
    fn is_beset(&self, now: Instant) -> bool {
        self.wasted_at.is_some_and(|at| now.since(at) < BESET_TIME)
    }

    fn waiting<'a>(&'a self, peers: &'a [ChokerPeer]) -> impl Iterator<Item = ChokerPeer> + 'a {
        peers.iter().filter(|p| p.wants() && !self.is_served(p.conn)).copied()
    }

    // Who came last and was never served.
    fn newest<'a>(&self, peers: impl Iterator<Item = &'a ChokerPeer>) -> Option<ConnId> {
        let new = peers.filter(|p| !self.is_served(p.conn) && !self.left.contains_key(&p.conn));
        new.max_by_key(|p| (p.connected_at, p.conn)).map(|p| p.conn)
    }

    // Who is served next: nobody that wasted a slot while others wait; somebody that has used one well
    // if there are enough on trial.
    fn next(
        &mut self,
        now: Instant,
        on_trial: usize,
        waiting: &mut Vec<ChokerPeer>,
    ) -> Option<ChokerPeer> {
        let is_good = |p: &&ChokerPeer| !self.wasted.contains(&p.conn);
        let good: Vec<_> = waiting.iter().filter(is_good).copied().collect();
        let proven: Vec<_> = good.iter().filter(|p| p.proven).copied().collect();
        let mut choice = match (good.is_empty(), proven.is_empty()) {
            (true, _) => waiting.clone(),
            (false, false) if on_trial >= self.trials(now) => proven,
            (false, _) => good,
        };
        let next = self.draw(now, &mut choice)?;
        let at = waiting.iter().position(|p| p.conn == next)?;
        Some(waiting.swap_remove(at))
    }

    // One of `waiting` by chance; a peer that is new has three lots, since it has nothing to give
    // until it has got a first piece. When slots are wasted, in turn with the one that came last: a
    // crowd which waits for ever does not keep it waiting, nor a stream of newcomers all others.
    fn draw(&mut self, now: Instant, waiting: &mut Vec<ChokerPeer>) -> Option<ConnId> {
        if waiting.len() > 1 && self.is_beset(now) {
            self.newest_first = !self.newest_first;
            if let Some(newest) = self.newest(waiting.iter()).filter(|_| self.newest_first) {
                waiting.retain(|p| p.conn != newest);
                return Some(newest);
            }
        }
        let lots = |p: &ChokerPeer| if now.since(p.connected_at) < NEW_TIME { 3 } else { 1 };
        let mut lot = self.rng.below(waiting.iter().map(lots).sum());
        let at = waiting.iter().position(|p| {
            let hit = lot < lots(p);
            lot = lot.saturating_sub(lots(p));
            hit
        })?;
        Some(waiting.swap_remove(at).conn)
    }

    fn unchoke(&mut self, now: Instant, conn: ConnId, changes: &mut Changes) {
        if self.served.contains_key(&conn) {
            return;
        }
        assert!(self.served.len() < self.slots, "there are no more slots than slots");
        self.served.insert(conn, now);
        self.left.remove(&conn);
        self.wasted.remove(&conn);
        self.next_turn = soonest(self.next_turn, Some(now + TURN));
        changes.unchoke.push(conn);
    }

    fn choke(&mut self, now: Instant, conn: ConnId, changes: &mut Changes) {
        self.served.remove(&conn);
        self.left.insert(conn, now);
        changes.choke.push(conn);
    }
}

/// The clock of tit for tat: long enough for TCP to show the rate of a peer (BEP 3).
const TURN: Duration = Duration::from_secs(10);
/// How long the one by chance may show what it gives: three turns (BEP 3).
const OPTIMISTIC_TIME: Duration = Duration::from_secs(30);
/// How long a seed serves a peer while others wait.
const SEED_TIME: Duration = Duration::from_secs(30);
/// For so long after a slot was wasted others may be.
const BESET_TIME: Duration = Duration::from_secs(120);
/// How long a peer counts as new.
const NEW_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn peers(rates: &[u64]) -> Vec<ChokerPeer> {
        let peer = |(rate, n)| ChokerPeer {
            conn: ConnId(n),
            interested: true,
            download_rate: rate,
            snubbed: false,
            wasteful: false,
            proven: false,
            connected_at: Instant::ZERO,
        };
        rates.iter().copied().zip(0..).map(peer).collect()
    }

    fn served(choker: &Choker) -> Vec<u64> {
        choker.served.keys().map(|c| c.0).collect()
    }

    #[test]
    fn first_peers_are_served_at_once() {
        let mut choker = Choker::new(4, [1; 32]);
        assert_eq!(choker.poll_timeout(), None);
        let changes = choker.fill(at(7), &peers(&[0, 0]));
        assert_eq!(changes.unchoke.len(), 2);
        assert_eq!(choker.poll_timeout(), Some(at(17)));
        let mut three = peers(&[0, 0, 0]);
        three[2].interested = false;
        assert!(choker.fill(at(8), &three).is_empty());
        three[2].interested = true;
        assert_eq!(choker.fill(at(8), &three).unchoke, [ConnId(2)]);
    }

    #[test]
    fn best_givers_keep_their_slots_and_one_more_gets_a_chance() {
        let mut choker = Choker::new(4, [1; 32]);
        let peers = peers(&[10, 50, 0, 30, 0, 40, 0, 0]);
        choker.fill(at(0), &peers);
        let mut chances = BTreeSet::new();
        for turn in 1..100 {
            choker.handle_timeout(at(turn * 10), false, &peers);
            let now = served(&choker);
            assert_eq!(now.len(), 4);
            assert!([1, 3, 5].iter().all(|best| now.contains(best)), "{now:?}");
            chances.extend(now);
        }
        assert_eq!(chances.len(), 8, "everybody had a chance");
    }

    #[test]
    fn optimistic_choice_stays_for_thirty_seconds() {
        let mut choker = Choker::new(2, [2; 32]);
        let peers = peers(&[100, 0, 0, 0, 0]);
        choker.fill(at(0), &peers);
        choker.handle_timeout(at(10), false, &peers);
        let (first, _) = choker.optimistic.unwrap();
        choker.handle_timeout(at(20), false, &peers);
        choker.handle_timeout(at(30), false, &peers);
        assert_eq!(choker.optimistic.unwrap().0, first);
        choker.handle_timeout(at(40), false, &peers);
        assert_ne!(choker.optimistic.unwrap().0, first);
    }

    #[test]
    fn snubbing_peer_loses_its_regular_slot() {
        let mut choker = Choker::new(3, [3; 32]);
        let mut peers = peers(&[100, 90, 80, 70]);
        choker.fill(at(0), &peers);
        peers[0].snubbed = true;
        let mut seen = 0;
        for turn in 1..60 {
            choker.handle_timeout(at(turn * 10), false, &peers);
            assert!(choker.is_served(ConnId(1)) && choker.is_served(ConnId(2)));
            seen += usize::from(choker.is_served(ConnId(0)));
        }
        assert!((1..59).contains(&seen), "only by chance: {seen}");
    }

    #[test]
    fn seed_serves_everybody_in_turn() {
        let mut choker = Choker::new(4, [4; 32]);
        let peers = peers(&[0; 40]);
        choker.fill(at(0), &peers);
        let mut turns = [0; 40];
        for turn in 1..=300 {
            choker.handle_timeout(at(turn * 10), true, &peers);
            assert_eq!(choker.served(), 4);
            served(&choker).iter().for_each(|conn| turns[*conn as usize] += 1);
        }
        assert!(turns.iter().all(|n| (27..=33).contains(n)), "{turns:?}");
    }

    #[test]
    fn slot_of_a_sated_peer_goes_to_one_who_waits() {
        let mut choker = Choker::new(1, [5; 32]);
        let mut two = peers(&[0, 0]);
        two[1].interested = false;
        choker.fill(at(0), &two);
        two[0].interested = false;
        assert!(choker.fill(at(1), &two).is_empty(), "nobody waits");
        two[1].interested = true;
        let changes = choker.fill(at(2), &two);
        assert_eq!((changes.choke, changes.unchoke), (vec![ConnId(0)], vec![ConnId(1)]));
        choker.on_peer_gone(ConnId(1));
        assert_eq!((choker.served(), choker.poll_timeout()), (0, None));
    }

    #[test]
    fn slot_of_a_peer_that_takes_nothing_goes_to_the_next() {
        let mut choker = Choker::new(2, [6; 32]);
        let mut three = peers(&[0, 0, 0]);
        choker.fill(at(0), &three[..2]);
        three[0].wasteful = true;
        let changes = choker.fill(at(6), &three);
        assert_eq!((changes.choke, changes.unchoke), (vec![ConnId(0)], vec![ConnId(2)]));
        // Without a slot it looks like any other that wants one.
        three[0].wasteful = false;
        assert!(choker.fill(at(7), &three).is_empty());
        choker.handle_timeout(at(40), true, &three);
        assert!(!choker.is_served(ConnId(0)), "it is behind all others");
        three[1].wasteful = true;
        choker.fill(at(41), &three);
        assert!(!choker.is_served(ConnId(0)), "and displaces none of its kind");
        choker.on_peer_gone(ConnId(1));
        choker.fill(at(42), &three[..1]);
        assert!(choker.is_served(ConnId(0)), "but has what nobody wants");
    }

    #[test]
    fn peer_that_uses_its_slot_keeps_it_before_a_crowd_of_which_nothing_is_known() {
        let mut choker = Choker::new(4, [8; 32]);
        let mut crowd = peers(&[0; 100]);
        choker.fill(at(0), &crowd[..1]);
        crowd[0].proven = true;
        for turn in 1..60 {
            let slots = served(&choker);
            crowd[1..].iter_mut().for_each(|p| p.wasteful = slots.contains(&p.conn.0));
            choker.fill(at(turn * 10 - 5), &crowd);
            crowd[1..].iter_mut().for_each(|p| p.wasteful = false);
            choker.handle_timeout(at(turn * 10), true, &crowd);
            assert!(choker.is_served(ConnId(0)), "in turn {turn}");
            assert_eq!(choker.served(), 4, "and the rest is tried");
        }
        // Two on trial at a time leave the others to those who are proven.
        crowd[1..10].iter_mut().for_each(|p| p.proven = true);
        for turn in 60..66 {
            choker.handle_timeout(at(turn * 10), true, &crowd);
        }
        let proven = served(&choker).iter().filter(|conn| **conn < 10).count();
        assert_eq!(proven, 2);
    }

    #[test]
    fn newcomer_is_served_with_the_second_slot_that_is_free_however_many_wait() {
        let mut choker = Choker::new(1, [7; 32]);
        let mut crowd = peers(&[0; 100]);
        crowd[99].connected_at = at(5);
        choker.fill(at(0), &crowd[..99]);
        for freed in 0..2 {
            let served = ConnId(served(&choker)[0]);
            crowd.iter_mut().filter(|p| p.conn == served).for_each(|p| p.wasteful = true);
            choker.fill(at(6 + freed), &crowd);
            if choker.is_served(ConnId(99)) {
                return;
            }
        }
        panic!("not within two");
    }

    proptest! {
        #[test]
        fn slots_are_bounded_and_none_stays_empty_while_somebody_waits(
            slots in 0..6usize,
            history in prop::collection::vec((any::<bool>(), prop::collection::vec((0..3u64, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..10)), 1..60),
        ) {
            let mut choker = Choker::new(slots, [9; 32]);
            for (turn, (seeding, list)) in history.into_iter().enumerate() {
                let mut now = peers(&list.iter().map(|p| p.0).collect::<Vec<_>>());
                for (peer, (_, interested, snubbed, wasteful, proven)) in now.iter_mut().zip(&list) {
                    peer.interested = *interested;
                    peer.snubbed = *snubbed;
                    peer.wasteful = *wasteful;
                    peer.proven = *proven;
                }
                for gone in now.len()..10 {
                    choker.on_peer_gone(ConnId(gone as u64));
                }
                let before: BTreeSet<_> = choker.served.keys().copied().collect();
                let time = at(turn as u64 * 7);
                let mut changes = choker.fill(time, &now);
                let more = choker.handle_timeout(time, seeding, &now);
                changes.choke.extend(more.choke);
                changes.unchoke.extend(more.unchoke);
                prop_assert!(choker.served() <= slots);
                // Who wasted a slot does not get that of another who does.
                let is_good = |p: &&ChokerPeer| p.wants() && !choker.wasted.contains(&p.conn);
                let wishes = now.iter().filter(is_good).count();
                let happy = now.iter().filter(|p| p.wants() && choker.is_served(p.conn)).count();
                prop_assert!((wishes.min(slots)..=slots).contains(&happy));
                // What was told to the peers is what the choker believes.
                let mut told = before;
                for conn in changes.choke.iter().chain(&changes.unchoke) {
                    if !told.remove(conn) {
                        told.insert(*conn);
                    }
                }
                prop_assert!(told.iter().eq(choker.served.keys()));
            }
        }
    }
}
