//! `Dht`: the library's handle on the DHT alone. It comes from a [`Session`], or starts by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::base::{InfoHash, Key, NodeId};
use crate::dht::{self, Item, ItemKey, Step};
use crate::driver::command::{Command, DhtCommand};
use crate::driver::{DhtError, Lookup, NodeStatus, Session, SessionConfig, SessionError};
use crate::engine::NodeEvent;

/// What a DHT node is to be.
#[derive(Debug, Clone)]
pub struct DhtConfig {
    /// Where to listen, one node for each address; port 0 picks one. Empty: any IPv4 and any IPv6
    /// address (BEP 32: each family has a DHT of its own).
    pub listen: Vec<SocketAddr>,
    /// `host:port` of nodes to start from; [`public_bootstrap`] has those of the public network.
    pub bootstrap: Vec<String>,
    /// Ask, but answer nobody (BEP 43): for a program that runs for seconds.
    pub read_only: bool,
    /// Where node ids and contacts are kept; nowhere if `None`.
    pub state_dir: Option<PathBuf>,
    /// Queries a second answered to one address; `None` for no limit.
    pub per_ip_rate: Option<u32>,
    /// Have nothing to do with public nodes whose id breaks BEP 42.
    pub enforce_node_ids: bool,
    /// New flows a second that our queries may open; `None` for any number. A home router keeps an
    /// entry for each.
    pub flows_per_second: Option<u32>,
}

impl Default for DhtConfig {
    /// A node that answers everybody and knows nobody to start from.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            bootstrap: Vec::new(),
            read_only: false,
            state_dir: None,
            per_ip_rate: Some(dht::PER_IP_RATE),
            enforce_node_ids: false,
            flows_per_second: Some(dht::FLOWS_PER_SECOND),
        }
    }
}

/// A running DHT node, or two: one for each address family. Clones share it; when the last one is
/// dropped, and the last [`Lookup`] with it, the node ends.
///
/// Every lookup starts at once, from whatever nodes are known by then, and has a definite end.
///
/// ```
/// # use trackless::base::InfoHash;
/// # use trackless::driver::{Dht, DhtConfig, DhtError};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // Two nodes on loopback; the second starts from the first.
/// let listen = vec!["127.0.0.1:0".parse()?];
/// let first = Dht::start(DhtConfig { listen: listen.clone(), ..DhtConfig::default() }).await?;
/// let bootstrap = vec![first.local_addrs()[0].to_string()];
/// let dht = Dht::start(DhtConfig { listen, bootstrap, ..DhtConfig::default() }).await?;
///
/// let info_hash = InfoHash::new([7; 20]);
/// assert_eq!(dht.announce(info_hash, Some(4711)).await.finish().await?.announced(), 1);
///
/// let mut peers = first.get_peers(info_hash).await;
/// assert_eq!(peers.next().await, Some("127.0.0.1:4711".parse()?));
/// assert_eq!(peers.next().await, None, "the lookup is over");
/// println!("{} nodes were asked", peers.finish().await?.asked());
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(example())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dht {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) local_addrs: Arc<[SocketAddr]>,
}

/// A node that answered a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// Its id.
    pub id: NodeId,
    /// How long the answer took.
    pub rtt: Duration,
}

/// Some of the torrents that a node has peers of (BEP 51).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The node.
    pub from: SocketAddr,
    /// Some of its torrents.
    pub info_hashes: Vec<InfoHash>,
    /// How many it has in all.
    pub total: u64,
    /// It is to be left in peace for so long.
    pub interval: Duration,
}

impl Dht {
    /// Binds, loads state, and starts. It bootstraps by itself; nobody has to wait for it.
    ///
    /// # Errors
    ///
    /// If an address cannot be bound, or the system has no randomness.
    pub async fn start(config: DhtConfig) -> Result<Dht, SessionError> {
        let config = SessionConfig {
            listen: config.listen,
            bootstrap: config.bootstrap,
            read_only: config.read_only,
            state_dir: config.state_dir,
            per_ip_rate: config.per_ip_rate,
            enforce_node_ids: config.enforce_node_ids,
            flows_per_second: config.flows_per_second,
            accept: false,
            ..SessionConfig::default()
        };
        Ok(Session::start(config).await?.dht())
    }

    /// The bound addresses.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Where each node stands.
    ///
    /// # Errors
    ///
    /// [`DhtError::Ended`] after a shutdown.
    pub async fn status(&self) -> Result<Vec<NodeStatus>, DhtError> {
        let status = self.ask(Command::SessionStatus).await;
        status.map(|s| s.nodes).ok_or(DhtError::Ended)
    }

    /// Asks one node for its id (BEP 5 `ping`).
    ///
    /// # Errors
    ///
    /// [`DhtError::NoAnswer`] after eight seconds without an answer, [`DhtError::Refused`] if no
    /// node of that address family runs here.
    pub async fn ping(&self, addr: SocketAddr) -> Result<Pong, DhtError> {
        let mut news = self.begin(DhtCommand::Ping(addr)).await;
        loop {
            match news.recv().await {
                Some(NodeEvent::Pinged { id: Some(id), rtt }) => {
                    return Ok(Pong { id, rtt: rtt.unwrap_or_default() });
                }
                Some(NodeEvent::Pinged { id: None, .. }) => return Err(DhtError::NoAnswer(addr)),
                Some(NodeEvent::Refused(why)) => return Err(why.into()),
                Some(
                    NodeEvent::Peers(_)
                    | NodeEvent::Item(_)
                    | NodeEvent::Samples { .. }
                    | NodeEvent::Step(_)
                    | NodeEvent::Done { .. },
                ) => {}
                None => return Err(DhtError::Ended),
            }
        }
    }

    /// Looks for the nodes closest to `target` (BEP 5 `find_node`). They come when the lookup is
    /// over: at most eight of each address family, nearest first.
    pub async fn find_node(&self, target: NodeId) -> Lookup<(NodeId, SocketAddr)> {
        self.look_up(DhtCommand::FindNode(target), |event, found| {
            if let NodeEvent::Done { report, .. } = event {
                found.extend(&report.nodes);
            }
        })
        .await
    }

    /// Looks for the peers of a torrent (BEP 5 `get_peers`). They come as nodes name them, each
    /// once for each address family.
    pub async fn get_peers(&self, info_hash: InfoHash) -> Lookup<SocketAddr> {
        self.look_up(DhtCommand::GetPeers(info_hash), peers).await
    }

    /// The same search for one of thousands: it waits for its turn, behind all that is asked for in other
    /// ways, and those that wait go in the order of their hashes, so that each starts from what its
    /// neighbour has just learnt. Ask for all of them at once, up to some thousands; how many are under way
    /// at a time follows from [`DhtConfig::flows_per_second`]. So the last may take minutes.
    pub async fn get_peers_in_bulk(&self, info_hash: InfoHash) -> Lookup<SocketAddr> {
        self.look_up(DhtCommand::GetPeersInBulk(info_hash), peers).await
    }

    /// The same search as [`get_peers`](Self::get_peers), told step by step: whom it asks, how far
    /// each is from the target, how long each answer takes, and what comes with it.
    pub async fn trace_peers(&self, info_hash: InfoHash) -> Lookup<Step> {
        self.look_up(DhtCommand::TracePeers(info_hash), |event, found| {
            if let NodeEvent::Step(step) = event {
                found.push_back(step.clone());
            }
        })
        .await
    }

    /// Counts who has a torrent (BEP 33); [`Outcome::scrape`](super::Outcome::scrape) tells how many. The stream has the peers
    /// that were named on the way.
    pub async fn scrape(&self, info_hash: InfoHash) -> Lookup<SocketAddr> {
        self.look_up(DhtCommand::Scrape(info_hash), peers).await
    }

    /// Asks the nodes on the way to `target` which torrents they have peers of (BEP 51
    /// `sample_infohashes`). Each node that answers that query says one sample; keep to its interval.
    pub async fn sample(&self, target: Key) -> Lookup<Sample> {
        self.look_up(DhtCommand::Sample(target), |event, found| {
            if let NodeEvent::Samples { from, info_hashes, total, interval } = event {
                let (from, total, interval) = (*from, *total, *interval);
                found.push_back(Sample { from, info_hashes: info_hashes.clone(), total, interval });
            }
        })
        .await
    }

    /// Looks for an item (BEP 44 `get`). Each that comes has proven itself by its hash or signature; of
    /// a mutable one, newer versions follow as they turn up, so the last is the newest.
    pub async fn get_item(&self, key: ItemKey) -> Lookup<Item> {
        self.look_up(DhtCommand::GetItem(key), items).await
    }

    /// Stores an item at the nodes closest to its key (BEP 44 `put`): [`Outcome::announced`](super::Outcome::announced) says how
    /// many took it, [`Outcome::refused`](super::Outcome::refused) why others did not. With `cas`, a node stores it only in the
    /// place of that version, or of none. The stream has what is stored there now, if that is newer.
    /// Nodes forget it after two hours: see [`keep_item`](Self::keep_item).
    ///
    /// ```
    /// # use trackless::driver::{Dht, DhtConfig};
    /// use trackless::dht::{SecretKey, string_value};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listen = vec!["127.0.0.1:0".parse()?];
    /// # let first = Dht::start(DhtConfig { listen: listen.clone(), ..DhtConfig::default() }).await?;
    /// # let bootstrap = vec![first.local_addrs()[0].to_string()];
    /// # let dht = Dht::start(DhtConfig { listen, bootstrap, ..DhtConfig::default() }).await?;
    /// let key = SecretKey::from_seed(&[7; 32]);
    /// let item = key.sign(b"news", 1, string_value(b"first edition"))?;
    /// let outcome = dht.put_item(item.clone(), None).await.finish().await?;
    /// assert_eq!(outcome.announced(), 1, "there is one other node");
    ///
    /// let mut found = first.get_item(item.key()).await;
    /// assert_eq!(found.next().await.as_ref().and_then(|i| i.content()), Some(&b"first edition"[..]));
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(example())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn put_item(&self, item: Item, cas: Option<i64>) -> Lookup<Item> {
        self.look_up(DhtCommand::PutItem(item, cas), items).await
    }

    /// Stores an item, and keeps it stored: looks every hour whether it still is, and stores it anew
    /// where it is not, or a newer version that turned up. It needs no secret key, so an item of
    /// somebody else can be kept as well. Ends with [`drop_item`](Self::drop_item), or with the node.
    ///
    /// False if it is not kept: its signature does not fit, it is older than what is kept already, or
    /// too many are.
    ///
    /// # Errors
    ///
    /// [`DhtError::Ended`] after a shutdown.
    pub async fn keep_item(&self, item: Item) -> Result<bool, DhtError> {
        self.ask(|reply| Command::KeepItem(item, reply)).await.ok_or(DhtError::Ended)
    }

    /// Keeps an item no longer. False if it was not kept.
    ///
    /// # Errors
    ///
    /// [`DhtError::Ended`] after a shutdown.
    pub async fn drop_item(&self, key: &ItemKey) -> Result<bool, DhtError> {
        let target = key.target();
        self.ask(|reply| Command::DropItem(target, reply)).await.ok_or(DhtError::Ended)
    }

    /// Looks for the peers of a torrent and then announces this machine to the closest nodes
    /// (BEP 5 `announce_peer`): at `port`, or at the port from which our datagrams come. Nodes
    /// forget it after half an hour or more: [`keep_announced`](Self::keep_announced) sees to that.
    pub async fn announce(&self, info_hash: InfoHash, port: Option<u16>) -> Lookup<SocketAddr> {
        self.look_up(DhtCommand::Announce(info_hash, port), peers).await
    }

    /// Announces this machine as a peer of a torrent for as long as the node runs, at `port` or at the port
    /// from which our datagrams come. With up to 100,000 torrents each is announced again before nodes
    /// forget it, within [`DhtConfig::flows_per_second`] and behind whatever somebody waits for;
    /// [`NodeStatus::announcing`] tells how many are held, what that costs, and whether it is too much.
    /// Torrents of a [`Session`] announce themselves. Ends with [`drop_announced`](Self::drop_announced).
    ///
    /// False if it is not kept: too many are.
    ///
    /// # Errors
    ///
    /// [`DhtError::Ended`] after a shutdown.
    pub async fn keep_announced(
        &self,
        info_hash: InfoHash,
        port: Option<u16>,
    ) -> Result<bool, DhtError> {
        let kept = self.ask(|reply| Command::KeepAnnounced(info_hash, port, reply)).await;
        kept.ok_or(DhtError::Ended)
    }

    /// Announces it no more; nodes forget it within the hour. False if it was not kept announced.
    ///
    /// # Errors
    ///
    /// [`DhtError::Ended`] after a shutdown.
    pub async fn drop_announced(&self, info_hash: InfoHash) -> Result<bool, DhtError> {
        let dropped = self.ask(|reply| Command::DropAnnounced(info_hash, reply)).await;
        dropped.ok_or(DhtError::Ended)
    }

    /// Ends the node and saves its state. Takes a few seconds at most. Every clone ends with it.
    pub async fn shutdown(&self) {
        self.ask(Command::Shutdown).await;
    }

    async fn look_up<T>(
        &self,
        command: DhtCommand,
        pick: fn(&NodeEvent, &mut VecDeque<T>),
    ) -> Lookup<T> {
        let news = self.begin(command).await;
        Lookup::new(news, self.commands.clone(), pick)
    }

    async fn begin(&self, command: DhtCommand) -> mpsc::Receiver<NodeEvent> {
        let (news, events) = mpsc::channel(NEWS_QUEUED_MAX);
        // A node that has ended drops `news`: the caller hears that.
        let _ = self.commands.send(Command::Dht(command, news)).await;
        events
    }

    // A node that has ended answers nothing.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn peers(event: &NodeEvent, found: &mut VecDeque<SocketAddr>) {
    if let NodeEvent::Peers(peers) = event {
        found.extend(peers);
    }
}

fn items(event: &NodeEvent, found: &mut VecDeque<Item>) {
    if let NodeEvent::Item(item) = event {
        found.push_back(item.clone());
    }
}

/// `host:port` of nodes that run for everybody: where the public network is entered.
pub fn public_bootstrap() -> impl Iterator<Item = &'static str> {
    include_str!("../../bootstrap-nodes.txt")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Events of one operation that wait for its caller: more than two nodes' lookups can have.
const NEWS_QUEUED_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
