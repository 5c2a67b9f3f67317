//! One wire connection: what was said on it, in both directions (BEP 3, 6, 10).
//!
//! It decodes frames, holds the peer to the rules, keeps its books (choke, interest, pieces,
//! requests) and encodes what we say. It decides nothing: whom to choke, what to ask and what a
//! block is worth is its owner's business. It does not know which torrent it serves.

use std::time::Duration;

use bytes::Bytes;

use crate::base::Instant;
use crate::peer::grant::{BEGINNER_PIECES_MAX, Grant};
use crate::peer::pieces::{Geometry, RemotePieces};
use crate::peer::rates::Meter;
use crate::peer::requests::{Asked, Requests};
use crate::peer::uploads::Uploads;
use crate::peer::{CloseReason, Misbehavior, Received};
use crate::wire::bitfield::Bitfield;
use crate::wire::extension::{
    DONT_HAVE_ID, ExtensionHandshake, HANDSHAKE_ID, METADATA_ID, MetadataMessage, PEX_ID, Pex,
    UPLOAD_ONLY_ID, decode_dont_have,
};
use crate::wire::handshake::Handshake;
use crate::wire::peer::{BlockRef, Message};

mod say;

/// One connection to a peer.
#[derive(Debug)]
pub struct Connection {
    state: State,
    geometry: Option<Geometry>,
    extensions: Option<ExtensionHandshake>,
    pieces: RemotePieces,
    allowed_fast: Vec<u32>,
    /// What we allowed the peer.
    grant: Option<Grant>,
    peer_choking: bool,
    peer_interested: bool,
    choking: bool,
    interested: bool,
    upload_only: bool,
    /// What we asked of the peer.
    pub requests: Requests,
    /// What the peer asked of us.
    pub uploads: Uploads,
    /// Payload from the peer.
    pub download: Meter,
    /// Payload to the peer, counted when it was written.
    pub upload: Meter,
    out: Vec<u8>,
    // Given to the host and not yet written, piece messages included.
    unsent: usize,
    unsent_blocks: usize,
    opened_at: Instant,
    heard_at: Instant,
    said_at: Instant,
    /// When the peer last took something, or had taken everything.
    taken_at: Instant,
    /// When we last let it ask.
    unchoked_at: Instant,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ExpectHandshake,
    Open { fast: bool, extensions: bool, dht: bool },
}

// Things that happen now and then by themselves, and often only on purpose.
#[derive(Debug, Default)]
struct Counters {
    choke_flaps: u32,
    interest_flaps: u32,
    announcements: u32,
    invalid_requests: u32,
    unsolicited_blocks: u32,
}

impl Connection {
    /// A connection that we dialled. Our handshake goes out at once, and nothing behind it: aria2
    /// drops a peer that says more before it has answered.
    pub fn dial(now: Instant, ours: &Handshake, geometry: Option<Geometry>) -> Self {
        let mut conn = Self::new(now, State::ExpectHandshake, geometry);
        conn.out.extend_from_slice(&ours.encode());
        conn
    }

    /// A connection that a peer opened with `theirs`; ours is the answer.
    pub fn accept(
        now: Instant,
        ours: &Handshake,
        theirs: &Handshake,
        geometry: Option<Geometry>,
    ) -> Self {
        let mut conn = Self::new(now, State::open(theirs), geometry);
        conn.out.extend_from_slice(&ours.encode());
        conn
    }

    fn new(now: Instant, state: State, geometry: Option<Geometry>) -> Self {
        Self {
            state,
            geometry,
            extensions: None,
            pieces: RemotePieces::new(geometry),
            allowed_fast: Vec::new(),
            grant: None,
            peer_choking: true,
            peer_interested: false,
            choking: true,
            interested: false,
            upload_only: false,
            requests: Requests::new(now),
            uploads: Uploads::new(),
            download: Meter::new(now),
            upload: Meter::new(now),
            out: Vec::new(),
            unsent: 0,
            unsent_blocks: 0,
            opened_at: now,
            heard_at: now,
            said_at: now,
            taken_at: now,
            unchoked_at: now,
            counters: Counters::default(),
        }
    }

    // --- what the peer says -------------------------------------------------------------------

    /// A frame came. On a connection that we dialled the first one is the handshake.
    pub fn handle_frame(&mut self, now: Instant, frame: &Bytes) -> Result<Received, Misbehavior> {
        self.heard_at = now;
        if self.state == State::ExpectHandshake {
            let theirs = Handshake::decode(frame).map_err(|_| Misbehavior::BadHandshake)?;
            self.state = State::open(&theirs);
            return Ok(Received::Handshake(theirs));
        }
        match Message::decode(frame).map_err(|_| Misbehavior::BadMessage)? {
            Message::Piece { piece, begin, block } => self.on_block(now, piece, begin, block),
            Message::Request(block) => self.on_request(block),
            Message::KeepAlive | Message::Unknown { .. } => Ok(Received::Nothing),
            Message::Choke => self.on_choke(),
            Message::Unchoke => self.on_unchoke(),
            Message::Interested => Ok(self.on_interest(true)),
            Message::NotInterested => Ok(self.on_interest(false)),
            Message::Have(piece) => {
                let new = self.pieces.add(piece)?;
                Ok(if new { Received::Have(piece) } else { Received::Nothing })
            }
            Message::Bitfield(bits) => self.on_bitfield(bits),
            Message::HaveAll => self.on_have_whole(true),
            Message::HaveNone => self.on_have_whole(false),
            Message::Cancel(block) => {
                if self.uploads.cancel(&block) {
                    self.refuse(&block);
                }
                Ok(Received::Nothing)
            }
            Message::Reject(block) => {
                self.must_be_fast()?;
                let known = self.requests.on_reject(&block);
                Ok(if known { Received::Rejected(block) } else { Received::Nothing })
            }
            Message::AllowedFast(piece) => self.on_allowed_fast(piece),
            // What a peer would like to send is of no use to rarest first.
            Message::Suggest(_) => self.must_be_fast().map(|()| Received::Nothing),
            Message::Port(port) if port != 0 => Ok(Received::Port(port)),
            Message::Port(_) => Ok(Received::Nothing),
            Message::Extended { id, payload } => self.on_extended(id, &payload),
        }
    }

    fn on_block(
        &mut self,
        now: Instant,
        piece: u32,
        begin: u32,
        data: Bytes,
    ) -> Result<Received, Misbehavior> {
        let len = u32::try_from(data.len()).map_err(|_| Misbehavior::BadBlockLength)?;
        let block = BlockRef { piece, begin, len };
        self.download.add(data.len());
        match self.requests.on_block(now, &block) {
            Asked::Awaited => Ok(Received::Block { block, data, late: false }),
            Asked::GivenUp => Ok(Received::Block { block, data, late: true }),
            Asked::WrongLength => Err(Misbehavior::BadBlockLength),
            Asked::Never => {
                self.counters.unsolicited_blocks += 1;
                if self.counters.unsolicited_blocks > UNSOLICITED_BLOCKS_MAX {
                    return Err(Misbehavior::UnsolicitedBlocks);
                }
                Ok(Received::Unsolicited(data.len()))
            }
        }
    }

    fn on_request(&mut self, block: BlockRef) -> Result<Received, Misbehavior> {
        if self.backlog() > BACKLOG_MAX {
            return Err(Misbehavior::UnreadAnswers);
        }
        let exists = self.geometry.is_some_and(|g| g.contains(&block));
        if !exists || block.len > crate::base::limits::BLOCK_LEN {
            self.count_invalid_request(&block)?;
            return Ok(Received::Nothing);
        }
        if self.choking && !self.is_granted(&block) {
            // A race after a choke: refused, not held against it.
            self.refuse(&block);
            return Ok(Received::Nothing);
        }
        Ok(Received::Request(block))
    }

    fn is_granted(&mut self, block: &BlockRef) -> bool {
        let has = self.pieces.counted().map_or(0, Bitfield::count);
        let waiting = self.uploads.waiting();
        self.grant.as_mut().is_some_and(|grant| grant.admit(block, has, waiting))
    }

    /// Refuses a request that no well-meaning peer makes.
    pub fn count_invalid_request(&mut self, block: &BlockRef) -> Result<(), Misbehavior> {
        self.refuse(block);
        self.counters.invalid_requests += 1;
        if self.counters.invalid_requests > INVALID_REQUESTS_MAX {
            return Err(Misbehavior::InvalidRequests);
        }
        Ok(())
    }

    fn on_choke(&mut self) -> Result<Received, Misbehavior> {
        if std::mem::replace(&mut self.peer_choking, true) {
            return Ok(Received::Nothing);
        }
        self.counters.choke_flaps += 1;
        if self.counters.choke_flaps > CHOKE_FLAPS_MAX {
            return Err(Misbehavior::ChokeFlood);
        }
        // BEP 6 wants each request rejected one by one, but some that speak it just forget them.
        // What comes in spite of the choke is recognised; a reject of it is nothing new.
        Ok(Received::Choked(self.requests.on_choke()))
    }

    fn on_unchoke(&mut self) -> Result<Received, Misbehavior> {
        let was = std::mem::replace(&mut self.peer_choking, false);
        Ok(if was { Received::Unchoked } else { Received::Nothing })
    }

    fn on_interest(&mut self, interested: bool) -> Received {
        let was = std::mem::replace(&mut self.peer_interested, interested);
        if was == interested {
            return Received::Nothing;
        }
        let flaps = &mut self.counters.interest_flaps;
        *flaps = (*flaps + 1).min(INTEREST_FLAPS_MAX);
        // What it wants is known; who is served next is not thought over for it each time.
        if *flaps == INTEREST_FLAPS_MAX { Received::Nothing } else { Received::Interest }
    }

    // aria2 sends its bitfield again where it has twenty pieces or more to tell of: dozens of times in
    // a fast download. There is an end to what is new, and it came with as many bytes as it costs.
    fn on_bitfield(&mut self, bits: Bytes) -> Result<Received, Misbehavior> {
        let count = |pieces: &RemotePieces| pieces.counted().map_or(0, Bitfield::count);
        let before = count(&self.pieces);
        let replaced = self.pieces.set_bits(bits)?;
        if count(&self.pieces) < before + BITFIELD_NEWS_MIN {
            self.count_announcement()?;
        }
        Ok(Received::Pieces(replaced))
    }

    fn on_have_whole(&mut self, all: bool) -> Result<Received, Misbehavior> {
        self.must_be_fast()?;
        self.count_announcement()?;
        Ok(Received::Pieces(self.pieces.set_all(all)))
    }

    fn on_allowed_fast(&mut self, piece: u32) -> Result<Received, Misbehavior> {
        self.must_be_fast()?;
        let exists = self.geometry.is_none_or(|g| piece < g.pieces);
        if !exists {
            return Err(Misbehavior::PieceOutOfRange);
        }
        let taken =
            self.allowed_fast.len() < ALLOWED_FAST_MAX && !self.allowed_fast.contains(&piece);
        if !taken {
            return Ok(Received::Nothing);
        }
        self.allowed_fast.push(piece);
        Ok(Received::AllowedFast)
    }

    fn on_extended(&mut self, id: u8, payload: &Bytes) -> Result<Received, Misbehavior> {
        match id {
            HANDSHAKE_ID => {
                self.count_announcement()?;
                let theirs = ExtensionHandshake::decode(payload);
                let theirs = theirs.map_err(|_| Misbehavior::BadExtension)?;
                if let Some(requests) = theirs.request_queue {
                    self.requests.set_peer_queue(requests);
                }
                self.upload_only = theirs.upload_only;
                self.extensions = Some(theirs);
                Ok(Received::Extensions)
            }
            METADATA_ID => {
                let message = MetadataMessage::decode(payload);
                match message.map_err(|_| Misbehavior::BadExtension)? {
                    MetadataMessage::Request { .. } if self.backlog() > BACKLOG_MAX => {
                        Err(Misbehavior::UnreadAnswers)
                    }
                    MetadataMessage::Unknown => Ok(Received::Nothing),
                    message => Ok(Received::Metadata(message)),
                }
            }
            // Hearsay that does not parse is not worth a connection.
            PEX_ID => Ok(Pex::decode(payload).map_or(Received::Nothing, Received::Pex)),
            UPLOAD_ONLY_ID => {
                self.upload_only = payload.first().is_some_and(|flag| *flag != 0);
                Ok(Received::Nothing)
            }
            DONT_HAVE_ID => {
                let piece = decode_dont_have(payload).ok_or(Misbehavior::BadExtension)?;
                self.on_lost(piece)
            }
            _ => Ok(Received::Nothing),
        }
    }

    fn on_lost(&mut self, piece: u32) -> Result<Received, Misbehavior> {
        // To forget that a peer has everything costs a walk over all pieces: not again and again.
        if self.pieces.counted().is_some_and(Bitfield::is_all) {
            self.count_announcement()?;
        }
        if !self.pieces.remove(piece)? {
            return Ok(Received::Nothing);
        }
        // With the fast extension it has to refuse them one by one; not all do.
        Ok(Received::Lost { piece, asked: self.requests.on_lost(piece) })
    }

    fn must_be_fast(&self) -> Result<(), Misbehavior> {
        if self.is_fast() { Ok(()) } else { Err(Misbehavior::FastWithoutSupport) }
    }

    fn count_announcement(&mut self) -> Result<(), Misbehavior> {
        self.counters.announcements += 1;
        if self.counters.announcements > ANNOUNCEMENTS_MAX {
            return Err(Misbehavior::RepeatedAnnouncements);
        }
        Ok(())
    }

    /// The pieces are counted now: what the peer said about them so far is read.
    pub fn set_geometry(&mut self, geometry: Geometry) -> Result<(), Misbehavior> {
        self.geometry = Some(geometry);
        self.allowed_fast.retain(|piece| *piece < geometry.pieces);
        self.pieces.count(geometry.pieces)
    }

    // --- time ---------------------------------------------------------------------------------

    /// Called a few times a second: rates, pipeline size, keep-alive, and what is overdue.
    pub fn tick(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.state == State::ExpectHandshake && now.since(self.opened_at) >= HANDSHAKE_TIMEOUT {
            return Err(CloseReason::HandshakeTimeout);
        }
        if now.since(self.heard_at) >= IDLE_TIMEOUT {
            return Err(CloseReason::Idle);
        }
        // One that talks and does not read holds what we say for ever.
        if now.since(self.taken_at) >= IDLE_TIMEOUT && self.unsent > 0 {
            return Err(CloseReason::Idle);
        }
        if self.is_open() && now.since(self.said_at) >= KEEP_ALIVE_EVERY {
            self.say(&Message::KeepAlive);
        }
        self.download.roll(now);
        self.upload.roll(now);
        self.requests.adapt(now, self.download.per_second());
        self.counters.choke_flaps = self.counters.choke_flaps.saturating_sub(1);
        self.counters.interest_flaps = self.counters.interest_flaps.saturating_sub(4);
        Ok(())
    }

    /// When the connection was made.
    pub fn opened_at(&self) -> Instant {
        self.opened_at
    }

    // --- questions ----------------------------------------------------------------------------

    /// Is the peer's handshake here?
    pub fn is_open(&self) -> bool {
        self.state != State::ExpectHandshake
    }

    /// Do both sides speak the fast extension (BEP 6)?
    pub fn is_fast(&self) -> bool {
        matches!(self.state, State::Open { fast: true, .. })
    }

    /// Does the peer speak the extension protocol (BEP 10)?
    pub fn is_extended(&self) -> bool {
        matches!(self.state, State::Open { extensions: true, .. })
    }

    /// The peer's extension handshake.
    pub fn extensions(&self) -> Option<&ExtensionHandshake> {
        self.extensions.as_ref()
    }

    /// The peer's pieces, if they are counted.
    pub fn pieces(&self) -> Option<&Bitfield> {
        self.pieces.counted()
    }

    /// Does the peer have everything?
    pub fn is_seed(&self) -> bool {
        self.pieces.is_seed()
    }

    /// Does the peer say that it will never download (BEP 21), or have everything?
    pub fn is_upload_only(&self) -> bool {
        self.upload_only || self.is_seed()
    }

    /// Does the peer refuse our requests?
    pub fn is_peer_choking(&self) -> bool {
        self.peer_choking
    }

    /// Does the peer want something of us?
    pub fn is_peer_interested(&self) -> bool {
        self.peer_interested
    }

    /// Do we refuse the peer's requests?
    pub fn is_choking(&self) -> bool {
        self.choking
    }

    /// Do we want something of the peer?
    pub fn is_interested(&self) -> bool {
        self.interested
    }

    /// How long the peer has taken nothing of the blocks that it was sent.
    pub fn untaken_for(&self, now: Instant) -> Duration {
        if self.unsent_blocks > 0 { now.since(self.taken_at) } else { Duration::ZERO }
    }

    /// Does the peer have a slot that it makes nothing of? It does not take what it is sent, or has
    /// asked for nothing for a while.
    pub fn wastes_slot(&self, now: Instant) -> bool {
        let asks = self.uploads.waiting() > 0 || self.uploads.reading_bytes() > 0;
        let is_idle = !asks && self.unsent_blocks == 0 && self.upload.per_second() == 0;
        !self.choking
            && (self.untaken_for(now) >= STALL_TIME
                || (is_idle && now.since(self.unchoked_at) >= ASK_TIME))
    }

    /// Would some pieces for nothing bring the peer on its way (BEP 6)? It waits, it has next to
    /// nothing to give in return, and it was not given any before.
    pub fn wants_grant(&self) -> bool {
        let has_little = self.pieces.counted().is_some_and(|has| has.count() < BEGINNER_PIECES_MAX);
        self.is_fast() && self.choking && self.peer_interested && self.grant.is_none() && has_little
    }

    /// Pieces that we may ask for while choked (BEP 6).
    pub fn allowed_fast(&self) -> &[u32] {
        &self.allowed_fast
    }
}

impl State {
    fn open(theirs: &Handshake) -> Self {
        State::Open {
            fast: theirs.supports_fast(),
            extensions: theirs.supports_extensions(),
            dht: theirs.supports_dht(),
        }
    }
}

/// From our dial's success to the peer's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes nothing of what waits for it for so long, beside what its system buffers for
/// it, is not reading: on a line of 5 KB/s a first block takes three seconds.
const STALL_TIME: Duration = Duration::from_secs(5);
/// A peer that may ask and wants something asks within a round trip; one whose line is limited, now
/// and then.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Peers say something every two minutes (BEP 3); one that says nothing for longer is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(130);
/// Below two minutes with room for a slow line.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(100);
/// Bytes that may wait for a peer which goes on asking: blocks read ahead, and refusals of more
/// requests than a peer could hope to see answered.
const BACKLOG_MAX: usize = 4 * say::SEND_AHEAD_MAX;
/// Blocks nobody asked for. A race explains none: what we gave up is remembered.
const UNSOLICITED_BLOCKS_MAX: u32 = 16;
/// Requests that make no sense; libtorrent draws the line there, too.
const INVALID_REQUESTS_MAX: u32 = 300;
/// Chokes above two a second (one is forgiven a tick).
const CHOKE_FLAPS_MAX: u32 = 100;
/// Changes of mind above eight a second (four are forgiven a tick). A leecher as quick as we are changes
/// it with every piece that we get, and keeps its place meanwhile.
const INTEREST_FLAPS_MAX: u32 = 64;
/// Bitfields with little news and extension handshakes on one connection. Clients send the latter
/// again when something changes.
const ANNOUNCEMENTS_MAX: u32 = 32;
/// New pieces that make a bitfield worth its walk over all of them.
const BITFIELD_NEWS_MIN: u32 = 16;
/// BEP 6 suggests ten.
const ALLOWED_FAST_MAX: usize = 64;
