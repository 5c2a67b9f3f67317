//! The peers that we have heard of, and whom to dial next. Bounded, whatever the DHT and other
//! peers pour in: by source, by network, and by the order of BEP 40, which every honest client
//! shares, so that a swarm stays evenly connected and cannot be crowded out by one range of
//! addresses. It sees addresses and outcomes; it opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use self::priority::canonical_priority;
use crate::base::addr::{canonical, is_believable, is_private, is_sendable, network};
use crate::base::bounded::LimitedMap;
use crate::base::time::soonest;
use crate::base::{Instant, Rng, Seed};
use crate::swarm::{DialError, PeerSource};

pub mod priority;
#[cfg(test)]
mod tests;

/// Known peers of one torrent.
#[derive(Debug)]
pub struct Candidates {
    limit: usize,
    known: BTreeMap<SocketAddr, Candidate>,
    /// Whom to dial, best first.
    ready: BTreeSet<(Rank, SocketAddr)>,
    /// Who has to wait after a failure or a good-bye.
    waiting: BTreeSet<(Instant, SocketAddr)>,
    /// Candidates of each public network that others told us.
    networks: BTreeMap<IpAddr, usize>,
    bans: LimitedMap<Banned, Instant>,
    /// How often a rule was broken from an address, and since when that is counted.
    strikes: LimitedMap<IpAddr, (u32, Instant)>,
    own: BTreeSet<SocketAddr>,
    dialling: usize,
    /// The next dial is for one that peers told of.
    is_turn_of_peers: bool,
    stats: CandidateStats,
    rng: Rng,
}

/// Counts, for eyes. They only grow, but for `known` and the sources of what is known now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CandidateStats {
    /// Distinct peers heard of (again, if it was dropped in between).
    pub known: usize,
    /// Distinct peers dialled.
    pub tried: usize,
    /// Dials that failed.
    pub failed: usize,
    /// Distinct peers whose handshake was good.
    pub reached: usize,
}

/// How many connections are allowed now.
#[derive(Debug, Clone, Copy)]
pub struct DialBounds {
    /// Dials under way at once.
    pub half_open_max: usize,
    /// Connections in all, dials under way included.
    pub connections_max: usize,
    /// Connections there are, without dials under way.
    pub connected: usize,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Before it was of any use: no handshake, or closed at once.
    Early,
    /// After it had been of use: it may be so again.
    Used,
    /// With the info dictionary, and nothing else yet: it begins now.
    Informed,
    /// Neither side has anything for the other, or it is crowded: later perhaps.
    Useless,
    /// It broke a rule.
    Misbehaved,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    source: PeerSource,
    /// BEP 40: higher is better.
    priority: u32,
    /// Dials that failed in a row.
    dial_failures: u32,
    /// Connections in a row that were of no use.
    early_ends: u32,
    /// Times that it left with nothing but the info dictionary.
    informed: u32,
    state: State,
    was_tried: bool,
    was_reached: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Waiting(Instant),
    Dialling,
    Connected,
}

/// Smaller is dialled sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_heard_of: bool,
    failures: u32,
    tier: u8,
    unpriority: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Banned {
    Address(IpAddr),
    /// Behind a private address there may be many peers: one host, or one NAT.
    Endpoint(SocketAddr),
}

impl Candidates {
    /// No peers known yet; at most `limit` ever.
    pub fn new(limit: usize, seed: Seed) -> Self {
        Self {
            limit,
            known: BTreeMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            networks: BTreeMap::new(),
            bans: LimitedMap::new(BANS_MAX),
            strikes: LimitedMap::new(STRUCK_MAX),
            own: BTreeSet::new(),
            dialling: 0,
            is_turn_of_peers: false,
            stats: CandidateStats::default(),
            rng: Rng::from_seed(seed),
        }
    }

    // --- what is heard ------------------------------------------------------------------------

    /// Heard of a peer. `informant` is who told us, if a peer did: a private address is believed
    /// only from inside such a range. True if it is new here and was taken.
    pub fn add(
        &mut self,
        now: Instant,
        source: PeerSource,
        addr: SocketAddr,
        informant: Option<IpAddr>,
    ) -> bool {
        let addr = canonical(addr);
        let is_believed = informant.is_none_or(|ip| is_believable(&addr, ip));
        if !is_sendable(&addr) || !is_believed || self.own.contains(&addr) {
            return false;
        }
        if self.is_banned(now, addr) {
            return false;
        }
        if self.known.contains_key(&addr) {
            self.upgrade(source, addr);
            return false;
        }
        if is_told(source) && !self.has_room_in_network(addr.ip()) {
            return false;
        }
        let candidate = Candidate {
            source,
            priority: self.priority_of(addr),
            dial_failures: 0,
            early_ends: 0,
            informed: 0,
            state: State::Ready,
            was_tried: false,
            was_reached: false,
        };
        if self.known.len() >= self.limit && !self.drop_worse_than(&candidate, addr) {
            return false;
        }
        self.stats.known += 1;
        if is_told(source) && !is_private(addr.ip()) {
            *self.networks.entry(network(addr.ip())).or_default() += 1;
        }
        self.ready.insert((candidate.rank(), addr));
        self.known.insert(addr, candidate);
        true
    }

    /// Our own addresses, as listened on and as others see them: never dialled, and the base of the
    /// order of BEP 40.
    pub fn set_own(&mut self, own: &[SocketAddr]) {
        self.own = own.iter().copied().map(canonical).take(OWN_MAX).collect();
        for addr in own.iter().copied().map(canonical) {
            self.remove(addr);
        }
        let addrs: Vec<_> = self.known.keys().copied().collect();
        for addr in addrs {
            let priority = self.priority_of(addr);
            self.change(addr, |candidate| candidate.priority = priority);
        }
    }

    /// A connection to this address turned out to be one to ourselves.
    pub fn on_self(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.remove(addr);
        if self.own.len() < OWN_MAX {
            self.own.insert(addr);
        }
    }

    // --- whom to dial -------------------------------------------------------------------------

    /// The next peer to dial, if the bounds allow one more. It counts as being dialled from now on.
    pub fn next_dial(&mut self, now: Instant, bounds: DialBounds) -> Option<SocketAddr> {
        let open = bounds.connected + self.dialling;
        if self.dialling >= bounds.half_open_max || open >= bounds.connections_max {
            return None;
        }
        while let Some((due, addr)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, addr));
            let candidate = self.known.get_mut(&addr).expect("a waiting peer is known");
            candidate.state = State::Ready;
            self.ready.insert((candidate.rank(), addr));
        }
        loop {
            let addr = self.next_ready()?;
            if self.is_banned(now, addr) {
                self.remove(addr);
                continue;
            }
            self.set_state(addr, State::Dialling);
            let candidate = self.known.get_mut(&addr).expect("a ready peer is known");
            if !std::mem::replace(&mut candidate.was_tried, true) {
                self.stats.tried += 1;
            }
            return Some(addr);
        }
    }

    // The best. Those whom the DHT named and those whom peers named take turns: neither is buried
    // under what strangers pour into the other.
    fn next_ready(&mut self) -> Option<SocketAddr> {
        let best = *self.ready.first()?;
        if best.0.tier != tier(PeerSource::Dht) {
            return Some(best.1);
        }
        self.is_turn_of_peers = !self.is_turn_of_peers;
        let from_peers = Rank { tier: tier(PeerSource::Pex), unpriority: 0, ..best.0 };
        let from_peers = self.ready.range((from_peers, FIRST_ADDR)..).next();
        let theirs = from_peers
            .filter(|(rank, _)| self.is_turn_of_peers && rank.failures == best.0.failures);
        Some(theirs.unwrap_or(&best).1)
    }

    /// When `next_dial` may have somebody; `None` if nobody waits. Bounds are the caller's business.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ready = (!self.ready.is_empty()).then_some(Instant::ZERO);
        soonest(ready, self.waiting.first().map(|(due, _)| *due))
    }

    /// The dial failed.
    pub fn on_dial_failed(&mut self, now: Instant, addr: SocketAddr, _error: DialError) {
        let addr = canonical(addr);
        self.stats.failed += 1;
        self.change(addr, |candidate| candidate.dial_failures += 1);
        let Some(candidate) = self.known.get(&addr) else { return };
        let delay = dial_delay(candidate.source, candidate.dial_failures);
        self.wait(now, addr, delay);
    }

    /// The dial succeeded: a connection is there, and its handshake is still to come.
    pub fn on_connected(&mut self, addr: SocketAddr) {
        self.set_state(canonical(addr), State::Connected);
    }

    /// The peer's handshake was good, on a connection of either direction. `addr` is where it can be
    /// dialled, if that is known.
    pub fn on_reached(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.set_state(addr, State::Connected);
        let Some(candidate) = self.known.get_mut(&addr) else { return };
        candidate.dial_failures = 0;
        if !std::mem::replace(&mut candidate.was_reached, true) {
            self.stats.reached += 1;
        }
    }

    /// A peer that connected to us, from a port at which it cannot be dialled, was reached.
    pub fn on_reached_unknown(&mut self) {
        self.stats.reached += 1;
    }

    /// The connection is over.
    pub fn on_closed(&mut self, now: Instant, addr: SocketAddr, ending: Ending) {
        let addr = canonical(addr);
        self.change(addr, |candidate| match ending {
            Ending::Used => candidate.early_ends = 0,
            Ending::Informed => candidate.informed += 1,
            Ending::Useless => {}
            Ending::Early | Ending::Misbehaved => candidate.early_ends += 1,
        });
        let Some(candidate) = self.known.get(&addr) else { return };
        let delay = match ending {
            Ending::Informed if candidate.informed <= INFORMED_MAX => INFORMED_DELAY,
            Ending::Used | Ending::Informed => RETURN_DELAY,
            Ending::Useless => USELESS_DELAY,
            Ending::Early => early_delay(candidate.source, candidate.early_ends),
            Ending::Misbehaved => doubled(MISBEHAVED_DELAY, candidate.early_ends),
        };
        self.wait(now, addr, delay);
    }

    /// Whoever waits after a good-bye and not after a failure may be dialled at once.
    pub fn call_back(&mut self) {
        let is_good = |addr: &SocketAddr| {
            let candidate = self.known.get(addr);
            candidate.is_some_and(|c| c.dial_failures == 0 && c.early_ends == 0)
        };
        let parted: Vec<_> =
            self.waiting.iter().map(|(_, addr)| *addr).filter(|a| is_good(a)).collect();
        parted.into_iter().for_each(|addr| self.set_state(addr, State::Ready));
    }

    // --- bans ---------------------------------------------------------------------------------

    /// Refuses this peer for an hour: by its IP address, or by the endpoint alone where many peers
    /// may share the address.
    pub fn ban(&mut self, now: Instant, addr: SocketAddr) {
        let addr = canonical(addr);
        self.bans.insert(ban_key(addr), now + BAN_TIME);
        self.remove(addr);
        if !is_private(addr.ip()) {
            let from = SocketAddr::new(addr.ip(), 0);
            let to = SocketAddr::new(addr.ip(), u16::MAX);
            let same: Vec<_> = self.known.range(from..=to).map(|(addr, _)| *addr).collect();
            same.into_iter().for_each(|addr| self.remove(addr));
        }
    }

    /// A rule was broken from this address: true if that happened so often that it is enough. Behind
    /// a private one there may be many peers, and it never is.
    pub fn strike(&mut self, now: Instant, addr: SocketAddr) -> bool {
        let ip = canonical(addr).ip();
        if is_private(ip) {
            return false;
        }
        let strikes = self.strikes.get_or_insert_with(ip, || (0, now));
        if now.since(strikes.1) >= STRIKES_TIME {
            *strikes = (0, now);
        }
        strikes.0 += 1;
        strikes.0 >= STRIKES_MAX
    }

    /// Is this peer refused?
    pub fn is_banned(&self, now: Instant, addr: SocketAddr) -> bool {
        self.bans.peek(&ban_key(canonical(addr))).is_some_and(|until| now < *until)
    }

    /// How many bans hold.
    pub fn banned(&self, now: Instant) -> usize {
        self.bans.iter().filter(|(_, until)| now < **until).count()
    }

    // --- counts -------------------------------------------------------------------------------

    /// What happened so far.
    pub fn stats(&self) -> CandidateStats {
        self.stats
    }

    /// Peers known now.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if no peer is known now.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Dials under way.
    pub fn dialling(&self) -> usize {
        self.dialling
    }

    /// Peers that could be dialled now, but for the bounds.
    pub fn ready(&self, now: Instant) -> usize {
        self.ready.len() + self.waiting.iter().take_while(|(due, _)| *due <= now).count()
    }

    /// Peers known now that were heard of so.
    pub fn count_of(&self, source: PeerSource) -> usize {
        self.known.values().filter(|candidate| candidate.source == source).count()
    }

    /// How we heard of this peer.
    pub fn source_of(&self, addr: SocketAddr) -> Option<PeerSource> {
        self.known.get(&canonical(addr)).map(|candidate| candidate.source)
    }

    // --- the small steps ----------------------------------------------------------------------

    // A peer that the DHT knows already and the user names now is one that the user named.
    fn upgrade(&mut self, source: PeerSource, addr: SocketAddr) {
        let before = self.known[&addr].source;
        if tier(source) >= tier(before) {
            return;
        }
        if is_told(before) && !is_told(source) {
            self.leave_network(addr.ip());
        }
        self.change(addr, |candidate| candidate.source = source);
        if source == PeerSource::Given && matches!(self.known[&addr].state, State::Waiting(_)) {
            self.set_state(addr, State::Ready);
        }
    }

    fn change(&mut self, addr: SocketAddr, change: impl FnOnce(&mut Candidate)) {
        let Some(candidate) = self.known.get_mut(&addr) else { return };
        let before = candidate.rank();
        change(candidate);
        if candidate.state == State::Ready && candidate.rank() != before {
            let after = candidate.rank();
            self.ready.remove(&(before, addr));
            self.ready.insert((after, addr));
        }
    }

    fn wait(&mut self, now: Instant, addr: SocketAddr, delay: Duration) {
        // A tenth more or less keeps a swarm from coming back in one wave.
        let jitter = 0.9 + 0.2 * self.rng.unit();
        self.set_state(addr, State::Waiting(now + delay.mul_f64(jitter)));
    }

    fn set_state(&mut self, addr: SocketAddr, state: State) {
        let Some(candidate) = self.known.get_mut(&addr) else { return };
        match candidate.state {
            State::Ready => _ = self.ready.remove(&(candidate.rank(), addr)),
            State::Waiting(due) => _ = self.waiting.remove(&(due, addr)),
            State::Dialling => self.dialling -= 1,
            State::Connected => {}
        }
        candidate.state = state;
        match state {
            State::Ready => _ = self.ready.insert((candidate.rank(), addr)),
            State::Waiting(due) => _ = self.waiting.insert((due, addr)),
            State::Dialling => self.dialling += 1,
            State::Connected => {}
        }
    }

    // Forgets an address: also one being dialled, whose end is then nobody's news.
    fn remove(&mut self, addr: SocketAddr) {
        // A state without an index first, so that no index keeps the address.
        self.set_state(addr, State::Connected);
        let Some(candidate) = self.known.remove(&addr) else { return };
        if is_told(candidate.source) {
            self.leave_network(addr.ip());
        }
    }

    fn has_room_in_network(&self, ip: IpAddr) -> bool {
        is_private(ip) || self.networks.get(&network(ip)).is_none_or(|n| *n < PER_NETWORK_MAX)
    }

    fn leave_network(&mut self, ip: IpAddr) {
        let Some(count) = self.networks.get_mut(&network(ip)) else { return };
        *count -= 1;
        if *count == 0 {
            self.networks.remove(&network(ip));
        }
    }

    // Makes room for `newcomer` by dropping the worst that is not in use, if that is worse.
    fn drop_worse_than(&mut self, newcomer: &Candidate, addr: SocketAddr) -> bool {
        // Who failed and waits longest is worse than everybody who is ready.
        let failed = self.waiting.last().map(|(_, addr)| *addr);
        let failed = failed.filter(|addr| self.known[addr].source != PeerSource::Given);
        let worst = failed.or_else(|| {
            let worst = self.ready.last().filter(|worst| **worst > (newcomer.rank(), addr));
            worst.map(|(_, addr)| *addr)
        });
        let Some(worst) = worst else { return false };
        self.remove(worst);
        true
    }

    fn priority_of(&mut self, addr: SocketAddr) -> u32 {
        let mut own = self.own.iter().filter(|own| own.is_ipv4() == addr.is_ipv4());
        // Between addresses of different worlds the order would mean nothing.
        let own = own.find(|own| is_private(own.ip()) == is_private(addr.ip()));
        match own {
            Some(own) => canonical_priority(*own, addr),
            None => self.rng.u32(),
        }
    }
}

impl Candidate {
    fn rank(&self) -> Rank {
        Rank {
            is_heard_of: self.source != PeerSource::Given,
            failures: self.dial_failures + self.early_ends,
            tier: tier(self.source),
            unpriority: u32::MAX - self.priority,
        }
    }
}

fn tier(source: PeerSource) -> u8 {
    match source {
        PeerSource::Given => 0,
        PeerSource::Incoming => 1,
        PeerSource::Dht => 2,
        PeerSource::Pex => 3,
    }
}

// Told by strangers, who may tell anything.
fn is_told(source: PeerSource) -> bool {
    match source {
        PeerSource::Dht | PeerSource::Pex => true,
        PeerSource::Given | PeerSource::Incoming => false,
    }
}

fn ban_key(addr: SocketAddr) -> Banned {
    if is_private(addr.ip()) { Banned::Endpoint(addr) } else { Banned::Address(addr.ip()) }
}

// Both ends are often started by the same hand, the other one a moment later.
fn dial_delay(source: PeerSource, failures: u32) -> Duration {
    match source {
        PeerSource::Given if failures > GIVEN_EAGER_DIALS => GIVEN_DIAL_DELAY_MAX,
        PeerSource::Given => {
            let millis = [200, 500, 1_000, 2_000, 3_000, 5_000];
            let at = usize::try_from(failures).unwrap_or(usize::MAX).saturating_sub(1);
            Duration::from_millis(millis[at.min(millis.len() - 1)])
        }
        PeerSource::Dht | PeerSource::Pex | PeerSource::Incoming => {
            let steps = failures.saturating_sub(1).min(8);
            (DIAL_DELAY * 3u32.pow(steps)).min(DIAL_DELAY_MAX)
        }
    }
}

// A peer that takes the connection and ends it: doubled every time, so that two minutes see at most
// seven dials.
fn early_delay(source: PeerSource, ends: u32) -> Duration {
    match source {
        PeerSource::Given => doubled(EARLY_DELAY_GIVEN, ends),
        PeerSource::Dht | PeerSource::Pex | PeerSource::Incoming => doubled(EARLY_DELAY, ends),
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    (first * 2u32.pow(times.saturating_sub(1).min(12))).min(DIAL_DELAY_MAX)
}

/// Before all others of one rank.
const FIRST_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Candidates from one public /24 or /64 that the DHT and peers may tell: a whole range of
/// addresses costs an attacker nothing, while a seedbox host has a handful.
const PER_NETWORK_MAX: usize = 16;
/// Bans remembered; the oldest goes.
const BANS_MAX: usize = 1_000;
/// Broken rules, each on a connection of its own, that end the patience with a public address: a
/// few clients behind one NAT may have the same fault.
const STRIKES_MAX: u32 = 5;
/// Within which time.
const STRIKES_TIME: Duration = Duration::from_secs(600);
/// Addresses whose broken rules are counted; the oldest goes.
const STRUCK_MAX: usize = 1_000;
/// Own addresses remembered.
const OWN_MAX: usize = 32;
/// How long a ban holds: addresses are handed on.
const BAN_TIME: Duration = Duration::from_secs(3_600);
/// After the first failed dial.
const DIAL_DELAY: Duration = Duration::from_secs(10);
/// After any failure.
const DIAL_DELAY_MAX: Duration = Duration::from_secs(1_800);
/// Dials to a peer given by the user before they become rare: about two minutes.
const GIVEN_EAGER_DIALS: u32 = 28;
const GIVEN_DIAL_DELAY_MAX: Duration = Duration::from_secs(20);
/// After the first connection that ended at once.
const EARLY_DELAY: Duration = Duration::from_secs(5);
const EARLY_DELAY_GIVEN: Duration = Duration::from_secs(1);
/// After the first broken rule that is no reason for a ban.
const MISBEHAVED_DELAY: Duration = Duration::from_secs(60);
/// After a connection that was of use.
const RETURN_DELAY: Duration = Duration::from_secs(5);
/// After somebody has fetched the info dictionary and left. aria2 does so: it listens again at once,
/// and dials nobody for ten seconds.
const INFORMED_DELAY: Duration = Duration::from_millis(500);
/// Who does so again is in no hurry: once on a connection of its own, and once on one of ours.
const INFORMED_MAX: u32 = 2;
/// After a connection that both sides have no use for.
const USELESS_DELAY: Duration = Duration::from_secs(300);
