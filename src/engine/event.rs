//! Names that the engine shares with its host, its effects and its news.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::dht;
use crate::peer::{CloseReason, ConnId};
use crate::swarm::{self, DiskRequest};

/// Names one UDP socket of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u8);

/// Names one torrent; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TorrentId(pub u32);

/// Names one DHT operation that the host asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// An effect that the host carries out. The host drains these after every call; one that sends many
/// datagrams at once takes them from `Engine::datagrams` first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// From which socket.
        socket: SocketId,
        /// Where to.
        to: SocketAddr,
        /// The bytes.
        datagram: Vec<u8>,
    },
    /// Connect; answer with `handle_connected` or `handle_connect_failed`.
    Connect {
        /// Its name from now on.
        conn: ConnId,
        /// Where to.
        addr: SocketAddr,
    },
    /// Write these bytes.
    Send {
        /// Which connection.
        conn: ConnId,
        /// Whole messages.
        bytes: Bytes,
    },
    /// Write a piece message: its head, then the block, uncopied.
    SendBlock {
        /// Which connection.
        conn: ConnId,
        /// Length prefix, id, piece index, offset.
        head: [u8; 13],
        /// The payload.
        block: Bytes,
    },
    /// Write what is queued, then close. No `handle_closed` follows.
    Close {
        /// Which connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// A job for a torrent's storage.
    Disk {
        /// Whose.
        torrent: TorrentId,
        /// What.
        request: DiskRequest,
    },
    /// Something the host may want to know.
    Event(Event),
}

/// News from the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From a torrent.
    Torrent {
        /// Which.
        torrent: TorrentId,
        /// What.
        event: swarm::Event,
    },
    /// A lookup for a torrent is over.
    LookupDone {
        /// Which torrent.
        torrent: TorrentId,
        /// What it did.
        report: dht::LookupReport,
    },
    /// About a DHT operation that the host asked for.
    Command {
        /// Which.
        command: CommandId,
        /// What.
        event: NodeEvent,
    },
    /// A node looked after an item that is kept.
    ItemKept {
        /// Which node.
        socket: SocketId,
        /// As it is now: somebody may have published a newer version.
        item: dht::Item,
        /// Nodes that had it.
        copies: usize,
        /// Nodes that stored it anew; none if it was well kept.
        stored: usize,
    },
    /// A node needs addresses to start from: resolve the bootstrap names and call `bootstrap`.
    NeedBootstrap(SocketId),
    /// A node learned the address that the world sees (BEP 42).
    ExternalAddress(SocketId, std::net::IpAddr),
    /// It became known, or doubtful, whether strangers reach a node (BEP 43).
    Reachability(SocketId, dht::Reachability),
}

/// What came of a DHT operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// New peers.
    Peers(Vec<SocketAddr>),
    /// The item, or a newer version of it than that node's lookup knew. It proved itself.
    Item(dht::Item),
    /// Torrents that a node has peers of.
    Samples {
        /// Which node.
        from: SocketAddr,
        /// The torrents.
        info_hashes: Vec<crate::base::InfoHash>,
        /// How many it has in all.
        total: u64,
        /// It is to be left in peace for so long.
        interval: std::time::Duration,
    },
    /// A step of a traced lookup.
    Step(dht::Step),
    /// One node's lookup is over; `last` if no other node still works on this command.
    Done {
        /// What it did.
        report: dht::LookupReport,
        /// No further event names this command.
        last: bool,
    },
    /// A ping is over.
    Pinged {
        /// The answering node's id.
        id: Option<crate::base::NodeId>,
        /// How long it took; `None` if no answer came.
        rtt: Option<std::time::Duration>,
    },
    /// It was not started.
    Refused(Refused),
}

impl NodeEvent {
    /// No further event names this command.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Peers(_) | Self::Item(_) | Self::Samples { .. } | Self::Step(_) => false,
            Self::Done { last, .. } => *last,
            Self::Pinged { .. } | Self::Refused(_) => true,
        }
    }
}

/// Why a DHT operation was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No node runs that could do it: the DHT is off, or off for that address family.
    #[error("no DHT node of that address family runs here")]
    NoNode,
    /// As many operations as may be are under way.
    #[error("too many DHT operations are under way")]
    Busy,
}

/// Why a torrent was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// It is here already.
    #[error("this torrent is being worked on already")]
    Duplicate(TorrentId),
    /// The engine has all the torrents it may have.
    #[error("too many torrents")]
    Full,
}
