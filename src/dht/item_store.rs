//! The items that others put here (BEP 44), for two hours each unless they are put again.
//!
//! A node stores for others and leaves it at that: to keep an item alive is up to whoever wants it, and
//! `keeper` does it for our own host. Everything here is grown by strangers, so everything has a
//! limit: items, and the share that one address or one network may take of them. As with torrents, when
//! room is short the item farthest from our id is the one that belongs elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use crate::base::addr::{is_private, network, wide_network};
use crate::base::{Distance, Instant, Key, NodeId};
use crate::wire::item::{Item, ItemError};
use crate::wire::krpc::{Put, SignedPut};

/// The items of many publishers.
#[derive(Debug)]
pub struct ItemStore {
    own: Key,
    items: BTreeMap<Distance, Stored>,
    // Items of an address, of its network and of its wide network.
    shares: [BTreeMap<IpAddr, u32>; 3],
    swept: Option<Distance>,
}

#[derive(Debug)]
struct Stored {
    item: Item,
    // Whose share it takes: the address that put it here first.
    by: IpAddr,
    seen: Instant,
}

/// What a `put` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is stored, or replaced what was.
    Stored,
    /// It was here already, and stays for another two hours.
    Refreshed,
}

/// Why a `put` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// It does not prove itself.
    #[error("not an item: {0}")]
    Item(#[from] ItemError),
    /// What is stored is not the version that was to be replaced.
    #[error("the stored sequence number is {0}")]
    CasMismatch(i64),
    /// What is stored is newer, or of the same version with another value.
    #[error("the stored sequence number is {0}")]
    OldSequence(i64),
    /// The address or its network has its share.
    #[error("too many items from this network")]
    Share,
    /// Full of items that are closer to us.
    #[error("no room for this item")]
    Full,
}

impl ItemStore {
    /// An empty store of the node `own`.
    pub fn new(own: NodeId) -> Self {
        Self { own: own.key(), items: BTreeMap::new(), shares: Default::default(), swept: None }
    }

    /// How many are stored.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Our id changed, and with it the order.
    pub fn set_own(&mut self, own: NodeId) {
        self.own = own.key();
        let items = std::mem::take(&mut self.items);
        let moved = |stored: Stored| (self.own.distance(stored.item.target()), stored);
        self.items = items.into_values().map(moved).collect();
        self.swept = None;
    }

    /// What is stored under `target`.
    pub fn get(&mut self, now: Instant, target: Key) -> Option<&Item> {
        let distance = self.own.distance(target);
        self.expire(now, distance);
        self.items.get(&distance).map(|stored| &stored.item)
    }

    /// `by` wants an item stored. It is under the key that follows from it, whatever was said.
    pub fn put(&mut self, now: Instant, put: &Put<'_>, by: IpAddr) -> Result<Taken, PutError> {
        let distance = self.own.distance(put.target());
        self.expire(now, distance);
        if let Some(stored) = self.items.get_mut(&distance) {
            let taken = update(&mut stored.item, put)?;
            stored.seen = now;
            return Ok(taken);
        }
        // What costs least is asked first.
        self.has_share(by)?;
        if self.items.len() >= ITEMS_STORED_MAX
            && self.items.last_key_value().is_some_and(|(farthest, _)| *farthest < distance)
        {
            return Err(PutError::Full);
        }
        let item = Item::from_put(put)?;
        while self.items.len() >= ITEMS_STORED_MAX
            && let Some((_, gone)) = self.items.pop_last()
        {
            release(&mut self.shares, gone.by);
        }
        self.items.insert(distance, Stored { item, by, seen: now });
        for (shares, source) in self.shares.iter_mut().zip(sources(by)) {
            *shares.entry(source).or_default() += 1;
        }
        Ok(Taken::Stored)
    }

    fn has_share(&self, by: IpAddr) -> Result<(), PutError> {
        let maxima = if is_private(by) { SHARES_PRIVATE_MAX } else { SHARES_MAX };
        let full = self
            .shares
            .iter()
            .zip(sources(by))
            .zip(maxima)
            .any(|((shares, source), max)| shares.get(&source).is_some_and(|n| *n >= max));
        if full { Err(PutError::Share) } else { Ok(()) }
    }

    /// Expires some more items. Called regularly, it comes round.
    pub fn sweep(&mut self, now: Instant) {
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<Distance> = self
            .items
            .range((from, Bound::Unbounded))
            .take(SWEEP_ITEMS)
            .map(|(distance, _)| *distance)
            .collect();
        self.swept = next.last().copied().filter(|_| next.len() == SWEEP_ITEMS);
        next.into_iter().for_each(|distance| self.expire(now, distance));
    }

    fn expire(&mut self, now: Instant, distance: Distance) {
        let Some(stored) = self.items.get(&distance) else { return };
        if now.since(stored.seen) >= ITEM_AGE_MAX {
            let by = stored.by;
            self.items.remove(&distance);
            release(&mut self.shares, by);
        }
    }
}

// What a `put` does to the item that is stored under its key.
fn update(stored: &mut Item, put: &Put<'_>) -> Result<Taken, PutError> {
    let (Item::Mutable { seq, value, signature, .. }, Some(signed)) = (&*stored, &put.signed)
    else {
        // Known by its hash, so it is the same.
        return Ok(Taken::Refreshed);
    };
    let SignedPut { seq: put_seq, signature: put_signature, cas, .. } = *signed;
    if cas.is_some_and(|cas| cas != *seq) {
        return Err(PutError::CasMismatch(*seq));
    }
    // BEP 44: never back, and one version has one value.
    let is_same = put_seq == *seq && put.value == value;
    if put_seq <= *seq && !is_same {
        return Err(PutError::OldSequence(*seq));
    }
    if is_same && put_signature == signature {
        return Ok(Taken::Refreshed);
    }
    let item = Item::from_put(put)?;
    if is_same {
        return Ok(Taken::Refreshed);
    }
    *stored = item;
    Ok(Taken::Stored)
}

// An IPv6 host has a whole /64 to speak from.
fn sources(ip: IpAddr) -> [IpAddr; 3] {
    let host = if ip.is_ipv4() { ip } else { network(ip) };
    [host, network(ip), wide_network(ip)]
}

fn release(shares: &mut [BTreeMap<IpAddr, u32>; 3], by: IpAddr) {
    for (shares, source) in shares.iter_mut().zip(sources(by)) {
        if let Some(count) = shares.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&source);
            }
        }
    }
}

/// Items stored: at 1.3 kB each and some for order, three megabytes.
pub const ITEMS_STORED_MAX: usize = 2_000;
/// An item is put again every hour; one time may be lost.
pub const ITEM_AGE_MAX: Duration = Duration::from_secs(2 * 3_600);
// Items of one address, of its /24 or /64 and of its /16 or /32. Eight wide networks fill the store.
const SHARES_MAX: [u32; 3] = [64, 128, 256];
// On a private network many publishers share one address, and strangers cannot speak from it.
const SHARES_PRIVATE_MAX: [u32; 3] = [1_000, 1_000, 1_000];
// With a sweep every few seconds the whole store is seen in some minutes.
const SWEEP_ITEMS: usize = 64;

#[cfg(test)]
mod tests;
