//! One torrent: the switchboard between its connections, its storage and its parts.
//!
//! Phases: [`Phase::FetchingMetadata`] (only with a magnet) → [`Phase::Checking`] (the storage
//! looks what is there) → [`Phase::Downloading`] → [`Phase::Seeding`]. What happens in each is in
//! the files below this one, by responsibility: `connections` (who is here), `places` (who has to
//! leave for whom), `fetching` (the info
//! dictionary), `downloading`, `uploading`, `offering`
//! (what we say we have), `losing` (pieces that are gone again), `gossip` (peer exchange), `pacing`
//! (rate limits, and rest), `reading` (who reads while it comes), `status` (for eyes).
//!
//! Small messages are collected in each connection and leave when the host asks for output: what
//! many frames caused goes out as one buffer.

mod connections;
mod downloading;
mod fetching;
mod gossip;
mod losing;
mod offering;
mod pacing;
mod places;
mod reading;
mod status;
#[cfg(test)]
mod tests;
mod uploading;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use self::connections::Peer;
use self::downloading::Transfer;
use self::places::{DISPLACED_MAX, Newcomer};
use self::reading::Hold;
use crate::base::bounded::LimitedMap;
use crate::base::time::soonest;
use crate::base::{InfoHash, Instant, PeerId, Rng, Seed};
use crate::peer::{ConnId, Geometry, Meter};
use crate::swarm::candidates::Candidates;
use crate::swarm::choker::Choker;
use crate::swarm::layout::Layout;
use crate::swarm::metadata::MetadataFetch;
use crate::swarm::pex::Parted;
use crate::swarm::superseed::SuperSeed;
use crate::swarm::throttle::Throttle;
use crate::swarm::{
    Config, DialError, DiskEvent, DiskRequest, Event, Output, PeerSource, Phase, ReaderId,
    StopCause,
};
use crate::wire::handshake::Handshake;
use crate::wire::metainfo::Info;

/// One torrent.
#[derive(Debug)]
pub struct Torrent {
    config: Config,
    info_hash: InfoHash,
    phase: Phase,
    /// The time of the last input.
    now: Instant,
    peers: BTreeMap<ConnId, Peer>,
    /// Who was behind a connection: a piece may fail after its giver has left.
    addrs: LimitedMap<ConnId, SocketAddr>,
    /// Behind a private address the port of an incoming connection says nothing: bans there hold
    /// by peer id, too.
    banned_ids: LimitedMap<(IpAddr, PeerId), ()>,
    /// Who had to leave for others, and when.
    displaced: LimitedMap<IpAddr, Instant>,
    candidates: Candidates,
    /// Who may be told of, though we hung up on them.
    parted: Parted,
    choker: Choker,
    metadata: MetadataFetch,
    content: Option<Content>,
    transfer: Option<Transfer>,
    super_seed: Option<SuperSeed>,
    down: Throttle,
    up: Throttle,
    /// Without connections, by command.
    paused: bool,
    /// Why it stopped by itself.
    stopped_by: Option<StopCause>,
    /// What readers wait for.
    windows: BTreeMap<ReaderId, Range<u32>>,
    hold: Hold,
    checking: (u64, u64),
    download: Meter,
    /// When the last block came.
    block_at: Instant,
    upload: Meter,
    wasted: u64,
    hash_failures: u32,
    outputs: VecDeque<Output>,
    /// Connections with something to say.
    talkative: Vec<ConnId>,
    next_tick: Option<Instant>,
    ticks: u64,
    rng: Rng,
}

/// What the info dictionary says.
#[derive(Debug)]
struct Content {
    bytes: Bytes,
    info: Info,
    layout: Layout,
}

impl Content {
    fn geometry(&self) -> Geometry {
        let pieces = self.layout.piece_count();
        let last = pieces.checked_sub(1).and_then(|last| self.layout.piece(last));
        Geometry {
            pieces,
            piece_len: self.layout.piece_length(),
            last_len: last.map_or(0, |last| self.layout.piece_len(last)),
        }
    }
}

impl Torrent {
    /// A torrent. With `info`, whose hash the caller has checked, it goes to [`Phase::Checking`] at
    /// once; without, it has to be fetched from peers.
    pub fn new(
        config: Config,
        info_hash: InfoHash,
        info: Option<Bytes>,
        seed: Seed,
        now: Instant,
    ) -> Torrent {
        let mut rng = Rng::from_seed(seed);
        let mut torrent = Self {
            info_hash,
            phase: Phase::FetchingMetadata,
            now,
            peers: BTreeMap::new(),
            addrs: LimitedMap::new(ADDRS_MAX),
            banned_ids: LimitedMap::new(BANNED_IDS_MAX),
            displaced: LimitedMap::new(DISPLACED_MAX),
            candidates: Candidates::new(CANDIDATES_MAX, rng.fork()),
            parted: Parted::default(),
            choker: Choker::new(config.upload_slots, rng.fork()),
            metadata: MetadataFetch::new(),
            content: None,
            transfer: None,
            super_seed: None,
            down: Throttle::new(config.limits.down, now),
            up: Throttle::new(config.limits.up, now),
            paused: config.paused,
            stopped_by: None,
            windows: BTreeMap::new(),
            hold: Hold::Off,
            checking: (0, 0),
            download: Meter::new(now),
            block_at: now,
            upload: Meter::new(now),
            wasted: 0,
            hash_failures: 0,
            outputs: VecDeque::new(),
            talkative: Vec::new(),
            next_tick: None,
            ticks: 0,
            rng,
            config,
        };
        if let Some(info) = info {
            torrent.use_info(now, info);
        }
        torrent
    }

    // --- inputs -------------------------------------------------------------------------------

    /// Somebody heard of peers.
    pub fn add_peers(&mut self, now: Instant, source: PeerSource, peers: &[SocketAddr]) {
        self.now = now;
        for addr in peers {
            self.candidates.add(now, source, *addr, None);
        }
        self.dial(now);
    }

    /// Our own addresses, as listened on and as others see them: they are never dialled.
    pub fn set_own_addrs(&mut self, own: &[SocketAddr]) {
        self.candidates.set_own(own);
    }

    /// A dial that we asked for succeeded.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId, addr: SocketAddr) {
        self.now = now;
        self.on_connected(now, conn, addr);
        self.schedule(now);
    }

    /// A dial that we asked for failed.
    pub fn handle_connect_failed(&mut self, now: Instant, addr: SocketAddr, error: DialError) {
        self.now = now;
        self.candidates.on_dial_failed(now, addr, error);
        self.dial(now);
    }

    /// A peer connected to us and named this torrent.
    pub fn handle_accepted(
        &mut self,
        now: Instant,
        conn: ConnId,
        addr: SocketAddr,
        handshake: Handshake,
    ) {
        self.now = now;
        self.on_accepted(now, conn, addr, handshake);
        self.schedule(now);
    }

    /// A frame came. On a connection that we dialled the first one is the handshake.
    pub fn handle_frame(&mut self, now: Instant, conn: ConnId, frame: Bytes) {
        self.now = now;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        match peer.conn.handle_frame(now, &frame) {
            Ok(received) => self.on_received(now, conn, received),
            Err(misbehavior) => self.on_misbehavior(now, conn, misbehavior),
        }
        self.mark(conn);
    }

    /// The host wrote `bytes` bytes of what was queued on a connection.
    pub fn handle_sent(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        self.now = now;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let before = peer.conn.upload.total();
        peer.conn.handle_sent(now, bytes);
        let blocks = peer.conn.upload.total() - before;
        self.upload.add(usize::try_from(blocks).unwrap_or(usize::MAX));
        self.read_ahead(conn);
    }

    /// A connection is over, by the peer or by the network.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        self.now = now;
        self.on_closed(now, conn);
        self.dial(now);
    }

    /// The storage answers.
    pub fn handle_disk(&mut self, now: Instant, event: DiskEvent) {
        self.now = now;
        if self.phase == Phase::Stopped {
            return;
        }
        match event {
            DiskEvent::Checking { done, total } => self.checking = (done, total),
            DiskEvent::Opened { have } => self.on_opened(now, have),
            DiskEvent::Written { len, .. } => self.on_written(now, len),
            DiskEvent::Hashed { piece, digest } => self.on_hashed(now, piece, digest),
            DiskEvent::BlocksHashed { piece, digests } => {
                self.on_blocks_hashed(now, piece, &digests);
            }
            DiskEvent::Read { conn, piece, begin, block } => {
                self.on_read(now, conn, piece.get(), begin, &block);
            }
            DiskEvent::ReadFailed { conn, piece, begin, len, is_lost } => {
                self.on_read_failed(conn, piece.get(), begin, len);
                if is_lost {
                    self.on_piece_lost(now, piece);
                }
            }
            DiskEvent::FileChanged { file } => self.say_event(Event::FileChanged { file }),
            DiskEvent::Flushed => self.on_flushed(),
            DiskEvent::Failed(error) => {
                self.stopped_by = Some(StopCause::Storage(error.clone()));
                self.say_event(Event::Failed(error));
                self.stop(now);
            }
        }
    }

    /// The time of [`Torrent::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.next_tick.is_some_and(|at| at <= now) {
            self.next_tick = Some(now + TICK);
            self.tick(now);
            self.schedule(now);
        }
        self.go_on_if_due(now);
        self.dial(now);
    }

    // --- commands -----------------------------------------------------------------------------

    /// Other files are wanted now; `None` means all.
    pub fn select(&mut self, now: Instant, wanted: Option<Vec<bool>>) {
        self.now = now;
        self.config.wanted = wanted;
        if self.phase != Phase::Stopped {
            self.on_select(now);
        }
    }

    /// Pieces in order of their index from now on, or rarest first.
    pub fn set_sequential(&mut self, sequential: bool) {
        self.config.sequential = sequential;
        self.transfer.iter_mut().for_each(|t| t.picker.set_sequential(sequential));
    }

    /// Ends the torrent: closes its connections and its storage. Nothing follows what this gives
    /// out.
    pub fn stop(&mut self, now: Instant) {
        self.now = now;
        if self.phase == Phase::Stopped {
            return;
        }
        self.phase = Phase::Stopped;
        self.close_all(now);
        self.next_tick = None;
        if self.content.is_some() && !self.config.metadata_only {
            self.outputs.push_back(Output::Disk(DiskRequest::Close));
        }
    }

    // --- outputs ------------------------------------------------------------------------------

    /// The next effect for the host to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            let talkative = std::mem::take(&mut self.talkative);
            for conn in &talkative {
                self.flush(*conn);
            }
            // The allocation is kept for the next time.
            self.talkative = talkative;
            self.talkative.clear();
        }
        self.outputs.pop_front()
    }

    /// When [`Torrent::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Stopped {
            return None;
        }
        let dial = self.may_dial().then(|| self.candidates.poll_timeout()).flatten();
        let paced = soonest(self.down.poll_timeout(), self.up.poll_timeout());
        soonest(soonest(self.next_tick, paced), dial.map(|at| at.max(self.now)))
    }

    // --- the small steps ----------------------------------------------------------------------

    fn say_event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn ask_disk(&mut self, request: DiskRequest) {
        self.outputs.push_back(Output::Disk(request));
    }

    // Remembers that a connection has something to say.
    fn mark(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.conn.has_output() && !peer.is_talkative {
            peer.is_talkative = true;
            self.talkative.push(conn);
        }
    }

    // Hands what a connection said to the host.
    fn flush(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.is_talkative = false;
        if let Some(bytes) = peer.conn.take_output(self.now) {
            self.outputs.push_back(Output::Send { conn, bytes });
        }
    }

    fn schedule(&mut self, now: Instant) {
        if self.phase == Phase::Stopped || self.peers.is_empty() {
            self.next_tick = None;
        } else if self.next_tick.is_none() {
            self.next_tick = Some(now + TICK);
        }
    }

    // A few times a second while anybody is connected: what is overdue, and what has slowed down.
    fn tick(&mut self, now: Instant) {
        self.ticks += 1;
        self.download.roll(now);
        self.upload.roll(now);
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in &conns {
            let Some(peer) = self.peers.get_mut(conn) else { continue };
            if let Err(reason) = peer.conn.tick(now) {
                self.close(now, *conn, reason);
            }
        }
        match self.phase {
            Phase::FetchingMetadata => self.ask_for_metadata(now),
            Phase::Downloading => {
                self.tend_hold(now);
                self.tend_fellows();
                self.tend_downloads(now);
            }
            Phase::Seeding => self.close_useless(now),
            Phase::Checking | Phase::Stopped => {}
        }
        self.tend_uploads(now);
        self.tend_offers(now);
        let is_full = self.peers.len() >= self.config.connections_max;
        if is_full && self.candidates.ready(now) > 0 {
            self.make_room(now, Newcomer::Known);
        }
        if self.ticks % PEX_TICKS == 1 {
            self.tell_peers(now);
        }
        for conn in conns {
            self.mark(conn);
        }
    }
}

/// The beat of everything that has no deadline of its own: a stalled peer is noticed within it.
const TICK: Duration = Duration::from_millis(500);
/// Peer exchange is looked at every five seconds.
const PEX_TICKS: u64 = 10;
/// Known peers of one torrent.
const CANDIDATES_MAX: usize = 3_000;
/// Connections whose address is remembered after they are gone.
const ADDRS_MAX: usize = 4_096;
/// Banned peer ids behind private addresses.
const BANNED_IDS_MAX: usize = 1_024;
