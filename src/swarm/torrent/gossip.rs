//! Peer exchange (BEP 11), both ways.

use std::collections::BTreeMap;

use super::Torrent;
use super::connections::Peer;
use crate::base::Instant;
use crate::peer::ConnId;
use crate::swarm::{PeerSource, Phase};
use crate::wire::extension::{Pex, PexPeer};

impl Torrent {
    /// Tells peers of each other.
    pub(super) fn tell_peers(&mut self, now: Instant) {
        if self.is_private() || self.phase == Phase::Stopped {
            return;
        }
        let mut peers = BTreeMap::new();
        for peer in self.peers.values().filter(|p| p.conn.is_open()) {
            let Some(addr) = peer.dial_addr else { continue };
            peers.insert(addr, flags(peer));
        }
        for peer in self.peers.values_mut() {
            if peer.conn.extensions().is_none_or(|e| e.pex_id.is_none()) {
                continue;
            }
            let own = peer.dial_addr.unwrap_or(peer.addr);
            if let Some(pex) = peer.pex.next_message(now, own, &peers, &self.parted) {
                peer.conn.say_pex(&pex);
            }
        }
    }

    /// We are about to hang up on a peer that has done nothing wrong.
    pub(super) fn note_parting(&mut self, conn: ConnId) {
        let peer = self.peers.get(&conn).filter(|peer| peer.conn.is_open());
        if let Some((addr, peer)) = peer.and_then(|peer| Some((peer.dial_addr?, peer))) {
            self.parted.add(PexPeer { addr, flags: flags(peer) });
        }
    }

    pub(super) fn on_pex(&mut self, now: Instant, conn: ConnId, pex: &Pex) {
        if self.is_private() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !peer.pex.may_hear(now) {
            return;
        }
        let informant = peer.addr.ip();
        let seeding = self.phase == Phase::Seeding;
        for told in pex.added.iter().filter(|told| !(seeding && told.is_seed())) {
            self.candidates.add(now, PeerSource::Pex, told.addr, Some(informant));
        }
        self.dial(now);
    }

    /// Is it known to be private (BEP 27)?
    pub(super) fn is_private(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.info.private)
    }
}

// What is told of a peer beside its address.
fn flags(peer: &Peer) -> u8 {
    let seed = if peer.conn.is_upload_only() { PexPeer::SEED } else { 0 };
    let reachable = if peer.is_dialled { PexPeer::REACHABLE } else { 0 };
    seed | reachable
}
