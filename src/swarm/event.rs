//! What the host of a torrent decides, and what it is told.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::budget::RateLimits;
use crate::base::{InfoHash, PeerId};
use crate::peer::{CloseReason, ConnId, Misbehavior};
use crate::swarm::{DiskError, DiskRequest, PieceIndex};

/// Settings of one torrent.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our id in handshakes (BEP 20).
    pub peer_id: PeerId,
    /// The TCP port that others can reach us at; tells peers in the extension handshake.
    pub listen_port: Option<u16>,
    /// Our DHT node's port: peers are told it (BEP 5) if set.
    pub dht_port: Option<u16>,
    /// Connections of this torrent, dialled and accepted.
    pub connections_max: usize,
    /// Dials under way at once.
    pub half_open_max: usize,
    /// Peers that are served at once.
    pub upload_slots: usize,
    /// Which files are wanted; `None` means all.
    pub wanted: Option<Vec<bool>>,
    /// Pieces in order of their index rather than rarest first.
    pub sequential: bool,
    /// Hand each piece out once, if we have everything from the start and are alone (BEP 16).
    pub super_seeding: bool,
    /// Stop when the info dictionary is here: the torrent is only being resolved.
    pub metadata_only: bool,
    /// How fast payload may flow.
    pub limits: RateLimits,
    /// Start without connections, as after [`Torrent::pause`](crate::swarm::Torrent::pause).
    pub paused: bool,
}

impl Config {
    /// The settings of a normal download.
    pub fn new(peer_id: PeerId) -> Self {
        Self {
            peer_id,
            listen_port: None,
            dht_port: None,
            connections_max: 100,
            half_open_max: 30,
            upload_slots: 8,
            wanted: None,
            sequential: false,
            super_seeding: true,
            metadata_only: false,
            limits: RateLimits::default(),
            paused: false,
        }
    }
}

/// How we heard of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// The user, or `x.pe` in the magnet link (BEP 9): tried first.
    Given,
    /// A DHT lookup.
    Dht,
    /// Another peer (BEP 11).
    Pex,
    /// It connected to us.
    Incoming,
}

/// Names one reader of a torrent's data; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// Why a dial failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialError {
    /// Actively refused.
    Refused,
    /// No answer in time.
    Timeout,
    /// No route, network down, or not allowed.
    Unreachable,
}

/// An effect that the host carries out. The host drains these after every call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to this peer; answer with `handle_connected` or `handle_connect_failed`.
    Connect {
        /// Where to.
        addr: SocketAddr,
    },
    /// Write these bytes.
    Send {
        /// Which connection.
        conn: ConnId,
        /// Whole messages, or the handshake.
        bytes: Bytes,
    },
    /// Write a piece message: the 13 bytes of its head, then the block, uncopied.
    SendBlock {
        /// Which connection.
        conn: ConnId,
        /// Length prefix, id, piece index, offset.
        head: [u8; 13],
        /// The payload.
        block: Bytes,
    },
    /// Close after what was sent is written, as far as the peer takes it.
    Close {
        /// Which connection. The host does not answer with `handle_closed`.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// A job for the storage; answered through `handle_disk`.
    Disk(DiskRequest),
    /// Something the host may want to know.
    Event(Event),
}

/// News from a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The info dictionary is here and its hash is right.
    MetadataReady {
        /// Byte for byte.
        info: Bytes,
    },
    /// The info dictionary is here, but it cannot be used. The torrent stopped.
    MetadataUnusable {
        /// Byte for byte.
        info: Bytes,
        /// Why, in one line.
        reason: String,
    },
    /// The storage is ready; `have` of `pieces` are here already.
    Opened {
        /// Good pieces.
        have: u32,
        /// All pieces.
        pieces: u32,
    },
    /// One more piece is verified.
    PieceVerified(PieceIndex),
    /// A piece's data did not match its hash and will be fetched again.
    PieceFailed(PieceIndex),
    /// A verified piece is gone from the storage or cannot be read: peers are told, and while the
    /// download goes on it is fetched again.
    PieceLost(PieceIndex),
    /// Somebody else changed a file while it is shared: what of it does not match any more is not
    /// given away. Told once for each file.
    FileChanged {
        /// Its place among all files of the torrent, as in [`FileStatus::index`].
        file: usize,
    },
    /// All wanted data is verified, durable and recorded.
    Finished,
    /// The storage failed; the torrent stopped and keeps what it has.
    Failed(DiskError),
    /// A peer broke a rule; it was closed.
    PeerMisbehaved {
        /// Who.
        addr: SocketAddr,
        /// Which rule.
        misbehavior: Misbehavior,
    },
    /// A peer sent bad data or lied about metadata; its address is refused from now on.
    PeerBanned {
        /// Who.
        addr: SocketAddr,
    },
    /// A peer told us its DHT port (BEP 5).
    DhtNode {
        /// The node's endpoint.
        addr: SocketAddr,
    },
}

/// Why a torrent stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopCause {
    /// Its info dictionary is here, but cannot be used, in one line: it stays stopped.
    #[error("{0}")]
    Metadata(String),
    /// Its storage failed. [`Torrent::resume`](crate::swarm::Torrent::resume) tries again with what is
    /// there then.
    #[error(transparent)]
    Storage(DiskError),
}

/// What a torrent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The info dictionary is still missing.
    FetchingMetadata,
    /// The storage looks at what is there.
    Checking,
    /// Wanted pieces are missing.
    Downloading,
    /// Everything wanted is here.
    Seeding,
    /// Ended, by command or by failure.
    Stopped,
}

/// A snapshot for eyes and scripts. Cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// What it is doing.
    pub phase: Phase,
    /// It has no connections, by command.
    pub paused: bool,
    /// Why it stopped, if it did so by itself.
    pub stopped_by: Option<StopCause>,
    /// All wanted data is verified, durable and recorded.
    pub finished: bool,
    /// From the info dictionary, sanitised.
    pub name: Option<String>,
    /// It is known to be private (BEP 27): its peers are found by other means than the DHT.
    pub private: bool,
    /// Bytes wanted; 0 before the metadata.
    pub wanted_bytes: u64,
    /// Bytes wanted and verified.
    pub verified_bytes: u64,
    /// Bytes wanted and missing, of pieces that no connected peer is known to have. A peer that hands
    /// its pieces out one by one (BEP 16) does not say what else it has.
    pub unavailable_bytes: u64,
    /// Bytes checked and to check, while [`Phase::Checking`].
    pub checking: (u64, u64),
    /// Pieces in all.
    pub pieces: u32,
    /// Pieces verified.
    pub pieces_have: u32,
    /// Payload received, wasted blocks included.
    pub downloaded: u64,
    /// Payload sent.
    pub uploaded: u64,
    /// Bytes received that were thrown away: duplicates, blocks of failed pieces.
    pub wasted: u64,
    /// How long no payload has come.
    pub silent_for: Duration,
    /// Bytes a second, payload.
    pub download_rate: u64,
    /// Bytes a second, payload.
    pub upload_rate: u64,
    /// Distinct peers heard of.
    pub peers_known: usize,
    /// Distinct peers dialled so far.
    pub peers_tried: usize,
    /// Dials refused, timed out or unreachable so far.
    pub dials_failed: usize,
    /// Distinct peers whose handshake was good, ever.
    pub peers_reached: usize,
    /// Connections with a finished handshake.
    pub connected: usize,
    /// Dials under way.
    pub dialling: usize,
    /// Connected peers that have everything.
    pub seeds: usize,
    /// Metadata bytes received of the copy that is furthest, and its size.
    pub metadata: (usize, usize),
    /// Banned addresses.
    pub banned: usize,
    /// Pieces that failed their hash.
    pub hash_failures: u32,
    /// Estimated time left, if data flows.
    pub eta: Option<Duration>,
}

impl Status {
    /// Bytes wanted and not verified.
    pub fn missing_bytes(&self) -> u64 {
        self.wanted_bytes.saturating_sub(self.verified_bytes)
    }
}

/// One connected peer, for eyes and scripts.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// Its endpoint.
    pub addr: SocketAddr,
    /// Client name from the extension handshake (BEP 10), as sent: escape before printing.
    pub client: Option<String>,
    /// How we heard of it.
    pub source: PeerSource,
    /// Pieces it has.
    pub pieces_have: u32,
    /// Bytes a second from it.
    pub download_rate: u64,
    /// Bytes a second to it.
    pub upload_rate: u64,
    /// It does not let us ask.
    pub choked: bool,
    /// We do not let it ask.
    pub choking: bool,
}

/// One file of the torrent, for eyes and scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// Its place among all files of the torrent, padding counted: as BEP 53 (`so=`) and
    /// [`Config::wanted`] count.
    pub index: usize,
    /// Path below the output directory.
    pub path: std::path::PathBuf,
    /// Bytes.
    pub len: u64,
    /// Bytes verified.
    pub verified: u64,
    /// Is it wanted?
    pub wanted: bool,
}
