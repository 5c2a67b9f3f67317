//! The routing table (BEP 5): who we know, by distance. Only nodes that answered us get in.
//!
//! One contact for each public IP in the table and for each /24 (/64) in a bucket; private networks
//! are exempt. An endpoint that answers with another id than before loses its place. Sends
//! nothing: what to ping and what to refresh is handed to `maintenance`.

use std::net::SocketAddr;
use std::time::Duration;

use self::endpoints::Endpoints;
use super::bucket::{Bucket, Contact, K, Place};
use super::event::SavedContact;
use super::security::is_valid_id;
use crate::base::addr::{PackedAddr, is_private};
use crate::base::bounded::LimitedMap;
use crate::base::{Distance, Instant, Key, NodeId, Rng};

mod endpoints;

/// A contact as a lookup or an answer needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Near {
    pub distance: Distance,
    pub id: NodeId,
    pub addr: SocketAddr,
}

/// What an answer did to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The contact was there already.
    Known,
    /// It is there now.
    Added,
    /// It waits as a spare, or was refused.
    Outside,
}

/// The routing table of one node.
#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    enforce_node_ids: bool,
    // The index is the number of leading bits shared with `own`; grows to the deepest in use.
    buckets: Vec<Bucket>,
    endpoints: Endpoints,
    id_changes: LimitedMap<SocketAddr, IdChange>,
}

#[derive(Debug, Clone, Copy)]
struct IdChange {
    times: u32,
    last: Instant,
}

impl Table {
    pub fn new(own: NodeId, enforce_node_ids: bool) -> Self {
        Self {
            own,
            enforce_node_ids,
            buckets: Vec::new(),
            endpoints: Endpoints::default(),
            id_changes: LimitedMap::new(ID_CHANGES_MAX),
        }
    }

    /// How many contacts there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The contact count of each bucket, farthest first.
    pub fn bucket_sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.buckets.iter().map(|b| b.contacts().len())
    }

    /// All contacts, farthest first.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.buckets.iter().flat_map(|b| b.contacts())
    }

    /// Do most public contacts keep BEP 42? Then who does not is suspect.
    pub fn ids_follow(&self) -> bool {
        let public = || self.contacts().filter(|c| !is_private(c.ip()));
        let valid = public().filter(|c| c.valid_id).count();
        valid >= K && valid * 2 >= public().count()
    }

    /// Is exactly this node in the table?
    pub fn has(&self, id: NodeId, addr: &SocketAddr) -> bool {
        self.id_at(addr) == Some(id)
    }

    /// Has whoever is at this endpoint answered us?
    pub fn has_endpoint(&self, addr: &SocketAddr) -> bool {
        self.endpoints.bucket_of((*addr).into()).is_some()
    }

    /// The smoothed round trip of the contact at `addr`.
    pub fn rtt(&self, addr: &SocketAddr) -> Option<Duration> {
        self.contact_at(addr).map(Contact::rtt)
    }

    fn contact_at(&self, addr: &SocketAddr) -> Option<&Contact> {
        let addr = PackedAddr::from(*addr);
        let bucket = self.buckets.get(self.endpoints.bucket_of(addr)?)?;
        bucket.contacts().iter().find(|c| c.is_at(addr))
    }

    /// `id` at `addr` answered a query of ours. True in the second place if the endpoint had
    /// another id before.
    pub fn on_reply(
        &mut self,
        now: Instant,
        id: NodeId,
        addr: SocketAddr,
        rtt: Duration,
    ) -> (Admission, bool) {
        let known = self.id_at(&addr);
        if known == Some(id) {
            let index = self.index(id);
            if let Some(contact) = self.buckets[index].find(id) {
                contact.on_reply(now, rtt);
            }
            return (Admission::Known, false);
        }
        if known.is_some() {
            self.remove(&addr);
            let fresh = IdChange { times: 0, last: now };
            let change = self.id_changes.get_or_insert_with(addr, || fresh);
            let recent = now.since(change.last) < ID_CHANGE_MEMORY;
            *change = IdChange { times: if recent { change.times + 1 } else { 1 }, last: now };
        }
        (self.admit(now, Contact::new(now, id, addr, rtt)), known.is_some())
    }

    fn admit(&mut self, now: Instant, contact: Contact) -> Admission {
        let addr = contact.addr();
        if contact.id == self.own || self.is_shifty(now, &addr) {
            return Admission::Outside;
        }
        if self.enforce_node_ids && !contact.valid_id {
            return Admission::Outside;
        }
        if let Some((rival, index)) = self.same_ip(&addr) {
            let failing = self.buckets[index].find_at(rival).is_none_or(|c| c.failures > 0);
            if !failing {
                return Admission::Outside;
            }
            self.remove(&rival.get());
        }
        let index = self.index(contact.id);
        while self.buckets.len() <= index {
            self.buckets.push(Bucket::new(self.buckets.len()));
        }
        match self.buckets[index].offer(contact) {
            Place::Added => {}
            Place::Replaced(old) => {
                self.endpoints.remove(old);
            }
            Place::Spare | Place::Refused => return Admission::Outside,
        }
        self.endpoints.insert(addr.into(), index);
        Admission::Added
    }

    /// The id under which the endpoint is known.
    pub fn id_at(&self, addr: &SocketAddr) -> Option<NodeId> {
        self.contact_at(addr).map(|contact| contact.id)
    }

    /// The contacts at the distance of `id` that nobody has heard of for a while.
    pub fn unheard_beside(&self, now: Instant, id: NodeId) -> Vec<(NodeId, SocketAddr)> {
        let bucket = self.buckets.get(self.index(id)).map(Bucket::contacts).unwrap_or_default();
        let unheard = bucket.iter().filter(|c| now.since(c.replied.max(c.asked)) >= UNHEARD_MIN);
        unheard.map(|c| (c.id, c.addr())).collect()
    }

    // An endpoint that keeps changing its id is given no place for a while.
    fn is_shifty(&self, now: Instant, addr: &SocketAddr) -> bool {
        self.id_changes
            .peek(addr)
            .is_some_and(|c| c.times >= ID_CHANGES_ALLOWED && now.since(c.last) < ID_CHANGE_MEMORY)
    }

    // The contact with the public IP of `addr`, at whatever port.
    fn same_ip(&self, addr: &SocketAddr) -> Option<(PackedAddr, usize)> {
        if is_private(addr.ip()) { None } else { self.endpoints.with_ip(addr.ip()) }
    }

    /// Would it be worth a ping to know whether `id` at `addr` is really there?
    pub fn wants(&self, now: Instant, id: NodeId, addr: &SocketAddr) -> bool {
        if id == self.own || self.has_endpoint(addr) || self.is_shifty(now, addr) {
            return false;
        }
        if self.enforce_node_ids && !is_valid_id(id, addr.ip()) {
            return false;
        }
        let taken = self.same_ip(addr).is_some();
        !taken && self.buckets.get(self.index(id)).is_none_or(|bucket| bucket.wants(now, addr))
    }

    /// The contact at `addr` left a query of that time unanswered. Of several that were under way
    /// together one counts, and none if it answered another meanwhile.
    pub fn on_failure(&mut self, now: Instant, addr: &SocketAddr, sent: Instant) {
        let packed = PackedAddr::from(*addr);
        let Some(index) = self.endpoints.bucket_of(packed) else { return };
        let bucket = &mut self.buckets[index];
        let has_spare = !bucket.spares().is_empty();
        let Some(contact) = bucket.find_at(packed) else { return };
        if contact.replied > sent || (contact.failures > 0 && contact.asked > sent) {
            return;
        }
        contact.failures = contact.failures.saturating_add(1);
        contact.asked = now;
        let allowed = if has_spare { FAILURES_WITH_SPARE_MAX } else { FAILURES_MAX };
        if contact.failures >= allowed {
            self.remove(addr);
            while let Some(mut spare) = self.buckets[index].pop_spare() {
                // It has not been asked for long, perhaps: first it has to answer.
                spare.failures = u8::from(spare.due() <= now);
                if self.admit(now, spare) == Admission::Added {
                    break;
                }
            }
        }
    }

    /// Takes the contact at `addr` out.
    pub fn remove(&mut self, addr: &SocketAddr) {
        let addr = PackedAddr::from(*addr);
        if let Some(index) = self.endpoints.remove(addr) {
            self.buckets[index].remove(addr);
        }
    }

    /// A contact of before a restart has answered: its age counts.
    pub fn remember(&mut self, addr: &SocketAddr, saved: &SavedContact) {
        if !self.has(saved.id, addr) {
            return;
        }
        let index = self.index(saved.id);
        if let Some(contact) = self.buckets[index].find(saved.id) {
            contact.prior_secs = saved.age_secs;
        }
    }

    /// Writes the `count` usable contacts closest to `target` to `out`, closest first.
    pub fn closest(
        &self,
        target: Key,
        count: usize,
        usable: impl Fn(&Contact) -> bool,
        out: &mut Vec<Near>,
    ) {
        out.clear();
        let lead = target.leading();
        // How far the last of those found is, once they are enough: most contacts are no nearer.
        let mut bound = u64::MAX;
        let mut add = |bucket: &Bucket| {
            for (near, contact) in bucket.by_lead() {
                if near ^ lead > bound {
                    continue;
                }
                let distance = target.distance(contact.id.key());
                let at = out.partition_point(|near| near.distance < distance);
                if at >= count || !usable(contact) {
                    continue;
                }
                out.truncate(count - 1);
                out.insert(at, Near { distance, id: contact.id, addr: contact.addr() });
                if out.len() == count {
                    bound = out.last().map_or(u64::MAX, |last| last.distance.leading());
                }
            }
            out.len() >= count
        };
        // The contacts of the target's own bucket share more bits with it than any other; those of
        // all deeper buckets share as many as we do; each bucket before shares fewer still.
        let home = shared_bits(self.own.key(), target);
        if self.buckets.get(home).is_some_and(&mut add) {
            return;
        }
        let mut full = false;
        for bucket in self.buckets.iter().skip(home + 1) {
            full |= add(bucket);
        }
        for bucket in self.buckets.iter().take(home).rev() {
            if full {
                return;
            }
            full = add(bucket);
        }
    }

    /// The contact whose next ping is due, the longest overdue first. `skip` says whom not to ping.
    pub fn overdue(
        &self,
        now: Instant,
        skip: impl Fn(&SocketAddr) -> bool,
    ) -> Option<(NodeId, SocketAddr)> {
        let due = self.contacts().filter(|c| c.due() <= now && !skip(&c.addr()));
        due.min_by_key(|c| c.due()).map(|c| (c.id, c.addr()))
    }

    /// A lookup goes to `target`: its part of the key space is fresh.
    pub fn on_lookup(&mut self, now: Instant, target: Key) {
        let index = shared_bits(self.own.key(), target).min(self.buckets.len().saturating_sub(1));
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.refreshed = Some(now);
        }
    }

    /// A random key in the bucket that most needs a lookup, if one does.
    pub fn stale_bucket(&self, now: Instant, rng: &mut Rng) -> Option<Key> {
        let due = |(index, bucket): &(usize, &Bucket)| match bucket.refreshed {
            None => bucket.contacts().len() < K,
            Some(last) if self.is_gap_at(*index) => now.since(last) >= REFRESH_OF_GAP,
            Some(last) => now.since(last) >= REFRESH,
        };
        let stale = self.buckets.iter().enumerate().filter(due);
        let (index, _) = stale.min_by_key(|(_, b)| b.refreshed)?;
        Some(key_in_bucket(self.own.key(), index, rng))
    }

    /// Is the part of the key space in which `target` lies one where we know nobody, though somebody
    /// should be there?
    pub fn is_gap(&self, target: Key) -> bool {
        self.is_gap_at(shared_bits(self.own.key(), target))
    }

    // There are as many nodes in a bucket's part as in all the nearer ones together: that eight are here
    // and none is there happens once in 256 times.
    fn is_gap_at(&self, index: usize) -> bool {
        let is_empty = self.buckets.get(index).is_some_and(|b| b.contacts().is_empty());
        let mut nearer = self.buckets.iter().skip(index + 1).map(|b| b.contacts().len());
        is_empty
            && nearer.try_fold(0, |sum, n| if sum + n < K { Ok(sum + n) } else { Err(()) }).is_err()
    }

    /// Our id changed: every contact finds its new place.
    pub fn set_own(&mut self, now: Instant, own: NodeId) {
        self.own = own;
        self.endpoints.clear();
        for contact in std::mem::take(&mut self.buckets).into_iter().flat_map(Bucket::into_contacts)
        {
            self.admit(now, contact);
        }
    }

    /// What is worth remembering across a restart.
    pub fn saved(&self) -> Vec<SavedContact> {
        self.contacts()
            .filter(|c| c.failures == 0)
            .map(|c| SavedContact {
                id: c.id,
                addr: c.addr(),
                rtt_micros: u32::try_from(c.rtt().as_micros()).ok(),
                age_secs: c.age_secs(),
            })
            .collect()
    }

    fn index(&self, id: NodeId) -> usize {
        shared_bits(self.own.key(), id.key())
    }
}

// 0..=159: whoever shares all bits is us.
fn shared_bits(a: Key, b: Key) -> usize {
    usize::try_from(a.shared_prefix_bits(b)).unwrap_or(usize::MAX).min(159)
}

// Shares exactly `index` bits with `own`; the rest is random.
fn key_in_bucket(own: Key, index: usize, rng: &mut Rng) -> Key {
    let mut key: [u8; 20] = rng.array();
    let own = own.as_bytes();
    let (byte, bit) = (index / 8, index % 8);
    key[..byte].copy_from_slice(&own[..byte]);
    let flip = 0x80u8 >> bit;
    let kept = !(flip | (flip - 1));
    key[byte] = (own[byte] & kept) | (!own[byte] & flip) | (key[byte] & (flip - 1));
    Key::new(key)
}

/// BEP 5: a bucket without a change for 15 minutes is refreshed.
const REFRESH: Duration = Duration::from_secs(15 * 60);
// Where somebody should be known and nobody is: those who came at the same moment are still apart.
const REFRESH_OF_GAP: Duration = Duration::from_secs(30);
// One lost packet is no reason to lose a contact; two are, if somebody waits for the place.
const FAILURES_WITH_SPARE_MAX: u8 = 2;
const FAILURES_MAX: u8 = 5;
// A client that restarts may change its id once; one that goes on is not what it says.
const ID_CHANGES_ALLOWED: u32 = 2;
// Where one contact turned out to be another, those that have not been heard of for so long are
// asked who they are.
const UNHEARD_MIN: Duration = Duration::from_secs(5 * 60);
const ID_CHANGE_MEMORY: Duration = Duration::from_secs(15 * 60);
// As many as contacts; the longest unseen is forgotten first.
const ID_CHANGES_MAX: usize = 256;

#[cfg(test)]
mod tests;
