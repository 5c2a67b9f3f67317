//! What queries do to the stores of a node and take from them: peers (BEP 5, 33) and items (BEP 44).
//!
//! Whoever wants something stored shows a token first. Who has used up his share is told 201; what the
//! whole node has no room for, 202.

use std::net::{IpAddr, SocketAddr};

use super::{Refusal, Server, VERIFICATIONS_BURST, VERIFICATIONS_RATE};
use crate::base::addr::is_private;
use crate::base::{InfoHash, Instant, Key};
use crate::dht::item_store::PutError;
use crate::dht::node::Node;
use crate::dht::peer_store::{Peer, StoreError};
use crate::wire::bloom::Filter;
use crate::wire::item::ItemError;
use crate::wire::krpc::{ErrorCode, Put};

impl Node {
    pub(super) fn check_token(
        &mut self,
        now: Instant,
        from: SocketAddr,
        target: Key,
        token: &[u8],
    ) -> Result<(), Refusal> {
        let tokens = &mut self.server.tokens;
        if tokens.is_valid(now, &mut self.rng, from.ip(), target, token) {
            return Ok(());
        }
        Err(refusal(ErrorCode::Protocol, "invalid token"))
    }

    /// Peers of `info_hash` go to the values of the answer; without seeds if they are not wanted.
    pub(super) fn sample_peers(
        &mut self,
        now: Instant,
        asker: SocketAddr,
        info_hash: InfoHash,
        noseed: bool,
    ) {
        let usable = |peer: &Peer| is_for(asker, peer) && !(noseed && peer.seed);
        let Server { peers, values, .. } = &mut self.server;
        peers.sample(now, &mut self.rng, info_hash, PEERS_PER_ANSWER_MAX, usable, values);
    }

    /// How many peers `info_hash` has here: seeds and others (BEP 33).
    pub(super) fn filters(
        &mut self,
        now: Instant,
        asker: SocketAddr,
        info_hash: InfoHash,
    ) -> Option<(Filter, Filter)> {
        self.server.peers.filters(now, info_hash, |peer| is_for(asker, peer))
    }

    /// Peers of `info_hash` that others announced to us.
    pub(in crate::dht) fn stored_peers(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
    ) -> Vec<SocketAddr> {
        let mut peers = Vec::new();
        let count = PEERS_PER_ANSWER_MAX;
        self.server.peers.sample(now, &mut self.rng, info_hash, count, |_| true, &mut peers);
        peers
    }

    /// We announce ourselves, so whoever asks us is told as well.
    pub(in crate::dht) fn store_own(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        port: u16,
        seed: bool,
    ) {
        let ips: Vec<IpAddr> = self.own_ips().collect();
        let Node { server, rng, .. } = self;
        for ip in ips {
            // Without room it is only not told here.
            let _ = server.peers.announce(now, rng, info_hash, SocketAddr::new(ip, port), seed);
        }
    }

    pub(super) fn store_peer(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        info_hash: InfoHash,
        seed: bool,
    ) -> Result<(), Refusal> {
        let stored = self.server.peers.announce(now, &mut self.rng, info_hash, peer, seed);
        match stored {
            Ok(()) => self.stats.announces_stored += 1,
            Err(_) => self.stats.announces_refused += 1,
        }
        stored.map_err(|error| match error {
            StoreError::AddressShare | StoreError::SwarmShare => SHARE_USED,
            StoreError::Full | StoreError::Family => NO_ROOM,
        })
    }

    pub(super) fn store_item(
        &mut self,
        now: Instant,
        from: SocketAddr,
        put: &Put<'_>,
    ) -> Result<(), Refusal> {
        let Server { items, verifications, .. } = &mut self.server;
        if put.signed.is_some()
            && !verifications.admit(now, VERIFICATIONS_RATE, VERIFICATIONS_BURST)
        {
            self.stats.items_refused += 1;
            return Err(refusal(ErrorCode::Server, "busy"));
        }
        let taken = items.put(now, put, from.ip());
        match taken {
            Ok(_) => self.stats.items_stored += 1,
            Err(_) => self.stats.items_refused += 1,
        }
        taken.map(|_| ()).map_err(|error| match error {
            PutError::Item(error) => refusal(error.code(), item_text(error)),
            PutError::CasMismatch(_) => refusal(ErrorCode::CasMismatch, "cas mismatch"),
            PutError::OldSequence(_) => refusal(ErrorCode::OldSequence, "sequence number too old"),
            PutError::Share => SHARE_USED,
            PutError::Full => NO_ROOM,
        })
    }
}

// Peers on a private network mean nothing to somebody outside.
fn is_for(asker: SocketAddr, peer: &Peer) -> bool {
    is_private(asker.ip()) || !is_private(peer.addr.ip())
}

const fn refusal(code: ErrorCode, text: &'static str) -> Refusal {
    Refusal { code, text }
}

fn item_text(error: ItemError) -> &'static str {
    match error {
        ItemError::Value => "invalid v",
        ItemError::Seq => "invalid seq",
        ItemError::ValueLength => "v too big",
        ItemError::SaltLength => "salt too big",
        ItemError::Forged => "invalid signature",
    }
}

const SHARE_USED: Refusal = refusal(ErrorCode::Generic, "too much from your network");
const NO_ROOM: Refusal = refusal(ErrorCode::Server, "no room");

/// Peers in one answer, as libtorrent sends; the length of the datagram may allow fewer.
const PEERS_PER_ANSWER_MAX: usize = 100;
