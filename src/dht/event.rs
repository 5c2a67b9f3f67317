//! What comes out of a node.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::flows::Priority;
use super::reachability::Reachability;
use crate::base::{Distance, InfoHash, NodeId};
use crate::wire::item::Item;

/// Names one running lookup of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// Names one ping that the host asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub u64);

/// An effect that the host carries out. The host drains these after every call; one that sends many
/// datagrams at once takes them from `Node::datagrams` and the rest with `Node::poll_event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// At most `DATAGRAM_ITEM_MAX` bytes.
        datagram: Vec<u8>,
    },
    /// Something the host may want to know.
    Event(Event),
}

/// News from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A lookup heard of peers it had not named before.
    PeersFound {
        /// Which lookup.
        lookup: LookupId,
        /// New ones only.
        peers: Vec<SocketAddr>,
    },
    /// A lookup found the item, or a newer version of it than before. It proved itself.
    ItemFound {
        /// Which lookup.
        lookup: LookupId,
        /// With all that proves it.
        item: Item,
    },
    /// A node told a lookup some torrents that it has peers of.
    Samples {
        /// Which lookup.
        lookup: LookupId,
        /// Which node.
        from: SocketAddr,
        /// The torrents.
        info_hashes: Vec<InfoHash>,
        /// How many the node has in all.
        total: u64,
        /// It is to be left in peace for so long.
        interval: Duration,
    },
    /// An item that we keep alive was looked after; see [`Node::keep_item`](super::Node::keep_item).
    ItemKept {
        /// As it is now: somebody may have published a newer version.
        item: Item,
        /// Nodes that had it.
        copies: usize,
        /// Nodes that stored it anew; none if it was well kept.
        stored: usize,
    },
    /// A torrent that is kept announced was announced anew; see [`Announcement::keep`].
    Renewed {
        /// Which.
        info_hash: InfoHash,
        /// Those that the nodes knew.
        peers: Vec<SocketAddr>,
        /// What its lookup did.
        report: Box<LookupReport>,
    },
    /// A lookup is over. No further event names it.
    LookupDone {
        /// Which lookup.
        lookup: LookupId,
        /// What it did.
        report: LookupReport,
    },
    /// A step of a lookup that is traced: see [`Node::trace`](super::Node::trace).
    Step {
        /// Which lookup.
        lookup: LookupId,
        /// What happened.
        step: Step,
    },
    /// A ping asked for by the host was answered, or not (`rtt` is `None`).
    PingDone {
        /// Which ping.
        ping: PingId,
        /// The answering node's id.
        id: Option<NodeId>,
        /// How long it took.
        rtt: Option<Duration>,
    },
    /// The table is (nearly) empty and nobody in it answers: resolve the bootstrap names again and
    /// call `bootstrap`. Repeated with back-off while it stays true.
    NeedBootstrap,
    /// The table holds its first contacts, or many more than before: worth another lookup.
    TableGrew {
        /// Contacts that answered.
        contacts: usize,
    },
    /// Nodes of the other family, for the node beside us that knows nobody; see
    /// [`Node::seek_beside`](super::Node::seek_beside).
    ContactsBeside(Vec<SocketAddr>),
    /// Enough networks agree on the address they see us at (BEP 42).
    ExternalAddress(IpAddr),
    /// It became known, or doubtful, whether strangers reach us (BEP 43).
    Reachability(Reachability),
    /// Our id changed, because the external address did (BEP 42).
    IdChanged(NodeId),
}

/// One step of a traced lookup: something happened to one of its queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Since the start of the lookup.
    pub after: Duration,
    /// The node that was asked.
    pub to: SocketAddr,
    /// Its id: what it was known by, or answered as. None before the first answer of a bootstrap node.
    pub id: Option<NodeId>,
    /// How far it is from the target.
    pub distance: Option<Distance>,
    /// The query was to store, not to find.
    pub stores: bool,
    /// What happened.
    pub kind: StepKind,
}

/// What happened to a query of a traced lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// It was sent.
    Asked,
    /// It was answered.
    Answered {
        /// How long that took.
        rtt: Duration,
        /// Nodes that the answer names.
        contacts: usize,
        /// Of which nearer to the target than the answering one.
        nearer: usize,
        /// Peers that the answer names.
        peers: Vec<SocketAddr>,
        /// It gave a token, with which something can be stored there.
        has_token: bool,
    },
    /// It was answered with an error.
    Refused {
        /// How long that took.
        rtt: Duration,
        /// The error's number (BEP 5).
        code: i64,
    },
    /// It takes longer than answers do here: another may take its place.
    Stalled,
    /// Nobody waits for its answer any more, but one would still count.
    GivenUp,
    /// An answer no longer counts.
    Dead,
}

/// How we are announced, and how urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announcement {
    /// Where we are; `None` for the port from which our datagrams come.
    pub port: Option<u16>,
    /// We have the whole torrent (BEP 33).
    pub seed: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// Not once but from now on, until [`Node::stop_announcing`](super::Node::stop_announcing): it is
    /// renewed in time, and [`Event::Renewed`] tells. Refused silently beyond 100,000 torrents.
    pub keep: bool,
}

/// How it is with the torrents that a node keeps announced, and what that costs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Announcing {
    /// How many there are.
    pub torrents: usize,
    /// How many of them nodes took so lately that all of these still hold them.
    pub held: usize,
    /// In this time each is announced once, if the budget of new flows is enough for that.
    #[serde(serialize_with = "as_seconds")]
    pub interval: Duration,
    /// The longest time since nodes took one of those that they took before.
    #[serde(serialize_with = "as_seconds_if_any")]
    pub oldest: Option<Duration>,
    /// Some are announced too late, or will be: the budget does not suffice for all.
    pub is_behind: bool,
    /// Queries that a renewal takes, as a mean over the last ones.
    pub queries_each: f64,
    /// New flows that it opens.
    pub flows_each: f64,
    /// Queries a second that all of them take.
    pub queries_per_second: f64,
    /// New flows a second that they open.
    pub flows_per_second: f64,
    /// Renewals so far.
    pub renewals: u64,
    /// Those of them that nobody took.
    pub failures: u64,
    /// Queries that they all took.
    pub queries: u64,
    /// New flows that they opened.
    pub flows: u64,
}

fn as_seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

fn as_seconds_if_any<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(to)
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupKind {
    /// The nodes closest to a key.
    FindNode,
    /// The peers of a torrent.
    GetPeers(InfoHash),
    /// The peers of a torrent, then `announce_peer` to the closest nodes.
    Announce(InfoHash),
    /// How many have a torrent (BEP 33).
    Scrape(InfoHash),
    /// The newest version of an item (BEP 44).
    GetItem,
    /// The nodes that store an item, then `put` to the closest (BEP 44).
    PutItem,
    /// Torrents that the nodes on the way have peers of (BEP 51).
    Sample,
}

/// How many have a torrent, as the nodes closest to it count them (BEP 33). Estimates: with a thousand
/// they are a few hundredths off, beyond six thousand they say no more than "many".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrape {
    /// Those that have all of it.
    pub seeds: u32,
    /// The others.
    pub peers: u32,
    /// Nodes that counted.
    pub nodes: usize,
}

/// What a lookup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupReport {
    /// What it was for.
    pub kind: LookupKind,
    /// Nodes that were asked.
    pub asked: usize,
    /// Queries that it took, second tries included and announces not.
    pub queries: usize,
    /// Nodes that answered.
    pub answered: usize,
    /// Nodes that did not answer in time.
    pub dead: usize,
    /// How near the nearest answering node is.
    pub closest: Option<Distance>,
    /// The closest answering nodes, nearest first: at most eight.
    pub nodes: Vec<(NodeId, SocketAddr)>,
    /// Nodes that answered and are nearer to the target than chance brings so many: zero as a rule. Else
    /// somebody has put them there, and what they say about it is theirs.
    pub crowd: usize,
    /// Peers that were found, all distinct.
    pub peers: usize,
    /// Nodes that accepted our announce, or stored our item.
    pub announced: usize,
    /// The numbers of the errors with which the others refused our item. If one was found that is newer,
    /// or not the version to be replaced, nobody was asked, and these are what they would have said.
    pub refused: Vec<i64>,
    /// Nodes that had the newest version of the item, or said so, before we stored any.
    pub copies: usize,
    /// The count that was asked for.
    pub scrape: Option<Scrape>,
    /// What it has cost.
    pub cost: LookupCost,
    /// From its start to its end.
    pub took: Duration,
}

/// What a lookup has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LookupCost {
    /// Queries that it sent.
    pub queries: usize,
    /// Those of them that opened a flow: entries in a router on the way.
    pub flows: usize,
    /// Bytes of these queries, without the headers of UDP and IP.
    pub bytes: usize,
}

/// A contact worth remembering across a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedContact {
    /// Its id.
    pub id: NodeId,
    /// Its endpoint.
    pub addr: SocketAddr,
    /// Round trip in microseconds, smoothed; `None` if never measured.
    pub rtt_micros: Option<u32>,
    /// Seconds for which it was known to be good: the older, the likelier it is still there.
    pub age_secs: u32,
}
