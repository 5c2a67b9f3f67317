//! The info dictionary (BEP 9): fetching it, checking it, using it, giving it to others.

use bytes::Bytes;

use super::{Content, Torrent};
use crate::base::Instant;
use crate::base::hash::sha1;
use crate::peer::{ConnId, Misbehavior};
use crate::swarm::layout::Layout;
use crate::swarm::metadata::Outcome;
use crate::swarm::{DiskRequest, Event, Phase, StopCause};
use crate::wire::extension::{METADATA_PIECE_LEN, MetadataMessage};
use crate::wire::metainfo::Info;

impl Torrent {
    /// A peer's extension handshake may say that it has the info dictionary.
    pub(super) fn add_metadata_giver(&mut self, now: Instant, conn: ConnId) {
        if self.phase != Phase::FetchingMetadata {
            return;
        }
        let Some(theirs) = self.peers.get(&conn).and_then(|p| p.conn.extensions()) else { return };
        let (Some(_), Some(size)) = (theirs.metadata_id, theirs.metadata_size) else { return };
        self.metadata.add_giver(now, conn, size);
        self.ask_for_metadata(now);
    }

    pub(super) fn ask_for_metadata(&mut self, now: Instant) {
        if self.phase != Phase::FetchingMetadata {
            return;
        }
        for (conn, piece) in self.metadata.next_requests(now) {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.conn.say_metadata(&MetadataMessage::Request { piece });
            self.mark(conn);
        }
    }

    pub(super) fn on_metadata(&mut self, now: Instant, conn: ConnId, message: MetadataMessage) {
        match message {
            MetadataMessage::Request { piece } => self.serve_metadata(conn, piece),
            MetadataMessage::Data { piece, total_size, data } => {
                if self.phase == Phase::FetchingMetadata {
                    self.on_metadata_piece(now, conn, piece, total_size, &data);
                }
            }
            MetadataMessage::Reject { piece } => {
                self.metadata.on_reject(now, conn, piece);
                self.ask_for_metadata(now);
            }
            MetadataMessage::Unknown => {}
        }
    }

    fn on_metadata_piece(
        &mut self,
        now: Instant,
        conn: ConnId,
        piece: u32,
        total_size: u64,
        data: &Bytes,
    ) {
        match self.metadata.on_data(now, conn, piece, total_size, data) {
            Outcome::Ignored => {}
            Outcome::Grew => self.ask_for_metadata(now),
            Outcome::Contradiction => self.convict_of_metadata(now, conn),
            Outcome::Complete(copy) if sha1(&copy) == *self.info_hash.as_bytes() => {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.was_useful = true;
                }
                self.on_info(now, copy);
            }
            Outcome::Complete(_) => self.convict_of_metadata(now, conn),
        }
    }

    // All of a copy comes from one peer: whoever gave a wrong one is a liar beyond doubt.
    fn convict_of_metadata(&mut self, now: Instant, conn: ConnId) {
        let Some(addr) = self.peers.get(&conn).map(|p| p.addr) else { return };
        self.ban(now, addr, Misbehavior::WrongMetadata);
        self.ask_for_metadata(now);
    }

    fn on_info(&mut self, now: Instant, info: Bytes) {
        self.metadata.clear();
        self.say_event(Event::MetadataReady { info: info.clone() });
        if self.config.metadata_only {
            return self.stop(now);
        }
        self.use_info(now, info);
    }

    /// The info dictionary is here, and its hash is right: opens the storage.
    pub(super) fn use_info(&mut self, now: Instant, bytes: Bytes) {
        let read = Info::decode(&bytes).map_err(|error| error.to_string()).and_then(|info| {
            let layout = Layout::new(&info).map_err(|error| error.to_string())?;
            Ok((info, layout))
        });
        let (info, layout) = match read {
            Ok(read) => read,
            Err(reason) => {
                self.stopped_by = Some(StopCause::Metadata(reason.clone()));
                self.say_event(Event::MetadataUnusable { info: bytes, reason });
                return self.stop(now);
            }
        };
        let content = Content { bytes: bytes.clone(), info, layout };
        let geometry = content.geometry();
        self.content = Some(content);
        self.open(bytes, false);
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in conns {
            let Some(addr) = self.peers.get(&conn).map(|p| p.addr) else { continue };
            let hello = self.hello(addr);
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            if let Err(misbehavior) = peer.conn.set_geometry(geometry) {
                self.on_misbehavior(now, conn, misbehavior);
                continue;
            }
            // Who came for the metadata can have it from us now.
            peer.conn.say_hello(&hello);
            self.mark(conn);
        }
    }

    /// Reads all its data again, whatever was recorded of it, and goes on with what is good: somebody else
    /// has had their hands in it, or its disk is not to be trusted. Peers are let go, for they know what
    /// we had; whoever is at rest stays so. False if there is nothing to read yet, or it is being read.
    pub fn recheck(&mut self, now: Instant) -> bool {
        self.now = now;
        let is_open = matches!(self.phase, Phase::Downloading | Phase::Seeding);
        let has_failed = matches!(self.stopped_by, Some(StopCause::Storage(_)));
        if !is_open && !has_failed {
            return false;
        }
        self.close_all(now);
        if is_open {
            self.ask_disk(DiskRequest::Close);
        }
        self.stopped_by = None;
        self.start_over(true);
        self.candidates.call_back();
        self.dial(now);
        true
    }

    /// Opens the storage once more: it failed, and may do better now, or is to be read `afresh`.
    pub(super) fn start_over(&mut self, afresh: bool) {
        self.phase = Phase::FetchingMetadata;
        let Some(content) = &self.content else { return };
        let info = content.bytes.clone();
        self.transfer = None;
        self.super_seed = None;
        self.checking = (0, 0);
        self.open(info, afresh);
    }

    fn open(&mut self, info: Bytes, afresh: bool) {
        self.phase = Phase::Checking;
        let wanted = self.config.wanted.clone();
        self.ask_disk(DiskRequest::Open { info, wanted, afresh });
    }

    fn serve_metadata(&mut self, conn: ConnId, piece: u32) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let answer = self.content.as_ref().and_then(|content| {
            let begin = usize::try_from(piece).ok()?.checked_mul(METADATA_PIECE_LEN)?;
            let end = content.bytes.len().min(begin.checked_add(METADATA_PIECE_LEN)?);
            if begin >= end || peer.metadata_served > METADATA_COPIES_MAX * content.bytes.len() {
                return None;
            }
            peer.metadata_served += end - begin;
            let (total_size, data) = (content.bytes.len() as u64, content.bytes.slice(begin..end));
            Some(MetadataMessage::Data { piece, total_size, data })
        });
        peer.was_useful |= answer.is_some();
        peer.conn.say_metadata(&answer.unwrap_or(MetadataMessage::Reject { piece }));
        self.mark(conn);
    }
}

/// Copies of the metadata that one connection gets: one, and some for requests asked again.
const METADATA_COPIES_MAX: usize = 3;
