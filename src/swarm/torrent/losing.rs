//! Pieces that are gone again (BEP 54 "lt_donthave"): ours, because a file changed behind our back
//! or its disk fails, and those of peers.

use super::Torrent;
use super::downloading::Ending;
use crate::base::Instant;
use crate::peer::ConnId;
use crate::swarm::{DiskRequest, Event, Phase, PieceIndex};
use crate::wire::peer::BlockRef;

impl Torrent {
    /// A good piece cannot be read any more. Whoever still downloads fetches it again; a seed may
    /// not be allowed to write, and goes on with what is left.
    pub(super) fn on_piece_lost(&mut self, now: Instant, piece: PieceIndex) {
        let Some(transfer) = &mut self.transfer else { return };
        if !transfer.picker.have().has(piece.get()) {
            return;
        }
        let again = self.phase == Phase::Downloading || transfer.ending == Ending::Flushing;
        let was_wanted = transfer.picker.wanted().has(piece.get());
        transfer.picker.on_piece_lost(piece, again);
        transfer.lost.insert(piece.get());
        if !again && was_wanted {
            let len = self.content.as_ref().map_or(0, |c| c.layout.piece_len(piece));
            transfer.wanted_bytes -= u64::from(len);
        }
        let goes_on = again && self.phase == Phase::Seeding;
        if again {
            transfer.ending = Ending::Incomplete;
            self.phase = Phase::Downloading;
        }
        self.ask_disk(DiskRequest::Discard { piece });
        self.say_event(Event::PieceLost(piece));
        // What it would hand out next may be what is gone.
        self.end_super_seeding();
        for conn in self.conns() {
            let Some(peer) = self.peers.get_mut(&conn).filter(|p| p.conn.is_open()) else {
                continue;
            };
            peer.conn.say_dont_have(piece.get());
            if goes_on {
                peer.conn.say_upload_only(false);
            }
            self.update_interest(conn);
            self.mark(conn);
        }
        self.refill_all(now);
    }

    /// A peer has a piece less.
    pub(super) fn on_peer_lost(&mut self, conn: ConnId, piece: u32, asked: &[BlockRef]) {
        for block in asked {
            self.with_picker(*block, |picker, block| _ = picker.on_rejected(conn, block));
        }
        if let Some(super_seed) = &mut self.super_seed {
            super_seed.on_lost(conn, piece);
        }
        let (Some(transfer), Some(peer)) = (&mut self.transfer, self.peers.get(&conn)) else {
            return;
        };
        let Some(pieces) = peer.conn.pieces().filter(|_| peer.is_counted) else { return };
        if pieces.count() + 1 == pieces.len() {
            // It had everything, and to the picker that is another kind of peer.
            transfer.picker.peer_lost_all();
            transfer.picker.peer_has(pieces);
        } else {
            transfer.picker.peer_lost_piece(piece);
        }
        // Nobody is asked in its place at once: a peer that has and has not would keep us busy.
        self.update_interest(conn);
    }
}
