//! What we say on a connection, and how much of it the peer has yet to take.
//!
//! Small messages are collected in one buffer and leave together; blocks leave beside it, uncopied.

use bytes::Bytes;

use super::{Connection, State};
use crate::base::Instant;
use crate::peer::grant::Grant;
use crate::wire::bitfield::Bitfield;
use crate::wire::extension::{
    ExtensionHandshake, HANDSHAKE_ID, MetadataMessage, Pex, encode_dont_have,
};
use crate::wire::peer::{BlockRef, Message, PIECE_HEAD_LEN, piece_head};

impl Connection {
    // --- what we say --------------------------------------------------------------------------

    /// Tells our pieces, before anything but the extension handshake; `None` as long as they are not counted.
    pub fn say_pieces(&mut self, have: Option<&Bitfield>) {
        match have {
            Some(have) if have.is_all() && self.is_fast() => self.say(&Message::HaveAll),
            Some(have) if !have.is_none() => {
                self.say(&Message::Bitfield(Bytes::copy_from_slice(have.as_bytes())));
            }
            // BEP 6 demands one of the three messages; without it silence means the same.
            Some(_) | None if self.is_fast() => self.say(&Message::HaveNone),
            Some(_) | None => {}
        }
    }

    /// Tells one more piece.
    pub fn say_have(&mut self, piece: u32) {
        self.say(&Message::Have(piece));
    }

    /// Tells our DHT port, if the peer has a node too (BEP 5).
    pub fn say_port(&mut self, port: u16) {
        if matches!(self.state, State::Open { dht: true, .. }) {
            self.say(&Message::Port(port));
        }
    }

    /// Tells whether we want something.
    pub fn set_interested(&mut self, interested: bool) {
        if self.interested != interested {
            self.interested = interested;
            self.say(if interested { &Message::Interested } else { &Message::NotInterested });
        }
    }

    /// Lets the peer ask, or not. What it had asked for before a choke is forgotten.
    pub fn set_choking(&mut self, now: Instant, choking: bool) {
        if self.choking == choking {
            return;
        }
        self.choking = choking;
        self.unchoked_at = now;
        self.say(if choking { &Message::Choke } else { &Message::Unchoke });
        if choking {
            for block in self.uploads.clear() {
                self.refuse(&block);
            }
        }
    }

    /// Lets the peer ask for these pieces while it is choked (BEP 6).
    pub fn grant(&mut self, pieces: Vec<u32>) {
        let Some(geometry) = self.geometry.as_ref().filter(|_| self.is_fast()) else { return };
        let grant = Grant::new(pieces, geometry);
        grant.pieces().iter().for_each(|piece| self.say(&Message::AllowedFast(*piece)));
        self.grant = Some(grant);
    }

    /// Asks for a block.
    pub fn ask(&mut self, now: Instant, block: BlockRef) {
        self.requests.add(now, block);
        self.say(&Message::Request(block));
    }

    /// Takes a request back. False if it was not outstanding.
    pub fn cancel(&mut self, block: &BlockRef) -> bool {
        let outstanding = self.requests.give_up(block);
        if outstanding {
            self.say(&Message::Cancel(*block));
        }
        outstanding
    }

    /// Tells the peer not to send blocks that were given up already.
    pub fn say_cancelled(&mut self, blocks: &[BlockRef]) {
        for block in blocks {
            self.say(&Message::Cancel(*block));
        }
    }

    /// Queues a request of the peer's; refuses it if the queue is full.
    pub fn serve(&mut self, block: BlockRef) {
        if !self.uploads.push(block) {
            self.refuse(&block);
        }
    }

    /// Tells the peer that it will not get a block, if it understands that.
    pub fn refuse(&mut self, block: &BlockRef) {
        if self.is_fast() {
            self.say(&Message::Reject(*block));
        }
    }

    /// Sends a metadata message, if the peer takes them.
    pub fn say_metadata(&mut self, message: &MetadataMessage) {
        let Some(id) = self.extensions.as_ref().and_then(|e| e.metadata_id) else { return };
        let mut payload = Vec::new();
        message.encode(&mut payload);
        self.say_extended(id, payload.into());
    }

    /// Sends peer exchange, if the peer takes it.
    pub fn say_pex(&mut self, pex: &Pex) {
        let Some(id) = self.extensions.as_ref().and_then(|e| e.pex_id) else { return };
        self.say_extended(id, pex.encode().into());
    }

    /// Tells whether we only upload, if the peer wants to know (BEP 21).
    pub fn say_upload_only(&mut self, upload_only: bool) {
        let Some(id) = self.extensions.as_ref().and_then(|e| e.upload_only_id) else { return };
        self.say_extended(id, Bytes::from(vec![u8::from(upload_only)]));
    }

    /// Takes a piece back, if the peer wants to know (BEP 54).
    pub fn say_dont_have(&mut self, piece: u32) {
        let Some(id) = self.extensions.as_ref().and_then(|e| e.dont_have_id) else { return };
        self.say_extended(id, encode_dont_have(piece));
    }

    /// Sends our extension handshake (BEP 10), if the peer speaks the protocol: right after the
    /// handshakes, and again when something in it has changed.
    pub fn say_hello(&mut self, hello: &ExtensionHandshake) {
        if self.is_extended() {
            self.say_extended(HANDSHAKE_ID, hello.encode().into());
        }
    }

    pub(super) fn say_extended(&mut self, id: u8, payload: Bytes) {
        self.say(&Message::Extended { id, payload });
    }

    pub(super) fn say(&mut self, message: &Message) {
        message.encode(&mut self.out);
    }

    // --- what goes out ------------------------------------------------------------------------

    /// All that was said since the last call, as one buffer.
    pub fn take_output(&mut self, now: Instant) -> Option<Bytes> {
        if self.out.is_empty() {
            return None;
        }
        self.on_said(now);
        self.unsent += self.out.len();
        Some(Bytes::from(std::mem::take(&mut self.out)))
    }

    /// The head of a piece message, which goes out now with its block.
    pub fn block_head(&mut self, now: Instant, block: &BlockRef) -> [u8; PIECE_HEAD_LEN] {
        let len = block_bytes(block);
        self.on_said(now);
        self.unsent += PIECE_HEAD_LEN + len;
        self.unsent_blocks += len;
        piece_head(block.piece, block.begin, block.len)
    }

    fn on_said(&mut self, now: Instant) {
        self.said_at = now;
        if self.unsent == 0 {
            self.taken_at = now;
        }
    }

    /// The host wrote so many bytes.
    pub fn handle_sent(&mut self, now: Instant, bytes: usize) {
        self.taken_at = now;
        self.unsent = self.unsent.saturating_sub(bytes);
        // Small messages are not told from blocks; what is left bounds what blocks can be left.
        let blocks = self.unsent_blocks.min(self.unsent);
        self.upload.add(self.unsent_blocks - blocks);
        self.unsent_blocks = blocks;
    }

    /// The next span to read for the peer, if its answers do not pile up. With anything `left` to
    /// send at all it is one block at least.
    pub fn next_read(&mut self, left: usize) -> Option<BlockRef> {
        let ahead = self.backlog() + self.uploads.reading_bytes();
        // What is ahead cannot be cancelled, and everything said later waits behind it.
        let rate = usize::try_from(self.upload.per_second()).unwrap_or(usize::MAX);
        let least = if rate > 0 { SEND_AHEAD_MIN } else { SEND_AHEAD_START };
        let limit = (rate / SEND_AHEAD_SHARE).clamp(least, SEND_AHEAD_MAX);
        let room = limit.checked_sub(ahead).map(|room| room.min(left)).filter(|room| *room > 0)?;
        self.uploads.next_read(room)
    }

    /// Does something wait to be said?
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Bytes that the peer has not taken yet.
    pub fn backlog(&self) -> usize {
        self.unsent + self.out.len()
    }
}

fn block_bytes(block: &BlockRef) -> usize {
    usize::try_from(block.len).expect("a block is far below the address space")
}

/// Blocks are read ahead for a quarter of a second at the rate at which the peer takes them,
const SEND_AHEAD_SHARE: usize = 4;
/// but for at least so many bytes while that is unknown: the start is fast;
const SEND_AHEAD_START: usize = 128 << 10;
/// then for two blocks at least. Many peers share a slow line: what waits for it at each of them makes
/// all of them ask elsewhere for what is late, and again for what came;
const SEND_AHEAD_MIN: usize = 32 << 10;
/// and for at most so many: one connection fills a fast line with it, and a slow reader holds no
/// more.
pub(super) const SEND_AHEAD_MAX: usize = 1 << 20;
