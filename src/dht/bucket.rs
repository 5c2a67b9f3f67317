//! One bucket of the routing table: the contacts that share a given number of leading bits with
//! us, and spares to replace those that die.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::security::is_valid_id;
use crate::base::addr::{PackedAddr, is_private};
use crate::base::bounded::push_snugly;
use crate::base::{Instant, NodeId};

/// A node that has answered us.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub id: NodeId,
    addr: PackedAddr,
    /// Since when it is known to be good.
    pub known_since: Instant,
    /// Its last answer.
    pub replied: Instant,
    /// Our last query to it that was counted: a failure, or the answer above.
    pub asked: Instant,
    // Round trip, smoothed.
    rtt_micros: u32,
    /// Seconds for which it was known to be good before a restart.
    pub prior_secs: u32,
    /// Queries in a row that it left unanswered.
    pub failures: u8,
    /// Its id follows from its address (BEP 42), or it is exempt.
    pub valid_id: bool,
}

impl Contact {
    /// `id` at `addr` has answered for the first time.
    pub fn new(now: Instant, id: NodeId, addr: SocketAddr, rtt: Duration) -> Self {
        Self {
            id,
            addr: addr.into(),
            known_since: now,
            replied: now,
            asked: now,
            rtt_micros: micros(rtt),
            prior_secs: 0,
            failures: 0,
            valid_id: is_valid_id(id, addr.ip()),
        }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr.get()
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.addr.ip()
    }

    /// Is it there?
    pub fn is_at(&self, addr: PackedAddr) -> bool {
        self.addr == addr
    }

    /// How long it takes to answer, smoothed.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_micros.into())
    }

    /// It answered again.
    pub fn on_reply(&mut self, now: Instant, rtt: Duration) {
        self.replied = now;
        self.asked = now;
        self.failures = 0;
        // Two parts old, one part new, as libtorrent does: one slow answer does not make a slow node.
        self.rtt_micros = micros((self.rtt() * 2 + rtt) / 3);
    }

    /// When it should be pinged next.
    pub fn due(&self) -> Instant {
        match self.failures {
            0 => self.replied + KEEPALIVE,
            n => self.asked + RETRY_MIN * (1 << u32::from(n.min(6) - 1)),
        }
    }

    /// Seconds for which it has been known to be good, restarts included.
    pub fn age_secs(&self) -> u32 {
        let here = self.replied.since(self.known_since).as_secs();
        self.prior_secs.saturating_add(u32::try_from(here).unwrap_or(u32::MAX))
    }
}

// No query waits for an hour, which is what fits.
fn micros(rtt: Duration) -> u32 {
    u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)
}

/// What became of a contact that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It is in, and nobody left.
    Added,
    /// It is in, in place of this endpoint.
    Replaced(PackedAddr),
    /// It waits for somebody to die.
    Spare,
    /// It is out.
    Refused,
}

/// Contacts at one distance from us.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    contacts: Vec<Contact>,
    // The beginning of each contact's id, side by side: most contacts are passed over by it alone.
    leads: Vec<u64>,
    spares: Vec<Contact>,
    capacity: usize,
    /// When a lookup last went into this part of the key space.
    pub refreshed: Option<Instant>,
}

impl Bucket {
    pub fn new(index: usize) -> Self {
        let capacity = *CAPACITIES.get(index).unwrap_or(&K);
        Self {
            contacts: Vec::new(),
            leads: Vec::new(),
            spares: Vec::new(),
            capacity,
            refreshed: None,
        }
    }

    pub fn contacts(&self) -> &[Contact] {
        &self.contacts
    }

    /// The contacts, each behind the first 64 bits of its id.
    pub fn by_lead(&self) -> impl Iterator<Item = (u64, &Contact)> {
        debug_assert_eq!(self.leads.len(), self.contacts.len());
        self.leads.iter().copied().zip(&self.contacts)
    }

    pub fn spares(&self) -> &[Contact] {
        &self.spares
    }

    pub fn into_contacts(self) -> impl Iterator<Item = Contact> {
        self.contacts.into_iter().chain(self.spares)
    }

    pub fn find(&mut self, id: NodeId) -> Option<&mut Contact> {
        self.contacts.iter_mut().find(|c| c.id == id)
    }

    pub fn find_at(&mut self, addr: PackedAddr) -> Option<&mut Contact> {
        self.contacts.iter_mut().find(|c| c.is_at(addr))
    }

    /// Could whoever is at `addr` and not among the contacts get in, or be a useful spare? One that is
    /// a fresh spare already could not: two nodes that are spares of each other would ping for ever,
    /// each because the other asked.
    pub fn wants(&self, now: Instant, addr: &SocketAddr) -> bool {
        let (addr, is_twin) = (PackedAddr::from(*addr), twins(addr.ip(), (*addr).into()));
        if self.contacts.iter().any(|c| c.failures == 0 && is_twin(c)) {
            return false;
        }
        if self.contacts.len() < self.capacity || self.contacts.iter().any(|c| c.failures > 0) {
            return true;
        }
        match self.spares.iter().find(|c| c.addr == addr || is_twin(c)) {
            Some(spare) => spare.addr == addr && spare.due() <= now,
            None => self.spares.len() < SPARES_MAX,
        }
    }

    /// Puts `new` where it belongs. It has answered, and its endpoint is in no bucket.
    pub fn offer(&mut self, new: Contact) -> Place {
        let is_twin = twins(new.ip(), new.addr);
        let rival = self.contacts.iter().position(|c| c.id == new.id || is_twin(c));
        if let Some(rival) = rival {
            // The one we know stays while it answers: a newcomer with its id may be a liar, and
            // one from its network may be its twin.
            return if self.contacts[rival].failures == 0 {
                Place::Refused
            } else {
                self.replace(rival, new)
            };
        }
        if self.contacts.len() < self.capacity {
            push_snugly(&mut self.leads, new.id.leading());
            push_snugly(&mut self.contacts, new);
            return Place::Added;
        }
        match self.victim(&new) {
            Some(victim) => self.replace(victim, new),
            None => self.add_spare(new),
        }
    }

    fn replace(&mut self, victim: usize, new: Contact) -> Place {
        self.leads[victim] = new.id.leading();
        let old = std::mem::replace(&mut self.contacts[victim], new);
        Place::Replaced(old.addr)
    }

    // Who has to leave a full bucket for `new`: one that fails; else one whose id breaks BEP 42 if
    // `new` keeps it; else a much slower one that is not of long standing.
    fn victim(&self, new: &Contact) -> Option<usize> {
        let worst = |pick: &dyn Fn(&Contact) -> bool| {
            let all = self.contacts.iter().enumerate().filter(|(_, c)| pick(c));
            all.max_by_key(|(_, c)| (c.failures, c.rtt_micros)).map(|(at, _)| at)
        };
        worst(&|c| c.failures > 0)
            .or_else(|| worst(&|c| new.valid_id && !c.valid_id))
            .or_else(|| worst(&|c| c.rtt() > new.rtt() * 5 / 2 && c.age_secs() < STANDING_SECS))
    }

    fn add_spare(&mut self, new: Contact) -> Place {
        self.spares.retain(|c| c.id != new.id && c.addr != new.addr);
        if self.spares.iter().any(twins(new.ip(), new.addr)) {
            return Place::Refused;
        }
        if self.spares.len() >= SPARES_MAX {
            self.spares.remove(0);
        }
        push_snugly(&mut self.spares, new);
        Place::Spare
    }

    /// Takes the contact at `addr` out.
    pub fn remove(&mut self, addr: PackedAddr) -> Option<Contact> {
        self.spares.retain(|c| c.addr != addr);
        let at = self.contacts.iter().position(|c| c.addr == addr)?;
        self.leads.remove(at);
        Some(self.contacts.remove(at))
    }

    /// The spare that answered last.
    pub fn pop_spare(&mut self) -> Option<Contact> {
        let best = (0..self.spares.len()).max_by_key(|at| self.spares[*at].replied)?;
        Some(self.spares.remove(best))
    }
}

// Contacts that one operator gets for the price of one, with one at `addr`, whose address is `ip`.
fn twins(ip: IpAddr, addr: PackedAddr) -> impl Fn(&Contact) -> bool {
    let is_public = !is_private(ip);
    move |contact| is_public && contact.addr.shares_network(addr)
}

/// Contacts in a bucket, and in an answer (BEP 5).
pub(super) const K: usize = 8;
// The far buckets serve most first hops, so they are larger: seven more bits on the first hop
// for some 250 contacts in all.
const CAPACITIES: [usize; 5] = [128, 64, 32, 16, 8];
// Enough to replace a whole small bucket.
const SPARES_MAX: usize = 8;
// BEP 5 calls a contact good for 15 minutes; we ask before that is over.
const KEEPALIVE: Duration = Duration::from_secs(12 * 60);
const RETRY_MIN: Duration = Duration::from_secs(10);
// After this long a contact is not displaced by a faster one: long-lived nodes live longer.
const STANDING_SECS: u32 = 30 * 60;
