//! Who is here: dials, handshakes, duplicates, limits, bans, and what a frame meant.

use std::net::SocketAddr;
use std::time::Duration;

use super::Torrent;
use super::downloading::Arrived;
use super::places::Newcomer;
use super::status::SEED_PEERS_MIN;
use crate::base::addr::{canonical, is_private};
use crate::base::{Instant, PeerId};
use crate::peer::{
    CloseReason, ConnId, Connection, Consequence, Misbehavior, REQUESTS_QUEUED_MAX, Received,
};
use crate::swarm::candidates::{DialBounds, Ending};
use crate::swarm::pex::PexState;
use crate::swarm::{Event, Output, PeerSource, Phase};
use crate::wire::extension::{
    DONT_HAVE_ID, ExtensionHandshake, METADATA_ID, PEX_ID, UPLOAD_ONLY_ID,
};
use crate::wire::handshake::Handshake;

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub conn: Connection,
    pub addr: SocketAddr,
    /// Where it can be dialled: known at once if we dialled it, else from what it says.
    pub dial_addr: Option<SocketAddr>,
    pub is_dialled: bool,
    pub source: PeerSource,
    pub id: Option<PeerId>,
    pub pex: PexState,
    /// The picker knows its pieces.
    pub is_counted: bool,
    pub is_talkative: bool,
    /// It gave or took something.
    pub was_useful: bool,
    pub has_told_port: bool,
    /// Rejects since its last block.
    pub rejects: u32,
    /// Bytes of metadata that it got from us.
    pub metadata_served: usize,
}

impl Peer {
    fn new(conn: Connection, addr: SocketAddr, source: PeerSource) -> Self {
        Self {
            conn,
            addr,
            dial_addr: None,
            is_dialled: false,
            source,
            id: None,
            pex: PexState::default(),
            is_counted: false,
            is_talkative: false,
            was_useful: false,
            has_told_port: false,
            rejects: 0,
            metadata_served: 0,
        }
    }
}

impl Torrent {
    // --- dialling -----------------------------------------------------------------------------

    pub(super) fn may_dial(&self) -> bool {
        let phase = match self.phase {
            Phase::FetchingMetadata | Phase::Downloading | Phase::Seeding => true,
            // Whoever is met now would be told that we have nothing.
            Phase::Checking | Phase::Stopped => false,
        };
        let dialling = self.candidates.dialling();
        // A lone seed serves a few at a time: those whom it knows dial it, or hear of pieces from others.
        let enough = if self.super_seed.is_some() { SEED_PEERS_MIN } else { usize::MAX };
        let most = self.config.connections_max.min(enough);
        phase
            && !self.paused
            && dialling < self.config.half_open_max
            && self.peers.len() + dialling < most
    }

    pub(super) fn dial(&mut self, now: Instant) {
        while self.may_dial() {
            let bounds = DialBounds {
                half_open_max: self.config.half_open_max,
                connections_max: self.config.connections_max,
                connected: self.peers.len(),
            };
            let Some(addr) = self.candidates.next_dial(now, bounds) else { return };
            self.outputs.push_back(Output::Connect { addr });
        }
    }

    // --- coming -------------------------------------------------------------------------------

    pub(super) fn on_connected(&mut self, now: Instant, conn: ConnId, addr: SocketAddr) {
        let addr = canonical(addr);
        self.candidates.on_connected(addr);
        if let Some(reason) = self.refusal(now, addr) {
            self.candidates.on_closed(now, addr, Ending::Useless);
            self.outputs.push_back(Output::Close { conn, reason });
            return;
        }
        let geometry = self.content.as_ref().map(super::Content::geometry);
        let connection = Connection::dial(now, &self.handshake(), geometry);
        let source = self.candidates.source_of(addr).unwrap_or(PeerSource::Dht);
        let mut peer = Peer::new(connection, addr, source);
        peer.dial_addr = Some(addr);
        peer.is_dialled = true;
        self.insert(conn, peer);
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Instant,
        conn: ConnId,
        addr: SocketAddr,
        theirs: Handshake,
    ) {
        let addr = canonical(addr);
        let mut refusal = self.refusal(now, addr);
        if refusal == Some(CloseReason::Crowded) && self.make_room(now, Newcomer::Here(addr.ip())) {
            refusal = None;
        }
        if theirs.info_hash != self.info_hash {
            refusal = Some(CloseReason::UnknownTorrent);
        }
        if let Some(reason) = refusal {
            self.outputs.push_back(Output::Close { conn, reason });
            return;
        }
        let geometry = self.content.as_ref().map(super::Content::geometry);
        let connection = Connection::accept(now, &self.handshake(), &theirs, geometry);
        self.insert(conn, Peer::new(connection, addr, PeerSource::Incoming));
        self.on_open(now, conn, &theirs);
    }

    fn insert(&mut self, conn: ConnId, peer: Peer) {
        self.addrs.insert(conn, peer.addr);
        self.peers.insert(conn, peer);
        self.mark(conn);
    }

    fn handshake(&self) -> Handshake {
        Handshake::new(self.info_hash, self.config.peer_id, self.dht_port().is_some())
    }

    // Peers of a private torrent hear nothing of our DHT node (BEP 27).
    fn dht_port(&self) -> Option<u16> {
        self.config.dht_port.filter(|_| !self.is_private())
    }

    pub(super) fn hello(&self, addr: SocketAddr) -> ExtensionHandshake {
        ExtensionHandshake {
            metadata_id: Some(METADATA_ID),
            pex_id: (!self.is_private()).then_some(PEX_ID),
            upload_only_id: Some(UPLOAD_ONLY_ID),
            dont_have_id: Some(DONT_HAVE_ID),
            metadata_size: self.content.as_ref().map(|c| c.bytes.len() as u64),
            port: self.config.listen_port,
            request_queue: u32::try_from(REQUESTS_QUEUED_MAX).ok(),
            // A super-seed does not say so: who has one piece and only uploads looks useless.
            upload_only: self.phase == Phase::Seeding && self.super_seed.is_none(),
            client: Some(CLIENT.to_owned()),
            your_ip: Some(addr.ip()),
        }
    }

    fn refusal(&self, now: Instant, addr: SocketAddr) -> Option<CloseReason> {
        if !self.is_active() {
            return Some(CloseReason::Stopped);
        }
        if self.candidates.is_banned(now, addr) {
            return Some(CloseReason::Banned);
        }
        // Whom a downloader dials has a place already, or it would be taken by those who come. A seed
        // is found by those who want it.
        let dialling = if self.phase == Phase::Seeding { 0 } else { self.candidates.dialling() };
        if self.peers.len() + dialling >= self.config.connections_max {
            return Some(CloseReason::Crowded);
        }
        let same_ip = self.peers.values().filter(|p| p.addr.ip() == addr.ip()).count();
        if same_ip >= CONNECTIONS_PER_IP_MAX && !is_private(addr.ip()) {
            return Some(CloseReason::Crowded);
        }
        None
    }

    fn on_handshake(&mut self, now: Instant, conn: ConnId, theirs: &Handshake) {
        if theirs.info_hash != self.info_hash {
            return self.on_misbehavior(now, conn, Misbehavior::WrongTorrent);
        }
        self.on_open(now, conn, theirs);
    }

    // Both handshakes are known.
    fn on_open(&mut self, now: Instant, conn: ConnId, theirs: &Handshake) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.id = Some(theirs.peer_id);
        let (addr, ip, is_dialled) = (peer.addr, peer.addr.ip(), peer.is_dialled);
        if theirs.peer_id == self.config.peer_id {
            if is_dialled {
                self.candidates.on_self(addr);
            }
            return self.close(now, conn, CloseReason::Duplicate);
        }
        if self.banned_ids.peek(&(ip, theirs.peer_id)).is_some() {
            return self.close(now, conn, CloseReason::Banned);
        }
        if let Some(twin) = self.twin(conn) {
            let loser = self.loser(conn, twin);
            self.close(now, loser, CloseReason::Duplicate);
            if loser == conn {
                return;
            }
        }
        if is_dialled {
            self.candidates.on_reached(addr);
        } else {
            self.candidates.on_reached_unknown();
        }
        let hello = self.hello(addr);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.conn.say_hello(&hello);
        self.tell_pieces(now, conn);
        let dht_port = self.dht_port();
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if let Some(port) = dht_port {
            peer.conn.say_port(port);
        }
        self.count_pieces(conn);
        self.offer(now, conn);
        self.mark(conn);
    }

    // Another connection to the same peer. The same id at another address is somebody else's lie.
    fn twin(&self, conn: ConnId) -> Option<ConnId> {
        let peer = self.peers.get(&conn)?;
        let same = |(other, p): &(&ConnId, &Peer)| {
            **other != conn && p.id == peer.id && p.addr.ip() == peer.addr.ip()
        };
        self.peers.iter().find(same).map(|(other, _)| *other)
    }

    // Of two connections to one peer both sides must give up the same: if each dialled one, the
    // one that the smaller id dialled stays; else the older stays.
    fn loser(&self, newer: ConnId, older: ConnId) -> ConnId {
        let (Some(new), Some(old)) = (self.peers.get(&newer), self.peers.get(&older)) else {
            return newer;
        };
        if new.is_dialled == old.is_dialled {
            return newer;
        }
        let keep_ours = new.id.is_some_and(|theirs| self.config.peer_id < theirs);
        if new.is_dialled == keep_ours { older } else { newer }
    }

    // --- what it says -------------------------------------------------------------------------

    pub(super) fn on_received(&mut self, now: Instant, conn: ConnId, received: Received) {
        match received {
            Received::Nothing => {}
            Received::Block { block, data, late } => {
                self.on_block(now, conn, Arrived { block, data, late });
            }
            Received::Request(block) => self.on_request(now, conn, block),
            Received::Handshake(theirs) => self.on_handshake(now, conn, &theirs),
            Received::Unchoked => self.refill(now, conn),
            Received::Choked(_) => self.on_choked(now, conn),
            Received::Interest => self.fill_slots(now),
            Received::Have(piece) => self.on_have(now, conn, piece),
            Received::Lost { piece, asked } => self.on_peer_lost(conn, piece, &asked),
            Received::Pieces(before) => self.on_pieces(now, conn, before.as_ref()),
            Received::Unsolicited(bytes) => {
                self.wasted += bytes as u64;
                self.down.on_unpaid(bytes);
            }
            Received::Rejected(block) => self.on_rejected(now, conn, block),
            Received::AllowedFast => self.refill(now, conn),
            Received::Port(port) => self.on_port(conn, port),
            Received::Extensions => self.on_extensions(now, conn),
            Received::Metadata(message) => self.on_metadata(now, conn, message),
            Received::Pex(pex) => self.on_pex(now, conn, &pex),
        }
    }

    fn on_port(&mut self, conn: ConnId, port: u16) {
        // A private torrent brings the DHT nobody.
        if self.is_private() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !std::mem::replace(&mut peer.has_told_port, true) {
            let addr = SocketAddr::new(peer.addr.ip(), port);
            self.say_event(Event::DhtNode { addr });
        }
    }

    fn on_extensions(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let port = peer.conn.extensions().and_then(|e| e.port);
        if let (None, Some(port)) = (peer.dial_addr, port) {
            let addr = SocketAddr::new(peer.addr.ip(), port);
            peer.dial_addr = Some(addr);
            if self.candidates.is_banned(now, addr) {
                return self.close(now, conn, CloseReason::Banned);
            }
            self.candidates.add(now, PeerSource::Incoming, addr, None);
            self.candidates.on_connected(addr);
        }
        self.add_metadata_giver(now, conn);
    }

    // --- leaving ------------------------------------------------------------------------------

    pub(super) fn on_misbehavior(&mut self, now: Instant, conn: ConnId, misbehavior: Misbehavior) {
        let Some(addr) = self.peers.get(&conn).map(|peer| peer.addr) else { return };
        let is_banned = match misbehavior.consequence() {
            Consequence::Ban => true,
            Consequence::Close => self.candidates.strike(now, addr),
        };
        match is_banned {
            true => self.ban(now, addr, misbehavior),
            false => self.part(now, conn, misbehavior),
        }
    }

    fn part(&mut self, now: Instant, conn: ConnId, misbehavior: Misbehavior) {
        let Some(addr) = self.peers.get(&conn).map(|peer| peer.addr) else { return };
        self.say_event(Event::PeerMisbehaved { addr, misbehavior });
        self.close(now, conn, CloseReason::Misbehavior(misbehavior));
    }

    /// Refuses an address from now on, and closes what is open to it.
    pub(super) fn ban(&mut self, now: Instant, addr: SocketAddr, misbehavior: Misbehavior) {
        self.candidates.ban(now, addr);
        self.say_event(Event::PeerBanned { addr });
        let same_peer = |peer: &super::Peer| peer.addr == addr || peer.dial_addr == Some(addr);
        for peer in self.peers.values().filter(|p| same_peer(p)) {
            // On a private address other ports are other peers, and its own may change.
            peer.dial_addr.iter().for_each(|addr| self.candidates.ban(now, *addr));
            if let Some(id) = peer.id.filter(|_| is_private(peer.addr.ip())) {
                self.banned_ids.insert((peer.addr.ip(), id), ());
            }
        }
        let is_banned =
            |peer: &super::Peer| same_peer(peer) || self.candidates.is_banned(now, peer.addr);
        let closing: Vec<_> =
            self.peers.iter().filter(|(_, p)| is_banned(p)).map(|(conn, _)| *conn).collect();
        for conn in closing {
            self.part(now, conn, misbehavior);
        }
    }

    pub(super) fn close(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        if !self.peers.contains_key(&conn) {
            return;
        }
        // What was said still goes out: it may tell the peer why.
        self.flush(conn);
        self.outputs.push_back(Output::Close { conn, reason });
        if matches!(reason, CloseReason::Useless | CloseReason::Crowded) {
            self.note_parting(conn);
        }
        let ending = match reason {
            CloseReason::Misbehavior(_) | CloseReason::Banned => Ending::Misbehaved,
            CloseReason::HandshakeTimeout => Ending::Early,
            CloseReason::Useless | CloseReason::Crowded | CloseReason::UnknownTorrent => {
                Ending::Useless
            }
            CloseReason::Idle | CloseReason::Stopped | CloseReason::Duplicate => Ending::Used,
        };
        self.forget(now, conn, ending);
    }

    pub(super) fn on_closed(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let lived = now.since(peer.conn.opened_at());
        let was_useful = peer.was_useful || (peer.conn.is_open() && lived >= USEFUL_TIME);
        let was_moved = peer.conn.upload.total() > 0 || peer.conn.download.total() > 0;
        let ending = match was_useful {
            true if peer.metadata_served > 0 && !was_moved => Ending::Informed,
            true => Ending::Used,
            false => Ending::Early,
        };
        self.forget(now, conn, ending);
    }

    fn forget(&mut self, now: Instant, conn: ConnId, ending: Ending) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        if let Some(addr) = peer.dial_addr {
            // The other one of two connections to a peer is still there.
            if !self.peers.values().any(|p| p.dial_addr == Some(addr)) {
                self.candidates.on_closed(now, addr, ending);
            }
        }
        self.metadata.remove(conn);
        self.choker.on_peer_gone(conn);
        let is_missed = self
            .super_seed
            .as_mut()
            .is_some_and(|super_seed| super_seed.remove_peer(now, conn, peer.conn.pieces()));
        if let Some(transfer) = &mut self.transfer {
            transfer.picker.on_peer_gone(conn);
            if let Some(pieces) = peer.conn.pieces().filter(|_| peer.is_counted) {
                transfer.picker.peer_lost(pieces);
            }
        }
        if self.is_active() {
            self.fill_slots(now);
            self.refill_all(now);
            self.ask_for_metadata(now);
            if is_missed {
                self.offer_all(now);
            }
        }
        self.schedule(now);
    }

    /// Lets go of everybody: it ends, rests, or is read again.
    pub(super) fn close_all(&mut self, now: Instant) {
        for conn in self.conns() {
            self.close(now, conn, CloseReason::Stopped);
        }
    }

    /// Two peers that only upload have nothing for each other.
    pub(super) fn close_useless(&mut self, now: Instant) {
        if self.phase != Phase::Seeding {
            return;
        }
        let useless = self.peers.iter().filter(|(_, p)| p.conn.is_upload_only());
        let useless: Vec<_> = useless.map(|(conn, _)| *conn).collect();
        for conn in useless {
            self.close(now, conn, CloseReason::Useless);
        }
    }
}

const CLIENT: &str = concat!("trackless ", env!("CARGO_PKG_VERSION"));
/// Connections from one public address: a few people behind one NAT.
const CONNECTIONS_PER_IP_MAX: usize = 8;
/// A connection that lasted so long was no accident.
const USEFUL_TIME: Duration = Duration::from_secs(60);
