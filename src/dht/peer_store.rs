//! The peers that others announced to us (BEP 5), for 45 minutes each.
//!
//! Everything in it is grown by strangers, so everything has a limit: torrents, peers of a torrent,
//! and the share that one address or one network may take of either. A stored peer costs 8 bytes, or
//! 20 with IPv6, and a full store of a million nine megabytes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::store::Store;
use self::swarm::Entry;
use crate::base::addr::Family;
use crate::base::{InfoHash, Instant, NodeId, Rng};
use crate::wire::bloom::Filter;

mod store;
mod swarm;
mod tally;

/// The peers of many torrents, of one address family.
#[derive(Debug)]
pub enum PeerStore {
    /// IPv4.
    V4(Store<4>),
    /// IPv6.
    V6(Store<16>),
}

/// A peer that announced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where it is reached.
    pub addr: SocketAddr,
    /// It has the whole torrent (BEP 33).
    pub seed: bool,
}

/// Why an announce was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The address or its network has its share of all entries.
    #[error("too many announces from this network")]
    AddressShare,
    /// The address or its network has its share of this torrent's peers.
    #[error("too many peers of this torrent from this network")]
    SwarmShare,
    /// Full, and nobody has taken more than the newcomer would.
    #[error("no room")]
    Full,
    /// An address of the other family.
    #[error("wrong address family")]
    Family,
}

// The same for both families.
macro_rules! either {
    ($self:expr, $store:ident => $do:expr) => {
        match $self {
            PeerStore::V4($store) => $do,
            PeerStore::V6($store) => $do,
        }
    };
}

impl PeerStore {
    /// An empty store of the node `own`.
    pub fn new(family: Family, own: NodeId, now: Instant, rng: &mut Rng) -> Self {
        match family {
            Family::V4 => PeerStore::V4(Store::new(own, now, rng)),
            Family::V6 => PeerStore::V6(Store::new(own, now, rng)),
        }
    }

    /// Torrents and peers stored.
    pub fn len(&self) -> (usize, usize) {
        either!(self, store => store.len())
    }

    /// Bytes that the peers and what counts them take on the heap.
    pub fn heap_bytes(&self) -> usize {
        either!(self, store => store.heap_bytes())
    }

    /// Our id changed, and with it the order.
    pub fn set_own(&mut self, own: NodeId) {
        either!(self, store => store.set_own(own));
    }

    /// `addr` says that it is a peer of `info_hash`, and whether it is a seed.
    pub fn announce(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        info_hash: InfoHash,
        addr: SocketAddr,
        seed: bool,
    ) -> Result<(), StoreError> {
        match (self, addr.ip()) {
            (PeerStore::V4(store), IpAddr::V4(ip)) => {
                let entry = Entry::new(ip.octets(), addr.port(), seed, now);
                store.announce(now, rng, info_hash, entry)
            }
            (PeerStore::V6(store), IpAddr::V6(ip)) => {
                let entry = Entry::new(ip.octets(), addr.port(), seed, now);
                store.announce(now, rng, info_hash, entry)
            }
            (PeerStore::V4(_), IpAddr::V6(_)) | (PeerStore::V6(_), IpAddr::V4(_)) => {
                Err(StoreError::Family)
            }
        }
    }

    /// At most `count` peers of `info_hash`, chosen at random, among those that `usable` allows.
    pub fn sample(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        info_hash: InfoHash,
        count: usize,
        usable: impl Fn(&Peer) -> bool,
        out: &mut Vec<SocketAddr>,
    ) {
        out.clear();
        either!(self, store => {
            let peers = store.shuffled(now, rng, info_hash).filter(usable);
            out.extend(peers.take(count).map(|peer| peer.addr));
        });
    }

    /// Who of the peers of `info_hash` that `usable` allows is a seed, and who is none (BEP 33);
    /// `None` if there are no peers at all.
    pub fn filters(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        usable: impl Fn(&Peer) -> bool,
    ) -> Option<(Filter, Filter)> {
        let (mut seeds, mut others) = (Filter::new(), Filter::new());
        let insert = |peer: Peer| {
            let filter = if peer.seed { &mut seeds } else { &mut others };
            filter.insert(peer.addr.ip());
        };
        either!(self, store => store.peers(now, info_hash)?.filter(usable).for_each(insert));
        Some((seeds, others))
    }

    /// At most `count` of the torrents, each as likely as any other (BEP 51).
    pub fn sample_hashes(&self, rng: &mut Rng, count: usize) -> Vec<InfoHash> {
        either!(self, store => store.sample_hashes(rng, count))
    }

    /// Expires the peers of the next few torrents. Called regularly, it comes round.
    pub fn sweep(&mut self, now: Instant) {
        either!(self, store => store.sweep(now));
    }
}

/// Torrents stored. A node is among the eight closest of a few hundred; the rest is room.
pub const HASHES_STORED_MAX: usize = 2_000;
/// Peers stored of one torrent: five answers' worth.
pub const PEERS_PER_HASH_MAX: usize = 500;
/// A peer announces every 15 minutes or so; two may get lost.
pub const PEER_AGE_MAX: Duration = Duration::from_secs(45 * 60);

#[cfg(test)]
mod tests;
