//! What callers ask of the event loop, and what they are told.

use std::net::SocketAddr;
use std::sync::Weak;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::base::budget::RateLimits;
use crate::base::{InfoHash, Key, NodeId};
use crate::dht::{self, Item, ItemKey};
use crate::driver::news::News;
use crate::driver::{AddTorrent, Erased, ReadError, SessionEvent, SessionStatus};
use crate::engine::{AddError, NodeEvent, TorrentId};
use crate::swarm::{self, DiskError, FileStatus, PeerStatus, ReaderId};

/// A torrent that was added: its name in the engine and its news.
pub(super) type Added = (TorrentId, News);

/// A caller's wish. The loop answers through the sender inside.
#[derive(Debug)]
pub(super) enum Command {
    Add(Box<AddTorrent>, oneshot::Sender<Result<Added, AddError>>),
    /// Another handle on a torrent.
    Attach(InfoHash, oneshot::Sender<Option<Added>>),
    Remove(TorrentId, oneshot::Sender<()>),
    /// Removes it, and deletes what it wrote.
    Erase(TorrentId, oneshot::Sender<Result<Erased, DiskError>>),
    Pause(TorrentId),
    Resume(TorrentId),
    Recheck(TorrentId, oneshot::Sender<bool>),
    SetSequential(TorrentId, bool),
    /// Limits of one torrent, or of all together.
    SetLimits(Option<TorrentId>, RateLimits),
    Statuses(oneshot::Sender<Vec<TorrentStatus>>),
    Subscribe(oneshot::Sender<broadcast::Receiver<SessionEvent>>),
    AddPeers(TorrentId, Vec<SocketAddr>),
    Select(TorrentId, Option<Vec<bool>>),
    Status(TorrentId, oneshot::Sender<Option<TorrentStatus>>),
    Peers(TorrentId, oneshot::Sender<Vec<PeerStatus>>),
    Files(TorrentId, oneshot::Sender<Vec<FileStatus>>),
    /// A reader of one file, while its token lives.
    OpenReader(TorrentId, usize, Weak<()>, oneshot::Sender<Result<Opened, ReadError>>),
    Read(ReaderId, Read, oneshot::Sender<Result<Bytes, ReadError>>),
    Dht(DhtCommand, mpsc::Sender<NodeEvent>),
    KeepAnnounced(InfoHash, Option<u16>, oneshot::Sender<bool>),
    DropAnnounced(InfoHash, oneshot::Sender<bool>),
    KeepItem(Item, oneshot::Sender<bool>),
    DropItem(Key, oneshot::Sender<bool>),
    /// Some caller does not want to know any more what it asked for.
    Sweep,
    SessionStatus(oneshot::Sender<SessionStatus>),
    Shutdown(oneshot::Sender<()>),
}

/// A reader that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) reader: ReaderId,
    /// Bytes of its file.
    pub(super) len: u64,
}

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    /// Where in the file.
    pub(super) at: u64,
    /// At most so many bytes.
    pub(super) len: u32,
    /// So many bytes from there on will be wanted soon.
    pub(super) ahead: u64,
}

/// One DHT operation.
#[derive(Debug, Clone)]
pub(super) enum DhtCommand {
    GetPeers(InfoHash),
    GetPeersInBulk(InfoHash),
    TracePeers(InfoHash),
    Announce(InfoHash, Option<u16>),
    Scrape(InfoHash),
    Sample(Key),
    GetItem(ItemKey),
    PutItem(Item, Option<i64>),
    FindNode(NodeId),
    Ping(SocketAddr),
}

/// News from one torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TorrentEvent {
    /// From the swarm. `PieceVerified` is left out: ask for the status instead.
    Swarm(swarm::Event),
    /// A lookup for it is over.
    LookupDone(dht::LookupReport),
    /// So many were missed: they came faster than they were taken. Of the swarm's, what changed the
    /// torrent (its metadata, its data opened, finished, failed) is missed last; the status tells
    /// where it stands.
    Missed(u64),
}

/// Where a torrent stands: the stages `bootstrap -> nodes -> peers -> connected -> metadata -> data`.
#[derive(Debug, Clone, PartialEq)]
pub struct TorrentStatus {
    /// What the swarm has come to: the last four stages.
    pub swarm: swarm::Status,
    /// What the DHT has come to: the first three; `None` if the DHT is off for this torrent.
    pub dht: Option<DhtStage>,
}

/// The first stages of a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DhtStage {
    /// Bootstrap names given.
    pub bootstrap_names: usize,
    /// Addresses they stand for, as far as resolved.
    pub bootstrap_addrs: usize,
    /// Datagrams of any node that reached us and were valid.
    pub replies: u64,
    /// Contacts in our tables that answered.
    pub nodes: usize,
    /// Nodes asked for this torrent.
    pub asked: usize,
    /// Nodes that answered for this torrent.
    pub answered: usize,
    /// Peers that the DHT named for this torrent.
    pub peers_found: usize,
    /// Lookups that are over.
    pub lookups_done: usize,
    /// Lookups under way.
    pub lookups_running: usize,
    /// Nodes that hold our announce.
    pub announced: usize,
}
