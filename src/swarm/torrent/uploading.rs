//! What we give: requests, reads from the storage, and whom to serve.

use bytes::Bytes;

use super::Torrent;
use crate::base::Instant;
use crate::peer::ConnId;
use crate::swarm::choker::{Changes, ChokerPeer};
use crate::swarm::fast::allowed_fast;
use crate::swarm::{DiskRequest, Output, Phase};
use crate::wire::peer::BlockRef;

impl Torrent {
    /// A request that its connection found nothing wrong with.
    pub(super) fn on_request(&mut self, now: Instant, conn: ConnId, block: BlockRef) {
        let is_here = self.transfer.as_ref().is_some_and(|t| t.picker.have().has(block.piece));
        let was_here = self.transfer.as_ref().is_some_and(|t| t.lost.contains(&block.piece));
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if is_here {
            peer.conn.serve(block);
            self.read_ahead(conn);
        } else if was_here {
            // We said once that we have it, and not every peer understands that we took it back.
            peer.conn.refuse(&block);
            self.mark(conn);
        } else if let Err(misbehavior) = peer.conn.count_invalid_request(&block) {
            self.on_misbehavior(now, conn, misbehavior);
        }
    }

    /// Asks the storage for what a peer waits for, as far as the peer takes what it gets.
    pub(super) fn read_ahead(&mut self, conn: ConnId) {
        let (Some(peer), Some(content)) = (self.peers.get_mut(&conn), &self.content) else {
            return;
        };
        while peer.conn.uploads.waiting() > 0 {
            let Some(span) = peer.conn.next_read(self.up.left(self.now)) else { return };
            let Some(piece) = content.layout.piece(span.piece) else { continue };
            self.up.spend(conn, bytes(span.len));
            let read = DiskRequest::Read { conn, piece, begin: span.begin, len: span.len };
            self.outputs.push_back(Output::Disk(read));
        }
    }

    pub(super) fn on_read(
        &mut self,
        now: Instant,
        conn: ConnId,
        piece: u32,
        begin: u32,
        span: &Bytes,
    ) {
        let peer = self.peers.get_mut(&conn);
        let blocks = peer.and_then(|peer| peer.conn.uploads.on_read(piece, begin));
        let blocks = blocks.unwrap_or_default();
        // What was cancelled meanwhile, or has nobody to go to any more, is not sent.
        let sent: usize = blocks.iter().map(|block| bytes(block.len)).sum();
        self.up.refund(span.len().saturating_sub(sent));
        let Some(peer) = self.peers.get_mut(&conn).filter(|_| !blocks.is_empty()) else {
            return self.read_ahead(conn);
        };
        peer.was_useful = true;
        // What was said before the block has to go out before it.
        self.flush(conn);
        let mut has_whole_piece = false;
        for block in blocks {
            let Some(peer) = self.peers.get_mut(&conn) else { return };
            let part = slice(span, block.begin - begin, block.len);
            let Some(part) = part else {
                peer.conn.refuse(&block);
                continue;
            };
            let head = peer.conn.block_head(now, &block);
            self.outputs.push_back(Output::SendBlock { conn, head, block: part });
            let sent =
                self.super_seed.as_mut().map(|s| s.on_sent(now, conn, block.piece, block.len));
            has_whole_piece |= sent == Some(true);
        }
        if has_whole_piece {
            self.offer(now, conn);
        }
        self.read_ahead(conn);
        self.mark(conn);
    }

    pub(super) fn on_read_failed(&mut self, conn: ConnId, piece: u32, begin: u32, len: u32) {
        self.up.refund(bytes(len));
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        for block in peer.conn.uploads.on_read(piece, begin).unwrap_or_default() {
            peer.conn.refuse(&block);
        }
        self.read_ahead(conn);
        self.mark(conn);
    }

    /// Somebody became interested, or a place is free.
    pub(super) fn fill_slots(&mut self, now: Instant) {
        if self.transfer.is_some() {
            let changes = self.choker.fill(now, &self.choker_peers());
            self.apply(now, &changes);
            self.help_beginners();
        }
    }

    /// Takes places back when it is time, or when they are wasted, and goes on reading for those that
    /// are served.
    pub(super) fn tend_uploads(&mut self, now: Instant) {
        if self.peers.values().any(|peer| peer.conn.wastes_slot(now)) {
            self.fill_slots(now);
        }
        if self.choker.poll_timeout().is_some_and(|at| at <= now) {
            let seeding = self.phase == Phase::Seeding;
            let changes = self.choker.handle_timeout(now, seeding, &self.choker_peers());
            self.apply(now, &changes);
        }
        self.help_beginners();
    }

    // Who waits with empty hands while all places are taken gets a few pieces for nothing (BEP 6).
    // Not who is served: in a small swarm it would only fetch what its neighbours have of us.
    fn help_beginners(&mut self) {
        let (Some(content), Some(transfer)) = (&self.content, &self.transfer) else { return };
        if transfer.picker.have().is_none() {
            return;
        }
        let pieces = content.layout.piece_count();
        // Nor who was told that we have nothing.
        let was_told = |conn| self.super_seed.as_ref().is_none_or(|s| !s.has_peer(conn));
        let beginners =
            self.peers.iter().filter(|(conn, p)| p.conn.wants_grant() && was_told(**conn));
        let beginners: Vec<_> = beginners.map(|(conn, _)| *conn).collect();
        for conn in beginners {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            let set = allowed_fast(peer.addr.ip(), &self.info_hash, pieces, GRANTED_PIECES);
            peer.conn.grant(set);
            self.mark(conn);
        }
    }

    fn choker_peers(&self) -> Vec<ChokerPeer> {
        let open = self.peers.iter().filter(|(_, peer)| peer.conn.is_open());
        let peers = open.map(|(conn, peer)| ChokerPeer {
            conn: *conn,
            interested: peer.conn.is_peer_interested(),
            download_rate: peer.conn.download.per_second(),
            snubbed: peer.conn.requests.is_snubbed(),
            wasteful: peer.conn.wastes_slot(self.now),
            proven: peer.conn.upload.total() > 0,
            connected_at: peer.conn.opened_at(),
        });
        peers.collect()
    }

    fn apply(&mut self, now: Instant, changes: &Changes) {
        let choke = changes.choke.iter().map(|conn| (*conn, true));
        let unchoke = changes.unchoke.iter().map(|conn| (*conn, false));
        for (conn, choking) in choke.chain(unchoke) {
            self.offer_to(now, conn, !choking);
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.conn.set_choking(now, choking);
            self.mark(conn);
        }
    }
}

fn bytes(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn slice(span: &Bytes, begin: u32, len: u32) -> Option<Bytes> {
    let begin = usize::try_from(begin).ok()?;
    let end = begin.checked_add(usize::try_from(len).ok()?)?;
    (end <= span.len()).then(|| span.slice(begin..end))
}

/// Pieces that a choked beginner may have: what BEP 6 recommends.
const GRANTED_PIECES: usize = 10;
