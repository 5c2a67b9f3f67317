//! Samples of the torrents that have peers stored here (BEP 51), for whoever surveys the DHT.
//!
//! One random subset serves everybody for one interval, so asking more often brings nothing; who
//! does all the same gets contacts and no sample.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::peer_store::PeerStore;
use crate::base::addr::Family;
use crate::base::addr::network;
use crate::base::bounded::LimitedMap;
use crate::base::{Instant, Rng};

/// The subset of the interval, and who has had it.
#[derive(Debug)]
pub(super) struct Sampling {
    // Info-hashes back to back.
    subset: Vec<u8>,
    fresh_until: Instant,
    askers: LimitedMap<IpAddr, u32>,
}

/// What one asker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    pub hashes: &'a [u8],
    pub total: usize,
    /// Until there is another.
    pub interval: Duration,
}

impl Sampling {
    pub fn new(now: Instant) -> Self {
        Self { subset: Vec::new(), fresh_until: now, askers: LimitedMap::new(ASKERS_MAX) }
    }

    /// `from` asks.
    pub fn take(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        from: &SocketAddr,
        peers: &PeerStore,
    ) -> Sample<'_> {
        let (total, _) = peers.len();
        let over = now >= self.fresh_until;
        if over {
            self.fresh_until = now + INTERVAL;
            self.askers = LimitedMap::new(ASKERS_MAX);
        }
        // A young store has little to hide: all it has is told as it comes.
        let thin = self.subset.len() < HASH_LEN * total.min(SAMPLES_MAX);
        if over || thin {
            self.subset.clear();
            let hashes = peers.sample_hashes(rng, SAMPLES_MAX);
            hashes.iter().for_each(|hash| self.subset.extend_from_slice(hash.as_bytes()));
        }
        let source = match Family::of(from) {
            Family::V4 => from.ip(),
            Family::V6 => network(from.ip()),
        };
        let times = self.askers.get_or_insert_with(source, || 0);
        *times = times.saturating_add(1);
        let hashes = if *times <= ASKED_MAX { &self.subset[..] } else { &[] };
        Sample { hashes, total, interval: self.fresh_until.since(now) }
    }
}

/// Torrents in a sample: as many as fit beside the contacts of both families.
const SAMPLES_MAX: usize = 20;
/// How long a subset serves. BEP 51 allows six hours, longer than a peer is stored here.
const INTERVAL: Duration = Duration::from_secs(600);
/// How often one address gets the subset in an interval: an answer may be lost.
const ASKED_MAX: u32 = 2;
/// Addresses remembered in an interval; then the one that has not asked for longest is forgotten.
const ASKERS_MAX: usize = 4_096;
const HASH_LEN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{InfoHash, NodeId};

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn asker(n: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0900_0000 + n), 1))
    }

    fn store(count: u8) -> PeerStore {
        let mut rng = Rng::from_seed([9; 32]);
        let mut store = PeerStore::new(Family::V4, NodeId::new([0; 20]), at(0), &mut rng);
        for n in 0..count {
            let peer = SocketAddr::from(([20 + n, 1, 1, 1], 1));
            store.announce(at(0), &mut rng, InfoHash::new([n; 20]), peer, false).unwrap();
        }
        store
    }

    #[test]
    fn everybody_gets_the_same_subset_until_the_interval_is_over() {
        let (mut rng, peers) = (Rng::from_seed([1; 32]), store(200));
        let mut sampling = Sampling::new(at(0));
        let first = sampling.take(at(0), &mut rng, &asker(1), &peers);
        assert_eq!((first.hashes.len(), first.total), (400, 200));
        assert_eq!(first.interval, Duration::from_secs(600));
        let first = first.hashes.to_vec();
        let second = sampling.take(at(599), &mut rng, &asker(2), &peers);
        assert_eq!((second.hashes, second.interval), (&first[..], Duration::from_secs(1)));
        assert_ne!(sampling.take(at(600), &mut rng, &asker(3), &peers).hashes, first);
    }

    #[test]
    fn who_asks_again_and_again_gets_no_sample_until_the_next_interval() {
        let (mut rng, peers) = (Rng::from_seed([1; 32]), store(3));
        let mut sampling = Sampling::new(at(0));
        let mut ask = |now, n| sampling.take(now, &mut rng, &asker(n), &peers).hashes.len();
        let lens: Vec<usize> = (0..4).map(|n| ask(at(n), 1)).collect();
        assert_eq!(lens, [60, 60, 0, 0]);
        assert_eq!(ask(at(5), 2), 60);
        assert_eq!(ask(at(600), 1), 60);
    }

    #[test]
    fn young_store_tells_what_it_has_by_now() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut sampling = Sampling::new(at(0));
        for count in 0..30 {
            let peers = store(count);
            let sample = sampling.take(at(1), &mut rng, &asker(u32::from(count)), &peers);
            assert_eq!(sample.hashes.len(), 20 * usize::from(count).min(SAMPLES_MAX));
        }
    }

    #[test]
    fn askers_are_bounded() {
        let (mut rng, peers) = (Rng::from_seed([1; 32]), store(3));
        let mut sampling = Sampling::new(at(0));
        for n in 0..2 * ASKERS_MAX {
            sampling.take(at(1), &mut rng, &asker(u32::try_from(n).unwrap()), &peers);
        }
        assert_eq!(sampling.askers.len(), ASKERS_MAX);
    }
}
