//! What we tell peers that we have: everything, or as a lone seed a few pieces to each (BEP 16).

use std::time::Duration;

use super::Torrent;
use super::connections::Peer;
use crate::base::limits::BLOCK_LEN;
use crate::base::{Instant, PeerId};
use crate::peer::ConnId;
use crate::swarm::Phase;
use crate::swarm::superseed::{SUPER_SEED_PIECES_MIN, SuperSeed};
use crate::wire::bitfield::Bitfield;

impl Torrent {
    /// The storage is open and holds `have`: whoever has everything from the start may be the only
    /// one.
    pub(super) fn consider_super_seeding(&mut self, have: &Bitfield) {
        let Some(content) = self.content.as_ref().filter(|_| self.config.super_seeding) else {
            return;
        };
        // The peers that are here already were told that we have nothing, or will be asked.
        if have.is_all() && have.len() >= SUPER_SEED_PIECES_MIN && self.peers.is_empty() {
            self.super_seed = Some(SuperSeed::new(content.geometry(), &mut self.rng));
        }
    }

    /// Tells a peer whose handshake is here what we have.
    pub(super) fn tell_pieces(&mut self, now: Instant, conn: ConnId) {
        let have = self.transfer.as_ref().map(|t| t.picker.have());
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let id = peer.id.unwrap_or(PeerId::new([0; 20]));
        match &mut self.super_seed {
            Some(super_seed) if is_client(&id, &COPING_CLIENTS) => {
                peer.conn.say_pieces(None);
                let ahead = if is_client(&id, &DOZING_CLIENTS) { DOZING_AHEAD } else { 0 };
                super_seed.add_peer(now, conn, ahead);
            }
            Some(_) | None => peer.conn.say_pieces(have),
        }
    }

    /// Tells a peer of more pieces, if it is its turn.
    pub(super) fn offer(&mut self, now: Instant, conn: ConnId) {
        let is_served = self.peers.get(&conn).is_some_and(|peer| !peer.conn.is_choking());
        self.offer_to(now, conn, is_served);
    }

    /// The same for a peer that `is_served`, or is about to be: some look what there is when they
    /// are unchoked, and then not again for a while.
    pub(super) fn offer_to(&mut self, now: Instant, conn: ConnId, is_served: bool) {
        let (Some(super_seed), Some(peer)) = (&mut self.super_seed, self.peers.get_mut(&conn))
        else {
            return;
        };
        if !peer.conn.is_open() {
            return;
        }
        let was_told_out = super_seed.is_told_out();
        let theirs = peer.conn.pieces();
        let mut pieces = Vec::new();
        if !peer.conn.is_peer_interested() {
            pieces.extend(std::iter::from_fn(|| super_seed.bait(now, conn, theirs)));
        } else if is_served {
            let rate = peer.conn.upload.per_second();
            pieces.extend(std::iter::from_fn(|| super_seed.next(now, conn, theirs, rate)));
        }
        pieces.into_iter().for_each(|piece| peer.conn.say_have(piece));
        self.mark(conn);
        if !was_told_out {
            self.keep_awake();
        }
    }

    // Once nothing is left to be divided, what is told is told late: whoever would look the other way for
    // seconds until then sees everything.
    fn keep_awake(&mut self) {
        let Some(super_seed) = self.super_seed.as_ref().filter(|s| s.is_told_out()) else { return };
        let dozing = self.peers.iter().filter(|(conn, peer)| {
            super_seed.has_peer(**conn) && peer.id.is_some_and(|id| is_client(&id, &DOZING_CLIENTS))
        });
        let dozing: Vec<_> = dozing.map(|(conn, _)| *conn).collect();
        dozing.into_iter().for_each(|conn| self.show_everything(conn));
    }

    /// A few times a second: rates have changed, and pieces have had time to spread.
    pub(super) fn tend_offers(&mut self, now: Instant) {
        let Some(super_seed) = &mut self.super_seed else { return };
        let is_served = |peer: &Peer| !peer.conn.is_choking() && peer.conn.is_peer_interested();
        // What we say waits behind the blocks that we send.
        let patience = if self.peers.values().any(is_served) { PATIENCE_BUSY } else { PATIENCE };
        if super_seed.is_pointless(now) {
            return self.end_super_seeding();
        }
        let mut misfits = Vec::new();
        for (conn, peer) in &self.peers {
            let is_choosy =
                !peer.conn.is_peer_interested() && super_seed.on_unwanted(now, *conn, patience);
            if is_choosy || super_seed.stands_still(*conn) {
                misfits.push(*conn);
            }
        }
        self.keep_awake();
        misfits.into_iter().for_each(|conn| self.show_everything(conn));
        self.offer_all(now);
    }

    /// Tells everybody of more pieces whose turn it is.
    pub(super) fn offer_all(&mut self, now: Instant) {
        self.conns().into_iter().for_each(|conn| self.offer(now, conn));
    }

    /// A peer named its pieces. A second seed means that we are not needed so badly.
    pub(super) fn on_pieces_while_offering(
        &mut self,
        now: Instant,
        conn: ConnId,
        before: Option<&Bitfield>,
    ) {
        let (Some(super_seed), Some(peer)) = (&mut self.super_seed, self.peers.get(&conn)) else {
            return;
        };
        if peer.conn.is_seed() && self.phase == Phase::Seeding {
            return self.end_super_seeding();
        }
        if let Some(pieces) = peer.conn.pieces() {
            super_seed.on_pieces(before, pieces);
        }
        self.offer(now, conn);
    }

    /// Tells everybody of everything.
    pub(super) fn end_super_seeding(&mut self) {
        self.conns().into_iter().for_each(|conn| self.show_everything(conn));
        self.super_seed = None;
    }

    // From now on this peer sees a seed like any other.
    fn show_everything(&mut self, conn: ConnId) {
        let (Some(super_seed), Some(peer)) = (&mut self.super_seed, self.peers.get_mut(&conn))
        else {
            return;
        };
        if !peer.conn.is_open() {
            return;
        }
        if let Some(untold) = super_seed.untold(conn) {
            untold.for_each(|piece| peer.conn.say_have(piece));
            peer.conn.say_upload_only(true);
        }
        super_seed.show_all(conn);
        self.mark(conn);
    }
}

fn is_client(id: &PeerId, clients: &[&[u8]]) -> bool {
    clients.iter().any(|client| id.as_bytes().starts_with(client))
}

/// Clients that are known to cope with a seed that has nothing at first, by the start of their ids
/// (BEP 20): ourselves, those on libtorrent, aria2 and rqbit. Transmission stood still with it when
/// tried: it sees everything, and takes what it likes.
const COPING_CLIENTS: [&[u8]; 6] = [b"-TK", b"-LT", b"-qB", b"-DE", b"A2-", b"-rQ"];
/// Clients that look five seconds later when they have asked for all that there is: rqbit.
const DOZING_CLIENTS: [&[u8]; 1] = [b"-rQ"];
/// They ask for so many bytes at once; as long as they know of more they do not doze.
const DOZING_AHEAD: u64 = 128 * BLOCK_LEN as u64;

/// A peer that is told of a piece and wants it says so sooner, unless it is very far away,
const PATIENCE: Duration = Duration::from_millis(300);
/// or its line or ours is full.
const PATIENCE_BUSY: Duration = Duration::from_secs(3);
