//! What we get: interest, requests, blocks, verified and failed pieces, and the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::Torrent;
use crate::base::limits::BLOCK_LEN;
use crate::base::{Digest, Instant};
use crate::peer::{ConnId, Misbehavior};
use crate::swarm::blame::{Blame, Verdict};
use crate::swarm::picker::{self, BlockOutcome, Fellows, PeerPieces, Picker, PickerConfig};
use crate::swarm::{DiskRequest, Event, Phase, PieceIndex};
use crate::wire::bitfield::Bitfield;
use crate::wire::peer::BlockRef;

/// The data of a torrent whose storage is open.
#[derive(Debug)]
pub(super) struct Transfer {
    pub picker: Picker,
    pub wanted_bytes: u64,
    blame: Blame,
    /// Bytes given to the storage and not yet written.
    unwritten: usize,
    /// Too many of them: nothing is asked for until they are fewer.
    is_throttled: bool,
    /// Pieces that were good, were told, and are gone: as many as there are.
    pub lost: BTreeSet<u32>,
    pub ending: Ending,
    picked: Vec<picker::BlockRef>,
}

/// A block that was asked for.
#[derive(Debug)]
pub(super) struct Arrived {
    pub block: BlockRef,
    pub data: Bytes,
    /// The request was given up since.
    pub late: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Wanted pieces are missing.
    Incomplete,
    /// The storage makes everything durable.
    Flushing,
    /// The host was told.
    Told,
}

impl Torrent {
    // --- the storage is open ------------------------------------------------------------------

    pub(super) fn on_opened(&mut self, now: Instant, have: Bitfield) {
        let Some(content) = self.content.as_ref().filter(|_| self.transfer.is_none()) else {
            return;
        };
        let layout = &content.layout;
        let pieces = layout.piece_count();
        let have = if have.len() == pieces { have } else { Bitfield::none(pieces) };
        let config = PickerConfig {
            pieces,
            piece_len: layout.piece_length(),
            total_len: layout.total_len(),
            wanted: layout.wanted_pieces(self.config.wanted.as_deref()),
            have: have.clone(),
            sequential: self.config.sequential,
        };
        let wanted_bytes = content.bytes_of(&config.wanted);
        self.transfer = Some(Transfer {
            picker: Picker::new(config, self.rng.fork()),
            wanted_bytes,
            blame: Blame::new(),
            unwritten: 0,
            is_throttled: false,
            lost: BTreeSet::new(),
            ending: Ending::Incomplete,
            picked: Vec::new(),
        });
        self.apply_windows();
        self.consider_super_seeding(&have);
        self.phase = Phase::Downloading;
        self.say_event(Event::Opened { have: have.count(), pieces });
        for conn in self.conns() {
            let Some(peer) = self.peers.get_mut(&conn).filter(|p| p.conn.is_open()) else {
                continue;
            };
            // It was told that we have nothing when the connection was made.
            have.iter().for_each(|piece| peer.conn.say_have(piece));
            self.count_pieces(conn);
            self.mark(conn);
        }
        self.end_if_complete(now);
        self.fill_slots(now);
        self.refill_all(now);
        self.dial(now);
    }

    pub(super) fn conns(&self) -> Vec<ConnId> {
        self.peers.keys().copied().collect()
    }

    // --- who has what -------------------------------------------------------------------------

    // Tells the picker what a peer has, the first time.
    pub(super) fn count_pieces(&mut self, conn: ConnId) {
        let Some(transfer) = &mut self.transfer else { return };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(pieces) = peer.conn.pieces().filter(|_| !peer.is_counted) else { return };
        transfer.picker.peer_has(pieces);
        peer.is_counted = true;
        self.update_interest(conn);
    }

    pub(super) fn on_pieces(&mut self, now: Instant, conn: ConnId, before: Option<&Bitfield>) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        match (&mut self.transfer, peer.conn.pieces()) {
            (Some(transfer), Some(pieces)) if peer.is_counted => {
                if let Some(before) = before {
                    transfer.picker.peer_lost(before);
                }
                transfer.picker.peer_has(pieces);
                self.update_interest(conn);
            }
            (Some(_), _) => self.count_pieces(conn),
            (None, _) => {
                // We shall want what it has, and it may unchoke us until we know what that is.
                let wants = self.phase == Phase::FetchingMetadata && !self.config.metadata_only;
                if wants {
                    peer.conn.set_interested(true);
                }
            }
        }
        self.refill(now, conn);
        self.on_pieces_while_offering(now, conn, before);
    }

    pub(super) fn on_have(&mut self, now: Instant, conn: ConnId, piece: u32) {
        let Some(transfer) = &mut self.transfer else { return };
        let Some(peer) = self.peers.get_mut(&conn).filter(|p| p.is_counted) else { return };
        let Some(pieces) = peer.conn.pieces() else { return };
        if pieces.is_all() {
            // To the picker a seed is another kind of peer.
            let mut before = pieces.clone();
            before.clear(piece);
            transfer.picker.peer_lost(&before);
            transfer.picker.peer_has_all();
        } else {
            transfer.picker.peer_has_piece(piece);
        }
        if transfer.picker.is_needed(piece) && !self.holds_back(now) {
            let is_downloading = self.phase == Phase::Downloading;
            if let Some(peer) = self.peers.get_mut(&conn).filter(|_| is_downloading) {
                peer.conn.set_interested(true);
            }
            self.refill(now, conn);
        }
        if let Some(super_seed) = &mut self.super_seed {
            super_seed.on_have(now, conn, piece);
            self.offer(now, conn);
        }
    }

    pub(super) fn update_interest(&mut self, conn: ConnId) {
        let is_held = self.holds_back(self.now);
        let Some(transfer) = &self.transfer else { return };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let wants = match peer.conn.pieces().filter(|_| self.phase == Phase::Downloading) {
            Some(pieces) => !is_held && transfer.picker.is_interesting(picker_pieces(pieces)),
            None => false,
        };
        peer.conn.set_interested(wants);
        self.mark(conn);
    }

    /// A few times a second: who comes and goes shares what has to be fetched from the seeds.
    pub(super) fn tend_fellows(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        let fellows = self.peers.values().filter(|p| p.conn.is_open() && !p.conn.is_upload_only());
        let others = fellows.filter_map(|peer| peer.id);
        transfer.picker.set_fellows(Fellows::new(&self.config.peer_id, others));
    }

    // --- asking -------------------------------------------------------------------------------

    /// Asks a peer for as many blocks as its pipeline has room for.
    pub(super) fn refill(&mut self, now: Instant, conn: ConnId) {
        let Some(transfer) = &mut self.transfer else { return };
        let Some(peer) = self.peers.get(&conn) else { return };
        let room = peer.conn.requests.room(now);
        if room == 0 || !peer.conn.is_interested() || transfer.is_throttled {
            return;
        }
        let allowed = peer.conn.is_peer_choking().then(|| peer.conn.allowed_fast());
        if allowed.is_some_and(<[u32]>::is_empty) {
            return;
        }
        let in_flight: usize = self.peers.values().map(|p| p.conn.requests.len()).sum();
        let arriving = in_flight + transfer.unwritten / BLOCK_BYTES;
        // Who holds all requests and sends nothing does not keep the others from a few.
        let least = REQUESTS_MIN.saturating_sub(peer.conn.requests.len());
        let room = room.min(ARRIVING_MAX.saturating_sub(arriving).max(least));
        let Some(pieces) = peer.conn.pieces() else { return };
        let room = room.min(self.down.blocks_left(now, in_flight));
        let mut picked = std::mem::take(&mut transfer.picked);
        let pieces = picker_pieces(pieces);
        transfer.picker.pick(now, conn, pieces, allowed, room, &mut picked);
        self.down.on_asked(conn, picked.len());
        if let Some(peer) = self.peers.get_mut(&conn) {
            picked.drain(..).for_each(|block| peer.conn.ask(now, wire_ref(&block)));
        }
        transfer.picked = picked;
        self.mark(conn);
    }

    pub(super) fn refill_all(&mut self, now: Instant) {
        if self.phase == Phase::Downloading {
            let mut conns = self.conns();
            self.down.in_turn(&mut conns);
            conns.into_iter().for_each(|conn| self.refill(now, conn));
        }
    }

    pub(super) fn on_choked(&mut self, now: Instant, conn: ConnId) {
        if let Some(transfer) = &mut self.transfer {
            transfer.picker.on_choked(conn);
        }
        self.refill_all(now);
    }

    pub(super) fn on_rejected(&mut self, now: Instant, conn: ConnId, block: BlockRef) {
        self.with_picker(block, |picker, block| _ = picker.on_rejected(conn, block));
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        // It is not asked for something else at once: that could go round and round.
        peer.rejects += 1;
        if peer.rejects >= REJECTS_MAX {
            peer.rejects = 0;
            self.snub(now, conn);
        }
    }

    pub(super) fn with_picker(
        &mut self,
        block: BlockRef,
        act: impl FnOnce(&mut Picker, picker::BlockRef),
    ) {
        let piece = self.content.as_ref().and_then(|content| content.layout.piece(block.piece));
        if let (Some(piece), Some(transfer)) = (piece, &mut self.transfer) {
            let block = picker::BlockRef { piece, begin: block.begin, len: block.len };
            act(&mut transfer.picker, block);
        }
    }

    // --- getting ------------------------------------------------------------------------------

    pub(super) fn on_block(&mut self, now: Instant, conn: ConnId, arrived: Arrived) {
        let Arrived { block, data, late } = arrived;
        let len = data.len();
        self.download.add(len);
        self.block_at = now;
        match late {
            false => self.down.on_awaited(len),
            true => self.down.on_unpaid(len),
        }
        let Some(piece) = self.content.as_ref().and_then(|c| c.layout.piece(block.piece)) else {
            return;
        };
        let (Some(transfer), Some(peer)) = (&mut self.transfer, self.peers.get_mut(&conn)) else {
            return;
        };
        peer.was_useful = true;
        peer.rejects = 0;
        let picked = picker::BlockRef { piece, begin: block.begin, len: block.len };
        let outcome = match late {
            false => transfer.picker.on_block(now, conn, picked),
            // What was given up is not among what the storage is spared for.
            true if transfer.is_throttled => BlockOutcome::Unrequested,
            true => transfer.picker.on_late_block(now, conn, picked),
        };
        match outcome {
            BlockOutcome::Store { cancel } => {
                transfer.unwritten += len;
                if transfer.unwritten >= UNWRITTEN_MAX {
                    transfer.is_throttled = true;
                }
                self.ask_disk(DiskRequest::Write { piece, begin: block.begin, block: data });
                for other in cancel {
                    if let Some(peer) = self.peers.get_mut(&other) {
                        peer.conn.cancel(&block);
                        self.refill(now, other);
                        self.mark(other);
                    }
                }
            }
            // Brought by another since, or not wanted any more.
            BlockOutcome::Duplicate | BlockOutcome::Unrequested => self.wasted += len as u64,
        }
        self.refill(now, conn);
    }

    pub(super) fn on_written(&mut self, now: Instant, len: u32) {
        let Some(transfer) = &mut self.transfer else { return };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        transfer.unwritten = transfer.unwritten.saturating_sub(len);
        if transfer.is_throttled && transfer.unwritten <= UNWRITTEN_MAX / 2 {
            transfer.is_throttled = false;
            self.refill_all(now);
        }
    }

    pub(super) fn on_hashed(&mut self, now: Instant, piece: PieceIndex, digest: Digest) {
        let Some(content) = &self.content else { return };
        let is_good = content.info.piece_hash(piece.get()) == Some(digest);
        if self.transfer.as_ref().is_none_or(|t| t.picker.have().has(piece.get())) {
            return;
        }
        if is_good { self.on_piece_good(now, piece) } else { self.on_piece_bad(now, piece) }
    }

    fn on_piece_good(&mut self, now: Instant, piece: PieceIndex) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.picker.on_piece_good(piece);
        transfer.lost.remove(&piece.get());
        let compare = transfer.blame.on_piece_good(piece);
        self.ask_disk(DiskRequest::Commit { piece });
        if compare {
            self.ask_disk(DiskRequest::HashBlocks { piece });
        }
        self.say_event(Event::PieceVerified(piece));
        for conn in self.conns() {
            let Some(peer) = self.peers.get_mut(&conn).filter(|p| p.conn.is_open()) else {
                continue;
            };
            peer.conn.say_have(piece.get());
            self.mark(conn);
        }
        self.end_if_complete(now);
    }

    fn on_piece_bad(&mut self, now: Instant, piece: PieceIndex) {
        let Some(transfer) = &mut self.transfer else { return };
        let givers = transfer.picker.givers(piece);
        let named: Vec<(u32, SocketAddr)> = givers
            .iter()
            .filter_map(|(block, conn)| self.addrs.peek(conn).map(|addr| (*block, *addr)))
            .collect();
        // A giver that nobody remembers must not make another look like the only one.
        let verdict = if named.len() == givers.len() {
            transfer.blame.on_piece_failed(piece, &named)
        } else {
            Verdict::Unknown
        };
        transfer.picker.on_piece_bad(piece);
        self.hash_failures += 1;
        let len = self.content.as_ref().map_or(0, |c| c.layout.piece_len(piece));
        self.wasted += u64::from(len);
        if verdict == Verdict::HashBlocks {
            self.ask_disk(DiskRequest::HashBlocks { piece });
        }
        self.ask_disk(DiskRequest::Discard { piece });
        self.say_event(Event::PieceFailed(piece));
        if let Verdict::Convicted(addr) = verdict {
            self.ban(now, addr, Misbehavior::CorruptBlocks);
        }
        self.conns().into_iter().for_each(|conn| self.update_interest(conn));
        self.refill_all(now);
    }

    pub(super) fn on_blocks_hashed(&mut self, now: Instant, piece: PieceIndex, digests: &[Digest]) {
        let Some(transfer) = &mut self.transfer else { return };
        for addr in transfer.blame.on_blocks_hashed(piece, digests) {
            self.ban(now, addr, Misbehavior::CorruptBlocks);
        }
    }

    // --- the end ------------------------------------------------------------------------------

    fn end_if_complete(&mut self, now: Instant) {
        let Some(transfer) = &mut self.transfer else { return };
        if !transfer.picker.is_complete() || transfer.ending != Ending::Incomplete {
            return;
        }
        transfer.ending = Ending::Flushing;
        self.phase = Phase::Seeding;
        self.ask_disk(DiskRequest::Flush);
        for conn in self.conns() {
            let Some(peer) = self.peers.get_mut(&conn).filter(|p| p.conn.is_open()) else {
                continue;
            };
            peer.conn.set_interested(false);
            peer.conn.say_upload_only(true);
            self.mark(conn);
        }
        self.close_useless(now);
    }

    pub(super) fn on_flushed(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.ending == Ending::Flushing {
            transfer.ending = Ending::Told;
            self.say_event(Event::Finished);
        }
    }

    pub(super) fn on_select(&mut self, now: Instant) {
        let (Some(content), Some(transfer)) = (&self.content, &mut self.transfer) else { return };
        let wanted = content.layout.wanted_pieces(self.config.wanted.as_deref());
        transfer.picker.set_wanted(&wanted);
        transfer.wanted_bytes = content.bytes_of(&wanted);
        let files = content.layout.files().len();
        let flags = self.config.wanted.clone().unwrap_or_else(|| vec![true; files]);
        if !transfer.picker.is_complete() {
            transfer.ending = Ending::Incomplete;
            self.phase = Phase::Downloading;
        }
        self.ask_disk(DiskRequest::Select { wanted: flags });
        for conn in self.conns() {
            self.update_interest(conn);
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.conn.say_upload_only(self.phase == Phase::Seeding);
            self.mark(conn);
        }
        self.end_if_complete(now);
        self.refill_all(now);
        self.dial(now);
    }

    // --- a few times a second -----------------------------------------------------------------

    /// Takes from silent and slow peers what others can bring, and keeps pipelines full.
    pub(super) fn tend_downloads(&mut self, now: Instant) {
        let deliverers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| {
                let conn = &p.conn;
                !conn.is_peer_choking() && conn.is_interested() && !conn.requests.is_snubbed()
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in self.conns() {
            // What nobody else has would be asked of the same peer again, whose slow line is full of it.
            let has_others = deliverers.iter().any(|other| *other != conn)
                && self.transfer.as_ref().is_some_and(|t| !t.picker.is_only_source(conn));
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            let patience = if has_others { SILENCE_MAX } else { LONE_SILENCE_MAX };
            if peer.conn.requests.silence(now) >= patience {
                self.snub(now, conn);
            } else if has_others {
                let blocks = peer.conn.requests.trim();
                peer.conn.say_cancelled(&blocks);
                for block in blocks {
                    self.with_picker(block, |picker, block| _ = picker.on_cancelled(conn, block));
                }
            }
            // Interest comes with news from the peer; it fades with what we have.
            if self.peers.get(&conn).is_some_and(|p| p.conn.is_interested()) {
                self.update_interest(conn);
            }
        }
        self.refill_all(now);
    }

    fn snub(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let blocks = peer.conn.requests.snub(now);
        peer.conn.say_cancelled(&blocks);
        if let Some(transfer) = &mut self.transfer {
            transfer.picker.on_choked(conn);
        }
        self.mark(conn);
    }
}

impl super::Content {
    fn bytes_of(&self, pieces: &Bitfield) -> u64 {
        let len = |piece| self.layout.piece(piece).map_or(0, |p| self.layout.piece_len(p));
        pieces.iter().map(|piece| u64::from(len(piece))).sum()
    }
}

fn picker_pieces(pieces: &Bitfield) -> PeerPieces<'_> {
    if pieces.is_all() { PeerPieces::All } else { PeerPieces::Some(pieces) }
}

fn wire_ref(block: &picker::BlockRef) -> BlockRef {
    BlockRef { piece: block.piece.get(), begin: block.begin, len: block.len }
}

const BLOCK_BYTES: usize = BLOCK_LEN as usize;
/// Blocks that are under way from all peers together or wait for the storage, 24 MiB: what a
/// download holds in memory at most, and enough for 240 MB/s at 100 ms.
const ARRIVING_MAX: usize = 1_536;
/// Blocks that each peer may be asked for even so.
const REQUESTS_MIN: usize = 4;
/// Bytes that may wait for the storage before we stop asking for more.
const UNWRITTEN_MAX: usize = 12 << 20;
/// A peer that lets us wait so long is not asked any more while others can deliver. One block in
/// this time is 5 KiB/s.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The same if there is nobody else who has what it was asked for.
const LONE_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Rejects in a row after which a peer is only asked now and then.
const REJECTS_MAX: u32 = 64;
