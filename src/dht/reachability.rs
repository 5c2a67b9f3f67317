//! Can strangers reach us? Who cannot be reached says `ro` and answers nobody (BEP 43), so that no table
//! carries it and no lookup waits for it.
//!
//! The proof is a query from an address to which we have not written: a NAT that restricts lets
//! nobody else in. No help of the router is needed, and nobody can lie about it: a forged source
//! gets in only where a true one does. Strangers hear of a node from those that have it in their
//! table, so a node that says `ro` is never asked and could never be proven. It begins as a full
//! node, therefore, gives up after a while without a proof, and tries again from time to time.
//!
//! Where few public nodes know us (a private network, a small one) silence says nothing, and the
//! node stays a full one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::event::Event;
use super::node::Node;
use crate::base::Instant;
use crate::base::addr::{is_private, wide_network};

/// What is known about whether strangers reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Not known yet; we answer like everybody.
    Unknown,
    /// They do.
    Reachable,
    /// They do not; we ask and answer nobody (BEP 43).
    Unreachable,
}

/// Counts the strangers that come unasked, and draws the conclusion.
#[derive(Debug)]
pub(super) struct Reach {
    verdict: Reachability,
    // Before this nobody is counted: what was proven a moment ago needs no proof.
    counts_from: Instant,
    decide_at: Instant,
    pause: Duration,
    // Wide networks from which somebody came unasked, and when.
    proofs: BTreeMap<IpAddr, Instant>,
    written_to: WrittenTo,
}

impl Reach {
    pub fn new(now: Instant) -> Self {
        Self {
            verdict: Reachability::Unknown,
            counts_from: now,
            decide_at: now + WINDOW,
            pause: PAUSE_FIRST,
            proofs: BTreeMap::new(),
            written_to: WrittenTo::new(now),
        }
    }

    /// We send something to `ip`: whatever comes from there in the next minutes proves nothing.
    pub fn on_sent(&mut self, now: Instant, ip: IpAddr) {
        self.written_to.add(now, ip);
    }

    // A query came from `ip`. Is it the one that proves it?
    fn is_proven_by(&mut self, now: Instant, ip: IpAddr) -> bool {
        if self.written_to.has(now, ip) {
            // Our answer keeps the NAT open to it.
            self.written_to.add(now, ip);
            return false;
        }
        self.written_to.add(now, ip);
        self.proofs.retain(|_, at| now.since(*at) < WINDOW);
        self.proofs.insert(wide_network(ip), now);
        self.proofs.len() >= PROOFS_WANTED
    }

    fn conclude(&mut self, now: Instant, verdict: Reachability) {
        self.verdict = verdict;
        self.proofs.clear();
        match verdict {
            Reachability::Unknown => {
                self.counts_from = now;
                self.decide_at = now + WINDOW;
            }
            Reachability::Reachable => {
                self.counts_from = now + PROOF_AGE_MAX;
                self.decide_at = self.counts_from + WINDOW;
                self.pause = PAUSE_FIRST;
            }
            Reachability::Unreachable => {
                self.counts_from = now;
                self.decide_at = now + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_LONGEST);
            }
        }
    }
}

impl Node {
    /// Can strangers reach us, as far as is known?
    pub fn reachability(&self) -> Reachability {
        self.reach.verdict
    }

    /// Do we ask without answering (BEP 43), because we were told to or because nobody reaches us?
    pub fn is_read_only(&self) -> bool {
        self.config.read_only || self.reach.verdict == Reachability::Unreachable
    }

    /// A query came, whatever it asks.
    pub(super) fn note_querier(&mut self, now: Instant, from: IpAddr) {
        if now < self.reach.counts_from || !self.config.prove_reachability || is_private(from) {
            return;
        }
        let known = self.reach.proofs.len();
        let proven = self.reach.is_proven_by(now, from);
        self.stats.unsolicited += u64::from(proven || self.reach.proofs.len() > known);
        if proven {
            self.on_reachability(now, Reachability::Reachable);
        }
    }

    /// Draws the conclusion if its time has come.
    pub(super) fn judge_reachability(&mut self, now: Instant) {
        let is_fixed = self.config.read_only || !self.config.prove_reachability;
        if is_fixed || now < self.reach.decide_at {
            return;
        }
        match self.reach.verdict {
            Reachability::Unreachable => {
                self.on_reachability(now, Reachability::Unknown);
                // Our neighbours have to hear of us again before strangers can.
                self.look_around(now);
            }
            Reachability::Unknown | Reachability::Reachable => {
                let public = self.table.contacts().filter(|c| !is_private(c.ip())).count();
                let says_nothing = public < PUBLIC_CONTACTS_MIN
                    || self.reach.written_to.is_full()
                    || self.is_link_dead();
                if says_nothing {
                    self.reach.decide_at = now + LATER;
                } else {
                    self.on_reachability(now, Reachability::Unreachable);
                }
            }
        }
    }

    /// Our address changed, or the network was away: what was known holds no more.
    pub(super) fn doubt_reachability(&mut self, now: Instant) {
        self.reach.pause = PAUSE_FIRST;
        self.on_reachability(now, Reachability::Unknown);
    }

    fn on_reachability(&mut self, now: Instant, verdict: Reachability) {
        let is_new = self.reach.verdict != verdict;
        self.reach.conclude(now, verdict);
        if is_new {
            self.emit(Event::Reachability(verdict));
        }
    }
}

// The addresses to which something was sent in the last minutes, in two generations. An IPv6 host
// is its /64.
#[derive(Debug)]
struct WrittenTo {
    current: BTreeSet<u64>,
    previous: BTreeSet<u64>,
    since: Instant,
}

impl WrittenTo {
    fn new(now: Instant) -> Self {
        Self { current: BTreeSet::new(), previous: BTreeSet::new(), since: now }
    }

    fn add(&mut self, now: Instant, ip: IpAddr) {
        self.turn(now);
        if !self.is_full() {
            self.current.insert(key(ip));
        }
    }

    // When it is full, everybody counts as written to: no proof is better than a wrong one.
    fn has(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.turn(now);
        let key = key(ip);
        self.is_full() || self.current.contains(&key) || self.previous.contains(&key)
    }

    fn is_full(&self) -> bool {
        self.current.len() >= WRITTEN_TO_MAX
    }

    fn turn(&mut self, now: Instant) {
        let age = now.since(self.since);
        if age < GENERATION {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if age >= 2 * GENERATION {
            self.previous.clear();
        }
        self.since = now;
    }
}

fn key(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            [a, b, c, d].into_iter().fold(0, |key, part| key << 16 | u64::from(part))
        }
    }
}

/// Wide networks from which somebody has to come unasked: one may be an accident of the router, or
/// the echo of a program that had the port before.
const PROOFS_WANTED: usize = 4;
/// A proof has so long to come. A node in a table is asked within minutes.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Then it has to be proven again: a forwarded port can be closed.
const PROOF_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Who cannot be reached tries again after this, and after twice as long each time.
const PAUSE_FIRST: Duration = Duration::from_secs(60 * 60);
const PAUSE_LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// With fewer public contacts than this the time for a conclusion has not come.
const PUBLIC_CONTACTS_MIN: usize = 32;
const LATER: Duration = Duration::from_secs(60);
// A NAT lets an endpoint in for up to five minutes after the last datagram to it (RFC 4787); what is
// remembered is between one and two generations old.
const GENERATION: Duration = Duration::from_secs(5 * 60);
/// Addresses remembered in a generation: 50 new ones a second. About 400 kB, if there are as many.
const WRITTEN_TO_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn ip(n: u16) -> IpAddr {
        let [a, b] = n.to_be_bytes();
        IpAddr::from([20 + a, b, 1, 1])
    }

    #[test]
    fn strangers_of_four_networks_prove_it_and_those_we_wrote_to_do_not() {
        let mut reach = Reach::new(at(0));
        for n in 0..100 {
            reach.on_sent(at(0), ip(n));
            assert!(!reach.is_proven_by(at(1), ip(n)));
        }
        for n in 100..103 {
            for _ in 0..5 {
                assert!(!reach.is_proven_by(at(2), ip(n)));
            }
        }
        // A neighbour of one that came already.
        assert!(!reach.is_proven_by(at(2), IpAddr::from([20, 100, 9, 9])));
        assert!(reach.is_proven_by(at(2), ip(103)));
    }

    #[test]
    fn proofs_of_another_hour_do_not_add_up() {
        let mut reach = Reach::new(at(0));
        for n in 0..60 {
            assert!(!reach.is_proven_by(at(u64::from(n) * 301), ip(n)));
        }
    }

    #[test]
    fn who_was_written_to_is_forgotten_after_minutes_unless_it_keeps_coming() {
        let mut reach = Reach::new(at(0));
        let (quiet, chatty) = (ip(1), ip(2));
        reach.on_sent(at(0), quiet);
        reach.on_sent(at(0), chatty);
        for n in 1..20 {
            reach.is_proven_by(at(n * 120), chatty);
            assert!(reach.proofs.is_empty());
        }
        reach.is_proven_by(at(2400), quiet);
        assert_eq!(reach.proofs.len(), 1);
        // After a long silence nothing is remembered at all.
        reach.is_proven_by(at(4000), chatty);
        assert_eq!(reach.proofs.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_without_it_nothing_is_proven() {
        let mut reach = Reach::new(at(0));
        for n in 0..100_000u32 {
            reach.on_sent(at(0), IpAddr::from((n + (30 << 24)).to_be_bytes()));
        }
        assert_eq!(reach.written_to.current.len(), WRITTEN_TO_MAX);
        assert!((0..100).all(|n| !reach.is_proven_by(at(1), ip(n))));
        assert!(reach.proofs.len() < PROOFS_WANTED);
        assert!((0..100).any(|n| reach.is_proven_by(at(301), ip(n))));
    }

    #[test]
    fn attempts_of_who_stays_unreachable_become_rare() {
        let mut reach = Reach::new(at(0));
        let mut now = reach.decide_at;
        let mut hours = Vec::new();
        for _ in 0..8 {
            reach.conclude(now, Reachability::Unreachable);
            hours.push(reach.decide_at.since(now).as_secs() / 3600);
            now = reach.decide_at;
            reach.conclude(now, Reachability::Unknown);
            assert_eq!(reach.decide_at.since(now), WINDOW);
            now = reach.decide_at;
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24, 24]);
        reach.conclude(now, Reachability::Reachable);
        reach.conclude(now, Reachability::Unreachable);
        assert_eq!(reach.decide_at.since(now), PAUSE_FIRST);
    }

    #[test]
    fn host_of_ipv6_is_its_network() {
        let mut reach = Reach::new(at(0));
        reach.on_sent(at(0), "2001:db8:1:2::1".parse().unwrap());
        assert!(reach.written_to.has(at(0), "2001:db8:1:2:3::4".parse().unwrap()));
        assert!(!reach.written_to.has(at(0), "2001:db8:1:3::1".parse().unwrap()));
    }
}
